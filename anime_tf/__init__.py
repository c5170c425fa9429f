"""Recognise your own anime characters.

Importing this package does not import TensorFlow: that waits until it is used.
"""

import importlib

__version__ = "0.1.0"
__all__ = ["Recognizer", "TrainConfig", "UserError", "train_classifier"]

_HOMES = {
    "Recognizer": "anime_tf.inference",
    "TrainConfig": "anime_tf.config",
    "UserError": "anime_tf.errors",
    "train_classifier": "anime_tf.training.classifier",
}


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module 'anime_tf' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
