"""Writing files so that a killed run leaves the last good one."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(filepath: Path | str) -> Iterator[Path]:
    """Gives a temporary path to write to, and renames it to `filepath` at the end.

    The temporary name keeps the suffix (writers choose their format by it) and lies
    in the same folder, so that the rename is atomic. Nothing stays behind on errors.
    """
    filepath = Path(filepath)
    filepath.parent.mkdir(parents=True, exist_ok=True)
    suffixes = "".join(filepath.suffixes)
    handle, name = tempfile.mkstemp(
        prefix=".writing-", suffix=suffixes, dir=filepath.parent
    )
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        os.replace(temporary, filepath)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(filepath: Path | str, text: str) -> None:
    """Writes UTF-8 text atomically.

    A file's name that is no Unicode (Linux allows it) becomes an escape, which JSON
    reads back as it was.
    """
    with replacing(filepath) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
