"""Predicting with an export: the same answers as from the run it was made of.

Pictures are read and fitted by `images`, as for the run, not by the graph.
"""

from pathlib import Path

import numpy as np
import tensorflow as tf

from anime_tf.errors import UserError
from anime_tf.export import records, tflite
from anime_tf.inference import Predictor, Recognizer

_SAVED_MODEL = "saved_model.pb"


def is_export(path: Path) -> bool:
    """Whether a path is a TFLite file or the folder of a SavedModel."""
    return path.suffix == ".tflite" or (path / _SAVED_MODEL).is_file()


def load_predictor(path: Path) -> Predictor:
    """Loads a run's folder, a SavedModel's folder or a TFLite file.

    Raises:
        UserError: If it is none of them, damaged, or draws instead of recognising.
    """
    if not is_export(path):
        return Recognizer.load(path)
    return _LitePredictor(path) if path.is_file() else _SavedPredictor(path)


class _SavedPredictor(Predictor):
    def __init__(self, folder: Path):
        _describe(self, records.read(folder), folder)
        try:
            self._loaded = tf.saved_model.load(str(folder))
            self._serve = self._loaded.signatures["images"]
        # A damaged or hostile file can fail in any of TensorFlow's readers.
        except Exception as error:
            raise UserError(f"{folder} is damaged: {error}") from error

    def judge(self, squares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        answer = self._serve(images=tf.constant(squares))
        return answer["probabilities"].numpy(), answer["known_score"].numpy()


class _LitePredictor(Predictor):
    def __init__(self, filepath: Path):
        self._model = tflite.LiteModel(filepath)
        _describe(self, self._model.record, filepath)

    def judge(self, squares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        answer = self._model(images=squares.astype(np.float32))
        return answer["probabilities"], answer["known_score"].reshape(-1)


def _describe(predictor: Predictor, record: dict, source: Path) -> None:
    if record["kind"] != "classifier":
        raise UserError(f"{source} draws, it does not recognise")
    try:
        predictor.class_names = tuple(record["class_names"])
        predictor.image_size = int(record["image_size"])
        predictor.threshold = float(record["threshold"])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{source} is no valid export: {error!r}") from error
