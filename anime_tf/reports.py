"""Pictures and tables a person reads: one HTML file, and tables for the terminal.

Folder names and file names are a user's, or a stranger's: in HTML they are escaped by
the template, and in the terminal they never pass through Rich's markup.
"""

import base64
import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image, ImageOps
from rich.table import Table
from rich.text import Text
from scipy import stats

from anime_tf.files import replacing

MAX_MISTAKES = 24
THUMBNAIL_SIZE = 128
DENSE_FROM = 16  # classes from which the confusion matrix shrinks its cells

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


@dataclass(frozen=True)
class Mistake:
    """One picture that was taken for somebody else.

    Attributes:
        image: PIL image, or uint8 array `[h, w, 3]`.
        path: Where the picture lies, as shown to the reader.
        true, predicted: Names of the characters.
        confidence: Probability of `predicted`, range [0, 1].
    """

    image: Image.Image | np.ndarray
    path: str
    true: str
    predicted: str
    confidence: float


def write_classifier_report(
    filepath: Path,
    *,
    title: str,
    metrics: dict,
    history: list[dict],
    class_counts: dict[str, dict[str, int]],
    mistakes: list[Mistake],
    unknown_scores: dict | None,
) -> None:
    """Writes one self-contained HTML file that works offline and on a phone.

    Args:
        filepath: Where to write; replaced in one step, or left as it was.
        title: Heading of the report.
        metrics: What `metrics.classification_metrics` returns, and `class_names`,
            `num_pictures` (of the test split), `temperature`, `ece` (after the
            temperature), `ece_uncalibrated` and `unknown`: a dictionary of
            `threshold`, `known_accepted`, `num_unknown` and, None if there were no
            unknown pictures, `auroc`, `fpr_at_95_tpr`, `unknown_rejected`.
        history: One dictionary per epoch with any of `stage`, `epoch`, `loss`,
            `accuracy`, `val_loss`, `val_accuracy`, `val_macro_f1`, `learning_rate`,
            `seconds`.
        class_counts: Name -> pictures in `train`, `validation`, `test`.
        mistakes: The `MAX_MISTAKES` most confident are shown.
        unknown_scores: None, or `known` and `unknown` (array or None) scores.

    Raises:
        ValueError: If the confusion matrix does not fit the class names.
    """
    threshold = metrics["unknown"]["threshold"]
    shown = sorted(mistakes, key=lambda mistake: -mistake.confidence)[:MAX_MISTAKES]
    page = _environment().get_template("classifier_report.html.j2")
    html = page.render(
        title=title,
        metrics=metrics,
        interval=_accuracy_interval(metrics),
        characters=_hardest_first(metrics),
        curves=_learning_curves(history),
        history=history,
        seconds=sum(_number(epoch.get("seconds"), 0.0) for epoch in history),
        confusion=_confusion_rows(metrics),
        dense=len(metrics["class_names"]) >= DENSE_FROM,
        counts=_count_bars(class_counts),
        mistakes=[(mistake, _data_uri(mistake.image)) for mistake in shown],
        num_mistakes=len(mistakes),
        score_chart=_score_histogram(unknown_scores, threshold),
    )
    # A file name that is no Unicode (Linux allows it) must not lose the report.
    with replacing(filepath) as temporary:
        temporary.write_bytes(html.encode("utf-8", errors="backslashreplace"))


def metrics_table(metrics: dict) -> Table:
    """Precision, recall and F1 per character, and the summary, for the terminal."""
    table = Table()
    table.add_column("Character")
    for heading in ("Precision", "Recall", "F1", "Pictures"):
        table.add_column(heading, justify="right")
    for name, row in metrics["per_class"].items():
        numbers = [_percent(row[key]) for key in ("precision", "recall", "f1")]
        if not row["support"]:
            numbers = ["-"] * 3
        table.add_row(_plain(name), *numbers, str(row["support"]))
    table.caption = (
        f"accuracy {_percent(metrics['accuracy'])}, "
        f"top 3 {_percent(metrics['top3_accuracy'])}, "
        f"macro F1 {_percent(metrics['macro_f1'])}"
    )
    return table


def confusion_summary(metrics: dict) -> Table:
    """Who is most often taken for whom, for the terminal."""
    table = Table()
    table.add_column("Character")
    table.add_column("taken for")
    table.add_column("times", justify="right")
    table.add_column("of its", justify="right")
    for pair in metrics["most_confused"]:
        support = metrics["per_class"][pair["true"]]["support"]
        names = _plain(pair["true"]), _plain(pair["predicted"])
        table.add_row(*names, str(pair["count"]), str(support))
    if not metrics["most_confused"]:
        table.caption = "nobody was taken for somebody else"
    return table


def contact_sheet(
    images: Sequence[Image.Image | np.ndarray], columns: int, size: int = 96
) -> Image.Image:
    """Pictures side by side on white, row by row, each whole in its square.

    Args:
        images: PIL images, or uint8 arrays `[h, w, 3]`; at least one.
        columns: Squares per row, >= 1.
        size: Side of a square in pixels, >= 1.

    Returns:
        PIL image, mode RGB, `columns * size` wide (less if there are fewer images).

    Raises:
        ValueError: If there is no image, or a number is below 1.
    """
    if not len(images):
        raise ValueError("images: expected at least one, received none")
    if columns < 1 or size < 1:
        raise ValueError(
            f"columns, size: expected integers >= 1, received {columns}, {size}"
        )
    columns = min(columns, len(images))
    rows = math.ceil(len(images) / columns)
    sheet = Image.new("RGB", (columns * size, rows * size), "white")
    for index, image in enumerate(images):
        square = ImageOps.pad(_as_image(image), (size, size), color="white")
        row, column = divmod(index, columns)
        sheet.paste(square, (column * size, row * size))
    return sheet


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,  # select_autoescape would pass over the suffix .j2
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(percent=_percent, decimals=_decimals)
    return environment


def _number(value: float | None, default: float = math.nan) -> float:
    return default if value is None or not math.isfinite(value) else float(value)


def _percent(value: float | None, digits: int = 1) -> str:
    return "-" if math.isnan(_number(value)) else f"{value:.{digits}%}"


def _decimals(value: float | None, digits: int = 3) -> str:
    return "-" if math.isnan(_number(value)) else f"{value:.{digits}g}"


def _plain(name: str) -> Text:
    """Text without markup, and without the control codes that steer a terminal."""
    return Text("".join(char if char.isprintable() else "\ufffd" for char in name))


def _accuracy_interval(metrics: dict) -> tuple[float, float]:
    """The 95 % interval of Wilson: what a small test split cannot tell apart."""
    matrix = np.asarray(metrics["confusion_matrix"])
    test = stats.binomtest(int(np.trace(matrix)), int(matrix.sum()))
    return tuple(test.proportion_ci(0.95, method="wilson"))


def _hardest_first(metrics: dict) -> list[tuple[str, dict]]:
    rows = metrics["per_class"].items()
    return sorted(rows, key=lambda row: (row[1]["support"] == 0, row[1]["f1"]))


def _confusion_rows(metrics: dict) -> list[dict]:
    names, matrix = metrics["class_names"], np.asarray(metrics["confusion_matrix"])
    if matrix.shape != (len(names), len(names)):
        raise ValueError(
            f"metrics: expected a confusion matrix of {len(names)} x {len(names)} as "
            f"there are class names, received shape {matrix.shape}"
        )
    rows = []
    for true, counts in zip(names, matrix.tolist(), strict=True):
        total = sum(counts)
        cells = []
        for predicted, count in zip(names, counts, strict=True):
            share = count / max(total, 1)
            kind = "hit" if predicted == true else "miss"
            cells.append(
                {
                    "predicted": predicted,
                    "count": count,
                    "kind": kind + (" strong" if share > 0.5 else ""),
                    "depth": round(0.15 + 0.8 * share, 2),
                }
            )
        rows.append({"name": true, "total": total, "cells": cells})
    return rows


def _count_bars(class_counts: Mapping[str, Mapping[str, int]]) -> dict:
    splits = ("train", "validation", "test")
    rows = [
        (name, [counts.get(split, 0) for split in splits])
        for name, counts in class_counts.items()
    ]
    totals = [sum(counts) for _, counts in rows]
    return {
        "rows": rows,
        "largest": max(totals, default=0),
        "smallest": min(totals, default=0),
    }


def _learning_curves(history: list[dict]) -> list[tuple[str, Markup]]:
    stages = [epoch.get("stage") for epoch in history]
    changes = [i for i in range(1, len(stages)) if stages[i] != stages[i - 1]]
    epochs = np.arange(1, len(history) + 1)
    charts = []
    for title, lines in _CURVES:
        figure, axes = _chart()
        for key, label, colour, dashes in lines:
            values = np.array([_number(epoch.get(key)) for epoch in history])
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


def _score_histogram(unknown_scores: dict | None, threshold: float) -> Markup | None:
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
    return Markup(svg.replace(">", f"><title>{title}</title>", 1))


def _as_image(image: Image.Image | np.ndarray) -> Image.Image:
    if isinstance(image, Image.Image):
        return image.convert("RGB")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(
            "image: expected a PIL image or a uint8 array [h, w, 3], "
            f"received {image.dtype} {image.shape}"
        )
    return Image.fromarray(image)


def _data_uri(image: Image.Image | np.ndarray) -> str:
    thumbnail = _as_image(image)
    thumbnail.thumbnail((THUMBNAIL_SIZE, THUMBNAIL_SIZE))
    buffer = io.BytesIO()
    # Through an array: what the file carries beside its pixels stays out.
    Image.fromarray(np.asarray(thumbnail)).save(buffer, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
