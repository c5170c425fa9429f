import errno
import os
import shutil

import pytest

from anime_tf.errors import UserError
from anime_tf.prediction import UNKNOWN, Prediction
from anime_tf.sorting import Step, carry_out, plan_sorting


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "in"
    (folder / "more").mkdir(parents=True)
    (folder / "a.png").write_text("first")
    (folder / "more" / "a.png").write_text("second")
    (folder / "b.png").write_text("third")
    return folder


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def _predictions(source, names=("Rem", "Rem", UNKNOWN)):
    paths = [source / "a.png", source / "more/a.png", source / "b.png"]
    return [Prediction(str(p), n) for p, n in zip(paths, names, strict=True)]


def _tree(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_text()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


SORTED = {"Rem/a.png": "first", "Rem/a (2).png": "second", "unknown/b.png": "third"}


@pytest.mark.parametrize("way", ["copy", "move", "link"])
def test_sorts(source, out, way):
    steps = plan_sorting(_predictions(source), out)
    assert not out.exists()
    carry_out(steps, way)
    assert _tree(out) == SORTED
    assert (out / "Rem/a.png").is_symlink() is (way == "link")
    assert len(_tree(source)) == (0 if way == "move" else 3)
    assert [step.name for step in steps] == ["Rem", "Rem", UNKNOWN]


def test_links_work_from_anywhere(source, out, monkeypatch):
    monkeypatch.chdir(source)
    step = Step(type(source)("a.png"), out / "Rem/a.png", "Rem")
    carry_out([step], "link")
    assert (out / "Rem/a.png").read_text() == "first"


def test_copies_keep_their_time(source, out):
    os.utime(source / "a.png", (1e9, 1e9))
    carry_out(plan_sorting(_predictions(source), out))
    assert (out / "Rem/a.png").stat().st_mtime == 1e9


def test_nothing_is_overwritten(source, out):
    (out / "Rem").mkdir(parents=True)
    (out / "Rem/a.png").write_text("mine")
    (out / "Rem/a (2).png").write_text("mine too")
    carry_out(plan_sorting(_predictions(source), out), "move")
    assert _tree(out / "Rem") == {
        "a.png": "mine",
        "a (2).png": "mine too",
        "a (3).png": "first",
        "a (4).png": "second",
    }


def test_a_dangling_link_is_somebodys_too(source, out):
    (out / "Rem").mkdir(parents=True)
    (out / "Rem/a.png").symlink_to(out / "absent")
    steps = plan_sorting(_predictions(source)[:1], out)
    assert steps[0].target == out / "Rem/a (2).png"


def test_the_same_picture_is_left_out(source, out):
    (source / "more/a.png").write_text("first")
    steps = plan_sorting(_predictions(source), out)
    assert [step.reason for step in steps] == ["", "already there", ""]
    carry_out(steps)
    assert set(_tree(out)) == {"Rem/a.png", "unknown/b.png"}
    # And sorting again changes nothing.
    again = plan_sorting(_predictions(source), out)
    assert [step.target for step in again] == [None] * 3
    carry_out(again, "move")
    assert len(_tree(source)) == 3


def test_unreadable_pictures_stay(source, out):
    bad = Prediction(str(source / "a.png"), problem="damaged or truncated")
    steps = plan_sorting([bad, *_predictions(source)[2:]], out)
    assert steps[0] == Step(source / "a.png", None, reason="damaged or truncated")
    carry_out(steps, "move")
    assert set(_tree(source)) == {"a.png", "more/a.png"}


def test_out_inside_in(source):
    out = source / "sorted"
    carry_out(plan_sorting(_predictions(source), out), "move")
    assert _tree(source) == {f"sorted/{name}": text for name, text in SORTED.items()}


@pytest.mark.parametrize("name", ["../x", "..", ".", "a/b", "/etc", "x/"])
def test_a_hostile_name_is_refused(source, out, name):
    predictions = _predictions(source, ("Rem", name, "Rem"))
    with pytest.raises(UserError, match="cannot be a folder's name"):
        plan_sorting(predictions, out)
    assert not out.exists()


def test_a_target_that_appeared_meanwhile_is_kept(source, out):
    for way in ("copy", "move", "link"):
        steps = plan_sorting(_predictions(source)[:1], out / way)
        (out / way / "Rem").mkdir(parents=True)
        (out / way / "Rem/a.png").write_text("mine")
        with pytest.raises(UserError, match="nothing was overwritten"):
            carry_out(steps, way)
        assert _tree(out / way) == {"Rem/a.png": "mine"}
    assert len(_tree(source)) == 3


def test_a_failing_copy_leaves_the_source_and_nothing_else(source, out, monkeypatch):
    def fail(_, target):
        target.write_text("fir")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copy2", fail)
    with pytest.raises(UserError, match=r"a\.png could not go to .*No space left"):
        carry_out(plan_sorting(_predictions(source), out))
    assert len(_tree(source)) == 3
    assert _tree(out) == {}


def _another_disk(monkeypatch):
    """Makes renaming from one folder to another fail, as between disks."""
    rename = os.replace

    def replace(source, target):
        if source.parent != target.parent:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        rename(source, target)

    monkeypatch.setattr(os, "replace", replace)


def test_moving_to_another_disk(source, out, monkeypatch):
    _another_disk(monkeypatch)
    carry_out(plan_sorting(_predictions(source), out), "move")
    assert _tree(out) == SORTED
    assert _tree(source) == {}


def test_a_move_to_a_full_disk_leaves_the_source(source, out, monkeypatch):
    def fail(_, target):
        target.write_text("fir")
        raise OSError(errno.ENOSPC, "No space left on device")

    _another_disk(monkeypatch)
    monkeypatch.setattr(shutil, "copy2", fail)
    with pytest.raises(UserError, match="No space left"):
        carry_out(plan_sorting(_predictions(source), out), "move")
    assert len(_tree(source)) == 3
    assert _tree(out) == {}


def test_a_picture_that_is_gone(source, out):
    steps = plan_sorting(_predictions(source), out)
    (source / "a.png").unlink()
    for way in ("copy", "move"):
        with pytest.raises(UserError, match="could not go"):
            carry_out(steps, way)


def test_an_unknown_way(source, out):
    with pytest.raises(ValueError, match="way must be one of"):
        carry_out(plan_sorting(_predictions(source), out), "teleport")
