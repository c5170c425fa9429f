"""The page to play with: what it asks the server for, and itself in a browser."""

import base64
import contextlib
import io
import json
import os
import re
import shutil
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.live_server import SIZE, StripeDrawer, picture, serving

_STATIC = Path(__file__).parents[1] / "anime_tf" / "server" / "static"


@pytest.fixture(scope="module")
def live():
    with serving(body_bytes=1024**2) as live:
        yield live


def _post(live, what, content):
    if isinstance(content, dict):
        content = json.dumps(content).encode()
    return live.request("POST", f"/page/{what}", content)[:2]


def _image(uri):
    head, content = uri.split(",")
    assert head == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(content))))


# What it asks for.


def test_nothing_from_elsewhere(live):
    for path in ("/", "/page/page.js", "/page/texts.js", "/page/style.css"):
        address = f"http://127.0.0.1:{live.port}{path}"
        with urllib.request.urlopen(address) as response:
            content, headers = response.read().decode(), response.headers
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self';")
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert not re.search(r"(https?:)?//[a-z]", content.replace("// ", ""))
        # The policy would forbid both.
        assert not re.search(r"\sstyle=|\son\w+=", content)


def test_every_text_is_there_in_both_languages():
    content = (_STATIC / "texts.js").read_text(encoding="utf-8")
    english, chinese = content.split("  zh: {")
    keys = re.findall(r"^    (\w+):", english, re.M)
    assert keys == re.findall(r"^    (\w+):", chinese, re.M)
    page = (_STATIC / "index.html").read_text(encoding="utf-8")
    used = re.findall(r'data-(?:text|title)="(\w+)"', page)
    script = (_STATIC / "page.js").read_text(encoding="utf-8")
    used += re.findall(r'"(\w+)"', script)
    assert set(keys) <= set(used)
    assert set(re.findall(r'(?:text|Failure)\("(\w+)"', script)) <= set(keys)


def test_facts(live):
    status, content, _ = live.request("GET", "/page/facts")
    expected = {"recognises": True, "drawn": ["赤", "blue"], "most": 64}
    assert (status, content) == (200, expected)


def test_recognise(live):
    status, content = _post(live, "recognise", picture("lime"))
    assert status == 200
    assert content["top"][0] == ["green", 1.0]
    assert content["is_unknown"] is False
    assert (_image(content["explanation"]) == (255, 0, 255)).all()
    status, content = _post(live, "recognise", picture("gray"))
    assert (status, content["is_unknown"]) == (200, True)


@pytest.mark.parametrize("body", [b"", b"no picture", picture("red", (99, 99))[:-40]])
def test_recognise_what_is_no_picture(live, body):
    status, content = _post(live, "recognise", body)
    assert status == 400
    assert "the picture cannot be read" in content["error"]


def test_recognise_too_much(live):
    assert _post(live, "recognise", bytes(1024**2 + 1))[0] == 413


def _wish(**changes):
    return {"character": "blue", "seed": 3, "count": 2, "truncation": 0.5, **changes}


def test_draw(live):
    status, content = _post(live, "draw", _wish())
    assert status == 200
    expected = StripeDrawer().generate(2, 3, 0.5, "blue")
    found = [_image(one["png"]) for one in content["pictures"]]
    np.testing.assert_array_equal(found, expected)
    for one in content["pictures"]:
        assert one["name"] in ("赤", "green", "blue")
        assert 0 <= one["share"] <= 1
        # Stripes are grey.
        assert one["is_unknown"] is True


def test_way(live):
    wish = {"character": "赤", "seeds": [3, 4], "truncation": 1}
    body = json.dumps(wish).encode()
    address = f"http://127.0.0.1:{live.port}/page/way"
    with urllib.request.urlopen(address, body) as response:
        assert response.headers["content-type"] == "image/gif"
        with Image.open(io.BytesIO(response.read())) as gif:
            assert (gif.format, gif.size) == ("GIF", (SIZE, SIZE))
            assert gif.n_frames > 2


@pytest.mark.parametrize(
    ("what", "wish"),
    [
        ("draw", _wish(character="green")),
        ("draw", _wish(character=None)),
        ("draw", _wish(character=["blue"])),
        ("draw", _wish(seed=-1)),
        ("draw", _wish(seed=1.5)),
        ("draw", _wish(seed=2**63)),
        ("draw", _wish(count=0)),
        ("draw", _wish(count=65)),
        ("draw", _wish(truncation=2)),
        ("draw", _wish(truncation="much")),
        ("draw", {}),
        ("way", _wish(seeds=[1, 1])),
        ("way", _wish(seeds=[1, -1])),
        ("way", _wish(seeds=[1, 2, 3])),
        ("way", _wish(seeds=5)),
    ],
)
def test_wishes_that_make_no_sense(live, what, wish):
    status, content = _post(live, what, wish)
    assert (status, set(content)) == (400, {"error"})


# In a browser.


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="no Playwright")
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if not chromium:
        pytest.skip("there is no Chromium; CHROMIUM may name one")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-gpu"]
        )
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser, live):
    """`open_page(locale, width)`: the page, watched for errors and for strangers."""
    complaints = []
    with contextlib.ExitStack() as stack:

        def open_page(locale="en-GB", width=1200):
            viewport = {"width": width, "height": 900}
            context = browser.new_context(locale=locale, viewport=viewport)
            stack.callback(context.close)
            page = context.new_page()
            page.set_default_timeout(60_000)
            home = f"http://127.0.0.1:{live.port}/"
            page.on("pageerror", lambda error: complaints.append(str(error)))
            page.on(
                "request",
                lambda asked: (
                    asked.url.startswith((home, "blob:", "data:"))
                    or complaints.append(asked.url)
                ),
            )
            page.on(
                "console",
                lambda said: (
                    "Content Security" in said.text and complaints.append(said.text)
                ),
            )
            page.goto(home)
            page.wait_for_selector("#draw:visible")
            return page

        yield open_page
        assert not complaints


def _upload(page, name, content):
    page.set_input_files(
        "#file", {"name": name, "mimeType": "image/png", "buffer": content}
    )


def _check_image(page, selector):
    """Fails unless there is a picture that the browser can show."""
    page.eval_on_selector(selector, "image => image.decode()")


def _shoot(page, name):
    """Leaves a screenshot where whoever runs the tests wants to look at them."""
    if folder := os.environ.get("SCREENSHOTS"):
        page.screenshot(path=f"{folder}/{name}.png", full_page=True)


def test_browser_names_a_picture(open_page):
    page = open_page()
    _upload(page, "green.png", picture("lime"))
    page.wait_for_selector("#answer:visible")
    assert page.text_content("#name") == "green"
    assert page.text_content("#bars li:first-child") == "green100%"
    assert page.eval_on_selector("#bars progress", "bar => bar.value") == 1
    assert page.is_hidden("#unknown-note")
    for image in ("#given", "#explanation"):
        _check_image(page, image)
    _shoot(page, "known")
    _upload(page, "grey.png", picture("gray"))
    page.wait_for_selector("#unknown-note:visible")
    assert page.text_content("#name") == "Unknown"
    _shoot(page, "unknown")


def test_browser_says_what_is_no_picture(open_page):
    page = open_page()
    _upload(page, "green.png", picture("lime"))
    page.wait_for_selector("#answer:visible")
    _upload(page, "bad.png", b"no picture")
    page.wait_for_selector("#recognise-error:visible")
    assert "cannot be read as a picture" in page.text_content("#recognise-error")
    assert page.is_hidden("#answer")
    _upload(page, "huge.png", bytes(1024**2 + 1))
    page.wait_for_selector("#recognise-error:has-text('too large')")
    _upload(page, "green.png", picture("lime"))
    page.wait_for_selector("#answer:visible")
    assert page.is_hidden("#recognise-error")


def test_browser_draws(open_page):
    page = open_page()
    page.select_option("#character", "blue")
    page.select_option("#count", "4")
    page.fill("#seed", "7")
    page.click("#draw-button")
    page.wait_for_selector("#drawings figure:nth-child(4)")
    assert page.locator("#drawings figure").count() == 4
    assert "unknown, most like " in page.text_content("#drawings figcaption")
    with page.expect_download() as download:
        page.click("#drawings a")
    assert download.value.suggested_filename == "blue_7_1.png"
    _shoot(page, "drawn")
    page.fill("#second-seed", "7")
    page.click("#way-button")
    page.wait_for_selector("#way-error:visible")
    page.fill("#second-seed", "8")
    page.click("#way-button")
    page.wait_for_selector("#way-result:visible")
    _check_image(page, "#way-image")
    with page.expect_download() as download:
        page.click("#way-link")
    assert download.value.suggested_filename == "blue_7_8.gif"
    assert page.is_hidden("#way-error")


def test_browser_speaks_chinese_on_a_phone(open_page):
    page = open_page("zh-CN", width=360)
    assert page.text_content("#recognise-title") == "这是谁？"
    _upload(page, "green.png", picture("gray"))
    page.wait_for_selector("#unknown-note:visible")
    assert page.text_content("#name") == "未知"
    page.click("#draw-button")
    page.wait_for_selector("#drawings figure")
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width <= 360, "nothing sticks out"
    _shoot(page, "phone")
    page.click("#language")
    assert page.text_content("#name") == "Unknown"
    assert "unknown, most like " in page.text_content("#drawings figcaption")
    page.reload()
    page.wait_for_selector("#draw:visible")
    assert page.text_content("#recognise-title") == "Who is it?"
