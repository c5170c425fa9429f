"""The layers of the generator and before the judges."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from anime_tf.layers import (
    DifferentiableAugmentation,
    SelfModulation,
    SpectralNormalization,
    UpsampleConv2D,
)


def _images(count=4, size=16, seed=0):
    values = np.random.default_rng(seed).uniform(0, 255, (count, size, size, 3))
    return values.astype(np.float32)


@pytest.mark.parametrize("shape", [(2, 4, 4, 3), (1, 5, 7, 2)])
def test_upsampling_and_convolution_in_one(shape):
    inputs = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    fast = UpsampleConv2D(6)
    outputs = fast(inputs)
    plain = keras.layers.Conv2D(6, 3, padding="same", use_bias=False)
    large = inputs.repeat(2, axis=1).repeat(2, axis=2)
    plain.build(large.shape)
    plain.set_weights([np.swapaxes(fast.kernel, 2, 3)])
    assert outputs.shape == fast.compute_output_shape(shape)
    np.testing.assert_allclose(outputs, plain(large), atol=1e-5)


def test_upsampling_has_the_gradient_of_the_plain_way():
    inputs = tf.constant(_images(2, 4) / 255)
    fast = UpsampleConv2D(5)
    fast.build(inputs.shape)
    towards = np.random.default_rng(1).normal(size=(2, 8, 8, 5)).astype(np.float32)

    def gradients(convolve):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            loss = tf.reduce_sum(convolve() * towards)
        return tape.gradient(loss, [inputs, fast.kernel.value])

    def plainly():
        large = tf.repeat(tf.repeat(inputs, 2, axis=1), 2, axis=2)
        kernel = tf.transpose(fast.kernel.value, (0, 1, 3, 2))
        return tf.nn.conv2d(large, kernel, 1, "SAME")

    for one, other in zip(
        gradients(lambda: fast(inputs)), gradients(plainly), strict=True
    ):
        np.testing.assert_allclose(one, other, atol=1e-4)


def test_augmentation_treats_each_picture_by_itself():
    images = np.repeat(_images(1), 16, axis=0)
    seen = DifferentiableAugmentation(seed=0)(images).numpy()
    assert len({picture.tobytes() for picture in seen}) == 16


def test_augmentation_is_mild():
    images = np.full((64, 16, 16, 3), 127.5, np.float32)
    only_colour = DifferentiableAugmentation(translation=0, cutout=0, seed=0)
    change = np.abs(only_colour(images).numpy() - images)
    assert 5 < change.mean() < 32
    assert change.max() <= 32.001


def test_without_options_only_the_mirror_is_left():
    layer = DifferentiableAugmentation(False, translation=0, cutout=0, seed=1)
    images = _images(16)
    seen = layer(images).numpy()
    mirrored = [
        np.array_equal(s, i[:, ::-1]) for s, i in zip(seen, images, strict=True)
    ]
    same = [np.array_equal(s, i) for s, i in zip(seen, images, strict=True)]
    assert all(a != b for a, b in zip(mirrored, same, strict=True))
    assert any(mirrored)
    assert any(same)


def test_shifts_mirror_the_border_in():
    ramp = np.tile(np.arange(16, dtype=np.float32)[None, :, None, None], (32, 1, 16, 3))
    layer = DifferentiableAugmentation(False, translation=0.25, cutout=0, seed=0)
    seen = layer(ramp).numpy()[:, :, 0, 0]
    offsets = seen[:, 8] - 8
    assert set(offsets) <= set(range(-4, 5))
    assert len(set(offsets)) > 4
    shifted = seen[offsets == -3][0]
    np.testing.assert_array_equal(shifted[:6], [3, 2, 1, 0, 1, 2])


def test_the_cut_is_grey_and_of_its_size():
    layer = DifferentiableAugmentation(False, translation=0, cutout=0.5, seed=0)
    seen = layer(np.zeros((200, 16, 16, 3), np.float32)).numpy()[..., 0]
    assert set(np.unique(seen)) == {0.0, 127.5}
    areas = (seen > 0).sum((1, 2))
    # At most 8 x 8; a quarter of that when a corner is its middle.
    assert areas.max() == 64
    assert areas.min() >= 16


def test_gradients_pass_through():
    layer = DifferentiableAugmentation(seed=0)
    images = tf.constant(_images())
    with tf.GradientTape() as tape:
        tape.watch(images)
        loss = tf.reduce_sum(layer(images))
    gradient = tape.gradient(loss, images).numpy()
    assert np.isfinite(gradient).all()
    assert (np.abs(gradient) > 0).mean() > 0.5


def test_upsampling_begins_as_he_et_al_say():
    layer = UpsampleConv2D(40)
    layer.build((None, 4, 4, 10))
    assert np.std(layer.kernel) == pytest.approx((2 / (9 * 10)) ** 0.5, rel=0.05)


def test_modulation_is_group_normalisation_scaled_and_shifted():
    rng = np.random.default_rng(0)
    inputs = rng.normal(3.0, 2.0, (2, 4, 5, 6)).astype(np.float32)
    change = rng.normal(size=(2, 12)).astype(np.float32)
    outputs = SelfModulation(3)(inputs, change)
    plain = keras.layers.GroupNormalization(3, center=False, scale=False)(inputs)
    scale, shift = change[:, None, None, :6], change[:, None, None, 6:]
    np.testing.assert_allclose(outputs, plain * (1 + scale) + shift, atol=1e-5)


def test_spectral_normalisation_is_that_of_keras():
    images = np.random.default_rng(0).normal(size=(2, 6, 6, 3)).astype(np.float32)
    found = []
    for wrapper in (SpectralNormalization, keras.layers.SpectralNormalization):
        keras.utils.set_random_seed(0)
        layer = wrapper(keras.layers.Conv2D(4, 3))
        for _ in range(3):
            layer(images, training=True)
        found.append([*layer.get_weights(), layer(images).numpy()])
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)
    kernel = found[0][0].reshape(-1, 4)
    assert np.linalg.norm(kernel, 2) == pytest.approx(1.0, abs=0.1)


def test_layers_survive_their_config():
    augmentation = DifferentiableAugmentation(False, 0.1, 0.2, 5)
    for layer in (UpsampleConv2D(7), SelfModulation(2), augmentation):
        again = type(layer).from_config(layer.get_config())
        assert again.get_config() == layer.get_config()
