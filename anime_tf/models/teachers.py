"""The frozen teachers of the generator, as functions from pictures to losses.

They are plain objects and no layers: nothing of them is trained, or kept in the
checkpoints of what they teach.
"""

from collections.abc import Callable, Iterable, Sequence

import keras
import numpy as np
import tensorflow as tf

from anime_tf.losses import PERCEPTUAL_LOSSES

# The means of a map are taken over the cells of a grid of so many to each side, and its
# deviations over coarser places.
_CELLS = 16
_PLACES = 4
_TINY = 1e-4


class PerceptualTeacher:
    """Says how far features of generated pictures are from those of real ones.

    A picture's descriptor is one long vector: of each map the means over a grid of
    16 x 16 cells, which say what there is and where, and the deviations over 4 x 4
    places, which say how it is textured. For `paired` it is the whole maps. Each part
    is measured in units of its own mean distance between two real pictures, so that
    all weigh the same.

    All layers and places go into one vector because a loss may look for the nearest
    real picture: were they compared each by itself, each would find another one, and
    every part of a face would be right but not the face.

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
        self._units: list[np.ndarray] = []

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
        """Returns the parts of the descriptors, each float32 `[n, d]`, unscaled."""
        parts = []
        for features in self.maps(images):
            if self._whole_maps:
                parts.append(features)
            else:
                cells = min(_CELLS, features.shape[1])
                parts += [_average(features, cells), _deviations(features)]
        return [tf.reshape(part, (-1, np.prod(part.shape[1:]))) for part in parts]

    def measure(self, batches: Iterable[tf.Tensor]) -> np.ndarray:
        """Describes real pictures, and takes the units from them.

        Args:
            batches: Pictures `[n, h, w, 3]`, in batches, at least two in all.

        Returns:
            The descriptors, float16 `[n, d]`.
        """
        describe = tf.function(self.describe, reduce_retracing=True)
        # Halved at once: they are most of the memory.
        described = [
            [part.numpy().astype(np.float16) for part in describe(batch)]
            for batch in batches
        ]
        wholes = [np.concatenate(part) for part in zip(*described, strict=True)]
        self._units = [_mean_distance(whole) for whole in wholes]
        return self._join(wholes, np.concatenate).astype(np.float16)

    def __call__(self, fakes: tf.Tensor, references: tf.Tensor) -> tf.Tensor:
        """The loss of fakes `[n, h, w, 3]` against descriptors of reals `[m, d]`."""
        described = self._join(self.describe(fakes), tf.concat)
        return self._loss(described, tf.cast(references, tf.float32))

    def _join(self, parts: Sequence, concatenate: Callable):
        """Puts the scaled parts in a row, so that the mean distance stays 1."""
        scale = len(parts) ** 0.5
        pairs = zip(parts, self._units, strict=True)
        return concatenate([part / (unit * scale) for part, unit in pairs], axis=1)


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


def _deviations(maps: tf.Tensor) -> tf.Tensor:
    """Deviations of maps `[n, h, h, c]` over their places, `[n, 4, 4, c]`."""
    variance = _average(tf.square(maps), _PLACES) - _average(maps, _PLACES) ** 2
    # A root has no gradient at 0.
    least = _TINY * tf.reduce_mean(tf.stop_gradient(maps) ** 2)
    return tf.sqrt(tf.maximum(variance, 0.0) + least)


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


def _mean_distance(descriptors: np.ndarray) -> np.ndarray:
    """Mean distance of two pictures, float32 `[1]`, over neighbours in a shuffle."""
    order = np.random.default_rng(0).permutation(len(descriptors))
    steps = np.diff(descriptors[order].astype(np.float32), axis=0)
    return np.linalg.norm(steps, axis=1).mean(keepdims=True)
