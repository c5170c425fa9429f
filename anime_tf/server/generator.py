"""The generator behind the server: a seed in, drawings out.

Signatures and outputs are those of `export.saved_model`; seeds are those of
`anime-tf generate`.
"""

import asyncio
import io

import numpy as np
from PIL import Image

from anime_tf.sampler import Drawer
from anime_tf.server.batching import Batcher
from anime_tf.server.errors import RequestError
from anime_tf.server.limits import Limits
from anime_tf.server.signatures import DEFAULT, ServedModel, Signature, Tensor

NAME = "generator"
_BATCH = 16
_MAX_WAIT = 0.02


class GeneratorService:
    """Answers for one generator.

    Args:
        drawer: Whatever draws characters.
        limits: Those of the server.
    """

    def __init__(self, drawer: Drawer, limits: Limits):
        self.drawer = drawer
        self._limits = limits
        self.batcher = Batcher(self._draw_rows, _BATCH, _MAX_WAIT, limits.queue)

    def served(self) -> ServedModel:
        """Returns the model as the server knows it."""
        scalars = {
            "n": Tensor("DT_INT32"),
            "seed": Tensor("DT_INT64"),
            "truncation": Tensor("DT_FLOAT"),
        }
        noise = {
            "noise": Tensor("DT_FLOAT", (-1, self.drawer.noise_size)),
            "labels": Tensor("DT_INT32", (-1,)),
        }
        size = self.drawer.image_size
        pixels = {"images": Tensor("DT_UINT8", (-1, size, size, 3))}
        files = {"png_bytes": Tensor("DT_STRING", (-1,))}
        signatures = {
            DEFAULT: Signature(scalars, pixels, self.generate),
            "generate": Signature(scalars, pixels, self.generate),
            "generate_png": Signature(scalars, files, self.generate_png),
            "draw": Signature(noise, pixels, self.draw),
        }
        return ServedModel(NAME, signatures, self._start, self.batcher.stop)

    async def generate(
        self, n: np.ndarray, seed: np.ndarray, truncation: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Draws the first `n` pictures of a seed, each character in turn."""
        noise = self.noise(n.item(), seed.item(), truncation.item())
        return await self.draw(noise, self.drawer.labels(len(noise)))

    async def generate_png(self, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        """The same as PNG files."""
        images = (await self.generate(**inputs))["images"]
        files = np.empty(len(images), object)
        files[:] = [to_png(image) for image in images]
        return {"png_bytes": files}

    async def draw(
        self, noise: np.ndarray, labels: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Draws from noise float32 `[n, d]` and labels int32 `[n]`."""
        self._check_count(len(noise))
        if len(noise) != len(labels):
            raise RequestError(
                400, f"{len(noise)} rows of 'noise', but {len(labels)} of 'labels'"
            )
        count = len(self.drawer.class_names)
        if not np.isin(labels, np.arange(count)).all():
            raise RequestError(400, f"'labels' must be 0 to {count - 1}")
        with self.batcher.expecting(len(noise)):
            rows = zip(noise, labels, strict=True)
            images = await asyncio.gather(*map(self.batcher.run, rows))
        return {"images": np.stack(images)}

    def noise(self, n: int, seed: int, truncation: float) -> np.ndarray:
        """Returns the truncated noise of a seed, float32 `[n, d]`.

        Raises:
            RequestError: If an argument is out of its range (400).
        """
        self._check_count(n)
        _check_range([seed], truncation)
        return truncation * self.drawer.noise(n, seed)

    def way(self, seeds: list[int], frames: int, truncation: float) -> np.ndarray:
        """Returns the noise of the way between two seeds and back, as `Drawer.way`.

        Raises:
            RequestError: If an argument is out of its range (400).
        """
        _check_range(seeds, truncation)
        if len(set(seeds)) < 2:
            raise RequestError(400, "the way needs two different seeds")
        return self.drawer.way(seeds, frames, truncation)

    def _check_count(self, count: int) -> None:
        if not 1 <= count <= self._limits.pictures:
            raise RequestError(
                400, f"1 to {self._limits.pictures} drawings at once, got {count}"
            )

    def _draw_rows(self, rows: list[tuple[np.ndarray, int]]) -> np.ndarray:
        noise, labels = zip(*rows, strict=True)
        return self.drawer.draw(np.stack(noise), np.array(labels, np.int32))

    async def _start(self) -> None:
        self.batcher.start()
        # The first call of a network takes many times longer than the others.
        noise = np.zeros(self.drawer.noise_size, np.float32)
        await self.batcher.call(self._draw_rows, [(noise, 0)])


def _check_range(seeds: list[int], truncation: float) -> None:
    if min(seeds) < 0:
        raise RequestError(400, f"a seed must be at least 0, got {min(seeds)}")
    if not 0 <= truncation <= 1:
        raise RequestError(400, f"'truncation' must be 0 to 1, got {truncation}")


def to_png(image: np.ndarray) -> bytes:
    """Encodes uint8 `[h, w, 3]`."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()
