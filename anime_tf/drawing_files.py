"""Drawings as files: PNG, a grid of them, an animation between seeds."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from anime_tf import sheets
from anime_tf.inference import Recognizer
from anime_tf.run_files import DISCRIMINATOR
from anime_tf.sampler import Sampler, load_network

_FRAMES = 12  # from one seed to the next
_SECONDS = 0.08  # of a frame
_BATCH = 32


def write_drawings(
    sampler: Sampler,
    model: Path,
    out: Path,
    count: int,
    seed: int,
    truncation: float,
    character: str | None,
    best_of: int,
) -> Path:
    """Writes `0001.png` and on, and `grid.png`, into a folder; returns the grid's path.

    Arguments are those of `Sampler.best`; `model` is the sampler's folder.
    """
    if best_of > 1:
        judges = open_judges(sampler, model)
        drawings = sampler.best(count, best_of, judges, seed, truncation, character)
    else:
        drawings = sampler.generate(count, seed, truncation, character)
    for number, drawing in enumerate(drawings, 1):
        sheets.save_png(Image.fromarray(drawing), out / f"{number:04}.png")
    sheets.save_png(sheets.grid(drawings), out / "grid.png")
    return out / "grid.png"


def write_interpolation(
    sampler: Sampler,
    out: Path,
    seeds: Sequence[int],
    truncation: float,
    character: str | None,
) -> Path:
    """Writes `interpolation.gif` into a folder; returns its path."""
    frames = sampler.interpolate(seeds, _FRAMES, truncation, character)
    path = out / "interpolation.gif"
    pictures = [Image.fromarray(frame) for frame in frames]
    sheets.save_gif(pictures, path, _SECONDS, hold_last=_SECONDS)
    return path


def open_judges(sampler: Sampler, model: Path) -> list[Callable]:
    """Returns those who know what is good: the classifier and the discriminator.

    Each takes drawings uint8 `[n, h, w, 3]` and labels to scores `[n]`. A projected
    discriminator sees features only, which are not kept with the run: it is left out.
    """
    recognizer = Recognizer.load(sampler.record["classifier"])
    discriminator = load_network(model / DISCRIMINATOR)

    def likeness(drawings: np.ndarray, labels: np.ndarray) -> np.ndarray:
        names = [sampler.class_names[label] for label in labels]
        columns = [recognizer.class_names.index(name) for name in names]
        return recognizer.log_probabilities(drawings)[np.arange(len(names)), columns]

    def realness(drawings: np.ndarray, labels: np.ndarray) -> np.ndarray:
        inputs = [drawings.astype(np.float32), labels]
        return discriminator.predict(inputs, batch_size=_BATCH, verbose=0)[:, 0]

    sees_pixels = discriminator.input_shape[0] == sampler.generator.output_shape
    return [likeness, realness] if sees_pixels else [likeness]
