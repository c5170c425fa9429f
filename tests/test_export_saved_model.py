"""SavedModels: the answers of the model, without Keras and without this package."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from anime_tf import images
from anime_tf.datasets.image_folder import find_pictures
from anime_tf.errors import UserError
from anime_tf.export import parity, records, run, saved_model
from anime_tf.export.drawing import load_drawer
from anime_tf.export.letterbox import TOLERANCE
from anime_tf.inference import Recognizer
from anime_tf.server.limits import Limits
from anime_tf.server.loading import load_services
from tests import tiny

# Loads like any stranger would: nothing but TensorFlow, and Keras out of reach.
_STRANGER = """
import sys
sys.modules["keras"] = None
import tensorflow as tf
folder, picture = sys.argv[1:]
content = open(picture, "rb").read()
serve = tf.saved_model.load(folder).signatures["serving_default"]
print(ascii(serve(pictures=tf.constant([content]))["labels"][0, 0].numpy().decode()))
assert "anime_tf" not in sys.modules
v1 = tf.compat.v1
with v1.Session(graph=tf.Graph()) as session:
    signatures = v1.saved_model.load(session, ["serve"], folder).signature_def
    signature = signatures["serving_default"]
    feed = {signature.inputs["pictures"].name: [content, b"bad"]}
    labels, ok = (signature.outputs[name].name for name in ("labels", "ok"))
    labels, ok = session.run([labels, ok], feed)
    print(ascii(labels[0, 0].decode()), ok.tolist())
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return tiny.trained_run(tmp_path_factory)


@pytest.fixture(scope="module")
def pictures(trained):
    return find_pictures([trained.parent / "data"])[::6]


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("export") / "classifier" / "1"
    figures = run.export_saved_model(trained, folder, top_k=2, max_pixels=10**6)
    assert figures["ok"]
    assert figures["same_name"] == 1.0
    return folder


@pytest.fixture(scope="module")
def signatures(exported):
    return tf.saved_model.load(str(exported)).signatures


@pytest.fixture(scope="module")
def expected(trained, pictures):
    return Recognizer.load(trained).predict(pictures)


@pytest.fixture(scope="module")
def drawing(tmp_path_factory):
    source = tmp_path_factory.mktemp("drawing")
    tiny.sampler().save(source / "run")
    run.export_saved_model(source / "run", source / "out", 3, 10**6)
    return source / "out"


def _check(answer, row, prediction):
    labels = [label.decode() for label in answer["labels"][row].numpy()]
    assert labels == [name for name, _ in prediction.top[:2]]
    shares = [share for _, share in prediction.top[:2]]
    np.testing.assert_allclose(answer["scores"][row], shares, atol=0.01)
    np.testing.assert_allclose(
        answer["known_score"][row], prediction.known_score, atol=0.05
    )
    assert bool(answer["ok"][row])


def test_answers_like_the_model(signatures, pictures, expected):
    contents = [path.read_bytes() for path in pictures]
    answer = signatures["serving_default"](pictures=tf.constant(contents))
    for row, prediction in enumerate(expected):
        _check(answer, row, prediction)
    unknown = [prediction.is_unknown for prediction in expected]
    assert answer["is_unknown"].numpy().tolist() == unknown
    np.testing.assert_allclose(tf.reduce_sum(answer["probabilities"], 1), 1, atol=1e-5)


def test_ready_images_of_any_size(signatures, pictures, expected):
    pixels = [np.asarray(images.decode(p.read_bytes()).image) for p in pictures]
    answer = signatures["images"](images=tf.constant(np.stack(pixels)))
    for row, prediction in enumerate(expected):
        _check(answer, row, prediction)
    nothing = signatures["images"](images=tf.zeros([0, 9, 7, 3], tf.uint8))
    assert nothing["labels"].shape == (0, 2)
    empty = signatures["images"](images=tf.zeros([2, 0, 7, 3], tf.uint8))
    assert empty["ok"].numpy().tolist() == [False, False]


def test_a_bad_picture_fails_alone(signatures, pictures, expected):
    contents = [b"bad", pictures[0].read_bytes(), b""]
    answer = signatures["serving_default"](pictures=tf.constant(contents))
    assert answer["ok"].numpy().tolist() == [False, True, False]
    assert answer["labels"][0].numpy().tolist() == [b"", b""]
    assert not answer["probabilities"][0].numpy().any()
    assert not answer["is_unknown"][0]
    _check(answer, 1, expected[0])


def test_strangers_load_it(exported, pictures, expected):
    command = [sys.executable, "-c", _STRANGER, str(exported), str(pictures[0])]
    result = subprocess.run(command, capture_output=True, text=True, cwd="/")
    assert result.returncode == 0, result.stderr
    name = ascii(expected[0].top[0][0])
    assert result.stdout.splitlines() == [name, f"{name} [True, False]"]


def test_weights_are_stored_once(exported, trained):
    recognizer = Recognizer.load(trained)
    count = recognizer.classifier.count_params()
    count += recognizer.novelty.whitening.size + recognizer.novelty.means.size
    stored = sum(p.stat().st_size for p in (exported / "variables").glob("*.data*"))
    # Apart from some bytes for the map of objects.
    assert 4 * count <= stored < 4 * count + 20_000


def test_the_record_says_what_one_must_know(exported, trained):
    record = records.read(exported)
    recognizer = Recognizer.load(trained)
    assert record["kind"] == "classifier"
    assert record["class_names"] == list(recognizer.class_names)
    assert record["threshold"] == float(recognizer.novelty.threshold)
    parity = json.loads((exported / records.PARITY).read_text(encoding="utf-8"))
    assert parity["real_pictures"] > 0
    assert parity["largest_difference_of_probability"] < 0.02


def test_drawings_are_those_of_the_model(drawing):
    sampler, loaded = tiny.sampler(), tf.saved_model.load(str(drawing)).signatures
    noise, labels = sampler.noise(5, seed=3), sampler.labels(5)
    drawn = loaded["draw"](noise=tf.constant(noise), labels=tf.constant(labels))
    difference = drawn["images"].numpy() - sampler.draw(noise, labels).astype(int)
    assert np.abs(difference).max() <= TOLERANCE


def test_drawing_with_the_folder(drawing, exported, tmp_path):
    sampler, loaded = tiny.sampler(), load_drawer(drawing)
    assert (loaded.drawn, loaded.image_size) == (sampler.drawn, sampler.image_size)
    drawn = loaded.generate(3, seed=5, character="初音未来")
    expected = sampler.generate(3, seed=5, character="初音未来").astype(int)
    assert np.abs(drawn - expected).max() <= TOLERANCE
    with pytest.raises(UserError, match="recognises, it does not draw"):
        load_drawer(exported)
    with pytest.raises(UserError, match="no trained generator"):
        load_drawer(tmp_path)


def _generate(loaded, signature, n, seed=1, truncation=1.0):
    seed = tf.constant(seed, tf.int64)
    truncation = tf.constant(truncation)
    return loaded[signature](n=tf.constant(n), seed=seed, truncation=truncation)


def test_generate(drawing):
    loaded = tf.saved_model.load(str(drawing)).signatures
    many = _generate(loaded, "generate", 5)["images"].numpy()
    assert many.shape == (5, 16, 16, 3)
    few = _generate(loaded, "generate", 2)["images"].numpy()
    assert np.abs(few - many[:2].astype(int)).max() <= 1
    other = _generate(loaded, "generate", 5, seed=2)["images"].numpy()
    assert np.abs(other - many.astype(int)).mean() > 1
    typical = _generate(loaded, "generate", 4, truncation=0.0)["images"].numpy()
    np.testing.assert_array_equal(typical[0], typical[2], "one character in two")
    files = _generate(loaded, "generate_png", 5)["png_bytes"].numpy()
    decoded = [np.asarray(images.decode(content).image) for content in files]
    np.testing.assert_array_equal(decoded, many)


@pytest.mark.parametrize(
    ("n", "truncation"),
    [(0, 1.0), (-1, 1.0), (saved_model.MAX_COUNT + 1, 1.0), (1, 1.5), (1, -0.1)],
)
def test_generate_refuses_what_makes_no_sense(drawing, n, truncation):
    loaded = tf.saved_model.load(str(drawing)).signatures
    with pytest.raises(tf.errors.InvalidArgumentError):
        _generate(loaded, "generate", n, truncation=truncation)


def test_predict_command_takes_the_folder(exported, pictures, expected):
    command = ["predict", "--model", exported, "--format", "json", *pictures]
    result = tiny.invoke(*command)
    assert result.exit_code == 0, result.output
    found = [row["name"] for row in json.loads(result.stdout)]
    assert found == [prediction.name for prediction in expected]


def test_the_own_server_takes_and_gives_the_same(exported, drawing):
    models = load_services(exported, drawing, Limits(), top_k=2).served()
    for model, folder in zip(models, (exported, drawing), strict=True):
        loaded = tf.saved_model.load(str(folder)).signatures
        assert set(loaded) == set(model.signatures)
        for name, signature in model.signatures.items():
            inputs = loaded[name].structured_input_signature[1]
            _check_specs(inputs, signature.inputs)
            _check_specs(loaded[name].structured_outputs, signature.outputs)


def _check_specs(specs, tensors):
    assert set(specs) == set(tensors)
    for key, spec in specs.items():
        assert spec.dtype == tf.as_dtype(tensors[key].kind[3:].lower())
        assert spec.shape.rank == len(tensors[key].shape)


def test_only_pictures_that_are_what_they_were_are_compared(trained, tmp_path):
    data = shutil.copytree(trained.parent / "data", tmp_path / "data")
    paths, labels = parity.held_out(trained, "test", data)
    assert len(paths) == len(labels) > 3
    paths[0].unlink()
    paths[1].write_bytes(b"")
    paths[2].write_bytes(paths[3].read_bytes())
    left, _ = parity.held_out(trained, "test", data)
    assert left == paths[3:]


def test_where_all_pictures_are_too_large_noise_is_compared(exported, trained, draw):
    # The export takes a million pixels.
    recognizer = Recognizer.load(trained)
    path = exported.parent / "large.png"
    draw(1, (1001, 1000)).save(path)
    figures = parity.check_saved_classifier(exported, recognizer, [path])
    assert figures["ok"]
    assert figures["real_pictures"] == 0


def test_a_used_folder_is_left_alone(trained, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="new or empty folder"):
        run.export_saved_model(trained, tmp_path, 3, 10**6)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_no_run_no_export(tmp_path):
    (tmp_path / "run").mkdir()
    result = tiny.invoke(
        "export", "--model", tmp_path / "run", "--out", tmp_path / "out"
    )
    assert result.exit_code == 2
    assert "there is no trained model" in result.output
    assert not (tmp_path / "out").exists()
