import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anime_tf import images, run_files
from anime_tf.datasets.image_folder import find_pictures
from anime_tf.errors import UserError
from anime_tf.inference import Recognizer
from anime_tf.prediction import UNKNOWN
from tests import tiny

SIZE = tiny.IMAGE_SIZE


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return tiny.trained_run(tmp_path_factory)


@pytest.fixture(scope="module")
def recognizer(run):
    return Recognizer.load(run)


@pytest.fixture(scope="module")
def pictures(run):
    return find_pictures([run.parent / "data"])


@pytest.fixture
def copy(run, tmp_path):
    return shutil.copytree(run, tmp_path / "copy")


def _edit(folder, **changes):
    path = folder / run_files.RECOGNIZER
    record = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(record | changes), encoding="utf-8")


def _agree(one, other):
    """Equal but for the last bits, which depend on a row's place in its batch."""
    assert one.name == other.name
    assert one.confidence == pytest.approx(other.confidence, abs=1e-5)
    assert one.known_score == pytest.approx(other.known_score, abs=1e-4)
    assert [name for name, _ in one.top] == [name for name, _ in other.top]


def test_names_the_characters(recognizer, pictures):
    found = recognizer.predict(pictures)
    assert [p.source for p in found] == [str(path) for path in pictures]
    right = [p.top[0][0] == Path(p.source).parent.name for p in found]
    assert np.mean(right) > 0.9
    for prediction in found:
        names, shares = zip(*prediction.top, strict=True)
        assert sorted(names) == sorted(tiny.NAMES)
        assert list(shares) == sorted(shares, reverse=True)
        assert sum(shares) == pytest.approx(1.0, abs=1e-5)
        assert prediction.confidence == shares[0]
        assert prediction.is_unknown is (prediction.name == UNKNOWN)
        assert prediction.is_unknown or prediction.name == names[0]
        is_low = prediction.known_score < float(recognizer.novelty.threshold)
        assert prediction.is_unknown is is_low
    assert np.mean([p.is_unknown for p in found]) < 0.2


def test_strangers_are_unknown(recognizer, tmp_path):
    tiny.draw_strangers(tmp_path / "strangers")
    found = recognizer.predict(find_pictures([tmp_path / "strangers"]))
    assert np.mean([p.name == UNKNOWN for p in found]) > 0.5


def test_alone_and_in_company(recognizer, pictures):
    alone = recognizer.predict(pictures[7])
    together = recognizer.predict(pictures[:40], batch_size=40)
    assert len(alone) == 1
    assert len(together) == 40
    _agree(together[7], alone[0])
    by_three = recognizer.predict(pictures[:40], batch_size=3)
    for one, other in zip(by_three, together, strict=True):
        _agree(one, other)


def test_all_kinds_of_input_agree(recognizer, pictures):
    path = pictures[3]
    with Image.open(path) as opened:
        image = opened.copy()
    array = np.asarray(image)
    sources = [path, str(path), path.read_bytes(), image, array]
    found = recognizer.predict(sources)
    assert [p.source for p in found] == [str(path), str(path), "2", "3", "4"]
    for one, source in zip(found, sources, strict=True):
        _agree(one, found[0])
        _agree(*recognizer.predict(source), found[0])
    stacked = recognizer.predict(np.stack([array, array]))
    assert [p.name for p in stacked] == [found[0].name] * 2
    lazily = recognizer.predict(path for path in [path])
    assert lazily[0].name == found[0].name


def test_transparency_is_white_whatever_the_input(recognizer):
    image = Image.new("RGBA", (40, 30), (255, 0, 0, 0))
    image.paste((20, 40, 200, 255), (5, 5, 20, 20))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    found = recognizer.predict([image, buffer.getvalue(), images.to_rgb(image)])
    for one in found[1:]:
        _agree(one, found[0])


def test_what_cannot_be_read_stops_nobody(recognizer, pictures, tmp_path):
    truncated = io.BytesIO(pictures[0].read_bytes()[:1500])
    garbage = tmp_path / "garbage.png"
    garbage.write_bytes(b"no picture")
    sources = [
        pictures[0],
        garbage,
        tmp_path / "absent.png",
        b"",
        np.zeros((4, 4)),
        np.zeros((0, 4, 3), np.uint8),
        Image.open(truncated),
        tmp_path / "nul\0.png",
        pictures[1],
    ]
    found = recognizer.predict(sources, batch_size=4)
    assert len(found) == len(sources)
    for prediction in found[1:-1]:
        assert prediction.problem
        assert prediction.name == ""
        assert prediction.top == ()
    expected = recognizer.predict(pictures[:2])
    for one, other in zip([found[0], found[-1]], expected, strict=True):
        assert (one.name, one.problem) == (other.name, "")


def test_nothing_readable_and_nothing_at_all(recognizer):
    found = recognizer.predict([b"a", b"b", b"c"], batch_size=2)
    assert ["JPEG" in p.problem for p in found] == [True] * 3
    assert recognizer.predict([]) == []


def test_top_k(recognizer, pictures):
    for top_k, count in ((1, 1), (2, 2), (9, 3)):
        (found,) = recognizer.predict(pictures[0], top_k=top_k)
        assert len(found.top) == count


def test_stream_hands_out_its_batches(recognizer, pictures):
    batches = []
    sources = [*pictures[:3], b"bad", *pictures[3:5]]

    def on_batch(squares, predictions):
        batches.append((len(squares), [p.source for p in predictions]))

    stream = recognizer.stream(sources, batch_size=4, on_batch=on_batch)
    next(stream)
    # As it goes, not all at the end.
    assert len(batches) == 1
    assert len(list(stream)) == 5
    assert batches == [
        (3, [str(p) for p in pictures[:3]]),
        (2, [str(p) for p in pictures[3:5]]),
    ]


def test_labels_keep_their_order(recognizer, run):
    assert recognizer.class_names == tuple(sorted(tiny.NAMES))
    text = (run / run_files.RECOGNIZER).read_text(encoding="utf-8")
    assert "初音未来" in text
    assert json.loads(text)["class_names"] == sorted(tiny.NAMES)


def test_save_and_load_predict_the_same(recognizer, pictures, copy):
    recognizer.save(copy)
    loaded = Recognizer.load(copy).predict(pictures[:5])
    for one, other in zip(loaded, recognizer.predict(pictures[:5]), strict=True):
        _agree(one, other)


def test_explain(recognizer, pictures):
    squares = [images.load_square(path, SIZE) for path in pictures[:5]]
    overlays = recognizer.explain(squares, recognizer.predict(pictures[:5]))
    assert len(overlays) == 5
    for overlay, square in zip(overlays, squares, strict=True):
        assert (overlay.mode, overlay.size) == ("RGB", (SIZE, SIZE))
        assert not np.array_equal(np.asarray(overlay), square)


def test_explain_tints_where_the_character_is(recognizer):
    # The map is coarse (4 x 4), so the picture is: a disc in one corner.
    square = np.full((SIZE, SIZE, 3), 200, np.uint8)
    square[2:14, 2:14] = (220, 50, 40)
    predictions = recognizer.predict(square)
    (overlay,) = recognizer.explain([square], predictions)
    assert np.asarray(overlay).std() > 0


# Loading is strict.


def test_an_untrained_folder(tmp_path):
    with pytest.raises(UserError, match=r"no trained model in .*train one with"):
        Recognizer.load(tmp_path)
    assert not Recognizer.exists(tmp_path)


def test_an_unfinished_run(copy):
    (copy / run_files.RECOGNIZER).unlink()
    with pytest.raises(UserError, match=r"not finished.*train --resume --out .*copy"):
        Recognizer.load(copy)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"image_size": 64}, "image_size should be 64, found 32"),
        ({"class_names": list("ab")}, "number of class_names should be 2, found 3"),
        ({"class_names": list("abcd")}, "number of class_names should be 4, found 3"),
        ({"threshold": -0.25}, r"threshold in novelty\.npz should be -0\.25"),
    ],
)
def test_the_record_of_another_run(copy, changes, named):
    _edit(copy, **changes)
    with pytest.raises(UserError, match=f"copy do not belong together: .*{named}"):
        Recognizer.load(copy)


@pytest.mark.parametrize(
    "changes",
    [
        {"format": 2},
        {"class_names": None},
        {"class_names": [1, 2, 3]},
        {"temperature": "warm"},
        {"temperature": 0},
        {"temperature": float("nan")},
    ],
)
def test_a_record_that_is_not_valid(copy, changes):
    _edit(copy, **changes)
    with pytest.raises(UserError, match=r"recognizer\.json is not valid"):
        Recognizer.load(copy)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": 1}', "null", "\xff"])
def test_a_record_that_is_no_record(copy, content):
    (copy / run_files.RECOGNIZER).write_text(content, encoding="latin-1")
    with pytest.raises(UserError, match=r"recognizer\.json is not valid"):
        Recognizer.load(copy)


@pytest.mark.parametrize("name", [run_files.NOVELTY, run_files.CLASSIFIER])
@pytest.mark.parametrize("content", [None, b"garbage"])
def test_a_part_that_is_absent_or_damaged(copy, name, content):
    if content is None:
        (copy / name).unlink()
    else:
        (copy / name).write_bytes(content)
    with pytest.raises(UserError, match=name):
        Recognizer.load(copy)


def test_the_novelty_of_another_network(copy):
    with np.load(copy / run_files.NOVELTY) as content:
        parts = dict(content)
    np.savez(
        copy / run_files.NOVELTY,
        **{**parts, "means": np.zeros((3, 9)), "whitening": np.eye(9)},
    )
    with pytest.raises(UserError, match="features should be 9, found 16"):
        Recognizer.load(copy)


# Finding pictures.


@pytest.fixture
def tree(tmp_path, monkeypatch):
    for name in ("b.png", "a.jpg", "sub/c.webp", "sub/.hidden.png", "odd [1].png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (["b.png"], ["b.png"]),
        (["sub"], ["sub/c.webp"]),
        (["."], ["a.jpg", "b.png", "odd [1].png", "sub/c.webp"]),
        (["*.png"], ["b.png", "odd [1].png"]),
        (["**/*.webp"], ["sub/c.webp"]),
        (["*"], ["a.jpg", "b.png", "odd [1].png"]),
        (["odd [1].png"], ["odd [1].png"]),
        (["b.png", "*.png", Path("a.jpg")], ["b.png", "odd [1].png", "a.jpg"]),
    ],
)
def test_find_pictures(tree, patterns, expected):
    assert [path.as_posix() for path in find_pictures(patterns)] == expected


@pytest.mark.parametrize("pattern", ["absent.png", "*.gif", "absent/", "[", "empty"])
def test_find_pictures_says_what_found_nothing(tree, pattern):
    (tree / "empty").mkdir()
    with pytest.raises(UserError, match="no pictures at") as caught:
        find_pictures(["b.png", pattern])
    assert pattern in str(caught.value)
