"""A small network, a small cast, and the real program with both of them.

    python -m tests.tiny train --data-dir ... --out ...

is `anime-tf train ...` with `tiny_backbone` in the place of EfficientNetB0.
"""

import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image, ImageDraw

from anime_tf import cli
from anime_tf.config import DrawConfig, TrainConfig
from anime_tf.inference import Recognizer
from anime_tf.models import classifier, features
from anime_tf.models.networks import build_generator
from anime_tf.sampler import Sampler
from anime_tf.training import generator
from anime_tf.training.classifier import train_classifier

ROOT = Path(__file__).parents[1]
IMAGE_SIZE = 32
# Sorted by code point. Brackets are markup to Rich and a pattern to glob.
NAMES = ("Asuka [02]", "Rémi Ō", "初音未来")
_COLOURS = ((220, 50, 40), (40, 170, 60), (50, 70, 220))
COUNT = 24


def tiny_backbone(include_top, weights, input_shape):
    """Stands for `keras.applications.EfficientNetB0`, in all that matters here."""
    if include_top or weights is not None:
        raise ValueError(f"include_top={include_top}, weights={weights!r}")
    layers = keras.layers
    inputs = keras.Input(input_shape)
    x = layers.Rescaling(1 / 127.5, offset=-1.0)(inputs)
    for filters in (8, 16, 16):
        x = layers.Conv2D(filters, 3, 2, padding="same", use_bias=False)(x)
        x = layers.BatchNormalization(momentum=0.8)(x)
        x = layers.Activation("silu")(x)
    # Random state of the network itself, as the drop-connect of EfficientNet.
    x = layers.Dropout(0.1, name="drop_connect")(x)
    return keras.Model(inputs, x)


def use_tiny_backbone(monkeypatch):
    monkeypatch.setitem(classifier.BACKBONES, "efficientnetb0", tiny_backbone)


def build_tiny(monkeypatch, num_classes=3, **arguments):
    """The classifier of the package around the tiny backbone, random weights."""
    use_tiny_backbone(monkeypatch)
    arguments = {"image_size": IMAGE_SIZE, "weights": "none", **arguments}
    return classifier.build_classifier("efficientnetb0", num_classes, **arguments)


def draw(character, rng, size=48):
    """One picture of a character: its colour and shape, somewhere on some ground."""
    ground = rng.integers(120, 250, (4, 4, 1)).astype(np.uint8).repeat(3, axis=2)
    image = Image.fromarray(ground).resize((size, size), Image.Resampling.BICUBIC)
    shape = ImageDraw.Draw(image)
    side = int(rng.integers(size // 3, size // 2))
    left, top = (int(n) for n in rng.integers(0, size - side, 2))
    box = (left, top, left + side, top + side)
    colour = _COLOURS[character]
    if character == 0:
        shape.ellipse(box, fill=colour)
    elif character == 1:
        shape.rectangle(box, fill=colour)
    else:
        corners = [(left, top + side), (left + side // 2, top), (box[2], box[3])]
        shape.polygon(corners, fill=colour)
    noise = rng.normal(0, 6, (size, size, 3))
    return Image.fromarray(np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8))


def draw_strangers(folder, count=12, size=48, seed=5):
    """Pictures of nobody: black and white stripes."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for number in range(count):
        stripes = rng.integers(0, 2, (1, size // 4, 1)) * 255
        stripes = np.tile(stripes, (size, 1, 3)).repeat(4, axis=1)
        image = Image.fromarray(stripes.astype(np.uint8))
        image.rotate(90 * number).save(folder / f"stripes{number}.png")


def write_characters(folder, counts=COUNT, names=NAMES, seed=0):
    """Writes `folder/NAME/000.png` and on; `counts` for all or for each."""
    rng = np.random.default_rng(seed)
    counts = [counts] * len(names) if isinstance(counts, int) else counts
    for character, (name, count) in enumerate(zip(names, counts, strict=True)):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            draw(character, rng).save(folder / name / f"{number:03}.png")
    return folder


def config(data, cache, **changes):
    """A run of seconds on the tiny backbone."""
    values = {
        "data_dir": str(data),
        "cache_dir": str(cache),
        "weights": "none",
        "image_size": IMAGE_SIZE,
        "batch_size": 16,
        "head_epochs": 8,
        "epochs": 10,
        "head_learning_rate": 0.02,
        "learning_rate": 0.01,
        **changes,
    }
    return TrainConfig(**values)


def tiny_features(image_size, layers=("one", "two"), weights="imagenet"):
    """Stands for `models.features.build_features`."""
    if weights != "none":
        return features.build_features(image_size, weights=weights)
    images = keras.Input((image_size, image_size, 3))
    x = keras.layers.Rescaling(1 / 127.5, offset=-1.0)(images)
    maps = []
    for number, _ in enumerate(layers):
        x = keras.layers.Conv2D(8 * 2**number, 3, 2, "same", activation="relu")(x)
        maps.append(x)
    network = keras.Model(images, maps)
    network.trainable = False
    return network


def draw_config(classifier, **changes):
    """A run of drawing of seconds, with this run as its guide."""
    values = {
        "target_class": NAMES[2],
        "num_epochs": 4,
        "classifier": str(classifier),
        "vgg_weights": "none",
        "image_size": 32,
        "batch_size": 4,
        "channels": 4,
        "preview_steps": 10,
        "cache_dir": str(classifier.parent / "cache"),
        **changes,
    }
    return DrawConfig(**values)


def options(settings):
    """The command line that asks for a `TrainConfig`."""
    names = (
        "data_dir",
        "cache_dir",
        "weights",
        "image_size",
        "batch_size",
        "head_epochs",
        "epochs",
        "head_learning_rate",
        "learning_rate",
        "seed",
    )
    pairs = [("--" + n.replace("_", "-"), str(getattr(settings, n))) for n in names]
    return [part for pair in pairs for part in pair]


def sampler():
    """A generator of 16 px that was never trained: two of four characters."""
    keras.utils.set_random_seed(0)
    network = build_generator(16, num_classes=4, channels=8)
    return Sampler(network, ("Rem", "初音未来", "7", ""), ("Rem", "初音未来"))


def trained_run(tmp_path_factory):
    """A finished run in `.../tiny/run` on `.../tiny/data`, made once a session.

    Nobody may change it: tests that do copy it first.
    """
    home = tmp_path_factory.getbasetemp() / "tiny"
    if not Recognizer.exists(home / "run"):
        write_characters(home / "data")
        backbones = classifier.BACKBONES
        real = backbones["efficientnetb0"]
        backbones["efficientnetb0"] = tiny_backbone
        try:
            train_classifier(config(home / "data", home / "cache"), home / "run")
        finally:
            backbones["efficientnetb0"] = real
    return home / "run"


def invoke(*arguments):
    """The command line in this process."""
    return CliRunner().invoke(
        cli.cli, [str(a) for a in arguments], prog_name="anime-tf"
    )


def start(*arguments):
    """The command line in a process of its own, with the tiny backbone."""
    command = [sys.executable, "-m", "tests.tiny", *map(str, arguments)]
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def kill(process, when):
    """Kills a process (SIGKILL) as soon as something is so."""
    deadline = time.monotonic() + 240
    while not when():
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            pytest.fail(f"too late to kill it: {process.communicate()}")
        time.sleep(0.005)
    process.kill()
    process.communicate()


def draw_options(settings):
    """The command line that asks for a `DrawConfig`."""
    default = DrawConfig()
    pairs = [
        (f"--{name.replace('_', '-')}", str(value))
        for name, value in vars(settings).items()
        if value != getattr(default, name)
    ]
    return [part for pair in pairs for part in pair]


def main():
    classifier.BACKBONES["efficientnetb0"] = tiny_backbone
    generator.build_features = tiny_features
    cli.main()


if __name__ == "__main__":
    main()
