"""The state of a run in one file: enough to go on as if nothing had happened."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import tensorflow as tf


class RunCheckpoint:
    """Keeps variables, and what is remembered beside them, in a folder.

    Variables are kept as lists: the random states of layers are among them, which the
    layers as objects would leave out. Each file replaces the one before it only once
    it is complete.

    Args:
        folder: Where the checkpoint lies.
        variables: Name -> Keras variables, in a fixed order.

    Attributes:
        memory: JSON-ready; the caller writes what it must know again.
    """

    def __init__(self, folder: Path, variables: Mapping[str, Sequence]):
        self.memory: dict = {}
        values = {
            name: [variable.value for variable in group]
            for name, group in variables.items()
        }
        self._checkpoint = tf.train.Checkpoint(memory=_Memory(self), **values)
        self._manager = tf.train.CheckpointManager(
            self._checkpoint, str(folder), max_to_keep=1
        )

    def save(self) -> None:
        self._manager.save()

    def restore(self) -> bool:
        """Goes back to the last checkpoint, strictly; False if there is none."""
        latest = self._manager.latest_checkpoint
        if latest is None:
            return False
        self._checkpoint.restore(latest).assert_consumed()
        return True


class _Memory(tf.train.experimental.PythonState):
    """Writes the memory into the checkpoint, and reads it back."""

    def __init__(self, owner: RunCheckpoint):
        super().__init__()
        self._owner = owner

    def serialize(self) -> str:
        return json.dumps(self._owner.memory)

    def deserialize(self, string_value: str) -> None:
        self._owner.memory = json.loads(string_value)
