"""What a run tells the person who watches it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


class Reporter:
    """Lines of text and progress bars on one console.

    On a terminal the bars move; in a file or a pipe each leaves one line at its end.

    Args:
        console: Where to write; None says nothing at all.
    """

    def __init__(self, console: Console | None = None):
        self.console = console or Console(quiet=True)

    def say(self, *what) -> None:
        """Prints text (Rich markup off: folder names may hold brackets) or a table."""
        self.console.print(*what, markup=False, highlight=False, soft_wrap=True)

    @contextmanager
    def bar(self, title: str, total: int | None = None) -> Iterator["Bar"]:
        """Shows a progress bar while the block runs."""
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self.console) as progress:
            task = progress.add_task(title, total=total, note="")
            yield Bar(lambda **changes: progress.update(task, **changes))


class Bar:
    """One progress bar."""

    def __init__(self, update: Callable[..., None]):
        self._update = update

    def set_total(self, total: int) -> None:
        self._update(total=total)

    def advance(self, note: str | None = None) -> None:
        """Moves on by one, and shows a note beside the bar."""
        self._update(advance=1, **({} if note is None else {"note": note}))
