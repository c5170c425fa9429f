"""Decoding in a graph: as Pillow does, and nothing hostile reaches a decoder."""

import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from anime_tf import images
from anime_tf.export import decoding, headers
from anime_tf.export.letterbox import TOLERANCE, letterbox

SIZE = 32


@pytest.fixture(scope="module")
def decode():
    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def run(contents):
        return decoding.decode_batch(contents, SIZE, max_pixels=1_000_000)

    def decode(contents):
        squares, ok = run(tf.constant(contents, tf.string))
        return squares.numpy(), ok.numpy().tolist()

    return decode


@pytest.fixture(scope="module")
def rgba(draw):
    image = draw(1, (60, 44)).convert("RGBA")
    image.putalpha(draw(2, (60, 44)).convert("L"))
    return image


def _expected(content):
    return images.letterbox(images.decode(content, at_least=SIZE).image, SIZE)


def _differences(squares, contents):
    pairs = zip(squares, contents, strict=True)
    return [int(np.abs(s - _expected(c).astype(int)).max()) for s, c in pairs]


def _exif(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def _chunk(name, data):
    check = struct.pack(">I", zlib.crc32(name + data))
    return struct.pack(">I", len(data)) + name + data + check


def _png(width, height, bits=8, colour=2, data=b""):
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    parts = (b"IHDR", header), (b"IDAT", zlib.compress(data)), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*part) for part in parts)


@pytest.mark.parametrize(
    "sides",
    [(32, 32), (20, 32), (96, 64), (333, 511), (3, 900), (1, 700), (7, 5), (1, 1)],
)
def test_letterbox_is_that_of_training(sides):
    picture = np.random.default_rng(0).integers(0, 256, (*sides, 3), np.uint8)
    fitted = tf.function(letterbox)(picture[None], SIZE).numpy()[0]
    expected = images.letterbox(Image.fromarray(picture), SIZE)
    assert np.abs(fitted - expected.astype(int)).max() <= TOLERANCE


def test_ordinary_files(decode, draw, encode, rgba):
    image = draw(0, (120, 90))
    flat = image.quantize(16)
    contents = [
        encode(image, "JPEG"),
        encode(draw(3, (700, 500)), "JPEG", progressive=True),
        encode(image.convert("L"), "JPEG"),
        encode(image.convert("CMYK"), "JPEG"),
        encode(image, "PNG"),
        encode(image.convert("L"), "PNG"),
        encode(image.convert("1"), "PNG"),
        encode(flat, "PNG"),
        encode(flat, "PNG", transparency=3),
        encode(rgba, "PNG"),
        encode(rgba.convert("LA"), "PNG"),
        encode(
            Image.fromarray(np.arange(5000, dtype=np.uint16).reshape(50, 100)), "PNG"
        ),
        encode(image, "WEBP"),
        encode(image, "WEBP", lossless=True),
        encode(rgba, "WEBP"),
        encode(rgba, "WEBP", lossless=True),
        encode(flat, "GIF"),
        encode(flat, "GIF", transparency=3),
        encode(flat, "GIF", save_all=True, append_images=[draw(5, (120, 90))]),
        encode(image, "BMP"),
        encode(rgba, "BMP"),
    ]
    squares, ok = decode(contents)
    assert ok == [True] * len(contents)
    assert max(_differences(squares, contents)) <= TOLERANCE


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP"])
def test_orientation(decode, draw, encode, file_format):
    image = draw(0, (60, 40))
    contents = [encode(image, file_format, exif=_exif(n)) for n in range(10)]
    squares, ok = decode(contents)
    assert all(ok)
    assert max(_differences(squares, contents)) <= TOLERANCE


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_broken_exif_leaves_the_picture_as_stored(decode, draw, encode):
    image = draw(0, (60, 40))
    for exif in (
        b"Exif\0\0",
        b"Exif\0\0MM\0\x2a\xff\xff\xff\xff",
        b"Exif\0\0II*\0" * 3,
    ):
        content = encode(image, "JPEG", exif=exif)
        squares, ok = decode([content])
        assert ok == [True]
        assert _differences(squares, [content])[0] <= TOLERANCE


@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("lossless", [False, True])
def test_animated_webp_never_reaches_the_decoder(
    decode, draw, encode, rgba, alpha, lossless
):
    image = rgba if alpha else draw(0, (60, 44))
    others = [image.rotate(90 * number) for number in (1, 2)]
    content = encode(
        image, "WEBP", save_all=True, append_images=others, lossless=lossless
    )
    header = headers.check(tf.constant(content), 10**6)
    assert int(header.kind) == headers.REFUSED
    # Also with the flag of the extended header cleared.
    at = content.index(b"VP8X") + 8
    hidden = content[:at] + bytes([content[at] & ~2]) + content[at + 1 :]
    assert int(headers.check(tf.constant(hidden), 10**6).kind) == headers.REFUSED
    assert decode([content, hidden])[1] == [False, False]


def test_sizes_as_claimed(draw, encode, rgba):
    contents = [
        encode(rgba.convert("RGB") if name in ("JPEG", "BMP") else rgba, name)
        for name in ("JPEG", "PNG", "GIF", "BMP", "WEBP")
    ]
    contents += [encode(rgba, "WEBP", lossless=True), encode(draw(0, (60, 44)), "WEBP")]
    for content in contents:
        header = headers.check(tf.constant(content), 60 * 44)
        assert (int(header.width), int(header.height)) == (60, 44)
        assert int(header.kind) != headers.REFUSED
        header = headers.check(tf.constant(content), 60 * 44 - 1)
        assert int(header.kind) == headers.REFUSED


def _bombs(encode, draw):
    gif = bytearray(encode(draw(0, (60, 44)).quantize(4), "GIF"))
    frame = gif.index(b"\x2c\0\0\0\0")
    gif[frame + 5 : frame + 9] = b"\xff\xff\xff\xff"
    bmp = bytearray(encode(draw(0, (60, 44)), "BMP"))
    bmp[18:26] = struct.pack("<ii", 2**31 - 1, -(2**31))
    jpeg = bytearray(encode(draw(0, (60, 44)), "JPEG"))
    size = jpeg.index(b"\xff\xc0") + 5
    jpeg[size : size + 4] = b"\xff\xff\xff\xff"
    webp = bytearray(encode(draw(0, (60, 44)), "WEBP", exif=_exif(1)))
    canvas = webp.index(b"VP8X") + 12
    webp[canvas : canvas + 6] = b"\xff" * 6
    return [
        _png(60_000, 60_000),
        _png(2**31 - 1, 2**31 - 1),
        _png(0, 5),
        bytes(gif),
        bytes(bmp),
        bytes(jpeg),
        bytes(webp),
    ]


def test_bombs_are_refused_before_the_decoder(encode, draw):
    for content in _bombs(encode, draw):
        header = headers.check(tf.constant(content), decoding.MAX_PIXELS)
        assert int(header.kind) == headers.REFUSED


def test_a_gif_of_many_frames_is_cut_off_behind_the_first(draw, encode):
    frames = [draw(seed, (60, 44)).quantize(16) for seed in range(20)]
    content = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    header = headers.check(tf.constant(content), 10**6)
    assert len(header.content.numpy()) < len(content) / 10


def test_hostile_files_fail_alone(decode, draw, encode, rgba):
    good = encode(draw(0, (60, 44)), "PNG")
    files = [
        encode(draw(0, (60, 44)), name)
        for name in ("JPEG", "PNG", "WEBP", "GIF", "BMP")
    ]
    hostile = [
        b"",
        b"no picture",
        b"\xff\xd8\xff" + b"\xff" * 100_000,
        b"GIF89a" + b"\0\1" * 50,
        good[:60] + b"\0" * 40 + good[100:],
        encode(draw(0), "TIFF"),
        *_bombs(encode, draw),
        *(content[: len(content) // 2] for content in files),
        *(content[:length] for content in files for length in (3, 9, 14, 22, 29)),
    ]
    contents = [part for content in hostile for part in (good, content)]
    squares, ok = decode(contents)
    assert ok == [True, False] * len(hostile)
    assert (squares[1::2] == 255).all()
    assert max(_differences(squares[::2], contents[::2])) <= TOLERANCE


def test_all_bad_and_nothing_at_all(decode):
    assert decode([b"a", b"b"])[1] == [False, False]
    squares, ok = decode([])
    assert squares.shape == (0, SIZE, SIZE, 3)
    assert ok == []


def test_random_bytes_behind_every_signature(decode):
    rng = np.random.default_rng(0)
    starts = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM", b"RIFF....WEBP")
    contents = [start + rng.bytes(400) for start in starts for _ in range(6)]
    assert not any(decode(contents)[1])
