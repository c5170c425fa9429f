"""Pictures for the tests: drawn here, never downloaded."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anime_tf.datasets.cache import PictureCache

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


@pytest.fixture(scope="session")
def draw():
    """`draw(seed, size)`: a picture that looks like no other seed's."""

    def draw(seed: int, size: tuple[int, int] = (96, 96)) -> Image.Image:
        blocks = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
        return Image.fromarray(blocks).resize(size, Image.Resampling.BICUBIC)

    return draw


@pytest.fixture(scope="session")
def encode():
    """`encode(image, format, **options)`: the bytes of the picture file."""

    def encode(image: Image.Image, file_format: str, **options) -> bytes:
        buffer = io.BytesIO()
        image.save(buffer, file_format, **options)
        return buffer.getvalue()

    return encode


@pytest.fixture(scope="session")
def write(encode):
    """`write(filepath, image)`: saves by the suffix and makes the folders on the way;
    returns the path. Bytes in place of an image are written as they are."""

    def write(filepath: Path, image: Image.Image | bytes, **options) -> Path:
        filepath.parent.mkdir(parents=True, exist_ok=True)
        if not isinstance(image, bytes):
            names = Image.registered_extensions()
            image = encode(image, names[filepath.suffix.lower()], **options)
        filepath.write_bytes(image)
        return filepath

    return write


@pytest.fixture
def open_cache(tmp_path):
    """`open_cache(max_bytes)`: a cache in the test's folder, closed at its end."""
    opened = []

    def open_cache(max_bytes: int = 10**9, folder: Path | None = None) -> PictureCache:
        opened.append(PictureCache(folder or tmp_path / "cache", max_bytes))
        return opened[-1]

    yield open_cache
    for cache in opened:
        cache.close()


@pytest.fixture
def cache(open_cache):
    return open_cache()
