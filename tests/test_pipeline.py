import threading

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from anime_tf import images
from anime_tf.datasets.image_folder import look_into
from anime_tf.datasets.pipeline import (
    PictureStore,
    evaluation_batches,
    training_batches,
)
from anime_tf.errors import UserError

SIZE = 8
PICTURE_BYTES = SIZE * SIZE * 3
COUNT = 10
LABELS = np.eye(COUNT, dtype=np.float32)


@pytest.fixture
def paths(tmp_path, write):
    """Ten pictures: number n is all of grey 20 n, so a picture tells its number."""
    return [
        write(tmp_path / f"{n}.png", Image.new("RGB", (SIZE, SIZE), (20 * n,) * 3))
        for n in range(COUNT)
    ]


@pytest.fixture
def make_store(paths, open_cache):
    def make_store(memory_bytes: int = 10**6, cache=None, fill: bool = True):
        cache = cache or open_cache()
        digests = [sha256 for sha256, _ in look_into(paths, cache, SIZE * fill or None)]
        return PictureStore(paths, digests, SIZE, cache, memory_bytes)

    return make_store


@pytest.fixture
def decoded(monkeypatch):
    """A list that grows by one with each picture decoded."""
    calls, original = [], images.decode

    def decode(*args, **kwargs):
        calls.append(threading.get_ident())
        return original(*args, **kwargs)

    monkeypatch.setattr(images, "decode", decode)
    return calls


# The order of training


def test_every_picture_exactly_once_an_epoch(make_store):
    epochs = _epochs(_training(make_store(), epochs=(0, 4)))
    assert len(epochs) == 4
    for epoch in epochs:
        assert sorted(epoch) == list(range(COUNT))


def test_epochs_differ_and_so_do_seeds(make_store):
    store = make_store()
    epochs = _epochs(_training(store, epochs=(0, 3)))
    assert len(set(map(tuple, epochs))) == 3
    others = _epochs(_training(store, seed=6, epochs=(0, 3)))
    assert not set(map(tuple, epochs)) & set(map(tuple, others))


def test_the_same_seed_gives_the_same_order(make_store):
    store = make_store()
    dataset = _training(store, epochs=(0, 3))
    first = _numbers(dataset)
    assert _numbers(dataset) == first
    assert _numbers(_training(make_store(memory_bytes=0), epochs=(0, 3))) == first


@pytest.mark.parametrize("start", [1, 3])
def test_a_resumed_run_sees_what_an_uninterrupted_one_sees(make_store, start):
    store = make_store()
    whole = _epochs(_training(store, epochs=(0, 5)))
    assert _epochs(_training(store, epochs=(start, 5))) == whole[start:]


def test_the_order_does_not_depend_on_the_batch_size(make_store):
    store = make_store()
    by_4 = _numbers(_training(store, epochs=(0, 2)))
    assert _numbers(_training(store, epochs=(0, 2), batch_size=3)) == by_4


def test_large_seeds(make_store):
    store = make_store()
    order = _numbers(_training(store, seed=2**31 + 5, epochs=(0, 1)))
    assert sorted(order) == list(range(COUNT))
    assert order != _numbers(_training(store, seed=5, epochs=(0, 1)))


def test_no_epochs_no_batches(make_store):
    assert list(_training(make_store(), epochs=(3, 3))) == []


# The elements


def test_labels_match_pictures(make_store):
    labels = np.zeros((COUNT, 3), np.float64)
    labels[np.arange(COUNT), np.arange(COUNT) % 3] = 1
    dataset = training_batches(make_store(), labels, 4, 5, 0, 2)
    for pictures, found in dataset.as_numpy_iterator():
        numbers = pictures[:, 0, 0, 0] // 20
        assert np.array_equal(found, labels[numbers])
        assert (found.argmax(1) == numbers % 3).all()


def test_the_last_batch_of_an_epoch_is_smaller(make_store):
    sizes = [len(pictures) for pictures, _ in _training(make_store(), epochs=(0, 2))]
    assert sizes == [4, 4, 2, 4, 4, 2]


def test_types_and_shapes_are_known(make_store):
    store = make_store()
    for dataset in (_training(store), evaluation_batches(store, LABELS, 4)):
        pictures, labels = dataset.element_spec
        assert pictures == tf.TensorSpec([None, SIZE, SIZE, 3], tf.uint8)
        assert labels == tf.TensorSpec([None, COUNT], tf.float32)
        batch, _ = next(iter(dataset))
        assert batch.dtype == tf.uint8


def test_evaluation_in_order(make_store):
    dataset = evaluation_batches(make_store(), LABELS, 4)
    assert [len(pictures) for pictures, _ in dataset] == [4, 4, 2]
    assert _numbers(dataset) == list(range(COUNT))
    for pictures, labels in dataset.as_numpy_iterator():
        assert np.array_equal(labels.argmax(1), pictures[:, 0, 0, 0] // 20)


def test_pictures_are_letterboxed_whole(tmp_path, draw, write, cache):
    path = write(tmp_path / "wide.png", draw(1, (64, 32)))
    ((digest, _),) = look_into([path], cache)
    store = PictureStore([path], [digest], SIZE, cache, 10**6)
    assert len(store) == 1
    batch = store.batch(np.array([0, 0]))
    assert batch.dtype == np.uint8
    for square in batch:
        assert np.array_equal(square, images.load_square(path, SIZE))


def test_batch_follows_its_indices(make_store):
    batch = make_store().batch(np.array([7, 2, 2, 0]))
    assert batch.shape == (4, SIZE, SIZE, 3)
    assert (batch == np.array([140, 40, 40, 0])[:, None, None, None]).all()


# How often a picture is decoded


def test_a_scan_has_decoded_everything(make_store, decoded):
    store = make_store()
    decoded.clear()
    _numbers(_training(store, epochs=(0, 2)))
    assert decoded == []


def test_without_memory_the_cache_serves(make_store, decoded):
    store = make_store(memory_bytes=0, fill=False)
    decoded.clear()
    first = _epochs(_training(store, epochs=(0, 1)))
    assert len(decoded) == COUNT
    assert sorted(first[0]) == list(range(COUNT))
    _numbers(_training(store, epochs=(1, 3)))
    assert len(decoded) == COUNT


def test_without_cache_the_memory_serves(make_store, open_cache, decoded):
    store = make_store(cache=open_cache(0))
    decoded.clear()
    _numbers(_training(store, epochs=(0, 1)))
    assert len(decoded) == COUNT
    _numbers(_training(store, epochs=(1, 3)))
    assert len(decoded) == COUNT


def test_without_either_every_epoch_decodes(make_store, open_cache, decoded):
    store = make_store(memory_bytes=0, cache=open_cache(0))
    decoded.clear()
    epochs = _epochs(_training(store, epochs=(0, 3)))
    assert [sorted(epoch) for epoch in epochs] == [list(range(COUNT))] * 3
    assert len(decoded) == 3 * COUNT


def test_memory_is_honoured(make_store, open_cache, decoded):
    # Room for four, and a byte too few for a fifth.
    store = make_store(memory_bytes=5 * PICTURE_BYTES - 1, cache=open_cache(0))
    decoded.clear()
    for index in (0, 1, 2, 3, 0, 1, 2, 3):
        store.batch(np.array([index]))
    assert len(decoded) == 4
    for index in (4, 5, 6, 7, 0):
        store.batch(np.array([index]))
    assert len(decoded) == 9


def test_what_is_in_memory_asks_nobody(make_store, open_cache, monkeypatch):
    cache = open_cache()
    store = make_store(cache=cache)
    first = _numbers(_training(store, epochs=(0, 1)))

    def refuse(*_):
        raise AssertionError("asked the cache again")

    monkeypatch.setattr(cache, "pixels", refuse)
    monkeypatch.setattr(images, "decode", refuse)
    assert sorted(_numbers(_training(store, epochs=(1, 2)))) == sorted(first)


# Files that changed


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda path: path.unlink(), "No such file"),
        (lambda path: path.write_bytes(b""), "the file is empty"),
        (
            lambda path: Image.new("RGB", (9, 9), (1, 2, 3)).save(path),
            "its content has changed",
        ),
    ],
)
def test_a_file_that_is_gone_or_another_is_named(
    make_store, open_cache, paths, change, reason
):
    cache = open_cache(0)
    store = make_store(cache=cache)
    change(paths[3])
    with pytest.raises(UserError, match=rf"3\.png was .* none now \(.*{reason}"):
        store.batch(np.array([3]))
    with pytest.raises(tf.errors.OpError, match=r"3\.png was a picture of this run"):
        _numbers(evaluation_batches(store, LABELS, 4))


def test_a_changed_file_does_not_spoil_the_cache(make_store, open_cache, paths):
    make_store(cache=open_cache(0))
    cache = open_cache()
    ((digest, _),) = look_into(paths[3:4], cache)
    store = PictureStore(paths[3:4], [digest], SIZE, cache, 0)
    content = paths[3].read_bytes()
    paths[3].write_bytes(paths[4].read_bytes())
    with pytest.raises(UserError):
        store.batch(np.array([0]))
    assert not cache.has_pixels(digest, SIZE)
    paths[3].write_bytes(content)
    assert (store.batch(np.array([0])) == 60).all()


def test_what_is_cached_needs_no_file(make_store, paths):
    store = make_store(memory_bytes=0)
    for path in paths:
        path.unlink()
    assert _numbers(evaluation_batches(store, LABELS, 4)) == list(range(COUNT))


def _training(store, seed=5, epochs=(0, 1), batch_size=4):
    return training_batches(store, LABELS, batch_size, seed, *epochs)


def _numbers(dataset) -> list[int]:
    """Returns the pictures' numbers in the order in which they come."""
    numbers = []
    for pictures, _ in dataset.as_numpy_iterator():
        assert (pictures == pictures[:, :1, :1, :1]).all()
        numbers += (pictures[:, 0, 0, 0] // 20).tolist()
    return numbers


def _epochs(dataset) -> list[list[int]]:
    numbers = _numbers(dataset)
    return [numbers[start : start + COUNT] for start in range(0, len(numbers), COUNT)]
