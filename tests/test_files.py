import json
import os
import stat

import pytest

from anime_tf import files


def _names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_replaces_in_one_step(tmp_path):
    path = tmp_path / "model.weights.h5"
    path.write_text("old")
    with files.replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
        # Same folder, or the rename would not be atomic; same suffix, or the writer
        # would choose another format.
        assert temporary.parent == tmp_path
        assert temporary.name.endswith(".weights.h5")
        assert temporary.name.startswith(".writing-")
    assert path.read_text() == "new"
    assert _names(tmp_path) == ["model.weights.h5"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_failure_leaves_the_old_and_nothing_else(tmp_path, error):
    path = tmp_path / "file.json"
    path.write_text("old")

    def write():
        with files.replacing(path) as temporary:
            temporary.write_text("half of the n")
            raise error

    with pytest.raises(error):
        write()
    assert path.read_text() == "old"
    assert _names(tmp_path) == ["file.json"]


def test_failure_leaves_nothing_where_nothing_was(tmp_path):
    with pytest.raises(PermissionError), files.replacing(tmp_path / "a.txt"):
        raise PermissionError
    assert _names(tmp_path) == []


def test_failing_rename_leaves_the_old(tmp_path, monkeypatch):
    files.write_text(tmp_path / "a.txt", "old")

    def fail(*_):
        raise PermissionError("no")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(PermissionError):
        files.write_text(tmp_path / "a.txt", "new")
    assert (tmp_path / "a.txt").read_text() == "old"
    assert _names(tmp_path) == ["a.txt"]


def test_makes_the_folder(tmp_path):
    files.write_text(tmp_path / "a" / "b" / "初音.json", "未来")
    assert (tmp_path / "a/b/初音.json").read_text(encoding="utf-8") == "未来"


def test_names_that_are_not_unicode(tmp_path):
    name = b"caf\xe9.png".decode("utf-8", errors="surrogateescape")
    files.write_text(tmp_path / "a.json", json.dumps([name], ensure_ascii=False))
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == [name]


def test_others_may_read_as_the_umask_says(tmp_path):
    before = os.umask(0o027)
    try:
        files.write_text(tmp_path / "a.txt", "x")
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == 0o640


def test_a_link_to_nowhere_is_replaced(tmp_path):
    (tmp_path / "a.txt").symlink_to(tmp_path / "absent")
    files.write_text(tmp_path / "a.txt", "x")
    assert not (tmp_path / "a.txt").is_symlink()
