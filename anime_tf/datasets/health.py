"""What is good and bad about a collection, before any training."""

from collections import Counter
from dataclasses import dataclass

from anime_tf.datasets.duplicates import DuplicateGroup, duplicate_groups
from anime_tf.datasets.image_folder import FolderScan

FEW_PICTURES = 30
MAX_IMBALANCE = 3.0


@dataclass(frozen=True)
class Health:
    """The findings about one collection.

    Attributes:
        counts: Readable pictures per character.
        unreadable: `(path, reason)` of files that cannot be used.
        animated: Paths of animated files; their first frame is used.
        duplicates: Groups of files of one character that show one drawing.
        misfiled: Groups that are filed under two or more characters.
        few: Characters with fewer than `FEW_PICTURES` pictures.
        imbalance: Largest count over the smallest, at least 1.
        strays: Files beside the characters' folders.
    """

    counts: dict[str, int]
    unreadable: tuple[tuple[str, str], ...]
    animated: tuple[str, ...]
    duplicates: tuple[DuplicateGroup, ...]
    misfiled: tuple[DuplicateGroup, ...]
    few: tuple[str, ...]
    imbalance: float
    strays: tuple[str, ...]

    @property
    def is_imbalanced(self) -> bool:
        return self.imbalance > MAX_IMBALANCE

    def to_dict(self) -> dict:
        """Returns the findings, JSON-ready."""

        def describe(groups: tuple[DuplicateGroup, ...]) -> list[dict]:
            return [
                {"exact": group.exact, "files": [file.path for file in group.files]}
                for group in groups
            ]

        return {
            "counts": self.counts,
            "unreadable": dict(self.unreadable),
            "animated": list(self.animated),
            "duplicates": describe(self.duplicates),
            "misfiled": describe(self.misfiled),
            "few": list(self.few),
            "imbalance": self.imbalance,
            "strays": list(self.strays),
        }


def examine(scan: FolderScan) -> Health:
    """Judges a scanned collection."""
    counted = Counter(file.label for file in scan.readable)
    counts = {name: counted[name] for name in scan.class_names}
    present = [count for count in counts.values() if count] or [1]
    groups = duplicate_groups(scan.readable)
    return Health(
        counts=counts,
        unreadable=tuple(
            (file.path, file.fingerprint.problem)
            for file in scan.files
            if not file.readable
        ),
        animated=tuple(f.path for f in scan.readable if f.fingerprint.animated),
        duplicates=tuple(group for group in groups if len(group.labels) == 1),
        misfiled=tuple(group for group in groups if len(group.labels) > 1),
        few=tuple(name for name, count in counts.items() if count < FEW_PICTURES),
        imbalance=max(present) / min(present),
        strays=scan.strays,
    )
