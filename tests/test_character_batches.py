"""Batches of one character each, with references."""

import numpy as np
import pytest

from anime_tf.datasets.character_batches import (
    character_batches,
    plan_epoch,
    steps_per_epoch,
)

LABELS = np.array([0] * 7 + [1] * 4 + [2] * 30)


class Store:
    """Pictures whose every pixel is their index."""

    image_size = 8

    def batch(self, indices):
        pixels = np.asarray(indices, np.uint8)[:, None, None, None]
        return np.broadcast_to(pixels, (len(indices), 8, 8, 3)).copy()


def _batches(first=0, last=1, labels=LABELS, seed=0, count=6):
    # The only feature of a reference says which picture it describes.
    references = {
        label: np.flatnonzero(labels == label)[:, None].astype(np.float16)
        for label in np.unique(labels)
    }
    dataset = character_batches(
        Store(), labels, references, 4, count, seed, first, last
    )
    return [
        (images[:, 0, 0, 0].numpy(), own.numpy(), chosen.numpy().ravel())
        for images, own, chosen in dataset
    ]


def test_a_batch_is_of_one_character():
    batches = _batches()
    assert len(batches) == steps_per_epoch(LABELS, 4) == 2 + 1 + 8
    for images, own, references in batches:
        assert images.shape == own.shape == (4,)
        assert len(set(own)) == 1
        assert set(LABELS[images]) == set(own)
        assert set(LABELS[references.astype(int)]) == set(own)


def test_an_epoch_shows_every_picture():
    shown = np.concatenate([images for images, _, _ in _batches()])
    assert set(shown) == set(range(len(LABELS)))
    # The last batch of 7 and of 30 is filled up: 1 and 2 pictures come twice.
    assert len(shown) == len(LABELS) + 1 + 2


def test_references_are_no_two_times_the_same():
    batches = _batches(last=20, count=4)
    assert all(len(set(rows)) == 4 for _, _, rows in batches)
    assert set(np.concatenate([rows for _, _, rows in batches])) == set(range(41))


def test_few_pictures_are_several_references_each():
    batches = _batches(labels=np.array([0, 0, 0]))
    assert sorted(batches[0][2]) == [0, 0, 1, 1, 2, 2]
    assert batches[0][0].shape == (4,)


def test_an_epoch_depends_on_seed_and_number_alone():
    straight = _batches(0, 4)
    resumed = _batches(0, 2) + _batches(2, 4)
    for one, other in zip(straight, resumed, strict=True):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a, b)
    first, second = straight[:11], straight[11:22]
    assert any(
        not np.array_equal(a[0], b[0]) for a, b in zip(first, second, strict=True)
    )
    assert any(
        not np.array_equal(a[0], b[0])
        for a, b in zip(first, _batches(seed=1), strict=True)
    )


def test_nobody_gets_no_more_than_all_others_together():
    labels = np.array([0] * 8 + [1] * 4 + [2] * 100)
    plan = plan_epoch(labels, 4, seed=0, epoch=0, nobody=2)
    owners = labels[plan[:, 0]]
    assert np.bincount(owners).tolist() == [2, 1, 3]
    again = plan_epoch(labels, 4, seed=0, epoch=1, nobody=2)
    assert set(plan.ravel()) != set(again.ravel()), "others of them in each epoch"


def test_nobody_alone_is_shown_whole():
    plan = plan_epoch(np.full(8, 3), 4, seed=0, epoch=0, nobody=3)
    assert sorted(plan.ravel()) == list(range(8))


def test_without_references_there_are_none():
    dataset = character_batches(Store(), LABELS, {}, 4, 6, 0, 0, 1)
    images, own, references = next(iter(dataset))
    assert references.shape == (6, 0)
    assert images.shape == (4, 8, 8, 3)
    assert own.shape == (4,)


def test_an_error_of_the_store_ends_the_run():
    class Broken(Store):
        def batch(self, indices):
            raise ValueError("gone")

    dataset = character_batches(Broken(), LABELS, {}, 4, 6, 0, 0, 1)
    with pytest.raises(Exception, match="gone"):
        next(iter(dataset))
