import csv
import io
import json
import os
import shutil

import click
import pytest
from PIL import Image

from anime_tf import __version__, run_files
from anime_tf.cli import cli
from anime_tf.cli.options import Bytes, Duration
from anime_tf.training import classifier as training
from tests import tiny


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return tiny.trained_run(tmp_path_factory)


@pytest.fixture(scope="module")
def data(run):
    return run.parent / "data"


@pytest.fixture(scope="module")
def picture(data):
    return data / tiny.NAMES[0] / "000.png"


@pytest.fixture
def copy(run, tmp_path):
    return shutil.copytree(run, tmp_path / "copy")


def _succeed(*arguments):
    result = tiny.invoke(*arguments)
    assert result.exit_code == 0, result.output
    return result


def _fail(*arguments):
    """Returns the one sentence of complaint."""
    result = tiny.invoke(*arguments)
    assert result.exit_code == 2, result.output
    assert isinstance(result.exception, SystemExit)
    assert result.stderr.count("Error: ") == 1
    assert "Traceback" not in result.output
    return result.stderr.splitlines()[-1].removeprefix("Error: ")


def _commands(group=cli, path=()):
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from _commands(command, (*path, name))
        else:
            yield *path, name


def test_every_command_is_there():
    assert set(_commands()) == {
        ("train",),
        ("evaluate",),
        ("predict",),
        ("sort",),
        ("data", "check"),
        ("data", "demo"),
        ("data", "export-tfds"),
        ("draw",),
        ("draw-eval",),
        ("export",),
        ("generate",),
        ("serve-config",),
        ("serve",),
        ("ui",),
    }


@pytest.mark.parametrize("path", list(_commands()))
@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_has_an_example(path, option):
    text = _succeed(*path, option).stdout
    assert "Example" in text
    assert f"anime-tf {' '.join(path)}" in text


def test_help_and_version():
    assert "anime-tf train" in _succeed("--help").stdout
    assert __version__ in _succeed("--version").stdout


@pytest.mark.parametrize(
    ("text", "number"),
    [("7", 7), ("1k", 1024), ("512M", 512 * 1024**2), ("1.5 GiB", 3 * 2**29)],
)
def test_sizes(text, number):
    assert Bytes().convert(text, None, None) == number


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("10m", 600), ("1.5H", 5400)]
)
def test_times(text, seconds):
    assert Duration().convert(text, None, None) == seconds


@pytest.mark.parametrize("text", ["", "m", "10x", "-5m", "1:30", "nan", "5 6"])
def test_what_is_no_size_and_no_time(text):
    assert "is no time" in _fail("train", f"--time-budget={text}")
    text = text.replace("m", "s")
    assert "is no size" in _fail("train", f"--memory={text}")


def test_both_spellings(tmp_path):
    for option in ("--data-dir", "--data_dir"):
        message = _fail("train", option, tmp_path / "absent")
        assert f"the folder {tmp_path / 'absent'} does not exist" in message


# Mistakes: one sentence each.


def _folder(parent, *names):
    for name in names:
        (parent / name).mkdir(parents=True)
        Image.new("RGB", (9, 9)).save(parent / name / "1.png")
    parent.mkdir(exist_ok=True)
    return parent


def test_data_that_cannot_be_trained_on(tmp_path):
    def complaint(folder):
        options = ["--cache-dir", tmp_path / "cache", "--out", tmp_path / "out"]
        return _fail("train", "--weights=none", "--data-dir", folder, *options)

    empty = _folder(tmp_path / "empty")
    assert "no character folders" in complaint(empty)
    assert "only one character" in complaint(_folder(tmp_path / "one", "Rem"))
    (empty / "Rem").mkdir()
    assert "no files in the 1 folders" in complaint(empty)
    (empty / "Rem" / "1.png").write_text("no picture")
    assert "none of the 1 files" in complaint(empty)
    assert "too few pictures" in complaint(_folder(tmp_path / "two", "Rem", "Ram"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--epochs", "0"], "--epochs must be at least 1, got 0"),
        (["--image-size", "16"], "--image-size must be 32 to 600, got 16"),
        (["--seed", "-1"], "--seed must be"),
        (["--preset", "turbo"], "'turbo' is not one of"),
        (["--backbone", "resnet"], "'resnet' is not one of"),
        (["--epochs", "many"], "'many' is not a valid integer"),
        (["--epoch", "3"], "No such option"),
        (
            ["--resume", "--epochs", "3", "--data_dir", "x"],
            "leave out --epochs, --data-d",
        ),
        (["--resume", "--out", "absent"], "absent holds no run to resume"),
    ],
)
def test_options_that_cannot_be(arguments, named):
    assert named in _fail("train", *arguments)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["draw", "--resume", "--seed", "1"], "leave out --seed, or start anew"),
        (["generate", "--interpolate", "3", "--count", "4"], "--interpolate goes with"),
        (["export", "--variant", "int8"], "--variant is for --format tflite"),
        (
            ["predict", "x.png", "--server", "http://x", "--runtime", "litert"],
            "--server takes the place of --runtime",
        ),
    ],
)
def test_options_that_do_not_go_together(arguments, named, tmp_path):
    if arguments[0] != "predict":
        arguments = [*arguments, "--out", tmp_path / "out"]
    assert named in _fail(*arguments)


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    message = _fail("data", "demo", "--out", tmp_path / "file" / "in", "--count", 1)
    assert f"{tmp_path / 'file' / 'in'}" in message
    assert "Not a directory" in message


def test_runs_that_cannot_be_begun(copy, data, tmp_path):
    options = ["--cache-dir", tmp_path / "cache", "--data-dir", data]
    assert "nothing to resume" in _fail("train", "--resume", "--out", copy)
    message = _fail("train", "--weights=none", "--out", copy, *options)
    assert "already holds a run" in message
    (tmp_path / "file").write_text("mine")
    message = _fail("train", "--weights=none", "--out", tmp_path / "file", *options)
    assert "file is a file; give another folder" in message
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("command", ["evaluate", "predict", "sort"])
def test_models_that_are_not_there(command, picture, tmp_path):
    arguments = {"predict": [picture], "sort": [picture.parent, tmp_path / "out"]}
    message = _fail(command, *arguments.get(command, []), "--model", tmp_path / "none")
    assert f"there is no trained model in {tmp_path / 'none'}" in message


def test_pictures_that_are_not_there(run, tmp_path):
    for command in (["predict"], ["sort", tmp_path / "out"]):
        arguments = [*command[:1], tmp_path / "absent", *command[1:]]
        assert "no pictures at" in _fail(*arguments, "--model", run)
    (tmp_path / "empty").mkdir()
    options = ["--model", run, "--unknown-dir", tmp_path / "empty"]
    assert "no pictures in the folder" in _fail("evaluate", *options)
    assert "does not exist" in _fail("data", "check", "--data-dir", tmp_path / "absent")


# Train and evaluate.


def test_train(run, data, tmp_path, monkeypatch):
    tiny.use_tiny_backbone(monkeypatch)
    tests = tiny.write_characters(tmp_path / "tests", 4, seed=9)
    options = tiny.options(tiny.config(data, run.parent / "cache", epochs=5))
    # The spelling of the published command.
    options = [option.replace("-dir", "_dir") for option in options]
    out = tmp_path / "out"
    result = _succeed("train", *options, "--test_dir", tests, "--out", out)
    assert f"Report: {out / 'report.html'}" in result.stdout
    assert "WARNING: random weights" in result.stdout
    for name in tiny.NAMES:
        assert name in result.stdout
    assert json.loads((out / run_files.CONFIG).read_text())["test_dir"] == str(tests)
    metrics = json.loads((out / run_files.METRICS).read_text())
    assert metrics["num_pictures"] == 12
    assert metrics["accuracy"] > 0.6


def test_interrupted_by_hand(tmp_path, data, monkeypatch):
    def interrupt(config, out, *_):
        out.mkdir()
        (out / run_files.CONFIG).write_text("{}")
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "train_classifier", interrupt)
    result = tiny.invoke("train", "--data-dir", data, "--out", tmp_path / "out")
    assert result.exit_code == 130
    assert f"anime-tf train --resume --out {tmp_path / 'out'}" in result.stdout


def test_evaluate(copy):
    result = _succeed("evaluate", "--model", copy)
    assert "accuracy" in result.stdout
    metrics = json.loads((copy / run_files.METRICS).read_text(encoding="utf-8"))
    wanted = {"accuracy", "top3_accuracy", "macro_f1", "per_class", "ece", "unknown"}
    assert wanted <= set(metrics)
    assert set(metrics["per_class"]) == set(tiny.NAMES)
    assert metrics["unknown"]["auroc"] is None
    report = (copy / run_files.REPORT).read_text(encoding="utf-8")
    assert all(name in report for name in tiny.NAMES)


def test_evaluate_rejection(copy, tmp_path):
    tiny.draw_strangers(tmp_path / "strangers")
    (tmp_path / "strangers" / "bad.png").write_text("no picture")
    result = _succeed("evaluate", "--model", copy, "--unknown-dir", tmp_path)
    assert "AUROC" in result.stdout
    assert "skipped" in result.stdout
    metrics = json.loads((copy / run_files.METRICS).read_text(encoding="utf-8"))
    unknown = metrics["unknown"]
    assert unknown["auroc"] > 0.9
    # The copy of the model lies below the same folder; its files are no pictures.
    assert unknown["num_unknown"] == 12


def test_evaluate_where_the_pictures_are_now(copy, data, tmp_path):
    moved = shutil.copytree(data, tmp_path / "moved")
    _succeed("evaluate", "--model", copy, "--data-dir", moved)
    for path in sorted(moved.rglob("*.png")):
        Image.new("RGB", (9, 9)).save(path)
    message = _fail("evaluate", "--model", copy, "--data-dir", moved)
    assert "is not the picture that this run held out" in message
    shutil.rmtree(moved)
    message = _fail("evaluate", "--model", copy, "--data-dir", moved)
    assert "say where they are with --data-dir" in message


# Predict.


@pytest.fixture
def bad(tmp_path):
    path = tmp_path / "bad, [one].png"
    path.write_text("no picture")
    return path


def _check_rows(rows, picture, bad):
    assert [row["path"] for row in rows] == [str(picture), str(bad)]
    assert rows[0]["name"] in (*tiny.NAMES, "unknown")
    assert 0 < float(rows[0]["confidence"]) <= 1
    assert "no picture" not in rows[0]["problem"]
    assert rows[1]["name"] == ""
    assert "not a JPEG" in rows[1]["problem"]


def test_predict_csv(run, picture, bad):
    result = _succeed("predict", picture, bad, "--model", run, "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    _check_rows(rows, picture, bad)
    assert [row["is_unknown"] for row in rows] == ["False", "False"]
    top = dict(pair.rsplit("=", 1) for pair in rows[0]["top"].split("; "))
    assert set(top) == set(tiny.NAMES)


@pytest.mark.parametrize("style", ["json", "jsonl"])
def test_predict_json(run, picture, bad, style):
    result = _succeed("predict", picture, bad, "--model", run, "--format", style)
    lines = result.stdout.splitlines()
    rows = json.loads(result.stdout) if style == "json" else map(json.loads, lines)
    rows = list(rows)
    _check_rows(rows, picture, bad)
    assert sum(rows[0]["top"].values()) == pytest.approx(1.0, abs=1e-3)


def test_predict_table(run, picture, bad):
    result = _succeed("predict", picture, bad, "--model", run)
    # Wrapped, so in pieces.
    for part in ("000.png", "[one]", "not a"):
        assert part in result.stdout


@pytest.mark.parametrize(("top_k", "count"), [(1, 1), (2, 2), (50, 3)])
def test_predict_top_k(run, picture, top_k, count):
    options = ["--model", run, "--format", "json", "--top-k", top_k]
    (row,) = json.loads(_succeed("predict", picture, *options).stdout)
    assert len(row["top"]) == count
    assert "0 is not in the range" in _fail("predict", picture, "--top-k", 0)


def test_predict_folders_and_globs(run, data):
    def count(*paths):
        result = _succeed("predict", *paths, "--model", run, "--format", "jsonl")
        return len(result.stdout.splitlines())

    assert count(data / tiny.NAMES[0]) == tiny.COUNT
    assert count(data / "*" / "00[0-4].png") == 5 * 2 + 5
    assert count(data, data / tiny.NAMES[1]) == 3 * tiny.COUNT


@pytest.mark.skipif(os.name == "nt", reason="file names are Unicode there")
@pytest.mark.parametrize("style", ["table", "csv", "json", "jsonl"])
def test_predict_a_file_name_that_is_not_unicode(run, picture, tmp_path, style):
    name = b"caf\xe9.png".decode("utf-8", errors="surrogateescape")
    shutil.copy(picture, tmp_path / name)
    result = _succeed("predict", tmp_path, "--model", run, "--format", style)
    assert "caf" in result.stdout
    if style == "json":
        assert json.loads(result.stdout)[0]["path"] == str(tmp_path / name)


def test_predict_explain(run, picture, bad, tmp_path):
    folder = tmp_path / "explained"
    _succeed("predict", picture, bad, "--model", run, "--explain", folder)
    (path,) = folder.iterdir()
    assert path.name == "00001_000.png"
    with Image.open(path) as image:
        assert (image.mode, image.size) == ("RGB", (tiny.IMAGE_SIZE, tiny.IMAGE_SIZE))
    message = _fail("predict", picture, "--model", run, "--explain", folder)
    assert "--explain needs a new or empty folder" in message


# Sort and data.


def test_sort(run, data, tmp_path):
    source = shutil.copytree(data / tiny.NAMES[2], tmp_path / "in")
    (source / "notes.txt").write_text("no picture")
    out = source / "sorted"
    before = sorted(source.rglob("*"))
    result = _succeed("sort", source, out, "--model", run, "--move", "--dry-run")
    assert sorted(source.rglob("*")) == before
    assert "Nothing was touched" in result.stdout
    assert "Would move" in result.stdout
    _succeed("sort", source, out, "--model", run, "--move")
    assert [path.name for path in source.glob("*.*")] == ["notes.txt"]
    assert len(list((out / tiny.NAMES[2]).iterdir())) > tiny.COUNT / 2
    assert len(list(out.rglob("*.png"))) == tiny.COUNT
    # What is sorted already is left alone.
    result = _succeed("sort", source, out, "--model", run, "--move")
    assert "0 pictures to" in result.stdout


def test_sort_ways(run, data, tmp_path):
    source = data / tiny.NAMES[1]
    _succeed("sort", source, tmp_path / "linked", "--model", run, "--link")
    _succeed("sort", source, tmp_path / "copied", "--model", run)
    for name, linked in (("linked", True), ("copied", False)):
        paths = list((tmp_path / name).rglob("*.png"))
        assert len(paths) == tiny.COUNT
        assert {path.is_symlink() for path in paths} == {linked}
    assert len(list(source.iterdir())) == tiny.COUNT


def test_data_check(data, run):
    options = ["--data-dir", data, "--cache-dir", run.parent / "cache"]
    found = json.loads(_succeed("data", "check", *options, "--format=json").stdout)
    assert found["counts"] == dict.fromkeys(sorted(tiny.NAMES), tiny.COUNT)
    assert found["unreadable"] == {}
    assert found["duplicates"] == []
    text = _succeed("data", "check", *options).stdout
    assert all(name in text for name in tiny.NAMES)


def test_data_demo(tmp_path):
    out = tmp_path / "cast"
    options = ["--out", out, "--characters=2", "--count=3", "--image-size=32"]
    _succeed("data", "demo", *options)
    assert len([path for path in out.rglob("*") if path.is_file()]) == 6
