"""Pictures a second of one classifier in LiteRT, TensorFlow, ONNX Runtime and PyTorch.

    python benchmarks/runtimes.py --model RUN --data FOLDER --onnx FILE \
        --onnx-python PYTHON --torch-python PYTHON

RUN is an EfficientNetV2B0. All get the same fitted squares, one at a time and 16 at a
time, in short turns, each with as many threads as it takes by itself. LiteRT and
TensorFlow answer as `anime-tf predict` does, calibration and "unknown" included; the
others compute the logits alone. Those are compared first.

`--onnx` is the same network, float32, converted by `--export-onnx` before (it needs
tf2onnx in the ONNX environment, beside TensorFlow).
"""

import functools
import itertools
import json
import statistics
import subprocess
import tempfile
from pathlib import Path

import click
import numpy as np
from drawing_speed import layers_of
from machine import save
from peers import Peer, take_turns, timed

from anime_tf import images
from anime_tf.datasets.image_folder import find_pictures
from anime_tf.export.recognition import load_predictor
from anime_tf.inference import Recognizer

_BATCHES = (1, 16)
_PICTURES_A_TURN = 32


def export_onnx(recognizer: Recognizer, python: str, filepath: Path) -> None:
    """Converts the network by tf2onnx."""
    with tempfile.TemporaryDirectory() as folder:
        recognizer.classifier.export(folder, verbose=False)
        command = [python, "-m", "tf2onnx.convert", "--opset", "17"]
        command += ["--saved-model", folder, "--output", str(filepath)]
        subprocess.run(command, check=True)


def build_onnx(python: str, model: Path, squares: np.ndarray, logits: np.ndarray):
    """Returns the peer, after comparing its logits."""
    peer = Peer(python, "onnx_peer.py")
    with tempfile.TemporaryDirectory() as folder:
        given, answer = f"{folder}/images.npy", f"{folder}/answer.npy"
        np.save(given, squares)
        peer.order("build", model=str(model), images=given, answer=answer)
        _compare("ONNX Runtime", np.load(answer), logits)
    return peer


def build_torch(
    python: str, recognizer: Recognizer, squares: np.ndarray, logits: np.ndarray
):
    """Returns the peer, after comparing its logits."""
    peer = Peer(python, "torch_peer.py")
    with tempfile.TemporaryDirectory() as folder:
        given, weights = f"{folder}/images.npy", f"{folder}/weights.npz"
        answer = f"{folder}/answer.npy"
        np.save(given, squares)
        arrays = {
            f"classifier.{number}.{k}": value
            for number, layer in enumerate(layers_of(recognizer.classifier))
            for k, value in enumerate(layer.get_weights())
        }
        np.savez(weights, **arrays)
        peer.order(
            "build_classifier",
            num_classes=len(recognizer.class_names),
            images=given,
            weights=weights,
            answer=answer,
        )
        _compare("PyTorch", np.load(answer), logits)
    return peer


def _compare(name: str, found: np.ndarray, expected: np.ndarray) -> None:
    worst = float(np.abs(found - expected).max())
    click.echo(f"{name}: logits differ by {worst:.1e} at most")
    if worst > 1e-2:
        raise ValueError(f"{name} computes another network")


@click.command()
@click.option("--model", type=Path, required=True, help="A run's folder.")
@click.option("--data", type=Path, required=True, help="Folder of pictures.")
@click.option("--onnx", type=Path, required=True, help="The network as an ONNX file.")
@click.option("--export-onnx", "export", is_flag=True, help="Make that file first.")
@click.option("--onnx-python", required=True, help="Interpreter with onnxruntime.")
@click.option("--torch-python", required=True, help="Interpreter with PyTorch.")
@click.option("--turns", type=int, default=15)
@click.option("--name", default="runtimes", help="Name of the result file.")
def cli(model, data, onnx, export, onnx_python, torch_python, turns, name):
    """Measures all in turn."""
    recognizer, lite = Recognizer.load(model), load_predictor(model, "litert")
    paths = itertools.islice(itertools.cycle(find_pictures([data])), max(_BATCHES))
    squares = np.stack([images.load_square(p, recognizer.image_size) for p in paths])
    if export:
        export_onnx(recognizer, onnx_python, onnx)
    logits = recognizer.forward(squares)[0]
    given = squares.astype(np.float32)
    rows = []
    ort = build_onnx(onnx_python, onnx, given, logits)
    torch = build_torch(torch_python, recognizer, given, logits)
    for batch in _BATCHES:
        part, count = squares[:batch], _PICTURES_A_TURN // batch
        runners = {
            "LiteRT": functools.partial(timed, lambda part=part: lite.judge(part)),
            "TensorFlow": functools.partial(
                timed, lambda part=part: recognizer.judge(part)
            ),
            "ONNX Runtime": functools.partial(_order, ort, "run", batch),
            "PyTorch, channels last": functools.partial(
                _order, torch, "run_classifier", batch
            ),
        }
        seconds = take_turns(runners, turns, count)
        first = seconds["LiteRT"]["wall"]
        for title, clocks in seconds.items():
            median = statistics.median(clocks["wall"]) / batch
            ratio = np.median(np.divide(clocks["wall"], first))
            rows.append(
                {
                    "runtime": title,
                    "batch": batch,
                    "milliseconds_per_picture": round(1000 * median, 2),
                    "pictures_per_second": round(1 / median, 1),
                    "times_litert": round(float(ratio), 2),
                }
            )
            click.echo(json.dumps(rows[-1]))
    for peer in (ort, torch):
        peer.close()
    command = "python benchmarks/runtimes.py --model RUN --data DATA --onnx FILE "
    save(name, command + "--onnx-python PYTHON --torch-python PYTHON", rows)


def _order(peer: Peer, order: str, batch: int, count: int) -> dict[str, float]:
    return peer.order(order, batch=batch, count=count)


if __name__ == "__main__":
    cli()
