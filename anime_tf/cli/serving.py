"""The command that prepares what TensorFlow Serving serves: serve-config."""

from pathlib import Path

import click
from rich.console import Console

from anime_tf.cli.options import (
    SETTINGS,
    Command,
    saved_model_options,
    set_up_output,
    with_options,
)
from anime_tf.config import DEFAULT_SERVING_OUT
from anime_tf.errors import UserError
from anime_tf.progress import Reporter
from anime_tf.quiet import load_tensorflow


@click.command("serve-config", cls=Command, context_settings=SETTINGS)
@click.option(
    "--classifier",
    type=click.Path(path_type=Path),
    help="Folder of a trained classifier, or of its SavedModel.",
)
@click.option(
    "--generator",
    type=click.Path(path_type=Path),
    help="Folder of a trained generator, or of its SavedModel.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=DEFAULT_SERVING_OUT,
    help="Folder to serve; new, or one to which versions are added.",
)
@click.option("--image", default="tensorflow/serving:2.21.0", help="Container image.")
@click.option(
    "--base-path", default="/models", help="Where the server sees --out; absolute."
)
@with_options(saved_model_options)
def serve_config(classifier, generator, out: Path, image, base_path, **export):
    """Writes a folder for TensorFlow Serving, or adds new versions to one.

    Every version is published whole, with warm-up requests, so a running server may
    read the folder all the time. The new one is labelled canary; moving the label
    stable is up to you, see README.md in the folder, which also says how to start the
    server and how to scale it out.

    \b
    Example:
      anime-tf serve-config --classifier saved_models/classifier
      anime-tf serve-config --classifier RUN --generator RUN --out served
    """
    set_up_output()
    given = {"classifier": classifier, "generator": generator}
    sources = {kind: source for kind, source in given.items() if source}
    if not sources:
        raise UserError("nothing to serve: name a --classifier, a --generator, or both")
    if not base_path.startswith("/"):
        raise UserError(f"--base-path must be absolute, got {base_path}")
    load_tensorflow()
    from anime_tf.serving.layout import publish

    reporter = Reporter(Console())
    base_path = base_path.rstrip("/")
    versions = publish(sources, out, image, base_path, reporter=reporter, **export)
    for kind, version in versions.items():
        reporter.say(f"  {kind}: version {version}")
    reporter.say(f"To serve: {out}\nHow:      {out / 'README.md'}")
