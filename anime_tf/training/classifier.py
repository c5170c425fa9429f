"""Trains the classifier: wires its data, model, loss and callbacks together.

A run has two stages. The head is trained first, on backbone features that are computed
once; then all of the network is fine-tuned on augmented pictures.
"""

import json
import math
import shutil
import time
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from anime_tf import files
from anime_tf.callbacks.classifier import (
    BarSteps,
    EpochBars,
    History,
    LearningRate,
    RunKeeper,
    StepTimes,
)
from anime_tf.config import TrainConfig
from anime_tf.datasets import pipeline, tfds_source
from anime_tf.datasets.cache import PictureCache, open_cache
from anime_tf.datasets.image_folder import FolderScan, scan_folder
from anime_tf.datasets.manifest import (
    Item,
    Manifest,
    build_manifest,
    labels_of,
    num_shared_drawings,
    some_of_each,
)
from anime_tf.errors import UserError
from anime_tf.inference import Recognizer
from anime_tf.metrics.recognition import fit_temperature
from anime_tf.models.augmented import AugmentedClassifier, build_augmentation
from anime_tf.models.classifier import (
    build_classifier,
    feature_extractor,
    head_of,
    load_classifier,
    save_classifier,
    unfreeze,
)
from anime_tf.novelty import NoveltyDetector
from anime_tf.progress import Reporter
from anime_tf.recipe import class_weights, compile_arguments, cosine_annealing
from anime_tf.run_files import (
    CHECKPOINTS,
    CLASSIFIER,
    CONFIG,
    HISTORY,
    LAST,
    MANIFEST,
    remove_run,
)
from anime_tf.training.devices import set_up_devices

# Pictures per character that the feature statistics are taken from.
_STATISTICS_PICTURES = 200
_BATCH = 32
_HEAD_BATCH = 64
_REHEARSAL_STEPS = 4
# Forward passes run this much faster than training steps, about.
_FORWARD_SPEEDUP = 3.5
# Loading the best weights, tracing, writing the report.
_CLOSING_SECONDS = 25


def train_classifier(
    config: TrainConfig,
    out: Path | str,
    reporter: Reporter | None = None,
    overwrite: bool = False,
    started: float | None = None,
) -> Recognizer:
    """Trains a classifier on folders of pictures, or a dataset, and leaves it in `out`.

    Args:
        config: What to do.
        out: The run's folder.
        reporter: Where to show progress; None says nothing.
        overwrite: Whether a run in `out` is replaced; else it is an error.
        started: `time.monotonic()` value that the time budget counts from; by default
            that of the call.

    Returns:
        The trained `Recognizer`, as saved.

    Raises:
        UserError: If the data, the weights or the folder cannot be used.
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
    with closing(open_cache(config.cache_dir, config.cache_bytes)) as cache:
        manifest = _scan_and_split(config, cache, reporter)
        run = _Run(config, manifest, cache, out, reporter, started)
        # What can fail by a user's mistake comes before the first change on disk.
        model = run.prepare()
        remove_run(out)
        # The config is written last: a folder with a config always has its manifest.
        files.write_text(out / MANIFEST, manifest.to_json())
        files.write_text(out / CONFIG, config.to_json())
        return run.train(model)


def resume_classifier(out: Path | str, reporter: Reporter | None = None) -> Recognizer:
    """Goes on with an interrupted run, exactly as if it had not been interrupted.

    Raises:
        UserError: If `out` holds no unfinished run or its pictures are gone.
    """
    out, reporter = Path(out), reporter or Reporter()
    started = time.monotonic()
    if not (out / CONFIG).exists():
        raise UserError(f"{out} holds no run to resume; train without --resume")
    if Recognizer.exists(out):
        raise UserError(f"the run in {out} is complete: there is nothing to resume")
    config = TrainConfig.load(out / CONFIG)
    manifest = Manifest.load(out / MANIFEST)
    gone = [p for p in map(manifest.path_of, manifest.items) if not p.is_file()]
    if gone:
        raise UserError(
            f"{len(gone)} pictures of this run are gone (the first: {gone[0]}); put "
            "them back, or start anew with another --out"
        )
    with closing(open_cache(config.cache_dir, config.cache_bytes)) as cache:
        run = _Run(config, manifest, cache, out, reporter, started)
        return run.train(run.prepare())


def has_test_pictures(out: Path | str) -> bool:
    """Whether a run held pictures out to test on."""
    return bool(Manifest.load(Path(out) / MANIFEST).split("test"))


def _scan_and_split(
    config: TrainConfig, cache: PictureCache, reporter: Reporter
) -> Manifest:
    def scan(folder: str) -> FolderScan:
        with reporter.bar(f"Reading {folder}") as bar:
            return scan_folder(
                folder, cache, config.image_size, bar.set_total, bar.advance
            )

    if config.tfds:
        collection = _scan_tfds(config, cache, reporter)
    else:
        collection = scan(config.data_dir)
    tests = scan(config.test_dir) if config.test_dir else None
    manifest = build_manifest(collection, config.fractions, config.seed, tests)
    for path, reason in manifest.skipped:
        reporter.say(f"  skipped {path}: {reason}")
    shared = num_shared_drawings(manifest)
    if shared:
        reporter.say(
            f"WARNING: {shared} pictures to train on show a drawing that the dataset "
            "also holds out: expect figures that flatter the model"
        )
    return manifest


def _scan_tfds(
    config: TrainConfig, cache: PictureCache, reporter: Reporter
) -> FolderScan:
    dataset = tfds_source.find_dataset(config.tfds)
    folder = cache.filepath.parent / "tfds"
    with reporter.bar(f"Unpacking {config.tfds}") as bar:
        root = tfds_source.unpack(dataset, folder, bar.set_total, bar.advance)
    with reporter.bar(f"Reading {config.tfds}") as bar:
        scan = tfds_source.scan_unpacked(
            dataset, root, cache, config.image_size, bar.set_total, bar.advance
        )
    for note in tfds_source.left_unused(dataset, scan):
        reporter.say(f"  {note}")
    return scan


@dataclass(frozen=True)
class _Run:
    """One run of two stages; its methods stand in the order in which they happen."""

    config: TrainConfig
    manifest: Manifest
    cache: PictureCache
    out: Path
    reporter: Reporter
    started: float

    def prepare(self) -> AugmentedClassifier:
        """Checks the data and builds the model; writes nothing."""
        set_up_devices(self.reporter)
        keras.utils.set_random_seed(self.config.seed)
        self._describe()
        return self._build()

    def train(self, model: AugmentedClassifier) -> Recognizer:
        try:
            return self._train(model)
        except tf.errors.OpError:
            if self._pictures.failure:
                raise self._pictures.failure from None
            raise

    def _train(self, model: AugmentedClassifier) -> Recognizer:
        rows: list[dict] = []
        keeper = RunKeeper(
            self.out / CHECKPOINTS,
            model,
            save_best=lambda: self._save(model.classifier, CLASSIFIER),
            rows=rows,
            patience=self.config.patience,
        )
        if keeper.restore():
            done = keeper.state["epochs_done"]
            self.reporter.say(f"Resuming after {done} epochs of fine-tuning")
        else:
            keeper.state["best"] = self._train_head(model.classifier, rows)
            self._save(model.classifier, CLASSIFIER)
            keeper.save()
        if "epochs" not in keeper.state:
            keeper.state["epochs"] = self._plan_epochs(model, keeper)
            keeper.save()
        self._fine_tune(model, keeper, rows)
        self._save(model.classifier, LAST)
        files.write_text(self.out / HISTORY, json.dumps(rows, indent=1))
        recognizer = self._calibrate()
        recognizer.save(self.out)
        shutil.rmtree(self.out / CHECKPOINTS)
        return recognizer

    def _describe(self) -> None:
        counts = self.manifest.counts()
        self.reporter.say(
            f"{len(counts)} characters, {len(self._train_items)} pictures to train "
            f"on, {len(self._validation_items)} to validate, "
            f"{len(self.manifest.split('test'))} kept for the test"
        )
        lacking = [name for name, count in counts.items() if not count["train"]]
        if lacking or not self._validation_items:
            raise UserError(
                f"too few pictures in {self.manifest.data_dir} to train and validate "
                f"({', '.join(lacking) or 'none is left to validate on'}); add some: "
                "30 per character are a good start, 10 the least"
            )
        if self._class_weights:
            self.reporter.say("Rare characters weigh more (see --class-weights)")

    def _build(self) -> AugmentedClassifier:
        config = self.config
        from_scratch = config.weights == "none"
        if from_scratch:
            self.reporter.say(
                "WARNING: random weights (--weights none): expect far worse results "
                "than from pretrained ones"
            )
        classifier = build_classifier(
            config.backbone,
            num_classes=len(self.manifest.class_names),
            image_size=config.image_size,
            dropout=config.dropout,
            weights=config.weights,
        )
        # Random weights need BatchNorm statistics of their own; pretrained ones
        # would lose theirs to a few dozen pictures.
        unfreeze(classifier, batch_norm=from_scratch)
        augmentation = build_augmentation(config.mixup, config.cutmix, config.seed)
        model = AugmentedClassifier(classifier, augmentation)
        model.compile(**self._compile_arguments(config.learning_rate))
        build_all_state(model, len(self.manifest.class_names))
        return model

    def _train_head(self, classifier: keras.Model, rows: list[dict]) -> float:
        """Stage 1, on stored features; returns the best validation macro-F1."""
        plain, mirrored, validation = self._features(feature_extractor(classifier))
        labels = self._pictures.one_hot(self._train_items)
        validation_labels = self._pictures.one_hot(self._validation_items)
        head = head_of(classifier)
        head.compile(**self._compile_arguments(self.config.head_learning_rate))
        epochs, steps = self.config.head_epochs, math.ceil(2 * len(plain) / _HEAD_BATCH)
        rate = cosine_annealing(self.config.head_learning_rate, steps, epochs, 2)
        stopper = keras.callbacks.EarlyStopping(
            "val_macro_f1", mode="max", patience=15, restore_best_weights=True
        )
        with self.reporter.bar("Training the head", epochs) as bar:
            head.fit(
                np.concatenate([plain, mirrored]),
                np.concatenate([labels, labels]),
                batch_size=_HEAD_BATCH,
                epochs=epochs,
                validation_data=(validation, validation_labels),
                class_weight=self._class_weights,
                callbacks=[
                    LearningRate(rate),
                    History("head", rows),
                    stopper,
                    BarSteps(bar, every="epoch"),
                ],
                verbose=0,
            )
        seconds = np.median([row["seconds"] for row in rows])
        self.reporter.say(
            f"  validation macro-F1 {stopper.best:.3f} after {len(rows)} epochs of "
            f"{seconds:.2f} s on stored features"
        )
        return float(stopper.best)

    def _features(self, extractor: keras.Model) -> list[np.ndarray]:
        """Pooled features, float32 `[n, d]`, of the training pictures, of their
        mirror images, and of the validation pictures."""
        forward = tf.function(lambda images: extractor(images, training=False))
        passes = [(self._train_items, 1), (self._train_items, -1)]
        passes.append((self._validation_items, 1))
        total = sum(math.ceil(len(items) / _BATCH) for items, _ in passes)
        features = []
        with self.reporter.bar("Computing features", total) as bar:
            for items, direction in passes:
                found = []
                for images, _ in self._pictures.evaluation(items, _BATCH):
                    found.append(forward(images[:, :, ::direction]).numpy())
                    bar.advance()
                features.append(np.concatenate(found).astype(np.float32))
        return features

    def _plan_epochs(self, model: AugmentedClassifier, keeper: RunKeeper) -> int:
        """Times a few steps, undoes them, and says how long it will take."""
        stopwatch = StepTimes()
        with self.reporter.bar("Preparing fine-tuning", _REHEARSAL_STEPS) as bar:
            model.fit(
                self._training_batches(0, 1).repeat(),
                steps_per_epoch=_REHEARSAL_STEPS,
                shuffle=False,
                class_weight=self._class_weights,
                callbacks=[stopwatch, BarSteps(bar, every="batch")],
                verbose=0,
            )
        keeper.restore()
        pictures = (
            len(self._train_items) + len(self._validation_items) / _FORWARD_SPEEDUP
        )
        batch_size = min(self.config.batch_size, len(self._train_items))
        picture_seconds = stopwatch.seconds_per_step / batch_size
        epoch_seconds = picture_seconds * pictures
        epochs, note = self.config.epochs, ""
        if self.config.time_budget is not None:
            # Calibration and the test load the best weights and run forward over all
            # pictures once more.
            rest = picture_seconds * len(self.manifest.items) / _FORWARD_SPEEDUP
            rest += _CLOSING_SECONDS
            keeper.deadline = self.started + self.config.time_budget - rest
            fitting = int((keeper.deadline - time.monotonic()) / epoch_seconds)
            epochs = max(0, min(epochs, fitting))
            note = f" (the time budget has room for {max(0, fitting)})"
        self.reporter.say(
            f"Fine-tuning: {epochs} epochs of about {epoch_seconds:.0f} s, "
            f"{epochs * epoch_seconds / 60:.1f} min in all{note}"
        )
        return epochs

    def _fine_tune(
        self, model: AugmentedClassifier, keeper: RunKeeper, rows: list[dict]
    ) -> None:
        """Stage 2: all weights, on augmented pictures."""
        done, epochs = keeper.state["epochs_done"], keeper.state["epochs"]
        if done >= epochs or keeper.state["stopped"]:
            return
        steps = math.ceil(len(self._train_items) / self.config.batch_size)
        rate = cosine_annealing(self.config.learning_rate, steps, epochs, 1)
        model.fit(
            self._training_batches(done, epochs),
            steps_per_epoch=steps,
            shuffle=False,
            initial_epoch=done,
            epochs=epochs,
            validation_data=self._pictures.evaluation(self._validation_items, _BATCH),
            class_weight=self._class_weights,
            callbacks=[
                LearningRate(rate),
                EpochBars(self.reporter, "Fine-tuning", steps),
                History("fine-tune", rows),
                keeper,
            ],
            verbose=0,
        )
        if keeper.state["stopped"]:
            self.reporter.say(f"Stopped: {keeper.state['stopped']}")

    def _calibrate(self) -> Recognizer:
        """Fits temperature and novelty detection to the best weights."""
        recognizer = Recognizer(
            load_classifier(self.out / CLASSIFIER),
            class_names=self.manifest.class_names,
            backbone=self.config.backbone,
        )
        sample = some_of_each(self._train_items, _STATISTICS_PICTURES)
        items = sample + self._validation_items
        results = []
        with self.reporter.bar("Calibrating", math.ceil(len(items) / _BATCH)) as bar:
            for images, _ in self._pictures.evaluation(items, _BATCH):
                results.append(recognizer.forward(images))
                bar.advance()
        logits, features = map(np.concatenate, zip(*results, strict=True))
        held_out = slice(len(sample), None)
        recognizer.temperature = fit_temperature(
            labels_of(self._validation_items), logits[held_out]
        )
        recognizer.novelty = NoveltyDetector.fit(
            train_features=features[: len(sample)],
            train_labels=labels_of(sample),
            validation_features=features[held_out],
            validation_logits=logits[held_out] / recognizer.temperature,
        )
        return recognizer

    def _save(self, classifier: keras.Model, name: str) -> None:
        save_classifier(classifier, self.out / name)

    def _training_batches(self, first_epoch: int, last_epoch: int) -> tf.data.Dataset:
        return self._pictures.training(
            self._train_items,
            self.config.batch_size,
            self.config.seed,
            first_epoch,
            last_epoch,
        )

    def _compile_arguments(self, learning_rate: float) -> dict:
        return compile_arguments(
            learning_rate, self.config.weight_decay, self.config.label_smoothing
        )

    @cached_property
    def _train_items(self) -> list[Item]:
        return self.manifest.split("train")

    @cached_property
    def _validation_items(self) -> list[Item]:
        return self.manifest.split("validation")

    @cached_property
    def _pictures(self) -> pipeline.RunPictures:
        return pipeline.RunPictures(
            self.manifest, self.cache, self.config.image_size, self.config.memory_bytes
        )

    @cached_property
    def _class_weights(self) -> dict[int, float] | None:
        return class_weights(
            labels_of(self._train_items),
            len(self.manifest.class_names),
            self.config.class_weights,
        )


def build_all_state(model: AugmentedClassifier, num_classes: int) -> None:
    """Makes all variables of optimizer, loss and metrics before the first step.

    A step that makes variables is traced twice, which doubles the wait for it.
    """
    model.optimizer.build(model.trainable_variables)
    labels = logits = keras.ops.eye(num_classes)
    model.compute_loss(x=None, y=labels, y_pred=logits)
    model.compute_metrics(None, labels, logits)
    model.reset_metrics()
