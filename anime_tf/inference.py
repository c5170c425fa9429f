"""Using a trained classifier: pictures in, names out, "unknown" when it is nobody."""

import json
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from PIL import Image
from scipy.special import log_softmax, softmax

from anime_tf import files, images
from anime_tf.errors import UserError
from anime_tf.models.classifier import (
    POOL,
    class_activation_maps,
    load_classifier,
    with_features,
)
from anime_tf.novelty import NoveltyDetector
from anime_tf.prediction import Prediction
from anime_tf.predictor import Predictor
from anime_tf.run_files import CLASSIFIER, NOVELTY, RECOGNIZER, check_complete

_FORMAT = 1
_BATCH = 32


class Recognizer(Predictor):
    """A trained classifier with its names, its calibration and its unknowns.

    Args:
        classifier: Model from images in [0, 255] to logits `[n, k]`.
        class_names: The k names, in the order of the logits.
        backbone: Name of the backbone, for the record.
        temperature: Divides the logits before the softmax (Guo et al., 2017).
        novelty: Tells known from unknown; may be set later, before `predict`.
    """

    def __init__(
        self,
        classifier: keras.Model,
        class_names: Sequence[str],
        backbone: str,
        temperature: float = 1.0,
        novelty: NoveltyDetector | None = None,
    ):
        self.classifier = classifier
        self.class_names = tuple(class_names)
        self.backbone = backbone
        self.temperature = temperature
        self.novelty = novelty
        self.image_size = classifier.input_shape[1]
        network = with_features(classifier)
        shape = [None, self.image_size, self.image_size, 3]
        signature = [tf.TensorSpec(shape, tf.uint8)]
        self._forward = tf.function(
            lambda x: network(x, training=False)[:2], input_signature=signature
        )
        self._maps = tf.function(
            lambda x: network(x, training=False)[2], input_signature=signature
        )

    @property
    def threshold(self) -> float:
        return float(self.novelty.threshold)

    @staticmethod
    def exists(folder: Path | str) -> bool:
        """Whether a folder holds a completely trained model."""
        return (Path(folder) / RECOGNIZER).is_file()

    @classmethod
    def load(cls, folder: Path | str) -> "Recognizer":
        """Reads a run's folder, strictly.

        Raises:
            UserError: If a part is absent, damaged, or does not fit the others.
        """
        folder = Path(folder)
        check_complete(folder)
        record = _read_record(folder / RECOGNIZER)
        recognizer = cls(
            load_classifier(folder / CLASSIFIER),
            record["class_names"],
            record["backbone"],
            record["temperature"],
            NoveltyDetector.load(folder / NOVELTY),
        )
        recognizer._check(folder, record)
        return recognizer

    def save(self, folder: Path | str) -> None:
        """Writes what makes the trained classifier a recognizer, the record last."""
        folder = Path(folder)
        self.novelty.save(folder / NOVELTY)
        record = {
            "format": _FORMAT,
            "class_names": self.class_names,
            "image_size": self.image_size,
            "fit": "letterbox on white, bicubic, RGB, [0, 255]",
            "backbone": self.backbone,
            "temperature": self.temperature,
            "threshold": float(self.novelty.threshold),
        }
        text = json.dumps(record, ensure_ascii=False, indent=1)
        files.write_text(folder / RECOGNIZER, text)

    def forward(self, squares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Runs the network.

        Args:
            squares: uint8 `[n, image_size, image_size, 3]`.

        Returns:
            Uncalibrated logits float32 `[n, k]` and pooled features float32 `[n, d]`.
        """
        logits, features = self._forward(squares)
        return logits.numpy(), features.numpy()

    def judge(self, squares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        logits, features = self.forward(squares)
        logits = logits / self.temperature
        return softmax(logits, axis=1), self.novelty.scores(features, logits)

    def log_probabilities(self, pictures: np.ndarray) -> np.ndarray:
        """Returns the calibrated log probabilities of characters, float32 `[n, k]`.

        Args:
            pictures: uint8 `[n, h, w, 3]`, of any size.
        """
        logits = []
        for start in range(0, len(pictures), _BATCH):
            squares = [
                images.letterbox(Image.fromarray(picture), self.image_size)
                for picture in pictures[start : start + _BATCH]
            ]
            logits.append(self.forward(np.stack(squares))[0])
        return log_softmax(np.concatenate(logits) / self.temperature, axis=1)

    def explain(
        self, squares: Sequence[np.ndarray], predictions: Sequence[Prediction]
    ) -> list[Image.Image]:
        """Shows what spoke for the likeliest character: Grad-CAM over each picture.

        Args:
            squares: n uint8 arrays `[image_size, image_size, 3]`.
            predictions: Their n predictions.

        Returns:
            n RGB images of the input's size.
        """
        indices = [self.class_names.index(p.top[0][0]) for p in predictions]
        maps = self._maps(np.stack(squares)).numpy()
        cams = class_activation_maps(maps, self.classifier, np.array(indices))
        pairs = zip(squares, cams, strict=True)
        return [_overlay(square, cam) for square, cam in pairs]

    def _check(self, folder: Path, record: dict) -> None:
        facts = {
            "image_size": (record["image_size"], self.image_size),
            # Tells two runs apart that have all else in common.
            "threshold in novelty.npz": (
                record["threshold"],
                float(self.novelty.threshold),
            ),
            "number of class_names": (
                len(self.class_names),
                self.classifier.output_shape[1],
            ),
            "means in novelty.npz": (
                self.novelty.means.shape,
                (len(self.class_names), self.novelty.whitening.shape[0]),
            ),
            "features": (
                self.novelty.means.shape[1],
                self.classifier.get_layer(POOL).output.shape[1],
            ),
        }
        for name, (expected, found) in facts.items():
            if expected != found:
                raise UserError(
                    f"the files in {folder} do not belong together: {name} should be "
                    f"{expected}, found {found}; copy the whole folder of one run"
                )


def _read_record(filepath: Path) -> dict:
    try:
        record = json.loads(filepath.read_text(encoding="utf-8"))
        if record["format"] != _FORMAT:
            raise ValueError(f"format {record['format']}, expected {_FORMAT}")
        keys = ("class_names", "image_size", "backbone", "temperature", "threshold")
        record = {key: record[key] for key in keys}
        if not all(isinstance(name, str) for name in record["class_names"]):
            raise ValueError("class_names should be text")
        if not record["temperature"] > 0:
            raise ValueError(f"temperature {record['temperature']}, expected above 0")
        return record
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{filepath} is not valid: {error!r}") from error


def _overlay(square: np.ndarray, cam: np.ndarray) -> Image.Image:
    """Tints a picture red where the map is high, and leaves it grey where it is low."""
    size = square.shape[:2]
    heat = Image.fromarray(cam).resize(size[::-1], Image.Resampling.BICUBIC)
    heat = np.clip(np.asarray(heat), 0.0, 1.0)[..., None]
    grey = square.mean(axis=2, keepdims=True)
    base = 0.35 * grey + 0.65 * square
    red = np.array([255.0, 40.0, 0.0])
    blended = base * (1 - 0.55 * heat) + red * (0.55 * heat)
    return Image.fromarray(blended.round().clip(0, 255).astype(np.uint8))
