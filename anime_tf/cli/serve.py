"""The commands that answer over HTTP: serve, ui."""

import ipaddress
import logging
from contextlib import suppress
from pathlib import Path

import click
from rich.console import Console

from anime_tf.cli.options import (
    SETTINGS,
    Bytes,
    Command,
    Duration,
    set_up_output,
    with_options,
)
from anime_tf.config import DEFAULT_DRAW_OUT, DEFAULT_OUT
from anime_tf.errors import UserError
from anime_tf.progress import Reporter
from anime_tf.quiet import load_tensorflow
from anime_tf.run_files import RECOGNIZER, SAMPLER

_server_options = [
    click.option(
        "--classifier",
        type=click.Path(path_type=Path),
        help="A run, a SavedModel or a TFLite file [default, if no model is named: "
        f"{DEFAULT_OUT}, if any].",
    ),
    click.option(
        "--generator",
        type=click.Path(path_type=Path),
        help="The same, of drawing [default, if no model is named: "
        f"{DEFAULT_DRAW_OUT}, if any].",
    ),
    click.option("--host", default="127.0.0.1", help="Address to listen on."),
    click.option(
        "--port", type=click.IntRange(0, 65535), default=8501, help="0: any free one."
    ),
    click.option(
        "--max-body", type=Bytes(), default="32M", help="Most bytes of a request."
    ),
    click.option(
        "--max-pictures",
        type=click.IntRange(1),
        default=64,
        help="Most pictures, or drawings, of a request.",
    ),
    click.option(
        "--max-queue",
        type=click.IntRange(1),
        default=512,
        help="Most pictures that wait for a model; beyond it clients are told to come "
        "back later.",
    ),
    click.option(
        "--max-pixels",
        type=click.IntRange(1, 64_000_000),
        default=16_000_000,
        help="Pictures that claim more are not read.",
    ),
    click.option(
        "--timeout", type=Duration(), default="60s", help="Most time for an answer."
    ),
    click.option("--top-k", type=click.IntRange(1), default=3, help="Names a picture."),
]


@click.command(cls=Command, context_settings=SETTINGS)
@with_options(_server_options)
def serve(host: str, port: int, **given):
    """Answers over HTTP, as TensorFlow Serving does, without it.

    The classifier is at /v1/models/classifier, the generator at /v1/models/generator;
    both take what their SavedModel exports take. Requests that come in together are
    answered together. Ctrl-C ends it, after the answers that are under way.

    \b
    Example:
      anime-tf serve --classifier saved_models/classifier --port 8501
      curl http://127.0.0.1:8501/v1/models/classifier/metadata
    """
    set_up_output()
    _run_server(host, port, with_page=False, **given)


@click.command(cls=Command, context_settings=SETTINGS)
@with_options(_server_options)
def ui(host: str, port: int, **given):
    """Shows a page to play with: drop a picture, draw a character.

    It is for the browser on this machine, needs no internet, and is the same server as
    `anime-tf serve`. Ctrl-C ends it.

    \b
    Example:
      anime-tf ui
      anime-tf ui --classifier saved_models/classifier --port 8600
    """
    set_up_output()
    _run_server(host, port, with_page=True, **given)


def _run_server(
    host: str,
    port: int,
    with_page: bool,
    classifier: Path | None,
    generator: Path | None,
    top_k: int,
    **limits,
) -> None:
    classifier, generator = _find_models(classifier, generator)
    _check_installed()
    load_tensorflow()
    from anime_tf.server import loading, page, run
    from anime_tf.server.app import build_app
    from anime_tf.server.limits import Intake

    reporter = Reporter(Console())
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s")
    intake = Intake(_read_limits(**limits))
    # Taken before the models are loaded, which is long to wait for a port in use.
    with run.bind(host, port) as listener:
        host, port = listener.getsockname()[:2]
        if not ipaddress.ip_address(host).is_loopback:
            _warn(reporter, host)
        services = loading.load_services(
            classifier, generator, intake.limits, top_k, explain=with_page
        )
        models = services.served()
        routes = page.build_page(services, intake) if with_page else []
        place = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

        def on_start() -> None:
            for model in models:
                reporter.say(f"Serving {place}/v1/models/{model.name}")
            if with_page:
                reporter.say(f"Open {place}/ in a browser.")

        with suppress(KeyboardInterrupt):
            app = build_app(models, intake, routes)
            run.serve(app, listener, intake.limits, on_start)
    reporter.say("Ended.")


def _read_limits(
    max_body: int, max_pictures: int, max_queue: int, max_pixels: int, timeout: float
):
    from anime_tf.server.limits import Limits

    if timeout <= 0:
        raise UserError("--timeout must be longer than 0")
    if max_queue < max_pictures:
        raise UserError(
            f"--max-queue {max_queue} must be at least --max-pictures {max_pictures}, "
            "or a request of so many could never be answered"
        )
    return Limits(
        body_bytes=max_body,
        all_bodies_bytes=max(8 * max_body, Limits.all_bodies_bytes),
        pictures=max_pictures,
        queue=max_queue,
        pixels=max_pixels,
        answer_seconds=timeout,
    )


def _find_models(
    classifier: Path | None, generator: Path | None
) -> tuple[Path | None, Path | None]:
    """Takes the default folders where nothing is given and something is in them."""
    if not (classifier or generator):
        trained, drawing = Path(DEFAULT_OUT), Path(DEFAULT_DRAW_OUT)
        classifier = trained if (trained / RECOGNIZER).is_file() else None
        generator = drawing if (drawing / SAMPLER).is_file() else None
    if not (classifier or generator):
        raise UserError(
            f"there is nothing to serve in {DEFAULT_OUT} and {DEFAULT_DRAW_OUT}; name "
            "a run or an export by --classifier or --generator"
        )
    return classifier, generator


def _check_installed() -> None:
    try:
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"{error.name} is not installed; try: pip install 'anime_tf[serve]'"
        ) from error


def _warn(reporter: Reporter, host: str) -> None:
    reporter.say(
        f"WARNING: {host} is not only this machine. Whoever can reach it can use the "
        "models: there is no password and no encryption. Put a proxy before it that "
        "has both, or leave out --host."
    )
