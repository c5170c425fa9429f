"""Predicting with a run or an export of it, on the library that suits it.

A run, its SavedModel and its exact TFLite files give the same answers. Pictures are
read and fitted by `images`, not by the graph. TensorFlow is imported only where it
computes: that takes longer than many a prediction.
"""

from pathlib import Path

import numpy as np

from anime_tf.errors import UserError
from anime_tf.export import companion, records
from anime_tf.export.lite import LiteModel
from anime_tf.predictor import Predictor
from anime_tf.progress import Reporter
from anime_tf.quiet import load_tensorflow
from anime_tf.run_files import COMPANION, check_complete

_SAVED_MODEL = "saved_model.pb"


def is_export(path: Path) -> bool:
    """Whether a path is a TFLite file or the folder of a SavedModel."""
    return path.suffix == ".tflite" or (path / _SAVED_MODEL).is_file()


def load_predictor(
    path: Path, runtime: str = "auto", reporter: Reporter | None = None
) -> Predictor:
    """Loads a run's folder, a SavedModel's folder or a TFLite file.

    Args:
        path: One of these.
        runtime: What a run computes on, one of `config.RUNTIMES`. `litert` converts it
            first unless that was done before; `auto` takes LiteRT if it was, and
            otherwise TensorFlow. An export has a runtime of its own, and takes `auto`.
        reporter: Where to say what goes on.

    Raises:
        UserError: If it is none of them, damaged, or draws instead of recognising.
    """
    if is_export(path):
        if runtime != "auto":
            raise UserError(f"{path} is an export: it runs without --runtime {runtime}")
        return LitePredictor(path) if path.is_file() else _SavedPredictor(path)
    check_complete(path)
    if runtime == "litert":
        companion.ensure(path, reporter or Reporter())
    if runtime != "tensorflow" and companion.is_usable(path):
        return LitePredictor(path / COMPANION)
    load_tensorflow()
    from anime_tf.inference import Recognizer

    return Recognizer.load(path)


class LitePredictor(Predictor):
    """Predicts with a TFLite file.

    Raises:
        UserError: If it is damaged, or draws instead of recognising.
    """

    def __init__(self, filepath: Path):
        self._model = LiteModel(filepath)
        _describe(self, self._model.record, filepath)

    def judge(self, squares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        answer = self._model(images=squares.astype(np.float32))
        return answer["probabilities"], answer["known_score"].reshape(-1)


class _SavedPredictor(Predictor):
    def __init__(self, folder: Path):
        load_tensorflow()
        import tensorflow as tf

        _describe(self, records.read(folder), folder)
        try:
            self._loaded = tf.saved_model.load(str(folder))
            self._serve = self._loaded.signatures["images"]
        # A damaged or hostile file can fail in any of TensorFlow's readers.
        except Exception as error:
            raise UserError(f"{folder} is damaged: {error}") from error
        self._to_tensor = tf.constant

    def judge(self, squares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        answer = self._serve(images=self._to_tensor(squares))
        return answer["probabilities"].numpy(), answer["known_score"].numpy()


def _describe(predictor: Predictor, record: dict, source: Path) -> None:
    if record["kind"] != "classifier":
        raise UserError(f"{source} draws, it does not recognise")
    try:
        predictor.class_names = tuple(record["class_names"])
        predictor.image_size = int(record["image_size"])
        predictor.threshold = float(record["threshold"])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{source} is no valid export: {error!r}") from error
