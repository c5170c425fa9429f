"""The split of a collection into training, validation and test, kept with the run.

The split is made once, before any augmentation: stratified by character, seeded, and
with all pictures of one drawing on one side, so that no test picture was ever seen.
"""

import json
import re
from collections import Counter
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from anime_tf.datasets.duplicates import group_ids
from anime_tf.datasets.image_folder import FolderScan
from anime_tf.errors import UserError

SPLITS = ("train", "validation", "test")
LEFT_OUT = "left out"
_FORMAT = 1


@dataclass(frozen=True)
class Item:
    """One picture of a run.

    Attributes:
        path: Path relative to `Manifest.data_dir`, or to `test_dir` if `held_out`.
        label: Index into `Manifest.class_names`.
        sha256: Hash of the file's content, hex.
        group: Number of the drawing it shows; duplicates share it.
        split: One of `SPLITS`, or `LEFT_OUT`.
        held_out: Whether it comes from an explicit test folder.
    """

    path: str
    label: int
    sha256: str
    group: int
    split: str
    held_out: bool = False


@dataclass(frozen=True)
class Manifest:
    """Which picture plays which part in a run. JSON in and out."""

    data_dir: str
    class_names: tuple[str, ...]
    items: tuple[Item, ...]
    skipped: tuple[tuple[str, str], ...] = ()
    test_dir: str | None = None

    def split(self, name: str) -> list[Item]:
        return [item for item in self.items if item.split == name]

    def path_of(self, item: Item) -> Path:
        return Path(self.test_dir if item.held_out else self.data_dir) / item.path

    def counts(self) -> dict[str, dict[str, int]]:
        """Returns pictures per character and split."""
        counts = {name: dict.fromkeys(SPLITS, 0) for name in self.class_names}
        for item in self.items:
            if item.split in SPLITS:
                counts[self.class_names[item.label]][item.split] += 1
        return counts

    def to_json(self) -> str:
        text = json.dumps(
            {"format": _FORMAT, **asdict(self)}, ensure_ascii=False, indent=1
        )
        # A file name that is no valid UTF-8 comes as lone surrogates: no encoding
        # takes them as they are, JSON's escapes do.
        return re.sub(r"[\ud800-\udfff]", lambda m: f"\\u{ord(m[0]):04x}", text)

    @classmethod
    def load(cls, filepath: Path) -> "Manifest":
        """Reads a manifest; raises `UserError` when it is absent or not valid."""
        try:
            content = json.loads(filepath.read_text(encoding="utf-8"))
            if content.pop("format") != _FORMAT:
                raise ValueError("made by another version")
            return cls(
                data_dir=content["data_dir"],
                class_names=tuple(content["class_names"]),
                items=tuple(Item(**item) for item in content["items"]),
                skipped=tuple((path, why) for path, why in content["skipped"]),
                test_dir=content["test_dir"],
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{filepath} is no usable manifest: {error}") from error


def build_manifest(
    scan: FolderScan,
    fractions: tuple[float, float, float] = (0.7, 0.15, 0.15),
    seed: int = 0,
    test_scan: FolderScan | None = None,
) -> Manifest:
    """Splits a scanned collection.

    Args:
        scan: The collection. A part that it holds out itself stays as it is, but for
            files that are filed under two characters.
        fractions: Shares of training, validation and test; they sum to 1. The share
            of a part that the collection holds out itself, or of the test with
            `test_scan`, goes to the others in their proportion.
        seed: Seed of the split; the same seed gives the same split always.
        test_scan: An explicit test folder. Pictures of the collection that show a
            drawing of it are left out of the run.

    Returns:
        A `Manifest`.

    Raises:
        UserError: If fewer than two characters have a readable picture, or the test
            folder names a character that the collection does not have.
    """
    class_names = _usable_class_names(scan)
    files, held_out = scan.readable, []
    if test_scan is not None:
        held_out = test_scan.readable
        _check_test_names(test_scan, class_names)
        fractions = (fractions[0], fractions[1], 0.0)
    own = {file.split for file in files}
    fractions = [
        0.0 if name in own else share
        for name, share in zip(SPLITS, fractions, strict=True)
    ]
    everything = files + held_out
    groups = group_ids(everything)
    numbers = {name: index for index, name in enumerate(class_names)}
    items = [
        Item(file.path, numbers[file.label], file.sha256, int(group), file.split)
        for file, group in zip(everything, groups, strict=True)
    ]
    items, tests = items[: len(files)], items[len(files) :]
    items = _leave_out(items, {item.group for item in tests})
    items = _assign(items, np.array(fractions) / sum(fractions), seed)
    items += [replace(item, split="test", held_out=True) for item in tests]
    skipped = [(f.path, f.fingerprint.problem) for f in scan.files if not f.readable]
    if test_scan is not None:
        skipped += [
            (str(test_scan.root / f.path), f.fingerprint.problem)
            for f in test_scan.files
            if not f.readable
        ]
    return Manifest(
        data_dir=str(scan.root.resolve()),
        class_names=class_names,
        items=tuple(items),
        skipped=tuple(skipped),
        test_dir=str(test_scan.root.resolve()) if test_scan else None,
    )


def num_shared_drawings(manifest: Manifest) -> int:
    """Returns how many training pictures show a drawing that is held out as well.

    None, but where a collection came with parts of its own.
    """
    held_out = manifest.split("validation") + manifest.split("test")
    groups = {item.group for item in held_out}
    return sum(item.group in groups for item in manifest.split("train"))


def labels_of(items: list[Item]) -> np.ndarray:
    """Returns the labels as int64 `[n]`."""
    return np.array([item.label for item in items], np.int64)


def some_of_each(items: list[Item], count: int) -> list[Item]:
    """Returns at most `count` items of each label, the first ones."""
    taken: Counter[int] = Counter()
    chosen = []
    for item in items:
        if taken[item.label] < count:
            taken[item.label] += 1
            chosen.append(item)
    return chosen


def _usable_class_names(scan: FolderScan) -> tuple[str, ...]:
    present = {file.label for file in scan.readable}
    names = tuple(name for name in scan.class_names if name in present)
    if not names:
        raise UserError(
            f"none of the {len(scan.files)} files in {scan.root} is a readable "
            "JPEG, PNG, WebP, BMP or GIF picture; see: anime-tf data check"
        )
    if len(names) == 1:
        raise UserError(
            f"only one character with readable pictures in {scan.root} ({names[0]}); "
            "add at least one more character's folder, so that there is something "
            "to tell apart"
        )
    return names


def _check_test_names(test_scan: FolderScan, class_names: tuple[str, ...]) -> None:
    strangers = sorted({f.label for f in test_scan.readable} - set(class_names))
    if strangers:
        raise UserError(
            f"the test folder {test_scan.root} has characters that the training "
            f"folder does not have: {', '.join(strangers)}; rename or remove them "
            "(pictures of nobody known belong into --unknown-dir of evaluate)"
        )
    if not test_scan.readable:
        raise UserError(f"no readable picture in the test folder {test_scan.root}")


def _leave_out(items: list[Item], test_groups: set[int]) -> list[Item]:
    """Leaves out drawings of the test folder, equal files of two characters, and
    open files that equal one which the collection holds out."""
    held_out = {item.sha256 for item in items if item.split}
    labels: dict[str, set[int]] = {}
    for item in items:
        labels.setdefault(item.sha256, set()).add(item.label)
    return [
        replace(item, split=LEFT_OUT)
        if item.group in test_groups
        or len(labels[item.sha256]) > 1
        or (not item.split and item.sha256 in held_out)
        else item
        for item in items
    ]


def _assign(items: list[Item], fractions: np.ndarray, seed: int) -> list[Item]:
    """Gives every drawing, in seeded order, to the split that lacks it most."""
    open_items = [item for item in items if not item.split]
    num_classes = max((item.label for item in items), default=-1) + 1
    sizes: dict[int, np.ndarray] = {}
    for item in open_items:
        sizes.setdefault(item.group, np.zeros(num_classes))[item.label] += 1
    missing = np.outer(fractions, sum(sizes.values(), np.zeros(num_classes)))
    order = list(sizes)
    np.random.default_rng(seed).shuffle(order)
    # Large groups first, while every split still has room for them.
    order.sort(key=lambda group: -sizes[group].sum())
    chosen = {}
    for group in order:
        need = missing @ sizes[group] / sizes[group].sum()
        choice = int(np.argmax(need))
        missing[choice] -= sizes[group]
        chosen[group] = SPLITS[choice]
    return [
        item if item.split else replace(item, split=chosen[item.group])
        for item in items
    ]
