"""Published weights of the backbones: from Keras' own download or from a file."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import h5py
import keras

from anime_tf.errors import UserError


def download(build: Callable[[], keras.Model], name: str, file: str, option: str):
    """Calls `build`, which makes Keras download weights.

    Args:
        build: Makes the model.
        name: Name of the network, for the error.
        file: Name of the file in Keras' cache.
        option: Name of the option that gives weights, such as `--weights`.

    Raises:
        UserError: If the download fails; says where a file may be put instead.
    """
    try:
        return build()
    # Keras raises a bare Exception when a download fails.
    except Exception as error:
        home = os.environ.get("KERAS_HOME") or Path.home() / ".keras"
        raise UserError(
            f"the ImageNet weights of {name} could not be downloaded "
            f"({_reason(error)}). Keras looks for them in "
            f"{Path(home) / 'models' / file}: put the file there, or name a file with "
            f"{option} PATH, or go without by {option} none (far worse results)"
        ) from error


def load(model: keras.Model, filepath: Path, name: str, option: str) -> None:
    """Loads a file in either of Keras' two layouts, strictly.

    Raises:
        UserError: If the file is absent, damaged or made for another network.
    """
    try:
        # Keras picks the reader by the file's name, not by its content.
        name_for_keras = "net.h5" if is_legacy(filepath, option) else "net.weights.h5"
        with tempfile.TemporaryDirectory() as folder:
            link = Path(folder) / name_for_keras
            link.symlink_to(filepath.resolve())
            model.load_weights(link)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"{filepath} does not hold the weights of {name}: {_reason(error)}"
        ) from error


def is_legacy(filepath: Path, option: str) -> bool:
    """Whether a file is in the layout that Keras had before version 3."""
    if not filepath.is_file():
        raise UserError(f"the weights file {filepath} does not exist ({option})")
    with h5py.File(filepath) as file:
        return "layer_names" in file.attrs


def _reason(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
