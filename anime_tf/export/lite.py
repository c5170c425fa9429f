"""Running TFLite files, which needs LiteRT only: its import takes a fraction of
TensorFlow's."""

import io
import os
import threading
import zipfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from anime_tf.errors import UserError
from anime_tf.export import records
from anime_tf.quiet import quiet

SIGNATURE = "serving_default"


def has_litert() -> bool:
    """Whether LiteRT is installed."""
    return find_spec("ai_edge_litert") is not None


def read_record(source: Path | bytes) -> dict:
    """Reads the record of a file, or of its content.

    Raises:
        UserError: If the file is absent, or has no valid record.
    """
    name = _name(source)
    try:
        file = io.BytesIO(source) if isinstance(source, bytes) else source
        with zipfile.ZipFile(file) as archive:
            text = archive.read(records.EXPORT)
    # A damaged or hostile archive can fail in any of its readers.
    except Exception as error:
        raise UserError(f"{name} is no export of anime-tf: {error}") from error
    return records.parse(text, name)


class LiteModel:
    """A TFLite file, ready to run; calls from several threads take turns.

    Args:
        source: The file with its record, or its content.
        threads: How many threads one call uses; by default as many as there are cores
            for this process.
    """

    def __init__(self, source: Path | bytes, threads: int | None = None):
        self.record = read_record(source)
        content = source if isinstance(source, bytes) else source.read_bytes()
        interpreter = _interpreter()
        try:
            # LiteRT announces each of its helpers.
            with quiet():
                # Kept, because the runner does not keep it.
                self._interpreter = interpreter(
                    model_content=content, num_threads=threads or _num_cores()
                )
                self._interpreter.allocate_tensors()
            self._runner = self._interpreter.get_signature_runner(SIGNATURE)
        except (ValueError, RuntimeError) as error:
            raise UserError(f"{_name(source)} is damaged: {error}") from error
        self._lock = threading.Lock()

    def __call__(self, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        with self._lock:
            return self._runner(**inputs)


def _interpreter() -> type:
    """LiteRT where it is installed; TensorFlow's own is the same, and older."""
    if has_litert():
        from ai_edge_litert.interpreter import Interpreter

        return Interpreter
    import tensorflow as tf

    return tf.lite.Interpreter


def _name(source: Path | bytes) -> str:
    return "the converted model" if isinstance(source, bytes) else str(source)


def _num_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
