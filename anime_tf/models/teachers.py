"""The frozen teachers of the generator, as functions from pictures to losses.

They are plain objects and no layers: nothing of them is trained, or kept in the
checkpoints of what they teach.
"""

from collections.abc import Iterable, Sequence

import keras
import numpy as np
import tensorflow as tf

from anime_tf.losses import PERCEPTUAL_LOSSES

# Pictures are compared place by place on a grid of so many places to each side: with
# more of them, every place is right and the whole is not.
_PLACES = 4
_TINY = 1e-4


class PerceptualTeacher:
    """Says how far features of generated pictures are from those of real ones.

    A layer's map is cut into a grid of 4 x 4 places. The means over the quarters of a
    place say what there is, the deviation over the place how it is textured. Both are
    compared place by place, and with all places in a row, which says how the whole is
    composed. For
    `paired` every pixel of a map is a place, and its value is all there is. Every
    descriptor is measured in units of its own mean distance between two real pictures,
    so that all weigh the same.

    Args:
        features: One or several networks, each of pictures `[n, s, s, 3]` to a list of
            maps, see `build_features`. Each gets the pictures averaged down to its s.
        loss: A key of `PERCEPTUAL_LOSSES`.
    """

    def __init__(self, features: Sequence[keras.Model], loss: str = "drift"):
        if loss not in PERCEPTUAL_LOSSES:
            expected = list(PERCEPTUAL_LOSSES)
            raise ValueError(f"loss must be one of {expected}, got {loss!r}")
        self.features = features
        self._loss = PERCEPTUAL_LOSSES[loss]
        self._whole_maps = loss == "paired"
        self._units: list[float] = []

    def maps(self, images: tf.Tensor) -> list[tf.Tensor]:
        """Returns the maps of pictures `[n, h, w, 3]`, h = w a multiple of every s."""
        images = tf.cast(images, tf.float32)
        maps = []
        for network in self.features:
            factor = images.shape[1] // network.input_shape[1]
            smaller = tf.nn.avg_pool2d(images, factor, factor, "VALID")
            maps += keras.tree.flatten(network(smaller, training=False))
        return maps

    def describe(self, images: tf.Tensor) -> list[tf.Tensor]:
        """Returns the descriptors of pictures, each float32 `[n, p, c]`, unscaled."""
        described = []
        for features in self.maps(images):
            shape = tf.shape(features)
            if self._whole_maps:
                places = shape[1] * shape[2]
                size = (shape[0], places, features.shape[-1])
                described.append(tf.reshape(features, size))
            else:
                described += _means_and_deviations(features)
        return described

    def measure(self, batches: Iterable[tf.Tensor]) -> list[np.ndarray]:
        """Describes all real pictures, and takes the units of every descriptor.

        Args:
            batches: Pictures `[n, h, w, 3]`, in batches, at least two in all.

        Returns:
            The descriptors, each float16 `[n, p, c]`, in their units.
        """
        describe = tf.function(self.describe, reduce_retracing=True)
        parts = [[part.numpy() for part in describe(batch)] for batch in batches]
        wholes = [np.concatenate(part) for part in zip(*parts, strict=True)]
        self._units = [_mean_distance(whole) for whole in wholes]
        return [
            (whole / unit).astype(np.float16)
            for whole, unit in zip(wholes, self._units, strict=True)
        ]

    def __call__(self, fakes: tf.Tensor, references: list[tf.Tensor]) -> tf.Tensor:
        """The loss of fakes `[n, h, w, 3]` against measured descriptors of reals."""
        losses = []
        for fake, real, unit in zip(
            self.describe(fakes), references, self._units, strict=True
        ):
            losses.append(self._loss(fake / unit, real))
            if not self._whole_maps:
                whole = _as_one_place(fake / unit), _as_one_place(real)
                losses.append(self._loss(*whole))
        return tf.add_n(losses) / len(losses)


class ClassificationTeacher:
    """Says how surely the frozen classifier takes generated pictures for the character.

    Args:
        classifier: Pictures `[n, s, s, 3]` in [0, 255] to logits `[n, k]`.
        views: Most pictures of a batch that it looks at, the first ones. The classifier
            is by far the largest of the networks: it would cost more than all others.
    """

    def __init__(self, classifier: keras.Model, views: int = 4):
        self.classifier = classifier
        self._size, self._views = classifier.input_shape[1], views

    def logits(self, images: tf.Tensor) -> tf.Tensor:
        """Returns the logits of pictures of any size, which are resized."""
        images = tf.image.resize(tf.cast(images, tf.float32), (self._size, self._size))
        return self.classifier(images, training=False)

    def __call__(self, views: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        """Mean cross entropy; labels from k on are nobody's, and say nothing."""
        logits = self.logits(views[: self._views])
        labels = tf.cast(labels[: self._views], tf.int32)
        num_classes = logits.shape[-1]
        somebody = tf.cast(labels < num_classes, tf.float32)
        entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(
            tf.minimum(labels, num_classes - 1), logits
        )
        return tf.reduce_mean(entropy * somebody)


def _means_and_deviations(maps: tf.Tensor) -> list[tf.Tensor]:
    """Cuts maps `[n, h, h, c]` into 16 places; returns the means over the quarters of
    each place, `[n, 16, 4 c]`, and the deviations over each, `[n, 16, c]`."""
    channels = maps.shape[-1]
    quarters = _average(maps, 2 * _PLACES)
    variance = _average(tf.square(maps), _PLACES) - _average(maps, _PLACES) ** 2
    # A root has no gradient at 0.
    least = _TINY * tf.reduce_mean(tf.stop_gradient(maps) ** 2)
    deviations = tf.sqrt(tf.maximum(variance, 0.0) + least)
    means = tf.nn.space_to_depth(quarters, 2)
    return [
        tf.reshape(means, (-1, _PLACES**2, 4 * channels)),
        tf.reshape(deviations, (-1, _PLACES**2, channels)),
    ]


def _average(maps: tf.Tensor, cells: int) -> tf.Tensor:
    """Averages maps `[n, h, h, c]` over a grid of cells: `[n, cells, cells, c]`."""
    side = maps.shape[1]
    if side % cells == 0:
        return tf.nn.avg_pool2d(maps, side // cells, side // cells, "VALID")
    # Cells share the pixels through which their border goes.
    edges, pixels = np.linspace(0, side, cells + 1)[:, None], np.arange(side)
    shares = np.minimum(edges[1:], pixels + 1) - np.maximum(edges[:-1], pixels)
    shares = (shares.clip(0) * cells / side).astype(np.float32)
    return tf.einsum("ph,qw,nhwc->npqc", shares, shares, maps)


def _as_one_place(descriptors: tf.Tensor) -> tf.Tensor:
    """Turns `[n, p, c]` into `[n, 1, p * c]` whose distances are the mean ones."""
    places, channels = descriptors.shape[1:]
    return tf.reshape(descriptors, (-1, 1, places * channels)) / places**0.5


def _mean_distance(descriptors: np.ndarray) -> float:
    """Mean distance of two pictures at a place, over neighbours in a fixed shuffle."""
    order = np.random.default_rng(0).permutation(len(descriptors))
    steps = np.diff(descriptors[order].astype(np.float32), axis=0)
    return float(np.linalg.norm(steps, axis=-1).mean())
