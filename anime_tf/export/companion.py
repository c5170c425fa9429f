"""The TFLite file beside a run, by which the run predicts without TensorFlow.

On a CPU LiteRT computes the same network faster, and is there in a fraction of the time
that TensorFlow's import takes. The file knows by a hash what it was made of: of another
model it is never used.
"""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from anime_tf import files
from anime_tf.errors import UserError
from anime_tf.export import records
from anime_tf.export.lite import LiteModel, has_litert, read_record
from anime_tf.progress import Reporter
from anime_tf.quiet import load_tensorflow
from anime_tf.run_files import CLASSIFIER, COMPANION, NOVELTY, RECOGNIZER

if TYPE_CHECKING:  # importing it would bring TensorFlow along
    from anime_tf.inference import Recognizer

# All that decides on the answers.
_ORIGINS = (CLASSIFIER, NOVELTY, RECOGNIZER)
# The same network in the same precision: only last bits may differ.
_MOST_PROBABILITY = 1e-3
_MOST_SCORE = 1e-2


def is_usable(run: Path) -> bool:
    """Whether LiteRT is installed, and the run has a file made of what it is now."""
    path = run / COMPANION
    if not (has_litert() and path.is_file()):
        return False
    try:
        return read_record(path).get("origin") == _fingerprint(run)
    # Without a model file, say, the run is damaged: who loads it says how.
    except (UserError, OSError):
        return False


def ensure(run: Path, reporter: Reporter) -> None:
    """Makes a complete run's file, unless there is one.

    Raises:
        UserError: If LiteRT is not installed, the run is damaged, or the file cannot be
            written or answers otherwise than the run.
    """
    if not has_litert():
        raise UserError("LiteRT is not installed: pip install ai-edge-litert")
    if is_usable(run):
        return
    load_tensorflow()
    from anime_tf.inference import Recognizer

    make(run, Recognizer.load(run), reporter)


def make(run: Path, recognizer: "Recognizer", reporter: Reporter) -> None:
    """Makes, checks and writes the file.

    Args:
        run: The folder of the complete run.
        recognizer: What is in it.
        reporter: Where to say what goes on.

    Raises:
        UserError: As for `ensure`.
    """
    from anime_tf.export import tflite

    reporter.say("Converting for fast prediction ...")
    content = tflite.convert_classifier(recognizer, "float32", [])
    record = records.of_classifier(recognizer)
    content = tflite.pack(
        content, {**record, "variant": "float32", "origin": _fingerprint(run)}
    )
    _check(LiteModel(content), recognizer)
    path = run / COMPANION
    try:
        with files.replacing(path) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        raise UserError(
            f"{path} cannot be written: {error}; go without it by --runtime tensorflow"
        ) from error


def _check(lite: LiteModel, recognizer: "Recognizer") -> None:
    """Compares both on noise, from a flat grey one to a coarse and colourful one."""
    size = recognizer.image_size
    noise = np.random.default_rng(0).normal(size=(8, size, size, 3))
    squares = 127.5 + 20.0 * np.arange(8)[:, None, None, None] * noise
    squares = squares.clip(0, 255).astype(np.uint8)
    probabilities, scores = recognizer.judge(squares)
    found = lite(images=squares.astype(np.float32))
    wrong = np.abs(found["probabilities"] - probabilities).max()
    shift = np.abs(found["known_score"].reshape(-1) - scores).max()
    if not (wrong <= _MOST_PROBABILITY and shift <= _MOST_SCORE):
        raise UserError(
            f"LiteRT answers otherwise than TensorFlow (probabilities by {wrong:.1e}, "
            f"scores by {shift:.1e}); go without it by --runtime tensorflow"
        )


def _fingerprint(run: Path) -> str:
    digest = hashlib.sha256()
    for name in _ORIGINS:
        digest.update(hashlib.sha256((run / name).read_bytes()).digest())
    return digest.hexdigest()
