"""VGG19, the first blocks of it: what texture and lines of a picture look like."""

from collections.abc import Sequence
from pathlib import Path

import h5py
import keras
import numpy as np

from anime_tf.errors import UserError
from anime_tf.models import weights as published

LAYERS = ("block1_conv2", "block2_conv2", "block3_conv4")
FINE_LAYERS = ("block1_conv1",)
_FILE = "vgg19_weights_tf_dim_ordering_tf_kernels_notop.h5"
_OPTION = "--vgg-weights"
# Of the pictures that VGG19 was trained on; blue, green, red.
_MEANS = (103.939, 116.779, 123.68)


def build_features(
    image_size: int, layers: Sequence[str] = LAYERS, weights: str = "imagenet"
) -> keras.Model:
    """Builds the frozen feature extractor (Simonyan and Zisserman, 2015).

    Args:
        image_size: Side of its input square in pixels.
        layers: Names of the layers of VGG19 whose maps are returned, first to last.
        weights: `"imagenet"` (Keras' own download), `"none"` (random), or the path of
            a file: of VGG19 without its top, or of its first layers.

    Returns:
        A model: float `[n, image_size, image_size, 3]`, RGB in [0, 255], to a list of
        maps float `[n, h, w, c]`, one per layer (a single one comes without the list),
        behind their ReLU. It has nothing to train.

    Raises:
        ValueError: If the network, as far as the weights go, has no such layer.
        UserError: If the weights cannot be had.
    """
    shape = (image_size, image_size, 3)
    vgg = _build_vgg(shape, weights)
    names = [layer.name for layer in vgg.layers]
    if unknown := [name for name in layers if name not in names]:
        raise ValueError(f"layers must be among {names}, got {unknown}")
    maps = keras.Model(vgg.input, [vgg.get_layer(name).output for name in layers])
    images = keras.Input(shape)
    centered = keras.ops.flip(images, axis=-1) - np.array(_MEANS, np.float32)
    features = keras.Model(images, maps(centered), name="features")
    features.trainable = False
    return features


def _build_vgg(shape: tuple[int, int, int], weights: str) -> keras.Model:
    def build(keras_weights: str | None) -> keras.Model:
        return keras.applications.VGG19(
            include_top=False, weights=keras_weights, input_shape=shape
        )

    if weights == "none":
        vgg = build(None)
        # The same random weights in all runs: their figures can be compared.
        for number, layer in enumerate(_convolutions(vgg)):
            initializer = keras.initializers.HeNormal(seed=number)
            layer.kernel.assign(initializer(layer.kernel.shape))
        return vgg
    if weights == "imagenet":
        return published.download(lambda: build("imagenet"), "VGG19", _FILE, _OPTION)
    vgg = _first_layers(build(None), _count_convolutions(Path(weights)))
    published.load(vgg, Path(weights), "VGG19 without its top", _OPTION)
    return vgg


def _first_layers(vgg: keras.Model, convolutions: int) -> keras.Model:
    """Returns the network up to the last convolution that a file holds."""
    return keras.Model(vgg.input, _convolutions(vgg)[:convolutions][-1].output)


def _convolutions(vgg: keras.Model) -> list[keras.layers.Layer]:
    return [layer for layer in vgg.layers if isinstance(layer, keras.layers.Conv2D)]


def _count_convolutions(filepath: Path) -> int:
    """Counts the convolution kernels in a weights file of any layout."""
    kernels = []

    def note(name: str, entry: h5py.Dataset | h5py.Group) -> None:
        if isinstance(entry, h5py.Dataset) and entry.ndim == 4:
            kernels.append(name)

    try:
        with h5py.File(filepath) as file:
            file.visititems(note)
    except OSError as error:
        raise UserError(
            f"the weights file {filepath} cannot be read ({_OPTION}): {error}"
        ) from error
    if not kernels:
        raise UserError(f"{filepath} holds no weights of VGG19 ({_OPTION})")
    return len(kernels)
