import keras
import numpy as np
import pytest

from anime_tf.recipe import class_weights, compile_arguments, cosine_annealing


def test_class_weights_by_hand():
    # 6 and 2 of 8 pictures: 8 / (2 * 6) and 8 / (2 * 2), and 6 * 2/3 + 2 * 2 = 8.
    labels = np.array([0] * 6 + [1] * 2)
    expected = {0: pytest.approx(2 / 3), 1: pytest.approx(2.0)}
    assert class_weights(labels, 2, "on") == expected
    assert class_weights(labels, 2, "off") is None


@pytest.mark.parametrize(("counts", "weigh"), [((6, 2), False), ((7, 2), True)])
def test_class_weights_switch_themselves_on_over_3_to_1(counts, weigh):
    labels = np.repeat([0, 1], counts)
    assert (class_weights(labels, 2, "auto") is not None) is weigh


def test_cosine_by_hand():
    # One epoch of ten steps from a twentieth to the peak, then half a cosine over 40.
    schedule = cosine_annealing(0.1, steps=10, epochs=5, warm_up_epochs=1)
    rates = [float(schedule(step)) for step in (0, 5, 10, 20, 30, 50)]
    quarter = 0.1 * (1 + np.cos(np.pi / 4)) / 2
    expected = [0.005, 0.0525, 0.1, quarter, 0.05, 0.0]
    np.testing.assert_allclose(rates, expected, atol=1e-7)
    # A single epoch has no time to warm up.
    schedule = cosine_annealing(0.1, steps=10, epochs=1, warm_up_epochs=1)
    rates = [float(schedule(step)) for step in (0, 5, 10)]
    np.testing.assert_allclose(rates, [0.1, 0.05, 0.0], atol=1e-7)


def test_compile_arguments():
    arguments = compile_arguments(0.25, weight_decay=0.125, label_smoothing=0.5)
    assert float(arguments["optimizer"].learning_rate) == 0.25
    assert arguments["optimizer"].weight_decay == 0.125
    # Targets 3/4 and 1/4 against logits (0, ln 3), that is 1/4 and 3/4:
    # -(3/4 ln 1/4 + 1/4 ln 3/4) = 1.0397 + .0719.
    labels, logits = np.array([[1.0, 0.0]]), np.array([[0.0, np.log(3)]])
    loss = float(arguments["loss"](labels, logits))
    assert loss == pytest.approx(1.1116, abs=1e-4)
    assert [metric.name for metric in arguments["metrics"]] == ["accuracy", "macro_f1"]
    # A, A, B answered A, B, B: F1 of both is 2/3.
    macro_f1 = arguments["metrics"][1]
    macro_f1.update_state(np.eye(2)[[0, 0, 1]], np.eye(2)[[0, 1, 1]])
    assert float(keras.ops.convert_to_numpy(macro_f1.result())) == pytest.approx(2 / 3)
