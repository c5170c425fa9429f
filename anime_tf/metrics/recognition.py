"""How good a classifier is, as plain numbers: pure functions of NumPy arrays.

Two papers are behind the less common ones: Guo et al. 2017, "On Calibration of Modern
Neural Networks" (calibration error, temperature), and Hendrycks & Gimpel 2017, "A
Baseline for Detecting Misclassified and Out-of-Distribution Examples" (rejection).
"""

import math
from collections.abc import Sequence

import numpy as np
from scipy import optimize, special
from sklearn import metrics as sklearn_metrics

MAX_CONFUSED = 10
TEMPERATURE_RANGE = (0.05, 20.0)


def softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Probabilities over the last axis, from logits divided by a temperature.

    Args:
        logits: float `[..., k]`.
        temperature: Positive float, see `fit_temperature`.

    Returns:
        float `[..., k]`, range [0, 1], each row sums to 1.

    Raises:
        ValueError: If `temperature` is not a positive number.
    """
    if not (math.isfinite(temperature) and temperature > 0):
        raise ValueError(f"temperature: expected a number > 0, received {temperature}")
    return special.softmax(np.asarray(logits) / temperature, axis=-1)


def classification_metrics(
    labels: np.ndarray, probabilities: np.ndarray, class_names: Sequence[str]
) -> dict:
    """Accuracy, F1 and confusions of one split, ready for JSON.

    A class without a picture in the split has precision, recall and F1 of 0.0 and a
    support of 0. Macro F1 is the plain mean over the classes with support > 0: a
    missing class must not lower it, and pictures wrongly given to such a class
    already cost the recall of the class they were taken from.

    Args:
        labels: int `[n]`, n >= 1, range [0, k).
        probabilities: float `[n, k]`, k >= 2, each row sums to 1.
        class_names: k different names, in the order of the columns.

    Returns:
        Dictionary of Python numbers, lists and strings with the keys `accuracy`,
        `top3_accuracy` and `macro_f1` (range [0, 1]); `per_class`, a dictionary
        name -> `precision`, `recall`, `f1`, `support`; `confusion_matrix`, a list of
        rows of counts (rows true, columns predicted); `most_confused`, a list of
        `true`, `predicted`, `count`, largest first, at most `MAX_CONFUSED`.

    Raises:
        ValueError: If an argument has the wrong shape, type or range.
    """
    labels, probabilities = _check_predictions(labels, probabilities)
    names = [str(name) for name in class_names]
    num_classes = probabilities.shape[1]
    if len(names) != num_classes or len(set(names)) != num_classes:
        raise ValueError(
            f"class_names: expected {num_classes} different names, one per column of "
            f"probabilities, received {len(names)} ({len(set(names))} different)"
        )
    predictions = probabilities.argmax(axis=1)
    classes = np.arange(num_classes)
    precision, recall, f1, support = sklearn_metrics.precision_recall_fscore_support(
        labels, predictions, labels=classes, zero_division=0
    )
    matrix = sklearn_metrics.confusion_matrix(labels, predictions, labels=classes)
    return {
        "accuracy": float(sklearn_metrics.accuracy_score(labels, predictions)),
        "top3_accuracy": _top3_accuracy(labels, probabilities),
        "macro_f1": float(f1[support > 0].mean()),
        "per_class": {
            name: {
                "precision": float(precision[index]),
                "recall": float(recall[index]),
                "f1": float(f1[index]),
                "support": int(support[index]),
            }
            for index, name in enumerate(names)
        },
        "confusion_matrix": matrix.tolist(),
        "most_confused": _most_confused(matrix, names),
    }


def expected_calibration_error(
    labels: np.ndarray, probabilities: np.ndarray, num_bins: int = 15
) -> float:
    """Mean gap between confidence and accuracy (ECE, Guo et al. 2017, equation 3).

    Predictions fall by their top probability into bins of equal width, open on the
    left and closed on the right; each bin's |accuracy - mean confidence| is weighted
    with its share of the pictures.

    Args:
        labels: int `[n]`, n >= 1, range [0, k).
        probabilities: float `[n, k]`, k >= 2, each row sums to 1.
        num_bins: int >= 1.

    Returns:
        float, range [0, 1]; 0 means that 80 % confident is right 80 % of the time.

    Raises:
        ValueError: If an argument has the wrong shape, type or range.
    """
    labels, probabilities = _check_predictions(labels, probabilities)
    if num_bins < 1:
        raise ValueError(f"num_bins: expected an integer >= 1, received {num_bins}")
    confidences = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == labels
    inner_edges = np.linspace(0.0, 1.0, num_bins + 1)[1:-1]
    bins = np.digitize(confidences, inner_edges, right=True)
    # |accuracy - confidence| * size / n  ==  |sum of (correct - confidence)| / n
    gaps = np.bincount(bins, weights=correct - confidences, minlength=num_bins)
    return float(np.abs(gaps).sum() / len(labels))


def fit_temperature(labels: np.ndarray, logits: np.ndarray) -> float:
    """The temperature that makes `softmax(logits, T)` honest (Guo et al. 2017).

    Minimises the negative log-likelihood of held-out pictures over the one scalar T.
    It never changes which class wins. The targets are smoothed by one picture's weight
    (Platt 1999), so that a small split without mistakes does not ask for certainty.

    Args:
        labels: int `[n]`, range [0, k). n = 0 is allowed.
        logits: float `[n, k]`, k >= 2, finite.

    Returns:
        float, range `TEMPERATURE_RANGE`; above 1 means the classifier was too sure of
        itself. 1.0 if there is no picture, or if no temperature improves on 1.

    Raises:
        ValueError: If an argument has the wrong shape, type or range.
    """
    labels, logits = _check_shapes(labels, logits, "logits")
    if len(labels) == 0:
        return 1.0
    count, num_classes = logits.shape
    targets = np.full(logits.shape, 1 / ((count + 2) * (num_classes - 1)))
    targets[np.arange(count), labels] = (count + 1) / (count + 2)

    def negative_log_likelihood(log_temperature: float) -> float:
        scaled = logits / math.exp(log_temperature)
        return float(-(targets * special.log_softmax(scaled, axis=1)).sum(1).mean())

    result = optimize.minimize_scalar(
        negative_log_likelihood,
        bounds=(math.log(TEMPERATURE_RANGE[0]), math.log(TEMPERATURE_RANGE[1])),
        method="bounded",
    )
    return math.exp(result.x) if result.fun < negative_log_likelihood(0.0) else 1.0


def rejection_metrics(
    known_scores: np.ndarray, unknown_scores: np.ndarray
) -> dict[str, float]:
    """How well a score tells known characters from strangers.

    Known is the positive class (Hendrycks & Gimpel 2017; FPR at 95 % TPR as in Liang
    et al. 2018, ODIN).

    Args:
        known_scores: float `[n]`, n >= 1, finite; higher means more surely known.
        unknown_scores: float `[m]`, m >= 1, finite; same scale.

    Returns:
        `auroc`, range [0, 1]: the chance that a known picture scores above an unknown
        one, ties count half. `fpr_at_95_tpr`, range [0, 1]: the share of unknown
        pictures accepted at the threshold that accepts 95 % of the known.

    Raises:
        ValueError: If an argument has the wrong shape, is empty or not finite.
    """
    known = _check_scores(known_scores, "known_scores")
    unknown = _check_scores(unknown_scores, "unknown_scores")
    is_known = np.repeat([1, 0], [len(known), len(unknown)])
    scores = np.concatenate([known, unknown])
    return {
        "auroc": float(sklearn_metrics.roc_auc_score(is_known, scores)),
        "fpr_at_95_tpr": float(np.mean(unknown >= accept_threshold(known, 0.95))),
    }


def accept_threshold(known_scores: np.ndarray, accept_rate: float = 0.95) -> float:
    """The highest threshold that still accepts a share of the known pictures.

    Args:
        known_scores: float `[n]`, n >= 1, finite; higher means more surely known.
        accept_rate: float, range (0, 1].

    Returns:
        float, one of the scores: at least `accept_rate` of them are >= it.

    Raises:
        ValueError: If an argument has the wrong shape or range.
    """
    scores = _check_scores(known_scores, "known_scores")
    if not 0 < accept_rate <= 1:
        raise ValueError(f"accept_rate: expected range (0, 1], received {accept_rate}")
    # 0.07 * 100 is 7.000000000000001: without the margin one picture too many.
    num_accepted = max(1, math.ceil(accept_rate * len(scores) - 1e-9))
    return float(np.sort(scores)[-num_accepted])


def _top3_accuracy(labels: np.ndarray, probabilities: np.ndarray) -> float:
    num_classes = probabilities.shape[1]
    if num_classes <= 3:  # always among the first three; scikit-learn would warn
        return 1.0
    return float(
        sklearn_metrics.top_k_accuracy_score(
            labels, probabilities, k=3, labels=np.arange(num_classes)
        )
    )


def _most_confused(matrix: np.ndarray, names: list[str]) -> list[dict]:
    errors = matrix - np.diag(np.diag(matrix))
    order = np.argsort(-errors, axis=None, kind="stable")[:MAX_CONFUSED]
    pairs = zip(*np.unravel_index(order, errors.shape), strict=True)
    return [
        {"true": names[row], "predicted": names[column], "count": int(count)}
        for row, column in pairs
        if (count := errors[row, column]) > 0
    ]


def _check_shapes(
    labels: np.ndarray, outputs: np.ndarray, name: str
) -> tuple[np.ndarray, np.ndarray]:
    labels, outputs = np.asarray(labels), np.asarray(outputs, dtype=np.float64)
    if outputs.ndim != 2 or outputs.shape[1] < 2:
        raise ValueError(
            f"{name}: expected shape [n, k] with k >= 2, received {outputs.shape}"
        )
    if labels.shape != outputs.shape[:1]:
        raise ValueError(
            f"labels: expected shape [{len(outputs)}] as {name} has rows, "
            f"received {labels.shape}"
        )
    if labels.size == 0:
        return labels.astype(np.int64), outputs
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"labels: expected integers, received {labels.dtype}")
    if labels.min() < 0 or labels.max() >= outputs.shape[1]:
        raise ValueError(
            f"labels: expected range [0, {outputs.shape[1]}), "
            f"received [{labels.min()}, {labels.max()}]"
        )
    if not np.isfinite(outputs).all():
        raise ValueError(f"{name}: expected finite numbers, received NaN or infinity")
    return labels, outputs


def _check_predictions(
    labels: np.ndarray, probabilities: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    labels, probabilities = _check_shapes(labels, probabilities, "probabilities")
    if len(labels) == 0:
        raise ValueError("labels: expected at least one picture, received none")
    sums = probabilities.sum(axis=1)
    # Half precision, and what TFLite quantises, is only this exact.
    if probabilities.min() < 0 or np.abs(sums - 1).max() > 0.01:
        raise ValueError(
            "probabilities: expected rows >= 0 that sum to 1, received a minimum of "
            f"{probabilities.min():.3g} and sums in [{sums.min():.3g}, "
            f"{sums.max():.3g}] (logits? pass them through softmax)"
        )
    return labels, probabilities


def _check_scores(scores: np.ndarray, name: str) -> np.ndarray:
    scores = np.asarray(scores, dtype=np.float64)
    if scores.ndim != 1 or scores.size == 0:
        raise ValueError(
            f"{name}: expected shape [n] with n >= 1, received {scores.shape}"
        )
    if not np.isfinite(scores).all():
        raise ValueError(f"{name}: expected finite numbers, received NaN or infinity")
    return scores
