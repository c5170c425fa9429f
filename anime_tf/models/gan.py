"""The GAN: a generator, its discriminator, and the step that trains both."""

from collections.abc import Callable

import keras
import tensorflow as tf
from keras import ops

from anime_tf.layers import DifferentiableAugmentation
from anime_tf.losses import hinge_discriminator_loss, hinge_generator_loss
from anime_tf.models.networks import LATENT_DIM

_TINY = 1e-12


class CharacterGAN(keras.Model):
    """Trains a generator under three teachers.

    The discriminator says whether a picture could be a real one, the frozen classifier
    whether it shows the character, and the perceptual loss, on features of a frozen
    network, whether lines and texture are right. The frozen teachers come as functions
    through `compile`, so they are no part of this model and of its checkpoints.

    Args:
        generator: Noise `[n, LATENT_DIM]` and labels int `[n]` to images in [0, 255].
        discriminator: What `project` makes of images, and labels, to logits.
        augmentation: What the judges see pictures through.
        project: Images to the list of tensors that the discriminator looks at; by
            default the images themselves.
        seed: Seed of the noise.

    Attributes:
        averaged: A copy of the generator that holds the moving average of its weights,
            which draws better than the last ones do.
    """

    def __init__(
        self,
        generator: keras.Model,
        discriminator: keras.Model,
        augmentation: DifferentiableAugmentation,
        project: Callable = lambda images: [images],
        seed: int | None = None,
    ):
        super().__init__()
        self.generator = generator
        self.discriminator = discriminator
        self.averaged = keras.models.clone_model(generator)
        self.averaged.set_weights(generator.get_weights())
        self.averaged.trainable = False
        self.augmentation = augmentation
        self.random = keras.random.SeedGenerator(seed)
        self._project = project
        names = (
            "discriminator_loss",
            "adversarial_loss",
            "classification_loss",
            "perceptual_loss",
        )
        self._trackers = {name: keras.metrics.Mean(name) for name in names}
        self.built = True

    def compile(
        self,
        generator_optimizer: keras.optimizers.Optimizer,
        discriminator_optimizer: keras.optimizers.Optimizer,
        classification_loss: Callable,
        perceptual_loss: Callable,
        adversarial_weight: float = 0.1,
        classification_weight: float = 0.2,
        perceptual_weight: float = 10.0,
        average_decay: float = 0.995,
        run_eagerly: bool = False,
    ):
        """Says how to train.

        Args:
            generator_optimizer, discriminator_optimizer: One for each network.
            classification_loss: Augmented fakes and labels to a scalar.
            perceptual_loss: Fakes and descriptors of reals to a scalar.
            adversarial_weight, classification_weight, perceptual_weight: Of the three
                terms of the generator's loss; a term of weight 0 is not computed.
            average_decay: Share of the moving average that a step leaves unchanged;
                the first steps leave less.
            run_eagerly: Whether to step without a graph, to look into it.
        """
        super().compile(
            optimizer=generator_optimizer, jit_compile=False, run_eagerly=run_eagerly
        )
        self.discriminator_optimizer = discriminator_optimizer
        self.loss_weights = {
            "adversarial_loss": adversarial_weight,
            "classification_loss": classification_weight,
            "perceptual_loss": perceptual_weight,
        }
        self._classification_loss = classification_loss
        self._perceptual_loss = perceptual_loss
        self._average_decay = average_decay
        generator_optimizer.build(self.generator.trainable_variables)
        discriminator_optimizer.build(self.discriminator.trainable_variables)

    @property
    def metrics(self):
        return list(self._trackers.values())

    def train_step(self, data):
        images, labels, references = data
        images = ops.cast(images, "float32")
        with tf.GradientTape(persistent=True) as tape:
            fakes = self.generator([self._noise(labels), labels], training=True)
            views = self.augmentation(fakes)
            fake_logits = self._judge(views, labels, training=True)
            real_logits = self._judge(self.augmentation(images), labels, training=True)
            terms = self._terms(fakes, views, fake_logits, labels, references)
            discriminator_loss = hinge_discriminator_loss(real_logits, fake_logits)
        lesson = self._lesson(tape, terms, fakes)
        self._descend(tape, self.optimizer, self.generator, fakes, lesson)
        self._descend(
            tape, self.discriminator_optimizer, self.discriminator, discriminator_loss
        )
        self._average()
        return self._track({"discriminator_loss": discriminator_loss, **terms})

    def test_step(self, data):
        images, labels, references = data
        images = ops.cast(images, "float32")
        fakes = self.generate(self._noise(labels), labels)
        fake_logits = self._judge(fakes, labels, training=False)
        real_logits = self._judge(images, labels, training=False)
        terms = self._terms(fakes, fakes, fake_logits, labels, references)
        loss = hinge_discriminator_loss(real_logits, fake_logits)
        return self._track({"discriminator_loss": loss, **terms})

    def generate(self, noise, labels):
        """Draws pictures with the averaged weights.

        Args:
            noise: float `[n, LATENT_DIM]`.
            labels: int `[n]`.

        Returns:
            float `[n, h, w, 3]` in [0, 255].
        """
        return self.averaged([noise, labels], training=False)

    def gradient_norms(self, data) -> dict[str, tf.Tensor]:
        """Returns the length of the gradient that each term sends to the generator.

        Args:
            data: A batch as `train_step` takes it. Nothing is trained.
        """
        _, labels, references = data
        with tf.GradientTape(persistent=True) as tape:
            fakes = self.generator([self._noise(labels), labels], training=False)
            views = self.augmentation(fakes)
            fake_logits = self._judge(views, labels, training=False)
            terms = self._terms(fakes, views, fake_logits, labels, references)
        variables = [v.value for v in self.generator.trainable_variables]
        return {
            name: tf.linalg.global_norm(tape.gradient(term, variables))
            for name, term in terms.items()
        }

    def _noise(self, labels):
        return keras.random.normal((ops.shape(labels)[0], LATENT_DIM), seed=self.random)

    def _judge(self, images, labels, training: bool):
        return self.discriminator([*self._project(images), labels], training=training)

    def _terms(self, fakes, views, fake_logits, labels, references) -> dict:
        """The terms of the generator's loss, those whose weight is not 0."""
        terms = {
            "adversarial_loss": lambda: hinge_generator_loss(fake_logits),
            "classification_loss": lambda: self._classification_loss(views, labels),
            "perceptual_loss": lambda: self._perceptual_loss(fakes, references),
        }
        return {name: term() for name, term in terms.items() if self.loss_weights[name]}

    def _lesson(self, tape, terms: dict, fakes):
        """The gradient of the weighted terms with respect to the fakes.

        A classifier that has seen few pictures can be steep enough to drown all others:
        it never speaks louder than they do together.
        """
        gradients = {
            name: self.loss_weights[name] * tape.gradient(term, fakes)
            for name, term in terms.items()
        }
        classification = gradients.pop("classification_loss", None)
        if not gradients:
            return classification
        lesson = tf.add_n(list(gradients.values()))
        if classification is None:
            return lesson
        loudness = tf.norm(classification) / (tf.norm(lesson) + _TINY)
        return lesson + classification / tf.maximum(loudness, 1.0)

    def _descend(self, tape, optimizer, network, target, lesson=None) -> None:
        variables = network.trainable_variables
        sources = [variable.value for variable in variables]
        optimizer.apply(tape.gradient(target, sources, lesson), variables)

    def _average(self) -> None:
        step = ops.cast(self.optimizer.iterations, "float32")
        decay = ops.minimum(self._average_decay, step / (step + 9.0))
        pairs = zip(self.averaged.variables, self.generator.variables, strict=True)
        for average, variable in pairs:
            average.assign(variable + decay * (average - variable))

    def _track(self, values: dict) -> dict:
        for name, value in values.items():
            self._trackers[name].update_state(value)
        return {name: self._trackers[name].result() for name in values}
