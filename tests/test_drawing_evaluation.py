"""Judging drawings, and drawing from the command line, around one small run."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from anime_tf import run_files
from anime_tf.drawing_evaluation import evaluate_drawing, hit_rate
from anime_tf.errors import UserError
from anime_tf.inference import Recognizer
from anime_tf.sampler import Sampler
from anime_tf.training import generator as training
from tests import tiny


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    return tiny.trained_run(tmp_path_factory)


@pytest.fixture(scope="module")
def run(classifier, tmp_path_factory):
    """A generator of two epochs, evaluated."""
    out = tmp_path_factory.mktemp("drawing") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "build_features", tiny.tiny_features)
        config = tiny.draw_config(classifier, num_epochs=2, preview_steps=6)
        training.train_generator(config, out)
    evaluate_drawing(out, count=16)
    return out


@pytest.fixture
def copy(run, tmp_path):
    return shutil.copytree(run, tmp_path / "copy")


def _metrics(folder):
    return json.loads((folder / run_files.METRICS).read_text(encoding="utf-8"))


def test_every_figure_is_there(run):
    metrics = _metrics(run)
    assert metrics["features"] == "vgg19 block3_conv4, random, 32 px"
    assert metrics["judge"] is None
    assert metrics["num_generated"] == 16
    assert metrics["step"] == 12
    figures = metrics["characters"]["初音未来"]
    assert figures["num_real"] == tiny.COUNT
    assert figures["fid"] is None, "too few for it"
    assert figures["hit_rate"] is None
    names = ("kid", "kid_error", "precision", "recall", "diversity_ratio")
    names += ("memorisation_ratio", "checkerboard_score", "checkerboard_ratio")
    assert all(np.isfinite(figures[name]) for name in names)
    assert figures["memorisation_ratio"] > 0.5, "two epochs copy nothing"


def test_sheets_and_report_are_written(run):
    for name in (run_files.PAIRS_SHEET, run_files.NEAREST_SHEET, run_files.EVOLUTION):
        with Image.open(run / name) as image:
            assert min(image.size) > 100
    page = (run / run_files.REPORT).read_text(encoding="utf-8")
    assert "初音未来" in page
    assert page.count("data:image/png") == 2
    assert page.count("data:image/gif") == 1


def test_real_pictures_are_as_good_as_can_be(run, copy, classifier):
    """A generator that draws real pictures: no figure may say that it is bad."""
    real = [
        np.asarray(Image.open(path).resize((32, 32)))
        for path in sorted((classifier.parent / "data" / "初音未来").iterdir())
    ]

    class Copier(Sampler):
        def draw(self, noise, labels):
            return np.resize(np.stack(real), (len(noise), 32, 32, 3))

    drawn = _metrics(run)["characters"]["初音未来"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("anime_tf.drawing_evaluation.Sampler", Copier)
        copied = evaluate_drawing(copy, count=tiny.COUNT)["characters"]["初音未来"]
    assert copied["memorisation_ratio"] < 0.5 < drawn["memorisation_ratio"]
    assert copied["precision"] == copied["recall"] == 1.0


def test_the_guide_is_no_judge(run, copy, classifier, tmp_path):
    with pytest.raises(UserError, match="guided the generator"):
        evaluate_drawing(run, judge=classifier)
    judge = shutil.copytree(classifier, tmp_path / "judge")
    metrics = evaluate_drawing(copy, count=16, judge=judge)
    assert 0 <= metrics["characters"]["初音未来"]["hit_rate"] <= 1


def test_hit_rate_of_real_pictures(classifier):
    judge = Recognizer.load(classifier)
    pictures = [
        np.asarray(Image.open(path))
        for path in sorted((classifier.parent / "data" / "初音未来").iterdir())
    ]
    assert hit_rate(judge, np.stack(pictures), "初音未来") > 0.7
    assert hit_rate(judge, np.stack(pictures), "Rémi Ō") < 0.3
    with pytest.raises(UserError, match="does not know Nobody"):
        hit_rate(judge, np.stack(pictures), "Nobody")


def test_the_command_measures(copy):
    result = tiny.invoke("draw-eval", "--model", copy, "--count", 8, "--seed", 3)
    assert result.exit_code == 0, result.output
    assert "variety" in result.output
    assert _metrics(copy)["num_generated"] == 8


def test_generate_writes_pictures_and_a_grid(run, tmp_path):
    out = tmp_path / "out"
    result = tiny.invoke("generate", "--model", run, "--out", out, "--count", 5)
    assert result.exit_code == 0, result.output
    names = sorted(path.name for path in out.iterdir())
    assert names == [*(f"{n:04}.png" for n in range(1, 6)), "grid.png"]
    with Image.open(out / "0002.png") as image:
        wanted = Sampler.load(run).generate(5, seed=0)[1]
        np.testing.assert_array_equal(np.asarray(image), wanted)
    again = tiny.invoke("generate", "--model", run, "--out", out)
    assert again.exit_code == 2
    assert "give a new folder" in again.output


def test_generate_best_of_and_interpolation(run, tmp_path):
    arguments = ("--model", run, "--truncation", 0.7, "--character", "初音未来")
    best = tiny.invoke(
        "generate", "--out", tmp_path / "best", "--count", 2, "--best-of", 3, *arguments
    )
    assert best.exit_code == 0, best.output
    assert len(list((tmp_path / "best").iterdir())) == 3
    way = tiny.invoke(
        "generate", "--out", tmp_path / "way", "--interpolate", 2, *arguments
    )
    assert way.exit_code == 0, way.output
    with Image.open(tmp_path / "way" / "interpolation.gif") as animation:
        assert animation.n_frames > 12


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("generate", "--model", "absent", "--out", "x"), "no trained generator in"),
        (("draw-eval", "--model", "absent"), "no trained generator in absent"),
        (("draw", "--classifier", "absent"), "no trained model in absent"),
        (("draw", "--resume", "--out", "absent"), "holds no run to resume"),
        (("draw", "--num-epochs", 0), "--num-epochs must be at least 1"),
        (("draw", "--image_size", 65), "65"),
        (("draw", "--perceptual", "mse"), "mse"),
    ],
)
def test_mistakes_get_one_sentence(arguments, complaint):
    result = tiny.invoke(*arguments)
    assert result.exit_code == 2
    assert complaint in result.output
    assert "Traceback" not in result.output


def test_unknown_character_at_generate(run, tmp_path):
    result = tiny.invoke(
        "generate", "--model", run, "--out", tmp_path / "x", "--character", "Rémi Ō"
    )
    assert result.exit_code == 2
    assert "there are: 2 初音未来" in result.output
    assert not (tmp_path / "x").exists()
