"""What every export of a run weighs, how fast it is, and what it loses.

    python benchmarks/variants.py --classifier RUN --generator RUN

Exports both into a new folder, as `anime-tf export` does, which tries TFLite files on
pictures that training held out. Times are measured here, variant after variant in short
turns, one picture at a time.
"""

import functools
import json
import statistics
import tempfile
from pathlib import Path

import click
import numpy as np
from machine import save
from peers import take_turns, timed

from anime_tf.config import VARIANTS
from anime_tf.export.decoding import MAX_PIXELS
from anime_tf.export.lite import LiteModel
from anime_tf.export.run import export_saved_model, export_tflite

_CALLS_A_TURN = 8


def weigh(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    files = [path] if path.is_file() else path.rglob("*")
    return sum(file.stat().st_size for file in files if file.is_file())


def measure(kind: str, run: Path, folder: Path, turns: int) -> list[dict]:
    """Returns a row for the run itself, its SavedModel and each TFLite variant."""
    saved, lite = folder / f"{kind}_saved", folder / f"{kind}_lite"
    export_saved_model(run, saved, top_k=3, max_pixels=MAX_PIXELS)
    figures = export_tflite(run, lite, VARIANTS)
    rows = [
        {"model": kind, "what": "Keras file", "bytes": weigh(run / f"{kind}.keras")},
        {"model": kind, "what": "SavedModel", "bytes": weigh(saved)},
    ]
    runners = {
        variant: _runner(LiteModel(lite / f"{kind}_{variant}.tflite"))
        for variant in figures
    }
    seconds = take_turns(runners, turns, _CALLS_A_TURN)
    exact = seconds["float32"]["wall"]
    for variant, clocks in seconds.items():
        median = statistics.median(clocks["wall"])
        ratio = np.median(np.divide(exact, clocks["wall"]))
        figures[variant]["milliseconds"] = round(1000 * median, 2)
        speed = {"times_as_fast_as_float32": round(float(ratio), 2)}
        rows.append({"model": kind, "what": variant, **figures[variant], **speed})
    return rows


def _runner(model: LiteModel):
    record = model.record
    if record["kind"] == "classifier":
        size = record["image_size"]
        inputs = {"images": np.full((1, size, size, 3), 127.0, np.float32)}
    else:
        noise = np.ones((1, record["noise_size"]), np.float32)
        inputs = {"noise": noise, "labels": np.zeros(1, np.int32)}
    return functools.partial(timed, lambda: model(**inputs))


@click.command()
@click.option("--classifier", type=Path, required=True, help="A run's folder.")
@click.option("--generator", type=Path, required=True, help="A run's folder.")
@click.option("--turns", type=int, default=15)
@click.option("--name", default="variants", help="Name of the result file.")
def cli(classifier: Path, generator: Path, turns: int, name: str):
    """Measures all exports of a classifier and of a generator."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for kind, run in (("classifier", classifier), ("generator", generator)):
            rows += measure(kind, run, Path(folder), turns)
    for row in rows:
        click.echo(json.dumps(row))
    command = "python benchmarks/variants.py --classifier RUN --generator RUN"
    save(name, command, rows)


if __name__ == "__main__":
    cli()
