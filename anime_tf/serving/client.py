"""Recognising by a server: pictures in, names out, without TensorFlow here.

from anime_tf.serving.client import Client

client = Client("http://localhost:8501")
for prediction in client.predict(["a.png", "b.webp"]):
    print(prediction.name, prediction.confidence, prediction.is_unknown)
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

from anime_tf import images
from anime_tf.errors import UserError
from anime_tf.prediction import UNKNOWN, Prediction
from anime_tf.serving.model import ServedModel, TooLargeError

SCHEMES = ("http", "https", "grpc", "grpcs")
DEFAULT_NAME = "classifier"
_SIGNATURE = "serving_default"
_OUTPUTS = {
    "labels": object,
    "scores": np.float32,
    "known_score": np.float32,
    "is_unknown": np.bool_,
    "ok": np.bool_,
}
# Most bytes of pictures in one request; a single larger one goes alone.
_MOST_BYTES = 16 * 1024 * 1024
_UNREADABLE = (
    "the server cannot read it: damaged, animated, of another format than JPEG, PNG, "
    "WebP, GIF and BMP, or with more pixels than it allows"
)


def connect(
    url: str,
    name: str,
    label: str | None = None,
    timeout: float = 30.0,
    retries: int = 3,
) -> ServedModel:
    """Returns a model on a server; nothing is sent yet.

    Args:
        url: `http://`, `https://`, `grpc://` or `grpcs://`, with host and port.
        name, label, timeout, retries: As for `ServedModel`.

    Raises:
        UserError: If the address is none, or the libraries are missing.
    """
    try:
        parts = urlsplit(url)
        is_address = parts.scheme in SCHEMES and bool(parts.hostname)
    except ValueError:
        is_address = False
    if not is_address:
        raise UserError(
            f"{url} is no address of a server; write for example http://localhost:8501 "
            "or grpc://localhost:8500"
        )
    if not timeout > 0:
        raise UserError(f"a timeout must be above 0 s, got {timeout:g}")
    try:
        if parts.scheme.startswith("http"):
            from anime_tf.serving.rest import RestModel as Model
        else:
            from anime_tf.serving.rpc import GrpcModel as Model
    except ModuleNotFoundError as error:
        raise UserError(
            f"to ask a server takes the Python package {error.name}; install it by: "
            "pip install 'anime_tf[client]'"
        ) from error
    return Model(url, name, label, timeout, retries)


class Client:
    """Names characters in pictures by a classifier on a server.

    Args:
        url: The server, as for `connect`.
        name: The classifier's name there.
        label, timeout, retries: As for `connect`.
    """

    def __init__(self, url: str, name: str = DEFAULT_NAME, **options):
        self._model = connect(url, name, **options)

    def predict(
        self,
        sources: Iterable[str | Path | bytes],
        top_k: int = 3,
        batch_size: int = 32,
    ) -> list[Prediction]:
        """Names the character in each picture.

        Args:
            sources: Files (path) or their contents (bytes).
            top_k: How many likely characters to list; the server has a limit too,
                chosen at export.
            batch_size: Most pictures in one request.

        Returns:
            One `Prediction` per picture, in order. A picture that cannot be read gets
            one with a `problem`; it never stops the others.

        Raises:
            UserError: If the server cannot be asked.
        """
        return list(self.stream(list(sources), top_k, batch_size))

    def stream(
        self,
        sources: Sequence[str | Path | bytes],
        top_k: int = 3,
        batch_size: int = 32,
    ) -> Iterator[Prediction]:
        """Like `predict`, but yields as it goes and never holds more than a batch."""
        for batch in _batches(sources, batch_size):
            contents = [content for _, content, problem in batch if not problem]
            found = iter(self._recognise(contents, top_k) if contents else ())
            for source, _, problem in batch:
                fields = {"problem": problem} if problem else next(found)
                yield Prediction(source, **fields)

    def _recognise(self, contents: list[bytes], top_k: int) -> list[dict]:
        """Returns the fields of a `Prediction` for each; in halves if they are too
        many bytes for the server."""
        try:
            pictures = np.array(contents, object)
            answer = self._model.predict(_SIGNATURE, {"pictures": pictures}, _OUTPUTS)
        except TooLargeError as error:
            half = len(contents) // 2
            if not half:
                return [{"problem": str(error)}]
            parts = contents[:half], contents[half:]
            return [row for part in parts for row in self._recognise(part, top_k)]
        for name, values in answer.items():
            if len(values) != len(contents):
                raise self._model.malformed(
                    f"{len(values)} {name} for {len(contents)} pictures"
                )
        rows = zip(*(answer[name] for name in _OUTPUTS), strict=True)
        return [_fields(*row, top_k) for row in rows]


def _batches(
    sources: Sequence[str | Path | bytes], batch_size: int
) -> Iterator[list[tuple[str, bytes, str]]]:
    """Yields lists of (source, content, problem)."""
    batch, size = [], 0
    for number, source in enumerate(sources):
        name, content, problem = str(source), b"", ""
        if isinstance(source, bytes):
            name, content = str(number), source
        else:
            try:
                content = images.read_bytes(source)
            except images.PictureError as error:
                problem = str(error)
        if batch and (len(batch) == batch_size or size + len(content) > _MOST_BYTES):
            yield batch
            batch, size = [], 0
        batch.append((name, content, problem))
        size += len(content)
    if batch:
        yield batch


def _fields(labels, scores, known_score, is_unknown, ok, top_k: int) -> dict:
    if not ok:
        return {"problem": _UNREADABLE}
    names = [label.decode() for label in labels[:top_k]]
    top = tuple(zip(names, map(float, scores[:top_k]), strict=True))
    return {
        "name": UNKNOWN if is_unknown else names[0],
        "confidence": top[0][1],
        "known_score": float(known_score),
        "is_unknown": bool(is_unknown),
        "top": top,
    }
