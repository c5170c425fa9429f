"""Predicting by LiteRT: the same answers, much sooner, and never of another model."""

import shutil
import subprocess
import sys

import numpy as np
import pytest

from anime_tf.datasets.image_folder import find_pictures
from anime_tf.errors import UserError
from anime_tf.export import companion
from anime_tf.export.recognition import LitePredictor, load_predictor
from anime_tf.inference import Recognizer
from anime_tf.progress import Reporter
from anime_tf.run_files import COMPANION, RECOGNIZER, remove_run
from tests import tiny

pytestmark = [
    # The interpreter's own bindings, and the converter's.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
pytest.importorskip("ai_edge_litert")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run that has its companion."""
    run = tiny.trained_run(tmp_path_factory)
    companion.ensure(run, Reporter())
    return run


@pytest.fixture
def copy(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "copy")


def _squares(size, count=5):
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), np.uint8)


def test_answers_are_those_of_the_run(trained):
    recognizer, lite = Recognizer.load(trained), load_predictor(trained)
    assert isinstance(lite, LitePredictor)
    assert lite.class_names == recognizer.class_names
    assert lite.threshold == recognizer.threshold
    squares = _squares(lite.image_size)
    for found, expected in zip(
        lite.judge(squares), recognizer.judge(squares), strict=True
    ):
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_alone_and_in_a_batch(trained):
    lite = load_predictor(trained)
    squares = _squares(lite.image_size)
    together = lite.judge(squares)
    for row, square in enumerate(squares):
        for alone, all_of_them in zip(lite.judge(square[None]), together, strict=True):
            np.testing.assert_allclose(alone[0], all_of_them[row], atol=1e-5)


def test_tensorflow_on_demand(trained):
    assert isinstance(load_predictor(trained, "tensorflow"), Recognizer)


def test_it_is_made_once_where_it_is_missing(copy):
    (copy / COMPANION).unlink()
    assert isinstance(load_predictor(copy), Recognizer)
    assert isinstance(load_predictor(copy, "litert"), LitePredictor)
    before = (copy / COMPANION).stat().st_mtime_ns
    load_predictor(copy, "litert")
    assert (copy / COMPANION).stat().st_mtime_ns == before


def test_that_of_another_model_is_not_used(copy):
    record = (copy / RECOGNIZER).read_text(encoding="utf-8")
    (copy / RECOGNIZER).write_text(record + "\n", encoding="utf-8")
    assert isinstance(load_predictor(copy), Recognizer)
    (copy / COMPANION).write_bytes(b"damaged")
    assert isinstance(load_predictor(copy), Recognizer)


def test_one_that_answers_otherwise_is_not_kept(copy, monkeypatch):
    (copy / COMPANION).unlink()
    judge = Recognizer.judge

    def otherwise(self, squares):
        probabilities, scores = judge(self, squares)
        return probabilities, scores + 1

    monkeypatch.setattr(Recognizer, "judge", otherwise)
    with pytest.raises(UserError, match=r"answers otherwise .* scores by 1"):
        companion.ensure(copy, Reporter())
    assert not (copy / COMPANION).exists()


def test_without_litert(copy, monkeypatch):
    monkeypatch.setattr(companion, "has_litert", lambda: False)
    assert isinstance(load_predictor(copy), Recognizer)
    with pytest.raises(UserError, match="pip install ai-edge-litert"):
        load_predictor(copy, "litert")


def test_it_goes_with_its_run(copy):
    remove_run(copy)
    assert not (copy / COMPANION).exists()


def test_the_command_needs_no_tensorflow(trained):
    picture = find_pictures([trained.parent / "data"])[0]
    code = (
        "import sys; from anime_tf.cli import main\n"
        "try: main()\n"
        "finally: print({'tensorflow', 'keras'} & set(sys.modules))"
    )
    command = [sys.executable, "-c", code, "predict", "--model", trained, picture]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert picture.name in result.stdout
    assert result.stdout.endswith("set()\n")


def test_choices_that_cannot_be(trained, tmp_path):
    picture = find_pictures([trained.parent / "data"])[0]
    why = ["predict", "--model", trained, "--explain", tmp_path / "why", picture]
    refused = tiny.invoke(*why, "--runtime", "litert")
    assert refused.exit_code == 2
    assert "--explain needs TensorFlow" in refused.output
    lite = ["predict", "--model", trained / COMPANION, picture]
    refused = tiny.invoke(*lite, "--runtime", "tensorflow")
    assert refused.exit_code == 2
    assert "is an export" in refused.output
