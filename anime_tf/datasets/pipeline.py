"""The tf.data chains: indices in, batches of pictures out."""

import functools
import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import tensorflow as tf

from anime_tf import images
from anime_tf.datasets.cache import PictureCache
from anime_tf.datasets.manifest import Item, Manifest, labels_of
from anime_tf.errors import UserError


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
        self._decoded: list[tuple[str, np.ndarray]] = []
        self.failure: UserError | None = None

    def __len__(self) -> int:
        return len(self._paths)

    def batch(self, indices: np.ndarray) -> np.ndarray:
        """Returns uint8 `[n, size, size, 3]` for int `[n]`.

        Raises:
            UserError: If a picture is gone or changed. It is kept in `failure` too:
                tf.data passes on that there was an error, but not the error itself.
        """
        try:
            pixels = list(self._pool.map(self._fetch, indices.tolist()))
            # All at once: a transaction for each picture costs more than decoding it.
            if self._decoded:
                self._cache.add_pixels(self.image_size, self._decoded)
                self._decoded = []
            return np.stack(pixels)
        except UserError as error:
            self.failure = error
            raise

    def _load(self, index: int) -> np.ndarray:
        digest = self._digests[index]
        pixels = self._cache.pixels(digest, self.image_size)
        if pixels is None:
            pixels = _decode(self._paths[index], digest, self.image_size)
            self._decoded.append((digest, pixels))
        return pixels


class RunPictures:
    """The pictures of a manifest, as labelled batches.

    Args:
        manifest: Names the pictures.
        cache, image_size, memory_bytes: As for `PictureStore`.
    """

    def __init__(
        self,
        manifest: Manifest,
        cache: PictureCache,
        image_size: int,
        memory_bytes: int,
    ):
        self._manifest, self._cache = manifest, cache
        self._image_size, self._memory_bytes = image_size, memory_bytes
        self._stores: list[PictureStore] = []

    @property
    def failure(self) -> UserError | None:
        """What was wrong with a picture, if reading one has failed."""
        return next((store.failure for store in self._stores if store.failure), None)

    def one_hot(self, items: list[Item]) -> np.ndarray:
        """Returns the labels as float32 `[n, k]`."""
        num_classes = len(self._manifest.class_names)
        return np.eye(num_classes, dtype=np.float32)[labels_of(items)]

    def training(
        self,
        items: list[Item],
        batch_size: int,
        seed: int,
        first_epoch: int,
        last_epoch: int,
    ) -> tf.data.Dataset:
        """Shuffled epochs of these items, see `training_batches`."""
        return training_batches(
            self._store(items),
            self.one_hot(items),
            batch_size,
            seed,
            first_epoch,
            last_epoch,
        )

    def evaluation(self, items: list[Item], batch_size: int) -> tf.data.Dataset:
        """These items once, in order, see `evaluation_batches`."""
        return evaluation_batches(self._store(items), self.one_hot(items), batch_size)

    def _store(self, items: list[Item]) -> PictureStore:
        store = PictureStore(
            [self._manifest.path_of(item) for item in items],
            [item.sha256 for item in items],
            self._image_size,
            self._cache,
            self._memory_bytes,
        )
        self._stores.append(store)
        return store


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


def _decode(path: Path, digest: str, size: int) -> np.ndarray:
    try:
        content = images.read_bytes(path)
        if hashlib.sha256(content).hexdigest() != digest:
            raise images.PictureError("its content has changed")
        return images.letterbox(images.decode(content, at_least=size).image, size)
    except images.PictureError as error:
        raise UserError(
            f"{path} was a picture of this run and is none now ({error}); put the "
            "old file back, or start anew"
        ) from error


def _reader(store: PictureStore, labels: np.ndarray):
    """Returns the mapping from a batch of indices to its pictures and labels."""
    labels = tf.constant(labels, tf.float32)

    def read(indices: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        batch = tf.numpy_function(store.batch, [indices], tf.uint8)
        batch.set_shape([None, store.image_size, store.image_size, 3])
        return batch, tf.gather(labels, indices)

    return read
