import itertools
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from anime_tf.datasets import cache as cache_module
from anime_tf.datasets.cache import Fingerprint, PictureCache
from anime_tf.errors import UserError

SIZE = 4
PICTURE_BYTES = SIZE * SIZE * 3


# Remembering


def test_fingerprints_round_trip(open_cache):
    good = Fingerprint(640, 480, "WEBP", True, "00ff00ff00ff00ff", "fedcba9876543210")
    bad = Fingerprint(problem="damaged or truncated: 絵")
    cache = open_cache()
    assert cache.fingerprint("good") is None
    cache.add_fingerprints([("good", good), ("bad", bad)])
    cache.close()
    cache = open_cache()
    assert cache.fingerprint("good") == good
    assert cache.fingerprint("good").animated is True
    assert cache.fingerprint("bad") == bad
    assert cache.fingerprint("other") is None


def test_fingerprint_is_replaced_by_a_newer_one(cache):
    cache.add_fingerprints([("a", Fingerprint(width=1)), ("b", Fingerprint(width=2))])
    cache.add_fingerprints([("a", Fingerprint(width=3))])
    assert cache.fingerprint("a").width == 3
    assert cache.fingerprint("b").width == 2


def test_pixels_round_trip(open_cache):
    cache, picture = open_cache(), _picture(1)
    assert cache.pixels("a", SIZE) is None
    assert not cache.has_pixels("a", SIZE)
    cache.add_pixels(SIZE, [("a", picture), ("b", _picture(2))])
    cache.close()
    cache = open_cache()
    assert cache.has_pixels("a", SIZE)
    found = cache.pixels("a", SIZE)
    assert found.dtype == np.uint8
    assert np.array_equal(found, picture)
    assert np.array_equal(cache.pixels("b", SIZE), _picture(2))


def test_pixels_cannot_be_written_to(cache):
    cache.add_pixels(SIZE, [("a", _picture(1))])
    with pytest.raises(ValueError, match="read-only"):
        cache.pixels("a", SIZE)[0, 0, 0] = 1


def test_pixels_are_copied(cache):
    picture = _picture(1)
    cache.add_pixels(SIZE, [("a", picture)])
    picture[:] = 0
    assert np.array_equal(cache.pixels("a", SIZE), _picture(1))


def test_strided_pixels_are_kept_as_they_look(cache):
    turned = _picture(1)[:, ::-1]
    cache.add_pixels(SIZE, [("a", turned)])
    assert np.array_equal(cache.pixels("a", SIZE), turned)


def test_sizes_are_kept_apart(cache):
    cache.add_pixels(4, [("a", _picture(1, 4))])
    assert cache.pixels("a", 8) is None
    assert not cache.has_pixels("a", 8)
    cache.add_pixels(8, [("a", _picture(2, 8))])
    assert np.array_equal(cache.pixels("a", 4), _picture(1, 4))
    assert np.array_equal(cache.pixels("a", 8), _picture(2, 8))


def test_nothing_made_under_another_pixel_contract_is_served(cache, monkeypatch):
    cache.add_pixels(SIZE, [("a", _picture(1))])
    cache.add_fingerprints([("a", Fingerprint(width=1))])
    monkeypatch.setattr(cache_module, "PIXEL_CONTRACT", 2)
    assert cache.pixels("a", SIZE) is None
    assert cache.fingerprint("a") is None


# Making room


@pytest.fixture
def clock(monkeypatch):
    """A clock that moves on by a second whenever it is looked at."""
    seconds = itertools.count(1000.0)
    clock = SimpleNamespace(time=lambda: next(seconds))
    monkeypatch.setattr(cache_module, "time", clock)


@pytest.mark.usefixtures("clock")
def test_pictures_used_longest_ago_make_room(open_cache):
    cache = open_cache(3 * PICTURE_BYTES)
    for name in "abc":
        _add(cache, name)
    cache.close()
    cache = open_cache(3 * PICTURE_BYTES)
    cache.mark_used(SIZE, ["a"])
    _add(cache, "d")
    assert _held(cache, "abcd") == "acd"
    _add(cache, "e")
    assert _held(cache, "abcde") == "ade"


@pytest.mark.usefixtures("clock")
def test_what_was_used_since_opening_stays(open_cache):
    cache = open_cache(3 * PICTURE_BYTES)
    _add(cache, "abc")
    cache.close()
    cache = open_cache(3 * PICTURE_BYTES)
    cache.mark_used(SIZE, ["a", "b"])
    _add(cache, "d")
    for newcomers in ("e", "fgh", "e"):
        _add(cache, newcomers)
        assert _held(cache, "abcdefgh") == "abd"


@pytest.mark.usefixtures("clock")
def test_no_more_make_room_than_must(open_cache):
    cache = open_cache(5 * PICTURE_BYTES)
    for name in "abcde":
        _add(cache, name)
    cache.close()
    cache = open_cache(5 * PICTURE_BYTES)
    _add(cache, "xy")
    assert _held(cache, "abcdexy") == "cdexy"


def test_a_batch_is_kept_as_far_as_it_fits(open_cache):
    cache = open_cache(4 * PICTURE_BYTES - 1)
    _add(cache, "abcdef")
    assert _held(cache, "abcdef") == "abc"


def test_exactly_full_is_not_too_full(open_cache):
    cache = open_cache(3 * PICTURE_BYTES)
    _add(cache, "a")
    _add(cache, "bc")
    assert _held(cache, "abc") == "abc"
    cache.close()
    cache = open_cache(4 * PICTURE_BYTES)
    _add(cache, "d")
    assert _held(cache, "abcd") == "abcd"


def test_known_pictures_take_no_room(open_cache):
    cache = open_cache(3 * PICTURE_BYTES)
    for _ in range(5):
        _add(cache, "ab")
        _add(cache, "bb")
    _add(cache, "c")
    assert _held(cache, "abc") == "abc"


def test_equal_pictures_in_one_batch_take_the_room_of_one(open_cache):
    cache = open_cache(2 * PICTURE_BYTES)
    _add(cache, "aaab")
    assert _held(cache, "ab") == "ab"


@pytest.mark.usefixtures("clock")
def test_a_smaller_limit_is_honoured_at_the_next_addition(open_cache):
    cache = open_cache(9 * PICTURE_BYTES)
    for name in "abcdef":
        _add(cache, name)
    cache.close()
    cache = open_cache(3 * PICTURE_BYTES)
    _add(cache, "g")
    assert _held(cache, "abcdefg") == "efg"


@pytest.mark.usefixtures("clock")
def test_pictures_of_other_sizes_make_room_too(open_cache):
    cache = open_cache(5 * PICTURE_BYTES)
    _add(cache, "abcd")
    cache.close()
    cache = open_cache(5 * PICTURE_BYTES)
    # Twice the side is four pictures' worth.
    cache.add_pixels(2 * SIZE, [("large", _picture(1, 2 * SIZE))])
    assert cache.has_pixels("large", 2 * SIZE)
    assert len(_held(cache, "abcd")) == 1


@pytest.mark.usefixtures("clock")
def test_a_picture_larger_than_the_cache_is_not_kept(open_cache):
    cache = open_cache(PICTURE_BYTES)
    cache.add_pixels(2 * SIZE, [("large", _picture(1, 2 * SIZE))])
    assert not cache.has_pixels("large", 2 * SIZE)


def test_no_bytes_at_all(open_cache):
    cache = open_cache(0)
    _add(cache, "ab")
    assert _held(cache, "ab") == ""
    cache.add_fingerprints([("a", Fingerprint(width=1))])
    assert cache.fingerprint("a").width == 1


# Sharing


def test_two_caches_on_one_folder_see_and_count_each_other(open_cache):
    one, two = open_cache(4 * PICTURE_BYTES), open_cache(4 * PICTURE_BYTES)
    _add(one, "ab")
    _add(two, "cd")
    assert _held(one, "abcd") == _held(two, "abcd") == "abcd"
    _add(one, "ef")
    _add(two, "gh")
    assert _held(one, "abcdefgh") == "abcd"


def test_one_cache_in_many_threads(open_cache):
    cache = open_cache(10**6)

    def work(thread: int) -> None:
        for index in range(40):
            name = f"{index % 20}"
            cache.add_pixels(SIZE, [(name, _picture(index % 20))])
            cache.add_fingerprints([(name, Fingerprint(width=index % 20))])
            assert np.array_equal(cache.pixels(name, SIZE), _picture(index % 20))
            assert cache.fingerprint(name).width == index % 20
            cache.mark_used(SIZE, [name, f"{thread}"])

    assert _in_threads(work, 4) == []
    assert _stored_bytes(cache) == 20 * PICTURE_BYTES


def test_many_caches_in_many_threads_wait_for_each_other(tmp_path, open_cache):
    # Connections of their own, as in several processes: nothing but SQLite's locks
    # between them. All of them make room all the time.
    limit = 10 * PICTURE_BYTES

    def work(thread: int) -> None:
        for start in range(0, 60, 15):
            cache = PictureCache(tmp_path / "cache", limit)
            for index in range(start, start + 15):
                _add(cache, [f"{thread}-{index}"])
                cache.mark_used(SIZE, [f"{thread}-{index - 1}"])
            cache.close()

    assert _in_threads(work, 4) == []
    assert 0 < _stored_bytes(open_cache(limit)) <= limit


def test_nobody_writes_between_the_counting_and_the_adding(open_cache, monkeypatch):
    one, two = open_cache(PICTURE_BYTES), open_cache(PICTURE_BYTES)
    other = threading.Thread(target=lambda: _add(two, "b"))
    make_room = one._make_room

    def make_room_and_let_the_other_try(incoming: int) -> int:
        room = make_room(incoming)
        other.start()
        other.join(timeout=0.2)
        return room

    monkeypatch.setattr(one, "_make_room", make_room_and_let_the_other_try)
    _add(one, "a")
    other.join()
    assert _held(one, "ab") == "a"


def test_two_processes(tmp_path, open_cache):
    code = """if True:
        import sys, numpy as np
        from anime_tf.datasets.cache import Fingerprint, PictureCache
        cache = PictureCache(sys.argv[1], 20 * 48)
        for index in range(100):
            name = sys.argv[2] + str(index)
            cache.add_pixels(4, [(name, np.full((4, 4, 3), index, np.uint8))])
            cache.add_fingerprints([(name, Fingerprint(width=index))])
    """
    root = Path(__file__).parents[1]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / "cache"), name],
            cwd=root,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name in "ab"
    ]
    complaints = [process.communicate(timeout=60)[1] for process in processes]
    assert complaints == ["", ""]
    cache = open_cache(20 * PICTURE_BYTES)
    for name, index in itertools.product("ab", range(100)):
        assert cache.fingerprint(f"{name}{index}").width == index
        pixels = cache.pixels(f"{name}{index}", 4)
        assert pixels is None or (pixels == index).all()
    assert _stored_bytes(cache) == 20 * PICTURE_BYTES


def test_opening_for_the_first_time_at_once(tmp_path):
    def work(_: int) -> None:
        barrier.wait()
        PictureCache(folder, 1000).close()

    for round_number in range(10):
        folder, barrier = tmp_path / str(round_number), threading.Barrier(4)
        assert _in_threads(work, 4) == []


def test_opening_while_another_process_sets_it_up(tmp_path, monkeypatch):
    # While one process switches a new file to its journal, SQLite refuses the same
    # switch to all others at once, without waiting.
    class Refusing(sqlite3.Connection):
        def execute(self, query, *arguments):
            if "journal_mode" in query:
                raise sqlite3.OperationalError("database is locked")
            return super().execute(query, *arguments)

    def connect(*arguments, **options):
        return original(*arguments, factory=Refusing, **options)

    original = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", connect)
    cache = PictureCache(tmp_path, 1000)
    _add(cache, "a")
    assert _held(cache, "a") == "a"
    cache.close()


# Trouble


def test_a_file_that_is_no_cache(tmp_path):
    path = tmp_path / "pictures.sqlite"
    path.write_bytes(b"this is no database" * 500)
    _refuses(path, lambda: PictureCache(tmp_path, 1000))
    assert path.read_bytes().startswith(b"this is"), "it is not ours to delete"


def test_another_program_s_database(tmp_path):
    path = tmp_path / "pictures.sqlite"
    database = sqlite3.connect(path)
    database.execute("CREATE TABLE pixels (x, y, colour)")
    database.close()
    _refuses(path, lambda: PictureCache(tmp_path, 1000))


def test_damage_found_only_later(open_cache):
    cache = open_cache()
    names = [str(index) for index in range(50)]
    cache.add_pixels(64, [(name, _picture(1, 64)) for name in names])
    cache.close()
    path = cache.filepath
    content = path.read_bytes()
    # The first page, with the schema, stays: it opens, and everything else is rubbish.
    path.write_bytes(content[:4096] + b"\xa5" * (len(content) - 4096))

    def use() -> None:
        cache = open_cache()
        for name in names:
            cache.pixels(name, 64)

    _refuses(path, use)


@pytest.mark.parametrize(
    "use",
    [
        lambda cache: cache.pixels("a", SIZE),
        lambda cache: cache.has_pixels("a", SIZE),
        lambda cache: cache.fingerprint("a"),
        lambda cache: cache.add_fingerprints([("a", Fingerprint())]),
        lambda cache: cache.add_pixels(SIZE, [("a", _picture(1))]),
        lambda cache: cache.mark_used(SIZE, ["a"]),
    ],
)
def test_trouble_in_use_names_the_file(cache, use):
    cache._database.executescript("DROP TABLE pixels; DROP TABLE fingerprints;")
    _refuses(cache.filepath, lambda: use(cache))


def test_a_failed_addition_leaves_the_cache_usable(cache):
    _add(cache, "a")
    with pytest.raises(AttributeError):
        cache.add_pixels(SIZE, [("b", "no pixels")])
    with pytest.raises(UserError):
        cache.add_fingerprints([("b", Fingerprint(width=object()))])
    _add(cache, "c")
    assert _held(cache, "abc") == "ac"


def test_a_place_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    _refuses(tmp_path / "file", lambda: PictureCache(tmp_path / "file", 1000))
    _refuses(tmp_path / "file", lambda: PictureCache(tmp_path / "file" / "in", 1000))
    (tmp_path / "pictures.sqlite").mkdir()
    _refuses(tmp_path / "pictures.sqlite", lambda: PictureCache(tmp_path, 1000))

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    _refuses(tmp_path / "new", lambda: PictureCache(tmp_path / "new", 1000))


def test_closing_waits_for_readers_and_refuses_the_next(cache):
    cache.add_pixels(SIZE, [("a", _picture(1))])
    reading, refusals = threading.Barrier(5), []

    def read():
        reading.wait()
        try:
            while cache.pixels("a", SIZE) is not None:
                pass
        except UserError as error:
            refusals.append(str(error))

    readers = [threading.Thread(target=read) for _ in range(4)]
    for reader in readers:
        reader.start()
    reading.wait()
    cache.close()
    for reader in readers:
        reader.join()
    assert len(refusals) == 4
    assert all("closed database" in refusal for refusal in refusals)


def test_by_default_the_platform_s_folder_is_used(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(
        cache_module.platformdirs,
        "user_cache_dir",
        lambda name: asked.append(name) or str(tmp_path / "default"),
    )
    cache = cache_module.open_cache()
    assert asked == ["anime_tf"]
    assert cache.filepath == tmp_path / "default" / "pictures.sqlite"
    assert cache.max_bytes == cache_module.DEFAULT_BYTES
    cache.close()
    cache = cache_module.open_cache(tmp_path / "mine", max_bytes=0)
    assert cache.filepath.parent == tmp_path / "mine"
    assert cache.max_bytes == 0
    cache.close()


def _picture(seed: int, size: int = SIZE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), np.uint8)


def _add(cache: PictureCache, names) -> None:
    cache.add_pixels(SIZE, [(name, _picture(1)) for name in names])


def _held(cache: PictureCache, names: str) -> str:
    return "".join(name for name in names if cache.has_pixels(name, SIZE))


def _stored_bytes(cache: PictureCache) -> int:
    query = "SELECT SUM(LENGTH(content)) FROM pixels"
    return cache._database.execute(query).fetchone()[0]


def _refuses(path: Path, use) -> None:
    with pytest.raises(UserError) as caught:
        use()
    message = str(caught.value)
    assert str(path) in message
    assert "--cache-dir" in message
    assert "\n" not in message


def _in_threads(work, count: int) -> list[BaseException]:
    """Runs `work(0)`, `work(1)`, ... at once; returns what they raised."""
    errors = []

    def run(number: int) -> None:
        try:
            work(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(n,)) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors
