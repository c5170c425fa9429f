"""`images.letterbox` inside a TensorFlow graph, pixel for pixel.

Pillow and TensorFlow know the same bicubic kernel, but Pillow first averages blocks of
a much larger picture and rounds to whole levels after each of its passes. Done here in
the same order, what is left are sums that fall between two levels: no pixel is more
than `TOLERANCE` away.
"""

import tensorflow as tf

from anime_tf.images import BACKGROUND

# Largest difference to `images.letterbox` of the same pixels, in levels of 255.
TOLERANCE = 1
# As in `images.letterbox`: blocks are averaged down to this many times the target.
_REDUCING_GAP = 3.0


def letterbox(pictures: tf.Tensor, size: int) -> tf.Tensor:
    """Fits pictures of one shape into squares, on white.

    Args:
        pictures: uint8 `[n, h, w, 3]`, of any h and w above 0.
        size: Side of the square in pixels.

    Returns:
        uint8 `[n, size, size, 3]`.
    """
    sides = tf.cast(tf.shape(pictures)[1:3], tf.float64)
    # Rounds half to even, as Python does.
    fitted = tf.round(sides * (size / tf.reduce_max(sides)))
    fitted = tf.maximum(fitted, 1.0)
    factors = tf.maximum(tf.floor(sides / fitted / _REDUCING_GAP), 1.0)
    x = tf.cond(
        tf.reduce_any(factors > 1),
        lambda: _reduce(pictures, tf.cast(factors, tf.int32)),
        lambda: pictures,
    )
    scales = tf.cast(fitted * factors / sides, tf.float32)
    height, width = tf.unstack(tf.cast(fitted, tf.int32))
    # Across first, as Pillow does.
    x = _resize(x, [tf.shape(x)[1], width], [1.0, scales[1]])
    x = _resize(x, [height, width], [scales[0], 1.0])
    top, left = (size - height) // 2, (size - width) // 2
    paddings = [[0, 0], [top, size - height - top], [left, size - width - left], [0, 0]]
    x = tf.pad(x, paddings, constant_values=BACKGROUND[0])
    return tf.ensure_shape(tf.cast(x, tf.uint8), [None, size, size, 3])


def _resize(x: tf.Tensor, sides: list, scales: list) -> tf.Tensor:
    """Returns whole numbers in [0, 255], float32."""
    x = tf.raw_ops.ScaleAndTranslate(
        images=x,
        size=sides,
        scale=tf.stack(scales),
        translation=[0.0, 0.0],
        kernel_type="keyscubic",
        antialias=True,
    )
    return tf.clip_by_value(tf.floor(x + 0.5), 0.0, 255.0)


def _reduce(pictures: tf.Tensor, factors: tf.Tensor) -> tf.Tensor:
    """Averages blocks of `factors` pixels; those at the border may be smaller."""
    sums = tf.cast(pictures, tf.float32)
    counts = tf.ones([1, *tf.unstack(tf.shape(pictures)[1:3]), 1])
    for axis in (1, 2):
        sums, counts = (_sum(x, axis, factors[axis - 1]) for x in (sums, counts))
    return tf.cast(tf.floor(sums / counts + 0.5), tf.uint8)


def _sum(x: tf.Tensor, axis: int, factor: tf.Tensor) -> tf.Tensor:
    """Adds up `factor` neighbours along an axis."""
    shape = tf.unstack(tf.shape(x))
    blocks = -(-shape[axis] // factor)
    paddings = [[0, 0]] * 4
    paddings[axis] = [0, blocks * factor - shape[axis]]
    split = [*shape[:axis], blocks, factor, *shape[axis + 1 :]]
    return tf.reduce_sum(tf.reshape(tf.pad(x, paddings), split), axis + 1)
