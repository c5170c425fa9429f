"""Arrays to tensors of the protocol, and back."""

import numpy as np

from anime_tf.serving.messages import PredictRequest, TensorProto

# Numbers of TensorFlow's types, and the field that holds values which are not packed.
_STRING = 7
_TYPES = {
    np.dtype(np.float32): (1, "float_val"),
    np.dtype(np.float64): (2, "double_val"),
    np.dtype(np.int32): (3, "int_val"),
    np.dtype(np.uint8): (4, "int_val"),
    np.dtype(object): (_STRING, "string_val"),
    np.dtype(np.int64): (9, "int64_val"),
    np.dtype(np.bool_): (10, "bool_val"),
}
_BY_NUMBER = {number: (dtype, field) for dtype, (number, field) in _TYPES.items()}


def to_tensor(array: np.ndarray) -> TensorProto:
    """Packs an array of numbers, or of bytes (dtype object)."""
    number, field = _TYPES[array.dtype]
    tensor = TensorProto(dtype=number)
    for size in array.shape:
        tensor.tensor_shape.dim.add(size=size)
    if number == _STRING:
        getattr(tensor, field).extend(array.ravel().tolist())
    else:
        tensor.tensor_content = array.astype(array.dtype.newbyteorder("<")).tobytes()
    return tensor


def to_array(tensor: TensorProto) -> np.ndarray:
    """Unpacks a tensor.

    Raises:
        ValueError: If its type is not known here, or its values are not as many as its
            shape says.
    """
    if tensor.dtype not in _BY_NUMBER:
        raise ValueError(f"a tensor of type {tensor.dtype}")
    dtype, field = _BY_NUMBER[tensor.dtype]
    shape = [dim.size for dim in tensor.tensor_shape.dim]
    if tensor.tensor_content:
        packed = np.frombuffer(tensor.tensor_content, dtype.newbyteorder("<"))
        return packed.astype(dtype).reshape(shape)
    values = np.array(list(getattr(tensor, field)), dtype)
    # Equal values at the end may be left out.
    missing = int(np.prod(shape)) - len(values)
    if len(values) and missing > 0:
        values = np.pad(values, (0, missing), mode="edge")
    return values.reshape(shape)


def to_request(
    model: str,
    signature: str,
    inputs: dict[str, np.ndarray],
    label: str | None = None,
) -> PredictRequest:
    """Returns the request that runs a signature of a model, of its labelled version if
    there is a label."""
    request = PredictRequest()
    request.model_spec.name = model
    request.model_spec.signature_name = signature
    if label:
        request.model_spec.version_label = label
    for name, array in inputs.items():
        request.inputs[name].CopyFrom(to_tensor(array))
    return request
