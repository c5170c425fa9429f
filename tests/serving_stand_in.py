"""Stands for `tensorflow_model_server` where that binary is not to be had.

It takes the flags of the original that the package uses, reads models.config, loads
SavedModels by the TF1 session loader as the original does, replays warm-up requests
before a version becomes available, watches folders and config, and speaks the REST and
gRPC of `tensorflow-serving-api`, with the original's status codes. Left out: computing
requests together (only its limits are kept), TLS, metadata, and all other APIs.

    python tests/serving_stand_in.py --port=8500 --rest_api_port=8501 \
        --model_config_file=models.config
"""

import argparse
import base64
import json
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import grpc
import numpy as np
import tensorflow as tf
from google.protobuf import text_format
from tensorflow_serving.apis import (
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_log_pb2,
    prediction_service_pb2_grpc,
)
from tensorflow_serving.config import model_server_config_pb2

_CODES = {
    tf.errors.InvalidArgumentError: (grpc.StatusCode.INVALID_ARGUMENT, 400),
    tf.errors.NotFoundError: (grpc.StatusCode.NOT_FOUND, 404),
    tf.errors.FailedPreconditionError: (grpc.StatusCode.FAILED_PRECONDITION, 412),
}
_PATH = re.compile(
    r"/v1/models/(?P<name>[^/:]+)(?:/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?"
)


def _fail(kind, message):
    raise kind(None, None, message)


def _invalid(message):
    _fail(tf.errors.InvalidArgumentError, message)


class Version:
    """One version of a model: a session, and where it stands."""

    def __init__(self, folder, flags):
        self.state, self.problem = "LOADING", ""
        self._session = tf.compat.v1.Session(graph=tf.Graph())
        self._is_batched = flags.enable_batching and (
            not flags.enable_per_model_batching_parameters
            or (folder / "batching_params.pbtxt").is_file()
        )
        try:
            with self._session.graph.as_default():
                loaded = tf.compat.v1.saved_model.load(
                    self._session, ["serve"], str(folder)
                )
            self.signatures = loaded.signature_def
            warmup = folder / "assets.extra" / "tf_serving_warmup_requests"
            records = tf.compat.v1.io.tf_record_iterator(str(warmup))
            for record in records if warmup.is_file() else ():
                log = prediction_log_pb2.PredictionLog.FromString(record)
                request = log.predict_log.request
                inputs = {k: tf.make_ndarray(v) for k, v in request.inputs.items()}
                self.run(request.model_spec.signature_name, inputs, ())
            self.state = "AVAILABLE"
        except Exception as error:
            self.state, self.problem = "END", str(error)

    def signature(self, name):
        if name not in self.signatures:
            _invalid(f'Serving signature key "{name}" not found.')
        return self.signatures[name]

    def run(self, signature_name, inputs, wanted):
        signature = self.signature(signature_name or "serving_default")
        if set(inputs) != set(signature.inputs):
            _invalid(
                f"input keys should be {sorted(signature.inputs)}, not {sorted(inputs)}"
            )
        if self._is_batched and any(np.ndim(array) == 0 for array in inputs.values()):
            _invalid("Batching Run() input tensors must have at least one dimension")
        names = list(wanted) or list(signature.outputs)
        if not set(names) <= set(signature.outputs):
            _invalid(f"output tensor alias not found in signature: {names}")
        fetches = {name: signature.outputs[name].name for name in names}
        feed = {signature.inputs[name].name: inputs[name] for name in inputs}
        try:
            return self._session.run(fetches, feed)
        except (ValueError, TypeError) as error:
            _invalid(str(error))

    def close(self):
        self._session.close()


class Models:
    """What is served, kept up with folders and config by a thread."""

    def __init__(self, flags):
        self._flags, self._lock = flags, threading.Lock()
        self._config, self._labels, self._versions = None, {}, {}
        self._read_config()
        self._read_folders()
        threading.Thread(target=self._watch, daemon=True).start()

    def find(self, name, version=None, label=None):
        with self._lock:
            available = {
                number: found
                for number, found in self._versions.get(name, {}).items()
                if found.state == "AVAILABLE"
            }
            if label and label not in self._labels.get(name, {}):
                _invalid(f"Unrecognized servable version label: {label}")
            version = self._labels[name][label] if label else version
            version = version or max(available, default=None)
            if version not in available:
                _fail(
                    tf.errors.NotFoundError,
                    f"Servable not found for request: {name} {version}",
                )
            return available[version]

    def states(self, name):
        with self._lock:
            if not self._versions.get(name):
                _fail(
                    tf.errors.NotFoundError,
                    f"Could not find any versions of model {name}",
                )
            return dict(sorted(self._versions[name].items(), reverse=True))

    def _watch(self):
        waits = {
            self._read_config: self._flags.model_config_file_poll_wait_seconds,
            self._read_folders: self._flags.file_system_poll_wait_seconds,
        }
        due = {job: time.monotonic() + wait for job, wait in waits.items()}
        while True:
            time.sleep(0.05)
            for job, wait in waits.items():
                if wait and time.monotonic() >= due[job]:
                    job()
                    due[job] = time.monotonic() + wait

    def _read_config(self):
        config = model_server_config_pb2.ModelServerConfig()
        text_format.Parse(Path(self._flags.model_config_file).read_text(), config)
        labels = {}
        for model in config.model_config_list.config:
            labels[model.name] = dict(model.version_labels)
            for label, version in model.version_labels.items():
                if not self._may_label(model.name, label, version):
                    return
        with self._lock:
            self._config, self._labels = config, labels

    def _may_label(self, name, label, version):
        """A label moves to available versions only; a new one is freer by a flag."""
        found = self._versions.get(name, {}).get(version)
        if found and found.state == "AVAILABLE":
            return True
        old = self._labels.get(name, {}).get(label, version)
        return (
            self._flags.allow_version_labels_for_unavailable_models and old == version
        )

    def _read_folders(self):
        for model in self._config.model_config_list.config:
            wanted = _wanted(model)
            served = self._versions.setdefault(model.name, {})
            for number in sorted(wanted.keys() - served.keys()):
                version = Version(wanted[number], self._flags)
                with self._lock:
                    served[number] = version
            for number in sorted(served.keys() - wanted.keys()):
                with self._lock:
                    served.pop(number).close()


def _wanted(model):
    folders = Path(model.base_path).iterdir()
    found = {int(path.name): path for path in folders if path.name.isdigit()}
    policy = model.model_version_policy
    if policy.WhichOneof("policy_choice") == "all":
        return found
    if policy.WhichOneof("policy_choice") == "specific":
        return {n: found[n] for n in policy.specific.versions if n in found}
    count = policy.latest.num_versions or 1
    return {n: found[n] for n in sorted(found)[-count:]}


class Service(
    prediction_service_pb2_grpc.PredictionServiceServicer,
    model_service_pb2_grpc.ModelServiceServicer,
):
    """gRPC."""

    def __init__(self, models):
        self._models = models

    def Predict(self, request, context):  # noqa: N802
        spec = request.model_spec
        try:
            number = spec.version.value if spec.HasField("version") else None
            version = self._models.find(spec.name, number, spec.version_label)
            inputs = {k: tf.make_ndarray(v) for k, v in request.inputs.items()}
            found = version.run(spec.signature_name, inputs, request.output_filter)
        except tuple(_CODES) as error:
            context.abort(_CODES[type(error)][0], error.message)
        response = predict_pb2.PredictResponse()
        for name, array in found.items():
            response.outputs[name].CopyFrom(_as_fields(array))
        return response

    def GetModelStatus(self, request, context):  # noqa: N802
        try:
            states = self._models.states(request.model_spec.name)
        except tf.errors.NotFoundError as error:
            context.abort(grpc.StatusCode.NOT_FOUND, error.message)
        response = get_model_status_pb2.GetModelStatusResponse()
        for number, version in states.items():
            status = response.model_version_status.add(version=number)
            status.state = get_model_status_pb2.ModelVersionStatus.State.Value(
                version.state
            )
            status.status.error_message = version.problem
        return response


def _as_fields(array):
    """The original puts values into typed fields, not into `tensor_content`."""
    proto = tf.make_tensor_proto(array)
    if proto.tensor_content:
        values = array.ravel().tolist()
        fields = {"float32": "float_val", "uint8": "int_val", "int32": "int_val"}
        fields |= {"int64": "int64_val", "bool": "bool_val"}
        getattr(proto, fields[array.dtype.name]).extend(values)
        proto.tensor_content = b""
    return proto


class Handler(BaseHTTPRequestHandler):
    """REST."""

    protocol_version = "HTTP/1.1"
    models: Models

    def do_GET(self):
        self._answer(self._status)

    def do_POST(self):
        self._answer(self._predict)

    def log_message(self, *arguments):
        pass

    def _answer(self, handle):
        try:
            code, body = 200, handle()
        except tuple(_CODES) as error:
            code, body = _CODES[type(error)][1], {"error": error.message}
        content = json.dumps(body, indent=1).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _status(self):
        match = _PATH.fullmatch(self.path) or _invalid(f"Malformed: {self.path}")
        return {
            "model_version_status": [
                {
                    "version": str(number),
                    "state": version.state,
                    "status": {"error_message": version.problem},
                }
                for number, version in self.models.states(match["name"]).items()
            ]
        }

    def _predict(self):
        content = self.rfile.read(int(self.headers["Content-Length"]))
        path, _, verb = self.path.rpartition(":")
        match = _PATH.fullmatch(path)
        if verb != "predict" or not match:
            _invalid(f"Malformed request: POST {self.path}")
        try:
            body = json.loads(content)
        except ValueError as error:
            _invalid(f"JSON Parse error: {error}")
        number = int(match["version"]) if match["version"] else None
        version = self.models.find(match["name"], number, match["label"])
        name = body.get("signature_name", "serving_default")
        signature = version.signature(name)
        inputs = _inputs(body, signature)
        found = version.run(name, inputs, ())
        outputs = {key: _to_json(key, array) for key, array in found.items()}
        if "inputs" in body:
            one = len(outputs) == 1
            return {"outputs": next(iter(outputs.values())) if one else outputs}
        rows = zip(*outputs.values(), strict=True)
        named = [dict(zip(outputs, row, strict=True)) for row in rows]
        if len(outputs) == 1:
            named = next(iter(outputs.values()))
        return {"predictions": named}


def _inputs(body, signature):
    """Arrays from a request in columns (`inputs`) or in rows (`instances`)."""
    only = next(iter(signature.inputs))
    if "inputs" in body:
        given = body["inputs"]
        if not isinstance(given, dict) or "b64" in given:
            given = {only: given}
    else:
        rows = body.get("instances") or _invalid("no instances")
        if not isinstance(rows[0], dict) or "b64" in rows[0]:
            rows = [{only: row} for row in rows]
        given = {key: [row[key] for row in rows] for key in rows[0]}
    arrays = {}
    for key, value in given.items():
        if key not in signature.inputs:
            _invalid(f"no input {key}")
        dtype = tf.as_dtype(signature.inputs[key].dtype).as_numpy_dtype
        arrays[key] = np.array(_from_json(value), dtype)
    return arrays


def _from_json(value):
    if isinstance(value, dict):
        return base64.b64decode(value["b64"])
    return [_from_json(part) for part in value] if isinstance(value, list) else value


def _to_json(name, array):
    if array.dtype != object:
        return array.tolist()
    is_bytes = name.endswith("_bytes")
    flat = [
        {"b64": base64.b64encode(v).decode()} if is_bytes else v.decode()
        for v in array.ravel()
    ]
    return np.array(flat, object).reshape(array.shape).tolist()


def _parse():
    parser = argparse.ArgumentParser()
    truth = {"type": lambda text: text == "true", "default": False}
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--rest_api_port", type=int, required=True)
    parser.add_argument("--model_config_file", required=True)
    parser.add_argument("--model_config_file_poll_wait_seconds", type=float, default=0)
    parser.add_argument("--file_system_poll_wait_seconds", type=float, default=1)
    parser.add_argument("--batching_parameters_file", type=Path)
    parser.add_argument("--enable_batching", **truth)
    parser.add_argument("--enable_per_model_batching_parameters", **truth)
    parser.add_argument("--allow_version_labels_for_unavailable_models", **truth)
    return parser.parse_args()


def main():
    flags = _parse()
    Handler.models = Models(flags)
    size = [
        ("grpc.max_receive_message_length", -1),
        ("grpc.max_send_message_length", -1),
    ]
    server = grpc.server(ThreadPoolExecutor(4), options=size)
    service = Service(Handler.models)
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(service, server)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(service, server)
    server.add_insecure_port(f"127.0.0.1:{flags.port}")
    server.start()
    ThreadingHTTPServer(("127.0.0.1", flags.rest_api_port), Handler).serve_forever()


if __name__ == "__main__":
    main()
