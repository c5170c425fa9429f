"""The whole of a recognizer as one TensorFlow graph: network, calibration, unknowns."""

import numpy as np
import tensorflow as tf

from anime_tf.inference import Recognizer
from anime_tf.models.classifier import with_features


class Judge(tf.Module):
    """Squares to answers, as `Recognizer` gives them, without Keras at run time.

    Args:
        recognizer: A trained one; its weights are shared, not copied.
    """

    def __init__(self, recognizer: Recognizer):
        super().__init__()
        novelty = recognizer.novelty
        self._network = _Untracked(with_features(recognizer.classifier))
        # The variables themselves, and not the network, which would bring them twice.
        self._weights = [v.value for v in recognizer.classifier.variables]
        # A variable is stored once, however many graphs use it.
        self._whitening = tf.Variable(novelty.whitening, trainable=False)
        self._means = tf.Variable(novelty.means, trainable=False)
        self._centers, self._scales = np.float32(novelty.centers), novelty.scales
        self._temperature = np.float32(recognizer.temperature)
        self.threshold = np.float32(novelty.threshold)

    def judge(self, squares: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Judges pictures.

        Args:
            squares: `[n, image_size, image_size, 3]` in [0, 255], any number type.

        Returns:
            Calibrated probabilities float32 `[n, k]` and known scores float32 `[n]`.
        """
        logits, features, _ = self._network.it(
            tf.cast(squares, tf.float32), training=False
        )
        logits = logits / self._temperature
        energy = tf.reduce_logsumexp(logits, axis=1)
        parts = tf.stack([energy, -self._distance(features)], axis=1)
        scores = tf.reduce_sum((parts - self._centers) / self._scales, axis=1)
        return tf.nn.softmax(logits), scores

    def _distance(self, features: tf.Tensor) -> tf.Tensor:
        """Distance float32 `[n]` to the nearest mean.

        By the squares, which needs no table of n k d numbers; centred on one of the
        means, because large numbers that nearly cancel would lose the digits.
        """
        origin = self._means[:1]
        points = features @ self._whitening - origin
        means = self._means - origin
        squared = (
            tf.reduce_sum(points**2, axis=1, keepdims=True)
            - 2.0 * tf.matmul(points, means, transpose_b=True)
            + tf.reduce_sum(means**2, axis=1)
        )
        return tf.sqrt(tf.maximum(tf.reduce_min(squared, axis=1), 0.0))


class _Untracked:
    """Holds something that `tf.Module` shall not find and store."""

    def __init__(self, it):
        self.it = it
