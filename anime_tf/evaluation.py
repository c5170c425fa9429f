"""Judging a trained classifier on pictures it never saw."""

import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from anime_tf import files, images
from anime_tf.datasets.image_folder import list_files
from anime_tf.datasets.manifest import Item, Manifest
from anime_tf.errors import UserError
from anime_tf.inference import Recognizer
from anime_tf.metrics.recognition import (
    classification_metrics,
    expected_calibration_error,
    rejection_metrics,
    softmax,
)
from anime_tf.progress import Reporter
from anime_tf.reports import MAX_MISTAKES, Mistake, write_classifier_report
from anime_tf.run_files import HISTORY, MANIFEST, METRICS, REPORT

_BATCH = 32


def evaluate_run(
    folder: Path | str,
    recognizer: Recognizer | None = None,
    data_dir: Path | str | None = None,
    unknown_dir: Path | str | None = None,
    reporter: Reporter | None = None,
) -> dict:
    """Judges a run on what it held out; writes `metrics.json` and `report.html`.

    Args:
        folder: The run's folder.
        recognizer: Its recognizer if that is loaded already.
        data_dir: Where the pictures are now, if they were moved since training.
        unknown_dir: Pictures of nobody the model knows, to measure rejection on.
        reporter: Where to show progress.

    Returns:
        The metrics, as written.

    Raises:
        UserError: If the run is not complete, or its test pictures are gone or changed.
    """
    folder, reporter = Path(folder), reporter or Reporter()
    recognizer = recognizer or Recognizer.load(folder)
    manifest = Manifest.load(folder / MANIFEST)
    tests = manifest.split("test")
    if not tests:
        raise UserError(
            f"the run in {folder} held nothing out to test on (too few pictures); "
            "add pictures and train again, or give --test-dir to train"
        )
    paths = [_locate(manifest, item, data_dir) for item in tests]
    logits, features, unreadable = _forward_all(recognizer, paths, "Testing", reporter)
    if unreadable:
        raise UserError(f"the test picture {unreadable[0][0]}: {unreadable[0][1]}")
    labels = np.array([item.label for item in tests])
    known = recognizer.novelty.scores(features, logits / recognizer.temperature)
    unknown = _unknown_scores(recognizer, unknown_dir, reporter)
    metrics = _metrics(recognizer, labels, logits, known, unknown)
    files.write_text(
        folder / METRICS, json.dumps(metrics, ensure_ascii=False, indent=1)
    )
    probabilities = softmax(logits, recognizer.temperature)
    write_classifier_report(
        folder / REPORT,
        title=f"{folder.name}: {len(recognizer.class_names)} characters",
        metrics=metrics,
        history=_read_history(folder),
        class_counts=manifest.counts(),
        mistakes=_mistakes(recognizer, paths, labels, probabilities),
        unknown_scores={"known": known, "unknown": unknown},
    )
    return metrics


def _locate(manifest: Manifest, item: Item, data_dir: Path | str | None) -> Path:
    moved = data_dir is not None and not item.held_out
    path = Path(data_dir) / item.path if moved else manifest.path_of(item)
    try:
        digest = hashlib.sha256(images.read_bytes(path)).hexdigest()
    except images.PictureError as error:
        raise UserError(
            f"the test picture {path} cannot be read ({error}); if the pictures were "
            "moved, say where they are with --data-dir"
        ) from error
    if digest != item.sha256:
        raise UserError(
            f"{path} is not the picture that this run held out: its content has "
            "changed since; put the old one back, or train again"
        )
    return path


def _forward_all(
    recognizer: Recognizer, paths: Sequence[Path], title: str, reporter: Reporter
) -> tuple[np.ndarray, np.ndarray, list[tuple[Path, str]]]:
    """Returns logits `[n, k]` and features `[n, d]` of the readable files, and the
    others with their reasons."""
    logits, features, unreadable = [], [], []
    with reporter.bar(title, math.ceil(len(paths) / _BATCH)) as bar:
        for start, squares, problems in recognizer.load_batches(paths, _BATCH):
            readable = [square for square in squares if square is not None]
            if readable:
                results = recognizer.forward(np.stack(readable))
                logits.append(results[0])
                features.append(results[1])
            unreadable += [
                (paths[start + i], problem)
                for i, problem in enumerate(problems)
                if problem
            ]
            bar.advance()
    if not logits:
        raise UserError(f"no readable picture among the {len(paths)} for {title}")
    return np.concatenate(logits), np.concatenate(features), unreadable


def _unknown_scores(
    recognizer: Recognizer, unknown_dir: Path | str | None, reporter: Reporter
) -> np.ndarray | None:
    if unknown_dir is None:
        return None
    paths = list_files(unknown_dir)
    if not paths:
        raise UserError(f"no pictures in the folder {unknown_dir} (--unknown-dir)")
    logits, features, unreadable = _forward_all(
        recognizer, paths, "Testing unknowns", reporter
    )
    for path, problem in unreadable:
        reporter.say(f"  skipped {path}: {problem}")
    return recognizer.novelty.scores(features, logits / recognizer.temperature)


def _metrics(
    recognizer: Recognizer,
    labels: np.ndarray,
    logits: np.ndarray,
    known: np.ndarray,
    unknown: np.ndarray | None,
) -> dict:
    calibrated = softmax(logits, recognizer.temperature)
    threshold = float(recognizer.novelty.threshold)
    rejection = {"auroc": None, "fpr_at_95_tpr": None}
    rejected, count = None, 0
    if unknown is not None:
        rejection = rejection_metrics(known, unknown)
        rejected, count = float(np.mean(unknown < threshold)), len(unknown)
    return {
        **classification_metrics(labels, calibrated, recognizer.class_names),
        "ece": expected_calibration_error(labels, calibrated),
        "ece_uncalibrated": expected_calibration_error(labels, softmax(logits)),
        "temperature": recognizer.temperature,
        "num_pictures": len(labels),
        "class_names": list(recognizer.class_names),
        "unknown": {
            "threshold": threshold,
            "known_accepted": float(np.mean(known >= threshold)),
            **rejection,
            "num_unknown": count,
            "unknown_rejected": rejected,
        },
    }


def _mistakes(
    recognizer: Recognizer,
    paths: Sequence[Path],
    labels: np.ndarray,
    probabilities: np.ndarray,
) -> list[Mistake]:
    """Returns the wrong answers, most confident first."""
    answers, confidence = probabilities.argmax(1), probabilities.max(1)
    wrong = np.flatnonzero(answers != labels)
    worst = wrong[np.argsort(-confidence[wrong], kind="stable")][:MAX_MISTAKES]
    names = recognizer.class_names
    return [
        Mistake(
            image=images.load_square(paths[index], recognizer.image_size),
            path=str(paths[index]),
            true=names[labels[index]],
            predicted=names[answers[index]],
            confidence=float(confidence[index]),
        )
        for index in worst
    ]


def _read_history(folder: Path) -> list[dict]:
    try:
        return json.loads((folder / HISTORY).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{folder / 'history.json'} is not valid: {error}") from error
