import io
import re

import numpy as np
from rich.console import Console

from anime_tf import tables
from anime_tf.datasets.duplicates import DuplicateGroup
from anime_tf.datasets.health import Health
from anime_tf.datasets.image_folder import Fingerprint, ScannedFile
from anime_tf.metrics.recognition import classification_metrics

NAMES = ("[red]Asuka[/red]", "Rei\x1b[2J", "初音未来")


def test_metrics_table_shows_names_as_they_are():
    text = _print(tables.metrics_table(_metrics([0, 0, 0, 1, 1, 2])))
    assert "[red]Asuka[/red]" in text
    assert "\x1b" not in text
    assert "Rei\ufffd[2J" in text
    assert "初音未来" in text
    # Answered 0 0 1 1 1 1: four of six are right.
    assert "accuracy 66.7%" in text


def test_metrics_table_of_a_character_without_pictures():
    text = _print(tables.metrics_table(_metrics([0, 0, 0, 1, 1, 1])))
    assert re.search(r"初音未来\W+-\W+-\W+-\W+0\b", text)


def test_confusion_summary_names_the_pair():
    metrics = _metrics([0, 0, 0, 1, 1, 2])
    text = _print(tables.confusion_summary(metrics))
    assert re.search(r"\[red\]Asuka\[/red\].*Rei.*1.*3", text)
    metrics["most_confused"] = []
    assert "nobody was taken" in _print(tables.confusion_summary(metrics))


def test_health_tables_name_every_finding():
    twins = tuple(
        ScannedFile(path, path[0], "ab", Fingerprint())
        for path in ("A/1.png", "B/1.png")
    )
    health = Health(
        counts={"A": 90, "B": 3},
        unreadable=(("A/x.jpg", "damaged or truncated"),),
        animated=("A/dance.gif",),
        duplicates=(),
        misfiled=(DuplicateGroup(twins, exact=True),),
        few=("B",),
        imbalance=30.0,
        strays=("note.txt",),
    )
    text = "\n".join(
        finding if isinstance(finding, str) else _print(finding)
        for finding in tables.health_tables(health)
    )
    for part in (
        "A/x.jpg: damaged or truncated",
        "A/dance.gif",
        "same file: A/1.png, B/1.png",
        "30.0:1",
        "learn better): B",
        "note.txt",
        "93 readable",
    ):
        assert part in text


def _metrics(labels):
    answers = np.eye(3)[[0, 0, 1, 1, 1, 1]]
    return classification_metrics(np.array(labels), answers, NAMES)


def _print(table):
    console = Console(file=io.StringIO(), width=100, color_system=None)
    console.print(table)
    return console.file.getvalue()
