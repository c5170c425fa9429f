"""How good generated pictures are, as plain numbers: pure functions of NumPy arrays.

"Features" are what some frozen network says of each picture, a row each; which network
that was is the caller's business, but numbers from two networks cannot be compared.
"""

import math
from collections.abc import Iterator

import numpy as np
from scipy.signal import windows
from sklearn.metrics import pairwise_distances_chunked

# Below it, FID says more about the number of pictures than about the pictures.
MIN_FID_PICTURES = 2048
# Each picture left out for the error of KID must leave two behind.
MIN_KID_PICTURES = 3
# Two pictures closer than this share of the whole set's spread are the same picture:
# networks answer in float32, and a row's last bits depend on its place in the batch.
SAME_PICTURE = 1e-4
MIN_GRID_SIZE = 32

# Where grids show, in quarters of a cycle per pixel, (vertical, horizontal): what
# upsampling by a stride of 2 leaves, and what a stride of 4 adds to it. The spectrum of
# real numbers mirrors these into the others of their kind, such as (3, 0).
_STRIDE_2 = ((2, 0), (0, 2), (2, 2))
_STRIDE_4 = ((1, 0), (0, 1), (1, 1), (1, 3), (1, 2), (2, 1))
# Power of the rounding to whole pixel values, evenly spread over [-0.5, 0.5].
_ROUNDING_POWER = 1 / 12
_KERNEL_ROWS = 512


def kernel_distance(real: np.ndarray, fake: np.ndarray) -> dict[str, float]:
    """Kernel inception distance, KID (Binkowski et al. 2018), with its standard error.

    The unbiased squared maximum mean discrepancy under the kernel (x.y / d + 1)^3, over
    all pairs of pictures. Unlike FID it is right on average at any number of pictures.

    The error is a jackknife: each picture is left out in turn. They are not, as in a
    bootstrap, drawn anew, because a picture drawn twice would be its own neighbour in
    an estimate that rests on leaving such pairs out. The error errs upwards: hardly
    where the sets clearly differ, by about sqrt(2) where both are of one kind.

    Args:
        real: float `[n, d]`, n >= `MIN_KID_PICTURES`, finite.
        fake: float `[m, d]`, m >= `MIN_KID_PICTURES`, finite.

    Returns:
        `kid`, 0 on average for two samples of one distribution and therefore negative
        at times, and `kid_error`, >= 0.

    Raises:
        ValueError: If an argument has the wrong shape or range.
    """
    real, fake = _check_pair(MIN_KID_PICTURES, real=real, fake=fake)
    n, m = len(real), len(fake)
    # Sums of the kernel over each picture's pairs, none with itself.
    reals = _kernel_sums(real, real) - ((real**2).mean(axis=1) + 1) ** 3
    fakes = _kernel_sums(fake, fake) - ((fake**2).mean(axis=1) + 1) ** 3
    across_reals, across_fakes = _kernel_sums(real, fake), _kernel_sums(fake, real)
    within_real = reals.sum() / (n * (n - 1))
    within_fake = fakes.sum() / (m * (m - 1))
    across = across_reals.sum() / (n * m)
    # A picture left out is missing twice within its set: in its row and its column.
    without_real = (reals.sum() - 2 * reals) / ((n - 1) * (n - 2))
    without_real -= 2 * (n * m * across - across_reals) / ((n - 1) * m)
    without_fake = (fakes.sum() - 2 * fakes) / ((m - 1) * (m - 2))
    without_fake -= 2 * (n * m * across - across_fakes) / (n * (m - 1))
    variance = (n - 1) * without_real.var() + (m - 1) * without_fake.var()
    return {
        "kid": float(within_real + within_fake - 2 * across),
        "kid_error": float(np.sqrt(variance)),
    }


def frechet_distance(real: np.ndarray, fake: np.ndarray) -> float | None:
    """Frechet inception distance, FID (Heusel et al. 2017).

    |mean_r - mean_f|^2 + Tr(C_r + C_f - 2 (C_r C_f)^(1/2)) with the covariances C.

    Args:
        real: float `[n, d]`, n >= 2, finite.
        fake: float `[m, d]`, m >= 2, finite.

    Returns:
        float >= 0, or None if either side has fewer than `MIN_FID_PICTURES`: FID is
        biased upwards, and by so much there that it is no measure of the pictures.

    Raises:
        ValueError: If an argument has the wrong shape or range.
    """
    real, fake = _check_pair(2, real=real, fake=fake)
    if min(len(real), len(fake)) < MIN_FID_PICTURES:
        return None
    real_covariance = np.atleast_2d(np.cov(real, rowvar=False))
    fake_covariance = np.atleast_2d(np.cov(fake, rowvar=False))
    # C_r C_f has the eigenvalues of C_r^(1/2) C_f C_r^(1/2), which is symmetric:
    # they are real and >= 0, but for rounding, even where the covariances are singular.
    values, vectors = np.linalg.eigh(real_covariance)
    root = vectors * np.sqrt(values.clip(0)) @ vectors.T
    overlap = np.linalg.eigvalsh(root @ fake_covariance @ root).clip(0)
    distance = ((real.mean(axis=0) - fake.mean(axis=0)) ** 2).sum()
    distance += np.trace(real_covariance) + np.trace(fake_covariance)
    return float(max(0.0, distance - 2 * np.sqrt(overlap).sum()))


def precision_recall(
    real: np.ndarray, fake: np.ndarray, neighbours: int = 3
) -> dict[str, float]:
    """Improved precision and recall (Kynkaanniemi et al. 2019).

    Around each picture of a set lies a ball that reaches to its k-th nearest other
    picture of that set. Both numbers grow with the number of pictures in the set that
    carries the balls: only sets of equal sizes can be compared.

    Args:
        real: float `[n, d]`, n > neighbours, finite.
        fake: float `[m, d]`, m > neighbours, finite.
        neighbours: int >= 1, the k above.

    Returns:
        `precision`, range [0, 1]: the share of fakes inside of some real picture's
        ball, that is, believable ones. `recall`, range [0, 1]: the share of reals
        inside of some fake's ball, that is, of what the generator can draw.

    Raises:
        ValueError: If an argument has the wrong shape or range; also if a set has no
            more than `neighbours` pictures, since none has a k-th other one there.
    """
    if neighbours < 1:
        raise ValueError(f"neighbours: expected an integer >= 1, received {neighbours}")
    real, fake = _check_pair(neighbours + 1, real=real, fake=fake)
    return {
        "precision": _share_inside(fake, real, neighbours),
        "recall": _share_inside(real, fake, neighbours),
    }


def diversity_ratio(real: np.ndarray, fake: np.ndarray) -> float:
    """How different the fakes are from each other, as a share of what reals are.

    Args:
        real: float `[n, d]`, n >= 2, finite, not all the same.
        fake: float `[m, d]`, m >= 2, finite.

    Returns:
        float >= 0, the mean distance of two fakes over that of two reals: 0 where the
        generator draws one picture only, about 1 where it is as varied as the reals.

    Raises:
        ValueError: If an argument has the wrong shape or range.
    """
    real, fake = _check_pair(2, real=real, fake=fake)
    _check_differing(real, "real")
    return _mean_distance(fake) / _mean_distance(real)


def memorisation_ratio(train: np.ndarray, fake: np.ndarray) -> float:
    """How far fakes keep from the training pictures, as a share of what those do.

    The mean distance from a fake to its nearest training picture, over the mean
    distance from a training picture to its nearest other one. Exact duplicates among
    the training pictures are ignored: pairs at distance 0, or closer than
    `SAME_PICTURE` times the root mean square distance from the mean of all, are
    skipped, and the next nearest counts.

    Args:
        train: float `[n, d]`, n >= 2, finite, at least two different pictures.
        fake: float `[m, d]`, m >= 1, finite.

    Returns:
        float >= 0: 0 where all fakes are copies, about 1 where they keep as far from
        the training pictures as new pictures of the same kind would.

    Raises:
        ValueError: If an argument has the wrong shape or range.
    """
    train, fake = _check_pair(1, train=train, fake=fake)
    _check_differing(train, "train")
    same = SAME_PICTURE * np.sqrt(train.var(axis=0).sum())
    apart = [
        np.where(rows > same, rows, np.inf).min(axis=1) for rows in _distances(train)
    ]
    to_train = [rows.min(axis=1) for rows in _distances(fake, train)]
    return float(np.concatenate(to_train).mean() / np.concatenate(apart).mean())


def nearest(fake: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Finds the training picture that each fake is most like.

    Args:
        fake: float `[m, d]`, m >= 1, finite.
        train: float `[n, d]`, n >= 1, finite.

    Returns:
        int `[m]`, range [0, n), indices into `train`.

    Raises:
        ValueError: If an argument has the wrong shape or range.
    """
    fake, train = _check_pair(1, fake=fake, train=train)
    rows = [rows.argmin(axis=1) for rows in _distances(fake, train)]
    return np.concatenate(rows)


def checkerboard_score(images: np.ndarray) -> float:
    """How strongly a regular grid of pixels shows (Odena et al. 2016).

    Upsampling by a stride of 2 or 4 whose kernels overlap unevenly leaves patterns that
    repeat every 2 or 4 pixels. In the spectrum of a picture (Hann window, mean over
    the channels) each is a peak at a frequency known beforehand: rows, columns and
    diagonals. The power of a peak is divided by that beside it, horizontally or
    vertically, whichever is more, so that sharpness, blur, noise and straight edges,
    which move both, cancel. The geometric mean over the pictures lets no single picture
    with a screentone decide; of the frequencies the worst counts.

    A grid of period 4 has to be stronger than one of period 2 to be found, because
    pictures have more power of their own there.

    Args:
        images: uint8 `[n, h, w, 3]`, n >= 1, h and w >= `MIN_GRID_SIZE`, range
            [0, 255]. From some 30 pictures on, the score of gridless ones is steady.

    Returns:
        float >= 1: 1 means no more power than beside; pictures and white noise have
        1, and so has a lack of power there, which is no grid.

    Raises:
        ValueError: If `images` has the wrong shape or dtype.
    """
    ratios = [_grid_ratios(image) for image in _check_images(images, "images")]
    return float(max(1.0, np.exp(np.log(ratios).mean(axis=0)).max()))


def checkerboard_ratio(real: np.ndarray, fake: np.ndarray) -> float:
    """`checkerboard_score` of the fakes over that of the reals; about 1 is good.

    Real pictures have a grid where they were once enlarged or coarsely compressed.

    Args:
        real: uint8 `[n, h, w, 3]`, as in `checkerboard_score`.
        fake: uint8 `[m, h, w, 3]`, of the same size as the reals.

    Returns:
        float > 0.

    Raises:
        ValueError: If an argument has the wrong shape or dtype.
    """
    real, fake = _check_images(real, "real"), _check_images(fake, "fake")
    if real.shape[1:] != fake.shape[1:]:
        raise ValueError(
            f"fake: expected pictures of {real.shape[1:]} as real has, "
            f"received {fake.shape[1:]}"
        )
    return checkerboard_score(fake) / checkerboard_score(real)


def _kernel_sums(points: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Sums of the kernel over the pairs of each point with all others, float `[n]`."""
    scaled = others.T / others.shape[1]
    # By blocks of rows: the full matrix may not fit into memory.
    blocks = np.array_split(points, math.ceil(len(points) / _KERNEL_ROWS))
    return np.concatenate([((rows @ scaled + 1) ** 3).sum(axis=1) for rows in blocks])


def _distances(
    points: np.ndarray, others: np.ndarray | None = None
) -> Iterator[np.ndarray]:
    """Euclidean distances, as blocks of rows `[b, n]` that fit into memory.

    Without others, those of the points among themselves, each infinitely far from
    itself.
    """
    alone = others is None
    others = points if alone else others
    # The quick formula x.x - 2 x.y + y.y is the more exact the shorter its vectors.
    origin = others.mean(axis=0)
    start = 0
    for rows in pairwise_distances_chunked(points - origin, others - origin):
        if alone:
            within = np.arange(len(rows))
            rows[within, start + within] = np.inf
        start += len(rows)
        yield rows


def _share_inside(points: np.ndarray, centres: np.ndarray, neighbours: int) -> float:
    """Share of the points that lie in a ball around one of the centres."""
    kth = neighbours - 1
    radii = np.concatenate(
        [np.partition(rows, kth, axis=1)[:, kth] for rows in _distances(centres)]
    )
    inside = [(rows <= radii).any(axis=1) for rows in _distances(points, centres)]
    return float(np.concatenate(inside).mean())


def _mean_distance(points: np.ndarray) -> float:
    total = sum(rows[np.isfinite(rows)].sum() for rows in _distances(points))
    return float(total / (len(points) * (len(points) - 1)))


def _grid_ratios(image: np.ndarray) -> list[float]:
    """Power at each of the grid's frequencies over the power beside it."""
    # Only at multiples of 4 pixels all these frequencies fall on the spectrum's own.
    height, width = (side - side % 4 for side in image.shape[:2])
    pixels = image[:height, :width].astype(np.float64)
    pixels -= pixels.mean(axis=(0, 1))
    # Without a window the picture's edges, which do not meet, would write a cross of
    # power right through the frequencies of rows and columns.
    hann = [windows.hann(side, sym=False) for side in (height, width)]
    window = np.outer(*hann)[:, :, np.newaxis]
    spectrum = np.fft.fft2(pixels * window, axes=(0, 1))
    power = (np.abs(spectrum) ** 2).mean(axis=2) / (window**2).sum() + _ROUNDING_POWER
    ratios = []
    for row, column in _STRIDE_2 + _STRIDE_4:
        row_peak, row_side = _peak_and_sides(row, height)
        column_peak, column_side = _peak_and_sides(column, width)
        peak = power[np.ix_(row_peak, column_peak)].mean()
        above = power[np.ix_(row_side, column_peak)].mean()
        beside = power[np.ix_(row_peak, column_side)].mean()
        ratios.append(peak / max(above, beside))
    return ratios


def _peak_and_sides(quarters: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices along one axis of the spectrum: of a peak, which the window widens to 3,
    and of what lies on both of its sides, clear of it and of the next peak."""
    centre = quarters * size // 4
    steps = np.arange(3, max(4, size // 16 + 2) + 1)
    peak = centre + np.array([-1, 0, 1])
    return peak % size, (centre + np.concatenate([-steps, steps])) % size


def _check_pair(minimum: int, **pair: np.ndarray) -> list[np.ndarray]:
    """The two arrays, in float64, if they are features of one network."""
    first, second = pair
    checked = [_check_features(pair[name], name, minimum) for name in pair]
    dimensions = [features.shape[1] for features in checked]
    if dimensions[0] != dimensions[1]:
        raise ValueError(
            f"{second}: expected {dimensions[0]} features a picture as {first} has, "
            f"received {dimensions[1]}"
        )
    return checked


def _check_features(features: np.ndarray, name: str, minimum: int) -> np.ndarray:
    features = np.asarray(features, dtype=np.float64)
    if features.ndim != 2 or len(features) < minimum or not features.shape[1]:
        raise ValueError(
            f"{name}: expected shape [n, d] with n >= {minimum} and d >= 1, "
            f"received {features.shape}"
        )
    if not np.isfinite(features).all():
        raise ValueError(f"{name}: expected finite numbers, received NaN or infinity")
    return features


def _check_differing(features: np.ndarray, name: str) -> None:
    if not np.ptp(features, axis=0).any():
        raise ValueError(
            f"{name}: expected pictures that differ, received {len(features)} times "
            "the same"
        )


def _check_images(images: np.ndarray, name: str) -> np.ndarray:
    images = np.asarray(images)
    is_rgb = images.ndim == 4 and images.shape[3] == 3 and len(images) > 0
    if not is_rgb or min(images.shape[1:3]) < MIN_GRID_SIZE:
        raise ValueError(
            f"{name}: expected shape [n, h, w, 3] with n >= 1, h and w >= "
            f"{MIN_GRID_SIZE}, received {images.shape}"
        )
    if images.dtype != np.uint8:
        raise ValueError(f"{name}: expected uint8, received {images.dtype}")
    return images
