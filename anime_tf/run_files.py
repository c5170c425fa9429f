"""The names of the files in a run's folder: a trained model is one folder."""

import shutil
from pathlib import Path

from anime_tf.errors import UserError

CONFIG = "config.json"  # what the run was asked to do
MANIFEST = "manifest.json"  # which picture plays which part
CHECKPOINTS = "checkpoints"  # state of an unfinished run
HISTORY = "history.json"  # one row per epoch
CLASSIFIER = "classifier.keras"  # the best weights
LAST = "last.keras"  # the last weights
NOVELTY = "novelty.npz"  # what tells known from unknown
RECOGNIZER = "recognizer.json"  # names and calibration; its presence means complete
METRICS = "metrics.json"
REPORT = "report.html"

_FILES = (RECOGNIZER, CONFIG, MANIFEST, HISTORY, CLASSIFIER, LAST, NOVELTY)
_RESULTS = (METRICS, REPORT)


def check_complete(folder: Path) -> None:
    """Raises `UserError` with advice unless a folder holds a trained model."""
    if (folder / RECOGNIZER).is_file():
        return
    if (folder / CONFIG).is_file():
        advice = (
            "its training is not finished; go on with: anime-tf train --resume "
            f"--out {folder}"
        )
    else:
        advice = "train one with: anime-tf train, or name another by --model"
    raise UserError(f"there is no trained model in {folder}; {advice}")


def remove_run(folder: Path) -> None:
    """Removes a run's files and nothing else, the mark of completeness first."""
    for name in (*_FILES, *_RESULTS):
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
