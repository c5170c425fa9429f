import io
import json
import re
import shutil

import numpy as np
import pytest
from rich.console import Console

from anime_tf import run_files
from anime_tf.datasets.manifest import Manifest
from anime_tf.errors import UserError
from anime_tf.evaluation import evaluate_run
from anime_tf.inference import Recognizer
from anime_tf.models.classifier import load_classifier
from anime_tf.novelty import NoveltyDetector
from anime_tf.progress import Reporter
from anime_tf.training import classifier as training
from anime_tf.training.classifier import resume_classifier, train_classifier
from tests import tiny

PARTS = {
    run_files.CONFIG,
    run_files.MANIFEST,
    run_files.HISTORY,
    run_files.CLASSIFIER,
    run_files.LAST,
    run_files.NOVELTY,
    run_files.RECOGNIZER,
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return tiny.trained_run(tmp_path_factory)


@pytest.fixture
def copy(run, tmp_path):
    return shutil.copytree(run, tmp_path / "copy")


@pytest.fixture
def settings(run, monkeypatch):
    """The settings of `run`, for another run of the same; the tiny backbone is in."""
    tiny.use_tiny_backbone(monkeypatch)
    return tiny.config(run.parent / "data", run.parent / "cache")


def _contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def _history(folder):
    rows = json.loads((folder / run_files.HISTORY).read_text())
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


def _check_equal(one, other):
    """Two runs came to the very same result, bit by bit."""
    for name in (run_files.LAST, run_files.CLASSIFIER):
        weights = [load_classifier(f / name).get_weights() for f in (one, other)]
        for found, expected in zip(*weights, strict=True):
            assert np.array_equal(found, expected), name
    assert _history(one) == _history(other)
    texts = [(f / run_files.RECOGNIZER).read_text() for f in (one, other)]
    assert texts[0] == texts[1]
    detectors = [NoveltyDetector.load(f / run_files.NOVELTY) for f in (one, other)]
    assert np.array_equal(detectors[0].whitening, detectors[1].whitening)


def test_learns_to_tell_characters_apart(copy):
    metrics = evaluate_run(copy)
    # Chance is a third.
    assert metrics["accuracy"] > 0.8
    assert metrics["class_names"] == sorted(tiny.NAMES)
    assert metrics["unknown"]["known_accepted"] > 0.5


def test_leaves_all_its_files_and_no_others(run):
    assert {path.name for path in run.iterdir()} == PARTS


def test_history_has_a_row_of_each_epoch(run):
    rows = _history(run)
    stages = [row["stage"] for row in rows]
    assert stages == ["head"] * 8 + ["fine-tune"] * 10
    assert [row["epoch"] for row in rows] == [*range(1, 9), *range(1, 11)]
    assert rows[-1]["val_accuracy"] > rows[0]["val_accuracy"]
    # Both schedules end near zero.
    for row in (rows[7], rows[-1]):
        assert row["learning_rate"] < 0.1 * max(r["learning_rate"] for r in rows)


def test_test_pictures_were_never_seen(run, copy):
    manifest = Manifest.load(run / run_files.MANIFEST)
    tests = manifest.split("test")
    seen = manifest.split("train") + manifest.split("validation")
    assert len(tests) >= 9
    assert len(tests) + len(seen) == len(manifest.items) == 3 * tiny.COUNT
    for fact in ("path", "sha256", "group"):
        known = {getattr(item, fact) for item in seen}
        assert not known & {getattr(item, fact) for item in tests}
    assert evaluate_run(copy)["num_pictures"] == len(tests)
    counts = manifest.counts()
    assert set(counts) == set(tiny.NAMES)
    assert min(split for c in counts.values() for split in c.values()) >= 1


def test_time_budget_is_kept_and_a_run_is_replaced(settings, copy, tmp_path):
    changes = {"time_budget": 1.0, "head_epochs": 2}
    (copy / "notes.txt").write_text("mine")
    (copy / run_files.REPORT).write_text("old")
    text = io.StringIO()
    reporter = Reporter(Console(file=text, width=120))
    config = tiny.config(settings.data_dir, settings.cache_dir, **changes)
    recognizer = train_classifier(config, copy, reporter, overwrite=True)
    assert "0 epochs" in text.getvalue()
    assert "the time budget has room for 0" in text.getvalue()
    assert [row["stage"] for row in _history(copy)] == ["head"] * 2
    # The old run's report would be of another model; what is not of a run stays.
    assert {path.name for path in copy.iterdir()} == PARTS | {"notes.txt"}
    # And what is there is a model all the same.
    assert Recognizer.load(copy).class_names == recognizer.class_names


def test_a_run_is_not_replaced_by_itself(settings, copy):
    before = _contents(copy)
    with pytest.raises(UserError, match=r"already holds a run.*--resume.*--overwrite"):
        train_classifier(settings, copy)
    assert _contents(copy) == before


def test_a_run_that_cannot_begin_leaves_the_old_one(run, copy, settings):
    before = _contents(copy)
    data, cache = settings.data_dir, settings.cache_dir
    for changes in (
        {"weights": "absent.h5"},
        {"data_dir": str(copy / "absent")},
        {"test_dir": str(run)},
    ):
        config = tiny.config(**({"data": data, "cache": cache} | changes))
        with pytest.raises(UserError):
            train_classifier(config, copy, overwrite=True)
        assert _contents(copy) == before


def test_too_few_pictures(settings, tmp_path):
    data = tiny.write_characters(tmp_path / "data", 1)
    config = tiny.config(data, tmp_path / "cache")
    with pytest.raises(UserError, match=r"too few pictures in .*data .*add some"):
        train_classifier(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_nothing_to_resume(copy, tmp_path):
    with pytest.raises(UserError, match="complete: there is nothing to resume"):
        resume_classifier(copy)
    with pytest.raises(UserError, match="holds no run to resume"):
        resume_classifier(tmp_path / "absent")


def test_resume_needs_its_pictures(run, copy, tmp_path):
    (copy / run_files.RECOGNIZER).unlink()
    record = (copy / run_files.MANIFEST).read_text(encoding="utf-8")
    moved = record.replace(str(run.parent / "data"), str(tmp_path / "moved"))
    (copy / run_files.MANIFEST).write_text(moved, encoding="utf-8")
    with pytest.raises(UserError, match=r"72 pictures of this run are gone .*moved"):
        resume_classifier(copy)


def test_interrupted_between_its_stages(run, settings, tmp_path, monkeypatch):
    out = tmp_path / "run"

    def interrupted(stage, train, *arguments):
        def interrupt(*_):
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(training._Run, stage, interrupt)
            with pytest.raises(KeyboardInterrupt):
                train(*arguments)
        assert not Recognizer.exists(out)
        with pytest.raises(UserError, match="--resume"):
            Recognizer.load(out)

    # Behind the head, and again behind the last epoch.
    interrupted("_plan_epochs", train_classifier, settings, out)
    interrupted("_calibrate", resume_classifier, out)
    resume_classifier(out)
    _check_equal(out, run)


@pytest.mark.slow
def test_killed_runs_go_on_as_if_nothing_had_been(run, settings, tmp_path):
    """Killed before there was any checkpoint, and again in the midst of fine-tuning."""
    out = tmp_path / "run"
    process = tiny.start("train", *tiny.options(settings), "--out", out)
    tiny.kill(process, lambda: (out / run_files.CONFIG).exists())
    assert _last_checkpoint(out) == 0
    process = tiny.start("train", "--resume", "--out", out)
    # The first checkpoint is behind the head, the second behind the plan.
    tiny.kill(process, lambda: _last_checkpoint(out) >= 4)
    assert not Recognizer.exists(out)
    text = io.StringIO()
    resume_classifier(out, Reporter(Console(file=text)))
    done = re.search(r"Resuming after (\d+) epochs", text.getvalue())
    assert 2 <= int(done[1]) < settings.epochs
    _check_equal(out, run)
    assert {path.name for path in out.iterdir()} == PARTS


def _last_checkpoint(folder):
    try:
        text = (folder / run_files.CHECKPOINTS / "checkpoint").read_text()
    except FileNotFoundError:
        return 0
    return int(re.search(r'^model_checkpoint_path: "ckpt-(\d+)"', text)[1])
