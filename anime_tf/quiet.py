"""Silence around libraries that print pages from their native code."""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from anime_tf.errors import UserError


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps what the process prints, by whatever way, from being seen.

    If the block raises an error, all of it goes to stderr after all: it may tell why.
    Threads that print meanwhile are silenced too.
    """
    _flush()
    with tempfile.TemporaryFile() as kept:
        shown = [(number, os.dup(number)) for number in (1, 2)]
        for number, _ in shown:
            os.dup2(kept.fileno(), number)
        failed = True
        try:
            yield
            failed = False
        finally:
            _flush()
            for number, original in shown:
                os.dup2(original, number)
                os.close(original)
            if failed:
                kept.seek(0)
                os.write(2, kept.read())


def load_tensorflow() -> None:
    """Imports TensorFlow, which takes seconds, without the notices that it prints
    before it looks at its log levels.

    Raises:
        UserError: If it is not installed.
    """
    try:
        with quiet():
            import tensorflow  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name != "tensorflow":
            raise
        raise UserError(
            "TensorFlow is not installed; try: pip install 'anime_tf[cpu]', or "
            "'anime_tf[gpu]' for an NVIDIA GPU"
        ) from error


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
