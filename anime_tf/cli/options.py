"""What the commands share: settings, parameter types, options, errors, output."""

import io
import os
import re
import sys
import warnings
from pathlib import Path

import click

from anime_tf.config import DEFAULT_DATA_DIR, DEFAULT_OUT
from anime_tf.errors import UserError

SETTINGS = {
    "help_option_names": ["-h", "--help"],
    "token_normalize_func": lambda token: token.replace("_", "-"),
    "max_content_width": 92,
    "show_default": True,
}
_UNITS = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3, "t": 1024**4}
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600}


class Bytes(click.ParamType):
    """A number of bytes such as `512M` or `8G`."""

    name = "size"

    def convert(self, value, param, ctx):
        if isinstance(value, int):
            return value
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?", value.strip().lower())
        if not match:
            self.fail(f"{value!r} is no size; write for example 512M or 8G", param, ctx)
        return int(float(match[1]) * _UNITS[match[2]])


class Duration(click.ParamType):
    """A time such as `90s`, `10m` or `1.5h`, in seconds."""

    name = "time"

    def convert(self, value, param, ctx):
        if isinstance(value, (int, float)):
            return value
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh]?)", value.strip().lower())
        if not match:
            self.fail(f"{value!r} is no time; write for example 90s or 10m", param, ctx)
        return float(match[1]) * _SECONDS[match[2]]


class Command(click.Command):
    """Turns the errors that are meant for people into one line and exit code 2."""

    def invoke(self, ctx):
        try:
            return super().invoke(ctx)
        except UserError as error:
            raise _complaint(str(error)) from error
        except OSError as error:
            # One without a name is not about a file of the user's.
            if error.filename is None:
                raise
            message = f"{error.filename} cannot be used: {error.strerror}"
            raise _complaint(message) from error


def _complaint(message: str) -> click.ClickException:
    exception = click.ClickException(message)
    exception.exit_code = 2
    return exception


class Group(click.Group):
    command_class = Command


Group.group_class = Group


model_option = click.option(
    "--model",
    type=click.Path(path_type=Path),
    default=DEFAULT_OUT,
    help="Folder of the trained model.",
)
data_dir_option = click.option(
    "--data-dir",
    type=click.Path(),
    default=DEFAULT_DATA_DIR,
    help="Folder with one folder of pictures per character.",
)
cache_options = [
    click.option("--cache-dir", help="Folder of the picture cache [default: yours]."),
    click.option(
        "--cache-size",
        "cache_bytes",
        type=Bytes(),
        help="Most disk for decoded pictures [default: 8G]; beyond it the pictures "
        "used longest ago make room, and what does not fit is decoded in every epoch.",
    ),
]
saved_model_options = [
    click.option(
        "--data-dir",
        type=click.Path(path_type=Path),
        help="Where the run's pictures are now, to compare on.",
    ),
    click.option(
        "--top-k",
        type=click.IntRange(1),
        default=3,
        help="SavedModel: names per picture.",
    ),
    click.option(
        "--max-pixels",
        type=click.IntRange(1, 64_000_000),
        default=16_000_000,
        help="SavedModel: refuse files that claim more.",
    ),
]


def with_options(options: list):
    """A decorator that gives a command a list of options, in their order."""

    def decorate(function):
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def given_by_user(ctx: click.Context) -> list[str]:
    """Returns the names of the options that stand on the command line."""
    from_user = click.core.ParameterSource.COMMANDLINE
    return [name for name in ctx.params if ctx.get_parameter_source(name) == from_user]


def check_resume(ctx: click.Context) -> None:
    """Refuses options that --resume would not heed."""
    given = [name for name in given_by_user(ctx) if name not in ("out", "resume")]
    if given:
        options = ", ".join("--" + name.replace("_", "-") for name in given)
        raise UserError(
            f"--resume goes on with the settings of the interrupted run: leave out "
            f"{options}, or start anew without --resume"
        )


def set_up_output() -> None:
    """Keeps the libraries' chatter out of the output (python -W brings it back), and
    shows names that the output's encoding lacks by escapes instead of failing."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    # Errors too: those that matter come as exceptions.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
