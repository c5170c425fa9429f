"""The step of the GAN: what it trains, what it leaves alone, what it reports."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from anime_tf.layers import DifferentiableAugmentation
from anime_tf.models.gan import CharacterGAN
from anime_tf.models.networks import build_discriminator, build_generator

SIZE = 16


def _build(seed=0, **compiled):
    keras.utils.set_random_seed(seed)
    gan = CharacterGAN(
        build_generator(SIZE, num_classes=2, channels=4),
        build_discriminator(SIZE, num_classes=2, channels=4),
        DifferentiableAugmentation(seed=seed),
        seed=seed,
    )
    arguments = {
        "generator_optimizer": keras.optimizers.Adam(1e-3, 0.0, 0.99),
        "discriminator_optimizer": keras.optimizers.Adam(1e-3, 0.0, 0.99),
        # Teachers that like red, and that like what the references say.
        "classification_loss": lambda views, labels: -tf.reduce_mean(views[..., 0]),
        "perceptual_loss": lambda fakes, wanted: tf.reduce_mean(
            tf.square(tf.reduce_mean(fakes, 0) - wanted) / 255.0
        ),
        # A graph takes seconds to trace, and these few steps less than that.
        "run_eagerly": True,
        **compiled,
    }
    gan.compile(**arguments)
    return gan


def _data(count=8, batches=2, colour=200):
    random = np.random.default_rng(1)
    images = random.integers(0, 256, (count, SIZE, SIZE, 3), np.uint8)
    labels = np.arange(count, dtype=np.int32) % 2
    wanted = np.full((SIZE, SIZE, 3), colour, np.float32)
    element = (images, labels, wanted)
    return tf.data.Dataset.from_tensors(element).repeat(batches)


def _fit(gan, data, **arguments):
    return gan.fit(data, shuffle=False, verbose=0, **arguments).history


def _values(network):
    """All but the biases: the hinge loss moves the last of them to and fro by the same,
    as long as no picture is judged with any certainty."""
    variables = network.trainable_variables
    return [v.numpy().copy() for v in variables if v.name != "bias"]


def _changed(before, network):
    after = _values(network)
    return [np.abs(a - b).max() > 0 for a, b in zip(after, before, strict=True)]


def test_a_step_trains_both_networks():
    gan = _build()
    generator, discriminator = _values(gan.generator), _values(gan.discriminator)
    _fit(gan, _data(batches=2))
    assert all(_changed(generator, gan.generator))
    assert all(_changed(discriminator, gan.discriminator))


def test_all_terms_are_reported_by_name():
    history = _fit(_build(), _data(), validation_data=_data())
    terms = {"discriminator", "adversarial", "classification", "perceptual"}
    names = {f"{term}_loss" for term in terms}
    assert set(history) == names | {f"val_{name}" for name in names}
    assert np.isfinite(list(history.values())).all()


def test_a_term_without_weight_is_not_computed():
    def never(*_):
        raise AssertionError("computed all the same")

    gan = _build(perceptual_loss=never, perceptual_weight=0.0)
    assert "perceptual_loss" not in _fit(gan, _data())


def test_the_discriminator_hears_of_no_other_teacher():
    # The same noise and pictures, another taste of the classifier.
    one = _build()
    other = _build(classification_loss=lambda views, _: tf.reduce_mean(views[..., 2]))
    _fit(one, _data(batches=1))
    _fit(other, _data(batches=1))
    for a, b in zip(
        _values(one.discriminator), _values(other.discriminator), strict=True
    ):
        np.testing.assert_array_equal(a, b)
    assert any(_changed(_values(one.generator), other.generator))


@pytest.mark.parametrize("teacher", ["classification", "perceptual"])
def test_a_teacher_is_obeyed(teacher):
    others = {"adversarial", "classification", "perceptual"} - {teacher}
    gan = _build(
        **{f"{name}_weight": 0.0 for name in others},
        generator_optimizer=keras.optimizers.Adam(1e-2, 0.0, 0.99),
    )
    losses = _fit(gan, _data(batches=1), epochs=12)[f"{teacher}_loss"]
    assert losses[-1] < losses[0] - 0.1 * abs(losses[0])


def test_a_shouting_classifier_does_not_drown_the_others():
    """However steep it is, the step is the same: it has reached its limit."""
    runs = []
    for steepness in (1e3, 1e6, -1e6):
        gan = _build(
            classification_loss=lambda views, _, k=steepness: (
                k * tf.reduce_mean(views[..., 0])
            ),
            # Adam does not care for the length of a gradient; this one does.
            generator_optimizer=keras.optimizers.SGD(1e-3),
        )
        before = _values(gan.generator)
        _fit(gan, _data(batches=1))
        after = _values(gan.generator)
        runs.append(
            np.concatenate(
                [(a - b).ravel() for a, b in zip(after, before, strict=True)]
            )
        )
    np.testing.assert_allclose(runs[0], runs[1], rtol=1e-3, atol=1e-7)
    assert np.abs(runs[0] - runs[2]).max() > 1e-6


def test_the_average_follows_the_generator():
    gan = _build(average_decay=0.9)
    before = _values(gan.generator)
    np.testing.assert_array_equal(before[0], gan.averaged.get_weights()[0])
    _fit(gan, _data(batches=1))
    after = _values(gan.generator)
    # After the first step the share that stays is 1 / (1 + 9).
    wanted = [0.9 * a + 0.1 * b for a, b in zip(after, before, strict=True)]
    averages = [v.numpy() for v in gan.averaged.variables if v.name != "bias"]
    for average, value in zip(averages, wanted, strict=True):
        np.testing.assert_allclose(average, value, atol=1e-6)


def test_it_draws_with_the_average():
    gan = _build(average_decay=0.0)
    noise, labels = np.ones((2, 128), np.float32), np.zeros(2, np.int32)
    images = gan.generate(noise, labels)
    assert images.shape == (2, SIZE, SIZE, 3)
    gan.averaged.set_weights([0 * w for w in gan.averaged.get_weights()])
    np.testing.assert_allclose(gan.generate(noise, labels), 127.5)


def test_the_same_seed_gives_the_same_run():
    runs = [_build(seed=seed, run_eagerly=False) for seed in (3, 3, 4)]
    for gan in runs:
        _fit(gan, _data(batches=2))
    one, same, other = (gan.averaged.get_weights()[0] for gan in runs)
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 0


def test_every_term_teaches_the_generator():
    gan = _build()
    batch = next(iter(_data()))
    before = _values(gan.generator)
    norms = gan.gradient_norms(batch)
    assert set(norms) == {"adversarial_loss", "classification_loss", "perceptual_loss"}
    assert all(0 < float(norm) < np.inf for norm in norms.values())
    assert not any(_changed(before, gan.generator))


def test_a_teacher_that_teaches_nothing_is_found_out():
    gan = _build(classification_loss=lambda views, _: tf.reduce_mean(views * 0.0))
    norms = gan.gradient_norms(next(iter(_data())))
    assert float(norms["classification_loss"]) == 0.0
