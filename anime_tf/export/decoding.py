"""Picture files to squares inside a TensorFlow graph: `images.load_square` without
Pillow.

Equal to it within a few levels (JPEG) or `letterbox.TOLERANCE` (the others), but for
these: XMP's orientation, and EXIF's behind the pixels of a PNG, are not seen; a GIF
whose first frame leaves a part of the canvas free is its first frame alone; BMP is
read with plain pixels of 24 or 32 bits only.
"""

import tensorflow as tf

from anime_tf.export import headers
from anime_tf.export.letterbox import letterbox

# Files that claim more pixels than this are refused. Fewer than `images.MAX_PIXELS`: a
# server decodes many at once, in up to 16 bytes a pixel each.
MAX_PIXELS = 16_000_000


def decode_batch(
    contents: tf.Tensor, size: int, max_pixels: int = MAX_PIXELS
) -> tuple[tf.Tensor, tf.Tensor]:
    """Decodes files; what cannot be read stops nobody.

    Args:
        contents: string `[n]`, bytes of picture files.
        size: Side of the squares in pixels.
        max_pixels: Files that claim more are not read.

    Returns:
        Squares uint8 `[n, size, size, 3]`, white where a file cannot be read, and bool
        `[n]`, whether it could.
    """
    count = tf.size(contents)
    parts = tf.map_fn(
        lambda content: headers.check(content, max_pixels),
        contents,
        fn_output_signature=headers.SIGNATURE,
    )
    readable = iter(_readable(parts, size))
    squares = tf.TensorArray(tf.uint8, count, element_shape=[size, size, 3])
    ok = tf.zeros([count], tf.bool)

    def fit(following, squares: tf.TensorArray, ok: tf.Tensor) -> tuple:
        row, picture = following.get_value()
        picture = _turn(_on_white(picture), parts.orientation[row])
        squares = squares.write(row, letterbox(picture[None], size)[0])
        ok = tf.tensor_scatter_nd_update(ok, [[row]], [True])
        return readable.get_next_as_optional(), squares, ok

    # One picture at a time: all of a batch at their full size might not fit in memory.
    _, squares, ok = tf.while_loop(
        lambda following, squares, ok: following.has_value(),
        fit,
        (readable.get_next_as_optional(), squares, ok),
        parallel_iterations=1,
    )
    # Rows that were never written are zeros.
    white = tf.cast(255 * tf.cast(~ok, tf.int32), tf.uint8)
    return tf.ensure_shape(
        squares.stack() + white[:, None, None, None], [None, size, size, 3]
    ), ok


def _readable(parts: headers.Header, size: int) -> tf.data.Dataset:
    """Yields (row, picture uint8 `[h, w, 3 or 4]`) of the files that can be read.

    A dataset, because nothing else in a graph survives an error of a decoder. What it
    runs is kept small: it is prepared anew for every batch, at a price by its size.
    """
    rows = tf.range(tf.size(parts.kind))
    reduction = tf.maximum(parts.width, parts.height) // (2 * size)
    columns = (rows, parts.kind, reduction, parts.content)
    dataset = tf.data.Dataset.from_tensor_slices(columns)
    dataset = dataset.filter(lambda row, kind, *_: kind != headers.REFUSED)
    dataset = dataset.map(
        lambda row, kind, reduction, content: (row, _decode(kind, reduction, content))
    )
    options = tf.data.Options()
    options.experimental_optimization.apply_default_optimizations = False
    options.autotune.enabled = False
    return dataset.ignore_errors().prefetch(1).with_options(options)


def _decode(kind: tf.Tensor, reduction: tf.Tensor, content: tf.Tensor) -> tf.Tensor:
    """Decodes one file; raises any error of the decoder.

    A JPEG is decoded at a reduced scale where its longer side stays twice the square's
    at least, as in `images.decode`, and by the exact transform, as in Pillow.
    """
    scales = (1, 2, 4, 8)
    jpegs = [
        lambda scale=scale: tf.io.decode_jpeg(
            content, channels=3, ratio=scale, dct_method="INTEGER_ACCURATE"
        )
        for scale in scales
    ]
    others = {
        headers.PNG: lambda: tf.io.decode_png(content, channels=3),
        headers.PNG_ALPHA: lambda: tf.io.decode_png(content, channels=4),
        headers.GIF: lambda: tf.io.decode_gif(content)[0],
        headers.BMP: lambda: tf.io.decode_bmp(content, channels=3),
        headers.BMP_32: lambda: tf.io.decode_bmp(content, channels=4)[..., :3],
        headers.WEBP: lambda: tf.io.decode_webp(content, channels=3)[0],
        headers.WEBP_ALPHA: lambda: tf.io.decode_webp(content, channels=4)[0],
    }
    number = sum(tf.cast(reduction >= scale, tf.int64) for scale in scales[1:])
    for index, other in enumerate(others):
        number = tf.where(kind == other, _int(index + len(jpegs)), number)
    return tf.switch_case(tf.cast(number, tf.int32), [*jpegs, *others.values()])


def _on_white(picture: tf.Tensor) -> tf.Tensor:
    """Lays uint8 `[h, w, 4]` on white; returns `[h, w, 3]` as it is."""

    def lay() -> tf.Tensor:
        colours = tf.cast(picture[..., :3], tf.float32)
        alpha = tf.cast(picture[..., 3:], tf.float32) / 255.0
        laid = colours * alpha + 255.0 * (1.0 - alpha)
        return tf.cast(tf.floor(laid + 0.5), tf.uint8)

    return tf.cond(tf.shape(picture)[2] == 4, lay, lambda: picture[..., :3])


def _turn(picture: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Turns a picture upright from EXIF's orientation 1 to 8."""
    turns = [
        lambda: picture,
        lambda: picture[:, ::-1],
        lambda: picture[::-1, ::-1],
        lambda: picture[::-1],
        lambda: _transpose(picture),
        lambda: _transpose(picture)[:, ::-1],
        lambda: _transpose(picture)[::-1, ::-1],
        lambda: _transpose(picture)[::-1],
    ]
    return tf.switch_case(tf.cast(orientation - 1, tf.int32), turns)


def _transpose(picture: tf.Tensor) -> tf.Tensor:
    return tf.transpose(picture, [1, 0, 2])


def _int(value: int) -> tf.Tensor:
    return tf.constant(value, tf.int64)
