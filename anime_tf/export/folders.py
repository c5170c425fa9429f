"""Writing an export so that a killed run leaves the last good one."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path

from anime_tf.errors import UserError
from anime_tf.export.records import EXPORT, PARITY

_ENDS = ("tflite", "json")
# All that exports write, in either format.
_WRITTEN = (
    EXPORT,
    PARITY,
    "saved_model.pb",
    "fingerprint.pb",
    "variables",
    "assets",
    "assets.extra",
    *(f"{kind}_*.{end}" for kind in ("classifier", "generator") for end in _ENDS),
)


def check_target(out: Path) -> None:
    """Raises `UserError` unless a folder is new, empty, or an older export.

    One that holds anything else besides is somebody's: it would be replaced whole.
    """
    if out.exists() and (_is_current(out) or os.path.ismount(out)):
        raise UserError(
            f"--out is replaced as a whole, and {out} cannot be: it is a mount point, "
            "or the current folder is in it; name a folder inside it"
        )
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not (out / EXPORT).is_file():
        raise UserError(f"--out needs a new or empty folder, {out} is neither")
    for path in sorted(out.iterdir()):
        if not _is_written(path):
            raise UserError(
                f"--out {out} holds an older export, and {path.name}, which is none of "
                "it: name a new folder"
            )


@contextmanager
def publishing(out: Path) -> Iterator[Path]:
    """Gives a new folder beside `out`, and puts it in its place at the end; on errors
    the old export stays as it was."""
    check_target(out)
    out = out.resolve()
    out.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=".writing-", dir=out.parent))
    fresh, old = work / "new", work / "old"
    try:
        fresh.mkdir()
        yield fresh
        _replace(out, fresh, old)
    finally:
        # If even the way back was barred, both are left where they are.
        if not (fresh.exists() and old.exists()):
            shutil.rmtree(work, ignore_errors=True)


def _is_current(folder: Path) -> bool:
    return Path.cwd().is_relative_to(folder.resolve())


def _is_written(path: Path) -> bool:
    """Whether something in a folder may come from an export, by its name."""
    if path.name == "assets":  # ours is always empty
        return path.is_dir() and not any(path.iterdir())
    return any(fnmatch(path.name, pattern) for pattern in _WRITTEN)


def _replace(out: Path, fresh: Path, old: Path) -> None:
    try:
        if out.exists():
            out.rename(old)
        fresh.rename(out)
    except BaseException:  # Ctrl-C between the two included
        if old.exists() and not out.exists():
            old.rename(out)
        raise
