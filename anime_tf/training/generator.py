"""Trains the generator: wires its data, teachers, networks and callbacks together."""

import csv
import io
import json
import math
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from anime_tf import files, sheets
from anime_tf.callbacks.checkpoint import RunCheckpoint
from anime_tf.callbacks.generator import Examiner, StepBar
from anime_tf.config import DrawConfig
from anime_tf.datasets.cache import PictureCache, open_cache
from anime_tf.datasets.character_batches import character_batches, steps_per_epoch
from anime_tf.datasets.image_folder import list_files, look_into
from anime_tf.datasets.manifest import Item, labels_of
from anime_tf.datasets.pipeline import PictureStore
from anime_tf.errors import UserError
from anime_tf.feature_network import FeatureNetwork
from anime_tf.layers import DifferentiableAugmentation
from anime_tf.metrics.drawing import diversity_ratio, kernel_distance
from anime_tf.models.classifier import load_classifier
from anime_tf.models.features import FINE_LAYERS, build_features
from anime_tf.models.gan import CharacterGAN
from anime_tf.models.networks import (
    IDENTITY,
    build_discriminator,
    build_generator,
    build_projected_discriminator,
)
from anime_tf.models.teachers import ClassificationTeacher, PerceptualTeacher
from anime_tf.progress import Reporter
from anime_tf.run_files import (
    BEST,
    CHECKPOINTS,
    CLASSIFIER,
    CONFIG,
    DISCRIMINATOR,
    HISTORY,
    LOG,
    PREVIEWS,
    SAMPLER,
    remove_run,
)
from anime_tf.sampler import Sampler, load_network, save_network
from anime_tf.subject import ALL, Subject
from anime_tf.training.devices import set_up_devices

# Share of held-out pictures of the character that the classifier must get right, at
# the size of the drawings, to be heard as a teacher.
MIN_ACCURACY = 0.5
# Drawings that an examination judges, and those that a preview shows.
_EXAMINED = 128
_SHOWN = 32
_BATCH = 64
# Most pictures that are kept described, of all characters together: some 0.4 MB each.
_DESCRIBED = 1024
# What the measuring at the end takes, for each character drawn, on two slow cores;
# never more than this share of the time is kept for it.
_CLOSING_SECONDS, _CLOSING_SHARE = 15, 0.1
_MIN_FEATURES = 32  # side of the smallest picture that VGG19 takes


def train_generator(
    config: DrawConfig,
    out: Path | str,
    reporter: Reporter | None = None,
    overwrite: bool = False,
    started: float | None = None,
) -> Sampler:
    """Trains a generator for a character and leaves it in `out`.

    Args:
        config: What to do.
        out: The run's folder.
        reporter: Where to show progress; None says nothing.
        overwrite: Whether a run in `out` is replaced; else it is an error.
        started: `time.monotonic()` value that the time budget counts from; by default
            that of the call.

    Returns:
        The `Sampler` of the best drawings, as saved.

    Raises:
        UserError: If classifier, pictures, weights or the folder cannot be used, or a
            teacher has nothing to teach.
    """
    out, reporter = Path(out), reporter or Reporter()
    if (out / CONFIG).exists() and not overwrite:
        raise UserError(
            f"{out} already holds a run: go on with it by --resume, replace it by "
            "--overwrite, or choose another folder by --out"
        )
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; give another folder for the run by --out")
    started = time.monotonic() if started is None else started
    subject = Subject.find(config)
    if config.pretrain:
        if Path(config.pretrained).resolve() == out.resolve():
            raise UserError(
                f"{out} cannot be the generator of all characters and what is made of "
                "it: name another folder by --out or by --pretrained"
            )
        _pretrain(config, reporter, started)
    with closing(open_cache(config.cache_dir, config.cache_bytes)) as cache:
        run = _Run(config, subject, cache, out, reporter, started)
        # What can fail by a user's mistake comes before the first change on disk.
        gan = run.prepare()
        remove_run(out)
        files.write_text(out / CONFIG, config.to_json())
        return run.train(gan)


def resume_generator(out: Path | str, reporter: Reporter | None = None) -> Sampler:
    """Goes on with an interrupted run, exactly as if it had not been interrupted.

    Raises:
        UserError: If `out` holds no unfinished run or its pictures are gone.
    """
    out, reporter = Path(out), reporter or Reporter()
    started = time.monotonic()
    if not (out / CONFIG).exists():
        raise UserError(f"{out} holds no run to resume; draw without --resume")
    config = DrawConfig.load(out / CONFIG)
    if (out / SAMPLER).is_file() and Sampler.load(out).record["finished"]:
        raise UserError(f"the run in {out} is complete: there is nothing to resume")
    subject = Subject.find(config)
    with closing(open_cache(config.cache_dir, config.cache_bytes)) as cache:
        run = _Run(config, subject, cache, out, reporter, started)
        return run.train(run.prepare())


def _pretrain(config: DrawConfig, reporter: Reporter, started: float) -> None:
    """Makes the generator of all characters, unless it is there already.

    It takes half of what is left of the time budget.
    """
    out = Path(config.pretrained)
    finished = (out / SAMPLER).is_file() and Sampler.load(out).record["finished"]
    if finished:
        reporter.say(f"Starting from the generator of all characters in {out}")
        return
    budget, share = config.time_budget, ""
    if budget is not None:
        budget = max(1.0, (started + budget - time.monotonic()) / 2)
        share = f", for half of the time: {budget / 60:.1f} minutes"
    base = replace(
        config,
        target_class=ALL,
        num_epochs=config.pretrain_epochs,
        pretrain=False,
        time_budget=budget,
    )
    reporter.say(f"First a generator of all characters, kept in {out}{share}")
    if (out / CONFIG).exists():
        found = DrawConfig.load(out / CONFIG)
        if replace(found, time_budget=budget) != base:
            raise UserError(
                f"the unfinished run in {out} was asked for something else; finish it "
                f"by anime-tf draw --resume --out {out}, remove it, or name another "
                "folder by --pretrained"
            )
        resume_generator(out, reporter)
    else:
        train_generator(base, out, reporter)


@dataclass(frozen=True)
class _Run:
    """One run; its methods stand in the order in which they happen."""

    config: DrawConfig
    subject: Subject
    cache: PictureCache
    out: Path
    reporter: Reporter
    started: float

    def prepare(self) -> CharacterGAN:
        """Checks data and teachers and builds the model; writes nothing."""
        return self._naming_pictures(self._prepare)

    def _prepare(self) -> CharacterGAN:
        set_up_devices(self.reporter)
        # Layers are named by counting, and TensorFlow sums in the order of names: to
        # the last bit, a run depends on how many layers were built before it.
        keras.utils.clear_session()
        keras.utils.set_random_seed(self.config.seed)
        self._describe()
        self._check_classifier()
        gan = self._build()
        self._check_gradients(gan)
        return gan

    def train(self, gan: CharacterGAN) -> Sampler:
        return self._naming_pictures(partial(self._train, gan))

    def _naming_pictures(self, do: Callable):
        """Does something; where a picture is at fault, the error says which."""
        try:
            return do()
        except tf.errors.OpError:
            if self._store.failure:
                raise self._store.failure from None
            raise

    def _describe(self) -> None:
        config, count = self.config, len(self._labels)
        who = ", ".join(self.subject.drawn)
        steps = self._steps_per_epoch
        self.reporter.say(
            f"Drawing {who} at {config.image_size} px from {count} pictures; "
            f"{len(self.subject.held_out)} are kept out"
        )
        self.reporter.say(
            f"An epoch is one pass over the pictures: {steps} steps of "
            f"{config.batch_size}; {config.num_epochs} epochs are "
            f"{steps * config.num_epochs:,} steps"
        )
        self.reporter.say(
            f"Weights: adversarial {config.adversarial_weight:g}, classification "
            f"{config.classification_weight:g}, perceptual "
            f"{config.perceptual_weight:g} ({config.perceptual})"
        )
        if config.vgg_weights == "none" and config.perceptual_weight:
            self.reporter.say(
                "WARNING: VGG19 with random weights (--vgg-weights none) knows little "
                "of texture and lines: expect worse drawings"
            )

    def _check_classifier(self) -> None:
        """Refuses a classifier that does not know the character at this size."""
        if not self.config.classification_weight:
            return
        items = self.subject.held_out
        if not items:
            raise UserError(
                "the classifier held no picture of the character out, so that there is "
                "nothing to check it on; add pictures and train it again, or go on "
                "without it by --classification-weight 0"
            )
        logits = np.concatenate(
            [self._classifier.logits(batch) for batch in self._pixels(items)]
        )
        accuracy = float(np.mean(logits.argmax(1) == labels_of(items)))
        self.reporter.say(
            f"The classifier knows {accuracy:.0%} of {len(items)} pictures kept out, "
            f"at {self.config.image_size} px"
        )
        if accuracy < MIN_ACCURACY:
            raise UserError(
                f"the classifier in {self.config.classifier} knows only {accuracy:.0%} "
                f"of the pictures kept out, at {self.config.image_size} px; "
                f"{MIN_ACCURACY:.0%} are the least that a teacher must know: train it "
                "better, draw larger, or go on without it by --classification-weight 0"
            )

    def _build(self) -> CharacterGAN:
        config = self.config
        generator = build_generator(
            config.image_size, self._num_labels, config.channels, config.upsampling
        )
        discriminator, project = self._build_discriminator()
        if config.pretrain:
            self._warm_start(generator, discriminator)
        gan = CharacterGAN(
            generator,
            discriminator,
            DifferentiableAugmentation(seed=config.seed),
            project,
            seed=config.seed,
        )
        rate = config.learning_rate
        gan.compile(
            keras.optimizers.Adam(rate, beta_1=0.5, beta_2=0.99),
            keras.optimizers.Adam(rate, beta_1=0.5, beta_2=0.99),
            self._classifier,
            self._perceptual,
            config.adversarial_weight,
            config.classification_weight,
            config.perceptual_weight,
        )
        return gan

    def _build_discriminator(self) -> tuple:
        config = self.config
        if config.discriminator == "pixel":
            network = build_discriminator(config.image_size, self._num_labels)
            return network, lambda images: [images]
        first = next(iter(_parts(len(self._labels))))
        maps = self._perceptual.maps(self._store.batch(first))
        scales = [float(np.sqrt(np.mean(np.square(m)))) for m in maps]
        shapes = [tuple(m.shape[1:]) for m in maps]
        network = build_projected_discriminator(shapes, scales, self._num_labels)
        return network, self._perceptual.maps

    def _warm_start(self, generator: keras.Model, discriminator: keras.Model) -> None:
        """Takes the weights of the generator of all characters, rows by name."""
        folder = Path(self.config.pretrained)
        base = Sampler.load(folder)
        rows = [
            base.class_names.index(name) if name in base.class_names else None
            for name in self._label_names
        ]
        copy_weights(base.generator, generator, rows, folder)
        copy_weights(load_network(folder / DISCRIMINATOR), discriminator, rows, folder)

    def _check_gradients(self, gan: CharacterGAN) -> None:
        """Refuses to start when a teacher teaches nothing, or nonsense."""
        # From pictures of nobody in particular the classifier teaches nothing.
        batches = self._batches(0, 1)
        batch = next(batch for batch in batches if batch[1][0] != self._nobody)
        state = [variable.numpy() for variable in gan.variables]
        norms = {name: float(norm) for name, norm in gan.gradient_norms(batch).items()}
        for variable, value in zip(gan.variables, state, strict=True):
            variable.assign(value)
        for name, norm in norms.items():
            if not (math.isfinite(norm) and norm > 0):
                raise UserError(
                    f"the {name.removesuffix('_loss')} teacher sends the generator a "
                    f"gradient of length {norm}: it cannot teach; check its weights, "
                    "or set its weight to 0"
                )

    def _train(self, gan: CharacterGAN) -> Sampler:
        deadline = None
        if self.config.time_budget is not None:
            budget = self.config.time_budget
            closing = _CLOSING_SECONDS * len(self.subject.drawn)
            deadline = self.started + budget - min(closing, _CLOSING_SHARE * budget)
        sampler = self._sampler(gan)
        examiner = Examiner(
            self._checkpoint(gan, CHECKPOINTS),
            self._checkpoint(gan, f"{CHECKPOINTS}/{BEST}"),
            every=max(1, round(self.config.preview_steps / self._steps_per_epoch)),
            examine=lambda step: self._examine(sampler, step),
            save_best=lambda: self._save(gan, sampler, examiner.state),
            log=self._log,
            say=self.reporter.say,
            deadline=deadline,
        )
        if examiner.restore():
            done = examiner.state["epochs_done"]
            self.reporter.say(f"Resuming after {done} epochs")
        self._fit(gan, examiner)
        if examiner.state["stopped"]:
            self.reporter.say(f"Stopped: {examiner.state['stopped']}")
        return self._finish(examiner)

    def _fit(self, gan: CharacterGAN, examiner: Examiner) -> None:
        done, epochs = examiner.state["epochs_done"], self.config.num_epochs
        if done >= epochs or examiner.state["stopped"]:
            return
        steps = self._steps_per_epoch
        with self.reporter.bar("Drawing", steps * (epochs - done)) as bar:
            gan.fit(
                self._batches(done, epochs),
                steps_per_epoch=steps,
                shuffle=False,
                initial_epoch=done,
                epochs=epochs,
                callbacks=[StepBar(bar), examiner],
                verbose=0,
            )

    def _examine(self, sampler: Sampler, step: int) -> dict:
        """Draws with the average; returns KID and diversity, leaves a preview."""
        drawings = sampler.generate(_EXAMINED, self.config.seed)
        grid = sheets.grid(drawings[:_SHOWN], columns=8)
        sheets.save_png(grid, self.out / PREVIEWS / f"{step:07}.png")
        features = self._feature_network(drawings)
        figures = kernel_distance(self._real_features, features)
        figures["diversity_ratio"] = diversity_ratio(self._real_features, features)
        return figures

    def _save(self, gan: CharacterGAN, sampler: Sampler, state: dict) -> None:
        """Keeps the drawings that are the best so far."""
        save_network(gan.discriminator, self.out / DISCRIMINATOR)
        best = ("best_epoch", "best_step", "best_kid", "best_diversity")
        sampler.record |= {name: state[name] for name in best}
        sampler.save(self.out)

    def _log(self, rows: list[dict]) -> None:
        """Writes every term of every epoch, for people and for the report."""
        files.write_text(self.out / LOG, _as_csv(rows))
        files.write_text(self.out / HISTORY, json.dumps(rows, indent=1))

    def _finish(self, examiner: Examiner) -> Sampler:
        if not (self.out / SAMPLER).is_file():
            raise UserError(
                "training left no drawing worth keeping "
                f"({examiner.state['stopped']}); try a lower --learning-rate"
            )
        sampler = Sampler.load(self.out)
        sampler.record["finished"] = True
        sampler.save(self.out)
        self.reporter.say(
            f"Best drawings: of epoch {examiner.state['best_epoch']}, KID "
            f"{examiner.state['best_kid']:.3f}"
        )
        return sampler

    def _sampler(self, gan: CharacterGAN) -> Sampler:
        """Draws with the weights' average, as it is at the time."""
        record = {"classifier": self.config.classifier, "finished": False}
        return Sampler(gan.averaged, self._label_names, self.subject.drawn, record)

    def _checkpoint(self, gan: CharacterGAN, name: str) -> RunCheckpoint:
        variables = {
            "model": gan.variables,
            "generator_optimizer": gan.optimizer.variables,
            "discriminator_optimizer": gan.discriminator_optimizer.variables,
        }
        return RunCheckpoint(self.out / name, variables)

    def _batches(self, first_epoch: int, last_epoch: int) -> tf.data.Dataset:
        paired = self.config.perceptual == "paired"
        return character_batches(
            self._store,
            self._labels,
            self._references,
            self.config.batch_size,
            self.config.batch_size if paired else self.config.references,
            self.config.seed,
            first_epoch,
            last_epoch,
            nobody=self._nobody,
        )

    def _pixels(self, items: list[Item]) -> list[np.ndarray]:
        """Returns the pictures of some items in batches, uint8 `[n, s, s, 3]`."""
        config = self.config
        store = self.subject.store(
            items, config.image_size, self.cache, config.memory_bytes
        )
        return [store.batch(part) for part in _parts(len(items))]

    @cached_property
    def _label_names(self) -> tuple[str, ...]:
        """A name for every label; the last is that of nobody in particular."""
        return (*self.subject.class_names, "")

    @property
    def _num_labels(self) -> int:
        return len(self._label_names)

    @property
    def _nobody(self) -> int:
        return len(self.subject.class_names)

    @cached_property
    def _extra(self) -> list[tuple[Path, str]]:
        """Path and hash of each readable picture of anybody."""
        if self.config.extra_images is None:
            return []
        paths = list_files(self.config.extra_images)
        title = f"Reading {self.config.extra_images}"
        with self.reporter.bar(title, len(paths)) as bar:
            looked = look_into(paths, self.cache, self.config.image_size, bar.advance)
        found = [
            (path, sha256)
            for path, (sha256, fingerprint) in zip(paths, looked, strict=True)
            if not fingerprint.problem
        ]
        if not found:
            raise UserError(
                f"no readable picture in the folder {self.config.extra_images} "
                "(--extra-images)"
            )
        self.reporter.say(
            f"{len(found)} pictures of anybody, {len(paths) - len(found)} skipped"
        )
        return found

    @cached_property
    def _store(self) -> PictureStore:
        """The pictures to learn from, then those of anybody."""
        config, items = self.config, self.subject.learnt
        manifest = self.subject.manifest
        known = [(manifest.path_of(item), item.sha256) for item in items]
        paths, digests = zip(*known, *self._extra, strict=True)
        return PictureStore(
            paths, digests, config.image_size, self.cache, config.memory_bytes
        )

    @cached_property
    def _labels(self) -> np.ndarray:
        own = labels_of(self.subject.learnt)
        return np.concatenate([own, np.full(len(self._extra), self._nobody, np.int64)])

    @cached_property
    def _steps_per_epoch(self) -> int:
        return steps_per_epoch(self._labels, self.config.batch_size, self._nobody)

    @cached_property
    def _classifier(self) -> ClassificationTeacher:
        folder = Path(self.config.classifier)
        classifier = load_classifier(folder / CLASSIFIER)
        classifier.trainable = False
        return ClassificationTeacher(classifier)

    @cached_property
    def _perceptual(self) -> PerceptualTeacher:
        config = self.config
        # VGG19 is most of the work, and at half the size it is a quarter of it. But at
        # half the size it is blind to stripes of every other pixel: its first layer,
        # which costs next to nothing, sees the whole.
        half = max(_MIN_FEATURES, config.image_size // 2)
        networks = [
            build_features(config.image_size, FINE_LAYERS, config.vgg_weights),
            build_features(half, weights=config.vgg_weights),
        ]
        return PerceptualTeacher(networks, config.perceptual)

    @cached_property
    def _references(self) -> dict[int, np.ndarray]:
        """Descriptors of every label's pictures, and of their mirror images."""
        if not self.config.perceptual_weight:
            return {}
        chosen = _even_choice(self._labels, _DESCRIBED, self.config.seed)
        parts = [chosen[part] for part in _parts(len(chosen))]
        with self.reporter.bar("Describing the pictures", 2 * len(parts)) as bar:

            def batches():
                for direction in (1, -1):
                    for part in parts:
                        yield self._store.batch(part)[:, :, ::direction]
                        bar.advance()

            descriptors = self._perceptual.measure(batches())
        owners = np.tile(self._labels[chosen], 2)
        return {int(label): descriptors[owners == label] for label in np.unique(owners)}

    @cached_property
    def _feature_network(self) -> FeatureNetwork:
        return FeatureNetwork.of_run(self.config)

    @cached_property
    def _real_features(self) -> np.ndarray:
        items = self.subject.learnt
        parts = [self._feature_network(pixels) for pixels in self._pixels(items)]
        return np.concatenate(parts)


def copy_weights(
    source: keras.Model, target: keras.Model, rows: list[int | None], folder: Path
) -> None:
    """Copies all weights; of what belongs to the characters, row by row.

    Args:
        source, target: Networks of one shape but for the number of characters.
        rows: For each of the target's characters its row in the source, or None: it
            then starts as the mean of all.
        folder: Where the source comes from, for the error.

    Raises:
        UserError: If the networks do not fit.
    """
    for old, new in zip(source.variables, target.variables, strict=True):
        value = old.numpy()
        if IDENTITY in new.path:
            mean = value.mean(axis=0)
            value = np.stack([mean if row is None else value[row] for row in rows])
        if value.shape != tuple(new.shape):
            raise UserError(
                f"the generator in {folder} does not fit: {new.path} has the shape "
                f"{value.shape} there, {tuple(new.shape)} here; ask for the same image "
                "size, channels and discriminator, or name another by --pretrained"
            )
        new.assign(value)


def _even_choice(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Returns the indices of about `count` pictures, as many of each label."""
    rng = np.random.default_rng(seed)
    members = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    share = -(-count // len(members))
    return np.concatenate([rng.permutation(own)[:share] for own in members])


def _parts(count: int) -> list[np.ndarray]:
    return np.split(np.arange(count), range(_BATCH, count, _BATCH))


def _as_csv(rows: list[dict]) -> str:
    names = dict.fromkeys(name for row in rows for name in row)
    text = io.StringIO()
    writer = csv.DictWriter(text, names)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
