"""How good drawings are: recipes side by side, at equal wall time, on real characters.

    python benchmarks/drawing.py recipes --classifier RUN --judge RUN --vgg-weights FILE
    python benchmarks/drawing.py checkerboard --classifier RUN --vgg-weights FILE

Trains by the `anime-tf` command, measures by `anime-tf draw-eval` with a judge that is
not the guide, and writes every figure to benchmarks/results/. Look at the sheets in
`--out` too: a good figure over a bad picture is a bad figure.
"""

import itertools
import json
import os
import queue
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click
from machine import save

from anime_tf import sheets
from anime_tf.metrics.drawing import checkerboard_score
from anime_tf.sampler import Sampler

RECIPES = {
    "default": [],
    "paired": ["--perceptual", "paired"],
    "nearest": ["--perceptual", "nearest"],
    "statistics": ["--perceptual", "statistics"],
    "adversarial": ["--perceptual-weight", "0", "--classification-weight", "0"],
    "projected": ["--discriminator", "projected"],
    "warm": ["--pretrain"],
}


def run(*arguments: object, cores: Sequence[int] | None = None) -> None:
    """Runs `anime-tf`, on some of the cores only if they are named."""
    command = [sys.executable, "-m", "anime_tf", *map(str, arguments)]
    if cores:
        command = ["taskset", "--cpu-list", ",".join(map(str, cores)), *command]
    subprocess.run(command, check=True, stdout=sys.stderr)


@click.group()
def cli():
    """Measures drawing on real pictures."""


@cli.command()
@click.option("--classifier", type=Path, required=True, help="The guide's run.")
@click.option("--judge", type=Path, required=True, help="Another classifier's run.")
@click.option("--vgg-weights", required=True)
@click.option("--out", type=Path, required=True, help="Folder for the runs.")
@click.option("--characters", default="hatsune_miku", help="Names, with commas.")
@click.option("--recipes", default="default,paired,adversarial", help="With commas.")
@click.option("--seeds", type=int, default=1)
@click.option("--minutes", type=float, default=15.0, help="Wall time of each training.")
@click.option("--jobs", type=int, default=1, help="At a time, each on its own cores.")
@click.option("--pretrained", help="Generator of all characters, for warm.")
@click.option("--name", default="drawing", help="Name of the result file.")
def recipes(out, characters, recipes, seeds, minutes, jobs, judge, name, **given):
    """Each recipe on each character, all for the same time."""
    shared = ["--classifier", given["classifier"], "--time-budget", f"{minutes}m"]
    shared += ["--vgg-weights", given["vgg_weights"]]
    if given["pretrained"]:
        shared += ["--pretrained", given["pretrained"]]
    command = (
        f"python benchmarks/drawing.py recipes --characters {characters} --recipes "
        f"{recipes} --seeds {seeds} --minutes {minutes:g} --jobs {jobs}"
    )
    shares = queue.SimpleQueue()
    for share in range(jobs):
        shares.put(sorted(os.sched_getaffinity(0))[share::jobs])

    def measure(seed: int, character: str, recipe: str) -> dict:
        folder = out / f"{recipe}-{character}-{seed}"
        options = ["--target-class", character, "--seed", seed, *RECIPES[recipe]]
        cores = shares.get()
        run("draw", "--overwrite", *shared, *options, "--out", folder, cores=cores)
        run("draw-eval", "--model", folder, "--judge", judge, cores=cores)
        shares.put(cores)
        return _row(recipe, character, seed, folder)

    plan = itertools.product(range(seeds), characters.split(","), recipes.split(","))
    rows = []
    with ThreadPoolExecutor(jobs) as pool:
        for row in pool.map(measure, *zip(*plan, strict=True)):
            rows.append(row)
            click.echo(json.dumps(row, ensure_ascii=False))
            save(name, command, rows)


@cli.command()
@click.option("--classifier", type=Path, required=True)
@click.option("--vgg-weights", required=True)
@click.option("--out", type=Path, required=True, help="Folder for runs and figure.")
@click.option("--character", default="0")
@click.option("--epochs", type=int, default=100)
def checkerboard(classifier, vgg_weights, out, character, epochs):
    """Transposed convolution beside upsampling and convolution: the figure of Odena et
    al. (2016), after the same steps on the same pictures."""
    drawings, scores = {}, {}
    for upsampling in ("transposed", "nearest"):
        folder = out / upsampling
        options = ["--target-class", character, "--num-epochs", epochs]
        options += ["--classifier", classifier, "--vgg-weights", vgg_weights]
        run(
            "draw", "--overwrite", *options, "--upsampling", upsampling, "--out", folder
        )
        title = {"transposed": "Transposed convolution", "nearest": "Upsample + conv"}
        pictures = Sampler.load(folder).generate(64, seed=1)
        drawings[title[upsampling]] = pictures[:16]
        scores[title[upsampling]] = round(checkerboard_score(pictures), 3)
    captions = {title: f"checkerboard score {score}" for title, score in scores.items()}
    figure = sheets.comparison_sheet(drawings, captions, columns=4, enlargement=2)
    sheets.save_png(figure, out / "checkerboard.png")
    rows = [{"upsampling": title, "score": score} for title, score in scores.items()]
    command = f"python benchmarks/drawing.py checkerboard --epochs {epochs}"
    save("checkerboard", command, rows)
    click.echo(f"{json.dumps(scores)}\nFigure: {out / 'checkerboard.png'}")


def _row(recipe: str, character: str, seed: int, folder: Path) -> dict:
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    history = json.loads((folder / "history.json").read_text(encoding="utf-8"))
    figures = metrics["characters"][character]
    rounded = {
        k: round(v, 4) if isinstance(v, float) else v for k, v in figures.items()
    }
    steps = {"steps": history[-1]["step"], "best_epoch": metrics["best_epoch"]}
    return {"recipe": recipe, "character": character, "seed": seed, **steps, **rounded}


if __name__ == "__main__":
    cli()
