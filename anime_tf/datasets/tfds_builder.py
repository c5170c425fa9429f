"""The builder that turns folders of characters into a TFDS dataset.

This module imports tensorflow-datasets, which is an extra: only `tfds_export` imports
it, and only when it is needed.
"""

import io
from collections.abc import Callable, Iterator
from pathlib import Path

import tensorflow_datasets as tfds
from joblib import Parallel, delayed
from PIL import Image

from anime_tf import images
from anime_tf.datasets.manifest import SPLITS, Item, Manifest
from anime_tf.errors import UserError

# Pictures that are encoded ahead of the writer.
_CHUNK = 128

# Key, file, label.
_Task = tuple[str, Path, int]


class AnimeCharacters(tfds.core.GeneratorBasedBuilder):
    """Pictures of characters in the split of a manifest.

    An example holds `image` (PNG, upright RGB, transparency on white), `label` (the
    character) and `path` (of the file it was made from, relative to its collection).

    Args:
        manifest: The pictures and their parts; what it leaves out stays out. Without
            one the builder only reads what was built before.
        image_size: Side of the square to letterbox into, or None for the size of the
            file.
        use_beam: Whether to build with Apache Beam, in the processes of its runner.
        on_picture: Called after each picture, but not by Beam.
        **arguments: Those of `tfds.core.GeneratorBasedBuilder`, such as `data_dir`.
    """

    VERSION = tfds.core.Version("1.0.0")

    def __init__(
        self,
        *,
        manifest: Manifest | None = None,
        image_size: int | None = None,
        use_beam: bool = False,
        on_picture: Callable[[], None] = lambda: None,
        **arguments,
    ):
        self._manifest, self._image_size = manifest, image_size
        self._use_beam, self._on_picture = use_beam, on_picture
        super().__init__(**arguments)

    def _info(self) -> tfds.core.DatasetInfo:
        side = self._image_size
        names = self._manifest.class_names if self._manifest else None
        return tfds.core.DatasetInfo(
            builder=self,
            description=(
                "Pictures of characters, one of them in each. All copies of one "
                "drawing lie in the same split."
            ),
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(
                        shape=(side, side, 3), encoding_format="png"
                    ),
                    "label": tfds.features.ClassLabel(names=names),
                    "path": tfds.features.Text(),
                }
            ),
            supervised_keys=("image", "label"),
        )

    def _split_generators(self, dl_manager) -> dict:
        if self._manifest is None:
            raise UserError(
                f"{self.name} is built from folders by: anime-tf data export-tfds"
            )
        parts = {name: self._manifest.split(name) for name in SPLITS}
        # TFDS takes no split without examples.
        return {
            name: self._generate_examples(items)
            for name, items in parts.items()
            if items
        }

    def _generate_examples(self, items: list[Item]):
        tasks = [
            # A name that is no Unicode (Linux allows it) cannot be stored as text.
            (
                item.path.encode("utf-8", "backslashreplace").decode(),
                self._manifest.path_of(item),
                item.label,
            )
            for item in items
        ]
        if self._use_beam:
            return _beam_examples(tasks, self._image_size)
        return self._examples(tasks)

    def _log_download_bytes(self) -> None:
        """Says nothing, where TFDS prints of a download that there is none of."""

    _log_download_done = _log_download_bytes

    def _examples(self, tasks: list[_Task]) -> Iterator[tuple[str, dict]]:
        with Parallel(n_jobs=-1, prefer="threads", return_as="generator") as parallel:
            # In chunks, as a slow writer would else leave all of them in memory.
            for start in range(0, len(tasks), _CHUNK):
                chunk = tasks[start : start + _CHUNK]
                jobs = (delayed(_example)(task, self._image_size) for task in chunk)
                for example in parallel(jobs):
                    yield example
                    self._on_picture()


def _beam_examples(tasks: list[_Task], image_size: int | None):
    import apache_beam as beam

    # Without the shuffle all pictures would be made where the list is.
    return beam.Create(tasks) | beam.Reshuffle() | beam.Map(_example, image_size)


def _example(task: _Task, image_size: int | None) -> tuple[str, dict]:
    """Returns the key and the features of one example."""
    key, path, label = task
    try:
        if image_size is None:
            image = images.decode(images.read_bytes(path)).image
        else:
            image = Image.fromarray(images.load_square(path, image_size))
    except images.PictureError as error:
        raise UserError(
            f"{path} was a picture a moment ago and is none now: {error}"
        ) from error
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return key, {"image": buffer.getvalue(), "label": label, "path": key}
