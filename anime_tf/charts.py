"""Charts of the report, as inline SVG that takes its colours from the page.

Only ASCII is ever drawn, and it stays text: the browser has the fonts for it.
"""

import io
import math
import re

import matplotlib
import numpy as np
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

# Placeholders that become CSS variables, so that a chart follows light and dark.
_COLOURS = {
    "#010101": "var(--ink)",
    "#020202": "var(--muted)",
    "#030303": "var(--line)",
    "#040404": "var(--one)",
    "#050505": "var(--two)",
    "#060606": "var(--three)",
}
_INK, _MUTED, _LINE, _ONE, _TWO, _THREE = _COLOURS
# Text stays text: the browser has the fonts. Only ASCII is ever drawn.
_CHART_STYLE = {
    "svg.fonttype": "none",
    "axes.unicode_minus": False,
    "font.family": ["sans-serif"],
    "font.size": 11,
    "text.color": _INK,
    "axes.labelcolor": _MUTED,
    "axes.edgecolor": _LINE,
    "xtick.color": _LINE,
    "ytick.color": _LINE,
    "xtick.labelcolor": _MUTED,
    "ytick.labelcolor": _MUTED,
    "grid.color": _LINE,
}
# Title, and per line: key of the history, legend, colour, dashes.
_CURVES = (
    (
        "Loss (lower is better)",
        (("loss", "training", _ONE, "--"), ("val_loss", "validation", _TWO, "-")),
    ),
    (
        "Accuracy (higher is better)",
        (
            ("accuracy", "training", _ONE, "--"),
            ("val_accuracy", "validation", _TWO, "-"),
            ("val_macro_f1", "validation macro F1", _THREE, "-"),
        ),
    ),
)
# Key of the history of drawing, and title of its chart.
_TERMS = {
    "discriminator_loss": "Discriminator's loss",
    "adversarial_loss": "Adversarial loss (passing for real)",
    "classification_loss": "Classification loss (being the right character)",
    "perceptual_loss": "Perceptual loss (lines and texture)",
}
_FIGURES = {
    "kid": "KID (lower is better)",
    "diversity_ratio": "Diversity (1: as varied as real pictures)",
}
_MARKED = 40  # points up to which each one gets a marker


def learning_curves(history: list[dict]) -> list[tuple[str, Markup]]:
    """Returns `(title, chart)` of loss and accuracy over the epochs of both stages."""
    stages = [epoch.get("stage") for epoch in history]
    changes = [i for i in range(1, len(stages)) if stages[i] != stages[i - 1]]
    epochs = np.arange(1, len(history) + 1)
    charts = []
    for title, lines in _CURVES:
        figure, axes = _chart()
        for key, label, colour, dashes in lines:
            values = np.array([_finite(epoch.get(key)) for epoch in history])
            if np.isfinite(values).any():
                axes.plot(epochs, values, dashes, c=colour, label=label, marker=".")
        if not axes.lines:
            continue
        for change in changes:
            axes.axvline(change + 0.5, color=_MUTED, linewidth=1, linestyle=":")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
        axes.set_xlabel("epoch")
        charts.append((title, _svg(figure, title)))
    return charts


def loss_curves(history: list[dict]) -> list[tuple[str, Markup]]:
    """Returns `(title, chart)` of each loss of drawing, of KID and of diversity.

    Args:
        history: One dictionary per epoch with any of `epoch` (by default its place,
            from 1), `kid`, `kid_error`, `diversity_ratio` and keys that end in
            `_loss`. What is not in a row, None or not finite is left out.
    """
    others = dict.fromkeys(key for row in history for key in row if key not in _TERMS)
    others = {key: key for key in others if key.endswith("_loss")}
    charts = []
    for key, title in (_TERMS | others | _FIGURES).items():
        points = _points(history, key)
        if len(points):
            charts.append((title, _curve(title, *points.T)))
    return charts


def score_histogram(unknown_scores: dict | None, threshold: float) -> Markup | None:
    """Returns a chart of `known` and `unknown` scores, or None if there are none."""
    groups = []
    for name, colour in (("known", _ONE), ("unknown", _TWO)):
        values = (unknown_scores or {}).get(name)
        values = np.asarray([] if values is None else values, dtype=np.float64)
        groups.append((name, colour, values[np.isfinite(values)]))
    scores = np.concatenate([values for *_, values in groups])
    if not len(scores):
        return None
    limits = min(scores.min(), threshold), max(scores.max(), threshold)
    if limits[0] >= 0 and limits[1] <= 1:
        limits = 0.0, 1.0
    figure, axes = _chart()
    for name, colour, values in groups:
        if len(values):
            # Shares, because there may be ten times more of the one than the other.
            weights = np.full(len(values), 100 / len(values))
            bins = np.histogram_bin_edges(values, 30, limits)
            axes.hist(values, bins, weights=weights, fc=colour, alpha=0.6, label=name)
    axes.axvline(threshold, c=_INK, linewidth=1.5, linestyle="--", label="threshold")
    axes.set_xlabel("score (higher: more surely a known character)")
    axes.set_ylabel("% of the group's pictures")
    return _svg(figure, "Scores of known and unknown pictures")


def _points(history: list[dict], key: str) -> np.ndarray:
    """Returns float64 `[n, 3]`: epoch, value, and error of the value, or NaN.

    Rows without the value are left out: measured in every fifth epoch only, the points
    are joined all the same.
    """
    rows = [
        (row.get("epoch", place), _finite(row.get(key)), row.get(f"{key}_error"))
        for place, row in enumerate(history, 1)
    ]
    points = np.array(rows, dtype=np.float64).reshape(-1, 3)
    return points[np.isfinite(points[:, 1])]


def _curve(
    title: str, epochs: np.ndarray, values: np.ndarray, errors: np.ndarray
) -> Markup:
    """One line, with a band of its errors where they are finite."""
    figure, axes = _chart()
    marker = "." if len(epochs) <= _MARKED else None
    axes.plot(epochs, values, c=_ONE, marker=marker)
    if np.isfinite(errors).any():
        edges = values - errors, values + errors
        axes.fill_between(epochs, *edges, fc=_ONE, alpha=0.25, linewidth=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    axes.set_xlabel("epoch")
    return _svg(figure, title)


def _chart() -> tuple[Figure, Axes]:
    with matplotlib.rc_context(_CHART_STYLE):
        figure = Figure(figsize=(5.2, 3.2), layout="constrained")
        axes = figure.add_subplot()
    axes.grid(axis="y", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(length=0)
    return figure, axes


def _svg(figure: Figure, title: str) -> Markup:
    """The figure as an inline element that takes its colours from the page."""
    buffer = io.StringIO()
    style = {**_CHART_STYLE, "svg.hashsalt": title}
    with matplotlib.rc_context(style):
        if any(axes.get_legend_handles_labels()[1] for axes in figure.axes):
            legend = {"loc": "outside upper left", "ncols": 3, "frameon": False}
            figure.legend(**legend, handlelength=1.6, columnspacing=1.2)
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]  # an XML declaration is not allowed inside HTML
    svg = re.sub(r' id="[\w.]+_\d+"', "", svg)  # not unique in the page
    svg = re.sub(r'width="[\d.]+pt" height="[\d.]+pt"', 'role="img"', svg, count=1)
    for placeholder, variable in _COLOURS.items():
        svg = svg.replace(placeholder, variable)
    return Markup(svg.replace(">", f"><title>{escape(title)}</title>", 1))


def _finite(value: float | None) -> float:
    return math.nan if value is None else float(value)
