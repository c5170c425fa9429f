"""Any picture file -> upright RGB uint8, fitted to a square.

This module alone owns the pixel contract: RGB, range [0, 255], uint8, letterboxed
on white. Training, prediction and export all fit pictures through `letterbox`.
"""

import io
import stat
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF")
MAX_PIXELS = 64_000_000
MAX_BYTES = 256 * 1024 * 1024
BACKGROUND = (255, 255, 255)


class PictureError(ValueError):
    """A file that is no readable picture; the message is the reason in words."""


@dataclass(frozen=True)
class Picture:
    """A decoded picture.

    Attributes:
        image: PIL image, mode RGB, upright, alpha composited on white.
        format: One of `FORMATS`, found from the content, never from the name.
        animated: Whether the file holds more frames than the first, used here.
        width, height: Size of the stored picture in pixels, before any reduction.
    """

    image: Image.Image
    format: str
    animated: bool
    width: int
    height: int


def read_bytes(filepath: Path | str) -> bytes:
    """Returns a file's content; raises `PictureError` when that cannot be had."""
    path = Path(filepath)
    try:
        status = path.stat()
        # Reading a pipe would wait for ever, reading a device would never end.
        if not stat.S_ISREG(status.st_mode):
            kind = "a folder" if stat.S_ISDIR(status.st_mode) else "a special file"
            raise PictureError(f"cannot be read: it is {kind}")
        size = status.st_size
        if size > MAX_BYTES:
            raise PictureError(f"the file has {size:,} bytes, more than {MAX_BYTES:,}")
        content = path.read_bytes()
    except OSError as error:
        raise PictureError(f"cannot be read: {error.strerror or error}") from error
    if not content:
        raise PictureError("the file is empty")
    return content


def decode(
    content: bytes, at_least: int | None = None, max_pixels: int = MAX_PIXELS
) -> Picture:
    """Decodes an untrusted picture file.

    Args:
        content: Bytes of a JPEG, PNG, WebP, BMP or GIF file.
        at_least: If given, a JPEG may be decoded at a reduced scale as long as its
            longer side stays at least twice this many pixels (faster, and the
            later antialiased reduction hides the difference).
        max_pixels: Pictures that claim more are not read; `MAX_PIXELS` if that is
            fewer.

    Returns:
        A `Picture`.

    Raises:
        PictureError: If the content is no such file, is damaged, or claims more
            than `max_pixels` pixels.
    """
    max_pixels = min(max_pixels, MAX_PIXELS)
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise PictureError(
                    f"claims {width} x {height} pixels, more than {max_pixels:,}"
                )
            file_format = image.format
            animated = bool(getattr(image, "is_animated", False))
            # A camera's JPEG with more pictures behind the first: other views of the
            # scene, no animation.
            if file_format == "MPO":
                file_format, animated = "JPEG", False
            if at_least is not None and file_format == "JPEG":
                image.draft(None, _draft_size(width, height, 2 * at_least))
            image.load()
            rgb = to_rgb(_upright(image))
    except PictureError:
        raise
    # Pillow has a limit of its own, above ours, and reaches it first.
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise PictureError(f"claims more than {max_pixels:,} pixels") from error
    except Image.UnidentifiedImageError as error:
        raise PictureError("not a JPEG, PNG, WebP, BMP or GIF picture") from error
    # A hostile file can make a decoder raise anything at all; whatever it raises
    # means the same to us: this file is not a picture that can be read.
    except Exception as error:
        raise _damaged(error) from error
    return Picture(rgb, file_format, animated, width, height)


def letterbox(image: Image.Image, size: int) -> np.ndarray:
    """Fits a picture into a square: aspect kept, nothing cut off, padded with white.

    Args:
        image: PIL image, mode RGB.
        size: Side of the square in pixels.

    Returns:
        Array `[size, size, 3]`, uint8, range [0, 255].
    """
    scale = size / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    resized = image.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=3.0)
    if width == height:
        return np.array(resized)
    square = Image.new("RGB", (size, size), BACKGROUND)
    square.paste(resized, ((size - width) // 2, (size - height) // 2))
    return np.array(square)


def to_rgb(image: Image.Image) -> Image.Image:
    """Returns any PIL image as RGB: 16 bits to 8, transparency on white.

    Raises:
        PictureError: If the image has no pixels or they cannot be read.
    """
    if 0 in image.size:
        raise PictureError(f"an image of {image.width} x {image.height} pixels")
    # An image opened from a file is read only now, with all that can go wrong.
    try:
        if image.mode.startswith("I") or image.mode == "F":
            return _from_16_bit(image)
        if image.has_transparency_data:
            rgba = image.convert("RGBA")
            background = Image.new("RGBA", rgba.size, (*BACKGROUND, 255))
            return Image.alpha_composite(background, rgba).convert("RGB")
        return image.convert("RGB")
    except Exception as error:
        raise _damaged(error) from error


def from_pil(image: Image.Image) -> Image.Image:
    """Returns any PIL image as an upright RGB image; raises as `to_rgb`."""
    return to_rgb(_upright(image))


def from_array(array: np.ndarray) -> Image.Image:
    """Returns a uint8 RGB array `[h, w, 3]` as an image.

    Raises:
        PictureError: If the array has another dtype or shape, or no pixels.
    """
    array = np.asarray(array)
    is_rgb = array.dtype == np.uint8 and array.ndim == 3 and array.shape[2] == 3
    if not is_rgb or not array.size:
        raise PictureError(
            f"expected a uint8 array [h, w, 3], got {array.dtype} {list(array.shape)}"
        )
    return Image.fromarray(array)


def load_square(filepath: Path | str, size: int) -> np.ndarray:
    """Reads one file into the pixel contract: uint8 `[size, size, 3]`.

    Raises:
        PictureError: If the file cannot be read as a picture.
    """
    return letterbox(decode(read_bytes(filepath), at_least=size).image, size)


def _damaged(error: Exception) -> PictureError:
    return PictureError(f"damaged or truncated: {str(error) or type(error).__name__}")


def _draft_size(width: int, height: int, longer_side: int) -> tuple[int, int]:
    scale = min(1.0, longer_side / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    # Broken EXIF data says nothing about the pixels: keep the picture as stored.
    except Exception:
        return image.copy()


def _from_16_bit(image: Image.Image) -> Image.Image:
    """Keeps the high byte; Pillow's own conversion clips everything above 255."""
    values = np.asarray(image).astype(np.int64)
    return Image.fromarray((values >> 8).clip(0, 255).astype(np.uint8)).convert("RGB")
