"""The generator and the discriminators."""

import keras
import numpy as np
import pytest

from anime_tf.models.networks import (
    IDENTITY,
    LATENT_DIM,
    build_discriminator,
    build_generator,
    build_projected_discriminator,
)


def _inputs(count, num_classes=3):
    random = np.random.default_rng(0)
    noise = random.normal(size=(count, LATENT_DIM)).astype(np.float32)
    return noise, np.arange(count, dtype=np.int32) % num_classes


@pytest.mark.parametrize("size", [16, 28, 64, 96, 128, 224])
def test_generators_of_all_sizes_draw_pixels(size):
    generator = build_generator(size, num_classes=3, channels=4)
    noise, labels = _inputs(2)
    images = generator([noise, labels], training=False).numpy()
    assert images.shape == (2, size, size, 3)
    assert images.dtype == np.float32
    assert images.min() >= 0
    assert images.max() <= 255


@pytest.mark.parametrize("size", [0, 4, 8, 30, 100])
def test_other_sizes_are_refused(size):
    with pytest.raises(ValueError, match="such as 64, 96, 128 or 224"):
        build_generator(size, num_classes=3)


def test_noise_and_character_both_matter():
    keras.utils.set_random_seed(0)
    generator = build_generator(16, num_classes=2, channels=8)
    noise, _ = _inputs(2)

    def draw(rows, labels):
        return generator([rows, np.int32(labels)], training=False)

    one, other = draw(noise, [0, 0]).numpy()
    assert np.abs(one - other).mean() > 1
    assert np.abs(draw(noise[:1], [1])[0] - one).mean() > 0.1


def test_a_picture_does_not_depend_on_its_batch():
    generator = build_generator(16, num_classes=2, channels=8)
    noise, labels = _inputs(5, 2)
    together = generator([noise, labels], training=True)
    alone = generator([noise[3:4], labels[3:4]], training=True)
    np.testing.assert_allclose(together[3:4], alone, atol=0.01)


def test_transposed_convolution_is_there_to_compare():
    generator = build_generator(16, 2, channels=4, upsampling="transposed")
    names = [type(layer).__name__ for layer in generator.layers]
    assert "Conv2DTranspose" in names
    default = build_generator(16, 2, channels=4)
    assert not any("Transpose" in type(layer).__name__ for layer in default.layers)
    assert default.output_shape == generator.output_shape
    with pytest.raises(ValueError, match="nearest or transposed"):
        build_generator(16, 2, upsampling="bilinear")


def test_a_generator_survives_its_file(tmp_path):
    generator = build_generator(16, num_classes=2, channels=4)
    generator.save(tmp_path / "generator.keras")
    again = keras.models.load_model(tmp_path / "generator.keras", safe_mode=True)
    inputs = list(_inputs(3, 2))
    np.testing.assert_array_equal(
        generator(inputs, training=False), again(inputs, training=False)
    )


def test_the_discriminator_reads_the_label():
    keras.utils.set_random_seed(0)
    discriminator = build_discriminator(16, num_classes=3, channels=8)
    images = np.random.default_rng(0).uniform(0, 255, (4, 16, 16, 3))
    zero, one = np.zeros(4, np.int32), np.ones(4, np.int32)
    before = discriminator([images, zero], training=False)
    assert before.shape == (4, 1)
    # Labels start without a say, and get one by training.
    np.testing.assert_array_equal(before, discriminator([images, one], training=False))
    table = discriminator.get_layer(IDENTITY)
    table.set_weights([np.eye(3, table.units)])
    after = discriminator([images, one], training=False)
    assert np.abs(after - before).min() > 1e-4


def test_the_projected_discriminator_has_a_logit_for_each_map():
    shapes = [(16, 16, 8), (8, 8, 16)]
    discriminator = build_projected_discriminator(shapes, [2.0, 5.0], 3, channels=8)
    random = np.random.default_rng(0)
    maps = [random.normal(size=(4, *shape)).astype(np.float32) for shape in shapes]
    logits = discriminator([*maps, np.zeros(4, np.int32)], training=False)
    assert logits.shape == (4, 2)
    # The random mixing of channels is fixed.
    frozen = [v.shape for v in discriminator.non_trainable_variables if v.ndim == 4]
    assert (1, 1, 8, 8) in frozen
    assert (1, 1, 16, 8) in frozen
