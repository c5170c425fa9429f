"""Predicting files against the bare model on ready arrays.

    python benchmarks/prediction.py --model RUN --data FOLDER --name prediction

Both run over the same pictures in the same batches, in turn, several times.
"""

import itertools
import json
import time
from pathlib import Path

import click
import numpy as np
from machine import save

from anime_tf import images
from anime_tf.datasets.image_folder import find_pictures
from anime_tf.export.recognition import load_predictor

_BATCH = 32
_TURN = 4 * _BATCH


@click.command()
@click.option("--model", type=Path, required=True, help="A run's folder.")
@click.option("--data", type=Path, required=True, help="Folder of pictures.")
@click.option("--count", type=int, default=1000, help="Pictures to predict.")
@click.option("--repeats", type=int, default=5)
@click.option("--name", required=True, help="Name of the result file.")
def cli(model: Path, data: Path, count: int, repeats: int, name: str):
    """Measures what reading, fitting and judging cost beside the model itself."""
    predictor = load_predictor(model, "litert")
    paths = list(itertools.islice(itertools.cycle(find_pictures([data])), count))
    squares = [images.load_square(path, predictor.image_size) for path in paths]
    batches = [np.stack(squares[i : i + _BATCH]) for i in range(0, count, _BATCH)]
    predictor.predict(paths[:_BATCH])
    predictor.judge(batches[-1])
    rows = []
    for _ in range(repeats):
        bare = files = 0.0
        # In short turns: the machine's speed changes within seconds.
        for start in range(0, count, _TURN):
            started = time.perf_counter()
            for batch in batches[start // _BATCH : (start + _TURN) // _BATCH]:
                predictor.judge(batch)
            bare += time.perf_counter() - started
            started = time.perf_counter()
            predictor.predict(paths[start : start + _TURN])
            files += time.perf_counter() - started
        rows.append(
            {
                "bare_pictures_per_second": round(count / bare, 1),
                "files_pictures_per_second": round(count / files, 1),
                "share": round(bare / files, 3),
            }
        )
        click.echo(json.dumps(rows[-1]))
    command = f"python benchmarks/prediction.py --model RUN --data {data.name}"
    save(name, f"{command} --count {count} --name {name}", rows)


if __name__ == "__main__":
    cli()
