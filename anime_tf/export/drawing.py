"""Drawing with an export: the same drawings as from the run it was made of."""

from pathlib import Path

import numpy as np
import tensorflow as tf

from anime_tf.errors import UserError
from anime_tf.export import records
from anime_tf.export.lite import LiteModel
from anime_tf.export.recognition import is_export
from anime_tf.sampler import Drawer, Sampler, to_pixels


def load_drawer(path: Path) -> Drawer:
    """Loads a generator's run, a SavedModel's folder or a TFLite file.

    Raises:
        UserError: If it is none of them, damaged, or recognises instead of drawing.
    """
    if not is_export(path):
        return Sampler.load(path)
    return _LiteDrawer(path) if path.is_file() else _SavedDrawer(path)


class _SavedDrawer(Drawer):
    def __init__(self, folder: Path):
        _describe(self, records.read(folder), folder)
        try:
            self._loaded = tf.saved_model.load(str(folder))
            self._serve = self._loaded.signatures["draw"]
        # A damaged or hostile file can fail in any of TensorFlow's readers.
        except Exception as error:
            raise UserError(f"{folder} is damaged: {error}") from error

    def draw(self, noise: np.ndarray, labels: np.ndarray) -> np.ndarray:
        answer = self._serve(noise=tf.constant(noise), labels=tf.constant(labels))
        return answer["images"].numpy()


class _LiteDrawer(Drawer):
    def __init__(self, filepath: Path):
        self._model = LiteModel(filepath)
        _describe(self, self._model.record, filepath)

    def draw(self, noise: np.ndarray, labels: np.ndarray) -> np.ndarray:
        # The file takes one at a time.
        rows = [
            self._model(noise=noise[i : i + 1], labels=labels[i : i + 1])["images"][0]
            for i in range(len(noise))
        ]
        return to_pixels(np.stack(rows))


def _describe(drawer: Drawer, record: dict, source: Path) -> None:
    if record["kind"] != "generator":
        raise UserError(f"{source} recognises, it does not draw")
    try:
        drawer.class_names = tuple(record["class_names"])
        drawer.drawn = tuple(record["drawn"])
        drawer.image_size = int(record["image_size"])
        drawer.noise_size = int(record["noise_size"])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{source} is no valid export: {error!r}") from error
