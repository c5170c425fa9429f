"""Examinations of a running training: the best is kept, ruin is answered."""

import io
import math

import keras
import numpy as np
import pytest
from rich.console import Console

from anime_tf.callbacks import generator as callbacks
from anime_tf.callbacks.checkpoint import RunCheckpoint
from anime_tf.callbacks.generator import Examiner, StepBar
from anime_tf.progress import Reporter


class TwoOptimizers(keras.Model):
    """A model as the examiner knows it: one number, two optimizers."""

    def __init__(self):
        super().__init__()
        self.value = self.add_weight(shape=(), initializer="zeros", name="value")
        self.compile(keras.optimizers.SGD(0.4))
        self.discriminator_optimizer = keras.optimizers.SGD(0.8)
        self.built = True
        for optimizer in (self.optimizer, self.discriminator_optimizer):
            optimizer.build([self.value])

    def checkpoint(self, folder):
        variables = {
            "model": self.variables,
            "one": self.optimizer.variables,
            "two": self.discriminator_optimizer.variables,
        }
        return RunCheckpoint(folder, variables)


class Run:
    """Epochs that nobody trains, and examinations with figures told beforehand."""

    def __init__(self, folder, figures=(), every=1, epochs=100, **arguments):
        self.model = TwoOptimizers()
        self.figures, self.looked, self.bests, self.said = list(figures), [], [], []
        self.examiner = Examiner(
            self.model.checkpoint(folder / "last"),
            self.model.checkpoint(folder / "best"),
            every=every,
            examine=self._examine,
            save_best=lambda: self.bests.append(float(self.model.value)),
            log=lambda rows: None,
            say=self.said.append,
            **arguments,
        )
        self.examiner.set_model(self.model)
        self.examiner.set_params({"epochs": epochs})

    def _examine(self, step):
        self.looked.append(self.examiner.state["epochs_done"])
        kid, diversity = self.figures.pop(0) if self.figures else (0.5, 0.8)
        return {"kid": kid, "diversity_ratio": diversity}

    def train(self, losses):
        """One epoch for each loss; the value counts them."""
        self.examiner.on_train_begin()
        for loss in losses:
            self.model.value.assign_add(1.0)
            epoch = self.examiner.state["epochs_done"]
            self.examiner.on_epoch_end(epoch, {"perceptual_loss": loss})
            if self.model.stop_training:
                break
        return self.examiner.state


def test_it_looks_every_few_epochs_and_at_the_end(tmp_path):
    run = Run(tmp_path, every=3, epochs=8)
    run.train([1.0] * 8)
    assert run.looked == [3, 6, 8]


def test_the_best_is_that_of_least_kid(tmp_path):
    run = Run(tmp_path, [(0.3, 0.8), (0.2, 0.8), (0.4, 0.8), (0.1, 0.8)])
    state = run.train([1.0] * 4)
    assert run.bests == [1, 2, 4]
    assert state["best_kid"] == 0.1
    assert state["best_epoch"] == 4
    assert [row["kid"] for row in state["rows"]] == [0.3, 0.2, 0.4, 0.1]


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_answered(tmp_path, loss):
    run = Run(tmp_path, [(0.3, 0.8), (0.2, 0.8)])
    state = run.train([1.0, 1.0, loss])
    assert float(run.model.value) == 2, "the best state"
    assert state["epochs_done"] == 3
    assert state["returns"] == 1
    assert "not finite" in run.said[-1]
    assert float(run.model.optimizer.learning_rate) == pytest.approx(0.2)
    assert float(run.model.discriminator_optimizer.learning_rate) == pytest.approx(0.4)


def test_ruin_before_the_first_look_goes_back_to_the_start(tmp_path):
    run = Run(tmp_path, every=10)
    run.train([1.0, math.nan])
    assert float(run.model.value) == 0


def test_collapse_is_answered(tmp_path):
    run = Run(tmp_path, [(0.3, 0.8), (0.1, 0.39)])
    state = run.train([1.0, 1.0])
    assert "much the same" in run.said[-1]
    assert "0.39" in run.said[-1]
    assert float(run.model.value) == 1
    # Low KID or not, a collapsed generator is never the best.
    assert state["best_kid"] == 0.3


def test_a_little_less_diversity_is_no_collapse(tmp_path):
    run = Run(tmp_path, [(0.3, 0.8), (0.2, 0.41)])
    run.train([1.0, 1.0])
    assert run.said == [
        "  epoch 1, step 0: KID 0.300, diversity 0.80, the best so far",
        "  epoch 2, step 0: KID 0.200, diversity 0.41, the best so far",
    ]
    assert run.bests == [1, 2]


def test_after_three_times_it_ends(tmp_path):
    run = Run(tmp_path)
    state = run.train([1.0] + [math.nan] * 9)
    assert state["epochs_done"] == 4
    assert "in vain" in state["stopped"]
    # Halved every time, and not from the best state's own rate again.
    assert float(run.model.optimizer.learning_rate) == pytest.approx(0.4 / 8)


def test_it_remembers_everything(tmp_path):
    first = Run(tmp_path, [(0.3, 0.8)], every=2)
    first.train([1.0, 1.0, 1.0])
    again = Run(tmp_path)
    assert again.examiner.restore()
    # The third epoch came after the last look: it is trained again.
    assert again.examiner.state["epochs_done"] == 2
    assert float(again.model.value) == 2
    assert len(again.examiner.state["rows"]) == 2
    assert again.examiner.state["best_kid"] == 0.3


def test_without_a_state_there_is_nothing_to_restore(tmp_path):
    assert not Run(tmp_path).examiner.restore()


def test_the_deadline_ends_the_run(tmp_path, monkeypatch):
    clock = iter(np.arange(0.0, 1000.0, 10.0))
    monkeypatch.setattr(callbacks.time, "monotonic", lambda: float(next(clock)))
    run = Run(tmp_path, every=100, deadline=75.0)
    state = run.train([1.0] * 50)
    # Every epoch reads the clock once: at 10, 20, ... s; two more fit until 50 s.
    assert state["stopped"] == "the time budget is used up"
    assert state["epochs_done"] == 6
    assert run.looked == [6], "the last epoch is looked at"


def test_the_bar_names_every_term():
    text = io.StringIO()
    reporter = Reporter(Console(file=text, width=120))
    with reporter.bar("Drawing", 1) as bar:
        terms = {"adversarial_loss": 0.25, "perceptual_loss": 1.5}
        StepBar(bar).on_train_batch_end(0, terms)
    assert "adversarial 0.250, perceptual 1.500" in text.getvalue()
