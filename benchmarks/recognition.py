"""How well and how fast the classifier learns real characters, as a user would run it.

    python benchmarks/recognition.py presets --data FOLDER --weights FILE
    python benchmarks/recognition.py leave-one-out --data FOLDER --weights FILE

Trains by the `anime-tf` command, one run per seed (or per character left out), tests
on pictures the run held out, and writes every figure to benchmarks/results/.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import numpy as np
from machine import save

_FIGURES = ("accuracy", "macro_f1", "top3_accuracy", "ece_uncalibrated", "ece")


def run(*arguments: object) -> float:
    """Runs `anime-tf`, and returns its wall time in seconds, start-up included."""
    command = [sys.executable, "-m", "anime_tf", *map(str, arguments)]
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=sys.stderr)
    return time.perf_counter() - started


def train_and_test(
    data: Path, out: Path, unknown: Path | None, cache: Path, options: list
) -> dict:
    """One run: its figures, its wall time, its seconds per epoch in both stages."""
    seconds = run(
        "train", "--data-dir", data, "--out", out, "--cache-dir", cache, *options
    )
    if unknown:
        run("evaluate", "--model", out, "--unknown-dir", unknown)
    metrics = json.loads((out / "metrics.json").read_text())
    history = json.loads((out / "history.json").read_text())
    epochs = {
        stage: float(np.median([r["seconds"] for r in history if r["stage"] == stage]))
        for stage in {row["stage"] for row in history}
    }
    return {
        "seconds": round(seconds, 1),
        "seconds_per_epoch": epochs,
        **{name: metrics[name] for name in _FIGURES},
        "test_pictures": metrics["num_pictures"],
        "unknown": metrics["unknown"],
    }


@click.group()
def cli():
    """Measures recognition on real pictures."""


@cli.command()
@click.option("--data", type=Path, required=True, help="Folder of characters.")
@click.option("--weights", required=True, help="Backbone weights, or none.")
@click.option("--backbone", default="efficientnetv2b0")
@click.option("--unknown", type=Path, help="Folder of pictures of nobody known.")
@click.option("--preset", multiple=True, default=("fast", "default"))
@click.option("--seeds", type=int, default=3)
@click.option("--first-seed", type=int, default=0)
@click.option("--name", required=True, help="Name of the result file.")
def presets(data, weights, backbone, unknown, preset, seeds, first_seed, name):
    """Each preset with several seeds of split and training."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for chosen in preset:
            for seed in range(first_seed, first_seed + seeds):
                options = ["--preset", chosen, "--seed", seed, "--weights", weights]
                options += ["--backbone", backbone]
                out = Path(folder) / f"{chosen}-{seed}"
                cache = Path(folder) / f"cache-{chosen}-{seed}"
                figures = train_and_test(data, out, unknown, cache, options)
                rows.append({"preset": chosen, "seed": seed, **figures})
                click.echo(json.dumps(rows[-1]))
                command = (
                    "python benchmarks/recognition.py presets --data animeface10 "
                    f"--weights {Path(weights).name} --backbone {backbone} "
                    f"--seeds {seeds} --first-seed {first_seed} --name {name}"
                    + "".join(f" --preset {p}" for p in preset)
                    + (f" --unknown {unknown.name}" if unknown else "")
                )
                save(name, command, rows)


@cli.command("leave-one-out")
@click.option("--data", type=Path, required=True, help="Folder of characters.")
@click.option("--weights", required=True)
@click.option("--backbone", default="efficientnetv2b0")
@click.option("--preset", default="fast")
@click.option("--name", default="leave-one-out", help="Name of the result file.")
def leave_one_out(data, weights, backbone, preset, name):
    """Trains without one character, who is then the unknown; for each in turn."""
    rows = []
    characters = sorted(path for path in data.iterdir() if path.is_dir())
    with tempfile.TemporaryDirectory() as folder:
        for left_out in characters:
            others = Path(folder) / f"without-{left_out.name}"
            others.mkdir()
            for character in characters:
                if character != left_out:
                    (others / character.name).symlink_to(character.resolve())
            options = ["--preset", preset, "--weights", weights, "--backbone", backbone]
            out, cache = others.with_suffix(".run"), Path(folder) / "cache"
            figures = train_and_test(others, out, left_out, cache, options)
            rows.append({"left_out": left_out.name, **figures})
            click.echo(json.dumps(rows[-1]))
            save(
                name,
                "python benchmarks/recognition.py leave-one-out --data animeface10 "
                f"--weights {Path(weights).name} --preset {preset}",
                rows,
            )


if __name__ == "__main__":
    cli()
