"""The network in whose features drawings are measured."""

from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from anime_tf.config import TrainConfig
from anime_tf.models.classifier import (
    build_classifier,
    feature_extractor,
    load_classifier,
)
from anime_tf.run_files import CLASSIFIER, CONFIG

_IMAGE_SIZE = 128
_BATCH = 32


class FeatureNetwork:
    """Images to features. Figures from two networks cannot be compared.

    Args:
        network: Images in [0, 255] to features `[n, d]`.
        name: What it is, as written beside every figure.
    """

    def __init__(self, network: keras.Model, name: str):
        self.name = name
        self._size = network.input_shape[1]
        shape = [None, self._size, self._size, 3]
        self._forward = tf.function(
            lambda images: network(images, training=False),
            input_signature=[tf.TensorSpec(shape, tf.float32)],
        )

    @classmethod
    def of_classifier(cls, folder: Path) -> "FeatureNetwork":
        """The ImageNet network that a classifier began with: it has never been told of
        the characters, nor has a generator been trained to please it. For a classifier
        that began with random weights there is none, and its own features must do."""
        config = TrainConfig.load(folder / CONFIG)
        if config.weights == "none":
            classifier = load_classifier(folder / CLASSIFIER)
            name = f"{config.backbone}, trained on these characters alone"
        else:
            classifier = build_classifier(
                config.backbone, 2, _IMAGE_SIZE, weights=config.weights
            )
            name = f"{config.backbone}, ImageNet, {_IMAGE_SIZE} px"
        return cls(feature_extractor(classifier), name)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Returns float32 `[n, d]` for uint8 `[n, h, w, 3]`."""
        size = (self._size, self._size)
        parts = []
        for start in range(0, len(images), _BATCH):
            batch = tf.cast(images[start : start + _BATCH], tf.float32)
            batch = tf.image.resize(batch, size, method="bicubic")
            parts.append(self._forward(tf.clip_by_value(batch, 0.0, 255.0)).numpy())
        return np.concatenate(parts)
