"""What an export says about itself, in JSON: names, thresholds, how to fit pictures."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from anime_tf import files
from anime_tf.errors import UserError

if TYPE_CHECKING:  # importing them would bring TensorFlow along
    from anime_tf.inference import Recognizer
    from anime_tf.sampler import Sampler

EXPORT = "export.json"
PARITY = "parity.json"
_FORMAT = 1


def of_classifier(recognizer: "Recognizer") -> dict:
    """Returns what one must know to use a classifier's export; JSON-ready."""
    return {
        "format": _FORMAT,
        "kind": "classifier",
        "class_names": list(recognizer.class_names),
        "image_size": recognizer.image_size,
        "pixels": "RGB, [0, 255], EXIF orientation applied, transparency on white",
        "fit": "letterbox on white, bicubic",
        "backbone": recognizer.backbone,
        "temperature": recognizer.temperature,
        "threshold": float(recognizer.novelty.threshold),
        "unknown": "known_score < threshold",
    }


def of_generator(sampler: "Sampler") -> dict:
    """Returns what one must know to use a generator's export; JSON-ready."""
    return {
        "format": _FORMAT,
        "kind": "generator",
        "class_names": list(sampler.class_names),
        "drawn": list(sampler.drawn),
        "image_size": sampler.image_size,
        "noise_size": sampler.noise_size,
        "pixels": "RGB, [0, 255]",
    }


def to_json(record: dict) -> str:
    return json.dumps(record, ensure_ascii=False, indent=1)


def write(folder: Path, record: dict, name: str = EXPORT) -> None:
    files.write_text(folder / name, to_json(record))


def parse(text: str | bytes, source: Path | str) -> dict:
    """Reads a record; `source` is named when it is not valid.

    Raises:
        UserError: If the record is no record of this version.
    """
    try:
        record = json.loads(text)
        if record["format"] != _FORMAT:
            raise ValueError(f"format {record['format']}, expected {_FORMAT}")
        if record["kind"] not in ("classifier", "generator"):
            raise ValueError(f"kind {record['kind']!r}")
        return record
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{source} is no valid export: {error!r}") from error


def read(folder: Path) -> dict:
    """Reads the record of an exported folder; raises as `parse`."""
    try:
        text = (folder / EXPORT).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UserError(f"{folder} is no export of anime-tf: {error}") from error
    return parse(text, folder / EXPORT)
