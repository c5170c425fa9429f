"""Naming the characters in pictures, whatever network it is that judges them.

Reads pictures, fits them, hands them over in batches. Knows no TensorFlow: its import
takes longer than many a prediction.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from anime_tf import images
from anime_tf.prediction import UNKNOWN, Prediction

_BATCH = 32

Source = str | Path | bytes | Image.Image | np.ndarray


class Predictor:
    """Names characters in pictures, whatever it is that judges them.

    Attributes:
        class_names: The k names, in the order of the probabilities.
        image_size: Side of the squares in pixels.
        threshold: Pictures that score below it are unknown.
    """

    class_names: tuple[str, ...]
    image_size: int
    threshold: float

    def judge(self, squares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Judges pictures.

        Args:
            squares: uint8 `[n, image_size, image_size, 3]`.

        Returns:
            Calibrated probabilities float32 `[n, k]` and known scores float32 `[n]`.
        """
        raise NotImplementedError

    def predict(
        self,
        sources: Source | Iterable[Source],
        top_k: int = 3,
        batch_size: int = _BATCH,
    ) -> list[Prediction]:
        """Names the character in each picture.

        Args:
            sources: Files (path), encoded pictures (bytes), PIL images, or uint8 RGB
                arrays `[h, w, 3]`, also stacked `[n, h, w, 3]`; one or several.
            top_k: How many likely characters to list.
            batch_size: Pictures per step of the network.

        Returns:
            One `Prediction` per picture, in order. A picture that cannot be read gets
            one with a `problem`; it never stops the others.
        """
        single = (str, Path, bytes, Image.Image)
        if isinstance(sources, single) or getattr(sources, "ndim", 0) == 3:
            sources = [sources]
        return list(self.stream(list(sources), top_k, batch_size))

    def stream(
        self,
        sources: Sequence[Source],
        top_k: int = 3,
        batch_size: int = _BATCH,
        on_batch: Callable[[Sequence[np.ndarray], Sequence[Prediction]], None]
        | None = None,
    ) -> Iterator[Prediction]:
        """Like `predict`, but yields as it goes and never holds more than some batches.

        Args:
            sources, top_k, batch_size: As for `predict`.
            on_batch: Called with the squares of a batch's readable pictures and their
                predictions.
        """
        for start, squares, problems in self.load_batches(sources, batch_size):
            readable = [square for square in squares if square is not None]
            found = iter(self._recognize(readable, top_k) if readable else ())
            batch = []
            for offset, problem in enumerate(problems):
                source = _describe(sources[start + offset], start + offset)
                if problem:
                    batch.append(Prediction(source, problem=problem))
                else:
                    batch.append(Prediction(source, **next(found)))
            if on_batch:
                on_batch(readable, [p for p in batch if not p.problem])
            yield from batch

    def load_batches(
        self, sources: Sequence[Source], batch_size: int
    ) -> Iterator[tuple[int, list[np.ndarray | None], list[str]]]:
        """Decodes one batch ahead, in threads, while the network works."""
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            starts = range(0, len(sources), batch_size)

            def submit(start: int) -> list:
                chunk = sources[start : start + batch_size]
                return [pool.submit(_load, s, self.image_size) for s in chunk]

            ahead = [submit(start) for start in starts[:1]]
            for number, start in enumerate(starts):
                if number + 1 < len(starts):
                    ahead.append(submit(starts[number + 1]))
                loaded = [future.result() for future in ahead.pop(0)]
                yield start, [s for s, _ in loaded], [p for _, p in loaded]

    def _recognize(self, squares: list[np.ndarray], top_k: int) -> list[dict]:
        probabilities, scores = self.judge(np.stack(squares))
        results = []
        for row, score in zip(probabilities, scores, strict=True):
            order = np.argsort(-row, kind="stable")[:top_k]
            top = tuple((self.class_names[i], float(row[i])) for i in order)
            is_unknown = bool(score < self.threshold)
            results.append(
                {
                    "name": UNKNOWN if is_unknown else top[0][0],
                    "confidence": top[0][1],
                    "known_score": float(score),
                    "is_unknown": is_unknown,
                    "top": top,
                }
            )
        return results


def _load(source: Source, size: int) -> tuple[np.ndarray | None, str]:
    """Returns `(square, "")`, or `(None, reason)`."""
    try:
        if isinstance(source, (str, Path)):
            return images.load_square(source, size), ""
        if isinstance(source, bytes):
            picture = images.decode(source, at_least=size).image
        elif isinstance(source, Image.Image):
            picture = images.from_pil(source)
        else:
            picture = images.from_array(source)
        return images.letterbox(picture, size), ""
    except images.PictureError as error:
        return None, str(error)
    # What is given in memory can be broken in ways of its own (a PIL image that is
    # truncated and not loaded yet, an array without pixels).
    except Exception as error:
        return None, f"damaged: {error}"


def _describe(source: Source, index: int) -> str:
    return str(source) if isinstance(source, (str, Path)) else str(index)
