"""Every expected number here is worked by hand; the working stands beside it."""

import numpy as np
import pytest
import sklearn
from scipy import ndimage

from anime_tf.metrics import drawing


def _column(*values):
    return np.array(values, dtype=np.float32)[:, np.newaxis]


def _features(count, seed, shift=0.0, dimensions=16):
    """Correlated and cut at 0, as the features of a network are."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).normal(size=(4, dimensions))
    points = rng.normal(size=(count, 4)) @ mixing + shift
    return np.maximum(points + rng.normal(0, 0.5, (count, dimensions)), 0)


# KID: k(x, y) = (xy + 1)^3 in one dimension


def test_kernel_distance_by_hand():
    # Reals 0, 0, 1, 1:  2 * 1 + 2 * 8   + 8 * 1  =  26 over 12 pairs
    # Fakes 1, 1, 2, 2:  2 * 8 + 2 * 125 + 8 * 27 = 482 over 12 pairs
    # Across:            8 * 1 + 4 * 8   + 4 * 27 = 148 over 16 pairs
    result = drawing.kernel_distance(_column(0, 0, 1, 1), _column(1, 1, 2, 2))
    assert result["kid"] == pytest.approx(26 / 12 + 482 / 12 - 2 * 148 / 16)


def test_kernel_distance_divides_by_the_dimensions():
    # x.y / d: all pairs of reals (4 / 2 + 1)^3 = 27, of fakes 1, across 1.
    real, fake = np.full((4, 2), np.sqrt(2)), np.zeros((5, 2))
    result = drawing.kernel_distance(real, fake)
    assert result["kid"] == pytest.approx(27 + 1 - 2)
    assert result["kid_error"] == pytest.approx(0, abs=1e-9)


def test_kernel_distance_error_by_hand():
    # Reals are 0: kid = 1 + (pairs of fakes) - 2. Without the 2: 8 - 1 = 7. Without one
    # of the 1s, three times: (2 * 8 + 4 * 27) / 6 - 1 = 59/3. Their mean is 33/2, the
    # squares sum to (19/2)^2 + 3 * (19/6)^2 = (19/2)^2 * 4/3, times 3/4, root: 9.5.
    zeros, others = _column(0, 0, 0, 0), _column(1, 1, 1, 2)
    expected = {"kid": pytest.approx(16.5), "kid_error": pytest.approx(9.5)}
    assert drawing.kernel_distance(zeros, others) == expected
    assert drawing.kernel_distance(others, zeros) == expected


def test_kernel_distance_error_of_both_sides_by_hand():
    # Both sides 0 1 1, across (5 * 1 + 4 * 8) / 9 = 37/9: kid = 20/3 - 74/9 = -14/9.
    # Without one 0: 8 + 10/3 - 2 (2 + 4 * 8) / 6 = 0. Without one 1, twice:
    # 1 + 10/3 - 2 (4 + 2 * 8) / 6 = -7/3. The same on both sides: mean -14/9, squares
    # (14/9)^2 + 2 (7/9)^2 = 98/27, times 2/3 and two sides: 392/81.
    both = _column(0, 1, 1)
    result = drawing.kernel_distance(both, both)
    assert result["kid"] == pytest.approx(-14 / 9)
    assert result["kid_error"] == pytest.approx(np.sqrt(392 / 81))


def test_kernel_distance_error_is_that_of_leaving_each_out():
    real, fake = _features(7, 0), _features(5, 1)

    def without(points, index):
        return np.delete(points, index, axis=0)

    def distances(pairs):
        return np.array([drawing.kernel_distance(*pair)["kid"] for pair in pairs])

    reals = distances((without(real, i), fake) for i in range(7))
    fakes = distances((real, without(fake, i)) for i in range(5))
    expected = np.sqrt(6 * reals.var() + 4 * fakes.var())
    error = drawing.kernel_distance(real, fake)["kid_error"]
    assert error == pytest.approx(expected)


def test_kernel_distance_is_unbiased_and_knows_its_error():
    results = [
        drawing.kernel_distance(_features(30, 2 * seed), _features(200, 2 * seed + 1))
        for seed in range(60)
    ]
    distances = np.array([result["kid"] for result in results])
    assert abs(distances.mean()) < 3 * distances.std() / np.sqrt(len(distances))
    assert (distances < 0).any()
    # Too large by sqrt(2) at most, but for the noise of 60 draws.
    errors = np.array([result["kid_error"] for result in results])
    assert 0.9 < np.sqrt((errors**2).mean()) / distances.std() < 1.9


def test_kernel_distance_grows_with_the_shift():
    real = _features(200, 0)
    near, far = (
        drawing.kernel_distance(real, _features(100, 1, shift)) for shift in (1.5, 3.0)
    )
    assert 3 * near["kid_error"] < near["kid"] < far["kid"] - 3 * far["kid_error"]


def test_kernel_distance_and_the_order():
    real, fake = _features(31, 0), _features(57, 1, 0.5)
    result = drawing.kernel_distance(real, fake)
    assert drawing.kernel_distance(real, fake) == result
    for pair in ((real[::-1], fake[::-1]), (fake, real)):
        assert drawing.kernel_distance(*pair) == pytest.approx(result)


# FID


def test_frechet_distance_by_hand():
    # Means 0 and 3, variances v and 4 v: 3^2 + v + 4 v - 2 sqrt(4 v^2) = 9 + v.
    real = np.tile(_column(-1, 1), (1024, 1))
    variance = 2048 / 2047
    expected = pytest.approx(9 + variance)
    assert drawing.frechet_distance(real, 2 * real + 3) == expected


def test_frechet_distance_of_covariances_that_do_not_commute():
    # C_r = diag(4, 1), C_f = [[2, 1], [1, 2]]; C_r C_f has trace 10 and determinant 12:
    # sqrt of the eigenvalues sums to sqrt(10 + 2 sqrt(12)); 5 + 4 - 2 * that.
    rng = np.random.default_rng(0)
    white = rng.normal(size=(2048, 2))
    white -= white.mean(axis=0)
    white = white @ np.linalg.inv(np.linalg.cholesky(np.cov(white.T))).T
    real = white @ np.diag([2.0, 1.0])
    fake = white @ np.linalg.cholesky([[2.0, 1.0], [1.0, 2.0]]).T
    expected = 9 - 2 * np.sqrt(10 + 2 * np.sqrt(12))
    assert drawing.frechet_distance(real, fake) == pytest.approx(expected)
    assert drawing.frechet_distance(fake, real) == pytest.approx(expected)


def test_frechet_distance_of_itself_is_0():
    # One feature says nothing and one repeats another: singular covariances.
    features = _features(2048, 0)
    features[:, 1], features[:, 2] = 7.0, features[:, 3]
    distance = drawing.frechet_distance(features, features[::-1])
    assert distance == pytest.approx(0, abs=1e-5)
    assert distance >= 0
    moved = drawing.frechet_distance(features, features + 0.5)
    assert moved == pytest.approx(16 * 0.25, abs=1e-5)


def test_frechet_distance_needs_pictures():
    many, few = _features(2048, 0), _features(2047, 1)
    assert drawing.frechet_distance(many, few) is None
    assert drawing.frechet_distance(few, many) is None


# Precision, recall, diversity


def test_precision_recall_by_hand():
    # Nearest others of the reals: 1, 1, 2, 7 away. Only the fake 0.5 is that near.
    # Of the fakes: 4.5, 0.5, 0.5, 0.5 away. The balls hold the reals 0, 1, 3, not 10.
    real, fake = _column(0, 1, 3, 10), _column(0.5, -4, -4.5, -5)
    result = drawing.precision_recall(real, fake, neighbours=1)
    assert result == {"precision": 0.25, "recall": 0.75}
    # Second nearest of the reals: 3, 2, 3, 9 away. Still none reaches down to -4.
    # Of the fakes: 5, 1, 4.5 or more, 1 away: the same balls reach, up to 5.5.
    result = drawing.precision_recall(real, fake, neighbours=2)
    assert result == {"precision": 0.25, "recall": 0.75}


def test_precision_recall_at_their_ends():
    real = _features(50, 0)
    both = {"precision": 1.0, "recall": 1.0}
    assert drawing.precision_recall(real, real[::-1]) == both
    neither = {"precision": 0.0, "recall": 0.0}
    assert drawing.precision_recall(real, real + 1000) == neither
    # One good picture over and over: believable, but nothing of the others.
    collapsed = np.tile(real[:1], (50, 1))
    result = drawing.precision_recall(real, collapsed)
    assert result["precision"] == 1.0
    assert result["recall"] <= 0.02


def test_precision_recall_needs_neighbours():
    four = _column(0, 1, 3, 7)
    assert drawing.precision_recall(four, four) == {"precision": 1.0, "recall": 1.0}
    for real, fake, name in ((four[:3], four, "real"), (four, four[:3], "fake")):
        with pytest.raises(ValueError, match=rf"^{name}: .* n >= 4 .*\(3, 1\)"):
            drawing.precision_recall(real, fake)


def test_diversity_ratio_by_hand():
    # Fakes: (1 + 1 + 2) / 3. Reals: 2.
    ratio = drawing.diversity_ratio(_column(0, 2), _column(0, 1, 2))
    assert ratio == pytest.approx(2 / 3)
    assert drawing.diversity_ratio(_column(0, 2), _column(5, 5)) == 0
    # Euclidean: 3, 4, 5.
    ratio = drawing.diversity_ratio(
        np.array([[0, 0], [0, 1]]), np.array([[0, 0], [3, 4]])
    )
    assert ratio == pytest.approx(5)


def test_diversity_ratio_knows_no_place_and_order():
    real, fake = _features(40, 0), _features(30, 1)
    ratio = drawing.diversity_ratio(real, fake)
    assert ratio == pytest.approx(1, abs=0.2)
    assert drawing.diversity_ratio(real[::-1], fake + 5) == pytest.approx(ratio)
    assert drawing.diversity_ratio(real, 3 * fake) == pytest.approx(3 * ratio)


# Memorisation


def test_memorisation_ratio_by_hand():
    # Nearest others in training: 2, 2, 2, 3 away, as 0 does not count for 0.
    # Fakes: 1 and 2 away.
    ratio = drawing.memorisation_ratio(_column(0, 0, 2, 5), _column(1, 7))
    assert ratio == pytest.approx(1.5 / 2.25)
    assert drawing.memorisation_ratio(_column(0, 3), _column(6)) == pytest.approx(1)


def test_memorisation_ratio_of_copies_and_of_new_pictures():
    train = _features(100, 0)
    copies = drawing.memorisation_ratio(train, train[:20])
    assert copies == pytest.approx(0, abs=1e-6)
    new = drawing.memorisation_ratio(train, _features(100, 1))
    assert new == pytest.approx(1, abs=0.2)


def test_memorisation_ratio_ignores_duplicates_up_to_rounding():
    train, fake = _features(60, 0), _features(20, 1)
    ratio = drawing.memorisation_ratio(train, fake)
    for copies in (train, train * (1 + 1e-6)):
        twice = np.concatenate([train, copies])
        doubled = drawing.memorisation_ratio(twice, fake)
        assert doubled == pytest.approx(ratio, rel=1e-4)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e6])
def test_ratios_of_one_picture(value):
    train = np.full((3, 5), value)
    with pytest.raises(ValueError, match=r"^train: expected .* received 3 times the"):
        drawing.memorisation_ratio(train, train)
    with pytest.raises(ValueError, match=r"^real: expected .* received 3 times the"):
        drawing.diversity_ratio(train, train)


def test_nearest_by_hand():
    indices = drawing.nearest(_column(1, 9, 3.4, 4), _column(4, 0, 8))
    assert indices.tolist() == [1, 2, 0, 0]
    assert np.issubdtype(indices.dtype, np.integer)
    assert drawing.nearest(_column(1), _column(7)).tolist() == [0]


def test_distances_in_little_memory(monkeypatch):
    # 1 MiB holds 87 rows of 1500 distances.
    train, fake = _features(1500, 0), _features(200, 1)

    def measure():
        return (
            drawing.memorisation_ratio(train, fake),
            drawing.diversity_ratio(train, fake),
            *drawing.precision_recall(train, fake).values(),
            *drawing.nearest(train, fake),
            *drawing.kernel_distance(train, fake).values(),
        )

    expected = measure()
    monkeypatch.setattr(drawing, "_KERNEL_ROWS", 87)
    with sklearn.config_context(working_memory=1):
        assert measure() == pytest.approx(expected)


# The grid


def _pictures(count=32, height=64, width=64, seed=0):
    """Clouds with the spectrum of photographs, and a hard-edged box in front."""
    rng = np.random.default_rng(seed)
    rows, columns = np.fft.fftfreq(height), np.fft.fftfreq(width)
    slope = 1 / np.maximum(np.hypot(rows[:, np.newaxis], columns), 1 / height)
    clouds = np.fft.fft2(rng.normal(size=(count, height, width)))
    clouds = np.fft.ifft2(clouds * slope).real
    clouds *= 40 / clouds.std()
    pictures = np.stack([clouds, 0.5 * clouds, -clouds], axis=-1) + 128
    for picture in pictures:
        top, left = rng.integers(4, 20, 2)
        picture[top : top + 30, left : left + 30] = rng.integers(40, 216, 3)
    return _pixels(pictures)


def _pixels(values):
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _grid(pictures, amplitude, kind="checkers"):
    rows, columns = np.mgrid[: pictures.shape[1], : pictures.shape[2]]
    phase = {
        "checkers": (rows + columns) / 2,
        "rows": rows / 2,
        "columns": columns / 2,
        "every fourth": columns / 4,
        "diagonals": (rows + columns) / 4,
        "other diagonals": (rows - columns) / 4,
        "rows and fourths": rows / 2 + columns / 4,
    }[kind]
    wave = amplitude * np.cos(2 * np.pi * phase)
    return _pixels(pictures + wave[:, :, np.newaxis])


def _blur(pictures, sigma):
    return _pixels(
        ndimage.gaussian_filter(pictures.astype(float), (0, sigma, sigma, 0))
    )


def test_checkerboard_score_grows_with_a_faint_grid():
    pictures = _pictures()
    scores = [
        drawing.checkerboard_score(_grid(pictures, amplitude))
        for amplitude in (0, 2, 4, 8)
    ]
    assert scores[0] < 1.1
    assert scores[1] > 10
    assert scores == sorted(scores)


@pytest.mark.parametrize(
    ("kind", "amplitude"),
    [
        ("rows", 2),
        ("columns", 2),
        ("every fourth", 6),
        ("diagonals", 6),
        ("other diagonals", 6),
        ("rows and fourths", 6),
    ],
)
def test_checkerboard_score_finds_each_kind(kind, amplitude):
    assert drawing.checkerboard_score(_grid(_pictures(), amplitude, kind)) > 3


@pytest.mark.parametrize("kernel_size", [3, 5])
def test_checkerboard_score_of_a_transposed_convolution(kernel_size):
    small = _pictures().astype(float)[:, ::2, ::2]
    spread = np.zeros((len(small), 64, 64, 3))
    spread[:, ::2, ::2] = small
    # Each pixel is reached by 1, 2 or 4, by 4, 6 or 9 others: uneven overlap.
    for axis in (1, 2):
        spread = ndimage.uniform_filter1d(spread, kernel_size, axis, mode="wrap")
        spread *= kernel_size / 2
    uneven = _pixels(0.9 * _pictures() + 0.1 * spread)
    assert drawing.checkerboard_score(uneven) > 5
    # Each pixel is reached by equally many: what Odena et al. advise.
    even = _pixels(small.repeat(2, axis=1).repeat(2, axis=2))
    assert drawing.checkerboard_score(_blur(even, 0.7)) < 1.1


def test_checkerboard_score_leaves_sharpness_out():
    pictures = _pictures()
    score = drawing.checkerboard_score(pictures)
    noise = np.random.default_rng(0).normal(0, 10, pictures.shape)
    sharpened = 2.0 * pictures - _blur(pictures, 1)
    softer = [_blur(pictures, sigma) for sigma in (0.5, 1, 2, 4)]
    for changed in (*softer, _pixels(sharpened), _pixels(pictures + noise)):
        assert drawing.checkerboard_score(changed) <= 1.1 * score


def test_checkerboard_score_of_noise_and_of_nothing():
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (64, 64, 64, 3), np.uint8)
    assert drawing.checkerboard_score(noise) == pytest.approx(1, abs=0.1)
    assert drawing.checkerboard_score(np.full((1, 32, 32, 3), 255, np.uint8)) == 1


def test_checkerboard_score_is_not_decided_by_one_picture():
    pictures = _pictures()
    pictures[0] = _grid(pictures[:1], 60)[0]
    assert drawing.checkerboard_score(pictures) < 1.2


@pytest.mark.parametrize("size", [(32, 32), (66, 45), (63, 128)])
def test_checkerboard_score_of_any_size(size):
    pictures = _pictures(16, *size)
    assert drawing.checkerboard_score(pictures) < 1.3
    assert drawing.checkerboard_score(_grid(pictures, 4)) > 5


def test_checkerboard_score_knows_no_order_and_direction():
    pictures = _grid(_pictures(8), 3, "rows")
    score = drawing.checkerboard_score(pictures)
    for turned in (pictures[::-1], pictures.swapaxes(1, 2), 255 - pictures):
        assert drawing.checkerboard_score(turned) == pytest.approx(score)


def test_checkerboard_ratio():
    pictures = _pictures(8)
    fake = _grid(pictures, 4)
    assert drawing.checkerboard_ratio(pictures, pictures) == 1
    ratio = drawing.checkerboard_ratio(pictures, fake)
    assert ratio * drawing.checkerboard_ratio(fake, pictures) == pytest.approx(1)
    scores = [drawing.checkerboard_score(images) for images in (pictures, fake)]
    assert ratio == pytest.approx(scores[1] / scores[0])


# Errors

_PAIRS = [
    drawing.kernel_distance,
    drawing.frechet_distance,
    drawing.precision_recall,
    drawing.diversity_ratio,
]


@pytest.mark.parametrize("measure", _PAIRS)
@pytest.mark.parametrize("name", ["real", "fake"])
@pytest.mark.parametrize(
    ("features", "message"),
    [
        (np.zeros((1, 8)), r"n >= \d .* received \(1, 8\)"),
        (np.zeros((5, 0)), r"d >= 1, received \(5, 0\)"),
        (np.zeros((5, 8, 1)), r"shape \[n, d\] .* received \(5, 8, 1\)"),
        (np.full((5, 8), np.nan), "finite numbers, received NaN or infinity"),
    ],
)
def test_bad_features_are_named(measure, name, features, message):
    arguments = {"real": _features(9, 0, 0, 8), "fake": _features(9, 1, 0, 8)}
    with pytest.raises(ValueError, match=f"^{name}: expected .*{message}"):
        measure(**arguments | {name: features})


@pytest.mark.parametrize("measure", [drawing.memorisation_ratio, drawing.nearest])
@pytest.mark.parametrize("name", ["train", "fake"])
def test_no_features_are_named(measure, name):
    arguments = {"train": _column(0, 1), "fake": _column(0, 1)}
    with pytest.raises(ValueError, match=rf"^{name}: .* received \(0, 1\)"):
        measure(**arguments | {name: np.zeros((0, 1))})


def test_features_of_two_networks():
    message = "^fake: expected 8 features a picture as real has, received 7"
    for measure in _PAIRS:
        with pytest.raises(ValueError, match=message):
            measure(np.zeros((9, 8)), np.zeros((9, 7)))


def test_bad_numbers_are_named():
    features = _features(9, 0)
    with pytest.raises(ValueError, match=r"^neighbours: .* >= 1, received 0"):
        drawing.precision_recall(features, features, neighbours=0)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((64, 64, 3), np.uint8), r"\[n, h, w, 3\] .*\(64, 64, 3\)"),
        (np.zeros((0, 64, 64, 3), np.uint8), r"n >= 1, .*\(0, 64, 64, 3\)"),
        (np.zeros((2, 64, 64, 4), np.uint8), r"\(2, 64, 64, 4\)"),
        (np.zeros((2, 64, 31, 3), np.uint8), r">= 32, received \(2, 64, 31, 3\)"),
        (np.zeros((2, 64, 64, 3)), "uint8, received float64"),
    ],
)
def test_bad_images_are_named(images, message):
    with pytest.raises(ValueError, match=f"^images: expected .*{message}"):
        drawing.checkerboard_score(images)
    good = _pictures(2)
    with pytest.raises(ValueError, match=f"^real: expected .*{message}"):
        drawing.checkerboard_ratio(images, good)
    with pytest.raises(ValueError, match=f"^fake: expected .*{message}"):
        drawing.checkerboard_ratio(good, images)


def test_pictures_of_two_sizes():
    with pytest.raises(ValueError, match=r"^fake: .*\(64, 64, 3\).*\(32, 32, 3\)"):
        drawing.checkerboard_ratio(_pictures(2), _pictures(2, 32, 32))
