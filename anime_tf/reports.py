"""Pictures and tables a person reads: one HTML file, and tables for the terminal.

Folder names and file names are a user's, or a stranger's: in HTML they are escaped by
the template, and in the terminal they never pass through Rich's markup.
"""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import stats

from anime_tf.charts import learning_curves, score_histogram
from anime_tf.pages import data_uri, finite, write_page

MAX_MISTAKES = 24
THUMBNAIL_SIZE = 128
DENSE_FROM = 16  # classes from which the confusion matrix shrinks its cells


@dataclass(frozen=True)
class Mistake:
    """One picture that was taken for somebody else.

    Attributes:
        image: PIL image, or uint8 array `[h, w, 3]`.
        path: Where the picture lies, as shown to the reader.
        true, predicted: Names of the characters.
        confidence: Probability of `predicted`, range [0, 1].
    """

    image: Image.Image | np.ndarray
    path: str
    true: str
    predicted: str
    confidence: float


def write_classifier_report(
    filepath: Path,
    *,
    title: str,
    metrics: dict,
    history: list[dict],
    class_counts: dict[str, dict[str, int]],
    mistakes: list[Mistake],
    unknown_scores: dict | None,
) -> None:
    """Writes one self-contained HTML file that works offline and on a phone.

    Args:
        filepath: Where to write; replaced in one step, or left as it was.
        title: Heading of the report.
        metrics: What `classification_metrics` returns, and `class_names`,
            `num_pictures` (of the test split), `temperature`, `ece` (after the
            temperature), `ece_uncalibrated` and `unknown`: a dictionary of
            `threshold`, `known_accepted`, `num_unknown` and, None if there were no
            unknown pictures, `auroc`, `fpr_at_95_tpr`, `unknown_rejected`.
        history: One dictionary per epoch with any of `stage`, `epoch`, `loss`,
            `accuracy`, `val_loss`, `val_accuracy`, `val_macro_f1`, `learning_rate`,
            `seconds`.
        class_counts: Name -> pictures in `train`, `validation`, `test`.
        mistakes: The `MAX_MISTAKES` most confident are shown.
        unknown_scores: None, or `known` and `unknown` (array or None) scores.

    Raises:
        ValueError: If the confusion matrix does not fit the class names.
    """
    threshold = metrics["unknown"]["threshold"]
    shown = sorted(mistakes, key=lambda mistake: -mistake.confidence)[:MAX_MISTAKES]
    matrix = np.array(metrics["confusion_matrix"])
    write_page(
        filepath,
        "classifier_report.html.j2",
        title=title,
        metrics=metrics,
        interval=_accuracy_interval(metrics),
        characters=_hardest_first(metrics),
        curves=learning_curves(history),
        history=history,
        seconds=sum(finite(epoch.get("seconds"), 0.0) for epoch in history),
        confusion=_confusion_rows(metrics),
        dense=len(metrics["class_names"]) >= DENSE_FROM,
        counts=_count_bars(class_counts),
        mistakes=[(mistake, _data_uri(mistake.image)) for mistake in shown],
        num_mistakes=int(matrix.sum() - matrix.trace()),
        score_chart=score_histogram(unknown_scores, threshold),
    )


def _accuracy_interval(metrics: dict) -> tuple[float, float]:
    """The 95 % interval of Wilson: what a small test split cannot tell apart."""
    matrix = np.asarray(metrics["confusion_matrix"])
    test = stats.binomtest(int(np.trace(matrix)), int(matrix.sum()))
    return tuple(test.proportion_ci(0.95, method="wilson"))


def _hardest_first(metrics: dict) -> list[tuple[str, dict]]:
    rows = metrics["per_class"].items()
    return sorted(rows, key=lambda row: (row[1]["support"] == 0, row[1]["f1"]))


def _confusion_rows(metrics: dict) -> list[dict]:
    names, matrix = metrics["class_names"], np.asarray(metrics["confusion_matrix"])
    if matrix.shape != (len(names), len(names)):
        raise ValueError(
            f"metrics: expected a confusion matrix of {len(names)} x {len(names)} as "
            f"there are class names, received shape {matrix.shape}"
        )
    rows = []
    for true, counts in zip(names, matrix.tolist(), strict=True):
        total = sum(counts)
        cells = []
        for predicted, count in zip(names, counts, strict=True):
            share = count / max(total, 1)
            kind = "hit" if predicted == true else "miss"
            cells.append(
                {
                    "predicted": predicted,
                    "count": count,
                    "kind": kind + (" strong" if share > 0.5 else ""),
                    "depth": round(0.15 + 0.8 * share, 2),
                }
            )
        rows.append({"name": true, "total": total, "cells": cells})
    return rows


def _count_bars(class_counts: Mapping[str, Mapping[str, int]]) -> dict:
    splits = ("train", "validation", "test")
    rows = [
        (name, [counts.get(split, 0) for split in splits])
        for name, counts in class_counts.items()
    ]
    totals = [sum(counts) for _, counts in rows]
    return {
        "rows": rows,
        "largest": max(totals, default=0),
        "smallest": min(totals, default=0),
    }


def _as_image(image: Image.Image | np.ndarray) -> Image.Image:
    if isinstance(image, Image.Image):
        return image.convert("RGB")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(
            "image: expected a PIL image or a uint8 array [h, w, 3], "
            f"received {image.dtype} {image.shape}"
        )
    return Image.fromarray(image)


def _data_uri(image: Image.Image | np.ndarray) -> str:
    thumbnail = _as_image(image)
    thumbnail.thumbnail((THUMBNAIL_SIZE, THUMBNAIL_SIZE))
    buffer = io.BytesIO()
    # Through an array: what the file carries beside its pixels stays out.
    Image.fromarray(np.asarray(thumbnail)).save(buffer, "JPEG", quality=85)
    return data_uri(buffer.getvalue(), "image/jpeg")
