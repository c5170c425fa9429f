"""What a user types, with the real network, in processes of their own."""

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from anime_tf import images
from anime_tf.datasets.image_folder import find_pictures
from anime_tf.models.classifier import build_classifier, feature_extractor
from tests import tiny

SHARED = Path(__file__).parents[2] / "shared"
WEIGHTS = SHARED / "weights" / "efficientnetv2-b0_notop.h5"


def _run(*commands, encoding="utf-8"):
    """Runs commands at once (each spends most of its time on importing TensorFlow);
    returns what they wrote."""
    processes = [
        subprocess.Popen(
            [sys.executable, *map(str, command)],
            cwd=tiny.ROOT,
            env={**os.environ, "PYTHONIOENCODING": encoding},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding=encoding,
        )
        for command in commands
    ]
    results = [process.communicate(timeout=400) for process in processes]
    for process, (_, errors) in zip(processes, results, strict=True):
        assert process.returncode == 0, errors
        assert "Traceback" not in errors
    return [output for output, _ in results]


@pytest.mark.slow
def test_from_folders_of_pictures_to_sorted_ones(tmp_path):
    data = tiny.write_characters(tmp_path / "data")
    tiny.draw_strangers(tmp_path / "strangers")
    model, out = tmp_path / "model", tmp_path / "sorted"
    settings = ["--weights=none", "--image-size=32", "--epochs=1", "--head-epochs=2"]
    folders = ["--data_dir", data, "--out", model, "--cache-dir", tmp_path / "cache"]
    script = "scripts/classification_script.py"
    (output,) = _run([script, *folders, *settings])
    assert f"Report: {model / 'report.html'}" in output
    assert "Fine-tuning 1/1" in output

    program, new = ["-m", "anime_tf"], data / tiny.NAMES[2]
    evaluated, predicted, _ = _run(
        [
            *program,
            "evaluate",
            "--unknown-dir",
            tmp_path / "strangers",
            "--model",
            model,
        ],
        [*program, "predict", new, "--format", "csv", "--model", model],
        [*program, "sort", new, out, "--model", model],
        # An output of another encoding must not fail on a name.
        encoding="latin-1",
    )
    assert "AUROC" in evaluated
    metrics = json.loads((model / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["unknown"]["num_unknown"] == 12
    rows = list(csv.DictReader(io.StringIO(predicted)))
    assert len(rows) == tiny.COUNT
    assert "\\u521d\\u97f3" in rows[0]["path"]
    assert len(list(out.rglob("*.png"))) == tiny.COUNT

    drawing = tmp_path / "drawing"
    settings = ["--vgg_weights=none", "--image_size=32", "--channels=4"]
    # One epoch from random weights makes no classifier that is fit to teach.
    settings += ["--classification_weight=0", "--classifier", model]
    script = "scripts/generate_from_detection.py"
    command = [script, "--target_class", "2", "--num_epochs", "2", "--out", drawing]
    (output,) = _run([*command, *settings, "--cache-dir", tmp_path / "cache"])
    assert f"Report: {drawing / 'report.html'}" in output
    command = [*program, "generate", "--model", drawing, "--seed=7", "--count=4"]
    _run([*command, "--truncation=0.7", "--out", tmp_path / "drawings"])
    assert len(list((tmp_path / "drawings").glob("000*.png"))) == 4


@pytest.mark.slow
@pytest.mark.real_data
@pytest.mark.skipif(
    not WEIGHTS.is_file(), reason=f"real weights and pictures are not in {SHARED}"
)
def test_pretrained_features_know_a_character_from_photographs():
    network = build_classifier("efficientnetv2b0", 10, 64, weights=str(WEIGHTS))
    characters = sorted((SHARED / "data" / "animeface10").iterdir())
    paths = find_pictures([characters[0]])[:3]
    paths += find_pictures([SHARED / "data" / "photos"])[:6]
    squares = np.stack([images.load_square(path, 64) for path in paths])
    features = feature_extractor(network)(squares.astype(np.float32), training=False)
    features = keras.ops.convert_to_numpy(keras.ops.normalize(features))
    likeness = features @ features.T
    among = likeness[:3, :3][np.triu_indices(3, 1)]
    assert among.mean() > 1.5 * likeness[:3, 3:].mean()
