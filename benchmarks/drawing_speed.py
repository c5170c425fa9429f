"""Training steps a second of the GAN against the same in plain PyTorch.

    python benchmarks/drawing_speed.py --vgg-weights FILE --torch-python PYTHON

PYTHON is the interpreter of an environment with PyTorch, in which `torch_peer.py` runs.
Both train the same networks, from the same weights, on one repeated batch, in short
turns; before that, what both draw and judge is compared.
"""

import functools
import json
import statistics
import tempfile

import click
import keras
import numpy as np
import tensorflow as tf
from machine import save
from peers import Peer, take_turns, timed

from anime_tf.layers import DifferentiableAugmentation, UpsampleConv2D
from anime_tf.losses import hinge_discriminator_loss
from anime_tf.models.classifier import build_classifier
from anime_tf.models.features import FINE_LAYERS, build_features
from anime_tf.models.gan import CharacterGAN
from anime_tf.models.networks import (
    IDENTITY,
    LATENT_DIM,
    build_discriminator,
    build_generator,
)
from anime_tf.models.teachers import ClassificationTeacher, PerceptualTeacher

_SIZE, _BATCH, _CLASSES, _VIEWS, _REFERENCES = 64, 16, 11, 4, 96
_PEERS = {"PyTorch, channels last": "last", "PyTorch, channels first": "first"}


class Ours:
    """The GAN as a training run builds it, and a batch for it."""

    def __init__(self, vgg_weights: str):
        keras.utils.set_random_seed(0)
        rng = np.random.default_rng(0)
        self.classifier = build_classifier(
            "efficientnetv2b0", _CLASSES, 128, weights="none"
        )
        self.classifier.trainable = False
        self.features = build_features(_SIZE // 2, weights=vgg_weights)
        self.fine_features = build_features(_SIZE, FINE_LAYERS, vgg_weights)
        self.perceptual = PerceptualTeacher([self.features, self.fine_features])
        self.classification = ClassificationTeacher(self.classifier, _VIEWS)
        self.generator = build_generator(_SIZE, _CLASSES)
        self.discriminator = build_discriminator(_SIZE, _CLASSES)
        # All zeros at first, and then no error in it would show.
        table = self.discriminator.get_layer(IDENTITY).kernel
        table.assign(keras.random.normal(table.shape, seed=0))
        self.augmentation = DifferentiableAugmentation(seed=0)
        self.gan = CharacterGAN(
            self.generator, self.discriminator, self.augmentation, seed=0
        )
        self.gan.compile(
            keras.optimizers.Adam(1e-3, beta_1=0.5, beta_2=0.99),
            keras.optimizers.Adam(1e-3, beta_1=0.5, beta_2=0.99),
            self.classification,
            self.perceptual,
        )
        shape = (_REFERENCES + _BATCH, _SIZE, _SIZE, 3)
        pixels = rng.integers(0, 256, shape, np.uint8)
        self.images = pixels[:_BATCH]
        self.labels = np.arange(_BATCH, dtype=np.int32) % (_CLASSES - 1)
        self.noise = rng.normal(size=(_BATCH, LATENT_DIM)).astype(np.float32)
        self.references = self.perceptual.measure([pixels[_BATCH:]])

    @property
    def networks(self) -> dict[str, keras.Model]:
        return {
            "generator": self.generator,
            "discriminator": self.discriminator,
            "features": self.features,
            "fine_features": self.fine_features,
            "classifier": self.classifier,
        }

    def train_function(self):
        """Returns what `fit` calls for every step, compiled."""
        element = (self.images, self.labels, self.references)
        batches = iter(tf.data.Dataset.from_tensors(element).repeat())
        self.gan.make_train_function()
        return lambda: self.gan.train_function(batches)

    def check(self) -> dict[str, np.ndarray]:
        """What the peer must give as well, from the same weights."""
        fakes = self.generator([self.noise, self.labels], training=False)
        images = self.images.astype(np.float32)
        logits = self.discriminator([images, self.labels], training=False)
        found = {
            "pictures": fakes,
            "logits": logits,
            "adversarial": -tf.reduce_mean(logits),
            "classes": self.classification.logits(images[:_VIEWS]),
            "classification": self.classification(images, self.labels),
            "perceptual": self.perceptual(fakes, self.references),
        }
        return {name: value.numpy() for name, value in found.items()}

    def parts(self) -> dict:
        """The parts of a step, each a function that takes what precedes as given."""
        images = tf.cast(self.images, tf.float32)
        labels = tf.constant(self.labels)
        inputs = [tf.constant(self.noise), labels]
        gan = self.gan

        def generator():
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(self.generator(inputs, training=True) * images)
            return tape.gradient(loss, self.generator.trainable_variables)

        def discriminator():
            with tf.GradientTape(persistent=True) as tape:
                tape.watch(images)
                fake = self.discriminator([images, labels], training=True)
                real = self.discriminator([255.0 - images, labels], training=True)
                fooled = -tf.reduce_mean(fake)
                loss = hinge_discriminator_loss(real, fake)
            variables = self.discriminator.trainable_variables
            return tape.gradient(fooled, images), tape.gradient(loss, variables)

        def perceptual():
            with tf.GradientTape() as tape:
                tape.watch(images)
                loss = self.perceptual(images, self.references)
            return tape.gradient(loss, images)

        def classification():
            with tf.GradientTape() as tape:
                tape.watch(images)
                loss = self.classification(images, labels)
            return tape.gradient(loss, images)

        def augmentation():
            with tf.GradientTape() as tape:
                tape.watch(images)
                loss = tf.reduce_mean(self.augmentation(images) ** 2)
            return tape.gradient(loss, images), self.augmentation(255.0 - images)

        def updates():
            for network, optimizer in (
                (self.generator, gan.optimizer),
                (self.discriminator, gan.discriminator_optimizer),
            ):
                variables = network.trainable_variables
                optimizer.apply([tf.zeros(v.shape) for v in variables], variables)
            gan._average()
            return gan.optimizer.iterations + 0

        parts = (
            generator,
            discriminator,
            perceptual,
            classification,
            augmentation,
            updates,
        )
        return {part.__name__: tf.function(part) for part in parts}


def layers_of(network: keras.Model):
    """Yields the layers that have weights, those of networks inside included."""
    for layer in network.layers:
        if isinstance(layer, keras.Model):
            yield from layers_of(layer)
        elif layer.weights:
            yield layer


def multiplications(network: keras.Model) -> int:
    """Counts those of all kernels for one picture, forward."""
    total = 0
    for layer in layers_of(network):
        inner = getattr(layer, "layer", layer)
        if isinstance(inner, keras.layers.BatchNormalization):
            continue
        places = np.prod(layer.output.shape[1:-1], dtype=int)
        # Doubled maps need four of the nine taps.
        share = 4 / 9 if isinstance(inner, UpsampleConv2D) else 1
        total += int(places * np.prod(inner.kernel.shape) * share)
    return total


def work(ours: Ours) -> dict[str, float]:
    """Floating point operations of a step by network, in 10^9.

    A pass back to the input costs as much as the pass forward, and one to the weights
    too. The discriminator takes fakes forward, back to the weights and, for either
    loss, to the input; and reals forward, and back to both.
    """
    passes = {
        "generator": 3 * _BATCH,
        "discriminator": (4 + 3) * _BATCH,
        "features": 2 * _BATCH,
        "fine_features": 2 * _BATCH,
        "classifier": 2 * _VIEWS,
    }
    return {
        name: 2e-9 * passes[name] * multiplications(network)
        for name, network in ours.networks.items()
    }


def product_rate(size: int = 2048) -> float:
    """Operations of a large product of matrices, in 10^9 a second."""
    square = tf.random.normal((size, size))
    seconds = min(timed(lambda: _ready(square @ square))["wall"] for _ in range(5))
    return 2e-9 * size**3 / seconds


def build_peers(peer: Peer, ours: Ours) -> None:
    """Builds the peer in both layouts, and compares it with ours."""
    with tempfile.TemporaryDirectory() as folder:
        names = ("batch", "weights", "answer")
        files = {name: f"{folder}/{name}.npz" for name in names}
        np.savez(
            files["batch"],
            images=ours.images,
            labels=ours.labels,
            noise=ours.noise,
            units=np.concatenate(ours.perceptual._units),
            references=ours.references,
        )
        weights = {
            f"{name}.{number}.{k}": value
            for name, network in ours.networks.items()
            for number, layer in enumerate(layers_of(network))
            for k, value in enumerate(_values(layer))
        }
        np.savez(files["weights"], **weights)
        for layout in _PEERS.values():
            sizes = peer.order(
                "build",
                layout=layout,
                files=files,
                num_classes=_CLASSES,
                views=_VIEWS,
            )
            compare(ours, sizes, dict(np.load(files["answer"])))


def compare(ours: Ours, sizes: dict, answer: dict) -> None:
    """Fails unless both have as many weights and give the same."""
    for name, network in ours.networks.items():
        own = sum(int(np.prod(v.shape)) for v in _weights_to_learn(network))
        if own != sizes[name]:
            raise ValueError(f"{name}: {own} weights here, {sizes[name]} there")
    for name, value in ours.check().items():
        scale = np.abs(value).max()
        worst = np.abs(value - answer[name]).max() / scale
        click.echo(f"{name} differ by {worst:.1e} of {scale:.4g}")
        if worst >= 1e-3:
            raise ValueError(f"{name} differ too much")


def in_short(seconds: dict[str, dict], ours: str) -> list[dict]:
    """Rows of medians; the ratio is the median of those of the single turns."""
    rows = []
    for name, clocks in seconds.items():
        ratios = np.divide(clocks["wall"], seconds[ours]["wall"])
        of_cpu = np.divide(clocks["cpu"], seconds[ours]["cpu"])
        wall = statistics.median(clocks["wall"])
        rows.append(
            {
                "what": name,
                "steps_per_second": round(1 / wall, 3),
                "seconds_per_step": round(wall, 3),
                "best_seconds_per_step": round(min(clocks["wall"]), 3),
                "processor_seconds_per_step": round(
                    statistics.median(clocks["cpu"]), 3
                ),
                "times_ours": round(float(np.median(ratios)), 2),
                "times_ours_by_processor": round(float(np.median(of_cpu)), 2),
            }
        )
    return rows


def floor(ours: Ours, seconds: float) -> dict:
    """What the step would take if all of it ran like a large product."""
    operations, rate = work(ours), product_rate()
    total = sum(operations.values())
    return {
        "what": "floor",
        "billion_operations": {k: round(v, 2) for k, v in operations.items()},
        "billion_operations_per_second": round(rate, 1),
        "seconds_per_step": round(total / rate, 3),
        "share_reached": round(total / rate / seconds, 3),
    }


@click.command()
@click.option("--vgg-weights", required=True, help="File of VGG19's first layers.")
@click.option("--torch-python", required=True, help="Interpreter that has PyTorch.")
@click.option("--turns", type=int, default=9)
@click.option("--steps", type=int, default=2, help="Steps of one turn.")
@click.option("--name", default="drawing_speed", help="Name of the result file.")
def cli(vgg_weights: str, torch_python: str, turns: int, steps: int, name: str):
    """Measures whole steps in turn with the peer, then the parts of ours alone."""
    ours, peer = Ours(vgg_weights), Peer(torch_python, "torch_peer.py")
    try:
        build_peers(peer, ours)
        step = ours.train_function()
        runners = {"ours": lambda count: timed(lambda: _ready(step()), count)}
        for title, layout in _PEERS.items():
            runners[title] = functools.partial(_run_peer, peer, layout)
        rows = in_short(take_turns(runners, turns, steps), "ours")
    finally:
        peer.close()
    rows.append(floor(ours, rows[0]["seconds_per_step"]))
    parts = {
        f"part: {title}": functools.partial(timed, lambda part=part: _ready(part()))
        for title, part in ours.parts().items()
    }
    for part, clocks in take_turns(parts, turns, steps).items():
        median = statistics.median(clocks["wall"])
        rows.append({"what": part, "seconds_per_step": round(median, 3)})
    for row in rows:
        click.echo(json.dumps(row))
    command = (
        "python benchmarks/drawing_speed.py --vgg-weights FILE --torch-python PYTHON"
    )
    save(name, command, rows)


def _values(layer: keras.layers.Layer) -> list[np.ndarray]:
    """Kernel, bias, and what the spectral norm keeps, in this order."""
    if isinstance(layer, UpsampleConv2D):
        return [np.swapaxes(layer.kernel, 2, 3)]
    inner = getattr(layer, "layer", layer)
    kept = [layer.vector_u.numpy()] if inner is not layer else []
    return inner.get_weights() + kept


def _run_peer(peer: Peer, layout: str, count: int) -> dict[str, float]:
    return peer.order("run", layout=layout, count=count)


def _ready(result) -> None:
    """Waits until all of it is there."""
    tf.nest.map_structure(lambda tensor: tensor.numpy(), result)


def _weights_to_learn(network: keras.Model) -> list[keras.Variable]:
    """All but statistics: what training changes, were the network not frozen."""
    return [
        variable
        for layer in layers_of(network)
        for variable in layer.weights
        if "moving_" not in variable.name and variable.name != "vector_u"
    ]


if __name__ == "__main__":
    cli()
