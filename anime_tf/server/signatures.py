"""What the server's models take and give, in the terms of TensorFlow Serving."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import numpy as np

from anime_tf.server.errors import RequestError

DEFAULT = "serving_default"
# There is one model of each name, and it never changes while the server runs.
VERSION = "1"

_TYPES = {
    "DT_BOOL": np.bool_,
    "DT_FLOAT": np.float32,
    "DT_INT32": np.int32,
    "DT_INT64": np.int64,
    "DT_UINT8": np.uint8,
    "DT_STRING": np.object_,
}


@dataclass(frozen=True)
class Tensor:
    """An input or an output.

    Attributes:
        kind: Name of its type, as in `DT_FLOAT`.
        shape: Its dimensions; -1 where any size is taken.
    """

    kind: str
    shape: tuple[int, ...] = ()

    @property
    def dtype(self) -> type:
        """The type in NumPy; strings are objects, of bytes or text."""
        return _TYPES[self.kind]


@dataclass(frozen=True)
class Signature:
    """One thing that a model can be asked for.

    Attributes:
        inputs, outputs: By name.
        answer: Arrays of the inputs, by name, to arrays of the outputs. Raises
            `RequestError`.
    """

    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]
    answer: Callable[..., Awaitable[dict[str, np.ndarray]]]


@dataclass(frozen=True)
class ServedModel:
    """A model under its name.

    Attributes:
        name: As in its address.
        signatures: By name.
        start: Called once, in the event loop, before the first request.
        stop: Called once after the last request.
    """

    name: str
    signatures: dict[str, Signature]
    start: Callable[[], Awaitable[None]]
    stop: Callable[[], Awaitable[None]]

    def find(self, signature: str) -> Signature:
        """Returns a signature; raises `RequestError` (400) if there is none."""
        if signature not in self.signatures:
            known = ", ".join(self.signatures)
            raise RequestError(
                400, f"{self.name} has no signature {signature!r}; it has: {known}"
            )
        return self.signatures[signature]

    def status(self) -> dict:
        """The answer to `GET /v1/models/NAME`."""
        status = {"error_code": "OK", "error_message": ""}
        version = {"version": VERSION, "state": "AVAILABLE", "status": status}
        return {"model_version_status": [version]}

    def metadata(self) -> dict:
        """The answer to `GET /v1/models/NAME/metadata`."""
        definitions = {
            name: {
                "inputs": _describe(name, signature.inputs),
                "outputs": _describe("StatefulPartitionedCall", signature.outputs),
                "method_name": "tensorflow/serving/predict",
            }
            for name, signature in self.signatures.items()
        }
        return {
            "model_spec": {
                "name": self.name,
                "signature_name": "",
                "version": VERSION,
            },
            "metadata": {"signature_def": {"signature_def": definitions}},
        }


def _describe(place: str, tensors: dict[str, Tensor]) -> dict:
    return {
        name: {
            "dtype": tensor.kind,
            "tensor_shape": {
                "dim": [{"size": str(size), "name": ""} for size in tensor.shape],
                "unknown_rank": False,
            },
            "name": f"{place}_{name}:0",
        }
        for name, tensor in tensors.items()
    }
