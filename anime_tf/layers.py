"""Layers of the generator and the discriminator."""

import keras
import numpy as np
from keras import ops

# Row by row, which of the three taps of a 3 x 3 kernel meet in one of a 4 x 4 kernel.
_TAPS = np.array([[0, 0, 1], [0, 1, 1], [1, 1, 0], [1, 0, 0]], np.float32)
_TINY = 1e-3


@keras.saving.register_keras_serializable(package="anime_tf")
class UpsampleConv2D(keras.layers.Layer):
    """Doubles the size by nearest neighbour, then convolves 3 x 3, without bias.

    Gives what `UpSampling2D` and `Conv2D(filters, 3, padding="same")` give, so no
    checkerboard (Odena et al., 2016), for less than half of the work: under each
    output pixel the nine taps fall on only four different pixels of the small map, and
    those that fall on the same one are summed first. What is left is a transposed
    convolution, whose 4 x 4 kernel has the same sum under every output pixel.

    Args:
        filters: Number of output channels.
    """

    def __init__(self, filters: int, **kwargs):
        super().__init__(**kwargs)
        self.filters = filters

    def build(self, input_shape):
        # The channels in the order of a transposed convolution, outputs first, and
        # so the fan-in of He et al. (2015) stands where Keras looks for the fan-out.
        self.kernel = self.add_weight(
            name="kernel",
            shape=(3, 3, self.filters, input_shape[-1]),
            initializer=keras.initializers.VarianceScaling(2.0, mode="fan_out"),
        )

    def call(self, inputs):
        taps = np.kron(_TAPS, _TAPS)
        kernel = ops.matmul(taps, ops.reshape(self.kernel, (9, -1)))
        kernel = ops.reshape(kernel, (4, 4, *self.kernel.shape[2:]))
        return ops.conv_transpose(inputs, kernel, strides=2, padding="same")

    def compute_output_shape(self, input_shape):
        size, height, width, _ = input_shape
        return (size, 2 * height, 2 * width, self.filters)

    def get_config(self):
        return {**super().get_config(), "filters": self.filters}


@keras.saving.register_keras_serializable(package="anime_tf")
class SelfModulation(keras.layers.Layer):
    """Normalises groups of channels, then scales and shifts every channel as told.

    Group normalisation (Wu and He, 2018) and self-modulation (Chen et al., 2019) in
    one product and one sum over the map: half of the time that the two take apart.
    Called with a map float `[n, h, w, c]` and its change float `[n, 2 c]`, first by how
    much more than 1 to scale, then by how much to shift.

    Args:
        groups: Number of groups of channels, by picture; a divisor of c.
    """

    def __init__(self, groups: int, **kwargs):
        super().__init__(**kwargs)
        self.groups = groups

    def call(self, inputs, change):
        scale, shift = ops.split(change, 2, axis=-1)
        mean = self._by_group(ops.mean(inputs, axis=(1, 2)))
        variance = ops.square(inputs - mean[:, None, None])
        variance = self._by_group(ops.mean(variance, axis=(1, 2)))
        factor = ops.rsqrt(variance + _TINY) * (1.0 + scale)
        summand = shift - mean * factor
        return inputs * factor[:, None, None] + summand[:, None, None]

    def _by_group(self, values):
        """Replaces values `[n, c]` by the mean of their group."""
        size = values.shape[-1] // self.groups
        means = ops.mean(ops.reshape(values, (-1, self.groups, size)), axis=-1)
        return ops.repeat(means, size, axis=-1)

    def compute_output_shape(self, inputs_shape, change_shape):
        return inputs_shape

    def get_config(self):
        return {**super().get_config(), "groups": self.groups}


@keras.saving.register_keras_serializable(package="anime_tf")
class SpectralNormalization(keras.layers.SpectralNormalization):
    """Keras' layer without its question whether the kernel is all zeros.

    A kernel that was drawn at random is not, and the branch for it takes most of the
    time that TensorFlow needs to trace the layer with its gradient.
    """

    def call(self, inputs, training=False):
        if training:
            vector_u, kernel = self.normalized_weights()
            self.vector_u.assign(vector_u)
            self.kernel.assign(kernel)
        return self.layer(inputs)


@keras.saving.register_keras_serializable(package="anime_tf")
class DifferentiableAugmentation(keras.layers.Layer):
    """Shows pictures a little changed, each in its own way, with gradients.

    Colour, translation and cutout (DiffAugment, Zhao et al., 2020), and a mirror. Shown
    to the judges only, reals and fakes alike, it keeps them from learning a few dozen
    pictures by heart, and the generator from what only one exact placement would hide.

    Args:
        colour: Whether to change brightness, saturation and contrast, mildly.
        translation: Longest shift, as a share of the side; the border is mirrored in.
        cutout: Side of the grey square laid over a picture, as a share of the side.
        seed: Seed of the choices.
    """

    def __init__(
        self,
        colour: bool = True,
        translation: float = 0.125,
        cutout: float = 0.375,
        seed: int | None = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.colour, self.translation, self.cutout = colour, translation, cutout
        self.seed = seed
        self.random = keras.random.SeedGenerator(seed)

    def call(self, images):
        x = images
        if self.colour:
            x = self._recolour(x)
        x = self._mirror(x)
        if self.translation:
            x = self._shift(x)
        if self.cutout:
            x = self._cut_out(x)
        return x

    def _uniform(self, x, shape, low, high):
        shape = (ops.shape(x)[0], *shape)
        return keras.random.uniform(shape, low, high, seed=self.random)

    def _recolour(self, x):
        x = x + self._uniform(x, (1, 1, 1), -32.0, 32.0)
        grey = ops.mean(x, axis=-1, keepdims=True)
        x = (x - grey) * self._uniform(x, (1, 1, 1), 0.6, 1.4) + grey
        mean = ops.mean(x, axis=(1, 2, 3), keepdims=True)
        return (x - mean) * self._uniform(x, (1, 1, 1), 0.75, 1.25) + mean

    def _mirror(self, x):
        flip = self._uniform(x, (1, 1, 1), 0.0, 1.0) < 0.5
        return ops.where(flip, ops.flip(x, axis=2), x)

    def _shift(self, x):
        for axis in (1, 2):
            size = x.shape[axis]
            reach = round(self.translation * size)
            offset = self._uniform(x, (1,), -reach - 0.5, reach + 0.5)
            offset = ops.cast(ops.round(offset), "int32")
            places = ops.abs(ops.arange(size)[None] + offset)
            places = size - 1 - ops.abs(size - 1 - places)
            # A product, and no gather, whose gradient adds up in an order of its own
            # in every run.
            moves = ops.one_hot(places, size, dtype=x.dtype)
            x = ops.einsum(
                "nij,njwc->niwc" if axis == 1 else "nij,nhjc->nhic", moves, x
            )
        return x

    def _cut_out(self, x):
        inside = None
        for axis in (1, 2):
            size = x.shape[axis]
            center = self._uniform(x, (1,), 0.0, size)
            near = ops.abs(ops.arange(size, dtype="float32")[None] + 0.5 - center)
            near = near < self.cutout * size / 2
            shape = (-1, size, 1, 1) if axis == 1 else (-1, 1, size, 1)
            near = ops.reshape(near, shape)
            inside = near if inside is None else ops.logical_and(inside, near)
        return ops.where(inside, 127.5, x)

    def get_config(self):
        return {
            **super().get_config(),
            "colour": self.colour,
            "translation": self.translation,
            "cutout": self.cutout,
            "seed": self.seed,
        }
