"""Whole runs of drawing, on a small classifier and random VGG19."""

import csv
import io
import json
import math
import shutil

import numpy as np
import pytest
from rich.console import Console

from anime_tf import run_files
from anime_tf.config import DrawConfig
from anime_tf.datasets.character_batches import plan_epoch
from anime_tf.datasets.manifest import labels_of
from anime_tf.errors import UserError
from anime_tf.models.networks import build_generator
from anime_tf.models.teachers import ClassificationTeacher, PerceptualTeacher
from anime_tf.progress import Reporter
from anime_tf.sampler import Sampler, load_network
from anime_tf.subject import Subject
from anime_tf.training import generator as training
from anime_tf.training.generator import resume_generator, train_generator
from tests import tiny


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    return tiny.trained_run(tmp_path_factory)


@pytest.fixture(scope="module", autouse=True)
def tiny_features():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "build_features", tiny.tiny_features)
        yield


@pytest.fixture
def settings(classifier):
    """A run of seconds."""
    return tiny.draw_config(classifier)


def _change(config, **changes):
    return DrawConfig(**{**vars(config), **changes})


def _weights(folder, name=run_files.GENERATOR):
    return load_network(folder / name).get_weights()


def _check_equal(one, other):
    for name in (run_files.GENERATOR, run_files.DISCRIMINATOR):
        for a, b in zip(_weights(one, name), _weights(other, name), strict=True):
            np.testing.assert_array_equal(a, b)
    histories = [(f / run_files.HISTORY).read_text() for f in (one, other)]
    assert histories[0] == histories[1]


@pytest.fixture(scope="module")
def run(classifier, tmp_path_factory):
    """A finished run, with what it said."""
    text = io.StringIO()
    out = tmp_path_factory.mktemp("drawing") / "run"
    reporter = Reporter(Console(file=text, width=200))
    train_generator(tiny.draw_config(classifier), out, reporter)
    return out, text.getvalue()


def test_a_run_says_what_it_does(run):
    _, text = run
    assert "Drawing 初音未来 at 32 px from 21 pictures; 3 are kept out" in text
    assert "6 steps of 4; 4 epochs are 24 steps" in text
    assert "adversarial 0.1, classification 0.2, perceptual 10 (drift)" in text
    assert "WARNING: VGG19 with random weights" in text
    assert "The classifier knows" in text
    assert ", perceptual 0." in text, "each term by name beside the bar"


def test_a_run_leaves_a_generator_and_its_log(run):
    out, _ = run
    sampler = Sampler.load(out)
    assert sampler.drawn == ("初音未来",)
    assert sampler.record["finished"]
    assert sampler.generate(2).shape == (2, 32, 32, 3)
    log = (out / run_files.LOG).read_text(encoding="utf-8")
    rows = list(csv.DictReader(io.StringIO(log)))
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4"]
    assert [row["step"] for row in rows] == ["6", "12", "18", "24"]
    assert [bool(row["kid"]) for row in rows] == [False, True, False, True]
    names = sorted(path.name for path in (out / run_files.PREVIEWS).iterdir())
    assert names == ["0000012.png", "0000024.png"]
    best = min((float(row["kid"]), row["epoch"]) for row in rows if row["kid"])
    assert sampler.record["best_kid"] == pytest.approx(best[0])


def test_checkpoints_hold_no_teacher(run):
    out, _ = run
    networks = [
        load_network(out / n) for n in ("generator.keras", "discriminator.keras")
    ]
    parameters = [network.count_params() for network in networks]
    # The generator, its average, the discriminator; two numbers more for each trained.
    wanted = 4 * (parameters[0] * 4 + parameters[1] * 3)
    size = sum(p.stat().st_size for p in (out / "checkpoints").glob("*.data*"))
    assert size == pytest.approx(wanted, rel=0.2)


def test_the_same_seed_gives_the_same_run(run, settings, tmp_path):
    out, _ = run
    train_generator(settings, tmp_path / "again")
    _check_equal(out, tmp_path / "again")


def test_resumed_is_as_if_never_interrupted(run, settings, tmp_path, monkeypatch):
    out, _ = run
    look = training.Examiner.on_epoch_end

    def interrupt(self, epoch, logs=None):
        if epoch == 2:
            raise KeyboardInterrupt
        look(self, epoch, logs)

    monkeypatch.setattr(training.Examiner, "on_epoch_end", interrupt)
    with pytest.raises(KeyboardInterrupt):
        train_generator(settings, tmp_path / "run")
    assert not Sampler.load(tmp_path / "run").record["finished"], "usable already"
    monkeypatch.undo()
    resume_generator(tmp_path / "run")
    _check_equal(out, tmp_path / "run")


@pytest.mark.slow
def test_killed_runs_go_on_as_if_nothing_had_been(run, settings, tmp_path):
    """Killed (SIGKILL) in mid-training, in a process of its own."""
    whole, _ = run
    out = tmp_path / "run"
    process = tiny.start("draw", *tiny.draw_options(settings), "--out", out)
    tiny.kill(process, lambda: (out / "checkpoints" / "checkpoint").exists())
    assert not Sampler.load(out).record["finished"]
    resume_generator(out)
    _check_equal(whole, out)


def test_what_cannot_be_resumed(run, settings, tmp_path):
    out, _ = run
    with pytest.raises(UserError, match="nothing to resume"):
        resume_generator(out)
    with pytest.raises(UserError, match="holds no run"):
        resume_generator(tmp_path)
    with pytest.raises(UserError, match="--overwrite"):
        train_generator(settings, out)


def test_refusals_leave_nothing_behind(settings, tmp_path, monkeypatch):
    out = tmp_path / "out"
    with pytest.raises(UserError, match=r"'Asuka'.*there are: 0 Asuka"):
        train_generator(_change(settings, target_class="Asuka"), out)
    with pytest.raises(UserError, match="anime-tf train"):
        train_generator(_change(settings, classifier=str(tmp_path)), out)
    with pytest.raises(UserError, match=r"pictures .* are gone"):
        train_generator(_change(settings, data_dir=str(tmp_path)), out)
    with pytest.raises(UserError, match="--vgg-weights"):
        train_generator(_change(settings, vgg_weights=str(tmp_path / "x.h5")), out)
    both = _change(settings, pretrain=True, pretrained=str(out))
    with pytest.raises(UserError, match="and what is made of it"):
        train_generator(both, out)
    monkeypatch.setattr(training, "MIN_ACCURACY", 1.01)
    with pytest.raises(UserError, match="the least that a teacher must know"):
        train_generator(settings, out)
    assert not out.exists()


def test_a_teacher_without_a_lesson_is_refused(settings, tmp_path, monkeypatch):
    def silence(self, views, labels):
        return 0.0 * views[0, 0, 0, 0]

    monkeypatch.setattr(ClassificationTeacher, "__call__", silence)
    with pytest.raises(UserError, match=r"classification teacher .* length 0"):
        train_generator(settings, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_nothing_but_nan_is_said(settings, tmp_path, monkeypatch):
    def poisoned(self, fakes, references):
        return math.nan * fakes[0, 0, 0, 0]

    monkeypatch.setattr(PerceptualTeacher, "__call__", poisoned)
    # Before the first step it would have been refused.
    monkeypatch.setattr(training._Run, "_check_gradients", lambda self, gan: None)
    text = io.StringIO()
    reporter = Reporter(Console(file=text, width=200))
    with pytest.raises(UserError, match="no drawing worth keeping"):
        train_generator(settings, tmp_path / "out", reporter)
    assert "a loss is not finite any more after epoch 1" in text.getvalue()


def test_warm_start_from_all_characters(settings, tmp_path):
    extra = tmp_path / "extra"
    tiny.draw_strangers(extra, count=6)
    base = tmp_path / "base"
    config = _change(
        settings,
        num_epochs=1,
        pretrain=True,
        pretrained=str(base),
        pretrain_epochs=1,
        extra_images=str(extra),
    )
    # The first batch shows nobody in particular: the classifier has nothing to say.
    learnt = labels_of(Subject.find(settings).learnt)
    labels = np.append(learnt, np.full(6, len(tiny.NAMES)))
    first = [
        plan_epoch(labels, 4, seed, 0, nobody=len(tiny.NAMES))[0] for seed in range(20)
    ]
    seeds = [seed for seed, batch in enumerate(first) if min(batch) >= len(learnt)]
    config = _change(config, seed=seeds[0], time_budget=600.0)
    texts = []
    for name in ("first", "second"):
        text = io.StringIO()
        train_generator(
            config, tmp_path / name, Reporter(Console(file=text, width=200))
        )
        texts.append(text.getvalue())
    assert Sampler.load(base).drawn == tuple(sorted(tiny.NAMES))
    assert "First a generator of all characters" in texts[0]
    assert "for half of the time: 5.0 minutes" in texts[0]
    assert "6 pictures of anybody" in texts[0]
    assert "Starting from the generator" in texts[1]
    _check_equal(tmp_path / "first", tmp_path / "second")
    # It started from there: five steps do not carry far.
    start, end = _weights(base), _weights(tmp_path / "first")
    cold = build_generator(config.image_size, len(tiny.NAMES) + 1, config.channels)
    near = [np.abs(a - b).mean() for a, b in zip(start, end, strict=True)]
    far = [np.abs(a - b).mean() for a, b in zip(start, cold.get_weights(), strict=True)]
    assert sum(near) < 0.7 * sum(far)


@pytest.mark.parametrize(
    "changes",
    [
        {"discriminator": "projected"},
        {"perceptual": "paired"},
        {"perceptual_weight": 0.0, "classification_weight": 0.0},
        {"target_class": "all", "upsampling": "transposed"},
    ],
)
def test_every_recipe_runs(settings, tmp_path, changes):
    train_generator(_change(settings, num_epochs=1, **changes), tmp_path / "out")
    rows = json.loads((tmp_path / "out" / run_files.HISTORY).read_text())
    assert all(math.isfinite(value) for value in rows[-1].values())
    assert Sampler.load(tmp_path / "out").generate(2).std() > 0


def test_a_picture_that_vanishes_is_named(settings, classifier, tmp_path):
    data = shutil.copytree(classifier.parent / "data", tmp_path / "data")
    victim = sorted((data / "初音未来").iterdir())[0]
    content = victim.read_bytes()
    victim.write_bytes(content + b"changed")
    config = _change(settings, data_dir=str(data), cache_dir=str(tmp_path / "cache"))
    with pytest.raises(UserError, match=r"000.png was a picture of this run"):
        train_generator(config, tmp_path / "out")
