"""The two networks of the GAN: plain functions that build plain Keras models."""

from collections.abc import Sequence

import keras
from keras import layers, ops

from anime_tf.layers import SelfModulation, SpectralNormalization, UpsampleConv2D

LATENT_DIM = 128
_EMBEDDING_DIM = 64
_GROUPS = 8
# Name of the layers whose rows belong to the characters, or its beginning.
IDENTITY = "identity"


def build_generator(
    image_size: int,
    num_classes: int,
    channels: int = 32,
    upsampling: str = "nearest",
) -> keras.Model:
    """Builds the generator: noise and character to picture.

    Each block doubles the size by nearest neighbour, convolves, normalises, and lets
    noise and character scale and shift every channel (self-modulation, Chen et al.,
    2019), so that they speak at every size.

    Args:
        image_size: Side of the picture in pixels: 4, 6 or 7 times a power of 2, such
            as 64, 96, 128 or 224.
        num_classes: Number of characters.
        channels: Channels of the last block; those before have up to 8 times as many.
        upsampling: `"nearest"` (nearest neighbour, then convolution), or
            `"transposed"`: transposed convolution, to show the checkerboard it leaves.

    Returns:
        A model: noise float `[n, LATENT_DIM]` and labels int `[n]` to float
        `[n, image_size, image_size, 3]`, RGB in [0, 255].

    Raises:
        ValueError: If an argument is out of its range.
    """
    start, doublings = _split_size(image_size)
    noise = keras.Input((LATENT_DIM,), name="noise")
    labels = keras.Input((), dtype="int32", name="labels")
    # As large as the noise: Keras' default would leave all characters much the same.
    spread = keras.initializers.RandomNormal(stddev=1.0)
    identity = _embed(labels, num_classes, _EMBEDDING_DIM, spread, IDENTITY)
    style = layers.Concatenate()([noise, identity])
    widths = [channels * min(8, 2**k) for k in range(doublings, -1, -1)]
    x = layers.Dense(start * start * widths[0])(style)
    x = layers.Reshape((start, start, widths[0]))(x)
    for number, width in enumerate(widths):
        if number:
            x = _modulate(_upsample(upsampling, width)(x), style)
        # Large maps cost most and gain least from a second convolution.
        if number < len(widths) - 1:
            x = _conv(width)(x)
            x = _modulate(x, style)
    x = layers.Conv2D(3, 3, padding="same", activation="tanh", dtype="float32")(x)
    images = layers.Rescaling(127.5, offset=127.5, dtype="float32")(x)
    return keras.Model([noise, labels], images, name="generator")


def build_discriminator(
    image_size: int, num_classes: int, channels: int = 48
) -> keras.Model:
    """Builds the discriminator: is this a real picture of that character?

    Strided convolutions with spectral normalisation (Miyato et al., 2018); the label
    enters by projection (Miyato and Koyama, 2018).

    Args:
        image_size: As for `build_generator`.
        num_classes: Number of characters.
        channels: Channels of the first block; the last have up to 6 times as many.

    Returns:
        A model: images float `[n, image_size, image_size, 3]` in [0, 255] and labels
        int `[n]` to logits float `[n, 1]`.
    """
    _, doublings = _split_size(image_size)
    images = keras.Input((image_size, image_size, 3), name="images")
    labels = keras.Input((), dtype="int32", name="labels")
    x = layers.Rescaling(1 / 127.5, offset=-1.0)(images)
    widths = [channels * min(6, 2**number) for number in range(doublings)]
    logits = _critic(x, widths, labels, num_classes)
    return keras.Model([images, labels], logits, name="discriminator")


def build_projected_discriminator(
    map_shapes: Sequence[tuple[int, int, int]],
    scales: Sequence[float],
    num_classes: int,
    channels: int = 64,
) -> keras.Model:
    """Builds a discriminator of features (Projected GAN, Sauer et al., 2021).

    Each map of a frozen network goes through a fixed random 1 x 1 convolution, which
    mixes its channels so that none can be ignored, to a small critic of its own.

    Args:
        map_shapes: Height, width and channels of each map.
        scales: Root mean square of each map on real pictures.
        num_classes: Number of characters.
        channels: Channels that a map is mixed down to.

    Returns:
        A model: the maps float `[n, h, w, c]` and labels int `[n]` to logits float
        `[n, number of maps]`.
    """
    maps = [keras.Input(shape) for shape in map_shapes]
    labels = keras.Input((), dtype="int32", name="labels")
    logits = []
    for x, scale in zip(maps, scales, strict=True):
        x = layers.Rescaling(1 / scale)(x)
        x = layers.Conv2D(channels, 1, use_bias=False, trainable=False)(x)
        doublings = max(1, (x.shape[1] // 4).bit_length() - 1)
        widths = [channels * min(4, 2**number) for number in range(1, doublings + 1)]
        name = f"{IDENTITY}_{len(logits)}"
        logits.append(_critic(x, widths, labels, num_classes, name))
    together = layers.Concatenate(dtype="float32")(logits)
    return keras.Model([*maps, labels], together, name="projected_discriminator")


def _critic(
    x: keras.KerasTensor,
    widths: Sequence[int],
    labels: keras.KerasTensor,
    num_classes: int,
    name: str = IDENTITY,
) -> keras.KerasTensor:
    """Halves the map once for each width; logits `[n, 1]`, labels by projection."""
    for width in widths:
        x = _spectral_conv(width, 4, strides=2)(x)
        x = layers.LeakyReLU(negative_slope=0.2)(x)
    x = _spectral_conv(widths[-1], 3)(x)
    x = layers.LeakyReLU(negative_slope=0.2)(x)
    pooled = layers.GlobalAveragePooling2D()(x)
    realness = SpectralNormalization(layers.Dense(1))(pooled)
    identity = _embed(labels, num_classes, widths[-1], "zeros", name)
    match = layers.Dot(axes=-1)([pooled, identity])
    return layers.Add(dtype="float32")([realness, match])


def _embed(labels, num_classes: int, size: int, initializer, name: str):
    """A row of a table for each label. As a product: the gradient of a look-up adds up
    in an order of its own in every run, and no run would be like another."""
    hot = ops.one_hot(labels, num_classes)
    return layers.Dense(
        size, use_bias=False, kernel_initializer=initializer, name=name
    )(hot)


def _split_size(image_size: int) -> tuple[int, int]:
    """Returns side of the first map and number of doublings up to a size."""
    for start in (4, 6, 7):
        doublings = (image_size // start).bit_length() - 1
        if start * 2**doublings == image_size and doublings >= 2:
            return start, doublings
    raise ValueError(
        f"image_size must be 4, 6 or 7 times a power of 2, such as 64, 96, 128 or 224, "
        f"got {image_size}"
    )


def _upsample(kind: str, filters: int) -> layers.Layer:
    if kind == "nearest":
        return UpsampleConv2D(filters)
    if kind == "transposed":
        return layers.Conv2DTranspose(
            filters, 3, strides=2, padding="same", use_bias=False
        )
    raise ValueError(f"upsampling must be nearest or transposed, got {kind!r}")


def _conv(filters: int) -> layers.Layer:
    return layers.Conv2D(filters, 3, padding="same", use_bias=False)


def _spectral_conv(filters: int, size: int, strides: int = 1) -> layers.Layer:
    conv = layers.Conv2D(filters, size, strides=strides, padding="same")
    return SpectralNormalization(conv)


def _modulate(x: keras.KerasTensor, style: keras.KerasTensor) -> keras.KerasTensor:
    width = x.shape[-1]
    small = keras.initializers.RandomNormal(stddev=0.02)
    change = layers.Dense(2 * width, kernel_initializer=small)(style)
    # By groups and not by batch: a batch is of one character, another of another.
    x = SelfModulation(min(_GROUPS, width))(x, change)
    return layers.LeakyReLU(negative_slope=0.2)(x)
