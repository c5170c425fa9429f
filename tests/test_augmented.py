import keras
import numpy as np
import pytest

from anime_tf.models.augmented import AugmentedClassifier, build_augmentation
from tests import tiny

SIZE = tiny.IMAGE_SIZE


def _augment(layers, images, labels=None):
    labels = np.eye(len(images))[:, :3] if labels is None else labels
    batch = {
        "images": keras.ops.cast(images, "float32"),
        "labels": keras.ops.cast(labels, "float32"),
    }
    for layer in layers:
        batch = layer(batch, training=True)
    return np.array(batch["images"]), np.array(batch["labels"])


def _compiled(monkeypatch, augmentation):
    network = tiny.build_tiny(monkeypatch)
    model = AugmentedClassifier(network, augmentation)
    model.compile("sgd", keras.losses.CategoricalCrossentropy(from_logits=True))
    return model


def _batch(count=8):
    rng = np.random.default_rng(0)
    images = rng.uniform(0, 255, (count, SIZE, SIZE, 3)).astype(np.float32)
    return images, np.eye(3, dtype=np.float32)[np.arange(count) % 3]


def test_characters_never_hang_upside_down():
    images = np.full((128, SIZE, SIZE, 3), 255.0)
    images[:, : SIZE // 2] = 0.0
    found, _ = _augment(build_augmentation(), images)
    upper, lower = np.split(found.mean(axis=(2, 3)), 2, axis=1)
    assert (upper.mean(axis=1) < lower.mean(axis=1)).all()


def test_characters_look_left_and_right():
    images = np.full((128, SIZE, SIZE, 3), 255.0)
    images[:, :, : SIZE // 2] = 0.0
    found, _ = _augment(build_augmentation(), images)
    left, right = np.split(found.mean(axis=(1, 3)), 2, axis=1)
    flipped = (left.mean(axis=1) > right.mean(axis=1)).mean()
    assert 0.3 < flipped < 0.7


def test_every_picture_is_changed_in_its_own_way():
    images = np.tile(_batch(1)[0], (16, 1, 1, 1))
    found, _ = _augment(build_augmentation(), images)
    assert len(np.unique(found.reshape(16, -1), axis=0)) == 16


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.0, 0.0), (0.4, 0.5)])
@pytest.mark.parametrize("ground", [0.0, 255.0, None])
def test_values_stay_in_range(mixup, cutmix, ground):
    images = _batch(32)[0] if ground is None else np.full((32, SIZE, SIZE, 3), ground)
    found, _ = _augment(build_augmentation(mixup, cutmix), images)
    assert found.shape == images.shape
    assert found.min() >= 0
    # Interpolation may leave the last bit of a float above the range.
    assert found.max() <= 255.001


def test_labels_stay_without_mixing():
    images, labels = _batch()
    _, found = _augment(build_augmentation(), images, labels)
    assert np.array_equal(found, labels)


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
def test_labels_are_mixed_as_the_pictures_are(name):
    # Picture i shows the value 10 i everywhere and has a label of its own, so a
    # picture's mean is the mix of the values by its labels.
    count = 16
    values = 10.0 * np.arange(count)
    images = np.tile(values[:, None, None, None], (1, SIZE, SIZE, 3))
    (layer,) = build_augmentation(**{name: 0.8})[6:]
    found, labels = _augment([layer], images, np.eye(count))
    assert labels.min() >= 0
    np.testing.assert_allclose(labels.sum(axis=1), 1.0, atol=1e-6)
    assert ((labels > 1e-6).sum(axis=1) <= 2).all()
    assert ((labels > 1e-6).sum(axis=1) == 2).any()
    # CutMix counts whole pixels on one side and a share of the area on the other.
    tolerance = 1e-3 if name == "mixup" else values.max() / SIZE
    np.testing.assert_allclose(
        found.mean(axis=(1, 2, 3)), labels @ values, atol=tolerance
    )


class Forbidden(keras.layers.Layer):
    def call(self, batch, training=False):
        raise RuntimeError("augmented")


def test_only_training_augments(monkeypatch):
    images, labels = _batch()
    model = _compiled(monkeypatch, [Forbidden()])
    expected = np.array(model.classifier(images, training=False))
    np.testing.assert_allclose(model(images, training=False), expected, atol=1e-6)
    np.testing.assert_allclose(model.predict(images, verbose=0), expected, atol=1e-5)
    model.evaluate(images, labels, verbose=0)
    with pytest.raises(RuntimeError, match="augmented"):
        model.train_on_batch(images, labels)


def test_class_weights_reach_the_loss(monkeypatch):
    images, labels = _batch()
    losses = []
    for weight in (1, 3):
        keras.utils.set_random_seed(0)
        model = _compiled(monkeypatch, [])
        weights = dict.fromkeys(range(3), weight)
        losses.append(model.train_on_batch(images, labels, class_weight=weights))
    assert losses[1] == pytest.approx(3 * losses[0], rel=1e-5)


def test_random_state_is_part_of_the_model(monkeypatch):
    images, labels = _batch()
    model = _compiled(monkeypatch, build_augmentation(0.4, 0.5, seed=3))
    model.optimizer.build(model.trainable_variables)
    variables = [*model.variables, *model.optimizer.variables]

    def two_steps():
        losses = [float(model.train_on_batch(images, labels)) for _ in range(2)]
        return losses, [v.numpy() for v in variables]

    before = [v.numpy() for v in variables]
    first_losses, after = two_steps()
    moved = {
        id(variable)
        for old, new, variable in zip(before, after, variables, strict=True)
        if not np.array_equal(old, new)
    }
    network = model.classifier
    dropouts = [network.get_layer(name) for name in ("drop_connect", "dropout")]
    assert len(model.augmentation) == 8
    for layer in [*model.augmentation, *dropouts]:
        assert any(id(variable) in moved for variable in layer.variables), layer.name
    for variable, value in zip(variables, before, strict=True):
        variable.assign(value)
    again_losses, again = two_steps()
    assert again_losses == first_losses
    assert all(map(np.array_equal, again, after))


def test_the_seed_decides():
    images, _ = _batch()
    same = [_augment(build_augmentation(seed=4), images)[0] for _ in range(2)]
    assert np.array_equal(*same)
    other, _ = _augment(build_augmentation(seed=5), images)
    assert not np.array_equal(same[0], other)
