import io
import json

import keras
import numpy as np
import pytest
from rich.console import Console

from anime_tf.callbacks import classifier as callbacks
from anime_tf.callbacks.classifier import (
    BarSteps,
    EpochBars,
    History,
    LearningRate,
    RunKeeper,
    StepTimes,
)
from anime_tf.progress import Bar, Reporter

LOGS = {
    "loss": 0.5,
    "accuracy": 0.25,
    "val_loss": 0.75,
    "val_accuracy": 0.5,
    "val_macro_f1": 0.4,
}


def _model(*units):
    layers = keras.layers
    inputs = x = keras.Input((4,))
    for count in units or (2,):
        x = layers.Dense(count)(layers.Dropout(0.5, seed=1)(x))
    model = keras.Model(inputs, x)
    model.compile(keras.optimizers.AdamW(0.1), "mse")
    model.optimizer.build(model.trainable_variables)
    return model


class Keeping:
    """A keeper that is told the scores of epochs which nobody trained."""

    def __init__(self, folder, model=None, **arguments):
        self.model, self.rows, self.bests = model or _model(), [], []
        self.keeper = RunKeeper(
            folder,
            self.model,
            save_best=lambda: self.bests.append(len(self.rows)),
            rows=self.rows,
            **arguments,
        )
        self.keeper.set_model(self.model)

    def epoch(self, score):
        """Ends an epoch, and returns why the run is to end."""
        epoch = len(self.rows)
        self.keeper.on_epoch_begin(epoch)
        self.rows.append({"epoch": epoch + 1})
        self.keeper.on_epoch_end(epoch, {"val_macro_f1": score})
        return self.keeper.state["stopped"]


def _fit(model, *more, epochs=2, initial_epoch=0):
    rng = np.random.default_rng(0)
    inputs, targets = rng.normal(size=(6, 4)), rng.normal(size=(6, 2))
    model.fit(
        inputs,
        targets,
        batch_size=2,
        shuffle=False,
        epochs=epochs,
        initial_epoch=initial_epoch,
        callbacks=list(more),
        verbose=0,
    )


def test_keeper_saves_the_best_only(tmp_path):
    run = Keeping(tmp_path)
    for score in (0.2, 0.5, 0.5, 0.4, 0.6):
        run.epoch(score)
    # Equal is no better.
    assert run.bests == [1, 2, 5]
    state = run.keeper.state
    assert (state["best"], state["best_epoch"], state["epochs_done"]) == (0.6, 4, 5)


def test_keeper_ends_the_run_when_patience_is_at_its_end(tmp_path):
    run = Keeping(tmp_path, patience=2)
    assert [run.epoch(score) for score in (0.1, 0.3, 0.3)] == ["", "", ""]
    assert not run.model.stop_training
    assert "no better val_macro_f1 in 2 epochs" in run.epoch(0.2)
    assert run.model.stop_training


def test_keeper_starts_from_what_the_first_stage_reached(tmp_path):
    run = Keeping(tmp_path, patience=2)
    run.keeper.state["best"] = 0.7
    assert run.epoch(0.6) == ""
    assert run.epoch(0.65) != ""
    assert run.bests == []


@pytest.mark.parametrize(("deadline", "ends"), [(119.0, True), (121.0, False)])
def test_keeper_ends_the_run_before_the_deadline(tmp_path, monkeypatch, deadline, ends):
    run = Keeping(tmp_path)
    run.keeper.deadline = deadline
    clock = iter([100.0, 110.0])
    # An epoch of 10 s ends at 110 s: the next one would at 120 s.
    monkeypatch.setattr(run.keeper, "save", lambda: None)
    with monkeypatch.context() as patch:
        patch.setattr(callbacks.time, "monotonic", lambda: next(clock))
        reason = run.epoch(0.5)
    assert ("time budget" in reason) is ends
    assert run.model.stop_training is ends


def test_keeper_restores_everything(tmp_path):
    run = Keeping(tmp_path)
    assert not run.keeper.restore()
    _fit(run.model)
    run.keeper.state["epochs"] = 7
    run.epoch(0.5)
    kept = _state_of(run.model)
    _fit(run.model)
    run.epoch(0.9)
    again = Keeping(tmp_path, _model())
    # Only one checkpoint is kept: the last one.
    assert again.keeper.restore()
    assert again.keeper.state["best"] == 0.9
    assert again.rows == [{"epoch": 1}, {"epoch": 2}]
    assert all(map(np.array_equal, _state_of(again.model), _state_of(run.model)))
    assert not all(map(np.array_equal, _state_of(again.model), kept))
    assert again.keeper.state["epochs"] == 7
    # Random state too: both go on alike.
    _fit(run.model)
    _fit(again.model)
    assert all(map(np.array_equal, _state_of(again.model), _state_of(run.model)))


@pytest.mark.parametrize("units", [(3,), (2, 2), (2, 3, 2)])
def test_keeper_restores_strictly(tmp_path, units):
    Keeping(tmp_path, _model(2)).epoch(0.5)
    other = Keeping(tmp_path, _model(*units))
    with pytest.raises((AssertionError, ValueError)):
        other.keeper.restore()


def test_keeper_keeps_one_checkpoint(tmp_path):
    run = Keeping(tmp_path)
    for _ in range(3):
        run.epoch(0.5)
    assert [path.name for path in tmp_path.glob("*.index")] == ["ckpt-3.index"]


def test_learning_rate_follows_its_schedule():
    model, seen = _model(), []

    class Spy(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append(float(model.optimizer.learning_rate))

    rate = LearningRate(lambda step: 0.5 / (1 + step))
    _fit(model, rate, Spy(), epochs=2)
    # And a run that goes on does so at the step where it stopped.
    _fit(model, LearningRate(lambda step: 0.5 / (1 + step)), Spy(), epochs=1)
    np.testing.assert_allclose(seen, [0.5 / (1 + step) for step in range(9)])


def test_history_is_ready_for_json():
    model, rows = _model(), []
    _fit(model, History("head", rows), epochs=2)
    assert json.loads(json.dumps(rows)) == rows
    assert [(row["stage"], row["epoch"]) for row in rows] == [("head", 1), ("head", 2)]
    assert {"loss", "learning_rate", "seconds"} <= set(rows[0])
    assert rows[0]["learning_rate"] == pytest.approx(0.1)


def test_step_times_leave_out_the_first_step(monkeypatch):
    # Ends at 0, 2, 4 and 7 s: steps of 2, 2 and 3 s behind the first.
    clock = iter([0.0, 2.0, 4.0, 7.0])
    times = StepTimes()
    times.on_train_begin()
    with monkeypatch.context() as patch:
        patch.setattr(callbacks.time, "perf_counter", lambda: next(clock))
        for batch in range(4):
            times.on_train_batch_end(batch)
    assert times.seconds_per_step == 2.0
    times.on_train_begin()
    assert times.seconds_per_step == 0.0


@pytest.mark.parametrize(("every", "moves"), [("batch", 3), ("epoch", 1)])
def test_bar_steps(every, moves):
    changes = []
    steps = BarSteps(Bar(lambda **change: changes.append(change)), every)
    for batch in range(3):
        steps.on_train_batch_end(batch, LOGS)
    steps.on_epoch_end(0, LOGS)
    assert [change["advance"] for change in changes] == [1] * moves


def test_epoch_bars_say_how_it_goes():
    console = Console(file=io.StringIO(), width=100)
    bars = EpochBars(Reporter(console), "Fine-tuning", steps=2)
    bars.set_params({"epochs": 5})
    bars.on_epoch_begin(1)
    for batch in range(2):
        bars.on_train_batch_end(batch, LOGS)
    bars.on_epoch_end(1, LOGS)
    text = console.file.getvalue()
    for part in ("Fine-tuning 2/5", "2/2", "loss 0.500 accuracy 0.250", "macro-F1 0.4"):
        assert part in text


def _state_of(model):
    return [v.numpy() for v in [*model.variables, *model.optimizer.variables]]
