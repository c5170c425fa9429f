"""The client, against servers that behave badly."""

import json
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
import numpy as np
import pytest

from anime_tf.errors import UserError
from anime_tf.serving.client import Client
from anime_tf.serving.messages import (
    GetModelStatusResponse,
    PredictRequest,
    PredictResponse,
)
from anime_tf.serving.tensors import to_array, to_tensor

# More than what gRPC sends again by itself.
PICTURE = bytes(500_000)
_CODES = {
    404: grpc.StatusCode.NOT_FOUND,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    503: grpc.StatusCode.UNAVAILABLE,
}
STATES = {
    "model_version_status": [
        {"version": "1", "state": "LOADING", "status": {"error_message": ""}}
    ]
}


def _columns(count):
    """The answer for `count` pictures."""
    return {
        "labels": np.array([[b"Rem", b"Ram"]] * count, object),
        "scores": np.array([[0.75, 0.25]] * count, np.float32),
        "known_score": np.zeros(count, np.float32),
        "is_unknown": np.zeros(count, bool),
        "ok": np.ones(count, bool),
    }


def _to_json(columns):
    texts = {"labels": columns["labels"].astype(str)} if "labels" in columns else {}
    return {name: array.tolist() for name, array in {**columns, **texts}.items()}


class _Server:
    """Answers with what `behave(number of request, number of pictures)` returns: a
    status, and a body for 200."""

    def __init__(self, behave, columns=_columns):
        self.behave, self.columns, self.counts = behave, columns, []

    def next(self, count):
        self.counts.append(count)
        return self.behave(len(self.counts), count)


class _RestServer(_Server):
    def __enter__(self):
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                content = self.rfile.read(int(self.headers["Content-Length"]))
                count = len(json.loads(content)["inputs"]["pictures"])
                status = outer.next(count)
                body = {"error": f"status {status}"}
                if status == 200:
                    body = {"outputs": _to_json(outer.columns(count))}
                self._send(status, body)

            def do_GET(self):
                self._send(200, STATES)

            def log_message(self, *arguments):
                pass

            def _send(self, status, body):
                content = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        return self

    def __exit__(self, *error):
        self._server.shutdown()
        self._server.server_close()


class _GrpcServer(_Server):
    def __enter__(self):
        handlers = {
            "/tensorflow.serving.PredictionService/Predict": self._predict,
            "/tensorflow.serving.ModelService/GetModelStatus": self._status,
        }

        class Handler(grpc.GenericRpcHandler):
            def service(self, call):
                return grpc.unary_unary_rpc_method_handler(handlers[call.method])

        options = [("grpc.max_receive_message_length", -1)]
        self._server = grpc.server(ThreadPoolExecutor(2), options=options)
        self._server.add_generic_rpc_handlers([Handler()])
        self.url = f"grpc://127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()
        return self

    def __exit__(self, *error):
        self._server.stop(None).wait()

    def _predict(self, content, context):
        request = PredictRequest.FromString(content)
        count = len(to_array(request.inputs["pictures"]))
        status = self.next(count)
        if status != 200:
            context.abort(_CODES[status], f"status {status}")
        response = PredictResponse()
        for name, array in self.columns(count).items():
            response.outputs[name].CopyFrom(to_tensor(array))
        return response.SerializeToString()

    def _status(self, content, context):
        response = GetModelStatusResponse()
        response.model_version_status.add(version=1, state=20)
        return response.SerializeToString()


both = pytest.mark.parametrize("server_class", [_RestServer, _GrpcServer])


@both
def test_a_busy_server_is_asked_again(server_class):
    with server_class(lambda number, _: 503 if number < 3 else 200) as server:
        started = time.monotonic()
        [prediction] = Client(server.url).predict([PICTURE])
        assert (prediction.name, prediction.confidence) == ("Rem", 0.75)
        assert len(server.counts) == 3
        # Not at once.
        assert time.monotonic() - started > 0.2


@both
def test_a_server_that_stays_busy(server_class):
    with server_class(lambda *_: 503) as server:
        with pytest.raises(UserError, match="status 503"):
            Client(server.url, retries=2).predict([PICTURE])
        assert len(server.counts) == 3
        server.counts.clear()
        with pytest.raises(UserError, match="status 503"):
            Client(server.url, retries=0).predict([PICTURE])
        assert len(server.counts) == 1


@both
def test_a_slow_server_is_not_waited_for_twice(server_class):
    over = threading.Event()

    def wait(*_):
        over.wait(20)
        return 200

    with server_class(wait) as server:
        with pytest.raises(UserError, match=r"did not answer within 0\.5 s"):
            Client(server.url, timeout=0.5).predict([PICTURE])
        over.set()
        assert len(server.counts) == 1


@both
def test_a_model_that_is_not_ready(server_class):
    with (
        server_class(lambda *_: 404) as server,
        pytest.raises(UserError, match=r"'classifier' .* is not ready.*LOADING"),
    ):
        Client(server.url).predict([PICTURE])


@both
def test_too_large_requests_are_halved(server_class):
    with server_class(lambda _, count: 200 if count <= 2 else 413) as server:
        found = Client(server.url).predict([PICTURE] * 5)
        assert [p.name for p in found] == ["Rem"] * 5
        assert server.counts == [5, 2, 3, 1, 2]
    with server_class(lambda *_: 413) as server:
        found = Client(server.url).predict([PICTURE] * 2)
        assert ["too large" in p.problem for p in found] == [True, True]


@both
def test_batches_are_bounded_by_number_and_bytes(server_class):
    with server_class(lambda *_: 200) as server:
        Client(server.url).predict([b"x"] * 7, batch_size=3)
        assert server.counts == [3, 3, 1]
        server.counts.clear()
        Client(server.url).predict([bytes(9_000_000)] * 3)
        assert server.counts == [1, 1, 1]


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_a_server_that_is_down(scheme):
    # Nobody listens on port 9.
    url = f"{scheme}://127.0.0.1:9"
    with pytest.raises(UserError, match=f"no server answers at {url}: is it running"):
        Client(url, retries=1).predict([PICTURE])


@both
def test_what_answers_is_no_model_of_this_kind(server_class):
    def fewer(count):
        return {**_columns(count), "scores": np.ones([count - 1, 2], np.float32)}

    def others(count):
        return {"ok": np.ones(count, bool)}

    for columns, problem in ((fewer, "1 scores for 2"), (others, "labels")):
        with (
            server_class(lambda *_: 200, columns) as server,
            pytest.raises(UserError, match=f"is no TensorFlow Serving .*({problem})"),
        ):
            Client(server.url).predict([b"x"] * 2)


@pytest.mark.parametrize(
    "url", ["localhost:8501", "ftp://localhost", "http://", "", "http://[::1"]
)
def test_what_is_no_address(url):
    with pytest.raises(UserError, match="is no address of a server; write for example"):
        Client(url)


@pytest.mark.parametrize(
    ("scheme", "library", "module"),
    [("http", "urllib3", "rest"), ("grpc", "grpc", "rpc")],
)
def test_a_missing_library(monkeypatch, scheme, library, module):
    monkeypatch.delitem(sys.modules, f"anime_tf.serving.{module}", raising=False)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(UserError, match=rf"{library}; install it by: .*\[client\]"):
        Client(f"{scheme}://localhost:8501")
