"""Characters from the datasets of tensorflow-datasets (TFDS).

A dataset is read by unpacking it once, beside the picture cache:

    CACHE/tfds/NAME-0123456789ab/
        train/
            000/000000.png      split, number of the label, number of the example
            ...
        test/
            ...

From there on its pictures are files as any others: a run's manifest names them, and
evaluating, resuming and drawing read them without knowing of TFDS.
"""

import hashlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from anime_tf.datasets.cache import PictureCache
from anime_tf.datasets.image_folder import (
    FolderScan,
    ScannedFile,
    list_files,
    look_into,
)
from anime_tf.datasets.manifest import SPLITS
from anime_tf.errors import UserError

if TYPE_CHECKING:  # an extra, and not needed before it is asked for
    import tensorflow_datasets as tfds


def load_library():
    """Returns tensorflow-datasets; raises `UserError` with advice if it is absent."""
    try:
        import tensorflow_datasets
    except ImportError as error:
        raise UserError(
            f"tensorflow-datasets is needed for this and cannot be imported ({error}); "
            "install it with: pip install 'anime_tf[tfds]'"
        ) from error
    return tensorflow_datasets


def find_dataset(name_or_dir: str) -> "tfds.core.DatasetBuilder":
    """Finds a dataset of image classification, downloading it if TFDS knows how.

    Args:
        name_or_dir: A name as in `tfds.load`, or a folder that holds one dataset.

    Returns:
        A builder whose dataset is on disk, with the features `image` and `label` and
        a split `train`.

    Raises:
        UserError: If there is no such dataset.
    """
    library = load_library()
    folder = Path(name_or_dir).expanduser()
    if folder.is_dir():
        builder = _stored(library, _folder_below(folder))
    else:
        builder = _named(library, name_or_dir)
    _check_features(library, builder, name_or_dir)
    if "train" not in _own_splits(builder):
        raise UserError(
            f"the dataset {name_or_dir} has nothing to learn from: its splits are "
            f"{', '.join(builder.info.splits) or 'none at all'}, and none is a train "
            "with examples"
        )
    return builder


def unpack(
    builder: "tfds.core.DatasetBuilder",
    folder: Path,
    on_total: Callable[[int], None] = lambda total: None,
    on_example: Callable[[], None] = lambda: None,
) -> Path:
    """Writes the encoded pictures of a dataset to files, once.

    Args:
        builder: From `find_dataset`.
        folder: Where unpacked datasets are kept.
        on_total: Called once with the number of examples; 0 if they are there already.
        on_example: Called after each example.

    Returns:
        The folder of this dataset's pictures. Its name changes with the dataset, so
        that no run ever finds others in it than it began with.
    """
    target = folder / f"{builder.name}-{_identity(builder)}"
    if target.is_dir():
        on_total(0)
        return target
    splits = _own_splits(builder)
    on_total(sum(builder.info.splits[split].num_examples for split in splits))
    folder.mkdir(parents=True, exist_ok=True)
    num_classes = builder.info.features["label"].num_classes
    with tempfile.TemporaryDirectory(prefix=".writing-", dir=folder) as work:
        ready = Path(work, "ready")
        for split in splits:
            (ready / split).mkdir(parents=True)
            for number, (content, label) in enumerate(_examples(builder, split)):
                # Benchmarks keep the labels of their test pictures to themselves.
                if 0 <= label < num_classes:
                    suffix = ".jpg" if content.startswith(b"\xff\xd8") else ".png"
                    path = ready / split / f"{label:03}" / f"{number:06}{suffix}"
                    path.parent.mkdir(exist_ok=True)
                    path.write_bytes(content)
                on_example()
        try:
            ready.rename(target)
        except OSError:
            # Another run was faster; its files are the same.
            if not target.is_dir():
                raise
    return target


def scan_unpacked(
    builder: "tfds.core.DatasetBuilder",
    root: Path,
    cache: PictureCache,
    image_size: int | None = None,
    on_total: Callable[[int], None] = lambda total: None,
    on_file: Callable[[], None] = lambda: None,
) -> FolderScan:
    """Looks into every picture of an unpacked dataset, as `scan_folder` into folders.

    Args:
        builder: From `find_dataset`.
        root: From `unpack`.
        cache, image_size, on_total, on_file: As for `scan_folder`.

    Returns:
        A `FolderScan` whose files know their part where the dataset has parts of its
        own. The names of the characters keep the dataset's order.
    """
    names = tuple(builder.info.features["label"].names)
    paths = list_files(root)
    on_total(len(paths))
    looked = look_into(paths, cache, image_size, on_file)
    files = []
    for path, (sha256, fingerprint) in zip(paths, looked, strict=True):
        split, label, _ = path.relative_to(root).parts
        files.append(
            ScannedFile(
                path.relative_to(root).as_posix(),
                names[int(label)],
                sha256,
                fingerprint,
                # What the dataset does not hold out itself is taken from here.
                "" if split == "train" else split,
            )
        )
    return FolderScan(root, names, tuple(files), strays=())


def left_unused(builder: "tfds.core.DatasetBuilder", scan: FolderScan) -> list[str]:
    """Returns sentences about what a dataset holds beyond what was scanned."""
    own = _own_splits(builder)
    others = sorted(set(builder.info.splits) - set(own))
    notes = [f"not used: the splits {', '.join(others)}"] if others else []
    count = sum(builder.info.splits[split].num_examples for split in own)
    if count > len(scan.files):
        lacking = count - len(scan.files)
        notes.append(f"skipped, as they have no label: {lacking} examples")
    return notes


def _folder_below(folder: Path) -> Path:
    """Finds the one dataset at or below a folder: NAME/CONFIG/VERSION at most."""
    patterns = ["/".join([*"*" * depth, "dataset_info.json"]) for depth in range(4)]
    found = sorted(path.parent for p in patterns for path in folder.glob(p))
    found = [path for path in found if ".writing-" not in str(path)]
    if not found:
        raise UserError(
            f"no dataset of tensorflow-datasets in {folder} (there is no "
            "dataset_info.json); make one with: anime-tf data export-tfds"
        )
    if len(found) > 1:
        raise UserError(
            f"{len(found)} datasets in {folder}; name one of them: "
            f"{', '.join(map(str, found))}"
        )
    return found[0]


def _stored(library, folder: Path) -> "tfds.core.DatasetBuilder":
    try:
        return library.builder_from_directory(folder)
    # Whatever a damaged description makes the library raise.
    except Exception as error:
        raise _unreadable(folder, error) from error


def _unreadable(folder: Path | str, error: Exception) -> UserError:
    return UserError(f"the dataset in {folder} cannot be read: {_first_line(error)}")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _named(library, name: str) -> "tfds.core.DatasetBuilder":
    try:
        builder = library.builder(name)
        builder.download_and_prepare()
    # Downloading and preparing is somebody else's code for each of the datasets:
    # whatever it raises, there is no dataset.
    except Exception as error:
        raise UserError(
            f"{name} is neither a folder nor a dataset that tensorflow-datasets can "
            f"prepare: {_first_line(error)}"
        ) from error
    return builder


def _check_features(library, builder, name: str) -> None:
    features, types = builder.info.features, library.features
    parts = dict(features) if isinstance(features, types.FeaturesDict) else {}
    image, label = parts.get("image"), parts.get("label")
    has_names = isinstance(label, types.ClassLabel) and label.num_classes
    if not has_names or not isinstance(image, types.Image):
        raise UserError(
            f"the dataset {name} is not one of image classification: it needs the "
            "features image (Image) and label (ClassLabel), and has "
            f"{', '.join(parts) or features}"
        )
    if image.np_dtype == np.float32:
        raise UserError(f"the images of the dataset {name} are no colours but floats")


def _own_splits(builder) -> list[str]:
    splits = builder.info.splits
    return [name for name in SPLITS if name in splits and splits[name].num_examples]


def _identity(builder) -> str:
    """Returns 12 hex digits that change when the dataset on disk does."""
    digest = hashlib.sha256(builder.info.full_name.encode())
    for path in sorted(Path(builder.data_dir).iterdir()):
        status = path.stat()
        digest.update(f"{path.name} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:12]


def _examples(builder, split: str) -> Iterator[tuple[bytes, int]]:
    """Yields encoded pictures and labels, always in the same order."""
    library = load_library()
    decoders = {"image": library.decode.SkipDecoding()}
    try:
        if builder.info.file_format.value == "array_record":
            examples = builder.as_data_source(split, decoders=decoders)
        else:
            dataset = builder.as_dataset(split=split, decoders=decoders)
            examples = library.as_numpy(dataset)
        for example in examples:
            yield bytes(example["image"]), int(example["label"])
    # Each file format has errors of its own for shards that are absent or damaged.
    except Exception as error:
        raise _unreadable(builder.data_dir, error) from error
