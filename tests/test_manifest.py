import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from anime_tf import files as files_module
from anime_tf.datasets.cache import Fingerprint
from anime_tf.datasets.image_folder import FolderScan, ScannedFile, scan_folder
from anime_tf.datasets.manifest import (
    LEFT_OUT,
    SPLITS,
    Manifest,
    build_manifest,
    num_shared_drawings,
)
from anime_tf.errors import UserError


class Collection:
    """Scans made by hand. Each drawing has random hashes: unlike all others."""

    def __init__(self, seed: int = 0, root: str = "in"):
        self.root = Path(root)
        self.files: list[ScannedFile] = []
        self._rng = np.random.default_rng(seed)

    def drawing(self) -> int:
        return int(self._rng.integers(2**64, dtype=np.uint64))

    def add(self, label: str, drawing: int | None = None, content: str = "") -> str:
        """Adds a picture; without `drawing` of a new drawing; returns its path."""
        number = len(self.files)
        phash = self.drawing() if drawing is None else drawing
        fingerprint = Fingerprint(9, 9, "PNG", False, f"{phash:016x}", "0" * 16)
        path = f"{label}/{number:04}.png"
        content = content or f"{self.root}-{number}"
        self.files.append(ScannedFile(path, label, content, fingerprint))
        return path

    def add_many(self, **counts: int) -> "Collection":
        for label, count in counts.items():
            for _ in range(count):
                self.add(label)
        return self

    def add_unreadable(self, path: str, problem: str) -> None:
        label = path.split("/")[0]
        self.files.append(ScannedFile(path, label, "", Fingerprint(problem=problem)))

    def scan(self, *more_names: str) -> FolderScan:
        names = sorted({file.label for file in self.files} | set(more_names))
        files = sorted(self.files, key=lambda file: file.path)
        return FolderScan(self.root, tuple(names), tuple(files), ())


# Fractions


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        # Worked by hand: each picture goes where most is missing, the first of equals.
        # 3: (2.1 .45 .45): train, train, then .1 .45 .45: validation.
        (1, (1, 0, 0)),
        (2, (2, 0, 0)),
        (3, (2, 1, 0)),
        (4, (3, 1, 0)),
        (5, (3, 1, 1)),
        (10, (7, 2, 1)),
        (20, (14, 3, 3)),
        (100, (70, 15, 15)),
    ],
)
def test_shares_of_a_character(count, expected):
    manifest = build_manifest(Collection().add_many(Asuka=count, Rei=20).scan())
    assert tuple(manifest.counts()["Asuka"].values()) == expected
    assert tuple(manifest.counts()["Rei"].values()) == (14, 3, 3)


@pytest.mark.parametrize("seed", range(20))
def test_every_character_is_split_alike(seed):
    counts = {"Asuka": 200, "Misato": 61, "Rei": 17, "初音": 11}
    scan = Collection().add_many(**counts).scan()
    split = build_manifest(scan, (0.6, 0.3, 0.1), seed).counts()
    for name, count in counts.items():
        for share, found in zip((0.6, 0.3, 0.1), split[name].values(), strict=True):
            assert abs(found - share * count) <= 1
        assert sum(split[name].values()) == count


def test_fractions_without_a_test():
    scan = Collection().add_many(Asuka=20, Rei=20).scan()
    counts = build_manifest(scan, (0.8, 0.2, 0.0)).counts()
    assert tuple(counts["Asuka"].values()) == (16, 4, 0)


@pytest.mark.parametrize("seed", range(30))
def test_rare_characters_are_on_all_sides(seed):
    # Duplicates of uneven number, among them groups that two characters share.
    rng = np.random.default_rng(seed)
    collection = Collection(seed)
    drawings = {"a": 5, "b": 6, "c": 11, "d": 12, "e": 30}
    for label, count in drawings.items():
        for _ in range(count):
            drawing = collection.drawing()
            for _ in range(rng.choice([1, 1, 1, 2, 4])):
                collection.add(label, drawing)
    counts = build_manifest(collection.scan(), seed=seed).counts()
    for label, count in drawings.items():
        assert counts[label]["train"] > 0
        assert counts[label]["validation"] > 0
        if count > 10:
            assert counts[label]["test"] > 0, (label, counts[label])


def test_few_drawings_still_give_a_validation_picture():
    for count in (3, 4):
        manifest = build_manifest(Collection().add_many(Asuka=count, Rei=count).scan())
        for name in ("Asuka", "Rei"):
            assert manifest.counts()[name]["validation"] == 1


# The seed


def test_the_same_seed_gives_the_same_split():
    scan = Collection().add_many(Asuka=40, Rei=30).scan()
    assert build_manifest(scan, seed=7) == build_manifest(scan, seed=7)
    first = [item.split for item in build_manifest(scan, seed=7).items]
    second = [item.split for item in build_manifest(scan, seed=8).items]
    assert first != second
    assert Counter(first) == Counter(second)


def test_the_split_of_seed_0_stays_what_it_was():
    # Written down once: a change here gives every user another split.
    scan = Collection().add_many(Asuka=6, Rei=6).scan()
    splits = [item.split[:2] for item in build_manifest(scan, seed=0).items]
    assert " ".join(splits[:6]) == "tr te tr va tr tr"
    assert " ".join(splits[6:]) == "tr tr te tr va tr"


def test_the_split_does_not_follow_the_names():
    # Over many seeds every picture is a test picture about as often: 3 of 20, that is
    # 30 of 200 seeds; a deviation of 20 is four standard deviations.
    scan = Collection().add_many(Asuka=20, Rei=20).scan()
    tests = Counter()
    for seed in range(200):
        tests.update(
            item.path for item in build_manifest(scan, seed=seed).split("test")
        )
    assert len(tests) == 40
    assert all(abs(count - 30) <= 20 for count in tests.values())


# Duplicates


@pytest.mark.parametrize("seed", range(25))
def test_a_drawing_is_never_on_two_sides(seed):
    rng = np.random.default_rng(seed)
    collection = Collection(seed)
    drawings = [collection.drawing() for _ in range(30)]
    shown = {}
    for label in ("Asuka", "Misato", "Rei"):
        for _ in range(40):
            which = int(rng.integers(30))
            # A bit or two off, as a re-saved copy is.
            noise = 1 << int(rng.integers(64))
            shown[collection.add(label, drawings[which] ^ noise)] = which
    manifest = build_manifest(collection.scan(), seed=seed)
    sides, groups = {}, {}
    for item in manifest.items:
        assert item.split in SPLITS
        sides.setdefault(shown[item.path], set()).add(item.split)
        groups.setdefault(shown[item.path], set()).add(item.group)
    assert len(manifest.items) == 120
    assert all(len(side) == 1 for side in sides.values())
    assert all(len(numbers) == 1 for numbers in groups.values())
    assert len(set.union(*groups.values())) == len(groups)


def test_one_large_group_goes_to_the_training_whole():
    collection = Collection()
    drawing = collection.drawing()
    for _ in range(12):
        collection.add("Asuka", drawing)
    collection.add_many(Asuka=8, Rei=20)
    counts = build_manifest(collection.scan()).counts()["Asuka"]
    # (14 3 3): twelve to train (2 left), then one by one: validation and test get 3.
    assert counts == {"train": 14, "validation": 3, "test": 3}


def test_equal_files_under_two_characters_are_left_out():
    collection = Collection().add_many(Asuka=10, Rei=10)
    drawing = collection.drawing()
    doubtful = {
        collection.add("Asuka", drawing, content="same"),
        collection.add("Rei", drawing, content="same"),
        collection.add("Rei", drawing, content="same"),
    }
    # Re-saved, it may well be a picture of both: it stays.
    near = collection.add("Asuka", drawing ^ 1)
    # Twice under one character is no doubt at all.
    twice = [collection.add("Rei", content="twice") for _ in range(2)]
    manifest = build_manifest(collection.scan())
    assert {item.path for item in manifest.split(LEFT_OUT)} == doubtful
    sides = {item.path: item.split for item in manifest.items}
    assert sides[near] in SPLITS
    assert sides[twice[0]] == sides[twice[1]] != LEFT_OUT
    assert sum(manifest.counts()["Rei"].values()) == 12


# An explicit test folder


def test_explicit_test_folder():
    collection = Collection().add_many(Asuka=20, Rei=20)
    tests = Collection(seed=1, root="held out").add_many(Asuka=3, Rei=4)
    drawing = collection.drawing()
    seen = {
        collection.add("Asuka", drawing),
        collection.add("Asuka", drawing ^ 1),
        collection.add("Rei", content="copied"),
    }
    tests.add("Asuka", drawing)
    tests.add("Rei", content="copied")
    tests.add_unreadable("Rei/zz.png", "the file is empty")
    manifest = build_manifest(collection.scan(), test_scan=tests.scan())
    held_out = manifest.split("test")
    assert {item.path for item in held_out} == {
        file.path for file in tests.files if file.readable
    }
    assert all(item.held_out for item in held_out)
    assert not any(i.held_out for i in manifest.items if i.split != "test")
    assert {item.path for item in manifest.split(LEFT_OUT)} == seen
    # Twenty each are left; 0.7 of 0.85 are 16.47 of them, 0.15 are 3.53. When 16 and 3
    # are placed, .47 and .53 are missing: the last one goes to the validation.
    counts = manifest.counts()
    assert counts["Asuka"] == {"train": 16, "validation": 4, "test": 4}
    assert counts["Rei"] == {"train": 16, "validation": 4, "test": 5}
    assert manifest.data_dir == str(Path("in").resolve())
    assert manifest.test_dir == str(Path("held out").resolve())
    first = held_out[0]
    assert manifest.path_of(first) == Path("held out").resolve() / first.path
    other = manifest.split("train")[0]
    assert manifest.path_of(other) == Path("in").resolve() / other.path
    assert manifest.skipped == (("held out/Rei/zz.png", "the file is empty"),)


@pytest.mark.parametrize("seed", range(10))
def test_drawings_of_the_test_folder_are_never_trained_on(seed):
    rng = np.random.default_rng(seed)
    collection, tests = Collection(seed), Collection(seed + 100, root="test")
    drawings = [collection.drawing() for _ in range(40)]
    shown = {}
    for index in rng.integers(0, 40, 80):
        drawing = drawings[index] ^ (1 << int(rng.integers(64)))
        shown[collection.add(["Asuka", "Rei"][index % 2], drawing)] = int(index)
    tested = set(rng.integers(0, 40, 8).tolist())
    for index in tested:
        tests.add(["Asuka", "Rei"][index % 2], drawings[index])
    manifest = build_manifest(collection.scan(), seed=seed, test_scan=tests.scan())
    for item in manifest.items:
        if not item.held_out:
            assert (item.split == LEFT_OUT) == (shown[item.path] in tested)


def test_test_folder_with_strangers():
    tests = Collection(root="test").add_many(Asuka=2, Misato=1, 初音=1)
    with pytest.raises(UserError, match=r"does not have: Misato, 初音;"):
        build_manifest(
            Collection().add_many(Asuka=9, Rei=9).scan(), test_scan=tests.scan()
        )


def test_test_folder_without_a_readable_picture():
    tests = Collection(root="test")
    tests.add_unreadable("Asuka/1.png", "the file is empty")
    with pytest.raises(UserError, match="no readable picture in the test folder test"):
        build_manifest(
            Collection().add_many(Asuka=9, Rei=9).scan(), test_scan=tests.scan()
        )


# Collections with parts of their own


def _with_parts(collection, parts):
    """The scan, with a part for some of its paths."""
    scan = collection.scan()
    files = [replace(f, split=parts.get(f.path, "")) for f in scan.files]
    return replace(scan, files=tuple(files))


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        # 10 are held out; 20 are open and go to the others by their shares.
        (("test",), (16, 4, 10)),  # .7 and .15 of .85: 16.5 and 3.5
        (("validation",), (16, 10, 4)),
        (("validation", "test"), (20, 5, 5)),
    ],
)
def test_own_parts_stay_and_the_others_are_split(own, expected):
    collection = Collection().add_many(Asuka=30, Rei=30)
    parts = {}
    for name in ("Asuka", "Rei"):
        paths = [file.path for file in collection.files if file.label == name]
        parts |= {path: own[n % len(own)] for n, path in enumerate(paths[:10])}
    manifest = build_manifest(_with_parts(collection, parts))
    for counts in manifest.counts().values():
        assert tuple(counts.values()) == expected
    for item in manifest.items:
        assert item.split == parts.get(item.path, item.split)
        assert not item.held_out
    assert num_shared_drawings(manifest) == 0


def test_what_is_held_out_is_not_trained_on():
    collection = Collection().add_many(Asuka=9, Rei=9)
    drawing = collection.drawing()
    held_out = collection.add("Asuka", drawing, content="same")
    equal = collection.add("Asuka", drawing, content="same")
    alike = collection.add("Asuka", drawing)
    manifest = build_manifest(_with_parts(collection, {held_out: "test"}))
    splits = {item.path: item.split for item in manifest.items}
    assert (splits[held_out], splits[equal]) == ("test", LEFT_OUT)
    # The collection's own part stays as it is: that is for the user to know.
    assert splits[alike] in ("train", "validation")
    assert num_shared_drawings(manifest) == (splits[alike] == "train")


# What cannot be used


def test_skipped_pictures_are_named_with_the_reason():
    collection = Collection().add_many(Asuka=5, Rei=5)
    collection.add_unreadable("Asuka/broken.png", "damaged or truncated: x")
    collection.add_unreadable("Misato/note.txt", "not a picture")
    manifest = build_manifest(collection.scan())
    assert manifest.skipped == (
        ("Asuka/broken.png", "damaged or truncated: x"),
        ("Misato/note.txt", "not a picture"),
    )
    assert len(manifest.items) == 10
    # Nobody can be recognised whom no readable picture shows.
    assert manifest.class_names == ("Asuka", "Rei")
    assert {m.label for m in manifest.items if m.path.startswith("Rei")} == {1}


def test_one_character_is_refused():
    scan = Collection().add_many(Asuka=9).scan("Misato", "Rei")
    with pytest.raises(UserError, match=r"only one character .* in in \(Asuka\)"):
        build_manifest(scan)


def test_nothing_readable_is_refused():
    collection = Collection()
    collection.add_unreadable("Asuka/1.png", "the file is empty")
    collection.add_unreadable("Rei/1.png", "the file is empty")
    with pytest.raises(UserError, match="none of the 2 files in in is a readable"):
        build_manifest(collection.scan())


# JSON


def test_json_round_trip(tmp_path):
    collection = Collection().add_many(Asuka=9, 初音ミク=9)
    collection.add_unreadable("Asuka/broken.png", "damaged or truncated: “x”\n")
    collection.add_unreadable("Asuka/\udc8f\udcff.png", "the name is no UTF-8")
    tests = Collection(seed=1, root="test").add_many(Asuka=2).scan()
    for test_scan in (None, tests):
        manifest = build_manifest(collection.scan(), test_scan=test_scan)
        filepath = tmp_path / "manifest.json"
        files_module.write_text(filepath, manifest.to_json())
        assert Manifest.load(filepath) == manifest
        assert "初音ミク" in filepath.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "",
        lambda text: "[]",
        lambda text: "null",
        lambda text: "7",
        lambda text: text.replace('"items"', '"things"'),
        lambda text: text.replace('"sha256"', '"md5"'),
        lambda text: text.replace('"format": 1', '"format": 2'),
        lambda text: text.replace('"format": 1,', ""),
        lambda text: text.replace('"test_dir": null', '"x": null'),
        lambda text: _with(text, items=["x"]),
        lambda text: _with(text, items=None),
        lambda text: _with(text, skipped=[["one alone"]]),
        lambda text: text.encode("utf-16"),
    ],
)
def test_damaged_json(tmp_path, damage):
    text = build_manifest(Collection().add_many(Asuka=9, Rei=9).scan()).to_json()
    damaged = damage(text)
    assert damaged != text
    filepath = tmp_path / "manifest.json"
    filepath.write_bytes(damaged if isinstance(damaged, bytes) else damaged.encode())
    with pytest.raises(UserError, match="no usable manifest") as caught:
        Manifest.load(filepath)
    assert str(filepath) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_json(tmp_path):
    with pytest.raises(
        UserError, match=r"manifest\.json is no usable manifest: .*No su"
    ):
        Manifest.load(tmp_path / "manifest.json")


# From real files


def test_from_folders_of_pictures(tmp_path, draw, write, cache):
    root = tmp_path / "characters"
    for seed in range(6):
        write(root / "Rem" / f"{seed}.png", draw(seed))
        write(root / "ラム" / f"{seed}.jpg", draw(seed + 10))
    write(root / "Rem" / "0 again.jpg", draw(0))
    write(root / "Rem" / "misfiled.png", draw(99))
    write(root / "ラム" / "misfiled.png", draw(99))
    write(root / "ラム" / "note.txt", b"no picture")
    manifest = build_manifest(scan_folder(root, cache), seed=3)
    assert manifest.class_names == ("Rem", "ラム")
    assert manifest.data_dir == str(root.resolve())
    assert manifest.test_dir is None
    items = {item.path: item for item in manifest.items}
    assert len(items) == 15
    assert items["Rem/0.png"].group == items["Rem/0 again.jpg"].group
    assert items["Rem/0.png"].split == items["Rem/0 again.jpg"].split
    for name in ("Rem", "ラム"):
        assert items[f"{name}/misfiled.png"].split == LEFT_OUT
    assert [path for path, _ in manifest.skipped] == ["ラム/note.txt"]
    assert all(manifest.path_of(item).is_file() for item in manifest.items)
    for item in manifest.items:
        assert manifest.class_names[item.label] == item.path.split("/")[0]
    assert sum(manifest.counts()["Rem"].values()) == 7


def _with(text: str, **changes) -> str:
    return json.dumps(json.loads(text) | changes)
