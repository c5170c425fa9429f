import math
from xml.etree import ElementTree

import numpy as np
import pytest

from anime_tf import charts

TERMS = (
    "discriminator_loss",
    "adversarial_loss",
    "classification_loss",
    "perceptual_loss",
)


def _history(count=4):
    """As training leaves it: terms in every epoch, KID in every second."""
    rows = []
    for epoch in range(1, count + 1):
        row = {"epoch": epoch, "step": 10 * epoch} | dict.fromkeys(TERMS, 1 / epoch)
        if epoch % 2 == 0:
            row |= {"kid": 1 / epoch, "kid_error": 0.1, "diversity_ratio": 0.8}
        rows.append(row)
    return rows


def test_loss_curves_of_every_term_in_one_order():
    drawn = charts.loss_curves(_history())
    titles = [title for title, _ in drawn]
    assert [title.split(" (")[0] for title in titles] == [
        "Discriminator's loss",
        "Adversarial loss",
        "Classification loss",
        "Perceptual loss",
        "KID",
        "Diversity",
    ]
    for title, chart in drawn:
        assert chart.isascii()
        assert "var(--one)" in chart
        assert "legend" not in chart  # one line needs none
        root = ElementTree.fromstring(chart)
        assert root[0].text == title


def test_loss_curves_draw_the_error_of_kid_only():
    history = _history()
    assert _banded(history) == ["KID (lower is better)"]
    for row in history:
        row.pop("kid_error", None)
    assert _banded(history) == []


def _banded(history):
    drawn = charts.loss_curves(history)
    return [title for title, chart in drawn if "opacity: 0.25" in chart]


@pytest.mark.parametrize("history", [[], [{}], [{"epoch": 1, "kid": None}]])
def test_loss_curves_of_nothing(history):
    assert charts.loss_curves(history) == []


def test_loss_curves_of_terms_with_other_names():
    name = "<b>my_loss"
    [(title, chart)] = charts.loss_curves([{name: 1.0, "seconds": 3.0}])
    assert title == name
    assert "<b>" not in chart
    assert ElementTree.fromstring(chart)[0].text == name


def test_points_skip_what_was_not_measured():
    history = [
        {"kid": 1.0},
        {"kid": None},
        {"kid": math.inf, "kid_error": 1.0},
        {"epoch": 9, "kid": 2, "kid_error": 0.5},
        {},
    ]
    expected = [[1, 1, np.nan], [9, 2, 0.5]]
    np.testing.assert_array_equal(charts._points(history, "kid"), expected)
    assert charts._points(history, "diversity_ratio").shape == (0, 3)


def test_long_curves_have_no_markers():
    marked, plain = (
        charts.loss_curves([{"kid": 1.0}] * count)[0][1] for count in (40, 41)
    )
    assert marked.count("<use") - plain.count("<use") == pytest.approx(40, abs=5)
