import numpy as np
import pytest
from PIL import Image, ImageEnhance

from anime_tf.datasets import duplicates
from anime_tf.datasets.cache import Fingerprint
from anime_tf.datasets.duplicates import duplicate_groups, group_ids
from anime_tf.datasets.image_folder import ScannedFile, scan_folder


def test_one_drawing_in_many_guises(tmp_path, draw, encode, write, cache):
    # Two drawings; every variant of the first must find it, none the second.
    original, root = draw(1, (200, 150)), tmp_path / "in" / "Rem"
    variants = {
        "copy.png": original,
        "recoded.jpg": encode(original, "JPEG", quality=75),
        "poor.jpg": encode(original, "JPEG", quality=40),
        "recoded.webp": encode(original, "WEBP", quality=80),
        "half.png": original.resize((100, 75), Image.Resampling.LANCZOS),
        "double.png": original.resize((400, 300), Image.Resampling.BICUBIC),
        "brighter.png": ImageEnhance.Brightness(original).enhance(1.1),
        "darker.png": ImageEnhance.Brightness(original).enhance(0.9),
        "flatter.png": ImageEnhance.Contrast(original).enhance(0.85),
        "original.png": original,
    }
    for name, image in variants.items():
        write(root / name, image)
    write(root / "zz other.png", draw(2, (200, 150)))
    files = scan_folder(root.parent, cache).readable
    assert group_ids(files).tolist() == [0] * len(variants) + [1]


def test_different_drawings_stay_apart(tmp_path, draw, write, cache):
    for seed in range(60):
        write(tmp_path / "in" / "Rem" / f"{seed:02}.png", draw(seed))
    # A mirrored drawing is another one.
    mirrored = draw(0).transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    write(tmp_path / "in" / "Rem" / "60.png", mirrored)
    files = scan_folder(tmp_path / "in", cache).readable
    assert group_ids(files).tolist() == list(range(61))
    assert duplicate_groups(files) == []


def test_both_hashes_must_agree():
    base = _file("a", phash=0, dhash=0)
    for phash_bits, dhash_bits, same in (
        (8, 14, True),
        (0, 14, True),
        (8, 0, True),
        (9, 0, False),
        (0, 15, False),
        (9, 15, False),
    ):
        other = _file("b", phash=_ones(phash_bits), dhash=_ones(dhash_bits))
        groups = group_ids([base, other]).tolist()
        assert groups == ([0, 0] if same else [0, 1]), (phash_bits, dhash_bits)


def test_the_highest_bit_counts():
    # 2 ** 63 does not fit into a signed number.
    files = [_file("a", phash=2**64 - 1, dhash=2**63), _file("b", 2**64 - 1, 0)]
    assert group_ids(files).tolist() == [0, 0]


def test_equal_bytes_are_one_drawing_whatever_the_hashes():
    files = [
        _file("a", phash=0, dhash=0),
        _file("b", phash=_ones(40), dhash=_ones(40)),
        _file("a", phash=_ones(64), dhash=_ones(64)),
    ]
    assert group_ids(files).tolist() == [0, 1, 0]


def test_likeness_is_transitive():
    # Each is 8 bits from the next; the ends are 24 bits apart.
    chain = [_file(str(n), phash=_ones(8 * n), dhash=0) for n in range(4)]
    assert group_ids(chain).tolist() == [0, 0, 0, 0]
    assert group_ids([chain[0], chain[3]]).tolist() == [0, 1]
    assert group_ids([chain[3], chain[0], chain[2], chain[1]]).tolist() == [0] * 4


def test_numbers_count_in_order_of_first_appearance():
    far = [_ones(32) << shift for shift in (0, 16, 32)]
    files = [
        _file(str(number), phash=far[which], dhash=0)
        for number, which in enumerate([2, 0, 2, 1, 0, 1])
    ]
    assert group_ids(files).tolist() == [0, 1, 0, 2, 1, 2]


@pytest.mark.parametrize("block", [1, 2, 7, 100])
def test_blocks_change_nothing(monkeypatch, block):
    rng = np.random.default_rng(0)
    bases = [(_random_bits(rng), _random_bits(rng)) for _ in range(10)]
    picks = rng.integers(0, 10, 40)
    files = [
        _file(str(n), bases[p][0] ^ (1 << n), bases[p][1]) for n, p in enumerate(picks)
    ]
    monkeypatch.setattr(duplicates, "_BLOCK", block)
    order = {pick: n for n, pick in enumerate(dict.fromkeys(picks.tolist()))}
    assert group_ids(files).tolist() == [order[pick] for pick in picks.tolist()]


def test_nothing_to_compare():
    assert group_ids([]).tolist() == []
    assert group_ids([_file("a", 0, 0)]).tolist() == [0]
    assert duplicate_groups([]) == []


def test_duplicate_groups():
    far = _ones(32)
    files = [
        _file("single", far << 16, 0, "Asuka/1"),
        _file("x", 0, 0, "Asuka/2"),
        _file("y", far, 0, "Asuka/3"),
        _file("x", 0, 0, "Rei/1"),
        _file("y'", far ^ 1, 0, "Asuka/4"),
    ]
    exact, near = duplicate_groups(files)
    assert (exact.files, exact.exact) == ((files[1], files[3]), True)
    assert exact.labels == ("Asuka", "Rei")
    assert (near.files, near.exact) == ((files[2], files[4]), False)
    assert near.labels == ("Asuka",)


def _file(content: str, phash: int, dhash: int, path: str = "Rem/1") -> ScannedFile:
    fingerprint = Fingerprint(1, 1, "PNG", False, f"{phash:016x}", f"{dhash:016x}")
    return ScannedFile(path, path.split("/")[0], content, fingerprint)


def _ones(count: int) -> int:
    return 2**count - 1


def _random_bits(rng: np.random.Generator) -> int:
    return int(rng.integers(0, 2**64, dtype=np.uint64))
