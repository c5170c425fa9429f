"""What was learned from a picture file, kept on disk and keyed by its content.

One SQLite file holds fingerprints and letterboxed pixels. A picture that was decoded
once, in whatever folder and by whatever run, is not decoded again. SQLite's
transactions make it safe to kill a run at any moment and to share between runs.
"""

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import numpy as np
import platformdirs

from anime_tf.errors import UserError

# Part of every key. Raise it whenever `images.decode` or `images.letterbox` changes
# the pixels it returns, so that nothing stale is ever served.
PIXEL_CONTRACT = 1
DEFAULT_BYTES = 8 * 1024**3

# The triggers keep the sum of bytes right whichever process adds or drops pictures.
_SCHEMA = """
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS fingerprints (
    key TEXT PRIMARY KEY, width INTEGER, height INTEGER, format TEXT,
    animated INTEGER, phash TEXT, dhash TEXT, problem TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS pixels (
    id INTEGER PRIMARY KEY, key TEXT UNIQUE, used REAL, bytes INTEGER, content BLOB);
CREATE INDEX IF NOT EXISTS pixels_by_use ON pixels (used, bytes);
CREATE TABLE IF NOT EXISTS total (bytes INTEGER);
INSERT INTO total SELECT (SELECT COALESCE(SUM(bytes), 0) FROM pixels)
    WHERE NOT EXISTS (SELECT 1 FROM total);
CREATE TRIGGER IF NOT EXISTS pixels_added AFTER INSERT ON pixels
    BEGIN UPDATE total SET bytes = bytes + new.bytes; END;
CREATE TRIGGER IF NOT EXISTS pixels_dropped AFTER DELETE ON pixels
    BEGIN UPDATE total SET bytes = bytes - old.bytes; END;
COMMIT;
"""


@dataclass(frozen=True)
class Fingerprint:
    """What is remembered of a picture; the hashes are 64-bit, as 16 hex digits."""

    width: int = 0
    height: int = 0
    format: str = ""
    animated: bool = False
    phash: str = ""
    dhash: str = ""
    problem: str = ""


class PictureCache:
    """Fingerprints and pixels by content hash.

    Safe to use from several threads and processes.

    Args:
        cache_dir: Folder of the cache; made if it is absent.
        max_bytes: Most bytes of pixels to keep on disk. When it is full the pictures
            used longest ago make room; a collection larger than this is decoded
            anew where it does not fit.

    Raises:
        UserError: If the folder cannot be written or holds a damaged cache, here and
            in every method.
    """

    def __init__(self, cache_dir: Path | str, max_bytes: int):
        self.filepath = Path(cache_dir) / "pictures.sqlite"
        self.max_bytes = max_bytes
        self._lock = threading.Lock()
        self._database = None
        try:
            self.filepath.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(
                self.filepath, timeout=60, check_same_thread=False
            )
            # Refused while another process is doing just this: then it is done.
            with suppress(sqlite3.OperationalError):
                self._database.execute("PRAGMA journal_mode=WAL")
            # A power cut may cost the newest entries of a cache: no harm done.
            self._database.execute("PRAGMA synchronous=OFF")
            self._database.executescript(_SCHEMA)
        except (OSError, sqlite3.Error) as error:
            if self._database:
                self._database.close()
            raise self._unusable(error) from error
        self._opened = time.time()

    def fingerprint(self, sha256: str) -> Fingerprint | None:
        """Returns what is known of the file with this content, or None."""
        names = ", ".join(field.name for field in fields(Fingerprint))
        row = self._select(f"SELECT {names} FROM fingerprints", _key(sha256))
        return Fingerprint(*row[:3], bool(row[3]), *row[4:]) if row else None

    def pixels(self, sha256: str, size: int) -> np.ndarray | None:
        """Returns the picture as uint8 `[size, size, 3]` (read-only), or None."""
        row = self._select("SELECT content FROM pixels", _key(sha256, size))
        if row is None or len(row[0]) != size * size * 3:
            return None
        return np.frombuffer(row[0], np.uint8).reshape(size, size, 3)

    def has_pixels(self, sha256: str, size: int) -> bool:
        return self._select("SELECT 1 FROM pixels", _key(sha256, size)) is not None

    def add_fingerprints(self, found: list[tuple[str, Fingerprint]]) -> None:
        """Remembers fingerprints, given as `(sha256, fingerprint)`."""
        rows = [(_key(sha256), *astuple(entry)) for sha256, entry in found]
        with self._writing() as database:
            database.executemany(
                "INSERT OR REPLACE INTO fingerprints VALUES (?,?,?,?,?,?,?,?)", rows
            )

    def add_pixels(self, size: int, found: list[tuple[str, np.ndarray]]) -> None:
        """Remembers pictures, given as `(sha256, pixels)`, as far as they fit."""
        entries = {_key(sha256, size): pixels for sha256, pixels in found}
        now = time.time()
        with self._writing() as database:
            query = "SELECT 1 FROM pixels WHERE key=?"
            rows = [
                (key, now, pixels.nbytes, pixels.tobytes())
                for key, pixels in entries.items()
                if database.execute(query, (key,)).fetchone() is None
            ]
            room = self._make_room(sum(row[2] for row in rows))
            database.executemany(
                "INSERT INTO pixels (key, used, bytes, content) VALUES (?,?,?,?)",
                rows[: room // (3 * size**2)],
            )

    def mark_used(self, size: int, digests: list[str]) -> None:
        """Notes that these pictures are in use, so that others make room first."""
        rows = [(time.time(), _key(sha256, size)) for sha256 in digests]
        with self._writing() as database:
            database.executemany("UPDATE pixels SET used=? WHERE key=?", rows)

    def close(self) -> None:
        """Ends it; whoever still reads in another thread is refused."""
        with self._lock:
            self._database.close()

    def _select(self, query: str, key: str) -> tuple | None:
        try:
            with self._lock:
                return self._database.execute(f"{query} WHERE key=?", (key,)).fetchone()
        except sqlite3.Error as error:
            raise self._unusable(error) from error

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction, committed at the end of the block."""
        try:
            with self._lock, self._database as database:
                # One that began by reading could not wait for another process's
                # writing: it would fail at once ("database is locked").
                database.execute("BEGIN IMMEDIATE")
                yield database
        except sqlite3.Error as error:
            raise self._unusable(error) from error

    def _unusable(self, error: Exception) -> UserError:
        return UserError(
            f"the picture cache {self.filepath} cannot be used ({error}); "
            "choose another folder with --cache-dir or delete that file"
        )

    def _make_room(self, incoming: int) -> int:
        """Drops the pictures used longest ago, but none used since this opening.

        Returns:
            How many bytes there is room for now.
        """
        total = self._database.execute("SELECT bytes FROM total").fetchone()[0]
        excess = total + incoming - self.max_bytes
        if excess <= 0:
            return incoming
        old = self._database.execute(
            "SELECT id, bytes FROM pixels WHERE used < ? ORDER BY used", (self._opened,)
        )
        doomed, freed = [], 0
        for identifier, size in old:
            doomed.append((identifier,))
            freed += size
            if freed >= excess:
                break
        self._database.executemany("DELETE FROM pixels WHERE id=?", doomed)
        return max(0, incoming - max(0, excess - freed))


def _key(sha256: str, size: int | None = None) -> str:
    suffix = "" if size is None else f"-{size}"
    return f"{PIXEL_CONTRACT}-{sha256}{suffix}"


def open_cache(
    cache_dir: Path | str | None = None, max_bytes: int | None = None
) -> PictureCache:
    """Opens the cache in a folder; by default the platform's own, with 8 GiB."""
    folder = cache_dir or platformdirs.user_cache_dir("anime_tf")
    return PictureCache(folder, DEFAULT_BYTES if max_bytes is None else max_bytes)
