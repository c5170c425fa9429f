"""The command that takes a model elsewhere: export."""

from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from anime_tf.cli.options import (
    SETTINGS,
    Command,
    given_by_user,
    model_option,
    saved_model_options,
    set_up_output,
    with_options,
)
from anime_tf.config import VARIANTS
from anime_tf.errors import UserError
from anime_tf.progress import Reporter
from anime_tf.quiet import load_tensorflow

FORMATS = ("saved_model", "tflite")


@click.command(cls=Command, context_settings=SETTINGS)
@model_option
@click.option("--format", "style", type=click.Choice(FORMATS), default="saved_model")
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, help="Export's folder."
)
@with_options(saved_model_options)
@click.option(
    "--variant",
    "variants",
    type=click.Choice([*VARIANTS, "all"]),
    multiple=True,
    default=["float16"],
    help="tflite: how numbers are stored; can be given several times.",
)
@click.pass_context
def export(
    ctx, model: Path, style: str, out: Path, data_dir, top_k, max_pixels, variants
):
    """Writes a classifier or a generator for use without this program.

    saved_model runs wherever TensorFlow runs, and in TensorFlow Serving: encoded files
    in, names out. tflite is for phones; each variant is tried on the pictures that
    training held out. Every export is compared with its model.

    \b
    Example:
      anime-tf export --out saved_models/serving/classifier/1
      anime-tf export --format tflite --variant all --out phone
    """
    set_up_output()
    if style != "tflite" and "variants" in given_by_user(ctx):
        raise UserError("--variant is for --format tflite")
    load_tensorflow()
    from anime_tf.export import run

    reporter = Reporter(Console())
    if style == "saved_model":
        figures = run.export_saved_model(
            model, out, top_k, max_pixels, data_dir, reporter
        )
        for name, value in figures.items():
            reporter.say(f"  {name.replace('_', ' ')}: {value}")
    else:
        # In a fixed order, and each once.
        chosen = [v for v in VARIANTS if v in variants or "all" in variants]
        figures = run.export_tflite(model, out, chosen, data_dir, reporter)
        _say_variants(reporter, figures)
    reporter.say(f"Export: {out}")


def _say_variants(reporter: Reporter, figures: dict[str, dict]) -> None:
    table = Table()
    table.add_column("Variant")
    for heading in ("MB", "ms each", "accuracy", "agreement", "known", "PSNR", "good"):
        table.add_column(heading, justify="right")
    for variant, row in figures.items():
        shares = [row.get(key) for key in ("accuracy", "agreement", "accepted")]
        shares = ["-" if share is None else f"{share:.1%}" for share in shares]
        psnr = f"{row['psnr_db']} dB" if "psnr_db" in row else "-"
        size, latency = f"{row['bytes'] / 1e6:.1f}", f"{row['milliseconds']:.1f}"
        good = "yes" if row["good"] else "NO"
        table.add_row(variant, size, latency, *shares, psnr, good)
    reporter.say(table)
    if not all(row["good"] for row in figures.values()):
        reporter.say("What is not good loses too much: do not ship it.")
