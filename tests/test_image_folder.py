import hashlib
import os
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest

from anime_tf import images
from anime_tf.datasets import image_folder
from anime_tf.datasets.cache import PictureCache
from anime_tf.datasets.image_folder import list_files, look_into, scan_folder
from anime_tf.errors import UserError


@pytest.fixture
def root(tmp_path, draw, write):
    """Two characters with two pictures each, and a file that is none."""
    root = tmp_path / "characters"
    write(root / "Asuka" / "1.png", draw(1, (40, 20)))
    write(root / "Asuka" / "2.jpg", draw(2))
    write(root / "Rei" / "1.webp", draw(3), lossless=True)
    write(root / "Rei" / "2.png", draw(4))
    write(root / "Rei" / "notes.txt", b"she likes quiet")
    return root


# What is listed


def test_everything_about_a_small_collection(root, cache):
    scan = scan_folder(root, cache)
    assert scan.root == root
    assert scan.class_names == ("Asuka", "Rei")
    assert scan.strays == ()
    assert [(file.path, file.label) for file in scan.files] == [
        ("Asuka/1.png", "Asuka"),
        ("Asuka/2.jpg", "Asuka"),
        ("Rei/1.webp", "Rei"),
        ("Rei/2.png", "Rei"),
        ("Rei/notes.txt", "Rei"),
    ]
    for file in scan.files:
        content = (root / file.path).read_bytes()
        assert file.sha256 == hashlib.sha256(content).hexdigest()
    first = scan.files[0].fingerprint
    assert (first.width, first.height, first.format) == (40, 20, "PNG")
    assert len(first.phash) == len(first.dhash) == 16
    assert [file.fingerprint.format for file in scan.files[1:]] == [
        "JPEG",
        "WEBP",
        "PNG",
        "",
    ]
    assert [file.readable for file in scan.files] == [True] * 4 + [False]
    assert scan.readable == list(scan.files[:4])
    assert scan.files[4].fingerprint.problem.startswith("not a JPEG, PNG")


def test_root_may_be_a_string(root, cache):
    assert scan_folder(str(root), cache).class_names == ("Asuka", "Rei")


def test_characters_are_sorted_by_code_point(tmp_path, draw, write, cache):
    # A(41) Z(5A) [(5B) a(61) z(7A) é(E9) 初(521D) 鹿(9E7F) 😀(1F600)
    names = ["Asuka", "Zoë", "[rem]", "a b", "z", "é", "初音 ミク", "鹿目", "😀"]
    for number, name in enumerate(reversed(names)):
        write(tmp_path / "in" / name / f"{name}.png", draw(number, (8, 8)))
    scan = scan_folder(tmp_path / "in", cache)
    assert scan.class_names == tuple(names)
    assert [file.path for file in scan.files] == [f"{n}/{n}.png" for n in names]
    assert len(scan.readable) == len(names)


def test_nested_folders_belong_to_the_character(tmp_path, draw, write, cache):
    root = tmp_path / "in"
    for number, path in enumerate(
        ["Rem/b.png", "Rem/a/2.png", "Rem/a/1.png", "Rem/a b/x [1]/y.png", "Ram/1.png"]
    ):
        write(root / path, draw(number, (8, 8)))
    scan = scan_folder(root, cache)
    assert [(file.path, file.label) for file in scan.files] == [
        ("Ram/1.png", "Ram"),
        ("Rem/a/1.png", "Rem"),
        ("Rem/a/2.png", "Rem"),
        ("Rem/a b/x [1]/y.png", "Rem"),
        ("Rem/b.png", "Rem"),
    ]


def test_hidden_files_and_debris_are_ignored(root, draw, write, cache):
    for path in (
        "Asuka/.hidden.png",
        "Asuka/._1.png",
        "Asuka/.thumbnails/1.png",
        "Asuka/__MACOSX/1.png",
        ".git/1.png",
        "__MACOSX/1.png",
        ".stray.png",
    ):
        write(root / path, draw(9))
    for path in ("Asuka/Thumbs.db", "Asuka/desktop.INI", "Rei/.DS_Store", "Thumbs.db"):
        write(root / path, b"debris")
    scan = scan_folder(root, cache)
    assert scan.class_names == ("Asuka", "Rei")
    assert len(scan.files) == 5
    assert scan.strays == ()


def test_strays_are_reported(root, draw, write, cache):
    write(root / "unsorted.png", draw(9))
    write(root / "README.txt", b"mine")
    scan = scan_folder(root, cache)
    assert scan.strays == ("README.txt", "unsorted.png")
    assert len(scan.files) == 5


def test_characters_without_files_are_named_too(root, cache):
    (root / "Misato").mkdir()
    scan = scan_folder(root, cache)
    assert scan.class_names == ("Asuka", "Misato", "Rei")
    assert {file.label for file in scan.files} == {"Asuka", "Rei"}


def test_content_decides_whatever_the_name(tmp_path, draw, encode, write, cache):
    root = tmp_path / "in"
    write(root / "Rem" / "1", encode(draw(1), "JPEG"))
    write(root / "Rem" / "2.txt", encode(draw(2), "PNG"))
    write(root / "Rem" / "3.JPG", encode(draw(3), "WEBP"))
    write(root / "Rem" / "4.png", b"no picture")
    formats = [f.fingerprint.format for f in scan_folder(root, cache).files]
    assert formats == ["JPEG", "PNG", "WEBP", ""]


def test_animations_are_noted(tmp_path, draw, write, cache):
    frames = [draw(2), draw(3)]
    write(
        tmp_path / "in" / "Rem" / "1.gif", draw(1), save_all=True, append_images=frames
    )
    write(tmp_path / "in" / "Rem" / "2.gif", draw(1))
    scan = scan_folder(tmp_path / "in", cache)
    assert [f.fingerprint.animated for f in scan.files] == [True, False]


def test_links_to_files_and_to_characters(tmp_path, root, draw, write, cache):
    outside = write(tmp_path / "outside" / "9.png", draw(9))
    (root / "Asuka" / "linked.png").symlink_to(outside)
    (root / "Misato").symlink_to(outside.parent)
    (root / "Rei" / "dangling.png").symlink_to(tmp_path / "nowhere")
    scan = scan_folder(root, cache)
    assert scan.class_names == ("Asuka", "Misato", "Rei")
    found = {file.path: file for file in scan.files}
    assert found["Asuka/linked.png"].readable
    assert found["Asuka/linked.png"].sha256 == found["Misato/9.png"].sha256
    problem = found["Rei/dangling.png"].fingerprint.problem
    assert problem.startswith("cannot be read: No such file")


def test_names_that_are_no_utf8(root, draw, encode, cache):
    try:
        path = os.fsencode(root) + b"/Rei/\x8f\x89\x89\xb9.png"
        with open(path, "wb") as file:
            file.write(encode(draw(9), "PNG"))
    except OSError:
        pytest.skip("this file system takes UTF-8 alone")
    scan = scan_folder(root, cache)
    assert len(scan.readable) == 5
    assert all((root / file.path).is_file() for file in scan.files)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes in folders here")
def test_a_pipe_is_skipped_not_waited_for(root, cache):
    pipe = root / "Rei" / "pipe.png"
    os.mkfifo(pipe)
    os.mkfifo(root / "pipe.png")
    # Opening and closing the other end would free a reader that hangs.
    rescue = threading.Timer(5, lambda: pipe.open("wb").close())
    rescue.daemon = True
    rescue.start()
    scan = scan_folder(root, cache)
    rescue.cancel()
    problems = {file.path: file.fingerprint.problem for file in scan.files}
    assert problems["Rei/pipe.png"] == "cannot be read: it is a special file"
    assert len(scan.readable) == 4


def test_list_files(root):
    (root / "Asuka" / ".hidden").touch()
    assert list_files(root / "Asuka") == [
        root / "Asuka" / "1.png",
        root / "Asuka" / "2.jpg",
    ]
    assert list_files(str(root / "Rei"))[2] == root / "Rei" / "notes.txt"


# What is read, and how often


def test_progress(root, cache):
    totals, steps = [], []
    scan_folder(root, cache, on_total=totals.append, on_file=lambda: steps.append(1))
    assert totals == [5]
    assert len(steps) == 5


def test_a_second_scan_decodes_nothing(root, cache, monkeypatch):
    first = scan_folder(root, cache, image_size=16)
    _forbid_decoding(monkeypatch)
    assert scan_folder(root, cache, image_size=16) == first
    assert scan_folder(root, cache) == first


def test_a_moved_collection_is_known_by_its_content(tmp_path, root, cache, monkeypatch):
    first = scan_folder(root, cache, image_size=16)
    shutil.move(root / "Asuka" / "1.png", root / "Rei" / "another name.gif")
    shutil.move(root, tmp_path / "elsewhere")
    _forbid_decoding(monkeypatch)
    second = scan_folder(tmp_path / "elsewhere", cache, image_size=16)
    known = {file.sha256: file.fingerprint for file in first.files}
    assert {file.sha256: file.fingerprint for file in second.files} == known


def test_pixels_go_into_the_cache(root, cache):
    scan = scan_folder(root, cache, image_size=16)
    for file in scan.readable:
        expected = images.load_square(root / file.path, 16)
        assert np.array_equal(cache.pixels(file.sha256, 16), expected)
        assert not cache.has_pixels(file.sha256, 32)
    assert not cache.has_pixels(scan.files[4].sha256, 16)


def test_the_size_of_the_file_is_noted_not_that_of_a_reduced_decoding(
    tmp_path, draw, write, cache
):
    write(tmp_path / "in" / "Rem" / "1.jpg", draw(1, (640, 480)))
    scan = scan_folder(tmp_path / "in", cache, image_size=16)
    fingerprint = scan.files[0].fingerprint
    assert (fingerprint.width, fingerprint.height) == (640, 480)


def test_a_scan_without_size_keeps_no_pixels(root, cache):
    scan = scan_folder(root, cache)
    assert not any(cache.has_pixels(file.sha256, 16) for file in scan.files)


def test_another_size_is_decoded_once(root, cache, monkeypatch):
    first = scan_folder(root, cache)
    scan_folder(root, cache, image_size=16)
    assert scan_folder(root, cache, image_size=32) == first
    assert all(cache.has_pixels(f.sha256, 32) for f in first.readable)
    _forbid_decoding(monkeypatch)
    scan_folder(root, cache, image_size=16)
    scan_folder(root, cache, image_size=32)


def test_pixels_that_made_room_are_decoded_anew(root, open_cache):
    scan_folder(root, open_cache(0), image_size=16)
    cache = open_cache()
    scan = scan_folder(root, cache, image_size=16)
    assert all(cache.has_pixels(f.sha256, 16) for f in scan.readable)


def test_pictures_in_use_make_no_room_for_others(
    tmp_path, root, draw, write, open_cache
):
    limit = 5 * 16 * 16 * 3
    for seed in range(10, 15):
        write(tmp_path / "others" / "X" / f"{seed}.png", draw(seed))
    scan = scan_folder(root, open_cache(limit), image_size=16)
    # A later run, on the same pictures, in a cache that is nearly full.
    cache = open_cache(limit)
    scan_folder(root, cache, image_size=16)
    scan_folder(tmp_path / "others", cache, image_size=16)
    assert all(cache.has_pixels(f.sha256, 16) for f in scan.readable)


def test_order_holds_across_chunks(tmp_path, draw, write, cache, monkeypatch):
    monkeypatch.setattr(image_folder, "_CHUNK", 3)
    paths = [
        write(tmp_path / f"{n:02}.png", draw(n, (n + 1, 8)) if n % 3 else b"text")
        for n in range(11)
    ]
    steps = []
    looked = look_into(paths, cache, on_file=lambda: steps.append(1))
    assert len(steps) == 11
    for number, (path, (sha256, fingerprint)) in enumerate(
        zip(paths, looked, strict=True)
    ):
        assert sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
        assert fingerprint.width == (number + 1 if number % 3 else 0)
        assert cache.fingerprint(sha256) == fingerprint


def test_processes_find_what_threads_find(root, open_cache, tmp_path, monkeypatch):
    expected = scan_folder(root, open_cache(), image_size=16)
    monkeypatch.setattr(image_folder, "_MANY", 1)
    cache = PictureCache(tmp_path / "another cache", 10**9)
    assert scan_folder(root, cache, image_size=16) == expected
    assert all(cache.has_pixels(file.sha256, 16) for file in expected.readable)


def test_nothing_to_look_into(cache):
    assert look_into([], cache, 16) == []


def test_files_that_vanish_between_listing_and_reading(root, cache):
    def remove(_):
        (root / "Asuka" / "1.png").unlink()
        shutil.rmtree(root / "Rei")

    scan = scan_folder(root, cache, image_size=16, on_total=remove)
    assert [file.path for file in scan.readable] == ["Asuka/2.jpg"]
    assert len(scan.files) == 5
    gone = scan.files[0]
    assert gone.sha256 == ""
    assert gone.fingerprint.problem.startswith("cannot be read: No such file")


def test_a_file_that_cannot_be_read_is_tried_again(root, cache):
    shutil.move(root / "Asuka" / "1.png", root / "kept")
    (root / "Asuka" / "1.png").symlink_to(root / "nowhere")
    assert not scan_folder(root, cache).files[0].readable
    (root / "Asuka" / "1.png").unlink()
    shutil.move(root / "kept", root / "Asuka" / "1.png")
    assert scan_folder(root, cache).files[0].readable


def test_the_user_s_files_are_never_touched(root, tmp_path, draw, write, cache):
    write(root / "stray.png", draw(9))
    (root / "Asuka" / "linked.png").symlink_to(root / "stray.png")
    (root / "Empty").mkdir()
    for path in root.rglob("*"):
        os.utime(path, (1e9, 1e9))
    before = _snapshot(root)
    scan_folder(root, cache, image_size=16)
    scan_folder(root, cache, image_size=32)
    assert _snapshot(root) == before


# What is refused


def test_missing_folder(tmp_path, cache):
    message = _refused(tmp_path / "nowhere", cache)
    assert "does not exist" in message
    assert "anime-tf data demo" in message


def test_no_folders_of_characters(tmp_path, draw, write, cache):
    (tmp_path / "in" / ".hidden").mkdir(parents=True)
    write(tmp_path / "in" / "1.png", draw(1))
    message = _refused(tmp_path / "in", cache)
    assert "no character folders in" in message
    assert f"{tmp_path / 'in'}/NAME/" in message


def test_no_files(tmp_path, write, cache):
    for name in ("Asuka", "Rei"):
        (tmp_path / "in" / name / "deeper").mkdir(parents=True)
    write(tmp_path / "in" / "Rei" / "Thumbs.db", b"debris")
    assert "no files in the 2 folders of" in _refused(tmp_path / "in", cache)


def _refused(root: Path, cache) -> str:
    with pytest.raises(UserError) as caught:
        scan_folder(root, cache)
    message = str(caught.value)
    assert str(root) in message
    assert "\n" not in message
    return message


def _forbid_decoding(monkeypatch) -> None:
    def decode(*_, **__):
        raise AssertionError("a picture was decoded again")

    monkeypatch.setattr(images, "decode", decode)


def _snapshot(root: Path) -> dict:
    def look(path: Path) -> tuple:
        status = path.lstat()
        content = path.read_bytes() if path.is_file() else None
        return status.st_mtime_ns, status.st_mode, status.st_ino, content

    return {path: look(path) for path in (root, *root.rglob("*"))}
