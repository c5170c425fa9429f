"""Predictions as a table for people, or as CSV, JSON, JSON lines for programs."""

import csv
import io
import json
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from anime_tf.prediction import Prediction
from anime_tf.tables import plain

STYLES = ("table", "csv", "json", "jsonl")


def render(predictions: Sequence[Prediction], style: str) -> str:
    """Returns the predictions as text in one of `STYLES`, ending in a new line.

    The fields of the styles for programs: path, name (empty if unreadable), confidence
    (4 digits), is_unknown, known_score, top (names with probabilities), problem.
    """
    if style == "table":
        return _table(predictions)
    rows = [_row(prediction) for prediction in predictions]
    if style == "csv":
        return _csv(rows)
    if style == "json":
        return json.dumps(rows, ensure_ascii=False, indent=1) + "\n"
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _row(prediction: Prediction) -> dict:
    return {
        "path": prediction.source,
        "name": prediction.name,
        "confidence": round(prediction.confidence, 4),
        "is_unknown": prediction.is_unknown,
        "known_score": round(prediction.known_score, 3),
        "top": {name: round(value, 4) for name, value in prediction.top},
        "problem": prediction.problem,
    }


def _table(predictions: Sequence[Prediction]) -> str:
    table = Table()
    table.add_column("picture", overflow="fold")
    for heading in ("name", "confidence", "likeliest"):
        table.add_column(heading)
    for prediction in predictions:
        likeliest = ", ".join(
            f"{name} {value:.0%}" for name, value in prediction.top if value >= 0.005
        )
        if prediction.problem:
            cells = ("", "", prediction.problem)
        else:
            cells = (prediction.name, f"{prediction.confidence:.1%}", likeliest)
        table.add_row(*map(plain, (prediction.source, *cells)))
    console = Console(file=io.StringIO())
    console.width = Console().width
    console.print(table)
    return console.file.getvalue()


def _csv(rows: list[dict]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        top = "; ".join(f"{name}={value}" for name, value in row["top"].items())
        writer.writerow({**row, "top": top})
    return text.getvalue()
