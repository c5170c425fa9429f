"""The server on a real socket, around models that need no network to learn."""

import base64
import contextlib
import http.client
import io
import json
import socket
import threading
import time

import numpy as np
from PIL import Image

from anime_tf.inference import Predictor
from anime_tf.sampler import Drawer
from anime_tf.server import run
from anime_tf.server.app import build_app
from anime_tf.server.classifier import ClassifierService
from anime_tf.server.generator import GeneratorService
from anime_tf.server.limits import Intake, Limits
from anime_tf.server.loading import Services
from anime_tf.server.page import build_page

SIZE = 16
# Seconds; far more than anything takes, on a busy machine too.
_PATIENCE = 60


class ColourPredictor(Predictor):
    """Names the colour that a picture has most of; grey is nobody."""

    class_names = ("赤", "green", "blue")
    image_size = SIZE
    threshold = 5.0

    def __init__(self):
        self.batches, self._asked, self._goes = [], threading.Event(), threading.Event()
        self._goes.set()

    @contextlib.contextmanager
    def held_up(self):
        """In the block every batch is begun, and none comes to its end."""
        self._asked.clear()
        self._goes.clear()
        try:
            yield
        finally:
            self._goes.set()

    def wait_until_asked(self):
        assert self._asked.wait(_PATIENCE)

    def judge(self, squares):
        self.batches.append(len(squares))
        self._asked.set()
        self._goes.wait()
        means = squares.mean(axis=(1, 2), dtype=np.float32)
        shares = means / np.maximum(means.sum(axis=1, keepdims=True), 1)
        return shares, means.max(axis=1) - means.min(axis=1)

    def explain(self, squares, predictions):
        return [Image.fromarray(255 - square) for square in squares]


class StripeDrawer(Drawer):
    """Draws its noise as stripes, brighter for a higher label."""

    class_names = ("赤", "green", "blue")
    drawn = ("赤", "blue")
    image_size = SIZE
    noise_size = 4

    def draw(self, noise, labels):
        levels = 20 * noise.repeat(SIZE // 4, axis=1) + 50 * labels[:, None] + 60
        stripes = np.clip(levels, 0, 255).astype(np.uint8)
        return np.tile(stripes[:, None, :, None], (1, SIZE, 1, 3))


class Live:
    """A running server, and ways to talk to it."""

    def __init__(self, port, server, intake, predictor):
        self.port, self.intake, self.predictor = port, intake, predictor
        self._server = server

    def connect(self):
        return socket.create_connection(("127.0.0.1", self.port), timeout=_PATIENCE)

    def connections(self):
        """How many clients are connected."""
        return len(self._server.server_state.connections)

    def request(self, method, path, body=None, headers=None):
        """Returns status, content of the JSON, and headers."""
        address = ("127.0.0.1", self.port)
        connection = http.client.HTTPConnection(*address, timeout=_PATIENCE)
        with contextlib.closing(connection):
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            return response.status, json.loads(response.read()), response.headers

    def predict(self, content, model="classifier", version=""):
        """Posts to a model; content that is no bytes is made JSON."""
        if not isinstance(content, bytes):
            content = json.dumps(content).encode()
        path = f"/v1/models/{model}{version}:predict"
        return self.request("POST", path, content)[:2]

    def is_well(self):
        status, content = self.predict({"instances": [b64(picture("red"))]})
        return status == 200 and content["predictions"][0]["labels"][0] == "赤"


@contextlib.contextmanager
def serving(**limits):
    """A server with both models and the page."""
    limits = Limits(**limits)
    predictor = ColourPredictor()
    services = Services(
        ClassifierService(predictor, limits, top_k=2),
        GeneratorService(StripeDrawer(), limits),
        predictor,
    )
    intake = Intake(limits)
    app = build_app(services.served(), intake, build_page(services, intake))
    started = threading.Event()
    server = run.build_server(app, limits, started.set)
    with run.bind("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            assert started.wait(_PATIENCE)
            predictor.batches.clear()
            yield Live(port, server, intake, predictor)
        finally:
            server.should_exit = True
            thread.join(_PATIENCE)
    assert not thread.is_alive()


def wait_until(condition):
    deadline = time.monotonic() + _PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.01)


def picture(colour, size=(20, 20), file_format="PNG", **options):
    """The bytes of a picture file of one colour."""
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, file_format, **options)
    return buffer.getvalue()


def b64(content):
    return {"b64": base64.b64encode(content).decode()}
