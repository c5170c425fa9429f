import io

import pytest
from rich.console import Console
from rich.table import Table

from anime_tf.progress import Reporter


def _reporter():
    console = Console(file=io.StringIO(), width=80, color_system=None)
    return Reporter(console), console.file


def test_names_are_no_markup():
    reporter, text = _reporter()
    reporter.say("[red]Asuka[/red] [02]")
    with reporter.bar("Reading [bold]data[/bold]", 1) as bar:
        bar.advance("[/] 0.5")
    assert "[red]Asuka[/red] [02]\n" in text.getvalue()
    assert "Reading [bold]data[/bold]" in text.getvalue()
    assert "[/] 0.5" in text.getvalue()


def test_lines_are_not_broken():
    # A path is there to be copied.
    reporter, text = _reporter()
    reporter.say("x" * 200)
    assert text.getvalue() == "x" * 200 + "\n"


def test_a_bar_leaves_one_line_in_a_file():
    reporter, text = _reporter()
    with reporter.bar("Reading") as bar:
        bar.set_total(3)
        for _ in range(3):
            bar.advance()
    assert text.getvalue().count("\n") == 1
    assert "3/3" in text.getvalue()


def test_a_bar_ends_with_its_block():
    reporter, text = _reporter()
    with pytest.raises(KeyboardInterrupt), reporter.bar("Reading", 3):
        raise KeyboardInterrupt
    # Another one can begin.
    with reporter.bar("Testing", 1) as bar:
        bar.advance()
    assert "1/1" in text.getvalue()


def test_silence(capsys):
    reporter = Reporter()
    reporter.say("something", Table())
    with reporter.bar("Reading", 1) as bar:
        bar.advance()
    assert capsys.readouterr() == ("", "")
