"""The tf.data chains: indices in, batches of pictures out."""

import functools
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import tensorflow as tf

from anime_tf import images
from anime_tf.datasets.cache import PictureCache


class PictureStore:
    """Pictures by index, in RAM as far as allowed, else from the cache on disk.

    Args:
        paths: The n files.
        digests: Their SHA-256, hex, in the same order.
        image_size: Side of the letterboxed square in pixels.
        cache: Where decoded pictures are kept.
        memory_bytes: Most bytes of decoded pictures to hold in RAM.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        digests: Sequence[str],
        image_size: int,
        cache: PictureCache,
        memory_bytes: int,
    ):
        self.image_size = image_size
        self._paths, self._digests, self._cache = list(paths), list(digests), cache
        capacity = memory_bytes // (3 * image_size**2)
        self._fetch = functools.lru_cache(maxsize=capacity)(self._load)
        self._pool = ThreadPoolExecutor(os.cpu_count())

    def __len__(self) -> int:
        return len(self._paths)

    def batch(self, indices: np.ndarray) -> np.ndarray:
        """Returns uint8 `[n, size, size, 3]` for int `[n]`."""
        return np.stack(list(self._pool.map(self._fetch, indices.tolist())))

    def _load(self, index: int) -> np.ndarray:
        digest = self._digests[index]
        pixels = self._cache.pixels(digest, self.image_size)
        if pixels is None:
            pixels = images.load_square(self._paths[index], self.image_size)
            self._cache.add_pixels(self.image_size, [(digest, pixels)])
        return pixels


def training_batches(
    store: PictureStore,
    labels: np.ndarray,
    batch_size: int,
    seed: int,
    first_epoch: int,
    last_epoch: int,
) -> tf.data.Dataset:
    """Shuffled batches of the epochs `first_epoch` up to, not including, `last_epoch`.

    The order is a function of seed and epoch alone, so a run that resumes at an epoch
    sees what an uninterrupted one would have seen.

    Args:
        store: n pictures.
        labels: float32 `[n, k]`, one-hot.
        batch_size: Pictures per batch; the last batch of an epoch may be smaller.
        seed: Seed of the order.
        first_epoch, last_epoch: Range of epochs, counted from 0.

    Returns:
        Dataset of (uint8 `[b, size, size, 3]`, float32 `[b, k]`).
    """
    indices = tf.range(len(store), dtype=tf.int64)

    def shuffled(epoch: tf.Tensor) -> tf.data.Dataset:
        order = tf.random.experimental.stateless_shuffle(indices, seed=[seed, epoch])
        return tf.data.Dataset.from_tensor_slices(order).batch(batch_size)

    return (
        tf.data.Dataset.range(first_epoch, last_epoch)
        .flat_map(shuffled)
        # One batch at a time: the store reads a batch with all cores by itself.
        .map(_reader(store, labels), num_parallel_calls=1)
        .prefetch(tf.data.AUTOTUNE)
    )


def evaluation_batches(
    store: PictureStore, labels: np.ndarray, batch_size: int
) -> tf.data.Dataset:
    """All pictures once, in order; elements as in `training_batches`."""
    return (
        tf.data.Dataset.range(len(store))
        .batch(batch_size)
        .map(_reader(store, labels), num_parallel_calls=1)
        .prefetch(tf.data.AUTOTUNE)
    )


def _reader(store: PictureStore, labels: np.ndarray):
    """Returns the mapping from a batch of indices to its pictures and labels."""
    labels = tf.constant(labels, tf.float32)

    def read(indices: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        batch = tf.numpy_function(store.batch, [indices], tf.uint8)
        batch.set_shape([None, store.image_size, store.image_size, 3])
        return batch, tf.gather(labels, indices)

    return read
