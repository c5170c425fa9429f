"""Keras callbacks of the generator's training."""

import math
import time
from collections.abc import Callable

import keras
import numpy as np

from anime_tf.callbacks.checkpoint import RunCheckpoint
from anime_tf.progress import Bar

# Diversity under this share of the best drawings' own is collapse.
COLLAPSE = 0.5
_MAX_RETURNS = 3


class StepBar(keras.callbacks.Callback):
    """Moves a progress bar on after every step, with each term of the loss by name."""

    def __init__(self, bar: Bar):
        super().__init__()
        self._bar = bar

    def on_train_batch_end(self, batch, logs=None):
        terms = [
            f"{name.removesuffix('_loss')} {value:.3f}" for name, value in logs.items()
        ]
        self._bar.advance(", ".join(terms))


class Examiner(keras.callbacks.Callback):
    """Looks at the drawings every few epochs, keeps the best, and goes back from ruin.

    Each examination saves the state of the run. When a loss is not finite any more, or
    all drawings have become much the same, the run goes back to the state that drew
    best, and on from there at half the learning rates; after three times it ends.

    Args:
        last, best: Checkpoints of the last and of the best state.
        every: Epochs from one examination to the next.
        examine: Called with the step; draws, and returns `kid` and `diversity_ratio`
            among other figures.
        save_best: Called when the last examination was the best.
        log: Called with all rows after each examination.
        say: Called with what a person should know.
        deadline: `time.monotonic()` value by which the last epoch must end, or None.

    Attributes:
        state: What is remembered from epoch to epoch: `epochs_done`; `rows`, figures of
            each epoch, JSON-ready; `best_kid`, `best_epoch`, `best_step`,
            `best_diversity`; `returns`, how often it went back; `stopped`, why the
            run ended early.
    """

    def __init__(
        self,
        last: RunCheckpoint,
        best: RunCheckpoint,
        every: int,
        examine: Callable[[int], dict],
        save_best: Callable[[], None],
        log: Callable[[list[dict]], None],
        say: Callable[[str], None],
        deadline: float | None = None,
    ):
        super().__init__()
        self._last, self._best, self._every = last, best, every
        self._examine, self._save_best = examine, save_best
        self._log, self._say = log, say
        self._deadline, self._seconds = deadline, 0.0
        self.state = {
            "epochs_done": 0,
            "rows": [],
            "best_kid": math.inf,
            "best_epoch": 0,
            "best_step": 0,
            "best_diversity": 0.0,
            "returns": 0,
            "stopped": "",
        }

    def restore(self) -> bool:
        """Goes back to the last state; False if there is none yet."""
        if not self._last.restore():
            return False
        self.state = self._last.memory
        return True

    def on_train_begin(self, logs=None):
        self._began = time.monotonic()
        self._begun_at = self.state["epochs_done"]
        if not self.state["rows"]:
            # Something to go back to, should ruin come before the first examination.
            self._best.save()

    def on_epoch_end(self, epoch, logs=None):
        row = {"epoch": epoch + 1, "step": self._step}
        row |= {name: float(value) for name, value in logs.items()}
        self.state["rows"].append(row)
        self.state["epochs_done"] = epoch + 1
        if not np.isfinite(list(logs.values())).all():
            self._go_back(f"a loss is not finite any more after epoch {epoch + 1}")
        elif self._is_due(epoch + 1):
            self._look(row)
        self.model.stop_training = bool(self.state["stopped"])

    @property
    def _step(self) -> int:
        return int(self.model.optimizer.iterations)

    def _is_due(self, epoch: int) -> bool:
        if self._deadline is not None:
            now = time.monotonic()
            seconds_per_epoch = (now - self._began) / (epoch - self._begun_at)
            # Room must be left for an epoch, and for the examination after it.
            if now + 2 * seconds_per_epoch + self._seconds > self._deadline:
                self.state["stopped"] = "the time budget is used up"
        is_last = epoch == self.params["epochs"] or bool(self.state["stopped"])
        return is_last or epoch % self._every == 0

    def _look(self, row: dict) -> None:
        started = time.monotonic()
        figures = self._examine(row["step"])
        self._seconds = time.monotonic() - started
        row |= figures
        diversity = figures["diversity_ratio"]
        if diversity < COLLAPSE * self.state["best_diversity"]:
            self._go_back(
                f"the drawings have become much the same (diversity {diversity:.2f}, "
                f"the best ones' {self.state['best_diversity']:.2f})"
            )
            return
        is_best = figures["kid"] < self.state["best_kid"]
        self._say(
            f"  epoch {row['epoch']}, step {row['step']}: KID {figures['kid']:.3f}, "
            f"diversity {diversity:.2f}{', the best so far' if is_best else ''}"
        )
        if is_best:
            self.state["best_kid"] = figures["kid"]
            self.state["best_diversity"] = diversity
            self.state["best_epoch"], self.state["best_step"] = (
                row["epoch"],
                row["step"],
            )
            self._best.save()
            self._save_best()
        self._save()

    def _go_back(self, why: str) -> None:
        self.state["returns"] += 1
        optimizers = (self.model.optimizer, self.model.discriminator_optimizer)
        rates = [float(optimizer.learning_rate) / 2 for optimizer in optimizers]
        self._best.restore()
        for optimizer, rate in zip(optimizers, rates, strict=True):
            optimizer.learning_rate.assign(rate)
        self._say(
            f"  {why}: back to the best state, of epoch {self.state['best_epoch']}, "
            f"and on at the learning rates {rates[0]:.2g} and {rates[1]:.2g}"
        )
        if self.state["returns"] >= _MAX_RETURNS:
            self.state["stopped"] = f"{_MAX_RETURNS} times in vain: {why}"
        self._save()

    def _save(self) -> None:
        self._log(self.state["rows"])
        self._last.memory = self.state
        self._last.save()
