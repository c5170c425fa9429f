"""`anime-tf serve` with a trained classifier: the real program, the real answers."""

import base64
import json
import re
import signal
import sys
import urllib.request

import pytest

from anime_tf.datasets.image_folder import find_pictures
from anime_tf.inference import Recognizer
from anime_tf.models.networks import build_generator
from anime_tf.sampler import Sampler
from anime_tf.server.run import bind
from tests import tiny


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return tiny.trained_run(tmp_path_factory)


@pytest.fixture(scope="module")
def drawing(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drawing") / "run"
    generator = build_generator(16, num_classes=2, channels=8)
    Sampler(generator, ("Rem", "初音未来"), ("Rem",)).save(folder)
    return folder


def _fail(*arguments):
    result = tiny.invoke("serve", *arguments)
    assert result.exit_code == 2, result.output
    return " ".join(result.stderr.split())


def test_serves_until_told_to_end(trained, drawing):
    process = tiny.start(
        *("serve", "--classifier", trained, "--generator", drawing, "--port", 0)
    )
    try:
        lines = [process.stdout.readline() for _ in range(2)]
        pattern = r"Serving (http://127\.0\.0\.1:\d+/v1/models/\w+)\n"
        classifier, generator = (re.fullmatch(pattern, line)[1] for line in lines)
        pictures = find_pictures([trained.parent / "data"])[::9]
        rows = [base64.b64encode(path.read_bytes()).decode() for path in pictures]
        answer = _post(classifier, {"instances": [{"b64": row} for row in rows]})
        expected = Recognizer.load(trained).predict(pictures)
        for found, prediction in zip(answer["predictions"], expected, strict=True):
            names, shares = zip(*prediction.top, strict=True)
            assert found["labels"] == list(names)
            assert found["scores"] == pytest.approx(shares, abs=1e-4)
            assert found["is_unknown"] is prediction.is_unknown
        answer = _post(generator, {"inputs": {"n": 2, "seed": 3, "truncation": 1}})
        assert len(answer["outputs"]) == 2
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=60)
        assert (process.returncode, out) == (0, "Ended.\n"), errors
    finally:
        process.kill()
        process.communicate()


def _post(address, content):
    body = json.dumps(content).encode()
    with urllib.request.urlopen(f"{address}:predict", body, timeout=60) as response:
        return json.load(response)


def test_nothing_to_serve(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "there is nothing to serve in saved_models/classifier" in _fail()
    assert "there is no trained model in" in _fail("--classifier", tmp_path)
    assert "no trained generator in" in _fail("--generator", tmp_path)


def test_a_generator_is_no_classifier(trained, drawing, tmp_path):
    assert "no trained model" in _fail("--classifier", drawing, "--port", 0)


def test_a_port_that_is_taken(trained):
    with bind("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        found = _fail("--classifier", trained, "--port", port)
        assert f"cannot serve at 127.0.0.1, port {port}" in found
    assert "cannot serve at no.such.host" in _fail(
        "--classifier", trained, "--host", "no.such.host.invalid"
    )


def test_a_queue_that_is_too_short(trained):
    options = ["--max-queue", 3, "--max-pictures", 4]
    assert "must be at least --max-pictures" in _fail("--classifier", trained, *options)


def test_without_the_extra(trained, monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    found = _fail("--classifier", trained)
    assert "pip install 'anime_tf[serve]'" in found


def test_other_machines_are_warned_of(trained, monkeypatch):
    monkeypatch.setattr("anime_tf.server.run.serve", lambda *_: None)
    result = tiny.invoke("serve", "--classifier", trained, "--port", 0)
    assert "WARNING" not in result.output
    options = ["--host", "0.0.0.0", "--port", 0]
    result = tiny.invoke("serve", "--classifier", trained, *options)
    assert result.exit_code == 0
    assert "WARNING: 0.0.0.0 is not only this machine" in result.output
