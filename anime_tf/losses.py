"""Losses of drawing: small pure functions of tensors.

The perceptual losses compare descriptors of generated pictures with those of real ones,
as two distributions. (A distance between a generated picture and an independent real
one is least for the mean of all real ones, whatever the noise: a blur. It is here as
`paired_loss`, for reference.) Descriptors are float `[n, d]`: of n pictures, in units
in which the mean distance of two real pictures is 1.
"""

import tensorflow as tf

# Of the drift's kernels, where 1 is the mean distance of two real pictures.
KERNEL_WIDTHS = (0.02, 0.05, 0.2)
_FAR = 1e6
_TINY = 1e-8  # a root has no gradient at 0


def hinge_discriminator_loss(real_logits: tf.Tensor, fake_logits: tf.Tensor):
    """Hinge loss of the discriminator (Lim and Ye, 2017); logits of any shape."""
    real = tf.reduce_mean(tf.nn.relu(1.0 - real_logits))
    return real + tf.reduce_mean(tf.nn.relu(1.0 + fake_logits))


def hinge_generator_loss(fake_logits: tf.Tensor) -> tf.Tensor:
    """What the generator minimises against `hinge_discriminator_loss`."""
    return -tf.reduce_mean(fake_logits)


def paired_loss(fake: tf.Tensor, real: tf.Tensor) -> tf.Tensor:
    """Mean squared distance of each fake to one real picture drawn at random.

    Args:
        fake, real: float `[n, d]`.
    """
    return tf.reduce_mean(tf.reduce_sum(tf.square(fake - real), axis=-1))


def nearest_loss(fake: tf.Tensor, real: tf.Tensor) -> tf.Tensor:
    """Two-sided Chamfer distance: to each picture the nearest one on the other side.

    Each real picture pulls its nearest fake (as in IMLE, Li and Malik, 2018), so none
    is left out; each fake is pulled to its nearest real picture, so none is nobody.

    Args:
        fake: float `[n, d]`.
        real: float `[m, d]`.
    """
    distances = tf.square(_distances(fake, real))
    to_fake = tf.reduce_mean(tf.reduce_min(distances, axis=0))
    return 0.5 * (to_fake + tf.reduce_mean(tf.reduce_min(distances, axis=1)))


def statistics_loss(fake: tf.Tensor, real: tf.Tensor) -> tf.Tensor:
    """Squared distance of the means, and of the covariances, of all features.

    The covariances are compared as in Deep CORAL (Sun and Saenko, 2016), by the
    Frobenius norm. It is computed from the products of pictures with pictures: there
    are far fewer of those than of features with features.

    Args:
        fake: float `[n, d]`.
        real: float `[m, d]`.
    """
    fake_mean, real_mean = tf.reduce_mean(fake, 0), tf.reduce_mean(real, 0)
    fake, real = fake - fake_mean, real - real_mean
    covariance = _alike(fake, fake) + _alike(real, real) - 2.0 * _alike(fake, real)
    return tf.reduce_sum(tf.square(fake_mean - real_mean)) + covariance


def drift_loss(fake: tf.Tensor, real: tf.Tensor) -> tf.Tensor:
    """Squared length of the drift that carries the fakes to the real distribution.

    Each fake is attracted by real pictures and repelled by other fakes, both weighted
    by a kernel; where fakes and reals are spread alike the two cancel. The gradient
    moves each fake along its drift (Deng et al., "Generative Modeling via Drifting",
    2026), the mean over kernels of several widths. The two weights are normalised each
    by itself: normalised together, as in that paper, the drift vanishes as long as the
    fakes, early in training, are closer to each other than to any real picture.

    Args:
        fake: float `[n, d]`, n >= 2.
        real: float `[m, d]`.
    """
    here = tf.stop_gradient(fake)
    to_real = _distances(here, real)
    # None is repelled by itself.
    to_fake = _distances(here, here) + _FAR * tf.eye(tf.shape(here)[0])
    attraction = tf.matmul(_kernel(to_real), real)
    there = here + attraction - tf.matmul(_kernel(to_fake), here)
    return tf.reduce_mean(tf.reduce_sum(tf.square(fake - there), axis=-1))


PERCEPTUAL_LOSSES = {
    "paired": paired_loss,
    "nearest": nearest_loss,
    "drift": drift_loss,
    "statistics": statistics_loss,
}


def _kernel(distances: tf.Tensor) -> tf.Tensor:
    """Mean over all widths of the softmax over the pictures on the other side."""
    kernels = [tf.nn.softmax(-distances / width) for width in KERNEL_WIDTHS]
    return tf.add_n(kernels) / len(kernels)


def _alike(first: tf.Tensor, second: tf.Tensor) -> tf.Tensor:
    """Inner product of the covariances of centred features `[n, d]` and `[m, d]`."""
    return tf.reduce_mean(tf.square(tf.matmul(first, second, transpose_b=True)))


def _distances(first: tf.Tensor, second: tf.Tensor) -> tf.Tensor:
    """Returns `[n, m]` for `[n, d]` and `[m, d]`."""
    squares = tf.reduce_sum(first**2, -1)[:, None] + tf.reduce_sum(second**2, -1)
    squares -= 2.0 * tf.matmul(first, second, transpose_b=True)
    return tf.sqrt(tf.maximum(squares, _TINY))
