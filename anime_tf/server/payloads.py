"""Requests and answers in JSON, as TensorFlow Serving reads and writes them.

A request is `{"signature_name": ..., "instances": [...]}`, one entry a row, answered by
`{"predictions": [...]}`; or `{"signature_name": ..., "inputs": {...}}`, whole inputs by
name, answered by `{"outputs": {...}}`. Bytes are `{"b64": "..."}`. What the names may
be left out for: the one input, or the one output, that there is. Not taken, other than
there, are NaN and infinity, which are no JSON.
"""

import base64
import binascii
import json
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from anime_tf.server.errors import RequestError
from anime_tf.server.signatures import DEFAULT, ServedModel, Signature, Tensor

_KEYS = {"signature_name", "instances", "inputs"}
# Outputs whose name ends so are bytes, the other strings are text.
_BYTES = "_bytes"


@dataclass(frozen=True)
class Call:
    """A request that was understood.

    Attributes:
        signature: What is asked for.
        inputs: Arrays by name, of the types and shapes of the signature.
        in_rows: Whether it came, and is to be answered, row by row.
    """

    signature: Signature
    inputs: dict[str, np.ndarray]
    in_rows: bool


def parse(body: bytes | bytearray, model: ServedModel) -> Call:
    """Reads the body of a request.

    Raises:
        RequestError: If it is not valid (400).
    """
    content = parse_object(body)
    if unknown := sorted(set(content) - _KEYS):
        raise _bad(f"there is no {unknown[0]!r} in a request")
    if ("instances" in content) == ("inputs" in content):
        raise _bad("either 'instances' or 'inputs' must be given")
    name = content.get("signature_name", DEFAULT)
    if not isinstance(name, str):
        raise _bad("'signature_name' must be a string")
    signature = model.find(name or DEFAULT)
    in_rows = "instances" in content
    if in_rows:
        columns = _columns(content["instances"], signature.inputs)
    else:
        columns = _by_name(content["inputs"], signature.inputs, "'inputs'")
    inputs = {
        key: to_array(columns[key], tensor, key)
        for key, tensor in signature.inputs.items()
    }
    return Call(signature, inputs, in_rows)


def parse_object(body: bytes | bytearray) -> dict:
    """Reads a JSON object; raises `RequestError` (400) if it is none."""
    try:
        content = json.loads(body, parse_constant=_refuse_constant)
    # Also what is no UTF-8, and numbers of thousands of digits.
    except ValueError as error:
        raise _bad(f"the body is no valid JSON: {error}") from error
    except RecursionError as error:
        raise _bad("the body is no valid JSON: it is nested too deeply") from error
    if not isinstance(content, dict):
        raise _bad("the body must be a JSON object")
    return content


def to_array(value: Any, tensor: Tensor, name: str) -> np.ndarray:
    """Makes an array of an input.

    Args:
        value: What `json` made of it.
        tensor: What is expected.
        name: What to call it.

    Raises:
        RequestError: If type or shape are not as expected (400).
    """
    values, shape = _flatten(value, len(tensor.shape), name)
    wanted = "x".join("n" if size < 0 else str(size) for size in tensor.shape)
    for size, expected in zip(shape, tensor.shape, strict=True):
        if expected not in (-1, size):
            found = "x".join(map(str, shape))
            raise _bad(f"{name!r} must have the shape {wanted}, it has {found}")
    if tensor.kind == "DT_STRING":
        array = np.empty(len(values), object)
        array[:] = [_to_bytes(value, name) for value in values]
    else:
        array = _to_numbers(values, tensor, name)
    return array.reshape(shape)


def dump(call: Call, outputs: dict[str, np.ndarray]) -> bytes:
    """Writes the answer to a request: as it asked, by rows or by outputs."""
    columns = {name: _to_json(name, array) for name, array in outputs.items()}
    single = next(iter(columns.values())) if len(columns) == 1 else None
    if not call.in_rows:
        return to_bytes({"outputs": columns if single is None else single})
    if single is not None:
        return to_bytes({"predictions": single})
    names = list(columns)
    rows = zip(*columns.values(), strict=True)
    return to_bytes({"predictions": [dict(zip(names, r, strict=True)) for r in rows]})


def to_bytes(content: dict) -> bytes:
    """Writes JSON, in UTF-8."""
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()


def _columns(rows: Any, inputs: dict[str, Tensor]) -> dict[str, list]:
    if not isinstance(rows, list) or not rows:
        raise _bad("'instances' must be a list with at least one entry")
    for name, tensor in inputs.items():
        if not tensor.shape:
            raise _bad(f"{name!r} has no rows: ask by 'inputs', not by 'instances'")
    named = [_by_name(row, inputs, f"entry {i}") for i, row in enumerate(rows)]
    return {name: [row[name] for row in named] for name in inputs}


def _by_name(value: Any, inputs: dict[str, Tensor], place: str) -> dict[str, Any]:
    if not isinstance(value, dict) or set(value) == {"b64"}:
        if len(inputs) > 1:
            raise _bad(f"{place} must be an object with: {', '.join(inputs)}")
        return {next(iter(inputs)): value}
    if set(value) != set(inputs):
        found = ", ".join(map(repr, value)) or "nothing"
        raise _bad(f"{place} must have {', '.join(map(repr, inputs))}, it has {found}")
    return value


def _flatten(value: Any, rank: int, name: str) -> tuple[list, tuple[int, ...]]:
    """Returns the numbers or strings of nested lists, and the shape of these."""
    values, shape = [value], []
    for _ in range(rank):
        if set(map(type, values)) - {list}:
            raise _bad(f"{name!r} must be {rank} lists deep")
        lengths = set(map(len, values))
        if len(lengths) > 1:
            raise _bad(f"{name!r} holds lists of different lengths")
        shape.append(lengths.pop() if lengths else 0)
        values = list(chain.from_iterable(values))
    return values, tuple(shape)


def _to_numbers(values: list, tensor: Tensor, name: str) -> np.ndarray:
    is_float = tensor.kind == "DT_FLOAT"
    # The very types: a bool is an int to isinstance.
    if set(map(type, values)) - ({int, float} if is_float else {int}):
        kind = "numbers" if is_float else "whole numbers"
        raise _bad(f"{name!r} must be {kind}, {_depth(tensor)}")
    try:
        array = np.array(values, np.float64 if is_float else tensor.dtype)
        if is_float and np.abs(array).max(initial=0.0) > np.finfo(np.float32).max:
            raise OverflowError
    except OverflowError as error:
        raise _bad(f"{name!r} has numbers that no {tensor.kind} can hold") from error
    return array.astype(tensor.dtype)


def _depth(tensor: Tensor) -> str:
    depth = len(tensor.shape)
    return f"in lists {depth} deep" if depth else "not in a list"


def _to_bytes(value: Any, name: str) -> bytes:
    try:
        if isinstance(value, str):
            return value.encode()
        if isinstance(value, dict) and set(value) == {"b64"}:
            return base64.b64decode(value["b64"], validate=True)
    # Text that is no base64, something else than text, or half a character.
    except (binascii.Error, ValueError, TypeError) as error:
        raise _bad(f"{name!r} has an entry that is no valid base64: {error}") from error
    raise _bad(f'{name!r} must hold {{"b64": "..."}}, one for each')


def _to_json(name: str, array: np.ndarray) -> list:
    if not name.endswith(_BYTES):
        return array.tolist()
    return [{"b64": base64.b64encode(content).decode()} for content in array]


def _refuse_constant(name: str):
    raise ValueError(f"{name} is not allowed")


def _bad(message: str) -> RequestError:
    return RequestError(400, message)
