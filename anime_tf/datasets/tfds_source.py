"""Characters from, and into, tensorflow-datasets (TFDS).

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
import importlib.util
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
from anime_tf.datasets.manifest import SPLITS, Manifest
from anime_tf.errors import UserError

if TYPE_CHECKING:  # an extra, and not needed before it is asked for
    import tensorflow_datasets as tfds

FILE_FORMATS = ("tfrecord", "array_record")


def export_dataset(
    manifest: Manifest,
    out: Path | str,
    image_size: int | None = None,
    file_format: str = "tfrecord",
    use_beam: bool = False,
    overwrite: bool = False,
    on_picture: Callable[[], None] = lambda: None,
) -> Path:
    """Writes the pictures of a manifest, in its split, as a TFDS dataset.

    Args:
        manifest: Names the pictures.
        out: The folder of TFDS datasets (`data_dir` in TFDS' words) to put it into.
        image_size: Side of the square to letterbox into, or None for the size of the
            file.
        file_format: One of `FILE_FORMATS`.
        use_beam: Whether to build with Apache Beam, in several processes.
        overwrite: Whether a dataset that is there already is replaced.
        on_picture: Called after each picture, but not by Beam.

    Returns:
        The folder of the dataset, `out/anime_characters/1.0.0`.

    Raises:
        UserError: If it is there already, a library is absent, a name cannot be
            stored or a picture is gone.
    """
    check_export(out, overwrite, use_beam)
    _check_names(manifest.class_names)
    library = _library()
    from anime_tf.datasets.tfds_builder import AnimeCharacters

    library.disable_progress_bar()
    out, target = Path(out), _target(out)
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".writing-", dir=out) as work:
        builder = AnimeCharacters(
            manifest=manifest,
            image_size=image_size,
            use_beam=use_beam,
            on_picture=on_picture,
            data_dir=work,
        )
        settings = library.download.DownloadConfig(
            try_download_gcs=False,
            beam_options=_beam_options() if use_beam else None,
        )
        builder.download_and_prepare(download_config=settings, file_format=file_format)
        target.parent.mkdir(exist_ok=True)
        if target.exists():
            target.rename(Path(work, "replaced"))
        Path(builder.data_dir).rename(target)
    return target


def check_export(out: Path | str, overwrite: bool, use_beam: bool) -> None:
    """Raises `UserError` for what can be known to fail before any picture is read."""
    _library()
    target = _target(out)
    if target.exists() and not overwrite:
        raise UserError(
            f"{target} already holds a dataset: replace it by --overwrite, or choose "
            "another folder by --out"
        )
    for folder in (Path(out), target.parent, target):
        if folder.exists() and not folder.is_dir():
            raise UserError(f"{folder} is a file; give another folder by --out")
    if use_beam and importlib.util.find_spec("apache_beam") is None:
        raise UserError(
            "--beam needs Apache Beam, which is not installed; it asks for older "
            "libraries, so give it an environment of its own: "
            "pip install 'anime_tf[cpu,tfds]' apache-beam"
        )


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
    library = _library()
    folder = Path(name_or_dir).expanduser()
    if folder.is_dir():
        builder = library.builder_from_directory(_folder_below(folder))
    else:
        builder = _named(library, name_or_dir)
    _check_features(library, builder, name_or_dir)
    if "train" not in builder.info.splits:
        raise UserError(
            f"the dataset {name_or_dir} has no split train to learn from, but "
            f"{', '.join(builder.info.splits) or 'none at all'}"
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
        # Another run may have been faster; its files are the same.
        if not target.is_dir():
            ready.rename(target)
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
        notes.append(f"skipped {count - len(scan.files)} examples without a label")
    return notes


def _library():
    try:
        import tensorflow_datasets
    except ImportError as error:
        raise UserError(
            f"tensorflow-datasets is needed for this and cannot be imported ({error}); "
            "install it with: pip install 'anime_tf[tfds]'"
        ) from error
    return tensorflow_datasets


def _target(out: Path | str) -> Path:
    # The name and the version of `AnimeCharacters`, known without importing it.
    return Path(out) / "anime_characters" / "1.0.0"


def _check_names(names: tuple[str, ...]) -> None:
    """TFDS keeps names as the stripped lines of a text file."""
    for name in names:
        if name.splitlines() != [name.strip()] or not name.isprintable():
            raise UserError(
                f"the name {name!r} cannot be stored in a dataset: rename the folder "
                "so that it has no spaces at its ends and no unprintable characters"
            )


def _beam_options():
    from apache_beam.options.pipeline_options import PipelineOptions

    # As many processes as there are cores.
    return PipelineOptions(
        ["--direct_running_mode=multi_processing", "--direct_num_workers=0"]
    )


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


def _named(library, name: str) -> "tfds.core.DatasetBuilder":
    try:
        builder = library.builder(name)
        builder.download_and_prepare()
    # Downloading and preparing is somebody else's code for each of the datasets:
    # whatever it raises, there is no dataset.
    except Exception as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(
            f"{name} is neither a folder nor a dataset that tensorflow-datasets can "
            f"prepare: {reason[0]}"
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
    return [name for name in SPLITS if name in builder.info.splits]


def _identity(builder) -> str:
    """Returns 12 hex digits that change when the dataset on disk does."""
    digest = hashlib.sha256(builder.info.full_name.encode())
    for path in sorted(Path(builder.data_dir).iterdir()):
        status = path.stat()
        digest.update(f"{path.name} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:12]


def _examples(builder, split: str) -> Iterator[tuple[bytes, int]]:
    """Yields encoded pictures and labels, always in the same order."""
    library = _library()
    decoders = {"image": library.decode.SkipDecoding()}
    if builder.info.file_format.value == "array_record":
        examples = builder.as_data_source(split, decoders=decoders)
    else:
        dataset = builder.as_dataset(split=split, decoders=decoders)
        examples = library.as_numpy(dataset)
    for example in examples:
        yield bytes(example["image"]), int(example["label"])
