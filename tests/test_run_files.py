import pytest

from anime_tf import run_files
from anime_tf.errors import UserError
from anime_tf.run_files import check_complete, remove_run


def test_remove_run_takes_a_run_and_nothing_else(tmp_path):
    names = [
        value
        for name, value in vars(run_files).items()
        if name.isupper() and not name.startswith("_") and "." in value
    ]
    assert len(names) == 17
    others = ("notes.txt", "checkpoints/ckpt-1.index", "previews/1.png", "mine/1.png")
    for name in (*names, *others):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    remove_run(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mine", "notes.txt"]
    remove_run(tmp_path)
    remove_run(tmp_path / "absent")


def test_remove_run_leaves_what_is_no_run(tmp_path):
    for name in ("previews/mine.png", "nearest.png", "metrics.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    remove_run(tmp_path)
    assert len(list(tmp_path.rglob("*.*"))) == 3


def test_check_complete(tmp_path):
    with pytest.raises(UserError, match="train one with"):
        check_complete(tmp_path)
    (tmp_path / run_files.CONFIG).write_text("{}")
    with pytest.raises(UserError, match="train --resume --out"):
        check_complete(tmp_path)
    (tmp_path / run_files.RECOGNIZER).write_text("{}")
    check_complete(tmp_path)
