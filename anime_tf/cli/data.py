"""The commands about the folders of pictures: check, demo, export-tfds."""

import json
from pathlib import Path

import click
from rich.console import Console

from anime_tf.cli.options import (
    SETTINGS,
    Group,
    cache_options,
    data_dir_option,
    with_options,
)
from anime_tf.config import DEFAULT_DATA_DIR, DEFAULT_TFDS_DIR, TrainConfig
from anime_tf.progress import Reporter


@click.group(cls=Group, context_settings=SETTINGS)
def data():
    """Looks after the folders of pictures."""


@data.command(context_settings=SETTINGS)
@data_dir_option
@click.option(
    "--format", "style", type=click.Choice(["table", "json"]), default="table"
)
@with_options(cache_options)
def check(data_dir: str, style: str, cache_dir: str | None, cache_bytes: int | None):
    """Reports what is in the folders: counts, damage, duplicates, imbalance.

    Changes nothing.

    \b
    Example:
      anime-tf data check --data-dir data/all_characters
    """
    from anime_tf.datasets.cache import open_cache
    from anime_tf.datasets.health import examine
    from anime_tf.datasets.image_folder import scan_folder
    from anime_tf.tables import health_tables

    reporter = Reporter(Console(stderr=style == "json"))
    with reporter.bar(f"Reading {data_dir}") as bar:
        cache = open_cache(cache_dir, cache_bytes)
        scan = scan_folder(data_dir, cache, None, bar.set_total, bar.advance)
    health = examine(scan)
    if style == "json":
        click.echo(json.dumps(health.to_dict(), ensure_ascii=False, indent=1))
    else:
        for finding in health_tables(health):
            reporter.say(finding)


@data.command(context_settings=SETTINGS)
@click.option("--out", type=click.Path(path_type=Path), default=DEFAULT_DATA_DIR)
@click.option("--characters", type=click.IntRange(2, 500), default=6)
@click.option("--count", type=click.IntRange(1), default=40, help="Pictures of each.")
@click.option("--image-size", type=click.IntRange(32, 1024), default=160)
@click.option("--seed", type=int, default=0)
def demo(out: Path, characters: int, count: int, image_size: int, seed: int):
    """Draws a small cast of invented characters to try things on.

    \b
    Example:
      anime-tf data demo --out data/all_characters --characters 6 --count 40
    """
    from anime_tf.datasets.synthetic import write_cast

    reporter = Reporter(Console())
    with reporter.bar("Drawing", characters * count) as bar:
        write_cast(out, characters, count, image_size, seed, bar.advance)
    reporter.say(f"{characters} characters with {count} pictures each: {out}")


@data.command("export-tfds", context_settings=SETTINGS)
@data_dir_option
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=DEFAULT_TFDS_DIR,
    help="Folder of datasets to put it into (data_dir of tfds.load).",
)
@click.option(
    "--format",
    "file_format",
    type=click.Choice(["tfrecord", "array_record"]),
    default="tfrecord",
    help="Of the shards: to be streamed, or to be read in any order.",
)
@click.option(
    "--image-size",
    type=click.IntRange(1, 4096),
    help="Fit the pictures into a square of so many pixels [default: as they are].",
)
@click.option("--validation-fraction", type=float)
@click.option("--test-fraction", type=float)
@click.option("--seed", type=int, help="Of the split.")
@click.option("--beam", is_flag=True, help="Build with Apache Beam, in processes.")
@click.option("--overwrite", is_flag=True, help="Replace the dataset in --out.")
@with_options(cache_options)
def export_tfds(out, file_format, image_size, beam, overwrite, **given):
    """Writes the folders as a dataset for tensorflow-datasets, split as for training.

    Pictures become upright RGB PNGs, transparency on white. All copies of one drawing
    go into one split. Read it with tfds.load("anime_characters", data_dir=OUT), or:

    \b
    Example:
      anime-tf data export-tfds --data-dir data/all_characters --out data/tfds
      anime-tf train --tfds data/tfds
    """
    from anime_tf.datasets import tfds_export
    from anime_tf.datasets.cache import open_cache
    from anime_tf.datasets.image_folder import scan_folder
    from anime_tf.datasets.manifest import LEFT_OUT, SPLITS, build_manifest

    config = TrainConfig.from_preset(**given)
    tfds_export.check_export(out, overwrite, beam)
    reporter = Reporter(Console())
    with reporter.bar(f"Reading {config.data_dir}") as bar:
        cache = open_cache(config.cache_dir, config.cache_bytes)
        scan = scan_folder(config.data_dir, cache, None, bar.set_total, bar.advance)
    manifest = build_manifest(scan, config.fractions, config.seed)
    for path, reason in manifest.skipped:
        reporter.say(f"  skipped {path}: {reason}")
    left_out = len(manifest.split(LEFT_OUT))
    if left_out:
        reporter.say(f"  left out {left_out} files that lie with two characters each")
    counts = {name: len(manifest.split(name)) for name in SPLITS}
    with reporter.bar("Writing", sum(counts.values())) as bar:
        folder = tfds_export.export_dataset(
            manifest, out, image_size, file_format, beam, overwrite, bar.advance
        )
    parts = ", ".join(f"{count} {name}" for name, count in counts.items())
    reporter.say(f"{len(manifest.class_names)} characters, {parts}: {folder}")
