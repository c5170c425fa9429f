"""Characters into a dataset of tensorflow-datasets (TFDS): all of it, or nothing."""

import importlib.util
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from anime_tf.datasets.manifest import Manifest
from anime_tf.datasets.tfds_source import load_library
from anime_tf.errors import UserError

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
    library = load_library()
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
        with _explaining(use_beam):
            builder.download_and_prepare(
                download_config=settings, file_format=file_format
            )
        target.parent.mkdir(exist_ok=True)
        if target.exists():
            target.rename(Path(work, "replaced"))
        Path(builder.data_dir).rename(target)
    return target


def check_export(out: Path | str, overwrite: bool, use_beam: bool) -> None:
    """Raises `UserError` for what can be known to fail before any picture is read."""
    load_library()
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


@contextmanager
def _explaining(use_beam: bool) -> Iterator[None]:
    """Beam's runners pass on an error as text: what was raised is in its last line."""
    try:
        yield
    except Exception as error:
        if not use_beam or isinstance(error, UserError):
            raise
        lines = str(error).strip().splitlines() or [type(error).__name__]
        reason = lines[-1].removeprefix("anime_tf.errors.UserError: ")
        raise UserError(f"Apache Beam did not build the dataset: {reason}") from error


def _beam_options():
    from apache_beam.options.pipeline_options import PipelineOptions

    # As many processes as there are cores.
    return PipelineOptions(
        ["--direct_running_mode=multi_processing", "--direct_num_workers=0"]
    )
