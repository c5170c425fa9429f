from pathlib import Path

import pytest

from anime_tf.errors import UserError
from anime_tf.export.folders import check_target, publishing
from anime_tf.export.records import EXPORT


def _export(folder, content):
    with publishing(folder) as fresh:
        (fresh / EXPORT).write_text(content)
        (fresh / "classifier_int8.tflite").write_text(content)


def test_an_older_export_is_replaced_whole(tmp_path):
    out = tmp_path / "out"
    _export(out, "old")
    with publishing(out) as fresh:
        (fresh / EXPORT).write_text("new")
    assert [path.name for path in out.iterdir()] == [EXPORT]
    assert (out / EXPORT).read_text() == "new"
    assert list(tmp_path.iterdir()) == [out]


def test_whatever_else_is_there_is_somebody_s(tmp_path):
    _export(tmp_path / "assets", "old")
    (tmp_path / "assets" / "logo.png").write_text("mine")
    with pytest.raises(UserError, match=r"logo\.png, which is none of it"):
        check_target(tmp_path / "assets")
    (tmp_path / "assets" / "logo.png").unlink()
    (tmp_path / "assets" / "assets").mkdir()
    check_target(tmp_path / "assets")
    (tmp_path / "assets" / "assets" / "logo.png").write_text("mine")
    with pytest.raises(UserError, match=r"and assets, which is none of it"):
        check_target(tmp_path / "assets")
    with pytest.raises(UserError, match="is neither"):
        check_target(tmp_path)


def test_what_cannot_be_replaced_is_refused_at_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in (Path("."), tmp_path.parent):
        with pytest.raises(UserError, match="the current folder"):
            check_target(path)
    monkeypatch.setattr("os.path.ismount", lambda path: True)
    (tmp_path / "volume").mkdir()
    with pytest.raises(UserError, match="mount point"):
        check_target(tmp_path / "volume")


def test_on_errors_the_old_export_stays(tmp_path):
    out = tmp_path / "out"
    _export(out, "old")
    with pytest.raises(ValueError, match="no"), publishing(out):
        raise ValueError("no")
    # Gone, it cannot be put in its place.
    with pytest.raises(FileNotFoundError), publishing(out) as fresh:
        fresh.rmdir()
    assert (out / EXPORT).read_text() == "old"
    assert list(tmp_path.iterdir()) == [out]


def test_an_old_export_that_cannot_go_back_is_not_lost(tmp_path, monkeypatch):
    out = tmp_path / "out"
    _export(out, "old")
    rename = Path.rename

    def barred(path, target):
        if path.name in ("new", "old"):
            raise PermissionError(13, "no")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", barred)
    with pytest.raises(PermissionError):
        _export(out, "new")
    (kept,) = tmp_path.glob(f".writing-*/old/{EXPORT}")
    assert kept.read_text() == "old"
