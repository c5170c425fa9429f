import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from keras.src.legacy.saving import legacy_h5_format

from anime_tf.config import BACKBONES
from anime_tf.errors import UserError
from anime_tf.models import classifier as module
from anime_tf.models.classifier import (
    build_classifier,
    class_activation_maps,
    feature_extractor,
    head_of,
    load_classifier,
    save_classifier,
    unfreeze,
    with_features,
)
from tests import tiny

SIZE = tiny.IMAGE_SIZE


@pytest.fixture
def network(monkeypatch):
    return tiny.build_tiny(monkeypatch)


@pytest.fixture
def pictures():
    rng = np.random.default_rng(1)
    return rng.uniform(0, 255, (5, SIZE, SIZE, 3)).astype(np.float32)


def _backbone(seed=3):
    """A backbone whose every weight differs from what building it again gives."""
    body = tiny.tiny_backbone(False, None, (SIZE, SIZE, 3))
    rng = np.random.default_rng(seed)
    body.set_weights([rng.uniform(0.5, 1.5, w.shape) for w in body.get_weights()])
    return body


def _logits(network, pictures):
    return keras.ops.convert_to_numpy(network(pictures, training=False))


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("resnet", 3, 64), "backbone must be one of"),
        (("efficientnetb0", 1, 64), "num_classes must be at least 2, got 1"),
        (("efficientnetb0", 3, 31), "image_size must be at least 32, got 31"),
    ],
)
def test_bad_arguments_are_named(arguments, named):
    with pytest.raises(ValueError, match=named):
        build_classifier(*arguments, weights="none")


def test_the_configuration_offers_what_can_be_built():
    assert set(BACKBONES) == set(module.BACKBONES) == set(module._PUBLISHED_FILES)


def test_the_graph_is_flat(network):
    assert not [layer for layer in network.layers if isinstance(layer, keras.Model)]
    names = [layer.name for layer in network.layers]
    assert names[-3:] == [module.POOL, "dropout", module.LOGITS]


def test_logits(network, pictures):
    assert network.output_shape == (None, 3)
    logits = network(pictures, training=False)
    assert logits.dtype == "float32"
    # Logits, not probabilities.
    assert np.abs(_logits(network, pictures).sum(axis=1) - 1).min() > 1e-3


def test_dropout_is_as_asked(monkeypatch):
    network = tiny.build_tiny(monkeypatch, dropout=0.45)
    assert network.get_layer("dropout").rate == 0.45


@pytest.mark.parametrize("batch_norm", [True, False])
def test_unfreeze(network, pictures, batch_norm):
    network.trainable = False
    unfreeze(network, batch_norm)
    kinds = {True: [], False: []}
    for layer in network.layers:
        is_batch_norm = isinstance(layer, keras.layers.BatchNormalization)
        kinds[is_batch_norm].append(layer)
    assert all(layer.trainable for layer in kinds[False])
    assert [layer.trainable for layer in kinds[True]] == [batch_norm] * 3
    before = [layer.moving_mean.numpy() for layer in kinds[True]]
    network(pictures, training=True)
    for layer, mean in zip(kinds[True], before, strict=True):
        unmoved = np.array_equal(layer.moving_mean.numpy(), mean)
        assert unmoved is not batch_norm


def test_both_parts_compose_to_the_whole_and_share_its_weights(network, pictures):
    body, head = feature_extractor(network), head_of(network)
    features = body(pictures, training=False)
    assert features.shape == (5, 16)
    composed = head(features, training=False)
    np.testing.assert_allclose(composed, _logits(network, pictures), atol=1e-6)
    kernel = head.layers[-1].kernel
    kernel.assign(kernel + 1.0)
    composed = head(features, training=False)
    np.testing.assert_allclose(composed, _logits(network, pictures), atol=1e-5)
    assert {id(w) for w in body.weights + head.weights} == {
        id(w) for w in network.weights
    }


def test_with_features(network, pictures):
    logits, features, maps = with_features(network)(pictures, training=False)
    np.testing.assert_allclose(logits, _logits(network, pictures), atol=1e-6)
    np.testing.assert_allclose(np.mean(maps, axis=(1, 2)), features, atol=1e-6)


def test_class_activation_maps_are_grad_cam(network, pictures):
    chosen = np.array([0, 1, 2, 1, 0])
    maps = tf.Variable(with_features(network)(pictures, training=False)[2])
    with tf.GradientTape() as tape:
        pooled = network.get_layer(module.POOL)(maps)
        logits = network.get_layer(module.LOGITS)(pooled)
        total = tf.reduce_sum(tf.gather(logits, chosen, batch_dims=1))
    # Selvaraju et al., equations 1 and 2, and their picture's scale.
    weights = tf.reduce_mean(tape.gradient(total, maps), axis=(1, 2))
    cams = tf.nn.relu(tf.einsum("nhwc,nc->nhw", maps, weights)).numpy()
    peaks = cams.max(axis=(1, 2), keepdims=True)
    assert peaks.min() > 0
    found = class_activation_maps(maps.numpy(), network, chosen)
    assert found.shape == (5, 4, 4)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, cams / peaks, atol=1e-5)


def test_class_activation_maps_by_hand(network):
    kernel = np.zeros((16, 3))
    kernel[:2, 0], kernel[:2, 1] = (1, 2), (-1, -1)
    network.get_layer(module.LOGITS).set_weights([kernel, np.zeros(3)])
    maps = np.zeros((2, 1, 2, 16))
    # Position 1: 1 + 2 * 3 = 7, position 2: 2 + 0 = 2; for class 1 all is below 0.
    maps[:, 0, :, :2] = [[1, 3], [2, 0]]
    found = class_activation_maps(maps, network, np.array([0, 1]))
    np.testing.assert_allclose(found, [[[1, 2 / 7]], [[0, 0]]], atol=1e-6)


@pytest.mark.parametrize("layout", ["keras 3", "keras 2"])
@pytest.mark.parametrize("name", ["y.h5", "y.weights.h5", "published"])
def test_a_weights_file_loads_under_any_name(monkeypatch, tmp_path, layout, name):
    body = _backbone()
    if layout == "keras 3":
        body.save_weights(tmp_path / "x.weights.h5")
    else:
        with h5py.File(tmp_path / "x.weights.h5", "w") as file:
            legacy_h5_format.save_weights_to_hdf5_group(file, body)
    path = (tmp_path / "x.weights.h5").rename(tmp_path / name)
    network = tiny.build_tiny(monkeypatch, weights=str(path))
    loaded = network.get_weights()
    wanted = body.get_weights()
    assert len(loaded) == len(wanted) + 2
    for found, expected in zip(loaded, wanted, strict=False):
        assert np.array_equal(found, expected)


@pytest.mark.filterwarnings("ignore:Skipping nested container:UserWarning")
@pytest.mark.parametrize("layout", ["keras 3", "keras 2", "garbage"])
def test_a_wrong_weights_file_is_named(monkeypatch, tmp_path, layout):
    inputs = keras.Input((SIZE, SIZE, 3))
    other = keras.Model(inputs, keras.layers.Conv2D(4, 5)(inputs))
    path = tmp_path / "other.weights.h5"
    if layout == "keras 3":
        other.save_weights(path)
    elif layout == "keras 2":
        with h5py.File(path, "w") as file:
            legacy_h5_format.save_weights_to_hdf5_group(file, other)
    else:
        path.write_bytes(b"no weights at all")
    with pytest.raises(UserError, match=r"other\.weights\.h5 does not hold .*without"):
        tiny.build_tiny(monkeypatch, weights=str(path))


def test_an_absent_weights_file_is_named(monkeypatch, tmp_path):
    path = tmp_path / "absent.h5"
    with pytest.raises(UserError, match=r"absent\.h5 does not exist \(--weights\)"):
        tiny.build_tiny(monkeypatch, weights=str(path))


def test_imagenet_weights_are_keras_own(monkeypatch):
    asked = []

    def build(include_top, weights, input_shape):
        asked.append((include_top, weights, input_shape))
        return tiny.tiny_backbone(False, None, input_shape)

    monkeypatch.setitem(module.BACKBONES, "efficientnetb0", build)
    build_classifier("efficientnetb0", 3, 64)
    assert asked == [(False, "imagenet", (64, 64, 3))]


def test_a_failed_download_says_where_the_file_may_be_put(monkeypatch, tmp_path):
    def build(**_):
        raise Exception("URL fetch failure on https://...: None -- no network")

    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.setitem(module.BACKBONES, "efficientnetb0", build)
    with pytest.raises(UserError) as caught:
        build_classifier("efficientnetb0", 3, 64, weights="imagenet")
    message = str(caught.value)
    assert str(tmp_path / "keras/models/efficientnetb0_notop.h5") in message
    for part in ("URL fetch failure", "--weights PATH", "--weights none"):
        assert part in message
    monkeypatch.delenv("KERAS_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(UserError, match=r"\.keras/models/efficientnetb0_notop\.h5"):
        build_classifier("efficientnetb0", 3, 64, weights="imagenet")


def test_save_and_load_give_the_same_logits(network, pictures, tmp_path):
    path = tmp_path / "classifier.keras"
    save_classifier(network, path)
    loaded = load_classifier(path)
    assert np.array_equal(_logits(loaded, pictures), _logits(network, pictures))
    assert [p.name for p in tmp_path.iterdir()] == ["classifier.keras"]


def test_load_refuses_what_is_no_file(tmp_path):
    for path in (tmp_path / "absent.keras", tmp_path):
        with pytest.raises(UserError, match=f"there is no model file {path}"):
            load_classifier(path)


def test_load_refuses_damage(network, tmp_path):
    path = tmp_path / "classifier.keras"
    save_classifier(network, path)
    content = path.read_bytes()
    for damaged in (b"", b"garbage" * 100, content[: len(content) // 2]):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=r"classifier\.keras is no classifier"):
            load_classifier(path)


def test_load_runs_no_code_from_the_file(tmp_path):
    inputs = keras.Input((SIZE, SIZE, 3))
    x = keras.layers.Lambda(lambda images: images * 2, name="hostile")(inputs)
    pooled = keras.layers.GlobalAveragePooling2D(name=module.POOL)(x)
    logits = keras.layers.Dense(2, name=module.LOGITS)(pooled)
    path = tmp_path / "hostile.keras"
    keras.Model(inputs, logits).save(path)
    with pytest.raises(UserError, match=r"hostile\.keras is no classifier.*ambda"):
        load_classifier(path)


def test_load_refuses_another_kind_of_model(tmp_path):
    inputs = keras.Input((SIZE, SIZE, 3))
    path = tmp_path / "other.keras"
    keras.Model(inputs, keras.layers.Flatten()(inputs)).save(path)
    with pytest.raises(UserError, match=f"no classifier.*{module.POOL}"):
        load_classifier(path)


def test_mixed_precision_is_saved_in_float32(monkeypatch, tmp_path, pictures):
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        mixed = tiny.build_tiny(monkeypatch)
    finally:
        keras.config.set_dtype_policy(policy)
    assert "float16" in {layer.compute_dtype for layer in mixed.layers}
    save_classifier(mixed, tmp_path / "c.keras")
    loaded = load_classifier(tmp_path / "c.keras")
    assert {layer.compute_dtype for layer in loaded.layers} == {"float32"}
    names = [[layer.name for layer in model.layers[1:]] for model in (loaded, mixed)]
    assert names[0] == names[1]
    for found, expected in zip(loaded.get_weights(), mixed.get_weights(), strict=True):
        assert np.array_equal(found, expected)
    assert np.isfinite(_logits(loaded, pictures)).all()


@pytest.mark.slow
def test_efficientnetb0_from_a_file_scales_as_its_weights_were_made(tmp_path):
    path = tmp_path / "efficientnetb0_notop.weights.h5"
    shape = (SIZE, SIZE, 3)
    body = keras.applications.EfficientNetB0(
        include_top=False, weights=None, input_shape=shape
    )
    published = np.array([0.229, 0.224, 0.225], np.float32)
    _normalization(body).adapt_variance.assign(published)
    body.save_weights(path)
    network = build_classifier("efficientnetb0", 3, SIZE, weights=str(path))
    layer = _normalization(network)
    variance = layer.adapt_variance
    np.testing.assert_allclose(variance.numpy(), published**2, rtol=1e-6)
    # What the layer works with, not only what it stores.
    ones = np.ones((1, *shape), np.float32)
    expected = (1 - layer.adapt_mean.numpy()) / published
    np.testing.assert_allclose(layer(ones)[0, 0, 0], expected.ravel(), rtol=1e-5)
    # A variance that is right already stays.
    module._mend_normalization(network)
    np.testing.assert_allclose(variance.numpy(), published**2, rtol=1e-6)


def _normalization(network):
    kind = keras.layers.Normalization
    return next(layer for layer in network.layers if isinstance(layer, kind))
