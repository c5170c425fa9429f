"""Writing an export so that a killed run leaves the last good one."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from anime_tf.errors import UserError
from anime_tf.export.records import EXPORT


def check_target(out: Path) -> None:
    """Raises `UserError` unless a folder is new, empty, or an older export."""
    if not out.exists() or (out / EXPORT).is_file():
        return
    if not out.is_dir() or any(out.iterdir()):
        raise UserError(f"--out needs a new or empty folder, {out} is neither")


@contextmanager
def publishing(out: Path) -> Iterator[Path]:
    """Gives a new folder beside `out`, and puts it in its place at the end; on errors
    the old export stays as it was."""
    check_target(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=".writing-", dir=out.parent))
    try:
        fresh = work / "new"
        fresh.mkdir()
        yield fresh
        if out.exists():
            out.rename(work / "old")
        fresh.rename(out)
    finally:
        shutil.rmtree(work, ignore_errors=True)
