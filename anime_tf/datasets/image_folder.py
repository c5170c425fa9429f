"""Folders of pictures, one per character: list them and look into every file.

    data/all_characters/
        初音未来/
            0001.png
            from the web/cover.WEBP     nested folders belong to the character
        Rem/
            ...

Nothing here ever deletes or changes a picture.
"""

import glob
import hashlib
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import imagehash
import numpy as np
from joblib import Parallel, delayed
from PIL import Image

from anime_tf import images
from anime_tf.datasets.cache import Fingerprint, PictureCache
from anime_tf.errors import UserError

# Files that operating systems leave in every folder; nobody means them as pictures.
_DEBRIS = {"thumbs.db", "desktop.ini", "icon\r"}
_CHUNK = 256
_BATCH = 32
# Files from which on it pays to start processes.
_MANY = 2000

# SHA-256, what was found, and the pixels if they were just decoded.
_Entry = tuple[str, Fingerprint, np.ndarray | None]


@dataclass(frozen=True)
class ScannedFile:
    """One file below a character's folder.

    Attributes:
        path: Path relative to the scanned folder, with forward slashes.
        label: Name of the character's folder.
        sha256: Hash of the file's content, hex; empty when it cannot be read.
        fingerprint: What was found inside; `fingerprint.problem` says why it cannot
            be used, and is empty when it can.
        split: The part of a run that the collection itself gives it, `validation` or
            `test`; empty when that is open, as it always is in folders.
    """

    path: str
    label: str
    sha256: str
    fingerprint: Fingerprint
    split: str = ""

    @property
    def readable(self) -> bool:
        return not self.fingerprint.problem


@dataclass(frozen=True)
class FolderScan:
    """Everything found below one folder of character folders.

    Attributes:
        root: The folder.
        class_names: Names of the characters' folders, sorted by code point.
        files: All files in them, readable or not, sorted by path.
        strays: Files that lie beside the characters' folders and belong to nobody.
    """

    root: Path
    class_names: tuple[str, ...]
    files: tuple[ScannedFile, ...]
    strays: tuple[str, ...]

    @property
    def readable(self) -> list[ScannedFile]:
        return [file for file in self.files if file.readable]


def list_files(folder: Path | str) -> list[Path]:
    """Returns all files below a folder, sorted, without hidden ones and debris."""
    found = []
    for directory, subfolders, names in os.walk(folder):
        subfolders[:] = sorted(name for name in subfolders if not _is_debris(name))
        found += [Path(directory, name) for name in names if not _is_debris(name)]
    return sorted(found)


def find_pictures(patterns: Iterable[str | Path]) -> list[Path]:
    """Resolves files, folders (all files below, sorted) and globs into paths.

    Raises:
        UserError: If a pattern matches nothing.
    """
    found: list[Path] = []
    for pattern in map(str, patterns):
        if os.path.isdir(pattern):
            matches = list_files(pattern)
        elif os.path.exists(pattern):
            matches = [Path(pattern)]
        else:
            matches = sorted(
                Path(match)
                for match in glob.glob(pattern, recursive=True)
                if os.path.isfile(match)
            )
        if not matches:
            raise UserError(f"no pictures at {pattern}: no such file, folder or glob")
        found += matches
    return list(dict.fromkeys(found))


def find_class_names(root: Path | str) -> tuple[str, ...]:
    """Returns the names of the characters' folders, sorted by code point.

    Raises:
        UserError: If the folder does not exist or holds no folder.
    """
    root = Path(root)
    try:
        names = sorted(entry.name for entry in root.iterdir() if entry.is_dir())
    except FileNotFoundError as error:
        raise UserError(
            f"the folder {root} does not exist; make it with one folder of pictures "
            "per character, or draw a sample cast with: anime-tf data demo"
        ) from error
    except OSError as error:
        raise UserError(
            f"{root} cannot be read as a folder: {error.strerror or error}"
        ) from error
    names = tuple(name for name in names if not _is_debris(name))
    if not names:
        raise UserError(
            f"no character folders in {root}; put each character's pictures into "
            f"{root}/NAME/, or draw a sample cast with: anime-tf data demo"
        )
    return names


def scan_folder(
    root: Path | str,
    cache: PictureCache,
    image_size: int | None = None,
    on_total: Callable[[int], None] | None = None,
    on_file: Callable[[], None] = lambda: None,
) -> FolderScan:
    """Looks into every file below `root/NAME/`, in parallel.

    Args:
        root: Folder that holds one folder per character.
        cache: Remembers fingerprints and pixels by content.
        image_size: If given, the letterboxed pixels of that size go into the cache
            on the way, so that every file is decoded at most once.
        on_total: Called once with the number of files.
        on_file: Called after each file.

    Returns:
        A `FolderScan`.

    Raises:
        UserError: If the folder does not exist, holds no character's folder, or
            holds no file at all.
    """
    root = Path(root)
    class_names = find_class_names(root)
    labelled = [
        (path, name) for name in class_names for path in list_files(root / name)
    ]
    if not labelled:
        raise UserError(
            f"no files in the {len(class_names)} folders of {root}; "
            "put each character's pictures into its own folder there"
        )
    if on_total:
        on_total(len(labelled))
    looked = look_into([path for path, _ in labelled], cache, image_size, on_file)
    files = tuple(
        ScannedFile(path.relative_to(root).as_posix(), name, sha256, fingerprint)
        for (path, name), (sha256, fingerprint) in zip(labelled, looked, strict=True)
    )
    strays = tuple(
        sorted(e.name for e in root.iterdir() if e.is_file() and not _is_debris(e.name))
    )
    return FolderScan(root, class_names, files, strays)


def look_into(
    paths: list[Path],
    cache: PictureCache,
    image_size: int | None = None,
    on_file: Callable[[], None] = lambda: None,
) -> list[tuple[str, Fingerprint]]:
    """Returns `(sha256, fingerprint)` of each file, decoding only unknown contents.

    Arguments are those of `scan_folder`; all cores take part.
    """
    # Processes take a second to start, and then read small pictures faster than
    # threads, which get in each other's way.
    prefer = "processes" if len(paths) >= _MANY else "threads"
    found, saving = [], None
    with (
        Parallel(
            n_jobs=-1, prefer=prefer, return_as="generator", batch_size=_BATCH
        ) as parallel,
        ThreadPoolExecutor(1) as writer,
    ):
        for start in range(0, len(paths), _CHUNK):
            chunk = paths[start : start + _CHUNK]
            known = [_recall(path, cache, image_size) for path in chunk]
            unknown = [p for p, k in zip(chunk, known, strict=True) if k is None]
            fresh = []
            for entry in parallel(delayed(_look)(path, image_size) for path in unknown):
                fresh.append(entry)
                on_file()
            for _ in range(len(known) - len(fresh)):
                on_file()
            rest = iter(fresh)
            looked = [entry or next(rest) for entry in known]
            # This chunk is saved while the next one is read.
            if saving:
                saving.result()
            saving = writer.submit(_save, cache, image_size, looked)
            found += [entry[:2] for entry in looked]
        if saving:
            saving.result()
    return found


def _is_debris(name: str) -> bool:
    return name.startswith(".") or name.lower() in _DEBRIS or name == "__MACOSX"


def _recall(path: Path, cache: PictureCache, image_size: int | None) -> _Entry | None:
    """Returns what is known of a file; None if it must be decoded."""
    try:
        sha256 = hashlib.sha256(images.read_bytes(path)).hexdigest()
    except images.PictureError as error:
        return "", Fingerprint(problem=str(error)), None
    known = cache.fingerprint(sha256)
    if known is None:
        return None
    done = image_size is None or known.problem or cache.has_pixels(sha256, image_size)
    return (sha256, known, None) if done else None


def _look(path: Path, image_size: int | None) -> _Entry:
    """Reads and decodes a file."""
    sha256 = ""
    try:
        content = images.read_bytes(path)
        sha256 = hashlib.sha256(content).hexdigest()
        picture = images.decode(content, at_least=image_size)
    except images.PictureError as error:
        return sha256, Fingerprint(problem=str(error)), None
    pixels = images.letterbox(picture.image, image_size) if image_size else None
    return sha256, _fingerprint(picture), pixels


def _save(cache: PictureCache, image_size: int | None, looked: list[_Entry]) -> None:
    cache.add_fingerprints([(sha256, found) for sha256, found, _ in looked if sha256])
    if image_size is None:
        return
    new = [(sha256, pixels) for sha256, _, pixels in looked if pixels is not None]
    old = [sha256 for sha256, found, px in looked if px is None and not found.problem]
    cache.add_pixels(image_size, new)
    cache.mark_used(image_size, old)


def _fingerprint(picture: images.Picture) -> Fingerprint:
    # Both hashes look at a handful of grey pixels: one small copy serves them.
    small = picture.image.convert("L").resize(
        (64, 64), Image.Resampling.BOX, reducing_gap=2.0
    )
    return Fingerprint(
        width=picture.width,
        height=picture.height,
        format=picture.format,
        animated=picture.animated,
        phash=_hex(imagehash.phash(small)),
        dhash=_hex(imagehash.dhash(small)),
    )


def _hex(image_hash: imagehash.ImageHash) -> str:
    """Writes a hash as its `str` does, in a tenth of the time."""
    return np.packbits(image_hash.hash).tobytes().hex()
