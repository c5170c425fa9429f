import contextlib
import io
import os
import struct
import threading
import time
import zlib

import numpy as np
import pytest
from PIL import Image

from anime_tf import images
from anime_tf.images import PictureError

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
LOSSLESS = {"PNG": {}, "BMP": {}, "GIF": {}, "WEBP": {"lossless": True, "exact": True}}


# Formats and names


@pytest.mark.parametrize(
    ("file_format", "name"),
    [
        ("JPEG", "a.jpg"),
        ("JPEG", "a.JPEG"),
        ("JPEG", "a.png"),
        ("PNG", "a.PnG"),
        ("PNG", "a.jpg"),
        ("WEBP", "a.webp"),
        ("WEBP", "a.WEBP"),
        ("WEBP", "a.gif"),
        ("BMP", "a.BMP"),
        ("BMP", "a.txt"),
        ("GIF", "a.Gif"),
        ("GIF", "初音 [1]"),
    ],
)
def test_content_decides_not_the_name(tmp_path, encode, file_format, name):
    image = _halves(RED, BLUE, size=(32, 16))
    path = tmp_path / name
    path.write_bytes(encode(image, file_format, **LOSSLESS.get(file_format, {})))
    picture = images.decode(images.read_bytes(path))
    assert picture.format == file_format
    assert (picture.width, picture.height) == (32, 16)
    assert not picture.animated
    assert picture.image.mode == "RGB"
    # The middle of each half, clear of a JPEG's smear along the edge.
    assert _pixel(picture, 4, 8) == pytest.approx(RED, abs=4)
    assert _pixel(picture, 28, 8) == pytest.approx(BLUE, abs=4)


@pytest.mark.parametrize("file_format", ["TIFF", "PPM", "ICO", "TGA"])
def test_other_formats_are_refused(encode, file_format):
    with pytest.raises(PictureError, match="not a JPEG, PNG, WebP, BMP or GIF"):
        images.decode(encode(_halves(RED, BLUE), file_format))


def test_jpeg_with_more_pictures_behind_it_is_a_jpeg(encode, draw):
    content = encode(draw(1), "MPO", save_all=True, append_images=[draw(2)])
    picture = images.decode(content)
    assert (picture.format, picture.animated) == ("JPEG", False)
    assert _difference(picture.image, draw(1)) < 4
    assert images.decode(content, at_least=12).image.size == (24, 24)


# Colour modes


def test_palette_with_transparency(encode):
    # Three entries: red opaque, green invisible, blue half visible. On white, blue
    # at alpha 128 is (0 * 128 + 255 * 127) / 255 = 127 in the other channels.
    image = Image.new("P", (3, 1))
    image.putpalette([*RED, *GREEN, *BLUE])
    image.putdata([0, 1, 2])
    content = encode(image, "PNG", transparency=bytes([255, 0, 128]))
    assert _row(content) == [RED, WHITE, (127, 127, 255)]


def test_gif_with_transparency(encode):
    image = Image.new("P", (2, 1))
    image.putpalette([*RED, *GREEN])
    image.putdata([0, 1])
    assert _row(encode(image, "GIF", transparency=1)) == [RED, WHITE]


@pytest.mark.parametrize(
    ("mode", "values", "expected"),
    [
        ("L", [0, 100, 255], [(0, 0, 0), (100, 100, 100), WHITE]),
        ("1", [0, 255, 0], [(0, 0, 0), WHITE, (0, 0, 0)]),
        ("LA", [(0, 255), (0, 0), (0, 128)], [(0, 0, 0), WHITE, (127, 127, 127)]),
        (
            "RGBA",
            [(*RED, 255), (*RED, 0), (*RED, 128)],
            [RED, WHITE, (255, 127, 127)],
        ),
    ],
)
def test_png_modes(encode, mode, values, expected):
    image = Image.new(mode, (3, 1))
    image.putdata(values)
    assert _row(encode(image, "PNG")) == expected


def test_16_bit_grey_keeps_the_high_byte():
    # 65535 / 256 = 255.99, 32896 = 128 * 256 + 128, 255 is below the first step.
    row = struct.pack(">4H", 0, 255, 32896, 65535)
    assert _row(_png(4, 1, depth=16, kind=0, rows=b"\0" + row)) == [
        (0, 0, 0),
        (0, 0, 0),
        (128, 128, 128),
        WHITE,
    ]


def test_16_bit_grey_as_pillow_writes_it(encode):
    values = np.array([[0, 32896, 65535]], np.uint16)
    row = _row(encode(Image.fromarray(values), "PNG"))
    assert row == [(0, 0, 0), (128, 128, 128), WHITE]


def test_16_bit_colour():
    row = struct.pack(">6H", 65535, 0, 32896, 0, 65535, 0)
    content = _png(2, 1, depth=16, kind=2, rows=b"\0" + row)
    assert _row(content) == [(255, 0, 128), GREEN]


def test_16_bit_colour_with_alpha():
    row = struct.pack(">8H", 65535, 0, 0, 0, 65535, 0, 0, 65535)
    assert _row(_png(2, 1, depth=16, kind=6, rows=b"\0" + row)) == [WHITE, RED]


def test_one_transparent_colour():
    # tRNS of an RGB picture names the colour that is invisible: here black.
    extra = _chunk(b"tRNS", struct.pack(">3H", 0, 0, 0))
    content = _png(2, 1, depth=8, kind=2, rows=b"\0\0\0\0\xff\0\0", extra=extra)
    assert _row(content) == [WHITE, RED]


def test_cmyk_jpeg(encode):
    # No cyan, full magenta and yellow: red. All ink at half black: dark grey.
    image = Image.new("CMYK", (32, 16), (0, 255, 255, 0))
    image.paste((0, 0, 0, 128), (16, 0, 32, 16))
    picture = images.decode(encode(image, "JPEG", quality=95))
    assert _pixel(picture, 4, 8) == pytest.approx(RED, abs=4)
    assert _pixel(picture, 28, 8) == pytest.approx((127, 127, 127), abs=4)


@pytest.mark.parametrize("file_format", ["PNG", "WEBP"])
def test_hidden_colours_never_show(encode, file_format):
    noise = np.random.default_rng(0).integers(0, 256, (16, 16, 4), np.uint8)
    noise[..., 3] = 0
    content = encode(Image.fromarray(noise), file_format, **LOSSLESS[file_format])
    stored = np.asarray(Image.open(io.BytesIO(content)).convert("RGBA"))
    assert np.array_equal(stored, noise), "the file must hold what is to be hidden"
    assert (np.asarray(images.decode(content).image) == 255).all()
    assert (images.letterbox(images.decode(content).image, 8) == 255).all()


# EXIF

UPRIGHT = np.random.default_rng(0).integers(0, 256, (6, 10, 3), np.uint8)
# What a camera stores, by orientation: where the stored first row and first column
# belong in the upright picture.
STORED = {
    1: UPRIGHT,  # top, left
    2: UPRIGHT[:, ::-1],  # top, right
    3: UPRIGHT[::-1, ::-1],  # bottom, right
    4: UPRIGHT[::-1],  # bottom, left
    5: UPRIGHT.swapaxes(0, 1),  # left, top
    6: UPRIGHT.swapaxes(0, 1)[::-1],  # right, top
    7: UPRIGHT.swapaxes(0, 1)[::-1, ::-1],  # right, bottom
    8: UPRIGHT.swapaxes(0, 1)[:, ::-1],  # left, bottom
}


@pytest.mark.parametrize("file_format", ["PNG", "WEBP"])
@pytest.mark.parametrize("orientation", STORED)
def test_exif_orientation(encode, orientation, file_format):
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation]))
    options = LOSSLESS[file_format] | {"exif": _exif(orientation)}
    picture = images.decode(encode(stored, file_format, **options))
    assert np.array_equal(np.asarray(picture.image), UPRIGHT)
    assert (picture.width, picture.height) == stored.size


@pytest.mark.parametrize("orientation", STORED)
def test_exif_orientation_of_a_jpeg_decoded_small(encode, orientation):
    upright = np.asarray(_halves(RED, BLUE, size=(256, 128)))
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.swapaxes(0, 1),
        6: upright.swapaxes(0, 1)[::-1],
        7: upright.swapaxes(0, 1)[::-1, ::-1],
        8: upright.swapaxes(0, 1)[:, ::-1],
    }[orientation]
    image = Image.fromarray(np.ascontiguousarray(stored))
    content = encode(image, "JPEG", exif=_exif(orientation))
    picture = images.decode(content, at_least=32)
    assert picture.image.size == (64, 32)
    assert _pixel(picture, 8, 16) == pytest.approx(RED, abs=4)
    assert _pixel(picture, 56, 16) == pytest.approx(BLUE, abs=4)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize(
    "exif",
    [
        b"Exif\0\0no TIFF header at all",
        # Five entries promised, one begun.
        b"Exif\0\0II*\0\x08\0\0\0\x05\0\x12\x01",
        # The orientation as text.
        b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x02\0\x04\0\0\0abc\0\0\0\0\0",
    ],
)
@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP"])
def test_broken_exif_leaves_the_picture_as_stored(encode, draw, file_format, exif):
    content = encode(draw(1, (96, 48)), file_format, exif=exif)
    picture = images.decode(content)
    assert picture.image.size == (96, 48)
    assert _difference(picture.image, draw(1, (96, 48))) < 6


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_unknown_orientation_is_ignored(encode, draw, orientation):
    content = encode(draw(1, (96, 48)), "PNG", exif=_exif(orientation))
    assert _difference(images.decode(content).image, draw(1, (96, 48))) == 0


# Animations


@pytest.mark.parametrize("file_format", ["GIF", "WEBP", "PNG"])
def test_first_frame_of_an_animation(encode, file_format):
    frames = [Image.new("RGB", (8, 4), colour) for colour in (RED, GREEN, BLUE)]
    options = LOSSLESS[file_format] | {"save_all": True, "append_images": frames[1:]}
    picture = images.decode(encode(frames[0], file_format, **options))
    assert picture.animated
    assert picture.format == file_format
    assert (np.asarray(picture.image) == RED).all()


def test_damage_behind_the_first_frame_does_no_harm(encode, draw):
    frames = [draw(seed).quantize(16) for seed in range(3)]
    content = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    picture = images.decode(content[: int(len(content) * 0.7)])
    assert _difference(picture.image, frames[0].convert("RGB")) == 0


# Files that are no pictures


@pytest.mark.parametrize("file_format", images.FORMATS)
@pytest.mark.parametrize("share", [0.5, 0.95])
def test_truncated(encode, file_format, share):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    content = encode(Image.fromarray(noise), file_format)
    with pytest.raises(PictureError, match=r"^damaged or truncated: \w"):
        images.decode(content[: int(len(content) * share)])


@pytest.mark.parametrize("file_format", images.FORMATS)
def test_header_only(encode, file_format):
    content = encode(_halves(RED, BLUE), file_format)
    for length in (1, 4, 10, 20):
        with pytest.raises(PictureError):
            images.decode(content[:length])


def test_any_garbage_is_a_picture_error(encode, draw):
    rng = np.random.default_rng(0)
    for file_format in images.FORMATS:
        content = np.frombuffer(encode(draw(1), file_format), np.uint8)
        for _ in range(20):
            damaged = content.copy()
            damaged[rng.integers(8, len(content), 10)] = rng.integers(0, 256, 10)
            # Some damage only changes colours; nothing but PictureError may come out.
            with contextlib.suppress(PictureError):
                assert images.decode(damaged.tobytes()).image.mode == "RGB"


@pytest.mark.parametrize("content", [b"", b"\0", b"hello, I am a text\n" * 100])
def test_no_picture_at_all(content):
    with pytest.raises(PictureError, match=r"^not a JPEG, PNG, WebP, BMP or GIF"):
        images.decode(content)


def test_error_without_words_is_named_by_its_kind(monkeypatch, encode):
    def give_up(*_):
        raise MemoryError

    monkeypatch.setattr(images, "_upright", give_up)
    with pytest.raises(PictureError, match="MemoryError"):
        images.decode(encode(_halves(RED, BLUE), "PNG"))


@pytest.mark.parametrize(
    ("width", "height"), [(100_000, 100_000), (12_000, 12_000), (8_000, 8_001)]
)
def test_huge_claims_are_refused_unread(width, height):
    # Pillow's own limits lie at 89 (a warning) and 179 megapixels (an error); had any
    # pixel been asked for, the missing data would be the complaint.
    start = time.perf_counter()
    with pytest.raises(PictureError, match=r"claims .*more than 64,000,000"):
        images.decode(_png(width, height, depth=8, kind=2, rows=b""))
    assert time.perf_counter() - start < 1


@pytest.mark.filterwarnings("ignore")
def test_huge_claims_are_refused_where_warnings_are_no_errors():
    with pytest.raises(PictureError, match="claims 12000 x 12000 pixels, more than"):
        images.decode(_png(12_000, 12_000, depth=8, kind=2, rows=b""))


def test_most_pixels_allowed(monkeypatch, encode):
    monkeypatch.setattr(images, "MAX_PIXELS", 32)
    assert images.decode(encode(Image.new("RGB", (8, 4)), "PNG")).width == 8
    content = encode(Image.new("RGB", (11, 3)), "PNG")
    # A caller may ask for fewer, but not for more.
    for options, most in (({}, 32), ({"max_pixels": 20}, 20), ({"max_pixels": 99}, 32)):
        with pytest.raises(PictureError, match=f"11 x 3 pixels, more than {most}"):
            images.decode(content, **options)


def test_most_bytes_allowed(monkeypatch, tmp_path):
    monkeypatch.setattr(images, "MAX_BYTES", 1000)
    path = tmp_path / "a.png"
    path.write_bytes(bytes(1000))
    assert images.read_bytes(path) == bytes(1000)
    path.write_bytes(bytes(1001))
    with pytest.raises(PictureError, match="1,001 bytes, more than 1,000"):
        images.read_bytes(str(path))


def test_unreadable_files_give_a_reason(tmp_path):
    (tmp_path / "empty.png").touch()
    (tmp_path / "dangling.png").symlink_to(tmp_path / "nowhere")
    for name, reason in {
        "empty.png": "^the file is empty$",
        "missing.png": "^cannot be read: No such file",
        "dangling.png": "^cannot be read: No such file",
        "": "^cannot be read: it is a folder$",
        "empty.png/x": "^cannot be read: Not a directory",
    }.items():
        with pytest.raises(PictureError, match=reason):
            images.read_bytes(tmp_path / name)
        with pytest.raises(PictureError, match=reason):
            images.load_square(tmp_path / name, 8)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes in folders here")
def test_pipe_is_not_waited_for(tmp_path):
    path = tmp_path / "pipe.png"
    os.mkfifo(path)
    # Opening and closing the other end would free a reader that hangs.
    rescue = threading.Timer(5, lambda: path.open("wb").close())
    rescue.daemon = True
    rescue.start()
    try:
        with pytest.raises(PictureError, match=r"^cannot be read: it is a special"):
            images.read_bytes(path)
    finally:
        rescue.cancel()


@pytest.mark.skipif(not os.path.exists("/dev/null"), reason="no devices here")
def test_device_is_refused():
    with pytest.raises(PictureError, match="it is a special file"):
        images.read_bytes("/dev/null")


# Letterbox


@pytest.mark.parametrize(
    ("size", "box"),
    [
        # (width, height) of the picture; (left, top, right, bottom) in a square of 100.
        ((200, 100), (0, 25, 100, 75)),
        ((100, 200), (25, 0, 75, 100)),
        ((50, 50), (0, 0, 100, 100)),
        ((20, 10), (0, 25, 100, 75)),
        # 100 * 100/300 = 33.3 rows; (100 - 33) // 2 = 33 above.
        ((300, 100), (0, 33, 100, 66)),
        # 100 * 1/1000 is no row at all: one is kept; (100 - 1) // 2 = 49 above.
        ((1000, 1), (0, 49, 100, 50)),
        ((1, 1000), (49, 0, 50, 100)),
        ((1, 1), (0, 0, 100, 100)),
    ],
)
def test_letterbox_geometry(size, box):
    square = images.letterbox(Image.new("RGB", size, BLUE), 100)
    assert square.shape == (100, 100, 3)
    assert square.dtype == np.uint8
    left, top, right, bottom = box
    expected = np.full((100, 100, 3), 255)
    expected[top:bottom, left:right] = BLUE
    assert np.array_equal(square, expected)


def test_letterbox_cuts_nothing_off_and_turns_nothing():
    # Four quarters in four colours: each must fill its quarter of the box.
    image = Image.new("RGB", (80, 40), RED)
    image.paste(GREEN, (40, 0, 80, 20))
    image.paste(BLUE, (0, 20, 40, 40))
    image.paste((0, 0, 0), (40, 20, 80, 40))
    square = images.letterbox(image, 40)
    for row, column, colour in (
        (10, 0, RED),
        (10, 39, GREEN),
        (29, 0, BLUE),
        (29, 39, (0, 0, 0)),
    ):
        assert tuple(square[row, column]) == colour
    assert (square[:10] == 255).all()
    assert (square[30:] == 255).all()


def test_letterbox_of_the_right_size_changes_nothing(draw):
    image = draw(1, (32, 32))
    assert np.array_equal(images.letterbox(image, 32), np.asarray(image))


def test_letterbox_averages_when_it_reduces():
    # A chequerboard of single pixels: every output pixel sees as much black as white.
    board = (np.indices((256, 256)).sum(0) % 2 * 255).astype(np.uint8)
    square = images.letterbox(Image.fromarray(board).convert("RGB"), 16)
    assert np.abs(square.astype(int) - 127).max() <= 2


# Reduced decoding of JPEGs


def test_reduced_decoding_stays_close(encode, draw):
    content = encode(draw(3, (1600, 1200)), "JPEG", quality=92)
    reduced = images.decode(content, at_least=224)
    # Twice 224 is 448; 1600 / 2 = 800 >= 448 and 1600 / 4 = 400 < 448.
    assert reduced.image.size == (800, 600)
    assert (reduced.width, reduced.height) == (1600, 1200)
    full = images.letterbox(images.decode(content).image, 224)
    assert np.abs(images.letterbox(reduced.image, 224).astype(int) - full).mean() < 1


def test_reduced_decoding_of_fine_lines(encode):
    # The worst that a drawing can hold: hair-thin black lines on white.
    lines = np.full((1200, 1200, 3), 255, np.uint8)
    lines[::12] = 0
    lines[:, ::20] = 0
    content = encode(Image.fromarray(lines), "JPEG", quality=92)
    reduced = images.letterbox(images.decode(content, at_least=224).image, 224)
    full = images.letterbox(images.decode(content).image, 224)
    assert np.abs(reduced.astype(int) - full).mean() < 6


def test_reduced_decoding_leaves_small_and_other_pictures_alone(encode, draw):
    small = encode(draw(3, (400, 300)), "JPEG")
    assert images.decode(small, at_least=224).image.size == (400, 300)
    large = encode(draw(3, (1600, 1200)), "PNG")
    assert images.decode(large, at_least=224).image.size == (1600, 1200)
    thin = encode(draw(3, (1600, 1)), "JPEG")
    assert images.decode(thin, at_least=16).image.size == (1600, 1)


def test_load_square(tmp_path, write):
    path = write(tmp_path / "a.png", Image.new("RGBA", (4, 2), (*RED, 255)))
    expected = np.full((8, 8, 3), 255)
    expected[2:6] = RED
    assert np.array_equal(images.load_square(path, 8), expected)
    assert np.array_equal(images.load_square(str(path), 8), expected)


# Arrays and images that are already open


def test_from_array_round_trip():
    array = np.random.default_rng(0).integers(0, 256, (3, 5, 3), np.uint8)
    image = images.from_array(array)
    assert (image.mode, image.size) == ("RGB", (5, 3))
    assert np.array_equal(np.asarray(image), array)
    assert np.array_equal(np.asarray(images.from_array(array[:, ::-1])), array[:, ::-1])


@pytest.mark.parametrize(
    ("array", "received"),
    [
        (np.zeros((2, 2, 3), np.float32), r"float32 \[2, 2, 3\]"),
        (np.zeros((2, 2, 3), np.int64), r"int64 \[2, 2, 3\]"),
        (np.zeros((2, 2), np.uint8), r"uint8 \[2, 2\]"),
        (np.zeros((2, 2, 4), np.uint8), r"uint8 \[2, 2, 4\]"),
        (np.zeros((1, 2, 2, 3), np.uint8), r"uint8 \[1, 2, 2, 3\]"),
        (np.zeros((0, 2, 3), np.uint8), r"uint8 \[0, 2, 3\]"),
        ("no array", r"<U8 \[\]"),
    ],
)
def test_from_array_says_what_it_received(array, received):
    with pytest.raises(PictureError, match=rf"expected a uint8 array.*got {received}"):
        images.from_array(array)


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "I;16"]
)
def test_to_rgb_takes_any_mode(mode):
    image = images.to_rgb(Image.new(mode, (3, 2)))
    assert (image.mode, image.size) == ("RGB", (3, 2))


def test_to_rgb_of_an_image_whose_file_is_damaged(encode, draw):
    content = encode(draw(1), "JPEG")
    with (
        Image.open(io.BytesIO(content[:800])) as image,
        pytest.raises(PictureError, match="damaged or truncated: image file is trunc"),
    ):
        images.to_rgb(image)


def test_to_rgb_of_an_image_without_pixels():
    with pytest.raises(PictureError, match="an image of 0 x 5 pixels"):
        images.to_rgb(Image.new("RGB", (0, 5)))


def _halves(left, right, size=(16, 8)) -> Image.Image:
    image = Image.new("RGB", size, left)
    image.paste(right, (size[0] // 2, 0, *size))
    return image


def _pixel(picture: images.Picture, x: int, y: int) -> tuple[int, ...]:
    return picture.image.getpixel((x, y))


def _row(content: bytes) -> list[tuple[int, ...]]:
    """Returns the first row of a picture file's pixels."""
    picture = images.decode(content)
    assert picture.image.mode == "RGB"
    return [tuple(map(int, pixel)) for pixel in np.asarray(picture.image)[0]]


def _difference(a: Image.Image, b: Image.Image) -> float:
    assert a.size == b.size
    return np.abs(np.asarray(a).astype(int) - np.asarray(b)).mean()


def _exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def _chunk(name: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(name + content)
    return (
        struct.pack(">I", len(content)) + name + content + checksum.to_bytes(4, "big")
    )


def _png(width, height, depth, kind, rows: bytes, extra: bytes = b"") -> bytes:
    """A PNG file made by hand; every row of `rows` starts with its filter byte."""
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + _chunk(b"IHDR", header)
        + extra
        + _chunk(b"IDAT", zlib.compress(rows))
        + _chunk(b"IEND", b"")
    )
