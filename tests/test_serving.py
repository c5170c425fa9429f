"""A served folder and the client, against a server in a process of its own.

The server is `tensorflow_model_server` if TENSORFLOW_MODEL_SERVER names it, and
otherwise `serving_stand_in`.
"""

import itertools
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import tensorflow as tf
import yaml
from google.protobuf import text_format

from anime_tf import images
from anime_tf.datasets.image_folder import find_pictures
from anime_tf.errors import UserError
from anime_tf.export.saved_model import export_classifier
from anime_tf.inference import Recognizer
from anime_tf.serving import config, layout, manifests
from anime_tf.serving.client import Client, connect
from anime_tf.serving.messages import PredictRequest
from anime_tf.serving.tensors import to_array, to_request
from anime_tf.serving.warmup import WARMUP
from tests import tiny

_WHY = "needs: pip install --no-deps 'tensorflow-serving-api==2.21.*'"
predict_pb2, prediction_log_pb2, model_server_config_pb2 = (
    pytest.importorskip(f"tensorflow_serving.{name}", reason=_WHY)
    for name in (
        "apis.predict_pb2",
        "apis.prediction_log_pb2",
        "config.model_server_config_pb2",
    )
)

_STAND_IN = [sys.executable, str(tiny.ROOT / "tests" / "serving_stand_in.py")]
_SERVER = os.environ.get("TENSORFLOW_MODEL_SERVER")
IMAGE = "tensorflow/serving:2.21.0"
TRANSPORTS = ("http", "grpc")
GENERATE = {
    "n": np.array(3, np.int32),
    "seed": np.array(7, np.int64),
    "truncation": np.array(0.5, np.float32),
}
# The command line where TensorFlow cannot be imported.
_WITHOUT_TENSORFLOW = """
import sys
sys.modules["tensorflow"] = sys.modules["keras"] = None
from anime_tf import cli
cli.main()
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return tiny.trained_run(tmp_path_factory)


@pytest.fixture(scope="module")
def pictures(trained):
    return find_pictures([trained.parent / "data"])[::6]


@pytest.fixture(scope="module")
def drawing(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drawing")
    tiny.sampler().save(folder)
    return folder


@pytest.fixture(scope="module")
def served(trained, drawing, tmp_path_factory):
    """A layout; its base path is where it lies, as for a server outside of Docker."""
    out = tmp_path_factory.mktemp("served") / "models"
    sources = {"classifier": trained, "generator": drawing}
    versions = layout.publish(sources, out, IMAGE, str(out), top_k=2)
    assert versions == {"classifier": 1, "generator": 1}
    return out


@pytest.fixture(scope="module")
def successor(trained, tmp_path_factory):
    """The same classifier, but it lists one name only."""
    folder = tmp_path_factory.mktemp("successor") / "export"
    export_classifier(Recognizer.load(trained), folder, top_k=1)
    return folder


def _free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def _wait(until, process=None):
    deadline = time.monotonic() + 240
    while True:
        try:
            if until():
                return
        except UserError:
            pass
        if time.monotonic() > deadline or (process and process.poll() is not None):
            pytest.fail("the server did not get there")
        time.sleep(0.1)


@pytest.fixture(scope="module")
def server(served, tmp_path_factory):
    """Addresses of a running server, by scheme."""
    ports = {scheme: _free_port() for scheme in TRANSPORTS}
    polling = "--model_config_file_poll_wait_seconds"
    flags = [flag for flag in config.server_flags(str(served)) if polling not in flag]
    flags += [f"{polling}=1", "--file_system_poll_wait_seconds=1"]
    flags += [f"--port={ports['grpc']}", f"--rest_api_port={ports['http']}"]
    command = [_SERVER] if _SERVER else _STAND_IN
    log = tmp_path_factory.mktemp("server") / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, *flags], cwd=tiny.ROOT, stdout=output, stderr=output
        )
    urls = {scheme: f"{scheme}://127.0.0.1:{port}" for scheme, port in ports.items()}
    try:
        for name in ("classifier", "generator"):
            model = connect(urls["http"], name, retries=0)
            _wait(lambda model=model: _is_available(model.states(), 1), process)
        yield urls
    finally:
        process.terminate()
        process.wait()
        # Shown with the test that failed.
        print(log.read_text(errors="replace"))


def _is_available(states, version):
    return f"version {version}: AVAILABLE" in states


@pytest.fixture(scope="module")
def expected(trained, pictures):
    return Recognizer.load(trained).predict(pictures)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_names_are_those_of_the_model(server, transport, pictures, expected):
    found = Client(server[transport]).predict(pictures, batch_size=5)
    assert [p.source for p in found] == [str(path) for path in pictures]
    for prediction, wanted in zip(found, expected, strict=True):
        assert prediction.name == wanted.name
        assert prediction.is_unknown == wanted.is_unknown
        assert [name for name, _ in prediction.top] == [n for n, _ in wanted.top[:2]]
        shares = [share for _, share in wanted.top[:2]]
        np.testing.assert_allclose([s for _, s in prediction.top], shares, atol=0.01)
        np.testing.assert_allclose(
            prediction.known_score, wanted.known_score, atol=0.05
        )
        assert prediction.confidence == prediction.top[0][1]


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_bad_picture_has_a_problem_and_stops_nobody(
    server, transport, pictures, expected, tmp_path
):
    absent = tmp_path / "absent.png"
    sources = [b"no picture", pictures[0], absent, pictures[0].read_bytes()]
    bad, first, gone, second = Client(server[transport]).predict(sources, top_k=1)
    assert "the server cannot read it" in bad.problem
    assert (bad.source, bad.name, bad.top) == ("0", "", ())
    assert "cannot be read" in gone.problem
    assert first.name == second.name == expected[0].name
    assert len(first.top) == 1


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_drawings_are_those_of_the_model(server, served, transport):
    model = connect(server[transport], "generator")
    answer = model.predict("generate", GENERATE, {"images": np.uint8})
    loaded = tf.saved_model.load(str(served / "generator" / "1")).signatures
    arguments = {name: tf.constant(value) for name, value in GENERATE.items()}
    wanted = loaded["generate"](**arguments)["images"].numpy()
    assert answer["images"].shape == (3, 16, 16, 3)
    assert np.abs(answer["images"] - wanted.astype(int)).max() <= 1
    files = model.predict("generate_png", GENERATE, {"png_bytes": object})["png_bytes"]
    decoded = [np.asarray(images.decode(content).image) for content in files]
    np.testing.assert_array_equal(decoded, answer["images"])


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_what_the_server_refuses(server, transport, pictures):
    model = connect(server[transport], "generator")
    too_many = {**GENERATE, "n": np.array(10_000, np.int32)}
    with pytest.raises(UserError, match=r"refused the request: .*at most 256"):
        model.predict("generate", too_many, {"images": np.uint8})
    with pytest.raises(UserError, match=r"refused the request: .*Serving signature"):
        model.predict("sing", GENERATE, {"images": np.uint8})
    with pytest.raises(UserError, match="has no model 'Rem'; name another by"):
        Client(server[transport], "Rem").predict(pictures[:1])
    with pytest.raises(UserError, match=r"refused the request: .*version label"):
        Client(server[transport], label="purple").predict(pictures[:1])
    with pytest.raises(UserError, match=r"127\.0\.0\.1"):
        Client(server[transport], "generator").predict(pictures[:1])


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_command_without_tensorflow(server, transport, pictures, trained, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_text("no picture")
    options = ["predict", "--top-k", "2", "--format", "json", *map(str, pictures[:4])]
    command = [sys.executable, "-W", "error", "-c", _WITHOUT_TENSORFLOW, *options]
    command += [str(bad), "--server", server[transport], "--batch-size", "2"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tiny.ROOT)
    assert result.returncode == 0, result.stderr
    *found, unreadable = json.loads(result.stdout)
    assert "cannot read it" in unreadable["problem"]
    local = json.loads(tiny.invoke(*options, "--model", trained).stdout)
    for row, wanted in zip(found, local, strict=True):
        assert row.keys() == wanted.keys()
        for key in ("path", "name", "is_unknown", "problem"):
            assert row[key] == wanted[key]
        assert list(row["top"]) == list(wanted["top"])


def test_command_says_what_is_wrong_on_one_line(server, pictures):
    def complaint(*options):
        result = tiny.invoke("predict", *options, pictures[0])
        assert result.exit_code == 2
        assert "Traceback" not in result.output
        return result.stderr.splitlines()[-1]

    url = server["http"]
    assert "has no model 'x'" in complaint("--server", url, "--model-name", "x")
    assert "leave out one of them" in complaint("--server", url, "--model", "run")
    assert "needs the run itself" in complaint("--server", url, "--explain", "why")
    assert "is no address" in complaint("--server", "localhost:8501")
    assert "above 0 s" in complaint("--server", url, "--timeout", "0s")


def _top_counts(url, picture, label=None):
    [prediction] = Client(url, label=label, retries=0).predict([picture])
    return len(prediction.top)


def test_next_version_while_serving(server, served, successor, pictures):
    """Version 1 lists two names, version 2 one."""
    url, over = server["http"], threading.Event()
    answers, listings = [], []

    def ask():
        for label in itertools.cycle(["stable", None]):
            answers.append((label, _top_counts(url, pictures[0], label)))
            if over.is_set():
                return

    def look():
        while not over.is_set():
            for folder in (served / "classifier").iterdir():
                if folder.name.isdigit():
                    listings.append((folder / WARMUP).is_file())

    threads = [threading.Thread(target=job) for job in (ask, look)]
    for thread in threads:
        thread.start()
    try:
        versions = layout.publish({"classifier": successor}, served, IMAGE, str(served))
        assert versions == {"classifier": 2}
        _wait(lambda: _top_counts(url, pictures[0], "canary") == 1)
    finally:
        over.set()
        for thread in threads:
            thread.join()
    # Nobody ever saw a part of a version, and nobody was turned away.
    assert all(listings)
    assert {count for label, count in answers if label == "stable"} == {2}
    assert {count for label, count in answers if label is None} <= {1, 2}
    assert _top_counts(server["grpc"], pictures[0], "stable") == 2
    assert _top_counts(server["grpc"], pictures[0], "canary") == 1
    assert _top_counts(server["grpc"], pictures[0]) == 1
    _move_label(served, "stable", 2)
    _wait(lambda: _top_counts(url, pictures[0], "stable") == 1)
    _move_label(served, "stable", 1)
    _wait(lambda: _top_counts(url, pictures[0], "stable") == 2)


def _move_label(served, label, version):
    """As README.md in the folder tells a person to."""
    filepath = served / config.MODELS
    pattern = rf'("classifier".*?key: "{label}"\s+value: )\d+'
    text = filepath.read_text(encoding="utf-8")
    text, count = re.subn(pattern, rf"\g<1>{version}", text, count=1, flags=re.DOTALL)
    assert count == 1
    filepath.write_text(text, encoding="utf-8")


# The folder.


@pytest.fixture
def folder(served, tmp_path):
    """A copy of the layout's first versions."""
    copy = shutil.copytree(served, tmp_path / "copy")
    shutil.rmtree(copy / "classifier" / "2", ignore_errors=True)
    versions = {"classifier": 1, "generator": 1}
    (copy / config.MODELS).write_text(config.updated_models("", versions, "/models"))
    return copy


def _models(folder):
    parsed = model_server_config_pb2.ModelServerConfig()
    text_format.Parse((folder / config.MODELS).read_text(encoding="utf-8"), parsed)
    return {model.name: model for model in parsed.model_config_list.config}


def test_models_config_is_the_servers(folder, successor):
    models = _models(folder)
    assert list(models) == ["classifier", "generator"]
    layout.publish({"classifier": successor}, folder, IMAGE, "/models")
    models = _models(folder)
    assert dict(models["classifier"].version_labels) == {"stable": 1, "canary": 2}
    assert dict(models["generator"].version_labels) == {"stable": 1, "canary": 1}
    for name, model in models.items():
        assert model.base_path == f"/models/{name}"
        assert model.model_platform == "tensorflow"
        assert model.model_version_policy.WhichOneof("policy_choice") == "all"


def test_hand_made_changes_are_kept():
    text = config.updated_models("", {"classifier": 3}, "/models")
    mine = 'config { name: "mine" base_path: "/mine" }'
    text = text.replace("model_config_list {", f"model_config_list {{ {mine}")
    again = config.updated_models(text, {"classifier": 4}, "/models")
    assert 'base_path: "/mine"' in again
    assert re.search(r'key: "stable"\s+value: 3', again)
    with pytest.raises(UserError, match=r"left alone: .*logging_config"):
        config.updated_models(
            text.replace("base_path", "logging_config"), {}, "/models"
        )


def test_warm_up_is_what_the_server_reads(served):
    def requests(name):
        filepath = served / name / "1" / WARMUP
        for record in tf.data.TFRecordDataset(str(filepath)).as_numpy_iterator():
            log = prediction_log_pb2.PredictionLog.FromString(record)
            assert log.WhichOneof("log_type") == "predict_log"
            assert log.predict_log.request.model_spec.name == name
            yield log.predict_log.request

    batches = [
        tf.make_ndarray(request.inputs["pictures"])
        for request in requests("classifier")
    ]
    assert [len(batch) for batch in batches] == [1, 8, 32]
    formats = {images.decode(content).format for content in batches[-1]}
    assert formats == {"PNG", "JPEG", "WEBP"}
    drawn = [
        (request.model_spec.signature_name, int(tf.make_ndarray(request.inputs["n"])))
        for request in requests("generator")
    ]
    assert {name for name, _ in drawn} == {"generate", "generate_png"}
    assert all(count > 0 for _, count in drawn)


def test_only_the_classifier_is_batched(served):
    text = (served / "classifier" / "1" / "batching_params.pbtxt").read_text()
    assert text == (served / "batching.config").read_text()
    assert not (served / "generator" / "1" / "batching_params.pbtxt").exists()
    fields = dict(re.findall(r"^(\w+) \{ value: (\w+) \}$", text, re.MULTILINE))
    # Names of `BatchingParameters`, which tensorflow-serving-api does not hold. A
    # request may be larger than what is computed at once only if it may be split.
    assert fields.pop("enable_large_batch_splitting") == "true"
    assert {name: int(value) > 0 for name, value in fields.items()} == dict.fromkeys(
        (
            "max_batch_size",
            "max_execution_batch_size",
            "batch_timeout_micros",
            "max_enqueued_batches",
        ),
        True,
    )
    flags = config.server_flags("/models")
    assert "--enable_per_model_batching_parameters=true" in flags


def test_manifests(tmp_path):
    manifests.write(tmp_path, ["classifier", "generator"], IMAGE, "/models")
    documents = {
        name: list(yaml.safe_load_all((tmp_path / name).read_text(encoding="utf-8")))
        for name in manifests.FILES
        if name.endswith(".yaml")
    }
    [compose] = documents["compose.yaml"]
    service = compose["services"]["serving"]
    assert service["image"] == IMAGE
    assert service["command"] == config.server_flags("/models")
    assert service["volumes"] == [".:/models:ro"]
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])

    kinds = [document["kind"] for document in documents["kubernetes.yaml"]]
    assert kinds.count("Service") == 2
    claim, deployment, *_, scaler = documents["kubernetes.yaml"]
    pod = deployment["spec"]["template"]
    labels = deployment["spec"]["selector"]["matchLabels"]
    assert labels.items() <= pod["metadata"]["labels"].items()
    [container] = pod["spec"]["containers"]
    assert container["image"] == IMAGE
    assert container["args"][:-2] == config.server_flags("/models")
    assert container["readinessProbe"]["httpGet"]["path"] == "/v1/models/classifier"
    [volume] = pod["spec"]["volumes"]
    assert volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    assert container["volumeMounts"][0]["name"] == volume["name"]
    assert scaler["kind"] == "HorizontalPodAutoscaler"
    assert scaler["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    for document in documents["kubernetes.yaml"]:
        if document["kind"] == "Service":
            assert document["spec"]["selector"] == labels

    services = [document for document in documents["kserve.yaml"] if document]
    for name, document in zip(("classifier", "generator"), services, strict=True):
        model = document["spec"]["predictor"]["model"]
        assert document["kind"] == "InferenceService"
        assert model["storageUri"].endswith(f"{claim['metadata']['name']}/{name}")
        assert model["runtimeVersion"] == "2.21.0"


def test_messages_are_those_of_tensorflow_serving(pictures):
    inputs = {
        "pictures": np.array([pictures[0].read_bytes(), b""], object),
        **GENERATE,
        "flags": np.array([[True], [False]]),
    }
    ours = to_request("Пи", "serving_default", inputs, label="canary")
    theirs = predict_pb2.PredictRequest.FromString(ours.SerializeToString())
    assert theirs.model_spec.name == "Пи"
    assert theirs.model_spec.version_label == "canary"
    for name, array in inputs.items():
        np.testing.assert_array_equal(tf.make_ndarray(theirs.inputs[name]), array)
    again = PredictRequest.FromString(theirs.SerializeToString())
    assert again == ours
    for name, array in inputs.items():
        found = to_array(again.inputs[name])
        assert found.dtype == array.dtype
        np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32, np.int64])
def test_tensors_of_all_spellings(dtype):
    # Equal values at the end are left out, and a field of its own holds the values.
    proto = tf.make_tensor_proto(np.full([2, 3], 5, dtype))
    request = predict_pb2.PredictRequest()
    request.inputs["x"].CopyFrom(proto)
    found = PredictRequest.FromString(request.SerializeToString()).inputs["x"]
    np.testing.assert_array_equal(to_array(found), np.full([2, 3], 5, dtype))
    found.tensor_shape.dim[0].size = 4
    found.tensor_content = b"\0" * 7
    with pytest.raises(ValueError, match="buffer size"):
        to_array(found)


def test_what_cannot_be_served(trained, drawing, served, tmp_path):
    def complaint(*options):
        result = tiny.invoke("serve-config", *options)
        assert result.exit_code == 2, result.output
        return result.stderr.splitlines()[-1]

    out = ["--out", tmp_path / "out"]
    assert "nothing to serve" in complaint(*out)
    assert "is a generator" in complaint(*out, "--classifier", drawing)
    saved = served / "classifier" / "1"
    assert "give it by --classifier" in complaint(*out, "--generator", saved)
    assert "must be absolute" in complaint(*out, "--base-path", "m", "--generator", "g")
    for kind in ("classifier", "generator"):
        message = complaint(*out, f"--{kind}", tmp_path / "absent")
        assert f"there is no trained {kind} in {tmp_path / 'absent'}" in message
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "mine.txt").write_text("mine")
    used = ["--out", tmp_path / "used"]
    assert "new or empty folder" in complaint(*used, "--classifier", saved)
    (tmp_path / "used" / config.MODELS).write_text("model_config_list {")
    assert "is left alone" in complaint(*used, "--classifier", saved)
    assert {path.name for path in (tmp_path / "used").iterdir()} == {
        "mine.txt",
        config.MODELS,
    }
    assert not list((tmp_path / "out").glob("*/*"))


def test_command_serves_an_export(successor, tmp_path):
    out = tmp_path / "out"
    result = tiny.invoke("serve-config", "--classifier", successor, "--out", out)
    assert result.exit_code == 0, result.output
    assert "classifier: version 1" in result.output
    assert sorted(path.name for path in out.iterdir()) == sorted(
        [*manifests.FILES, config.MODELS, config.BATCHING, "classifier"]
    )
    assert "generator" not in (out / "kserve.yaml").read_text(encoding="utf-8")
    readme = (out / "README.md").read_text(encoding="utf-8")
    assert all(flag in readme for flag in config.server_flags("/models"))
