"""Requests that a server answers for itself before others may ask.

TensorFlow plans a graph when it runs for the first time, which takes seconds; with
these requests in the model's folder the server has done so before it calls a version
available. The pictures are drawn here.
"""

import io
import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tensorflow as tf

from anime_tf.datasets.synthetic import build_cast, draw_picture
from anime_tf.serving.messages import PredictionLog, PredictRequest
from anime_tf.serving.tensors import to_request

# Where the server looks, inside a version.
WARMUP = Path("assets.extra", "tf_serving_warmup_requests")
# One alone, a few, a full batch.
_BATCH_SIZES = (1, 8, 32)
_COUNTS = (1, 8)
_FORMATS = ("PNG", "JPEG", "WEBP")
_CHARACTERS = 6
_TRUNCATION = 0.7


def write_warmup(folder: Path, kind: str, name: str) -> None:
    """Writes the warm-up requests of a SavedModel.

    Args:
        folder: The SavedModel.
        kind: `classifier` or `generator`.
        name: What the model is called on the server.
    """
    make = {"classifier": _classifier_requests, "generator": _generator_requests}
    filepath = folder / WARMUP
    filepath.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(filepath)) as writer:
        for request in make[kind](name):
            log = PredictionLog()
            log.predict_log.request.CopyFrom(request)
            writer.write(log.SerializeToString())


def _classifier_requests(name: str) -> Iterator[PredictRequest]:
    pictures = _pictures()
    for size in _BATCH_SIZES:
        batch = np.array(list(itertools.islice(pictures, size)), object)
        yield to_request(name, "serving_default", {"pictures": batch})


def _generator_requests(name: str) -> Iterator[PredictRequest]:
    for signature in ("generate", "generate_png"):
        for seed, count in enumerate(_COUNTS):
            inputs = {
                "n": np.array(count, np.int32),
                "seed": np.array(seed, np.int64),
                "truncation": np.array(_TRUNCATION, np.float32),
            }
            yield to_request(name, signature, inputs)


def _pictures() -> Iterator[bytes]:
    """Draws picture files without end, of each format in turn."""
    cast = build_cast(_CHARACTERS)
    for number in itertools.count():
        rng = np.random.default_rng(number)
        picture = draw_picture(cast[number % len(cast)], rng)
        file = io.BytesIO()
        picture.save(file, _FORMATS[number % len(_FORMATS)])
        yield file.getvalue()
