import pickle
from dataclasses import fields

import numpy as np
import pytest

from anime_tf.errors import UserError
from anime_tf.novelty import ACCEPT_RATE, NoveltyDetector

CLASSES, SIZE = 3, 8
# Three characters in three corners of feature space.
CORNERS = 6.0 * np.eye(CLASSES, SIZE)


def _known(rng, count):
    labels = np.arange(count) % CLASSES
    features = CORNERS[labels] + rng.normal(size=(count, SIZE))
    logits = 8.0 * np.eye(CLASSES)[labels] + rng.normal(size=(count, CLASSES))
    return features.astype(np.float32), labels, logits.astype(np.float32)


@pytest.fixture
def validation():
    return _known(np.random.default_rng(2), 100)


@pytest.fixture
def detector(validation):
    features, labels, _ = _known(np.random.default_rng(1), 300)
    return NoveltyDetector.fit(features, labels, validation[0], validation[2])


def test_known_pictures_score_about_zero(detector, validation):
    scores = detector.scores(validation[0], validation[2])
    assert scores.shape == (100,)
    assert scores.mean() == pytest.approx(0.0, abs=1e-3)


def test_features_far_from_everybody_score_low(detector, validation):
    features, _, logits = validation
    far = features + 30.0 * np.eye(SIZE)[-1]
    # Whatever the logits say.
    assert (detector.scores(far, logits) < detector.threshold).all()
    assert (detector.scores(far, 3 * logits) < detector.threshold).all()


def test_flat_logits_score_low(detector, validation):
    features, _, logits = validation
    flat = detector.scores(features, np.zeros_like(logits))
    assert (flat < detector.scores(features, logits)).all()
    assert (flat < detector.threshold).mean() > 0.95


def test_nearest_character_counts(detector):
    logits = np.tile([8.0, 0.0, 0.0], (4, 1))
    features = np.concatenate([CORNERS, CORNERS.mean(0, keepdims=True)])
    *at_corners, between = detector.scores(features, logits)
    np.testing.assert_allclose(at_corners, at_corners[0], atol=0.5)
    assert between < min(at_corners) - 1


def test_scores_by_hand():
    detector = NoveltyDetector(
        whitening=np.diag([1.0, 2.0]).astype(np.float32),
        means=np.array([[0, 0], [10, 0]], np.float32),
        centers=np.array([1, -2], np.float32),
        scales=np.array([0.5, 2], np.float32),
        threshold=np.float32(0),
    )
    # Energy ln(e^0 + e^0) = .6931: (.6931 - 1) / .5 = -.6137. Distance to (10, 0):
    # sqrt((3 * 1)^2 + (2 * 2)^2) = 5; (-5 + 2) / 2 = -1.5.
    score = detector.scores(np.array([[7.0, 2.0]]), np.zeros((1, 2)))
    np.testing.assert_allclose(score, [-2.1137], atol=1e-4)


def test_threshold_lets_most_of_validation_through(detector, validation):
    scores = detector.scores(validation[0], validation[2])
    accepted = (scores >= detector.threshold).mean()
    assert ACCEPT_RATE <= accepted < 1


def test_one_picture_of_each_is_enough_to_fit():
    features, labels, logits = _known(np.random.default_rng(3), CLASSES)
    detector = NoveltyDetector.fit(features, labels, features, logits)
    assert np.isfinite(detector.scores(features, logits)).all()
    assert (detector.scores(features, logits) >= detector.threshold).all()


def test_save_and_load_are_exact(detector, validation, tmp_path):
    path = tmp_path / "novelty.npz"
    detector.save(path)
    loaded = NoveltyDetector.load(path)
    for field in fields(detector):
        found, kept = getattr(loaded, field.name), getattr(detector, field.name)
        assert found.dtype == kept.dtype == np.float32
        assert np.array_equal(found, kept)
    assert np.array_equal(
        loaded.scores(validation[0], validation[2]),
        detector.scores(validation[0], validation[2]),
    )
    assert [p.name for p in tmp_path.iterdir()] == ["novelty.npz"]


def test_damage_is_refused(detector, tmp_path):
    path = tmp_path / "novelty.npz"
    with pytest.raises(UserError, match=r"novelty\.npz is no usable detector"):
        NoveltyDetector.load(path)
    detector.save(path)
    content = path.read_bytes()
    flipped = bytearray(content)
    flipped[200] ^= 0xFF
    for damaged in (b"", b"garbage", content[:-30], content[:300], bytes(flipped)):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=r"novelty\.npz is no usable detector"):
            NoveltyDetector.load(path)


class Hostile:
    def __reduce__(self):
        return pytest.fail, ("code from the file was run",)


def test_pickles_are_refused(detector, tmp_path):
    path = tmp_path / "novelty.npz"
    parts = {field.name: getattr(detector, field.name) for field in fields(detector)}
    np.savez(path, **{**parts, "means": np.array([Hostile()], dtype=object)})
    with pytest.raises(UserError, match=r"novelty\.npz is no usable detector"):
        NoveltyDetector.load(path)
    path.write_bytes(pickle.dumps(Hostile()))
    with pytest.raises(UserError, match=r"novelty\.npz is no usable detector"):
        NoveltyDetector.load(path)


@pytest.mark.parametrize(
    "changes",
    [
        {"means": np.zeros(3, np.float32)},
        {"whitening": np.zeros((2, 2), np.float32)},
        {"centers": np.zeros(3, np.float32)},
        {"threshold": np.zeros(1, np.float32)},
        {"surplus": np.zeros(1, np.float32)},
    ],
)
def test_parts_that_do_not_fit_are_refused(detector, tmp_path, changes):
    path = tmp_path / "novelty.npz"
    parts = {field.name: getattr(detector, field.name) for field in fields(detector)}
    np.savez(path, **(parts | changes))
    with pytest.raises(UserError, match=next(iter(changes))):
        NoveltyDetector.load(path)


def test_missing_parts_are_refused(detector, tmp_path):
    path = tmp_path / "novelty.npz"
    np.savez(path, means=detector.means)
    with pytest.raises(UserError, match="whitening"):
        NoveltyDetector.load(path)
