"""What a generator learns from: batches of one character each, with references."""

from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from anime_tf.datasets.pipeline import PictureStore


def character_batches(
    store: PictureStore,
    labels: np.ndarray,
    references: Mapping[int, np.ndarray],
    batch_size: int,
    num_references: int,
    seed: int,
    first_epoch: int,
    last_epoch: int,
    nobody: int | None = None,
) -> tf.data.Dataset:
    """Shuffled batches of the epochs `first_epoch` up to, not including, `last_epoch`.

    All pictures of a batch show one character, and so do its references: what is
    compared is like with like. An epoch shows each picture once; what is missing to a
    character's last batch is filled up with pictures of its first. Order and references
    are functions of seed and epoch alone, so a run that resumes at an epoch sees what
    an uninterrupted one would have seen.

    Args:
        store: n pictures.
        labels: int `[n]`.
        references: Of each label the descriptors of its real pictures, float16
            `[r, d]`; empty for none.
        batch_size: Pictures per batch, exactly.
        num_references: References per batch, exactly, drawn anew for each; some come
            several times where there are fewer.
        seed: Seed of the order.
        first_epoch, last_epoch: Range of epochs, counted from 0.
        nobody: The label of pictures of no character in particular. An epoch has at
            most as many batches of theirs as of all characters together.

    Returns:
        Dataset of (uint8 `[b, size, size, 3]`, int32 `[b]`, float16 `[m, d]`); d is 0
        without references.
    """
    width = next(iter(references.values())).shape[1] if references else 0

    def plan(epoch: np.ndarray) -> np.ndarray:
        return plan_epoch(labels, batch_size, seed, int(epoch), nobody)

    def planned(epoch: tf.Tensor) -> tf.data.Dataset:
        batches = tf.numpy_function(plan, [epoch], tf.int64)
        batches.set_shape([None, batch_size])
        steps = tf.data.Dataset.from_tensor_slices(batches).enumerate()
        return steps.map(lambda step, indices: (epoch, step, indices))

    def choose(epoch: np.ndarray, step: np.ndarray, label: np.ndarray) -> np.ndarray:
        if not references:
            return np.empty((num_references, 0), np.float16)
        own = references[int(label)]
        rng = np.random.default_rng([seed, int(epoch), int(step)])
        return own[np.resize(rng.permutation(len(own)), num_references)]

    def read(epoch: tf.Tensor, step: tf.Tensor, indices: tf.Tensor):
        images = tf.numpy_function(store.batch, [indices], tf.uint8)
        images.set_shape([batch_size, store.image_size, store.image_size, 3])
        own = tf.gather(tf.constant(labels, tf.int32), indices)
        chosen = tf.numpy_function(choose, [epoch, step, own[0]], tf.float16)
        chosen.set_shape([num_references, width])
        return images, own, chosen

    return (
        tf.data.Dataset.range(first_epoch, last_epoch)
        .flat_map(planned)
        # One batch at a time: the store reads a batch with all cores by itself.
        .map(read, num_parallel_calls=1)
        .prefetch(2)
    )


def plan_epoch(
    labels: np.ndarray,
    batch_size: int,
    seed: int,
    epoch: int,
    nobody: int | None = None,
) -> np.ndarray:
    """Returns the indices of an epoch's batches, int64 `[steps, batch_size]`."""
    rng = np.random.default_rng([seed, epoch])
    batches = {
        label: _full_batches(
            rng.permutation(np.flatnonzero(labels == label)), batch_size
        )
        for label in np.unique(labels)
    }
    others = batches.pop(nobody, None)
    if others is not None:
        own = sum(map(len, batches.values()))
        batches[nobody] = others[:own] if own else others
    return rng.permutation(np.concatenate(list(batches.values())))


def steps_per_epoch(
    labels: np.ndarray, batch_size: int, nobody: int | None = None
) -> int:
    """Returns how many batches an epoch has."""
    return len(plan_epoch(labels, batch_size, 0, 0, nobody))


def _full_batches(order: np.ndarray, batch_size: int) -> np.ndarray:
    count = -(-len(order) // batch_size)
    return np.resize(order, (count, batch_size))
