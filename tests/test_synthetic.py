import numpy as np
import pytest
from PIL import Image

from anime_tf.datasets.cache import PictureCache
from anime_tf.datasets.duplicates import group_ids
from anime_tf.datasets.image_folder import scan_folder
from anime_tf.datasets.synthetic import build_cast, draw_picture, write_cast
from anime_tf.errors import UserError


def test_cast_is_seeded_and_a_larger_one_begins_with_the_smaller():
    assert build_cast(5, seed=3) == build_cast(9, seed=3)[:5]
    assert build_cast(5, seed=3) != build_cast(5, seed=4)


def test_characters_of_a_cast_differ():
    cast = build_cast(100)
    assert len({character.name for character in cast}) == 100
    looks = {(c.hair, c.style, c.accessory) for c in cast}
    assert len(looks) == 100


def test_picture_is_rgb_of_the_size_and_seeded():
    character = build_cast(1)[0]
    first, again, other = (
        draw_picture(character, np.random.default_rng(seed), 96) for seed in (1, 1, 2)
    )
    assert (first.mode, first.size) == ("RGB", (96, 96))
    np.testing.assert_array_equal(first, again)
    assert np.abs(np.asarray(first, int) - np.asarray(other, int)).mean() > 10


def test_files_are_the_same_again_and_begin_alike(tmp_path):
    small = write_cast(tmp_path / "small", 2, 4, size=48, seed=5)
    large = write_cast(tmp_path / "large", 3, 6, size=48, seed=5)
    assert len(small) == 8
    assert len(large) == 18
    for path in small:
        twin = tmp_path / "large" / path.relative_to(tmp_path / "small")
        assert path.read_bytes() == twin.read_bytes()


def test_files_are_of_three_formats_and_nothing_else_is_left(tmp_path):
    calls = []
    write_cast(tmp_path, 2, 3, size=48, on_picture=lambda: calls.append(1))
    files = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    assert len(calls) == len(files) == 6
    formats = set()
    for path in files:
        with Image.open(path) as image:
            formats.add(image.format)
    assert formats == {"PNG", "JPEG", "WEBP"}


def test_never_draws_among_other_files(tmp_path):
    (tmp_path / "mine.png").write_bytes(b"mine")
    with pytest.raises(UserError, match="not empty"):
        write_cast(tmp_path, 2, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.png"]


def test_hardly_any_two_pictures_count_as_one_drawing(tmp_path):
    write_cast(tmp_path / "cast", 5, 24, size=96)
    cache = PictureCache(tmp_path / "cache", 0)
    files = scan_folder(tmp_path / "cast", cache).readable
    assert len(set(group_ids(files))) >= 0.97 * len(files)
