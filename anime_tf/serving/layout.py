"""A folder that TensorFlow Serving serves: versions beside each other.

saved_models/serving/
    classifier/1/       a SavedModel, with warm-up requests
    classifier/2/       the next one
    generator/1/
    models.config       what is served; which version is stable, which the canary
    batching.config
    compose.yaml        how to start it, here
    kubernetes.yaml     and in a cluster
    kserve.yaml
    README.md
"""

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from anime_tf import files
from anime_tf.errors import UserError
from anime_tf.export import records
from anime_tf.export.recognition import is_export
from anime_tf.export.run import export_saved_model
from anime_tf.progress import Reporter
from anime_tf.run_files import RECOGNIZER, SAMPLER
from anime_tf.serving import config, manifests
from anime_tf.serving.warmup import write_warmup


def publish(
    sources: Mapping[str, Path],
    out: Path,
    image: str,
    base_path: str,
    top_k: int = 3,
    max_pixels: int = 16_000_000,
    data_dir: Path | None = None,
    reporter: Reporter | None = None,
) -> dict[str, int]:
    """Adds models to a folder that a server may be serving already.

    Nothing is seen of a version before it is whole.

    Args:
        sources: What to serve as `classifier` and as `generator`: the folder of a run,
            or of a SavedModel that was exported before.
        out: A new or empty folder, or one that this function made.
        image: The container image of TensorFlow Serving.
        base_path: Where the server sees `out`, without a slash at its end.
        top_k, max_pixels, data_dir: As for `export_saved_model`, for runs.
        reporter: Where to say what goes on.

    Returns:
        The new version of each model.

    Raises:
        UserError: If a source or `out` cannot be used.
    """
    reporter = reporter or Reporter()
    for kind, source in sources.items():
        _check_kind(source, kind)
    _check_target(out)
    # To learn now, and not after the export, whether it can be written.
    config.updated_models(_read_models(out), {}, base_path)
    out.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=".writing-", dir=out))
    try:
        for kind, source in sources.items():
            folder = work / kind
            if is_export(source):
                shutil.copytree(source, folder)
            else:
                reporter.say(f"Exporting {source} ...")
                export_saved_model(source, folder, top_k, max_pixels, data_dir)
            write_warmup(folder, kind, kind)
            if kind == "classifier":
                files.write_text(folder / config.MODEL_BATCHING, config.BATCHING_TEXT)
        files.write_text(out / config.BATCHING, config.BATCHING_TEXT)
        versions = {kind: _add_version(work / kind, out / kind) for kind in sources}
    finally:
        shutil.rmtree(work, ignore_errors=True)
    # Read only now: somebody may have moved a label in the meantime.
    models = config.updated_models(_read_models(out), versions, base_path)
    files.write_text(out / config.MODELS, models)
    served = [kind for kind in ("classifier", "generator") if (out / kind).is_dir()]
    manifests.write(out, served, image, base_path)
    return versions


def _check_kind(source: Path, kind: str) -> None:
    if is_export(source):
        if source.is_file():
            raise UserError(f"{source} is no SavedModel; name one, or the run itself")
        found = records.read(source)["kind"]
    else:
        marks = {"generator": SAMPLER, "classifier": RECOGNIZER}
        kinds = (name for name, mark in marks.items() if (source / mark).is_file())
        found = next(kinds, None)
    if found is None:
        raise UserError(f"there is no trained {kind} in {source}; train it first")
    if found != kind:
        raise UserError(f"{source} is a {found}: give it by --{found}, not by --{kind}")


def _check_target(out: Path) -> None:
    """Raises `UserError` unless a folder is new, empty, or a layout. What a killed run
    left behind does not count: its name begins with a dot."""
    if (out / config.MODELS).is_file() or not out.exists():
        return
    if not out.is_dir() or any(path.name[0] != "." for path in out.iterdir()):
        raise UserError(
            f"--out needs a new or empty folder, or one with {config.MODELS}, "
            f"{out} is none of them"
        )


def _read_models(out: Path) -> str:
    """Returns a layout's `models.config`, nothing for a new one."""
    filepath = out / config.MODELS
    if not filepath.is_file():
        return ""
    return filepath.read_text(encoding="utf-8", errors="replace")


def _add_version(folder: Path, model: Path) -> int:
    """Moves a SavedModel to the next version of a model; returns its number."""
    model.mkdir(exist_ok=True)
    versions = [int(path.name) for path in model.iterdir() if path.name.isdigit()]
    version = max(versions, default=0) + 1
    # Fails rather than replaces if somebody else took the number in the meantime.
    folder.rename(model / str(version))
    return version
