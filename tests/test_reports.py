import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from anime_tf import charts as charts_module
from anime_tf import reports
from anime_tf.metrics.recognition import classification_metrics

SCRIPT = "<script>alert(1)</script>"
NAMES = [SCRIPT, "Asuka & \"Rei\" 'x'", "初音未来"]
NAMESPACES = {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
EPOCH = {
    "stage": "head",
    "epoch": 1,
    "loss": 1.0,
    "accuracy": 0.5,
    "val_loss": 1.1,
    "val_accuracy": 0.4,
    "val_macro_f1": 0.3,
    "learning_rate": 1e-3,
    "seconds": 30.0,
}


class Page(HTMLParser):
    """What a browser would find: the tags, their attributes, and the text."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.attributes, self.words = [], [], []
        self.feed(html)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, key, value) for key, value in attrs]

    def handle_data(self, data):
        self.words.append(data)


def test_names_are_shown_and_never_become_html(tmp_path):
    html = _write(tmp_path, title=f"Cast {SCRIPT}")
    page = Page(html)
    assert "script" not in page.tags
    assert not [key for _, key, _ in page.attributes if key.startswith("on")]
    assert "<script" not in html.lower()
    for name in NAMES:
        assert name in page.text
        assert ("th", "title", name) in page.attributes
    assert f"{NAMES[1]}/<img src=x onerror=alert(1)>.png" in page.text
    sources = {value for tag, _, value in page.attributes if tag == "img" and value}
    assert all(source.startswith(("data:", "lazy")) for source in sources)


def test_page_needs_nothing_from_outside(tmp_path):
    html = _write(tmp_path)
    assert set(re.findall(r"https?://[^\"'\s<>]*", html)) <= NAMESPACES
    assert not {"link", "script", "iframe", "object", "base"} & set(Page(html).tags)
    assert "@import" not in html
    for _, key, value in Page(html).attributes:
        if key in ("src", "href", "xlink:href"):
            assert value.startswith(("data:image/jpeg;base64,", "#"))
    assert all(link.startswith("#") for link in re.findall(r"url\((.*?)\)", html))
    assert "default-src 'none'" in html


def test_page_holds_the_numbers(tmp_path):
    text = Page(_write(tmp_path)).text
    assert "66.7% Accuracy" in text
    # Wilson by hand for 4 of 6, z = 1.96: centre (4 + 1.9207) / (6 + 3.8415) = .6016,
    # half width 1.96 / 9.8415 * sqrt(4 * 2 / 6 + .9604) = .3016.
    assert "from 30% to 90%" in text
    assert "Threshold 0.42" in text
    assert "Temperature (1 changes nothing) 1.7" in text
    assert "too sure of itself" in text
    assert "smallest 3" in text


def test_hardest_character_comes_first_and_unseen_ones_last(tmp_path):
    # F1 is 4/5, 2/3, 0 when all three have pictures.
    names = [name for name, _ in reports._hardest_first(_metrics())]
    assert names == [NAMES[2], NAMES[1], NAMES[0]]
    # It is 4/5, 6/7 when nobody shows the third, whose 0 then means nothing.
    metrics = _metrics(labels=[0, 0, 0, 1, 1, 1])
    names = [name for name, _ in reports._hardest_first(metrics)]
    assert names == [NAMES[0], NAMES[1], NAMES[2]]
    _write(tmp_path, metrics=metrics)


def test_confusion_matrix_cells(tmp_path):
    html = _write(tmp_path)
    cells = re.findall(r'<td class="(hit|miss)( strong)?" style="--share:(.*?)"', html)
    # [[2, 1, 0], [0, 2, 0], [0, 1, 0]]: 2/3 and 1/3 of the first row, then all.
    assert cells == [
        ("hit", " strong", "0.68"),
        ("miss", "", "0.42"),
        ("hit", " strong", "0.95"),
        ("miss", " strong", "0.95"),
    ]


@pytest.mark.parametrize(
    "history",
    [
        [],
        [{}],
        [{"loss": 1.0}],
        [{"epoch": 1, "stage": None, "val_loss": float("nan"), "seconds": None}],
        [EPOCH, {"stage": "fine-tune", "epoch": 2}, {**EPOCH, "epoch": 3}],
    ],
)
def test_history_with_missing_keys(tmp_path, history):
    page = Page(_write(tmp_path, history=history))
    wanted = {"loss", "accuracy", "val_loss", "val_accuracy"}
    drawn = any(np.isfinite(e.get(key) or np.nan) for e in history for key in wanted)
    assert ("No history" in page.text) is not drawn
    assert ("epoch" in page.words) is drawn


def test_charts_are_ascii_and_take_their_colours_from_the_page(tmp_path):
    charts = re.findall(r"<svg.*?</svg>", _write(tmp_path), flags=re.DOTALL)
    assert len(charts) == 3
    for chart in charts:
        assert chart.isascii()
        assert "var(--one)" in chart
        assert not any(placeholder in chart for placeholder in charts_module._COLOURS)
        assert "<metadata" not in chart


def test_ids_are_unique_and_the_same_run_gives_the_same_page(tmp_path):
    html = _write(tmp_path)
    ids = [value for _, key, value in Page(html).attributes if key == "id"]
    assert len(ids) == len(set(ids))
    assert _write(tmp_path) == html


def test_empty_mistakes_counts_and_scores(tmp_path):
    metrics = _metrics()
    metrics["unknown"] |= {
        "auroc": None,
        "fpr_at_95_tpr": None,
        "num_unknown": 0,
        "unknown_rejected": None,
    }
    metrics["most_confused"] = []
    page = Page(
        _write(
            tmp_path,
            metrics=metrics,
            mistakes=[],
            class_counts={},
            unknown_scores=None,
        )
    )
    assert "img" not in page.tags
    assert "There is no mistake to show." in page.text
    assert "Nobody was taken for somebody else." in page.text
    assert "no pictures of unknown characters" in page.text
    assert "None" not in page.text
    assert "nan" not in page.text


@pytest.mark.parametrize(
    ("known", "unknown"),
    [
        ([0.5], None),
        ([0.42, 0.42], [0.42]),
        ([12.0, 30.0], [-4.0]),
        ([np.nan, 0.3], []),
        ([], None),
    ],
)
def test_score_histogram_of_any_scores(tmp_path, known, unknown):
    unknown = None if unknown is None else np.array(unknown)
    scores = {"known": np.array(known), "unknown": unknown}
    html = _write(tmp_path, unknown_scores=scores)
    assert html.count("<svg") == (3 if len(known) else 2)


def test_only_the_most_confident_mistakes_are_shown(tmp_path):
    image = np.zeros((4, 4, 3), np.uint8)
    mistakes = [
        reports.Mistake(image, f"{i}.png", NAMES[0], NAMES[1], confidence=i / 100)
        for i in range(40)
    ]
    metrics = _metrics() | {"confusion_matrix": [[0, 40, 0], [0, 2, 0], [0, 0, 1]]}
    page = Page(_write(tmp_path, mistakes=mistakes, metrics=metrics))
    assert page.tags.count("img") == reports.MAX_MISTAKES
    assert f"the first {reports.MAX_MISTAKES} of 40 mistakes" in page.text
    assert page.text.index(" 39.png") < page.text.index(" 38.png")
    assert " 1.png" not in page.text


def test_thumbnails_are_small_and_carry_nothing_beside_their_pixels():
    image = Image.new("RGBA", (900, 300), "red")
    image.info["comment"] = b"secret place"
    uri = reports._data_uri(image)
    content = base64.b64decode(uri.removeprefix("data:image/jpeg;base64,"))
    assert b"secret" not in content
    with Image.open(io.BytesIO(content)) as thumbnail:
        assert thumbnail.size == (128, 43)
    assert image.size == (900, 300)


def test_writing_replaces_in_one_step_and_leaves_nothing_behind(tmp_path):
    _write(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    before = (tmp_path / "report.html").read_bytes()
    broken = _metrics()
    del broken["ece"]
    with pytest.raises(Exception, match="ece"):
        _write(tmp_path, metrics=broken)
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    assert (tmp_path / "report.html").read_bytes() == before


def test_interrupted_writing_keeps_the_last_good_file(tmp_path, monkeypatch):
    before = _write(tmp_path)

    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(KeyboardInterrupt):
        _write(tmp_path, title="another")
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == before


def test_file_name_that_is_not_unicode(tmp_path):
    path = b"caf\xe9.png".decode("utf-8", errors="surrogateescape")
    mistake = reports.Mistake(Image.new("L", (9, 9)), path, NAMES[0], NAMES[1], 0.9)
    assert "caf\\udce9.png" in _write(tmp_path, mistakes=[mistake])


def test_matrix_of_another_size_is_refused(tmp_path):
    metrics = _metrics() | {"class_names": NAMES[:2]}
    with pytest.raises(ValueError, match=r"^metrics: expected a confusion matrix"):
        _write(tmp_path, metrics=metrics)


def _metrics(labels=(0, 0, 0, 1, 1, 2), names=NAMES):
    """The six pictures of test_metrics.py, answered 0 0 1 1 1 1."""
    probabilities = np.eye(3)[[0, 0, 1, 1, 1, 1]]
    result = classification_metrics(np.array(labels), probabilities, names)
    return result | {
        "ece": 0.04,
        "ece_uncalibrated": 0.11,
        "temperature": 1.7,
        "num_pictures": 6,
        "class_names": list(names),
        "unknown": {
            "threshold": 0.42,
            "known_accepted": 0.95,
            "auroc": 0.9,
            "fpr_at_95_tpr": 0.3,
            "num_unknown": 5,
            "unknown_rejected": 0.7,
        },
    }


def _write(folder, **changes):
    image = Image.new("RGB", (60, 30), "teal")
    path = f"{NAMES[1]}/<img src=x onerror=alert(1)>.png"
    arguments = {
        "title": "My cast",
        "metrics": _metrics(),
        "history": [EPOCH, {**EPOCH, "stage": "fine-tune", "epoch": 2, "loss": 0.5}],
        "class_counts": {
            name: {"train": 10 * index + 1, "validation": 1, "test": 1}
            for index, name in enumerate(NAMES)
        },
        "mistakes": [reports.Mistake(image, path, NAMES[0], NAMES[1], 0.9)],
        "unknown_scores": {
            "known": np.array([0.5, 0.9]),
            "unknown": np.array([0.1, 0.4]),
        },
    }
    filepath = folder / "report.html"
    reports.write_classifier_report(filepath, **(arguments | changes))
    return filepath.read_text(encoding="utf-8")
