"""Every expected number here is worked by hand; the working stands beside it."""

import json

import numpy as np
import pytest

from anime_tf.metrics import recognition as metrics

NAMES = ["Asuka", "Rei", "初音未来"]

# Six pictures, three characters; the highest probability of each row is the answer.
#
#   true   a    r    m   answer          confusion matrix (rows true)
#   Asuka .8   .1   .1   Asuka   right            Asuka  Rei  Miku
#   Asuka .6   .3   .1   Asuka   right   Asuka      2     1     0
#   Asuka .3   .5   .2   Rei     wrong   Rei        0     2     0
#   Rei   .2   .7   .1   Rei     right   Miku       0     1     0
#   Rei   .1   .9   .0   Rei     right
#   Miku  .0   .6   .4   Rei     wrong
LABELS = np.array([0, 0, 0, 1, 1, 2])
PROBABILITIES = np.array(
    [
        [0.8, 0.1, 0.1],
        [0.6, 0.3, 0.1],
        [0.3, 0.5, 0.2],
        [0.2, 0.7, 0.1],
        [0.1, 0.9, 0.0],
        [0.0, 0.6, 0.4],
    ]
)


def test_classification_metrics_by_hand():
    result = metrics.classification_metrics(LABELS, PROBABILITIES, NAMES)
    assert set(result) == {
        "accuracy",
        "top3_accuracy",
        "macro_f1",
        "per_class",
        "confusion_matrix",
        "most_confused",
    }
    assert result["confusion_matrix"] == [[2, 1, 0], [0, 2, 0], [0, 1, 0]]
    assert result["accuracy"] == pytest.approx(4 / 6)
    assert result["top3_accuracy"] == 1.0
    # Asuka: precision 2/2, recall 2/3, F1 = 2 * 1 * 2/3 / (5/3) = 4/5.
    # Rei:   precision 2/4, recall 2/2, F1 = 2 * 1/2 * 1 / (3/2) = 2/3.
    # Miku:  never answered: 0, 0, 0.
    expected = {
        "Asuka": {"precision": 1, "recall": 2 / 3, "f1": 4 / 5, "support": 3},
        "Rei": {"precision": 1 / 2, "recall": 1, "f1": 2 / 3, "support": 2},
        "初音未来": {"precision": 0, "recall": 0, "f1": 0, "support": 1},
    }
    assert list(result["per_class"]) == NAMES
    for name, numbers in expected.items():
        assert result["per_class"][name] == pytest.approx(numbers)
    assert result["macro_f1"] == pytest.approx((4 / 5 + 2 / 3 + 0) / 3)
    assert result["most_confused"] == [
        {"true": "Asuka", "predicted": "Rei", "count": 1},
        {"true": "初音未来", "predicted": "Rei", "count": 1},
    ]


def test_classification_metrics_survive_json():
    result = metrics.classification_metrics(
        LABELS.astype(np.int32), PROBABILITIES.astype(np.float32), NAMES
    )
    assert json.loads(json.dumps(result)) == result


def test_class_without_pictures_does_not_lower_macro_f1():
    # Only Asuka and Rei have pictures, all right; a third name is never seen.
    result = metrics.classification_metrics([0, 1], np.eye(3)[:2], NAMES)
    assert result["macro_f1"] == 1.0
    assert result["per_class"]["初音未来"]["support"] == 0
    assert result["confusion_matrix"][2] == [0, 0, 0]
    assert result["most_confused"] == []
    # One of Asuka's two goes to the unseen class: Asuka recall 1/2, precision 1,
    # F1 2/3; Rei 1. Mean over the two with pictures: 5/6.
    result = metrics.classification_metrics(
        [0, 0, 1], np.eye(3)[[0, 2, 1]], class_names=NAMES
    )
    assert result["macro_f1"] == pytest.approx(5 / 6)


def test_single_picture_and_two_classes():
    result = metrics.classification_metrics([1], [[0.9, 0.1]], ["a", "b"])
    assert result["accuracy"] == 0.0
    assert result["top3_accuracy"] == 1.0
    assert result["macro_f1"] == 0.0


def test_top3_accuracy_by_hand():
    # Ranks of the true class: 1st, 3rd, 4th, 5th -> two of four in the first three.
    probabilities = np.tile([0.4, 0.25, 0.2, 0.1, 0.05], (4, 1))
    result = metrics.classification_metrics([0, 2, 3, 4], probabilities, list("abcde"))
    assert result["top3_accuracy"] == 0.5
    assert result["accuracy"] == 0.25


def test_most_confused_is_sorted_and_cut():
    # Twelve classes; class i is taken for its neighbour i times (class 0 never).
    labels = np.repeat(np.arange(12), np.arange(12))
    probabilities = np.eye(12)[(labels + 1) % 12]
    result = metrics.classification_metrics(
        labels, probabilities, [f"c{index}" for index in range(12)]
    )
    pairs = result["most_confused"]
    assert [pair["count"] for pair in pairs] == [11, 10, 9, 8, 7, 6, 5, 4, 3, 2]
    assert pairs[0] == {"true": "c11", "predicted": "c0", "count": 11}


def test_calibration_error_by_hand():
    # Two bins, (0, .5] and (.5, 1]. Third picture (.5, wrong) is alone in the first:
    # gap .5, weight 1/6. The other five: 4 right = .8; mean confidence
    # (.8 + .6 + .7 + .9 + .6) / 5 = .72; gap .08, weight 5/6.
    error = metrics.expected_calibration_error(LABELS, PROBABILITIES, num_bins=2)
    assert error == pytest.approx(0.5 / 6 + 0.08 * 5 / 6)


def test_calibration_error_of_perfect_and_of_wrong_certainty():
    certain = np.eye(2)[[0, 1, 0, 1]]
    assert metrics.expected_calibration_error([0, 1, 0, 1], certain) == 0.0
    assert metrics.expected_calibration_error([1, 0, 1, 0], certain) == 1.0
    assert metrics.expected_calibration_error([0, 0, 1, 1], certain) == 0.5


def test_calibration_error_is_small_when_labels_follow_the_probabilities():
    labels, logits = _honest_sample(num_pictures=20_000)
    honest = metrics.softmax(logits)
    assert metrics.expected_calibration_error(labels, honest) < 0.02
    sharpened = metrics.softmax(logits, temperature=0.25)
    assert metrics.expected_calibration_error(labels, sharpened) > 0.1


@pytest.mark.parametrize("temperature", [0.25, 1.0, 3.0])
def test_fit_temperature_recovers_a_known_one(temperature):
    labels, logits = _honest_sample(num_pictures=20_000)
    fitted = metrics.fit_temperature(labels, logits * temperature)
    assert fitted == pytest.approx(temperature, rel=0.05)


def test_fit_temperature_by_hand():
    # Logits (ln 9, 0) say 90 %. 3 of 4 are right, and the targets of n = 4 pictures
    # are smoothed to 5/6, so the first class weighs (3 * 5/6 + 1/6) / 4 = 2/3:
    # sigmoid(ln 9 / T) = 2/3, so ln 9 / T = ln 2.
    logits = np.tile([np.log(9), 0.0], (4, 1))
    assert metrics.fit_temperature([0, 0, 0, 1], logits) == pytest.approx(
        np.log(9) / np.log(2), rel=1e-3
    )


def test_fit_temperature_at_its_edges():
    empty = np.zeros((0, 3))
    assert metrics.fit_temperature([], empty) == 1.0
    assert metrics.fit_temperature([0, 1], np.zeros((2, 3))) == 1.0
    _, high = metrics.TEMPERATURE_RANGE
    all_right, all_wrong = np.eye(2), 1 - np.eye(2)
    # Two right answers: targets of 3/4, so sigmoid(1 / T) = 3/4 and 1 / T = ln 3.
    temperature = metrics.fit_temperature([0, 1], all_right)
    assert temperature == pytest.approx(1 / np.log(3), rel=1e-3)
    assert metrics.fit_temperature([0, 1], all_wrong) == pytest.approx(high, rel=0.01)
    huge = 1e6 * np.eye(2)
    assert metrics.fit_temperature([0, 1], huge) == pytest.approx(high, rel=0.01)


def test_softmax_works_along_the_last_axis():
    logits = np.log([[1.0, 3.0], [1.0, 1.0]])
    np.testing.assert_allclose(metrics.softmax(logits), [[0.25, 0.75], [0.5, 0.5]])
    # T = 1/2 squares the odds: 1 : 9.
    np.testing.assert_allclose(metrics.softmax(logits[0], temperature=0.5), [0.1, 0.9])
    with pytest.raises(ValueError, match="temperature"):
        metrics.softmax(logits, temperature=0.0)


def test_rejection_metrics_by_hand():
    # Pairs known > unknown: .9 beats .5 and .1; .4 beats .1 only; .5 ties with .5
    # (half) and beats .1: 2 + 1 + 1.5 = 4.5 of 6. All three known are needed for
    # 95 %, threshold .4: of the unknown .5 is accepted, .1 is not.
    result = metrics.rejection_metrics([0.9, 0.4, 0.5], [0.5, 0.1])
    assert result == {"auroc": pytest.approx(4.5 / 6), "fpr_at_95_tpr": 0.5}


def test_rejection_metrics_perfect_and_reversed():
    high, low = np.array([2.0, 3.0]), np.array([-1.0, 0.0])
    assert metrics.rejection_metrics(high, low) == {"auroc": 1, "fpr_at_95_tpr": 0}
    assert metrics.rejection_metrics(low, high) == {"auroc": 0, "fpr_at_95_tpr": 1}


def test_accept_threshold_by_hand():
    # Twenty scores 1..20: 95 % are 19 pictures, so only the lowest is given up.
    scores = np.arange(1.0, 21.0)
    assert metrics.accept_threshold(scores) == 2.0
    assert metrics.accept_threshold(scores, accept_rate=1.0) == 1.0
    assert metrics.accept_threshold(scores, accept_rate=0.01) == 20.0
    # 7 of 100, although 0.07 * 100 > 7 in floating point.
    assert metrics.accept_threshold(np.arange(100), accept_rate=0.07) == 93.0
    assert metrics.accept_threshold([0.3]) == 0.3


@pytest.mark.parametrize(
    ("labels", "probabilities", "names", "argument"),
    [
        ([0, 1], [0.5, 0.5], NAMES, "probabilities"),
        ([0], [[1.0]], ["only"], "probabilities"),
        ([0], [[3.0, -2.0]], ["a", "b"], "probabilities"),
        ([0], [[5.0, 9.0]], ["a", "b"], "probabilities"),
        ([0], [[np.nan, 1.0]], ["a", "b"], "probabilities"),
        ([0, 1, 1], np.eye(2), ["a", "b"], "labels"),
        ([0.0, 1.0], np.eye(2), ["a", "b"], "labels"),
        ([0, 2], np.eye(2), ["a", "b"], "labels"),
        ([-1, 0], np.eye(2), ["a", "b"], "labels"),
        ([], np.zeros((0, 2)), ["a", "b"], "labels"),
        ([0, 1], np.eye(2), NAMES, "class_names"),
        ([0, 1], np.eye(2), ["a", "a"], "class_names"),
    ],
)
def test_bad_arguments_are_named(labels, probabilities, names, argument):
    with pytest.raises(ValueError, match=f"^{argument}: expected"):
        metrics.classification_metrics(labels, probabilities, names)


def test_bad_scores_and_numbers_are_named():
    with pytest.raises(ValueError, match=r"^known_scores"):
        metrics.rejection_metrics([], [1.0])
    with pytest.raises(ValueError, match=r"^unknown_scores"):
        metrics.rejection_metrics([1.0], [[1.0]])
    with pytest.raises(ValueError, match=r"^known_scores"):
        metrics.accept_threshold([np.nan])
    with pytest.raises(ValueError, match=r"^accept_rate"):
        metrics.accept_threshold([1.0], accept_rate=0.0)
    with pytest.raises(ValueError, match=r"^num_bins"):
        metrics.expected_calibration_error([0, 1], np.eye(2), num_bins=0)
    with pytest.raises(ValueError, match=r"^logits"):
        metrics.fit_temperature([0], [0.0, 1.0])


def _honest_sample(num_pictures):
    """Labels drawn from the very probabilities their logits state."""
    rng = np.random.default_rng(7)
    logits = rng.normal(scale=1.5, size=(num_pictures, 5))
    gumbel = rng.gumbel(size=logits.shape)
    return (logits + gumbel).argmax(axis=1), logits
