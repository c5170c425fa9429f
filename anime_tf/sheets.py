"""Sheets of pictures for a person to look at: grids, pairs, comparisons, animations.

Pictures are uint8 `[n, h, w, 3]`, RGB, at least one of them. None is changed but by
whole-number enlargement, so that every pixel on a sheet is one that was drawn.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from anime_tf.files import replacing

_WHITE = "#ffffff"
_INK = "#1d2330"
_MUTED = "#626a79"
_GAP = 2
_MARGIN = 12
_PADDING = 4  # above and below a text
_HEADING = 18  # font sizes in pixels
_CAPTION = 13
_NARROWEST = 150  # so that text beside tiny pictures does not become a column of words
_COLOURS = 255  # of 256: one is left to mean "as in the frame before"
_SAMPLED_PIXELS = 2**15  # eight times as many take ten times as long, and gain nothing
_ALMOST_WHITE = 240


def grid(
    pictures: np.ndarray, columns: int | None = None, gap: int = _GAP
) -> Image.Image:
    """Lays pictures out row by row on white.

    Args:
        pictures: uint8 `[n, h, w, 3]`.
        columns: Pictures per row; by default the sheet comes out near square.
        gap: White pixels between neighbours. There are none around the sheet.

    Raises:
        ValueError: If there is no picture, or the array is of another kind.
    """
    pictures = _checked("pictures", pictures)
    return _tiled([Image.fromarray(picture) for picture in pictures], columns, gap)


def pairs_sheet(
    real: np.ndarray,
    generated: np.ndarray,
    columns: int | None = None,
    enlargement: int = 1,
) -> Image.Image:
    """Shows real pictures on the left and generated ones on the right.

    Args:
        real: uint8 `[n, h, w, 3]`.
        generated: uint8 `[m, h, w, 3]`.
        columns: Pictures per row of each half; by default each is near square.
        enlargement: Whole number of pixels that each pixel becomes, to each side.

    Raises:
        ValueError: If a half has no picture, or is of another kind.
    """
    halves = {
        "Real": _checked("real", real),
        "Generated": _checked("generated", generated),
    }
    return comparison_sheet(halves, columns=columns, enlargement=enlargement)


def nearest_sheet(
    generated: np.ndarray,
    nearest: np.ndarray,
    columns: int | None = None,
    enlargement: int = 1,
) -> Image.Image:
    """Shows each generated picture beside its nearest training picture.

    Args:
        generated: uint8 `[n, h, w, 3]`.
        nearest: uint8 `[n, h, w, 3]`, in the order of `generated`.
        columns: Pairs per row; by default the sheet comes out near square.
        enlargement: Whole number of pixels that each pixel becomes, to each side.

    Raises:
        ValueError: If there is no picture, or the arguments do not fit together.
    """
    generated = _enlarged(_checked("generated", generated), enlargement)
    nearest = _enlarged(_checked("nearest", nearest), enlargement)
    if generated.shape != nearest.shape:
        raise ValueError(
            "nearest: expected as many pictures as generated ones, of the same size; "
            f"received {nearest.shape} for {generated.shape}"
        )
    pairs = [grid(np.stack(pair), 2) for pair in zip(generated, nearest, strict=True)]
    sheet = _tiled(pairs, columns, _MARGIN)
    return _labelled([sheet], ["Generated | nearest training picture"], [""])


def comparison_sheet(
    grids: Mapping[str, np.ndarray],
    captions: Mapping[str, str] | None = None,
    columns: int | None = None,
    enlargement: int = 1,
) -> Image.Image:
    """Shows several grids side by side, each below its title.

    Args:
        grids: Title -> uint8 `[n, h, w, 3]`. Only Latin script is sure to be drawn.
        captions: Title -> a line to write below its grid, for some or all grids.
        columns: Pictures per row of each grid; by default each is near square.
        enlargement: Whole number of pixels that each pixel becomes, to each side.

    Raises:
        ValueError: If there is no grid, one is empty, or a caption has no grid.
    """
    if not grids:
        raise ValueError("grids: expected at least one, received none")
    captions = captions or {}
    if strays := sorted(captions.keys() - grids.keys()):
        raise ValueError(
            f"captions: expected titles among {list(grids)}, received {strays}"
        )
    sheets = [
        grid(_enlarged(_checked(f"grids[{title!r}]", pictures), enlargement), columns)
        for title, pictures in grids.items()
    ]
    texts = [captions.get(title, "") for title in grids]
    return _labelled(sheets, list(grids), texts)


def save_png(image: Image.Image, filepath: Path | str) -> None:
    """Writes a PNG file; it is replaced in one step, or left as it was."""
    with replacing(filepath) as temporary:
        image.save(temporary, "PNG")


def save_gif(
    frames: Sequence[Image.Image],
    filepath: Path | str,
    seconds_per_frame: float = 0.5,
    hold_last: float = 3.0,
) -> None:
    """Writes an animation that repeats for ever; replaced in one step, or left.

    All frames share one palette and none is dithered: what stands still between two
    frames does not flicker. Neighbours that are equal become one frame, shown longer.

    Args:
        frames: Images of one size.
        filepath: Where to write.
        seconds_per_frame: At least 0.02, below which browsers take their own time.
        hold_last: Seconds that the last frame stays.

    Raises:
        ValueError: If there is no frame, sizes differ, or a time is out of range.
    """
    sizes = {frame.size for frame in frames}
    if len(sizes) != 1:
        raise ValueError(
            f"frames: expected at least one, all of one size; received {len(frames)} "
            f"of sizes {sorted(sizes)}"
        )
    times = {"seconds_per_frame": seconds_per_frame, "hold_last": hold_last}
    for name, seconds in times.items():
        if not 0.02 <= seconds <= 655:  # more does not fit the format
            raise ValueError(f"{name}: expected 0.02 to 655 s, received {seconds!r}")
    frames = [frame.convert("RGB") for frame in frames]
    options = {"palette": _shared_palette(frames), "dither": Image.Dither.NONE}
    first, *others = (frame.quantize(**options) for frame in frames)
    seconds = [seconds_per_frame] * len(others) + [hold_last]
    durations = [round(1000 * time) for time in seconds]
    options = {"duration": durations, "loop": 0, "optimize": True}
    with replacing(filepath) as temporary:
        first.save(temporary, "GIF", save_all=True, append_images=others, **options)


def _checked(name: str, pictures: np.ndarray) -> np.ndarray:
    pictures = np.asarray(pictures)
    is_rgb = pictures.ndim == 4 and pictures.shape[3] == 3
    if pictures.dtype != np.uint8 or not is_rgb or not pictures.size:
        raise ValueError(
            f"{name}: expected uint8 [n, h, w, 3] with at least one picture, "
            f"received {pictures.dtype} {pictures.shape}"
        )
    return pictures


def _enlarged(pictures: np.ndarray, enlargement: int) -> np.ndarray:
    if enlargement != int(enlargement) or enlargement < 1:
        raise ValueError(
            f"enlargement: expected a whole number from 1, received {enlargement!r}"
        )
    return pictures.repeat(int(enlargement), axis=1).repeat(int(enlargement), axis=2)


def _tiled(tiles: list[Image.Image], columns: int | None, gap: int) -> Image.Image:
    """Tiles of one size, row by row."""
    width, height = tiles[0].size
    if columns is None:
        columns = math.ceil(math.sqrt(len(tiles) * height / width))
    if columns < 1:
        raise ValueError(f"columns: expected at least 1, received {columns!r}")
    columns = min(columns, len(tiles))
    rows = math.ceil(len(tiles) / columns)
    size = columns * (width + gap) - gap, rows * (height + gap) - gap
    sheet = Image.new("RGB", size, _WHITE)
    for index, tile in enumerate(tiles):
        row, column = divmod(index, columns)
        sheet.paste(tile, (column * (width + gap), row * (height + gap)))
    return sheet


def _labelled(
    sheets: list[Image.Image], titles: list[str], captions: list[str]
) -> Image.Image:
    """Sheets side by side, their tops aligned, with a title above and a text below."""
    widths = [
        max(sheet.width, _NARROWEST, _widest_word(title, _HEADING))
        for sheet, title in zip(sheets, titles, strict=True)
    ]
    above = [
        _text(title, width, _HEADING, _INK)
        for title, width in zip(titles, widths, strict=True)
    ]
    below = [
        _text(caption, width, _CAPTION, _MUTED)
        for caption, width in zip(captions, widths, strict=True)
    ]
    top = _MARGIN + max(text.height for text in above)
    bottom = max(text.height for text in below) + _MARGIN
    height = top + max(sheet.height for sheet in sheets) + bottom
    width = sum(widths) + 2 * _MARGIN * len(widths)
    canvas = Image.new("RGB", (width, height), _WHITE)
    left = _MARGIN
    for title, sheet, text in zip(above, sheets, below, strict=True):
        # A short title stands right above its pictures, as a long one does.
        canvas.paste(title, (left, top - title.height))
        canvas.paste(sheet, (left, top))
        canvas.paste(text, (left, top + sheet.height))
        left += title.width + 2 * _MARGIN
    return canvas


def _text(text: str, width: int, size: int, ink: str) -> Image.Image:
    """Lines of whole words on white, broken at `width`; of no height without words."""
    font, lines = ImageFont.load_default(size), []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    line_height = round(1.3 * size)
    height = len(lines) * line_height + 2 * _PADDING if lines else 0
    image = Image.new("RGB", (width, height), _WHITE)
    draw = ImageDraw.Draw(image)
    for index, line in enumerate(lines):
        draw.text((0, _PADDING + index * line_height), line, ink, font)
    return image


def _widest_word(text: str, size: int) -> int:
    font = ImageFont.load_default(size)
    return math.ceil(max(map(font.getlength, text.split()), default=0))


def _shared_palette(frames: list[Image.Image]) -> Image.Image:
    """An image whose palette fits the colours of all frames together."""
    share = max(_SAMPLED_PIXELS // len(frames), 1)
    # At random: a fixed step could fall in with the columns of a grid.
    random = np.random.default_rng(0)
    samples = []
    for frame in frames:
        pixels = np.asarray(frame).reshape(-1, 3)
        samples.append(pixels[random.integers(0, len(pixels), share)])
    sample = Image.fromarray(np.concatenate(samples)[None])
    sample = sample.quantize(_COLOURS, Image.Quantize.MEDIANCUT, kmeans=1)
    colours = np.reshape(sample.getpalette(), (-1, 3))
    # The means of whites and near-whites are greys: paper would not be white.
    colours[colours.min(axis=1) >= _ALMOST_WHITE] = 255
    palette = Image.new("P", (1, 1))
    palette.putpalette(colours.ravel().tolist())
    return palette
