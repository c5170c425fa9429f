"""The command that takes a model elsewhere: export."""

from pathlib import Path

import click
from rich.console import Console

from anime_tf.cli.options import SETTINGS, Command, model_option, set_up_output
from anime_tf.progress import Reporter

FORMATS = ("saved_model", "tflite")


@click.command(cls=Command, context_settings=SETTINGS)
@model_option
@click.option("--format", "style", type=click.Choice(FORMATS), default="saved_model")
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, help="Export's folder."
)
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path),
    help="Where the run's pictures are now, to compare on.",
)
@click.option(
    "--top-k", type=click.IntRange(1), default=3, help="saved_model: names per picture."
)
@click.option(
    "--max-pixels",
    type=click.IntRange(1, 64_000_000),
    default=16_000_000,
    help="saved_model: refuse files that claim more.",
)
def export(model: Path, style: str, out: Path, data_dir, top_k: int, max_pixels: int):
    """Writes a classifier or a generator for use without this program.

    saved_model runs wherever TensorFlow runs, and in TensorFlow Serving: encoded files
    in, names out. Every export is compared with its model before it is published.

    \b
    Example:
      anime-tf export --out saved_models/serving/classifier/1
    """
    set_up_output()
    from anime_tf.export import run

    reporter = Reporter(Console())
    figures = run.export_saved_model(model, out, top_k, max_pixels, data_dir, reporter)
    for name, value in figures.items():
        reporter.say(f"  {name.replace('_', ' ')}: {value}")
    reporter.say(f"Export: {out}")
