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
COMPANION = "classifier.tflite"  # the best weights, for fast prediction
RECOGNIZER = "recognizer.json"  # names and calibration; its presence means complete
METRICS = "metrics.json"
REPORT = "report.html"

GENERATOR = "generator.keras"  # the best weights, averaged
DISCRIMINATOR = "discriminator.keras"  # its opponent at the same time
SAMPLER = "sampler.json"  # names and record of a generator
LOG = "log.csv"  # every term of every epoch
PREVIEWS = "previews"  # the same noise, drawn every few epochs
BEST = "best"  # state that drew best, among the checkpoints
PAIRS_SHEET = "real_and_generated.png"
NEAREST_SHEET = "nearest.png"
EVOLUTION = "evolution.gif"

# In the order in which they are removed: first what marks a run as complete, last what
# marks a folder as a run.
_FILES = (
    RECOGNIZER,
    SAMPLER,
    METRICS,
    REPORT,
    PAIRS_SHEET,
    NEAREST_SHEET,
    EVOLUTION,
    LOG,
    HISTORY,
    COMPANION,
    CLASSIFIER,
    LAST,
    NOVELTY,
    GENERATOR,
    DISCRIMINATOR,
    MANIFEST,
    CONFIG,
)


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
        advice = "train one with: anime-tf train, or name another"
    raise UserError(f"there is no trained model in {folder}; {advice}")


def remove_run(folder: Path) -> None:
    """Removes a run's files and nothing else; a folder that is no run is left alone."""
    if not (folder / CONFIG).is_file():
        return
    for name in (CHECKPOINTS, PREVIEWS):
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in _FILES:
        (folder / name).unlink(missing_ok=True)
