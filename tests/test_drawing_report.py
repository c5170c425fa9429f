import base64
import math
import re

import pytest
from PIL import Image

from anime_tf.drawing_report import write_drawing_report
from tests.test_reports import NAMES, NAMESPACES, SCRIPT, Page

FIGURES = {
    "kid": 0.0123,
    "kid_error": 0.003,
    "fid": None,
    "precision": 0.71,
    "recall": 0.42,
    "diversity_ratio": 0.83,
    "memorisation_ratio": 1.02,
    "hit_rate": None,
    "checkerboard_score": 1.32,
    "checkerboard_ratio": 1.04,
    "num_real": 132,
}
IMAGE = ("img", "src")
ROW = {"epoch": 1, "perceptual_loss": 1.0, "kid": 0.1, "kid_error": 0.01}


def test_names_are_shown_and_never_become_html(tmp_path):
    html = _write(
        tmp_path,
        title=f"Cast {SCRIPT}",
        metrics=_metrics(features=SCRIPT, judge=f"/{SCRIPT}"),
        history=[{f"{SCRIPT}_loss": 1.0}],
        sheets=[(SCRIPT, f'"{SCRIPT}', b"picture", "image/png")],
        settings={SCRIPT: SCRIPT, "names": (SCRIPT,)},
    )
    page = Page(html)
    assert "script" not in page.tags
    assert "<script" not in html.lower()
    assert not [key for _, key, _ in page.attributes if key.startswith("on")]
    for name in NAMES:
        assert name in page.text
    assert ("img", "alt", SCRIPT) in page.attributes


def test_page_needs_nothing_from_outside(tmp_path):
    html = _write(tmp_path)
    page = Page(html)
    assert set(re.findall(r"https?://[^\"'\s<>]*", html)) <= NAMESPACES
    assert not {"link", "script", "iframe", "object", "base"} & set(page.tags)
    for _, key, value in page.attributes:
        if key in ("src", "href", "xlink:href"):
            assert value.startswith(("data:image/", "#"))
    assert "default-src 'none'" in html
    assert ("meta", "name", "viewport") in page.attributes


def test_page_says_what_was_measured_and_how(tmp_path):
    text = Page(_write(tmp_path)).text
    assert "256 of each of 3 characters" in text
    assert "took 12000 steps; the drawings were best at step 9000" in text
    assert "EfficientNetV2B0, ImageNet, 128 px" in text
    assert "0.0123 ± 0.003 - 71% 42% 0.83 1.02 - 1.32 1.04 132" in text
    assert text.count("Not measured") == 2  # FID and hit rate
    assert "fewer than 2048 pictures" in text
    assert "None" not in text
    assert "nan" not in text


def test_figures_on_top_are_means(tmp_path):
    # KID (0.1 + 0.2 + 0.6) / 3, its error sqrt(0.2^2 + 0.1^2 + 0.2^2) / 3 = 0.1. Where
    # one character alone has FID and hit rate, that is all there is to average.
    first = {"kid": 0.1, "kid_error": 0.2, "fid": 7.25, "hit_rate": 0.5}
    second = {"kid": 0.2, "kid_error": 0.1}
    third = {"kid": 0.6, "kid_error": 0.2, "fid": math.nan}
    text = Page(_write(tmp_path, metrics=_metrics(first, second, third))).text
    assert "0.3 KID" in text
    assert "within about 0.1." in text
    assert "7.25 FID" in text
    assert "50% Hit rate" in text
    assert "Not measured" not in text


def test_worst_character_comes_first(tmp_path):
    kids = [{"kid": -0.01}, {"kid": 0.5}, {"kid": 0.02}]
    page = Page(_write(tmp_path, metrics=_metrics(*kids)))
    table = page.text[page.text.index("Character by character") :]
    places = [table.index(name) for name in NAMES]
    assert places[1] < places[2] < places[0]


def test_page_of_one_character(tmp_path):
    metrics = _metrics() | {"characters": {NAMES[2]: FIGURES}}
    text = Page(_write(tmp_path, metrics=metrics)).text
    assert f"256 of {NAMES[2]} , compared" in text
    assert "comes first" not in text


def test_the_judge_is_named(tmp_path):
    figures = [{"hit_rate": rate} for rate in (0.9, 0.8, 1.0)]
    metrics = _metrics(*figures, judge="saved_models/judge")
    text = Page(_write(tmp_path, metrics=metrics)).text
    assert "90% Hit rate" in text
    assert "saved_models/judge" in text


def test_sheets_are_embedded_as_they_are(tmp_path, encode):
    contents = {
        f"image/{name.lower()}": encode(Image.new("RGB", (9, 9), "teal"), name)
        for name in ("PNG", "GIF")
    }
    sheets = [("Title", "Caption", *item[::-1]) for item in contents.items()]
    page = Page(_write(tmp_path, sheets=sheets))
    sources = [value for tag, key, value in page.attributes if (tag, key) == IMAGE]
    for source, (media_type, content) in zip(sources, contents.items(), strict=True):
        start = f"data:{media_type};base64,"
        assert source.startswith(start)
        assert base64.b64decode(source.removeprefix(start)) == content


def test_curves_of_the_training(tmp_path):
    html = _write(tmp_path, history=[ROW, {**ROW, "epoch": 2}])
    assert html.count("<svg") == 2
    html = _write(tmp_path, history=[])
    assert "<svg" not in html
    assert "No history of the training was kept." in Page(html).text


def test_settings_are_readable(tmp_path):
    settings = {"rate": 2e-4, "guide": None, "paired": True, "layers": ("a", None)}
    text = Page(_write(tmp_path, settings=settings)).text
    assert "rate 0.0002 guide - paired yes layers a, -" in text
    assert "Settings" not in Page(_write(tmp_path, settings={})).text


def test_no_character_and_missing_figures_leave_the_last_page(tmp_path):
    before = _write(tmp_path)
    with pytest.raises(ValueError, match=r"^metrics: expected at least one character"):
        _write(tmp_path, metrics=_metrics() | {"characters": {}})
    metrics = _metrics()
    del metrics["best_step"]
    with pytest.raises(Exception, match="best_step"):
        _write(tmp_path, metrics=metrics)
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == before


def _metrics(*changes, features="EfficientNetV2B0, ImageNet, 128 px", judge=None):
    """Figures of the three characters, with the changes of each."""
    changes = changes or ({}, {}, {})
    return {
        "features": features,
        "judge": judge,
        "num_generated": 256,
        "step": 12000,
        "best_step": 9000,
        "characters": {
            name: FIGURES | change for name, change in zip(NAMES, changes, strict=True)
        },
    }


def _write(folder, **changes):
    arguments = {
        "title": "Drawings",
        "metrics": _metrics(),
        "history": [ROW],
        "sheets": [("Real and generated", "Left real.", b"picture", "image/png")],
        "settings": {"image_size": 64},
    }
    filepath = folder / "report.html"
    write_drawing_report(filepath, **(arguments | changes))
    return filepath.read_text(encoding="utf-8")
