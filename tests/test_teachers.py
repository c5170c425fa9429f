"""The frozen teachers, on networks small enough to work by hand."""

import keras
import numpy as np
import pytest

from anime_tf.models.teachers import ClassificationTeacher, PerceptualTeacher


def _identity_features(size=16):
    """A "network" whose two maps are the picture, and the picture halved."""
    images = keras.Input((size, size, 3))
    half = keras.layers.AveragePooling2D(2)(images)
    return [keras.Model(images, [keras.layers.Rescaling(1.0)(images), half])]


def _images(count=12, size=16, seed=0):
    return np.random.default_rng(seed).uniform(0, 255, (count, size, size, 3))


def _batches(images, size=5):
    return [images[start : start + size] for start in range(0, len(images), size)]


def _one_map(size):
    images = keras.Input((size, size, 3))
    return [keras.Model(images, keras.layers.Rescaling(1.0)(images))]


def test_descriptors_are_means_and_deviations_of_places():
    teacher = PerceptualTeacher(_one_map(32))
    images = _images(size=32)
    means, deviations = map(np.asarray, teacher.describe(images))
    assert means.shape == (12, 16 * 16 * 3)
    assert deviations.shape == (12, 4 * 4 * 3)
    # The second cell: rows 0 and 1, columns 2 and 3.
    cell = images[:, :2, 2:4].mean((1, 2))
    np.testing.assert_allclose(means[:, 3:6], cell, rtol=1e-4)
    # The second place: rows 0 to 7, columns 8 to 15.
    place = images[:, :8, 8:16].std((1, 2))
    np.testing.assert_allclose(deviations[:, 3:6], place, rtol=0.02)


def test_a_small_map_has_a_cell_for_each_pixel():
    images = _images(size=8)
    means, _ = PerceptualTeacher(_one_map(8)).describe(images)
    np.testing.assert_allclose(means, images.reshape(12, -1), rtol=1e-5)


def test_places_need_not_be_whole_pixels():
    # Of 24 pixels each of 16 cells has one and a half.
    images = _images(size=24)
    means, _ = PerceptualTeacher(_one_map(24)).describe(images)
    row = images[:, 0] + 0.5 * images[:, 1]
    corner = (row[:, 0] + 0.5 * row[:, 1]) / 1.5**2
    np.testing.assert_allclose(means[:, :3], corner, rtol=1e-4)


def test_paired_pictures_are_described_by_whole_maps():
    images = _images(size=32)
    (whole,) = PerceptualTeacher(_one_map(32), "paired").describe(images)
    np.testing.assert_allclose(whole, images.reshape(12, -1), rtol=1e-5)


def test_units_make_real_pictures_one_apart():
    teacher = PerceptualTeacher(_identity_features())
    described = teacher.measure(_batches(_images(200)))
    assert described.dtype == np.float16
    assert described.shape == (200, 16 * 16 * 3 + 8 * 8 * 3 + 2 * 4 * 4 * 3)
    described = described.astype(np.float32)
    apart = np.linalg.norm(described[:100] - described[100:], axis=1).mean()
    assert apart == pytest.approx(1.0, abs=0.05)


def test_all_layers_weigh_the_same():
    images = keras.Input((16, 16, 3))
    loud = keras.layers.Rescaling(100.0)(images)
    network = keras.Model(images, [keras.layers.Rescaling(1.0)(images), loud])
    described = PerceptualTeacher([network]).measure(_batches(_images(40)))
    one, other = np.split(described, 2, axis=1)
    np.testing.assert_allclose(one, other, rtol=0.01, atol=1e-4)


def test_brightness_does_not_change_the_loss():
    # Ten times the scale of everything: the units take it out again.
    losses = []
    for scale in (1.0, 10.0):
        teacher = PerceptualTeacher(_identity_features())
        references = teacher.measure(_batches(scale * _images(40)))
        losses.append(float(teacher(scale * _images(8, seed=1), references)))
    assert losses[0] == pytest.approx(losses[1], rel=0.01)


@pytest.mark.parametrize("loss", ["paired", "nearest", "drift", "statistics"])
def test_real_pictures_please_more_than_a_blur(loss):
    teacher = PerceptualTeacher(_identity_features(), loss)
    real = _images(24)
    references = teacher.measure(_batches(real))
    blur = np.repeat(real.mean(0, keepdims=True), 24, axis=0)
    order = np.random.default_rng(0).permutation(24)
    wins = float(teacher(real[order], references)) < float(teacher(blur, references))
    # The plain reading of a perceptual loss likes the blur best: why it is no default.
    assert wins == (loss != "paired")


def test_larger_pictures_are_averaged_down():
    teacher = PerceptualTeacher(_identity_features())
    images = _images()
    large = images.repeat(2, axis=1).repeat(2, axis=2)
    for one, other in zip(teacher.maps(images), teacher.maps(large), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5)


def test_several_networks_each_at_its_own_size():
    small, large = _identity_features(8), _identity_features(16)
    images = _images(size=16)
    shapes = [m.shape[1:] for m in PerceptualTeacher([*large, *small]).maps(images)]
    assert shapes == [(16, 16, 3), (8, 8, 3), (8, 8, 3), (4, 4, 3)]


def test_an_unknown_loss_is_refused():
    with pytest.raises(ValueError, match="'mse'"):
        PerceptualTeacher(_identity_features(), "mse")


def _red_or_blue(size=4):
    """A "classifier": how red, how blue."""
    images = keras.Input((size, size, 3))
    mean = keras.layers.GlobalAveragePooling2D()(images)
    head = keras.layers.Dense(2, use_bias=False)
    logits = head(mean)
    head.set_weights([np.array([[1, 0], [0, 0], [0, 1]]) / 10])
    return keras.Model(images, logits)


def test_classification_by_hand():
    teacher = ClassificationTeacher(_red_or_blue(), views=2)
    red = np.zeros((3, 8, 8, 3), np.float32)
    red[..., 0] = 100
    red[2] = np.nan  # beyond the views, never looked at
    labels = np.array([0, 1, 0], np.int32)
    # Logits 10 and 0: losses log(1 + e^-10) and 10 + log(1 + e^-10).
    assert float(teacher(red, labels)) == pytest.approx(5.0, abs=1e-3)
    np.testing.assert_allclose(teacher.logits(red[:1]), [[10, 0]], rtol=1e-5)


def test_nobody_is_not_classified():
    teacher = ClassificationTeacher(_red_or_blue())
    images = np.zeros((2, 8, 8, 3), np.float32)
    assert float(teacher(images, np.array([2, 2], np.int32))) == 0.0
    one = float(teacher(images, np.array([2, 0], np.int32)))
    assert one == pytest.approx(np.log(2) / 2, rel=1e-5)
