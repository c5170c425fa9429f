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


class ColourPredictor(Predictor):
    """Names the colour that a picture has most of; grey is nobody."""

    class_names = ("赤", "green", "blue")
    image_size = SIZE
    threshold = 5.0

    def __init__(self, seconds=0.0):
        self.seconds, self.batches = seconds, []

    def judge(self, squares):
        self.batches.append(len(squares))
        time.sleep(self.seconds)
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

    def __init__(self, port, predictor):
        self.port, self.predictor = port, predictor

    def connect(self):
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)

    def request(self, method, path, body=None, headers=None):
        """Returns status, content of the JSON, and headers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
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
def serving(seconds=0.0, **limits):
    """A server with both models and the page; a batch takes so many seconds."""
    limits = Limits(**limits)
    predictor = ColourPredictor(seconds)
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
            assert started.wait(30)
            predictor.batches.clear()
            yield Live(port, predictor)
        finally:
            server.should_exit = True
            thread.join(30)
    assert not thread.is_alive()


def picture(colour, size=(20, 20), file_format="PNG", **options):
    """The bytes of a picture file of one colour."""
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, file_format, **options)
    return buffer.getvalue()


def b64(content):
    return {"b64": base64.b64encode(content).decode()}
