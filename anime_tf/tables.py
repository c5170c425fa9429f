"""Tables for the terminal. Names of folders and files never pass as Rich markup."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:  # keeps SciPy out of every command's start
    from anime_tf.datasets.health import Health

_MOST_LISTED = 20


def metrics_table(metrics: dict) -> Table:
    """Precision, recall and F1 per character, and the summary, for the terminal."""
    table = Table()
    table.add_column("Character")
    for heading in ("Precision", "Recall", "F1", "Pictures"):
        table.add_column(heading, justify="right")
    for name, row in metrics["per_class"].items():
        numbers = [f"{row[key]:.1%}" for key in ("precision", "recall", "f1")]
        if not row["support"]:
            numbers = ["-"] * 3
        table.add_row(plain(name), *numbers, str(row["support"]))
    table.caption = (
        f"accuracy {metrics['accuracy']:.1%}, "
        f"top 3 {metrics['top3_accuracy']:.1%}, "
        f"macro F1 {metrics['macro_f1']:.1%}"
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
        names = plain(pair["true"]), plain(pair["predicted"])
        table.add_row(*names, str(pair["count"]), str(support))
    if not metrics["most_confused"]:
        table.caption = "nobody was taken for somebody else"
    return table


def health_tables(health: "Health") -> Iterator[Table | str]:
    """What `anime-tf data check` says: a table of counts, then one finding each."""
    yield _counts_table(health)
    if health.few:
        yield f"Few pictures (30 and more learn better): {', '.join(health.few)}"
    if health.is_imbalanced:
        yield (
            f"Imbalance {health.imbalance:.1f}:1 between the largest and the smallest "
            "character; training will weigh the rare ones more"
        )
    yield from _listing(
        "Unreadable", [f"{path}: {reason}" for path, reason in health.unreadable]
    )
    yield from _listing("Animated, first frame used", health.animated)
    for title, groups in (
        ("One picture under several characters", health.misfiled),
        ("Duplicates", health.duplicates),
    ):
        lines = [
            f"{'same file' if group.exact else 'same drawing'}: "
            + ", ".join(file.path for file in group.files)
            for group in groups
        ]
        yield from _listing(title, lines)
    yield from _listing("Beside the characters' folders, ignored", health.strays)


def plain(name: str) -> Text:
    """Text without markup, and without the control codes that steer a terminal."""
    return Text("".join(char if char.isprintable() else "\ufffd" for char in name))


def _counts_table(health: "Health") -> Table:
    table = Table()
    table.add_column("Character")
    table.add_column("Pictures", justify="right")
    for name, count in health.counts.items():
        table.add_row(plain(name), str(count))
    table.caption = (
        f"{sum(health.counts.values())} readable pictures, "
        f"{len(health.unreadable)} unreadable files, "
        f"{len(health.duplicates)} groups of duplicates"
    )
    return table


def _listing(title: str, lines: Sequence[str]) -> Iterator[str]:
    if not lines:
        return
    yield f"{title} ({len(lines)}):"
    for line in lines[:_MOST_LISTED]:
        yield f"  {plain(line)}"
    if len(lines) > _MOST_LISTED:
        yield f"  ... and {len(lines) - _MOST_LISTED} more (see --format json)"
