"""The losses of drawing, against numbers worked by hand."""

import numpy as np
import pytest
import tensorflow as tf

from anime_tf import losses


def _points(*values):
    """Pictures with one feature each."""
    return tf.constant(values, tf.float32)[:, None]


def _gradient(loss, fake, real):
    with tf.GradientTape() as tape:
        tape.watch(fake)
        value = loss(fake, real)
    return tape.gradient(value, fake).numpy().ravel()


def test_hinge_losses_by_hand():
    real, fake = tf.constant([2.0, 0.5]), tf.constant([-3.0, 0.0])
    # (0 + 0.5) / 2 + (0 + 1) / 2
    assert float(losses.hinge_discriminator_loss(real, fake)) == pytest.approx(0.75)
    assert float(losses.hinge_generator_loss(fake)) == pytest.approx(1.5)


def test_paired_loss_by_hand():
    # ((1 - 4)^2 + (2 - 2)^2) / 2
    loss = losses.paired_loss(_points(1, 2), _points(4, 2))
    assert float(loss) == pytest.approx(4.5)


def test_nearest_loss_by_hand():
    # To the reals 0 and 10 the nearest fakes are 1 and 4: (1 + 36) / 2. To the fakes
    # the nearest real is 0: (1 + 16) / 2.
    loss = losses.nearest_loss(_points(1, 4), _points(0, 10))
    assert float(loss) == pytest.approx(0.5 * (18.5 + 8.5))


def test_each_real_picture_pulls_its_nearest_fake():
    gradient = _gradient(losses.nearest_loss, _points(1, 6), _points(0, 10))
    assert gradient[0] > 0, "towards 0"
    assert gradient[1] < 0, "towards 10"


def test_statistics_loss_by_hand():
    # Means 2 and 5, variances 1 and 4: 9 + 9.
    loss = losses.statistics_loss(_points(1, 3), _points(3, 7))
    assert float(loss) == pytest.approx(18, abs=1e-4)


def test_statistics_see_how_features_go_together():
    # Means and variances are the same; the covariances are 1 and -1, each twice.
    fake = tf.constant([[0.0, 0.0], [2.0, 2.0]])
    real = tf.constant([[0.0, 2.0], [2.0, 0.0]])
    assert float(losses.statistics_loss(fake, real)) == pytest.approx(2 * 2**2)
    assert float(losses.statistics_loss(fake, fake)) == pytest.approx(0, abs=1e-5)


def test_drift_by_hand():
    # Two reals at 1 and 2, fakes at 0 and 0.5. The only other fake repels with weight
    # 1, whatever the width; of the reals the nearer one, by softmax, attracts more.
    fake, real = np.array([0.0, 0.5]), np.array([1.0, 2.0])
    drift = np.zeros(2)
    for width in losses.KERNEL_WIDTHS:
        near = 1 / (1 + np.exp(-1 / width))
        drift += near * real[0] + (1 - near) * real[1] - fake[::-1]
    drift /= len(losses.KERNEL_WIDTHS)
    loss = losses.drift_loss(_points(*fake), _points(*real))
    assert float(loss) == pytest.approx(np.mean(drift**2), rel=1e-4)
    gradient = _gradient(losses.drift_loss, _points(*fake), _points(*real))
    assert gradient == pytest.approx(-drift, rel=1e-4), "2 (fake - there) / 2"


def test_fakes_drift_to_the_reals_and_from_each_other():
    fake = _points(0.0, 0.05)
    gradient = _gradient(losses.drift_loss, fake, _points(0.3, 0.35, 0.4))
    assert (gradient < 0).all(), "towards the reals"
    gradient = _gradient(losses.drift_loss, _points(0.28, 0.32), _points(0, 0.6))
    assert gradient[0] > 0 > gradient[1], "each to a real picture of its own"


def test_there_is_no_drift_where_fakes_are_spread_as_reals_are():
    random = np.random.default_rng(0)
    same = tf.constant(random.normal(size=(2, 200, 2)), tf.float32)
    far = losses.drift_loss(same[0] + 3.0, same[1])
    assert losses.drift_loss(same[0], same[1]) < 0.2 * far


@pytest.mark.parametrize("name", losses.PERCEPTUAL_LOSSES)
def test_all_are_finite_and_teach(name):
    random = np.random.default_rng(1)
    fake, real = tf.constant(random.normal(size=(2, 8, 5)), tf.float32)
    loss = losses.PERCEPTUAL_LOSSES[name]
    gradient = _gradient(loss, fake, real)
    assert np.isfinite(gradient).all()
    assert np.abs(gradient).max() > 0
    # Fakes that are equal to the last bit have no direction of their own.
    assert np.isfinite(_gradient(loss, tf.zeros_like(fake), real)).all()


@pytest.mark.parametrize("name", ["nearest", "drift", "statistics"])
def test_the_order_of_pictures_does_not_matter(name):
    random = np.random.default_rng(2)
    fake, real = tf.constant(random.normal(size=(2, 6, 4)), tf.float32)
    loss = losses.PERCEPTUAL_LOSSES[name]
    again = loss(tf.reverse(fake, [0]), tf.roll(real, 2, 0))
    assert float(again) == pytest.approx(float(loss(fake, real)), rel=1e-4)
