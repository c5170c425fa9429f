"""The messages of TensorFlow Serving, without TensorFlow.

The modules of `tensorflow-serving-api` import TensorFlow, which a client should not
need, and their package asks for a second TensorFlow beside `tensorflow-cpu`. So the
few messages that are used here stand here: fields of the same names, types and numbers
make the same bytes and the same text. They live in a pool of their own, where they do
not collide with TensorFlow's in one process.
"""

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
)

_PACKAGE = "tensorflow.serving"
# Message: field: (number, type); [type] is repeated, {type: type} a map.
_MESSAGES: dict[str, dict[str, tuple]] = {
    "Dim": {"size": (1, "int64")},
    "TensorShapeProto": {"dim": (2, ["Dim"])},
    "TensorProto": {
        "dtype": (1, "int32"),
        "tensor_shape": (2, "TensorShapeProto"),
        "tensor_content": (4, "bytes"),
        "float_val": (5, ["float"]),
        "double_val": (6, ["double"]),
        "int_val": (7, ["int32"]),
        "string_val": (8, ["bytes"]),
        "int64_val": (10, ["int64"]),
        "bool_val": (11, ["bool"]),
    },
    "ModelSpec": {
        "name": (1, "string"),
        "signature_name": (3, "string"),
        "version_label": (4, "string"),
    },
    "PredictRequest": {
        "model_spec": (1, "ModelSpec"),
        "inputs": (2, {"string": "TensorProto"}),
        "output_filter": (3, ["string"]),
    },
    "PredictResponse": {"outputs": (1, {"string": "TensorProto"})},
    "GetModelStatusRequest": {"model_spec": (1, "ModelSpec")},
    "StatusProto": {"error_code": (1, "int32"), "error_message": (2, "string")},
    "ModelVersionStatus": {
        "version": (1, "int64"),
        "state": (2, "int32"),
        "status": (3, "StatusProto"),
    },
    "GetModelStatusResponse": {"model_version_status": (1, ["ModelVersionStatus"])},
    "PredictLog": {"request": (1, "PredictRequest")},
    "PredictionLog": {"predict_log": (6, "PredictLog")},
    "Latest": {"num_versions": (1, "uint32")},
    "All": {},
    "Specific": {"versions": (1, ["int64"])},
    "ServableVersionPolicy": {
        "latest": (100, "Latest"),
        "all": (101, "All"),
        "specific": (102, "Specific"),
    },
    "ModelConfig": {
        "name": (1, "string"),
        "base_path": (2, "string"),
        "model_platform": (4, "string"),
        "model_version_policy": (7, "ServableVersionPolicy"),
        "version_labels": (8, {"string": "int64"}),
    },
    "ModelConfigList": {"config": (1, ["ModelConfig"])},
    "ModelServerConfig": {"model_config_list": (1, "ModelConfigList")},
}
# By their numbers in the protocol.
STATES = {
    10: "START",
    20: "LOADING",
    30: "AVAILABLE",
    40: "UNLOADING",
    50: "END",
}


def _add_field(message: DescriptorProto, name: str, number: int, kind) -> None:
    field = message.field.add(name=name, number=number)
    field.label = FieldDescriptorProto.LABEL_OPTIONAL
    if isinstance(kind, dict):
        [(key, value)] = kind.items()
        kind = [_add_entry(message, name, key, value)]
    if isinstance(kind, list):
        field.label = FieldDescriptorProto.LABEL_REPEATED
        kind = kind[0]
    if "." in kind or kind in _MESSAGES:
        field.type = FieldDescriptorProto.TYPE_MESSAGE
        field.type_name = f".{_PACKAGE}.{kind}"
    else:
        field.type = FieldDescriptorProto.Type.Value(f"TYPE_{kind.upper()}")


def _add_entry(message: DescriptorProto, name: str, key: str, value: str) -> str:
    """Adds the message that a map repeats; its name is fixed by protobuf."""
    entry = message.nested_type.add()
    entry.name = "".join(part.capitalize() for part in name.split("_")) + "Entry"
    entry.options.map_entry = True
    _add_field(entry, "key", 1, key)
    _add_field(entry, "value", 2, value)
    return f"{message.name}.{entry.name}"


def _build() -> dict[str, type]:
    file = FileDescriptorProto(name="serving.proto", package=_PACKAGE, syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, (number, kind) in fields.items():
            _add_field(message, field, number, kind)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    find = pool.FindMessageTypeByName
    return {
        name: message_factory.GetMessageClass(find(f"{_PACKAGE}.{name}"))
        for name in _MESSAGES
    }


_CLASSES = _build()
TensorProto = _CLASSES["TensorProto"]
PredictRequest = _CLASSES["PredictRequest"]
PredictResponse = _CLASSES["PredictResponse"]
GetModelStatusRequest = _CLASSES["GetModelStatusRequest"]
GetModelStatusResponse = _CLASSES["GetModelStatusResponse"]
PredictionLog = _CLASSES["PredictionLog"]
ModelServerConfig = _CLASSES["ModelServerConfig"]
