"""Does an export answer like the model it comes from? Checked at every export."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from anime_tf import images
from anime_tf.datasets.manifest import Item, Manifest
from anime_tf.inference import Recognizer
from anime_tf.prediction import Prediction
from anime_tf.run_files import MANIFEST
from anime_tf.sampler import Sampler

# A SavedModel computes the same in the same precision: only last bits may differ, and
# the levels by which its decoder may differ from Pillow's.
_MOST_PROBABILITY = 0.02
_MOST_LEVELS = 1


def held_out(
    run: Path, split: str = "test", data_dir: Path | None = None
) -> tuple[list[Path], np.ndarray]:
    """Returns a run's pictures of one split that are still there and what they were,
    and their labels.

    Args:
        run: The run's folder.
        split: `"train"`, `"validation"` or `"test"`.
        data_dir: Where the pictures are now, if they were moved since training.
    """
    if not (run / MANIFEST).is_file():
        return [], np.zeros(0, np.int64)
    manifest = Manifest.load(run / MANIFEST)
    found = []
    for item in manifest.split(split):
        moved = data_dir is not None and not item.held_out
        path = Path(data_dir) / item.path if moved else manifest.path_of(item)
        if _is_still(path, item):
            found.append((path, item.label))
    return [path for path, _ in found], np.array([n for _, n in found], np.int64)


def _is_still(path: Path, item: Item) -> bool:
    try:
        return hashlib.sha256(images.read_bytes(path)).hexdigest() == item.sha256
    except images.PictureError:
        return False


def some_held_out(run: Path, count: int, data_dir: Path | None = None) -> list[Path]:
    """Returns about `count` test pictures, evenly from all characters."""
    paths, _ = held_out(run, "test", data_dir)
    step = max(1, len(paths) // count)
    return paths[::step][:count]


def check_saved_classifier(
    folder: Path, recognizer: Recognizer, paths: Sequence[Path]
) -> dict:
    """Compares an exported classifier with its model on files, or on noise if there
    are none that it takes.

    Returns:
        The figures, JSON-ready; `ok` says whether the export may be used.
    """
    loaded = tf.saved_model.load(str(folder))
    serve = loaded.signatures["serving_default"]
    contents = [images.read_bytes(path) for path in paths]
    answers = _ask(serve, contents) if contents else {"ok": np.zeros(0, bool)}
    if not answers["ok"].any():
        # None is there, or all have more pixels than the export takes.
        contents, paths = _noise_files(), []
        answers = _ask(serve, contents)
    expected = recognizer.predict(contents, top_k=len(recognizer.class_names))
    return _compare(answers, expected, recognizer.class_names, len(paths))


def _ask(serve, contents: Sequence[bytes]) -> dict[str, np.ndarray]:
    chunks = [contents[i : i + 32] for i in range(0, len(contents), 32)]
    parts = [serve(pictures=tf.constant(chunk)) for chunk in chunks]
    return {k: np.concatenate([p[k].numpy() for p in parts]) for k in parts[0]}


def check_saved_generator(folder: Path, sampler: Sampler) -> dict:
    """Compares an exported generator with its model; returns as for a classifier."""
    loaded = tf.saved_model.load(str(folder)).signatures
    noise, labels = sampler.noise(8, seed=0), sampler.labels(8)
    drawn = loaded["draw"](noise=tf.constant(noise), labels=tf.constant(labels))
    drawn = drawn["images"].numpy().astype(int)
    levels = int(np.abs(drawn - sampler.draw(noise, labels)).max())
    return {
        "pictures": len(noise),
        "largest_difference_in_levels": levels,
        "ok": levels <= _MOST_LEVELS,
    }


def _compare(
    answers: dict[str, np.ndarray],
    expected: Sequence[Prediction],
    class_names: Sequence[str],
    real: int,
) -> dict:
    rows = [i for i, p in enumerate(expected) if not p.problem and answers["ok"][i]]
    wanted = np.array([[dict(expected[i].top)[n] for n in class_names] for i in rows])
    wanted = wanted.reshape(-1, len(class_names))
    known = np.array([expected[i].known_score for i in rows])
    unknown = np.array([expected[i].is_unknown for i in rows], bool)
    difference = np.abs(answers["probabilities"][rows] - wanted).max(initial=0.0)
    tops = [expected[i].top[0][0] for i in rows]
    same = [
        answers["labels"][i, 0].decode() == top
        for i, top in zip(rows, tops, strict=True)
    ]
    return {
        "pictures": len(expected),
        "real_pictures": real,
        "read_by_both": len(rows),
        "same_name": float(np.mean(same)) if same else None,
        "same_unknown": float(np.mean(answers["is_unknown"][rows] == unknown)),
        "largest_difference_of_probability": float(difference),
        "largest_difference_of_known_score": float(
            np.abs(answers["known_score"][rows] - known).max(initial=0.0)
        ),
        "ok": bool(rows) and bool(difference <= _MOST_PROBABILITY),
    }


def _noise_files(count: int = 8) -> list[bytes]:
    """Files of noise, for a run whose pictures are gone."""
    noise = np.random.default_rng(0).integers(0, 256, (count, 40, 48, 3), np.uint8)
    return [tf.io.encode_png(picture).numpy() for picture in noise]
