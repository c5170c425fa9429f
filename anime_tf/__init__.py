"""Recognise and draw your own anime characters.

Importing this package does not import TensorFlow: that waits until it is used.
"""

import importlib
import os

# TensorFlow reads it once, when it is imported. It leaves oneDNN's convolutions off by
# itself on processors without AVX-512, where their gradients are twice as fast too.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

__version__ = "0.1.0"
__all__ = [
    "DrawConfig",
    "Recognizer",
    "Sampler",
    "TrainConfig",
    "UserError",
    "train_classifier",
    "train_generator",
]

_HOMES = {
    "DrawConfig": "anime_tf.config",
    "Recognizer": "anime_tf.inference",
    "Sampler": "anime_tf.sampler",
    "TrainConfig": "anime_tf.config",
    "UserError": "anime_tf.errors",
    "train_classifier": "anime_tf.training.classifier",
    "train_generator": "anime_tf.training.generator",
}


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module 'anime_tf' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
