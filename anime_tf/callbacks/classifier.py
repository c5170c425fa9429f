"""Keras callbacks of the classifier's training."""

import time
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np

from anime_tf.callbacks.checkpoint import RunCheckpoint
from anime_tf.progress import Bar, Reporter


class EpochBars(keras.callbacks.Callback):
    """One progress bar an epoch, with loss and accuracy, and a line at its end.

    Args:
        reporter: Where to show it.
        title: Name of the stage.
        steps: Batches an epoch.
    """

    def __init__(self, reporter: Reporter, title: str, steps: int):
        super().__init__()
        self._reporter, self._title, self._steps = reporter, title, steps
        self._context = self._bar = None

    def on_epoch_begin(self, epoch, logs=None):
        title = f"{self._title} {epoch + 1}/{self.params['epochs']}"
        self._context = self._reporter.bar(title, self._steps)
        self._bar = self._context.__enter__()

    def on_train_batch_end(self, batch, logs=None):
        self._bar.advance(f"loss {logs['loss']:.3f} accuracy {logs['accuracy']:.3f}")

    def on_epoch_end(self, epoch, logs=None):
        self._context.__exit__(None, None, None)
        self._reporter.say(
            f"  validation loss {logs['val_loss']:.3f} accuracy "
            f"{logs['val_accuracy']:.3f} macro-F1 {logs['val_macro_f1']:.3f}"
        )


class History(keras.callbacks.Callback):
    """Collects one JSON-ready row an epoch, with the seconds it took."""

    def __init__(self, stage: str, rows: list[dict]):
        super().__init__()
        self._stage, self._rows = stage, rows

    def on_epoch_begin(self, epoch, logs=None):
        self._started = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        rate = float(self.model.optimizer.learning_rate)
        self._rows.append(
            {
                "stage": self._stage,
                "epoch": epoch + 1,
                **{name: float(value) for name, value in (logs or {}).items()},
                "learning_rate": rate,
                "seconds": round(time.perf_counter() - self._started, 3),
            }
        )


class RunKeeper(keras.callbacks.Callback):
    """Keeps the last and the best state of a run, and ends it when it is time.

    After each epoch one checkpoint holds everything that the next epoch depends on:
    weights, optimizer, schedule position, random state, and this callback's own
    memory. A run that goes on from it computes what an uninterrupted one would have.

    Args:
        folder: Where the checkpoints lie.
        model: The compiled model under training, its optimizer built.
        save_best: Called with no argument whenever the monitored value is the best.
        rows: History rows, kept in the checkpoint too.
        monitor: Key of the logs to maximise.
        patience: Epochs without a better value before the run ends.

    Attributes:
        state: What is remembered from epoch to epoch; JSON-ready, open to the caller.
            `stopped` is why the run ended early, or empty.
        deadline: `time.monotonic()` value by which the last epoch must end, or None.
    """

    def __init__(
        self,
        folder: Path,
        model: keras.Model,
        save_best: Callable[[], None],
        rows: list[dict],
        monitor: str = "val_macro_f1",
        patience: int = 10,
    ):
        super().__init__()
        self._save_best, self._rows = save_best, rows
        self._monitor, self._patience = monitor, patience
        self.deadline: float | None = None
        self.state = {"epochs_done": 0, "best": -1.0, "best_epoch": -1, "stopped": ""}
        self._checkpoint = RunCheckpoint(
            folder,
            {"model": model.variables, "optimizer": model.optimizer.variables},
        )

    def restore(self) -> bool:
        """Goes back to the last checkpoint, strictly; False if there is none."""
        if not self._checkpoint.restore():
            return False
        self.state = self._checkpoint.memory["state"]
        self._rows[:] = self._checkpoint.memory["rows"]
        return True

    def save(self) -> None:
        self._checkpoint.memory = {"state": self.state, "rows": self._rows}
        self._checkpoint.save()

    def on_epoch_begin(self, epoch, logs=None):
        self._started = time.monotonic()

    def on_epoch_end(self, epoch, logs=None):
        score = float(logs[self._monitor])
        self.state["epochs_done"] = epoch + 1
        if score > self.state["best"]:
            self.state |= {"best": score, "best_epoch": epoch}
            self._save_best()
        self.state["stopped"] = self._reason_to_stop(epoch)
        self.save()
        self.model.stop_training = bool(self.state["stopped"])

    def _reason_to_stop(self, epoch: int) -> str:
        if epoch - self.state["best_epoch"] >= self._patience:
            return f"no better {self._monitor} in {self._patience} epochs"
        now = time.monotonic()
        if self.deadline is not None and 2 * now - self._started > self.deadline:
            return "another epoch would not end within the time budget"
        return ""


class BarSteps(keras.callbacks.Callback):
    """Moves a progress bar on after every `"batch"` or `"epoch"`."""

    def __init__(self, bar: Bar, every: str):
        super().__init__()
        self._bar, self._every = bar, every

    def on_train_batch_end(self, batch, logs=None):
        if self._every == "batch":
            self._bar.advance()

    def on_epoch_end(self, epoch, logs=None):
        if self._every == "epoch":
            self._bar.advance(
                f"loss {logs['loss']:.3f} accuracy {logs['accuracy']:.3f}"
            )


class StepTimes(keras.callbacks.Callback):
    """Measures how long a step takes, without the first, which also compiles."""

    def on_train_begin(self, logs=None):
        self._ends = []

    def on_train_batch_end(self, batch, logs=None):
        self._ends.append(time.perf_counter())

    @property
    def seconds_per_step(self) -> float:
        """Median seconds of a step; 0 when there was only one."""
        steps = np.diff(self._ends)
        return float(np.median(steps)) if len(steps) else 0.0


class LearningRate(keras.callbacks.Callback):
    """Sets the learning rate before each step from a schedule of the step's number.

    The compiled step reads the rate from a variable, so a schedule whose length is
    known only after some steps were timed costs no second compilation.
    """

    def __init__(self, schedule: keras.optimizers.schedules.LearningRateSchedule):
        super().__init__()
        self._schedule = schedule

    def on_train_begin(self, logs=None):
        self._step = int(self.model.optimizer.iterations)

    def on_train_batch_begin(self, batch, logs=None):
        self.model.optimizer.learning_rate = self._schedule(self._step)
        self._step += 1
