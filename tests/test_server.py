"""The running server: its answers, its limits, and whoever means it ill."""

import base64
import contextlib
import http.client
import io
import json
import random
import select
import socket
import struct
import time
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import psutil
import pytest
from PIL import Image

from tests.live_server import StripeDrawer, b64, picture, serving

_MIB = 1024**2
_PREDICT = "/v1/models/classifier:predict"


@pytest.fixture(scope="module")
def live():
    with serving(body_bytes=_MIB, pictures=8) as live:
        yield live


@pytest.fixture(autouse=True)
def _still_well(request):
    """Whatever a test does to the server, it answers afterwards."""
    yield
    if "live" in request.fixturenames:
        assert request.getfixturevalue("live").is_well()


# Answers.


def test_status(live):
    for path in ("/v1/models/classifier", "/v1/models/generator/versions/1"):
        status, content, headers = live.request("GET", path)
        assert (status, headers["content-type"]) == (200, "application/json")
        (version,) = content["model_version_status"]
        assert (version["version"], version["state"]) == ("1", "AVAILABLE")
        assert version["status"] == {"error_code": "OK", "error_message": ""}


def test_metadata(live):
    for path in ("classifier/metadata", "classifier/versions/1/metadata"):
        status, content, _ = live.request("GET", f"/v1/models/{path}")
        assert status == 200
        assert content["model_spec"]["name"] == "classifier"
        definitions = content["metadata"]["signature_def"]["signature_def"]
        assert set(definitions) == {"serving_default", "images"}


@pytest.mark.parametrize(
    "path",
    [
        "/page/nothing.js",
        "/v1/models",
        "/v1/models/nobody",
        "/v1/models/nobody/metadata",
        "/v1/models/classifier/versions/2",
        "/v1/models/classifier/labels/canary",
    ],
)
def test_no_such_address(live, path):
    status, content, _ = live.request("GET", path)
    assert status == 404
    assert set(content) == {"error"}


def test_no_such_model(live):
    assert live.predict({}, "nobody")[0] == 404
    assert live.predict({}, version="/versions/2")[0] == 404
    status, content, _ = live.request("PUT", _PREDICT, b"{}")
    assert (status, set(content)) == (405, {"error"})


def test_rows(live):
    files = [picture("lime"), b"no picture", picture("gray"), picture("blue")]
    content = {"instances": [b64(content) for content in files]}
    for version in ("", "/versions/1"):
        status, answer = live.predict(content, version=version)
        assert status == 200
        green, bad, grey, blue = answer["predictions"]
        assert green["labels"] == ["green", "赤"]
        assert green["scores"] == [1.0, 0.0]
        assert green["probabilities"] == [0.0, 1.0, 0.0]
        assert (green["is_unknown"], green["ok"]) == (False, True)
        assert green["known_score"] == 255.0
        assert blue["labels"][0] == "blue"
        assert grey["is_unknown"] is True
        nothing = {"labels": ["", ""], "scores": [0, 0], "probabilities": [0, 0, 0]}
        nothing |= {"known_score": 0, "is_unknown": False, "ok": False}
        assert bad == nothing


def test_columns(live):
    content = {"inputs": {"pictures": [b64(picture("lime"))]}}
    status, answer = live.predict(content)
    assert status == 200
    assert answer["outputs"]["labels"] == [["green", "赤"]]
    assert answer["outputs"]["ok"] == [True]
    status, answer = live.predict({"inputs": []})
    assert (status, answer["outputs"]["ok"]) == (200, [])


def test_pixels_of_any_size(live):
    image = np.zeros((5, 9, 3), int)
    image[..., 2] = 200
    content = {"signature_name": "images", "instances": [image.tolist()] * 2}
    status, answer = live.predict(content)
    assert status == 200
    assert [row["labels"][0] for row in answer["predictions"]] == ["blue", "blue"]


def _generate(live, signature, **changes):
    inputs = {"n": 3, "seed": 7, "truncation": 0.5, **changes}
    content = {"signature_name": signature, "inputs": inputs}
    return live.predict(content, "generator")


def test_drawings(live):
    expected = StripeDrawer().generate(3, seed=7, truncation=0.5)
    status, answer = _generate(live, "generate")
    assert status == 200
    np.testing.assert_array_equal(answer["outputs"], expected)
    status, answer = _generate(live, "generate_png")
    assert status == 200
    for found, image in zip(answer["outputs"], expected, strict=True):
        assert set(found) == {"b64"}
        content = io.BytesIO(base64.b64decode(found["b64"]))
        np.testing.assert_array_equal(np.asarray(Image.open(content)), image)


def test_drawings_of_noise(live):
    drawer = StripeDrawer()
    noise, labels = drawer.noise(2, seed=1), drawer.labels(2)
    rows = [
        {"noise": row.tolist(), "labels": int(label)}
        for row, label in zip(noise, labels, strict=True)
    ]
    content = {"signature_name": "draw", "instances": rows}
    status, answer = live.predict(content, "generator")
    assert status == 200
    np.testing.assert_array_equal(answer["predictions"], drawer.draw(noise, labels))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"n": 0}, "1 to 8 drawings"),
        ({"n": -1}, "1 to 8 drawings"),
        ({"n": 9}, "1 to 8 drawings"),
        ({"seed": -1}, "at least 0"),
        ({"truncation": 1.5}, "0 to 1"),
        ({"truncation": -0.1}, "0 to 1"),
        ({"n": "all"}, "whole numbers"),
    ],
)
def test_drawings_that_make_no_sense(live, changes, said):
    status, answer = _generate(live, "generate", **changes)
    assert status == 400
    assert said in answer["error"]


@pytest.mark.parametrize(
    ("noise", "labels", "said"),
    [
        ([[0, 0, 0, 0]], [3], "'labels' must be 0 to 2"),
        ([[0, 0, 0, 0]], [-1], "'labels' must be 0 to 2"),
        ([[0, 0, 0, 0]], [0, 1], "1 rows of 'noise', but 2 of 'labels'"),
        ([[0, 0, 0]], [0], "must have the shape nx4"),
        ([], [], "must have the shape"),
    ],
)
def test_noise_that_makes_no_sense(live, noise, labels, said):
    content = {"signature_name": "draw", "inputs": {"noise": noise, "labels": labels}}
    status, answer = live.predict(content, "generator")
    assert status == 400
    assert said in answer["error"]


# Many at once.


def test_parallel_clients_lose_nothing_and_share_batches():
    colours = {"赤": picture("red"), "green": picture("lime"), "blue": picture("blue")}

    def ask(number):
        name = list(colours)[number % 3]
        status, answer = live.predict({"instances": [b64(colours[name])]})
        return status == 200 and answer["predictions"][0]["labels"][0] == name

    with serving(seconds=0.01) as live, ThreadPoolExecutor(32) as clients:
        assert all(clients.map(ask, range(320)))
        assert sum(live.predictor.batches) == 320
        # Alone each would have its own.
        assert len(live.predictor.batches) < 320 / 4


def test_too_many_are_sent_away_and_told_when_to_come_back():
    def ask(_):
        body = json.dumps({"instances": [b64(picture("red"))] * 2})
        return live.request("POST", _PREDICT, body)

    with serving(seconds=0.2, queue=4, pictures=2) as live:
        with ThreadPoolExecutor(8) as clients:
            answers = list(clients.map(ask, range(8)))
        statuses = [status for status, _, _ in answers]
        assert set(statuses) == {200, 503}
        for status, content, headers in answers:
            if status == 503:
                assert "try again" in content["error"]
                assert headers["retry-after"] == "1"
        assert live.is_well()


def test_an_answer_that_takes_too_long():
    with serving(seconds=0.6, answer_seconds=0.2) as live:
        status, answer = live.predict({"instances": [b64(picture("red"))]})
        assert status == 504
        assert "too long" in answer["error"]
        live.predictor.seconds = 0.0
        time.sleep(0.6)
        assert live.is_well()


def test_a_model_that_fails_is_the_server_s_fault(caplog):
    with serving() as live:
        live.predictor.seconds = "wrong"
        status, answer = live.predict({"instances": [b64(picture("red"))]})
        assert (status, set(answer)) == (500, {"error"})
        live.predictor.seconds = 0.0
        assert live.is_well()
    assert "TypeError" in caplog.text


def test_requests_under_way_are_answered_when_it_ends():
    with ThreadPoolExecutor(1) as client:
        with serving(seconds=0.5) as live:
            content = {"instances": [b64(picture("red"))]}
            answer = client.submit(live.predict, content)
            time.sleep(0.2)
        assert answer.result()[0] == 200


# Hostile pictures.


def _chunk(kind, content):
    data = kind + content
    return struct.pack(">I", len(content)) + data + struct.pack(">I", zlib.crc32(data))


def _png_that_claims(width, height):
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = _chunk(b"IDAT", zlib.compress(bytes(1000)))
    head = b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header)
    return head + pixels + _chunk(b"IEND", b"")


def _animated(file_format):
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "blue")]
    buffer = io.BytesIO()
    frames[0].save(buffer, file_format, save_all=True, append_images=frames[1:])
    return buffer.getvalue()


_BAD = {
    "empty": b"",
    "text": b"GIF is what it says",
    "truncated PNG": picture("red", (200, 200))[:-60],
    "truncated JPEG": picture("red", (200, 200), "JPEG")[:400],
    "truncated WebP": picture("red", (200, 200), "WEBP")[:60],
    "bomb": _png_that_claims(60_000, 60_000),
    "bomb beyond 2^31": _png_that_claims(2**31 - 1, 2**31 - 1),
    "over the limit": _png_that_claims(5000, 4000),
    "no pixels": _png_that_claims(0, 5),
    "TIFF": picture("red", file_format="TIFF"),
    "SVG": b"<svg xmlns='http://www.w3.org/2000/svg'></svg>",
}


@pytest.mark.parametrize("name", _BAD)
def test_a_bad_picture_fails_alone(live, name):
    content = {"instances": [b64(_BAD[name]), b64(picture("blue"))]}
    status, answer = live.predict(content)
    assert status == 200
    assert [row["ok"] for row in answer["predictions"]] == [False, True]
    assert answer["predictions"][1]["labels"][0] == "blue"


@pytest.mark.parametrize("file_format", ["WEBP", "GIF", "PNG"])
def test_animated_pictures_are_their_first_frame(live, file_format):
    status, answer = live.predict({"instances": [b64(_animated(file_format))]})
    assert status == 200
    assert answer["predictions"][0]["labels"][0] == "赤"


def test_random_damage(live):
    rng = random.Random(0)
    whole = [picture("red", (64, 64), kind) for kind in ("PNG", "JPEG", "WEBP", "GIF")]
    for _ in range(20):
        damaged = []
        for content in whole * 2:
            content = bytearray(content)
            for _ in range(rng.randint(1, 9)):
                content[rng.randrange(len(content))] = rng.randrange(256)
            damaged.append(b64(bytes(content[: rng.randint(1, len(content))])))
        status, answer = live.predict({"instances": damaged})
        assert status == 200
        assert len(answer["predictions"]) == len(damaged)


# Hostile requests.


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff\xd8\xff\xe0",
        b'{"instances": [{"b64": "not base64!"}]}',
        b'{"instances": [NaN]}',
        b'{"signature_name": "nothing", "instances": ["a"]}',
        b'{"instances": ' + 200_000 * b"[" + 200_000 * b"]" + b"}",
    ],
)
def test_what_is_no_request(live, body):
    status, answer = live.predict(body)
    assert (status, set(answer)) == (400, {"error"})
    assert "\n" not in answer["error"]


def test_too_many_pictures(live):
    status, answer = live.predict({"instances": [b64(b"")] * 9})
    assert (status, answer["error"]) == (413, "at most 8 pictures may be sent at once")


def test_a_body_that_is_said_to_be_too_large(live):
    status, answer, _ = live.request("POST", _PREDICT, bytes(_MIB + 1))
    assert status == 413
    assert "1,048,576 bytes" in answer["error"]


def test_who_asks_first_need_not_send(live):
    with live.connect() as client:
        client.sendall(
            f"POST {_PREDICT} HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n"
            f"Content-Length: {10**12}\r\n\r\n".encode()
        )
        assert client.recv(100).startswith(b"HTTP/1.1 413 ")


def _send_chunks(live, total):
    """Sends a body of which nobody said how long it is; returns the status."""
    connection = http.client.HTTPConnection("127.0.0.1", live.port, timeout=60)
    with contextlib.closing(connection):
        chunks = (bytes(_MIB // 4) for _ in range(total // (_MIB // 4)))
        connection.request("POST", _PREDICT, chunks, encode_chunked=True)
        return connection.getresponse().status


def test_a_body_that_does_not_end(live):
    assert _send_chunks(live, 8 * _MIB) == 413


@pytest.mark.slow
def test_a_body_of_a_gigabyte():
    process = psutil.Process()
    with serving(body_bytes=_MIB) as live:
        before = process.memory_info().rss
        # On a slow machine the server closes the connection before the end.
        with contextlib.suppress(ConnectionError):
            assert _send_chunks(live, 1024 * _MIB) == 413
        assert process.memory_info().rss - before < 64 * _MIB
        assert live.is_well()


def test_who_goes_away_is_no_trouble(live, caplog):
    begun = f"POST {_PREDICT} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{{"
    for _ in range(3):
        with live.connect() as client:
            client.sendall(begun.encode())
    assert live.is_well()
    assert caplog.text == ""


def test_all_bodies_together():
    begun = f"POST {_PREDICT} HTTP/1.1\r\nHost: x\r\nContent-Length: 700000\r\n\r\n"
    limits = {"body_bytes": _MIB, "all_bodies_bytes": _MIB, "receive_seconds": 20.0}
    with serving(**limits) as live, live.connect() as greedy:
        greedy.sendall(begun.encode() + 699_999 * b" ")
        time.sleep(0.3)
        assert live.predict(700_000 * b" ")[0] == 503
        assert live.is_well()
        greedy.sendall(b" ")
        assert greedy.recv(100).startswith(b"HTTP/1.1 400 ")
        assert live.predict(700_000 * b" ")[0] == 400


_SLOW = {
    "nothing": b"",
    "a line": b"POST /v1/mod",
    "headers": b"POST /v1/models/classifier:predict HTTP/1.1\r\nHost: x\r\nX-A: ",
    "body": b"POST /v1/models/classifier:predict HTTP/1.1\r\nHost: x\r\n"
    b'Content-Length: 100\r\n\r\n{"inst',
}


def test_slow_clients_are_sent_away():
    def wait(sent):
        """Sends some, then a letter now and then."""
        with live.connect() as client:
            client.sendall(sent)
            while not select.select([client], [], [], 0.1)[0]:
                client.sendall(b"X" if sent else b"")
            found = client.recv(1000)
            # All that follows is the end of the connection.
            with contextlib.suppress(ConnectionError):
                while client.recv(1000):
                    pass
            return found

    with serving(receive_seconds=1.0) as live, ThreadPoolExecutor(4) as clients:
        found = dict(zip(_SLOW, clients.map(wait, _SLOW.values()), strict=True))
        for name, answer in found.items():
            assert answer.startswith(b"HTTP/1.1 408 "), name
        assert live.is_well()


def test_a_client_that_does_not_listen_is_cut_off():
    limits = {"receive_seconds": 0.5, "pictures": 256}
    with serving(**limits) as live, live.connect() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        inputs = {"n": 256, "seed": 1, "truncation": 1.0}
        body = json.dumps({"inputs": inputs}).encode()
        answer = len(json.dumps(live.predict(body, "generator")[1]))
        head = "POST /v1/models/generator:predict HTTP/1.1\r\nHost: x\r\n"
        length = f"Content-Length: {len(body)}\r\n\r\n"
        # More answers than all buffers on the way can hold.
        client.sendall(30 * (head.encode() + length.encode() + body))
        time.sleep(2)
        received = 0
        with contextlib.suppress(ConnectionError):
            while content := client.recv(_MIB):
                received += len(content)
        assert received < 15 * answer
        assert live.is_well()


@pytest.mark.parametrize(
    "head",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"POST /v1/models/classifier:predict HTTP/1.1\r\nHost: x\r\n"
        b"Content-Length: -5\r\n\r\n",
        b"POST /v1/models/classifier:predict HTTP/1.1\r\nHost: x\r\n"
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\nzzz\r\n",
        b"GET /" + 200_000 * b"a" + b" HTTP/1.1\r\n\r\n",
    ],
    ids=["TLS", "negative length", "two lengths", "long line"],
)
def test_what_is_no_http(live, head):
    with live.connect() as client:
        with contextlib.suppress(ConnectionError):
            client.sendall(head)
        try:
            found = client.recv(100)
        except ConnectionError:
            found = b""
        assert not found or found.startswith(b"HTTP/1.1 4")
