"""The commands around one generator: draw, draw-eval, generate."""

import time
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from anime_tf.cli.options import (
    SETTINGS,
    Bytes,
    Command,
    Duration,
    cache_options,
    check_resume,
    given_by_user,
    set_up_output,
    with_options,
)
from anime_tf.config import (
    DEFAULT_DRAW_OUT,
    DEFAULT_OUT,
    DISCRIMINATORS,
    IMAGE_SIZES,
    PERCEPTUAL,
    UPSAMPLING,
    DrawConfig,
)
from anime_tf.errors import UserError
from anime_tf.progress import Reporter
from anime_tf.quiet import load_tensorflow
from anime_tf.run_files import CONFIG, EVOLUTION, METRICS, PAIRS_SHEET, REPORT

_generator_option = click.option(
    "--model",
    type=click.Path(path_type=Path),
    default=DEFAULT_DRAW_OUT,
    help="Folder of the trained generator.",
)
_recipe_options = [
    click.option("--adversarial-weight", type=float, help="Of the discriminator."),
    click.option("--classification-weight", type=float, help="Of the classifier."),
    click.option("--perceptual-weight", type=float, help="Of VGG19's features."),
    click.option(
        "--perceptual",
        type=click.Choice(PERCEPTUAL),
        help="How features of drawings are compared with real ones; paired is the "
        "plain reading, which blurs.",
    ),
    click.option(
        "--discriminator",
        type=click.Choice(DISCRIMINATORS),
        help="Judge of pixels, or of VGG19's features.",
    ),
    click.option(
        "--upsampling",
        type=click.Choice(UPSAMPLING),
        help="transposed shows the checkerboard that it leaves.",
    ),
    click.option("--learning-rate", type=float, help="Of both networks."),
    click.option("--channels", type=int, help="Of the generator's last block."),
]
_pretrain_options = [
    click.option(
        "--pretrain",
        is_flag=True,
        default=None,
        help="Start from a generator of all characters; it is trained first where "
        "there is none. What makes a few dozen pictures enough.",
    ),
    click.option("--pretrained", type=click.Path(), help="Its folder."),
    click.option("--pretrain-epochs", type=int, help="Its passes over all pictures."),
    click.option(
        "--extra-images",
        type=click.Path(exists=True, file_okay=False),
        help="Folder of drawings of anybody that it learns from too.",
    ),
]


@click.command(cls=Command, context_settings=SETTINGS)
@click.option(
    "--target-class",
    default="0",
    help="The character: its name, its number in the classifier's order, or all.",
)
@click.option("--num-epochs", type=int, default=3000, help="Passes over its pictures.")
@click.option(
    "--classifier",
    type=click.Path(),
    default=DEFAULT_OUT,
    help="Folder of the trained classifier, the guide.",
)
@click.option("--data-dir", type=click.Path(), help="Where its pictures are now.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=DEFAULT_DRAW_OUT,
    help="Run's folder.",
)
@click.option("--resume", is_flag=True, help="Go on with the run in --out.")
@click.option("--overwrite", is_flag=True, help="Replace the run in --out.")
@click.option("--time-budget", type=Duration(), help="End within, say, 15m.")
@click.option(
    "--vgg-weights", help="imagenet (downloaded), none (random), or a file of VGG19."
)
@click.option(
    "--image-size",
    type=click.Choice(list(map(str, IMAGE_SIZES))),
    help="Side of the drawings in pixels.",
)
@click.option("--batch-size", type=int, help="Pictures per training step.")
@with_options(_recipe_options)
@with_options(_pretrain_options)
@click.option("--preview-steps", type=int, help="Steps from one look to the next.")
@click.option("--seed", type=int, help="Of weights, noise, order and augmentation.")
@click.option(
    "--memory",
    "memory_bytes",
    type=Bytes(),
    help="Most RAM for decoded pictures [default: 1G].",
)
@with_options(cache_options)
@click.pass_context
def draw(ctx, out: Path, resume: bool, overwrite: bool, image_size, **given):
    """Learns to draw a character, and leaves a generator in --out.

    Three teachers judge every drawing: a discriminator (weight 0.1), the classifier
    (0.2) and features of VGG19 (10). Watch OUT/previews grow.

    \b
    Example:
      anime-tf draw --target-class 0 --num-epochs 3000
      anime-tf draw --target-class 初音未来 --pretrain --time-budget 15m
      anime-tf draw --resume
    """
    started = time.monotonic()
    set_up_output()
    reporter = Reporter(Console())
    # The checks that need no TensorFlow come before its import, which takes seconds.
    if resume:
        check_resume(ctx)
    else:
        given["image_size"] = int(image_size) if image_size else None
        named = {name: value for name, value in given.items() if value is not None}
        config = DrawConfig(**named)
    load_tensorflow()
    from anime_tf.drawing_evaluation import evaluate_drawing
    from anime_tf.training.generator import resume_generator, train_generator

    try:
        if resume:
            resume_generator(out, reporter)
        else:
            train_generator(config, out, reporter, overwrite, started)
    except KeyboardInterrupt:
        reporter.say("Interrupted.")
        if (out / CONFIG).exists():
            reporter.say(f"Go on with: anime-tf draw --resume --out {out}")
        ctx.exit(130)
    metrics = evaluate_drawing(out, reporter=reporter)
    _say_metrics(reporter, metrics)
    reporter.say(
        f"Drawings: {out / PAIRS_SHEET}\nFrom noise to character: {out / EVOLUTION}\n"
        f"Report: {out / REPORT}\nNext: anime-tf generate --model {out} --out DIR"
    )


@click.command(cls=Command, context_settings=SETTINGS)
@_generator_option
@click.option("--count", type=click.IntRange(8), default=256, help="Of each character.")
@click.option("--seed", type=click.IntRange(0), default=1, help="Of the drawings.")
@click.option(
    "--judge",
    type=click.Path(path_type=Path),
    help="Folder of another classifier than the guide, which names the drawings.",
)
@click.option("--data-dir", type=click.Path(), help="Where the pictures are now.")
def draw_eval(model: Path, count: int, seed: int, judge, data_dir):
    """Measures how good a generator's drawings are.

    Writes metrics.json, report.html and sheets of pictures into the model's folder.

    \b
    Example:
      anime-tf draw-eval --judge saved_models/other_classifier
    """
    load_tensorflow()
    from anime_tf.drawing_evaluation import evaluate_drawing

    reporter = Reporter(Console())
    metrics = evaluate_drawing(model, count, seed, judge, data_dir, reporter)
    _say_metrics(reporter, metrics)
    reporter.say(f"Figures: {model / METRICS}\nReport:  {model / REPORT}")


@click.command(cls=Command, context_settings=SETTINGS)
@_generator_option
@click.option("--out", type=click.Path(path_type=Path), required=True)
@click.option("--count", type=click.IntRange(1), default=16, help="Pictures.")
@click.option("--character", help="Name or number; by default each in turn.")
@click.option("--seed", type=click.IntRange(0), default=0)
@click.option(
    "--truncation",
    type=click.FloatRange(0, 1),
    default=1.0,
    help="Less than 1 gives more typical, more alike pictures.",
)
@click.option(
    "--best-of",
    type=click.IntRange(1),
    default=1,
    help="Draw so many for each, and keep the one that classifier and discriminator "
    "like best.",
)
@click.option(
    "--interpolate",
    type=click.IntRange(2),
    help="Write a GIF that goes from seed to seed, through so many of them.",
)
@click.pass_context
def generate(ctx, model, out, count, character, seed, truncation, best_of, interpolate):
    """Draws pictures into the new folder --out: PNG files and a grid of all.

    \b
    Example:
      anime-tf generate --count 16 --seed 7 --truncation 0.7 --out drawings
      anime-tf generate --interpolate 5 --out way
    """
    if interpolate and {"count", "best_of"}.intersection(given_by_user(ctx)):
        raise UserError("--interpolate goes without --count and --best-of")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} exists already; give a new folder by --out")
    load_tensorflow()
    from anime_tf.drawing_files import write_drawings, write_interpolation
    from anime_tf.sampler import Sampler

    reporter = Reporter(Console())
    sampler = Sampler.load(model)
    if interpolate:
        seeds = range(seed, seed + interpolate)
        path = write_interpolation(sampler, out, seeds, truncation, character)
        reporter.say(f"Animation: {path}")
        return
    path = write_drawings(
        sampler, model, out, count, seed, truncation, character, best_of
    )
    reporter.say(f"{count} pictures in {out}\nGrid: {path}")


def _say_metrics(reporter: Reporter, metrics: dict) -> None:
    table = Table(title=f"Against real pictures, by {metrics['features']}")
    columns = {
        "kid": "KID",
        "precision": "prec.",
        "recall": "recall",
        "diversity_ratio": "variety",
        "memorisation_ratio": "novelty",
        "hit_rate": "hits",
        "checkerboard_ratio": "grid",
    }
    table.add_column("character", overflow="fold")
    for title in columns.values():
        table.add_column(title, justify="right", overflow="fold")
    for name, figures in metrics["characters"].items():
        cells = [figures[key] for key in columns]
        table.add_row(name, *["-" if cell is None else f"{cell:.3f}" for cell in cells])
    reporter.say(table)
