"""The network in whose features drawings are measured."""

from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from anime_tf.config import DrawConfig, TrainConfig
from anime_tf.models.classifier import build_classifier, feature_extractor
from anime_tf.models.features import LAYERS, build_features
from anime_tf.run_files import CONFIG

_IMAGE_SIZE = 128
_VGG_SIZE = 32
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
    def of_run(cls, config: DrawConfig) -> "FeatureNetwork":
        """The ImageNet network that the classifier of a run began with.

        It has never been told of the characters, nor has a generator been trained to
        please it. Where the classifier began with random weights, the VGG19 of the run
        must do: a classifier that knows only a few pictures answers wildly to what it
        has not seen.
        """
        guide = TrainConfig.load(Path(config.classifier) / CONFIG)
        if guide.weights != "none":
            classifier = build_classifier(
                guide.backbone, 2, _IMAGE_SIZE, weights=guide.weights
            )
            name = f"{guide.backbone}, ImageNet, {_IMAGE_SIZE} px"
            return cls(feature_extractor(classifier), name)
        kind = "random" if config.vgg_weights == "none" else "ImageNet"
        vgg = build_features(_VGG_SIZE, LAYERS[-1:], config.vgg_weights)
        pooled = keras.layers.GlobalAveragePooling2D()(vgg.outputs[0])
        scaled = keras.layers.UnitNormalization()(pooled)
        # KID expects features of a length that grows with their number.
        scaled = keras.layers.Rescaling(pooled.shape[-1] ** 0.5)(scaled)
        name = f"vgg19 {LAYERS[-1]}, {kind}, {_VGG_SIZE} px"
        return cls(keras.Model(vgg.input, scaled), name)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Returns float32 `[n, d]` for uint8 `[n, h, w, 3]`."""
        size = (self._size, self._size)
        parts = []
        for start in range(0, len(images), _BATCH):
            batch = tf.cast(images[start : start + _BATCH], tf.float32)
            batch = tf.image.resize(batch, size, method="bicubic")
            parts.append(self._forward(tf.clip_by_value(batch, 0.0, 255.0)).numpy())
        return np.concatenate(parts)
