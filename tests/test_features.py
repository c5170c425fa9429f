"""VGG19 features: which layers, from which files, and what a bad file gets."""

from pathlib import Path

import keras
import numpy as np
import pytest

from anime_tf.errors import UserError
from anime_tf.models.features import LAYERS, build_features

SHARED = Path(__file__).parents[2] / "shared" / "weights"


@pytest.fixture(scope="module")
def first_block(tmp_path_factory):
    """A file of VGG19's first two convolutions, as one cut off for its size."""
    network = keras.applications.VGG19(
        include_top=False, weights=None, input_shape=(32, 32, 3)
    )
    part = keras.Model(network.input, network.get_layer("block1_conv2").output)
    path = tmp_path_factory.mktemp("vgg") / "block1.weights.h5"
    part.save_weights(path)
    return path, part


def test_features_are_named_maps():
    features = build_features(32, weights="none")
    shapes = [tuple(output.shape[1:]) for output in features.outputs]
    assert shapes == [(32, 32, 64), (16, 16, 128), (8, 8, 256)]
    assert len(shapes) == len(LAYERS)
    assert not features.trainable_variables
    again = build_features(32, weights="none")
    images = np.full((1, 32, 32, 3), 200.0)
    np.testing.assert_array_equal(features(images)[2], again(images)[2])


def test_a_file_of_the_first_layers_is_enough(first_block):
    path, part = first_block
    features = build_features(32, ["block1_conv2"], str(path))
    images = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3))
    images = images.astype(np.float32)
    # Keras' own preprocessing changes its argument in place.
    wanted = part(keras.applications.vgg19.preprocess_input(images.copy()))
    found = features(images, training=False)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-3)


def test_layers_that_are_not_in_the_file_are_refused(first_block):
    with pytest.raises(ValueError, match="block3_conv4"):
        build_features(32, weights=str(first_block[0]))


def test_bad_files_get_one_sentence(tmp_path):
    absent = tmp_path / "absent.h5"
    with pytest.raises(UserError, match=r"absent.h5.*--vgg-weights"):
        build_features(32, weights=str(absent))
    broken = tmp_path / "broken.h5"
    broken.write_bytes(b"no weights at all")
    with pytest.raises(UserError, match=r"broken.h5.*--vgg-weights"):
        build_features(32, weights=str(broken))
    other = tmp_path / "other.weights.h5"
    dense = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    dense.save_weights(other)
    with pytest.raises(UserError, match="no weights of VGG19"):
        build_features(32, weights=str(other))


@pytest.mark.real_data
def test_the_real_weights_see_edges():
    path = SHARED / "vgg19_block1-3.weights.h5"
    if not path.is_file():
        pytest.skip(f"{path} is absent")
    features = build_features(32, weights=str(path))
    flat = np.full((1, 32, 32, 3), 127.5, np.float32)
    edge = flat.copy()
    edge[:, :, 16:] = 255
    inner = (slice(None), slice(2, -2), slice(2, -2))
    difference = [
        np.abs(a[inner] - b[inner]).max(axis=(0, 1, 3))
        for a, b in zip(features(edge), features(flat), strict=True)
    ]
    # Texture-blind random weights would answer to the brighter half alike.
    assert difference[0][12:16].max() > 3 * np.median(difference[0][:8])
