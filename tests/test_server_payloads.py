"""Requests and answers in the form that TensorFlow Serving documents."""

import base64
import json

import numpy as np
import pytest

from anime_tf.server import payloads
from anime_tf.server.errors import RequestError
from anime_tf.server.signatures import DEFAULT, ServedModel, Signature, Tensor

TAG = {"tag": Tensor("DT_STRING", (-1,))}
SIGNAL = {**TAG, "signal": Tensor("DT_FLOAT", (-1, 2))}
COUNT = {"n": Tensor("DT_INT32"), "share": Tensor("DT_FLOAT")}
PIXELS = {"images": Tensor("DT_UINT8", (-1, -1, -1, 3))}
MODEL = ServedModel(
    "model",
    {
        DEFAULT: Signature(TAG, {}, None),
        "two": Signature(SIGNAL, {}, None),
        "scalars": Signature(COUNT, {}, None),
        "pixels": Signature(PIXELS, {}, None),
    },
    None,
    None,
)
B64 = {"b64": base64.b64encode(b"\xff\x00").decode()}


def parse(**content):
    return payloads.parse(json.dumps(content).encode(), MODEL)


def _complaint(**content):
    with pytest.raises(RequestError) as caught:
        parse(**content)
    assert caught.value.status == 400
    return caught.value.message


@pytest.mark.parametrize(
    "content",
    [
        {"instances": ["one", B64]},
        {"instances": [{"tag": "one"}, {"tag": B64}]},
        {"signature_name": "", "instances": ["one", B64]},
        {"signature_name": DEFAULT, "instances": ["one", B64]},
        {"inputs": ["one", B64]},
        {"inputs": {"tag": ["one", B64]}},
    ],
)
def test_one_input_by_rows_and_by_columns(content):
    call = parse(**content)
    assert call.inputs["tag"].tolist() == [b"one", b"\xff\x00"]
    assert call.in_rows == ("instances" in content)


def test_several_inputs():
    rows = [{"tag": "a", "signal": [1, 2.5]}, {"signal": [0, -1], "tag": B64}]
    by_rows = parse(signature_name="two", instances=rows)
    columns = {"tag": ["a", B64], "signal": [[1, 2.5], [0, -1]]}
    by_columns = parse(signature_name="two", inputs=columns)
    for call in (by_rows, by_columns):
        assert call.inputs["tag"].tolist() == [b"a", b"\xff\x00"]
        assert call.inputs["signal"].tolist() == [[1, 2.5], [0, -1]]
        assert call.inputs["signal"].dtype == np.float32


def test_scalars_and_pixels():
    call = parse(signature_name="scalars", inputs={"n": 3, "share": 1})
    assert (call.inputs["n"].shape, call.inputs["n"].item()) == ((), 3)
    image = np.arange(12).reshape(2, 2, 3)
    call = parse(signature_name="pixels", instances=[image.tolist()])
    assert call.inputs["images"].dtype == np.uint8
    np.testing.assert_array_equal(call.inputs["images"], image[None])
    assert parse(inputs=[]).inputs["tag"].shape == (0,)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({}, "either 'instances' or 'inputs'"),
        ({"instances": ["a"], "inputs": ["a"]}, "either 'instances' or 'inputs'"),
        ({"instances": ["a"], "signature": "two"}, "there is no 'signature'"),
        ({"instances": ["a"], "signature_name": 2}, "must be a string"),
        ({"instances": ["a"], "signature_name": "x"}, "no signature 'x'; it has"),
        ({"instances": []}, "at least one entry"),
        ({"instances": "a"}, "must be a list"),
        ({"instances": {"tag": "a"}}, "must be a list"),
        ({"instances": [{"name": "a"}]}, "entry 0 must have 'tag', it has 'name'"),
        ({"instances": [{}]}, "entry 0 must have 'tag', it has nothing"),
        ({"instances": [["a"]]}, "one for each"),
        ({"instances": [5]}, "one for each"),
        ({"instances": [None]}, "one for each"),
        ({"instances": [{"tag": {"b65": "YQ=="}}]}, "one for each"),
        ({"instances": [{"b64": "%%%"}]}, "no valid base64"),
        ({"instances": [{"b64": "YQ"}]}, "no valid base64"),
        ({"instances": [{"b64": "é"}]}, "no valid base64"),
        ({"instances": [{"b64": 5}]}, "no valid base64"),
        ({"instances": [{"b64": [1, 2]}]}, "no valid base64"),
        ({"instances": ["\ud800"]}, "no valid"),
        ({"inputs": B64}, "must be 1 lists deep"),
        ({"inputs": {"tag": "a"}}, "must be 1 lists deep"),
    ],
)
def test_what_is_refused(content, said):
    assert said in _complaint(**content)


@pytest.mark.parametrize(
    ("signature", "content", "said"),
    [
        ("two", {"instances": ["a"]}, "entry 0 must be an object with: tag, signal"),
        ("two", {"inputs": ["a"]}, "'inputs' must be an object"),
        ("two", {"inputs": {"tag": ["a"]}}, "must have 'tag', 'signal', it has 'tag'"),
        ("scalars", {"instances": [{"n": 1, "share": 1}]}, "ask by 'inputs'"),
        ("scalars", {"inputs": {"n": [1], "share": 1}}, "whole numbers, not in a list"),
        ("scalars", {"inputs": {"n": 1.5, "share": 1}}, "whole numbers"),
        ("scalars", {"inputs": {"n": True, "share": 1}}, "whole numbers"),
        ("scalars", {"inputs": {"n": "1", "share": 1}}, "whole numbers"),
        ("scalars", {"inputs": {"n": None, "share": 1}}, "whole numbers"),
        ("scalars", {"inputs": {"n": 2**31, "share": 1}}, "no DT_INT32 can hold"),
        ("scalars", {"inputs": {"n": 1, "share": "1"}}, "must be numbers"),
        ("scalars", {"inputs": {"n": 1, "share": 1e300}}, "no DT_FLOAT can hold"),
        ("scalars", {"inputs": {"n": 1, "share": 10**400}}, "no DT_FLOAT can hold"),
        ("pixels", {"inputs": [[], []]}, "shape nxnxnx3, it has 2x0x0x0"),
        ("pixels", {"inputs": [[[[1, 2]]]]}, "shape nxnxnx3, it has 1x1x1x2"),
        ("pixels", {"inputs": [[[1, 2, 3]]]}, "must be 4 lists deep"),
        ("pixels", {"inputs": [[[[1, 2, 3]], [[]]]]}, "different lengths"),
        ("pixels", {"inputs": [[[[1, 2, 256]]]]}, "no DT_UINT8 can hold"),
        ("pixels", {"inputs": [[[[1, 2, -1]]]]}, "no DT_UINT8 can hold"),
        ("pixels", {"inputs": [[[[1, 2, [3]]]]]}, "whole numbers, in lists 4 deep"),
    ],
)
def test_wrong_types_and_shapes(signature, content, said):
    assert said in _complaint(signature_name=signature, **content)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"picture",
        b"\xff\xfe\xff",
        b"[]",
        b"null",
        b"7",
        b'{"instances": [NaN]}',
        b'{"instances": [-Infinity]}',
        b'{"instances": ["a"]} {}',
        b'{"instances": ["a"',
        b'{"instances": [' + 5000 * b"9" + b"]}",
        100_000 * b"[",
        b'{"instances": ' + 100_000 * b"[" + 100_000 * b"]" + b"}",
        100_000 * b'{"inputs":',
    ],
)
def test_what_is_no_json(body):
    with pytest.raises(RequestError) as caught:
        payloads.parse(body, MODEL)
    assert caught.value.status == 400
    assert "\n" not in caught.value.message


def test_infinity_in_digits_is_refused():
    body = b'{"signature_name": "scalars", "inputs": {"n": 1, "share": 1e999}}'
    with pytest.raises(RequestError, match="no DT_FLOAT can hold"):
        payloads.parse(body, MODEL)


def _dump(in_rows, **outputs):
    call = payloads.Call(MODEL.signatures[DEFAULT], {}, in_rows)
    return json.loads(payloads.dump(call, outputs))


def test_one_output_has_no_name():
    scores = np.array([[0.5, 0.25], [0, 1]], np.float32)
    assert _dump(True, scores=scores) == {"predictions": [[0.5, 0.25], [0, 1]]}
    assert _dump(False, scores=scores) == {"outputs": [[0.5, 0.25], [0, 1]]}


def test_several_outputs_by_name():
    outputs = {
        "labels": np.array([["初音未来"], ["b"]], object),
        "ok": np.array([True, False]),
        "png_bytes": np.array([b"\xff\x00", b""], object),
    }
    assert _dump(True, **outputs) == {
        "predictions": [
            {"labels": ["初音未来"], "ok": True, "png_bytes": B64},
            {"labels": ["b"], "ok": False, "png_bytes": {"b64": ""}},
        ]
    }
    assert _dump(False, **outputs) == {
        "outputs": {
            "labels": [["初音未来"], ["b"]],
            "ok": [True, False],
            "png_bytes": [B64, {"b64": ""}],
        }
    }


def test_metadata_is_that_of_the_protocol():
    metadata = MODEL.metadata()
    assert metadata["model_spec"]["name"] == "model"
    two = metadata["metadata"]["signature_def"]["signature_def"]["two"]
    assert two["method_name"] == "tensorflow/serving/predict"
    signal = two["inputs"]["signal"]
    assert signal["dtype"] == "DT_FLOAT"
    assert [dim["size"] for dim in signal["tensor_shape"]["dim"]] == ["-1", "2"]
