import json
from pathlib import Path

import numpy as np
import pytest

from anime_tf.datasets.cache import Fingerprint
from anime_tf.datasets.health import FEW_PICTURES, examine
from anime_tf.datasets.image_folder import FolderScan, ScannedFile


def test_counts_few_and_imbalance():
    # 90 : 30 : 12 pictures; 90 / 12 = 7.5. Nobody is not counted as the smallest.
    scan = _scan({"Asuka": 90, "Misato": 0, "Rei": FEW_PICTURES, "初音": 12})
    health = examine(scan)
    assert health.counts == {"Asuka": 90, "Misato": 0, "Rei": 30, "初音": 12}
    assert list(health.counts) == ["Asuka", "Misato", "Rei", "初音"]
    assert health.few == ("Misato", "初音")
    assert health.imbalance == 7.5
    assert health.unreadable == health.animated == health.strays == ()
    assert health.duplicates == health.misfiled == ()


def test_few_means_fewer_than_thirty():
    assert FEW_PICTURES == 30
    assert examine(_scan({"Asuka": 29, "Rei": 30})).few == ("Asuka",)


def test_equal_counts_are_balanced():
    assert examine(_scan({"Asuka": 5, "Rei": 5})).imbalance == 1


def test_nothing_readable():
    scan = _scan({"Asuka": 0}, extra=[_file("Asuka/x.txt", "x", problem="no picture")])
    health = examine(scan)
    assert health.imbalance == 1
    assert health.counts == {"Asuka": 0}
    assert health.unreadable == (("Asuka/x.txt", "no picture"),)


def test_unreadable_animated_and_strays():
    extra = [
        _file("Asuka/dance.gif", "dance", phash=2**40, animated=True),
        _file("Asuka/broken.png", "broken", problem="damaged or truncated: x"),
        _file("Rei/empty.jpg", "", problem="the file is empty"),
    ]
    scan = _scan({"Asuka": 3, "Rei": 3}, extra, strays=("README.txt",))
    health = examine(scan)
    assert health.counts == {"Asuka": 4, "Rei": 3}
    assert health.animated == ("Asuka/dance.gif",)
    assert health.unreadable == (
        ("Asuka/broken.png", "damaged or truncated: x"),
        ("Rei/empty.jpg", "the file is empty"),
    )
    assert health.strays == ("README.txt",)


def test_duplicates_and_misfiled_pictures():
    far = [(2**32 - 1) << shift for shift in (0, 16, 32)]
    files = [
        _file("Asuka/1", "a", far[0]),
        _file("Asuka/2", "a", far[0]),
        _file("Asuka/3", "b", far[1]),
        _file("Asuka/4", "c", far[2]),
        _file("Rei/1", "c'", far[2] ^ 1),
    ]
    health = examine(FolderScan(Path("in"), ("Asuka", "Rei"), tuple(files), ()))
    (same,), (misfiled,) = health.duplicates, health.misfiled
    assert same.files == (files[0], files[1])
    assert misfiled.files == (files[3], files[4])
    assert json.loads(json.dumps(health.to_dict())) == {
        "counts": {"Asuka": 4, "Rei": 1},
        "unreadable": {},
        "animated": [],
        "duplicates": [{"exact": True, "files": ["Asuka/1", "Asuka/2"]}],
        "misfiled": [{"exact": False, "files": ["Asuka/4", "Rei/1"]}],
        "few": ["Asuka", "Rei"],
        "imbalance": 4.0,
        "strays": [],
    }


@pytest.mark.parametrize("problem", ["", "damaged"])
def test_only_readable_files_can_be_duplicates(problem):
    files = (_file("Asuka/1", "a", 0, problem), _file("Asuka/2", "a", 0, problem))
    health = examine(FolderScan(Path("in"), ("Asuka",), files, ()))
    assert len(health.duplicates) == (0 if problem else 1)


def _file(
    path: str, content: str, phash: int = 0, problem: str = "", animated: bool = False
) -> ScannedFile:
    fingerprint = Fingerprint(1, 1, "PNG", animated, f"{phash:016x}", "0" * 16, problem)
    return ScannedFile(path, path.split("/")[0], content, fingerprint)


def _scan(counts: dict[str, int], extra=(), strays=()) -> FolderScan:
    """Characters with so many pictures; random hashes, so no two alike."""
    hashes = np.random.default_rng(0).integers(2**64, size=999, dtype=np.uint64)
    names = [name for name, count in counts.items() for _ in range(count)]
    files = [
        _file(f"{name}/{number}", f"{number}", int(phash))
        for number, (name, phash) in enumerate(zip(names, hashes, strict=False))
    ]
    return FolderScan(Path("in"), tuple(counts), (*files, *extra), strays)
