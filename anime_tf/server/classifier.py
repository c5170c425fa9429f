"""The classifier behind the server: files or pixels in, names out.

Signatures and outputs are those of `export.saved_model`. Files are read by `images`, as
everywhere in this package, in threads beside that of the network.
"""

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from anime_tf import images
from anime_tf.predictor import Predictor
from anime_tf.server.batching import Batcher
from anime_tf.server.errors import RequestError
from anime_tf.server.limits import Limits
from anime_tf.server.signatures import DEFAULT, ServedModel, Signature, Tensor

NAME = "classifier"
_BATCH = 16
_MAX_WAIT = 0.02


class ClassifierService:
    """Answers for one classifier.

    Args:
        predictor: Whatever names characters.
        limits: Those of the server.
        top_k: How many likely characters to list; all if there are fewer.
    """

    def __init__(self, predictor: Predictor, limits: Limits, top_k: int = 3):
        self.predictor = predictor
        self._limits = limits
        self._names = np.array(predictor.class_names, object)
        self._top_k = min(top_k, len(self._names))
        self._pool = ThreadPoolExecutor(os.cpu_count())
        self.batcher = Batcher(self._judge, _BATCH, _MAX_WAIT, limits.queue)

    def served(self) -> ServedModel:
        """Returns the model as the server knows it."""
        outputs = {
            "labels": Tensor("DT_STRING", (-1, self._top_k)),
            "scores": Tensor("DT_FLOAT", (-1, self._top_k)),
            "probabilities": Tensor("DT_FLOAT", (-1, len(self._names))),
            "known_score": Tensor("DT_FLOAT", (-1,)),
            "is_unknown": Tensor("DT_BOOL", (-1,)),
            "ok": Tensor("DT_BOOL", (-1,)),
        }
        files = {"pictures": Tensor("DT_STRING", (-1,))}
        pixels = {"images": Tensor("DT_UINT8", (-1, -1, -1, 3))}
        signatures = {
            DEFAULT: Signature(files, outputs, self.recognise_files),
            "images": Signature(pixels, outputs, self.recognise_pixels),
        }
        return ServedModel(NAME, signatures, self._start, self._stop)

    async def recognise_files(self, pictures: np.ndarray) -> dict[str, np.ndarray]:
        """Names the characters in encoded pictures, bytes `[n]`."""
        return await self._recognise(pictures, self._open_file)

    async def recognise_pixels(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Names the characters in pictures uint8 `[n, h, w, 3]`."""
        return await self._recognise(images, self._open_pixels)

    async def open_file(self, content: bytes) -> np.ndarray:
        """Returns an encoded picture as a square, uint8 `[image_size, image_size, 3]`.

        Raises:
            RequestError: If it cannot be read (400).
        """
        try:
            return await self._in_pool(self._open_file, content)
        except images.PictureError as error:
            raise RequestError(400, f"the picture cannot be read: {error}") from error

    async def _recognise(self, sources: np.ndarray, open_one: Callable) -> dict:
        if len(sources) > self._limits.pictures:
            most = self._limits.pictures
            raise RequestError(413, f"at most {most} pictures may be sent at once")

        async def recognise(source) -> tuple[np.ndarray, float] | None:
            try:
                square = await self._in_pool(open_one, source)
            except images.PictureError:
                return None
            return await self.batcher.run(square)

        with self.batcher.expecting(len(sources)):
            return self._gather(await asyncio.gather(*map(recognise, sources)))

    def _gather(self, results: list[tuple[np.ndarray, float] | None]) -> dict:
        """Puts rows together; those without a result are empty, zero and false."""
        ok = np.array([result is not None for result in results], bool)
        probabilities = np.zeros((len(results), len(self._names)), np.float32)
        known = np.zeros(len(results), np.float32)
        for row, result in enumerate(results):
            if result is not None:
                probabilities[row], known[row] = result
        numbers = np.argsort(-probabilities, axis=1, kind="stable")[:, : self._top_k]
        scores = np.take_along_axis(probabilities, numbers, axis=1)
        return {
            "labels": np.where(ok[:, None], self._names[numbers], ""),
            "scores": scores,
            "probabilities": probabilities,
            "known_score": known,
            "is_unknown": ok & (known < self.predictor.threshold),
            "ok": ok,
        }

    def _judge(self, squares: list[np.ndarray]) -> list[tuple[np.ndarray, float]]:
        probabilities, known = self.predictor.judge(np.stack(squares))
        return list(zip(probabilities, known, strict=True))

    def _open_file(self, content: bytes) -> np.ndarray:
        size = self.predictor.image_size
        picture = images.decode(content, size, self._limits.pixels)
        return images.letterbox(picture.image, size)

    def _open_pixels(self, pixels: np.ndarray) -> np.ndarray:
        return images.letterbox(images.from_array(pixels), self.predictor.image_size)

    async def _in_pool(self, function: Callable, *arguments):
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, function, *arguments)

    async def _start(self) -> None:
        self.batcher.start()
        # The first call of a network takes many times longer than the others.
        blank = np.zeros([self.predictor.image_size] * 2 + [3], np.uint8)
        await self.batcher.call(self._judge, [blank])

    async def _stop(self) -> None:
        await self.batcher.stop()
        self._pool.shutdown()
