"""The page a person reads about a generator: figures, charts and sheets of pictures."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from anime_tf.charts import loss_curves
from anime_tf.metrics.drawing import MIN_FID_PICTURES
from anime_tf.pages import data_uri, finite, write_page

_FIGURES = (
    "kid",
    "fid",
    "precision",
    "recall",
    "diversity_ratio",
    "memorisation_ratio",
    "hit_rate",
    "checkerboard_score",
    "checkerboard_ratio",
)


def write_drawing_report(
    filepath: Path | str,
    *,
    title: str,
    metrics: dict,
    history: list[dict],
    sheets: Sequence[tuple[str, str, bytes, str]],
    settings: Mapping[str, object],
) -> None:
    """Writes one self-contained HTML file that works offline and on a phone.

    Args:
        filepath: Where to write; replaced in one step, or left as it was.
        title: Heading of the report.
        metrics: `features`, the network in whose features all is measured; `judge`,
            the classifier of the hit rate, or None; `num_generated`, drawings of each
            character; `step` and `best_step`, the last one and the one judged here;
            `characters`: name -> `kid`, `kid_error`, `fid` (or None), `precision`,
            `recall`, `diversity_ratio`, `memorisation_ratio`, `hit_rate` (or None),
            `checkerboard_score`, `checkerboard_ratio` and `num_real`.
        history: As `charts.loss_curves` takes it.
        sheets: Title, caption, content and media type of each picture to show.
        settings: Name -> value, what the generator was trained with.

    Raises:
        ValueError: If the metrics name no character.
    """
    characters = metrics["characters"]
    if not characters:
        raise ValueError("metrics: expected at least one character, received none")
    write_page(
        filepath,
        "generator_report.html.j2",
        title=title,
        metrics=metrics,
        mean={key: _mean(characters, key) for key in _FIGURES},
        kid_error=_error_of_mean(characters),
        characters=_worst_first(characters),
        min_fid_pictures=MIN_FID_PICTURES,
        curves=loss_curves(history),
        sheets=[
            (name, caption, data_uri(content, media_type))
            for name, caption, content, media_type in sheets
        ],
        settings=[(name, _readable(value)) for name, value in settings.items()],
    )


def _mean(characters: Mapping[str, dict], key: str) -> float | None:
    """Mean over the characters for whom it was measured, or None."""
    values = [finite(figures[key]) for figures in characters.values()]
    values = [value for value in values if not math.isnan(value)]
    return sum(values) / len(values) if values else None


def _error_of_mean(characters: Mapping[str, dict]) -> float:
    """Standard error of the mean KID, as the characters are measured apart."""
    errors = [finite(figures["kid_error"]) for figures in characters.values()]
    return math.hypot(*errors) / len(errors)


def _worst_first(characters: Mapping[str, dict]) -> list[tuple[str, dict]]:
    return sorted(characters.items(), key=lambda row: -finite(row[1]["kid"], -math.inf))


def _readable(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_readable, value))
    return str(value)
