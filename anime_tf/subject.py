"""Who is drawn: the characters, the pictures to learn from, the pictures held out.

Names, pictures and split are those of the guiding classifier's run, so that what is
held out from the one is held out from the other.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from anime_tf.config import DrawConfig
from anime_tf.datasets.cache import PictureCache
from anime_tf.datasets.manifest import Item, Manifest
from anime_tf.datasets.pipeline import PictureStore
from anime_tf.errors import UserError
from anime_tf.run_files import MANIFEST, check_complete
from anime_tf.sampler import find_character

ALL = "all"
_MIN_PICTURES = 4


@dataclass(frozen=True)
class Subject:
    """Attributes:
    manifest: Of the classifier's run, at the place where its pictures are now.
    drawn: Names of the characters to draw.
    """

    manifest: Manifest
    drawn: tuple[str, ...]

    @classmethod
    def find(cls, config: DrawConfig) -> "Subject":
        """Looks the target up in the classifier's run.

        Raises:
            UserError: If there is no such run or character, or its pictures are gone
                or too few.
        """
        folder = Path(config.classifier)
        check_complete(folder)
        manifest = Manifest.load(folder / MANIFEST)
        if config.data_dir is not None:
            manifest = replace(manifest, data_dir=config.data_dir)
        names = manifest.class_names
        drawn = names
        if config.target_class != ALL or ALL in names:
            drawn = (find_character(config.target_class, names, names),)
        subject = cls(manifest, drawn)
        subject._check(folder)
        return subject

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.manifest.class_names

    @property
    def labels(self) -> tuple[int, ...]:
        """The labels of `drawn`."""
        return tuple(self.class_names.index(name) for name in self.drawn)

    @property
    def learnt(self) -> list[Item]:
        """What the generator learns from: all but the test pictures."""
        return self._items("train") + self._items("validation")

    @property
    def held_out(self) -> list[Item]:
        """What neither the classifier nor the generator ever sees."""
        return self._items("test")

    def store(
        self, items: list[Item], image_size: int, cache: PictureCache, memory: int
    ) -> PictureStore:
        """Returns the pictures of some items."""
        paths = [self.manifest.path_of(item) for item in items]
        digests = [item.sha256 for item in items]
        return PictureStore(paths, digests, image_size, cache, memory)

    def _items(self, split: str) -> list[Item]:
        return [
            item for item in self.manifest.split(split) if item.label in self.labels
        ]

    def _check(self, classifier: Path) -> None:
        items = self.learnt + self.held_out
        gone = [p for p in map(self.manifest.path_of, items) if not p.is_file()]
        if gone:
            raise UserError(
                f"{len(gone)} pictures that the classifier in {classifier} was trained "
                f"on are gone (the first: {gone[0]}); say where they are by "
                "--data-dir, or train it again"
            )
        counts = np.bincount(
            [i.label for i in self.learnt], minlength=len(self.class_names)
        )
        for name, label in zip(self.drawn, self.labels, strict=True):
            if counts[label] < _MIN_PICTURES:
                raise UserError(
                    f"{name} has {counts[label]} pictures to learn from, "
                    f"{_MIN_PICTURES} are the least and 30 a good start; add some, and "
                    "train the classifier again"
                )
