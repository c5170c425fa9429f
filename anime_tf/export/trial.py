"""What a TFLite file costs and what it loses, measured on pictures it never saw."""

import time

import numpy as np

from anime_tf.export.lite import LiteModel
from anime_tf.inference import Recognizer
from anime_tf.sampler import Sampler

# A variant that answers right this much less often than the model is not good, nor one
# that calls this many more, or fewer, unknown.
MOST_LOST = 0.01
# A drawing this near to the model's, in dB, can hardly be told from it.
LEAST_PSNR = 35.0
_DRAWINGS = 32
_BATCH = 32


def fit_threshold(
    lite: LiteModel, recognizer: Recognizer, squares: np.ndarray
) -> float:
    """Returns the threshold for a file that stands for the model's own.

    Args:
        lite: The file.
        recognizer: What it was made from.
        squares: uint8 `[n, image_size, image_size, 3]`, n at least 2.
    """
    _, known = _judge(recognizer, squares)
    _, found, _ = _run(lite, squares)
    slope, offset = np.polyfit(known, found, 1)
    return float(slope * recognizer.threshold + offset)


def try_classifier(
    lite: LiteModel,
    recognizer: Recognizer,
    squares: np.ndarray,
    labels: np.ndarray,
    threshold: float,
) -> dict:
    """Compares a file with its model, picture by picture.

    Args:
        lite: The file.
        recognizer: What it was made from.
        squares: uint8 `[n, image_size, image_size, 3]`, held out, n at least 1.
        labels: int `[n]`, or `[0]` if nobody knows.
        threshold: Pictures that score below it in the file are unknown.

    Returns:
        The figures, JSON-ready; `good` says whether the file may stand for the model.
    """
    expected, known = _judge(recognizer, squares)
    found, scores, seconds = _run(lite, squares)
    tops, wanted = found.argmax(1), expected.argmax(1)
    has_labels = len(labels) > 0
    accuracy = float(np.mean(tops == labels)) if has_labels else None
    reference = float(np.mean(wanted == labels)) if has_labels else None
    agreement = float(np.mean(tops == wanted))
    lost = reference - accuracy if has_labels else 1 - agreement
    # Whoever is known, and is called unknown, is lost as much as by a wrong name.
    accepted, wanted_accepted = scores >= threshold, known >= recognizer.threshold
    lost = max(lost, abs(float(wanted_accepted.mean() - accepted.mean())))
    is_finite = bool(np.isfinite(found).all() and np.isfinite(scores).all())
    return {
        "pictures": len(squares),
        "milliseconds": round(1000 * float(np.median(seconds)), 2),
        "accuracy": accuracy,
        "accuracy_of_model": reference,
        "agreement": agreement,
        "accepted": float(accepted.mean()),
        "accepted_by_model": float(wanted_accepted.mean()),
        "agreement_of_unknown": float(np.mean(accepted == wanted_accepted)),
        "largest_difference_of_probability": float(np.abs(found - expected).max()),
        "largest_difference_of_known_score": float(np.abs(scores - known).max()),
        # Shares of pictures are not exact in binary.
        "good": is_finite and lost <= MOST_LOST + 1e-9,
    }


def try_generator(lite: LiteModel, sampler: Sampler) -> dict:
    """Compares drawings of the same noise; returns as `try_classifier`."""
    noise, labels = sampler.noise(_DRAWINGS, seed=0), sampler.labels(_DRAWINGS)
    expected = sampler.draw(noise, labels).astype(np.float64)
    drawings, seconds = [], []
    for row in range(_DRAWINGS):
        started = time.perf_counter()
        drawn = lite(noise=noise[row : row + 1], labels=labels[row : row + 1])
        seconds.append(time.perf_counter() - started)
        drawings.append(drawn["images"][0])
    found = np.clip(np.rint(np.stack(drawings)), 0, 255)
    # A drawing of equal pixels would have no finite PSNR.
    error = max(float(np.mean((found - expected) ** 2)), 1e-4)
    psnr = 10 * np.log10(255**2 / error)
    return {
        "drawings": _DRAWINGS,
        "milliseconds": round(1000 * float(np.median(seconds)), 2),
        "psnr_db": round(float(psnr), 1),
        "good": bool(np.isfinite(found).all() and psnr >= LEAST_PSNR),
    }


def _judge(
    recognizer: Recognizer, squares: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns probabilities `[n, k]` and known scores `[n]` of the model."""
    chunks = [squares[i : i + _BATCH] for i in range(0, len(squares), _BATCH)]
    return tuple(map(np.concatenate, zip(*map(recognizer.judge, chunks), strict=True)))


def _run(
    lite: LiteModel, squares: np.ndarray
) -> tuple[np.ndarray, np.ndarray, list[float]]:
    """Returns the same of the file, and the seconds that each picture took."""
    rows, seconds = [], []
    for square in squares:
        image = square[None].astype(np.float32)
        started = time.perf_counter()
        rows.append(lite(images=image))
        seconds.append(time.perf_counter() - started)
    probabilities = np.concatenate([row["probabilities"] for row in rows])
    scores = np.concatenate([row["known_score"].reshape(-1) for row in rows])
    return probabilities, scores, seconds
