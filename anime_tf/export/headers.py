"""Reads the headers of picture files inside a TensorFlow graph.

TensorFlow's decoders are not made for untrusted bytes: an animated WebP corrupts the
memory of the process, a small file may claim a picture that fills it. So each file is
parsed here first, and what is refused never reaches a decoder. Nothing here raises an
error, whatever the bytes: behind the end of a file there are zeros.
"""

from typing import NamedTuple

import tensorflow as tf

from anime_tf.images import MAX_BYTES

# Ways to decode; `REFUSED` goes to no decoder.
REFUSED, JPEG, PNG, PNG_ALPHA, GIF, BMP, BMP_32, WEBP, WEBP_ALPHA = range(9)
_WINDOW = 26
# A file with more segments, chunks or blocks than this before its picture is refused.
_MOST_STEPS = 20_000
_ORIENTATION = 0x0112


class Header(NamedTuple):
    """What a file says about itself; all tensors are scalars.

    Attributes:
        kind: int64, one of `REFUSED` to `WEBP_ALPHA`.
        width, height: int64, pixels as stored, the largest that the file claims.
        orientation: int64, of EXIF, 1 to 8.
        content: string, the bytes for the decoder.
    """

    kind: tf.Tensor
    width: tf.Tensor
    height: tf.Tensor
    orientation: tf.Tensor
    content: tf.Tensor


SIGNATURE = Header(*[tf.TensorSpec([], tf.int64)] * 4, tf.TensorSpec([], tf.string))


def check(content: tf.Tensor, max_pixels: int) -> Header:
    """Like `read_header`, but `REFUSED` also for what claims no pixels, more than
    `max_pixels`, or has more than `MAX_BYTES`."""
    is_short = tf.strings.length(content) <= MAX_BYTES
    header = read_header(tf.where(is_short, content, ""))
    # Each side alone first: the product of two hostile sides may overflow.
    is_narrow = tf.maximum(header.width, header.height) <= max_pixels
    pixels = tf.where(is_narrow, header.width * header.height, 0)
    is_taken = (pixels > 0) & (pixels <= max_pixels)
    return header._replace(kind=tf.where(is_taken, header.kind, _int(REFUSED)))


def read_header(content: tf.Tensor) -> Header:
    """Reads the header of an encoded picture, string `[]`, of any format."""
    data = tf.io.decode_raw(content, tf.uint8)
    start = _window(data, tf.constant(0, tf.int64))
    readers = (_refuse, _read_jpeg, _read_png, _read_gif, _read_bmp, _read_webp)
    signatures = (
        _starts(start, b"\xff\xd8\xff"),
        _starts(start, b"\x89PNG\r\n\x1a\n"),
        _starts(start, b"GIF87a") | _starts(start, b"GIF89a"),
        _starts(start, b"BM"),
        _starts(start, b"RIFF") & _starts(start[8:], b"WEBP"),
    )
    number = sum(
        tf.cast(found, tf.int32) * (index + 1) for index, found in enumerate(signatures)
    )
    branches = [lambda read=read: tuple(read(content, data)) for read in readers]
    return Header(*tf.switch_case(number, branches))


def _refuse(content: tf.Tensor, data: tf.Tensor) -> Header:
    return _header(REFUSED, 0, 0, content)


def _read_jpeg(content: tf.Tensor, data: tf.Tensor) -> Header:
    """Walks the segments up to the first scan, as libjpeg does: what is no marker
    between two segments is skipped."""

    def step(state: dict) -> dict:
        window = _window(data, state["at"])
        marker = window[1]
        is_marker = (window[0] == 0xFF) & (marker != 0x00) & (marker != 0xFF)
        is_bare = (marker == 0x01) | ((marker >= 0xD0) & (marker <= 0xD8))
        tables = (marker == 0xC4) | (marker == 0xC8) | (marker == 0xCC)
        is_frame = is_marker & (marker // 16 == 0xC) & ~tables
        is_exif = is_marker & (marker == 0xE1) & _starts(window[4:], b"Exif\0\0")
        is_last = is_marker & ((marker == 0xDA) | (marker == 0xD9))
        size = tf.where(is_bare, _int(2), 2 + _big(window[2:4]))
        claimed = tf.stack([_big(window[7:9]), _big(window[5:7])])
        return {
            "at": state["at"] + tf.where(is_marker, size, 1),
            "size": tf.where(
                is_frame, tf.maximum(state["size"], claimed), state["size"]
            ),
            "exif": tf.where(is_exif, state["at"] + 10, state["exif"]),
            "going": ~is_last,
        }

    found = _walk(step, data, {"at": _int(2), "size": _pair(0, 0), "exif": _int(-1)})
    turn = _orientation(data, found["exif"])
    kind = tf.where(found["endless"], _int(REFUSED), _int(JPEG))
    return _header(kind, found["size"][0], found["size"][1], content, turn)


def _read_png(content: tf.Tensor, data: tf.Tensor) -> Header:
    """The size stands first; orientation may follow before the pixels."""
    start = _window(data, _int(0))

    def step(state: dict) -> dict:
        window = _window(data, state["at"])
        is_exif = _starts(window[4:], b"eXIf")
        is_clear = _starts(window[4:], b"tRNS")
        is_last = _starts(window[4:], b"IDAT") | _starts(window[4:], b"IEND")
        return {
            "at": state["at"] + 12 + _big(window[:4]),
            "exif": tf.where(is_exif, state["at"] + 8, state["exif"]),
            "alpha": state["alpha"] | is_clear,
            "going": ~is_last,
        }

    # Colour types 4 and 6 have an alpha channel. The decoder must be asked for one
    # only where there is one: of few shades of grey it invents a wrong one.
    alpha = start[25] // 4 % 2 == 1
    found = _walk(step, data, {"at": _int(8), "exif": _int(-1), "alpha": alpha})
    kind = tf.where(found["alpha"], _int(PNG_ALPHA), _int(PNG))
    is_png = _starts(start[12:], b"IHDR") & ~found["endless"]
    kind = tf.where(is_png, kind, _int(REFUSED))
    turn = _orientation(data, found["exif"])
    return _header(kind, _big(start[16:20]), _big(start[20:24]), content, turn)


def _read_gif(content: tf.Tensor, data: tf.Tensor) -> Header:
    """Cuts the file off behind its first frame, because the decoder unpacks them all,
    and makes its transparent colour white, which the decoder would leave black."""
    start = _window(data, _int(0))

    def step(state: dict) -> dict:
        window = _window(data, state["at"])
        inside = state["inside"]
        is_end = inside & (window[0] == 0)
        is_extension = ~inside & (window[0] == 0x21)
        is_frame = ~inside & (window[0] == 0x2C)
        is_control = is_extension & (window[1] == 0xF9) & (window[3] % 2 == 1)
        table = _colour_table(window[9])
        size = tf.where(is_extension, _int(2), 11 + table)
        has_frame = state["has_frame"] | is_frame
        claimed = tf.stack([_little(window[5:7]), _little(window[7:9])])
        own_table = is_frame & (table > 0)
        return {
            "at": state["at"] + tf.where(inside, 1 + window[0], size),
            "inside": (inside & ~is_end) | is_extension | is_frame,
            "has_frame": has_frame,
            "size": tf.where(
                is_frame, tf.maximum(state["size"], claimed), state["size"]
            ),
            "colour": tf.where(is_control, window[6], state["colour"]),
            "flags": tf.where(is_control, state["at"] + 3, state["flags"]),
            "table": tf.where(own_table, state["at"] + 10, state["table"]),
            "going": (inside | is_extension | is_frame) & ~(is_end & has_frame),
        }

    state = {
        "at": 13 + _colour_table(start[10]),
        "inside": tf.constant(False),
        "has_frame": tf.constant(False),
        "size": tf.stack([_little(start[6:8]), _little(start[8:10])]),
        "colour": _int(0),
        "flags": _int(-1),
        "table": _int(13),
    }
    found = _walk(step, data, state)
    has_frame = found["has_frame"] & ~found["endless"]
    kind = tf.where(has_frame, _int(GIF), _int(REFUSED))
    first = tf.strings.substr(content, _int(0), found["at"]) + b"\x3b"
    opaque = _replace(first, found["flags"], b"\x00")
    spot = found["table"] + 3 * found["colour"]
    opaque = _replace(opaque, spot, b"\xff\xff\xff")
    first = tf.where(found["flags"] >= 0, opaque, first)
    return _header(kind, found["size"][0], found["size"][1], first)


def _read_bmp(content: tf.Tensor, data: tf.Tensor) -> Header:
    """Only plain pixels of 24 or 32 bits: of the others the decoder knows nothing."""
    info = _window(data, _int(14))
    height = _little(info[8:12])
    # Signed: a picture that is stored from the top has a negative height.
    height = tf.where(height >= 2**31, 2**32 - height, height)
    bits, packing = _little(info[14:16]), _little(info[16:20])
    is_plain = (_little(info[:4]) >= 40) & (packing == 0)
    kind = tf.where(bits == 32, _int(BMP_32), _int(BMP))
    is_plain &= (bits == 24) | (bits == 32)
    kind = tf.where(is_plain, kind, _int(REFUSED))
    return _header(kind, _little(info[4:8]), height, content)


def _read_webp(content: tf.Tensor, data: tf.Tensor) -> Header:
    """Walks the chunks. Whether there is an alpha channel the picture's own chunk
    says, and the decoder must be asked for exactly what there is."""

    def step(state: dict) -> dict:
        window = _window(data, state["at"])
        body = window[8:]
        is_extended = _starts(window, b"VP8X")
        is_lossless, is_lossy = _starts(window, b"VP8L"), _starts(window, b"VP8 ")
        bits = _little(body[1:5])
        canvas = tf.stack([_little(body[4:7]) + 1, _little(body[7:10]) + 1])
        lossless = tf.stack([bits % 2**14 + 1, bits // 2**14 % 2**14 + 1])
        lossy = tf.stack([_little(body[6:8]) % 2**14, _little(body[8:10]) % 2**14])
        claimed = tf.where(is_lossless, lossless, tf.where(is_lossy, lossy, 0))
        claimed = tf.where(is_extended, canvas, claimed)
        is_animated = is_extended & (body[0] // 2 % 2 == 1)
        is_animated |= _starts(window, b"ANIM") | _starts(window, b"ANMF")
        has_alpha = _starts(window, b"ALPH") | (is_extended & (body[0] // 16 % 2 == 1))
        own_alpha = bits // 2**28 % 2 == 1
        size = _little(window[4:8])
        at = state["at"] + 8 + size + size % 2
        is_exif = _starts(window, b"EXIF")
        # Some writers begin the chunk as a JPEG's segment begins.
        skipped = tf.where(_starts(body, b"Exif\0\0"), _int(6), _int(0))
        return {
            "at": at,
            "size": tf.maximum(state["size"], claimed),
            "alpha": tf.where(is_lossless, own_alpha, state["alpha"] | has_alpha),
            "animated": state["animated"] | is_animated,
            "picture": state["picture"] | is_lossless | is_lossy,
            "exif": tf.where(is_exif, state["at"] + 8 + skipped, state["exif"]),
            "going": at + 8 < tf.size(data, out_type=tf.int64),
        }

    no = tf.constant(False)
    state = {"at": _int(12), "size": _pair(0, 0), "exif": _int(-1)}
    found = _walk(step, data, {**state, "alpha": no, "animated": no, "picture": no})
    kind = tf.where(found["alpha"], _int(WEBP_ALPHA), _int(WEBP))
    is_still = found["picture"] & ~found["animated"] & ~found["endless"]
    kind = tf.where(is_still, kind, _int(REFUSED))
    turn = _orientation(data, found["exif"])
    return _header(kind, found["size"][0], found["size"][1], content, turn)


def _walk(step, data: tf.Tensor, state: dict) -> dict:
    """Repeats a step until it says that it is done or the file ends; `endless` tells
    of files with too many parts."""
    state = {**state, "going": tf.constant(True)}
    end = tf.size(data, out_type=tf.int64)

    def is_going(state: dict) -> tf.Tensor:
        return state["going"] & (state["at"] < end)

    found = tf.while_loop(
        is_going,
        lambda state: (step(state),),
        (state,),
        maximum_iterations=_MOST_STEPS,
    )[0]
    return {**found, "endless": is_going(found)}


def _orientation(data: tf.Tensor, at: tf.Tensor) -> tf.Tensor:
    """Returns EXIF's orientation, int64 1 to 8, for TIFF data that begin at `at` (none
    if negative); 1 where they are broken, as that says nothing about the pixels."""
    at = tf.where(at < 0, tf.size(data, out_type=tf.int64), at)
    window = _window(data, at)
    is_big = _starts(window, b"MM")
    start = at + tf.where(is_big, _big(window[4:8]), _little(window[4:8]))
    window = _window(data, start)
    count = tf.where(is_big, _big(window[:2]), _little(window[:2]))
    entries = data[start + 2 : start + 2 + 12 * tf.minimum(count, 512)]
    whole = tf.size(entries) // 12
    entries = tf.cast(tf.reshape(entries[: 12 * whole], [whole, 12]), tf.int64)
    high = tf.where(is_big, 0, 1)
    tags = entries[:, high] * 256 + entries[:, 1 - high]
    values = entries[:, 8 + high] * 256 + entries[:, 9 - high]
    is_turn = (tags == _ORIENTATION) & (values >= 1) & (values <= 8)
    return tf.concat([[_int(1)], tf.boolean_mask(values, is_turn)], 0)[-1]


def _header(kind, width, height, content: tf.Tensor, orientation=1) -> Header:
    numbers = (kind, width, height, orientation)
    return Header(*(tf.cast(number, tf.int64) for number in numbers), content)


def _window(data: tf.Tensor, at: tf.Tensor) -> tf.Tensor:
    """Returns `_WINDOW` bytes as int64, zeros behind the end of the data."""
    window = tf.cast(data[at : at + _WINDOW], tf.int64)
    window = tf.pad(window, [[0, _WINDOW - tf.size(window)]])
    return tf.ensure_shape(window, [_WINDOW])


def _replace(content: tf.Tensor, at: tf.Tensor, part: bytes) -> tf.Tensor:
    """Overwrites a part of a string; clipped to where the string is."""
    length = tf.strings.length(content)
    at = tf.cast(tf.clip_by_value(at, 0, tf.cast(length, tf.int64)), tf.int32)
    behind = tf.minimum(at + len(part), length)
    head = tf.strings.substr(content, 0, at)
    return head + part + tf.strings.substr(content, behind, length - behind)


def _starts(window: tf.Tensor, signature: bytes) -> tf.Tensor:
    return tf.reduce_all(window[: len(signature)] == list(signature))


def _big(values: tf.Tensor) -> tf.Tensor:
    """Big-endian bytes, int64 `[n]`, as one number."""
    return tf.reduce_sum(values * [256**k for k in reversed(range(values.shape[0]))])


def _little(values: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(values * [256**k for k in range(values.shape[0])])


def _colour_table(flags: tf.Tensor) -> tf.Tensor:
    """Size in bytes of a GIF's table of colours, 0 if there is none."""
    return tf.where(flags >= 128, 3 * 2 ** (flags % 8 + 1), 0)


def _int(value: int) -> tf.Tensor:
    return tf.constant(value, tf.int64)


def _pair(first: int, second: int) -> tf.Tensor:
    return tf.constant([first, second], tf.int64)
