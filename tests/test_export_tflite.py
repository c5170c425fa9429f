"""TFLite files: the answers of the model, and an honest word on what they lose."""

import json
import shutil
import zipfile

import keras
import numpy as np
import pytest

from anime_tf import images
from anime_tf.config import VARIANTS
from anime_tf.datasets.image_folder import find_pictures
from anime_tf.errors import UserError
from anime_tf.export import records, run, tflite, trial
from anime_tf.export.drawing import load_drawer
from anime_tf.export.lite import LiteModel, read_record
from anime_tf.export.recognition import load_predictor
from anime_tf.inference import Recognizer
from anime_tf.models.networks import build_generator
from anime_tf.run_files import MANIFEST
from anime_tf.sampler import Sampler
from tests import tiny

# The interpreter's own bindings, and the converter's.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return tiny.trained_run(tmp_path_factory)


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
    """The folder, and what the command said."""
    folder = tmp_path_factory.mktemp("lite") / "out"
    result = tiny.invoke(
        *("export", "--model", trained, "--out", folder),
        *("--format", "tflite", "--variant", "all"),
    )
    assert result.exit_code == 0, result.output
    return folder, result.output


@pytest.fixture(scope="module")
def pictures(trained):
    return find_pictures([trained.parent / "data"])[::6]


def _sampler():
    keras.utils.set_random_seed(0)
    generator = build_generator(16, num_classes=3, channels=8)
    return Sampler(generator, ("Rem", "初音未来", ""), ("Rem", "初音未来"))


def _names(model, pictures):
    """What `anime-tf predict` answers."""
    result = tiny.invoke("predict", "--model", model, "--format", "json", *pictures)
    assert result.exit_code == 0, result.output
    return [row["name"] for row in json.loads(result.stdout)]


def test_every_variant_is_written_and_measured(exported):
    folder, output = exported
    for variant in VARIANTS:
        assert variant in output
        path = folder / f"classifier_{variant}.tflite"
        figures = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        assert figures["bytes"] == path.stat().st_size
        assert figures["real_pictures"] == figures["pictures"] > 0
        lost = figures["accuracy_of_model"] - figures["accuracy"]
        shift = abs(figures["accepted_by_model"] - figures["accepted"])
        assert figures["good"] is (max(lost, shift) <= trial.MOST_LOST)
    exact = json.loads((folder / "classifier_float32.json").read_text(encoding="utf-8"))
    assert exact["good"]
    assert exact["largest_difference_of_probability"] < 1e-4


def test_the_record_travels_inside_the_file(exported, trained):
    folder, _ = exported
    path = folder / "classifier_float16.tflite"
    recognizer = Recognizer.load(trained)
    record = read_record(path)
    assert record["class_names"] == list(recognizer.class_names)
    assert record["threshold"] == recognizer.threshold
    assert record["variant"] == "float16"
    assert record["trial"]["good"]
    with zipfile.ZipFile(path) as archive:
        labels = archive.read(tflite.LABELS).decode().splitlines()
    assert labels == list(tiny.NAMES)


@pytest.mark.parametrize("variant", ["float32", "float16"])
def test_predicts_like_the_run(exported, trained, pictures, variant):
    folder, _ = exported
    expected = Recognizer.load(trained).predict([*pictures, b"bad"], batch_size=5)
    lite = load_predictor(folder / f"classifier_{variant}.tflite")
    found = lite.predict([*pictures, b"bad"], batch_size=5)
    for one, other in zip(found, expected, strict=True):
        assert (one.source, one.name) == (other.source, other.name)
        assert (one.is_unknown, one.problem) == (other.is_unknown, other.problem)
        assert one.confidence == pytest.approx(other.confidence, abs=0.02)
        assert one.known_score == pytest.approx(other.known_score, abs=0.05)


def test_predict_command_takes_a_file(exported, trained, pictures, tmp_path):
    lite = exported[0] / "classifier_float32.tflite"
    assert _names(lite, pictures) == _names(trained, pictures)
    refused = tiny.invoke(
        *("predict", "--model", lite, "--explain", tmp_path / "why"), pictures[0]
    )
    assert refused.exit_code == 2
    assert "needs the run itself" in refused.output


def test_what_is_no_export(exported, tmp_path):
    broken = tmp_path / "broken.tflite"
    with pytest.raises(UserError, match="no export"):
        load_predictor(broken)
    broken.write_bytes(b"nothing")
    with pytest.raises(UserError, match="no export"):
        load_predictor(broken)
    record = read_record(exported[0] / "classifier_float16.tflite")
    broken.write_bytes(tflite.pack(b"nothing", record))
    with pytest.raises(UserError, match="damaged"):
        load_predictor(broken)
    broken.write_bytes(tflite.pack(b"nothing", {**record, "format": 99}))
    with pytest.raises(UserError, match="format 99"):
        load_predictor(broken)
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "saved_model.pb").write_bytes(b"nothing")
    records.write(tmp_path / "saved", record)
    with pytest.raises(UserError, match="damaged"):
        load_predictor(tmp_path / "saved")


def test_a_variant_that_loses_a_point_is_not_good(trained, pictures):
    recognizer = Recognizer.load(trained)
    size = recognizer.image_size
    squares = np.stack([images.load_square(path, size) for path in pictures])
    expected = recognizer.judge(squares)[0].argmax(1)

    def liar(images):
        probabilities, known = recognizer.judge(images.astype(np.uint8))
        return {"probabilities": probabilities[:, ::-1], "known_score": known}

    def nobody(images):
        return {name: array * np.nan for name, array in liar(images).items()}

    def stranger(images):
        return {**liar(images), "known_score": np.full(len(images), -99.0)}

    def is_good(model, labels=expected):
        threshold = recognizer.threshold
        found = trial.try_classifier(model, recognizer, squares, labels, threshold)
        return found["good"]

    assert not any(map(is_good, (liar, nobody, stranger)))
    assert not is_good(liar, expected[:0])


def test_the_threshold_goes_where_the_scores_go(trained, pictures):
    recognizer = Recognizer.load(trained)
    size = recognizer.image_size
    squares = np.stack([images.load_square(path, size) for path in pictures])

    def shifted(images):
        probabilities, known = recognizer.judge(images.astype(np.uint8))
        return {"probabilities": probabilities, "known_score": 0.5 * known - 3}

    threshold = trial.fit_threshold(shifted, recognizer, squares)
    assert threshold == pytest.approx(0.5 * recognizer.threshold - 3, abs=1e-4)
    labels = recognizer.judge(squares)[0].argmax(1)
    found = trial.try_classifier(shifted, recognizer, squares, labels, threshold)
    assert found["good"]
    assert found["agreement_of_unknown"] == 1.0


def test_int8_needs_pictures(trained, tmp_path):
    copy = shutil.copytree(trained, tmp_path / "copy")
    (copy / MANIFEST).unlink()
    with pytest.raises(UserError, match="--data-dir"):
        run.export_tflite(copy, tmp_path / "out", ["int8"])
    assert not (tmp_path / "out").exists()


def test_drawings(tmp_path):
    sampler = _sampler()
    sampler.save(tmp_path / "run")
    figures = run.export_tflite(tmp_path / "run", tmp_path / "out", ["float32"])
    assert figures["float32"]["good"]
    path = tmp_path / "out" / "generator_float32.tflite"
    with pytest.raises(UserError, match="draws"):
        load_predictor(path)
    exported = load_drawer(path)
    assert exported.drawn == sampler.drawn
    difference = exported.generate(3, seed=5) - sampler.generate(3, seed=5).astype(int)
    assert np.abs(difference).max() <= 1
    lite = LiteModel(path)
    noise, labels = sampler.noise(1, seed=5), sampler.labels(1, "初音未来")
    drawn = np.rint(lite(noise=noise, labels=labels)["images"])
    expected = sampler.draw(noise, labels).astype(int)
    assert np.abs(drawn - expected).max() <= 1
