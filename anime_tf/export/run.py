"""Exports a run: tells what it is, writes it, checks that it answers alike."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from anime_tf import images
from anime_tf.errors import UserError
from anime_tf.export import folders, parity, records, saved_model, tflite, trial
from anime_tf.export.lite import LiteModel
from anime_tf.inference import Recognizer
from anime_tf.progress import Reporter
from anime_tf.run_files import SAMPLER, check_complete
from anime_tf.sampler import Sampler

# Pictures that a SavedModel is compared on.
_PARITY_PICTURES = 64
# Pictures that int8 is calibrated on.
_CALIBRATION_PICTURES = 200
# With fewer validation pictures the threshold of "unknown" stays where it was.
_LEAST_TO_FIT = 8


def load_run(run: Path) -> Recognizer | Sampler:
    """Loads a classifier's or a generator's run.

    Raises:
        UserError: If the folder holds neither, or is damaged.
    """
    if (run / SAMPLER).is_file():
        return Sampler.load(run)
    check_complete(run)
    return Recognizer.load(run)


def export_saved_model(
    run: Path,
    out: Path,
    top_k: int,
    max_pixels: int,
    data_dir: Path | None = None,
    reporter: Reporter | None = None,
) -> dict:
    """Writes a run as a SavedModel, compared with its model before it is published.

    Args:
        run: The run's folder.
        out: A new or empty folder, or an older export, which is replaced.
        top_k, max_pixels: As for `saved_model.export_classifier`.
        data_dir: Where the run's pictures are now, if they were moved.
        reporter: Where to say what goes on.

    Returns:
        The figures of the comparison, which also lie in the folder.

    Raises:
        UserError: If the run or `out` cannot be used, or the export answers otherwise
            than the model.
    """
    reporter = reporter or Reporter()
    folders.check_target(out)
    model = load_run(run)
    with folders.publishing(out) as folder:
        reporter.say("Writing ...")
        if isinstance(model, Sampler):
            saved_model.export_generator(model, folder)
        else:
            saved_model.export_classifier(model, folder, top_k, max_pixels)
        reporter.say("Comparing ...")
        if isinstance(model, Sampler):
            figures = parity.check_saved_generator(folder, model)
        else:
            paths = parity.some_held_out(run, _PARITY_PICTURES, data_dir)
            figures = parity.check_saved_classifier(folder, model, paths)
        if not figures["ok"]:
            raise UserError(f"the export answers otherwise than {run}: {figures}")
        records.write(folder, figures, records.PARITY)
    return figures


def export_tflite(
    run: Path,
    out: Path,
    variants: Sequence[str],
    data_dir: Path | None = None,
    reporter: Reporter | None = None,
) -> dict[str, dict]:
    """Writes a run as TFLite files, one a variant, each tried on held-out pictures.

    Args:
        run, out, data_dir, reporter: As for `export_saved_model`.
        variants: Some of `config.VARIANTS`.

    Returns:
        The figures of each variant, which also lie beside its file; `good` says
        whether it may stand for the model. A file that is not good is written all the
        same, and says so in its record.

    Raises:
        UserError: If the run or `out` cannot be used.
    """
    reporter = reporter or Reporter()
    folders.check_target(out)
    model = load_run(run)
    is_drawing = isinstance(model, Sampler)
    record = records.of_generator(model) if is_drawing else records.of_classifier(model)
    figures = {}
    with folders.publishing(out) as folder:
        for variant in variants:
            reporter.say(f"Converting to {variant} ...")
            filepath = folder / f"{record['kind']}_{variant}.tflite"
            if is_drawing:
                content = tflite.convert_generator(model, variant)
            else:
                content = _convert_classifier(run, model, variant, data_dir)
            described = {**record, "variant": variant}
            lite = LiteModel(tflite.pack(content, described))
            if is_drawing:
                found = trial.try_generator(lite, model)
            else:
                if variant in tflite.COARSE:
                    threshold = _refit_threshold(run, lite, model, data_dir)
                    described["threshold"] = threshold
                threshold = described["threshold"]
                found = _try_classifier(run, lite, model, threshold, data_dir)
            filepath.write_bytes(tflite.pack(content, {**described, "trial": found}))
            figures[variant] = {"bytes": filepath.stat().st_size, **found}
            records.write(folder, figures[variant], f"{filepath.stem}.json")
        # Each file has a threshold of its own.
        record.pop("threshold", None)
        records.write(folder, {**record, "variants": list(variants)})
    return figures


def _convert_classifier(
    run: Path, recognizer: Recognizer, variant: str, data_dir: Path | None
) -> bytes:
    squares = []
    if variant == "int8":
        paths, _ = parity.held_out(run, "train", data_dir)
        step = max(1, len(paths) // _CALIBRATION_PICTURES)
        squares = [images.load_square(p, recognizer.image_size) for p in paths[::step]]
    return tflite.convert_classifier(recognizer, variant, squares)


def _refit_threshold(
    run: Path, lite: LiteModel, recognizer: Recognizer, data_dir: Path | None
) -> float:
    """Moves the threshold of "unknown" to where the file's scores have moved.

    Coarse weights move every picture away from all characters, strangers and known
    ones alike; on the validation pictures one sees by how much.
    """
    paths, _ = parity.held_out(run, "validation", data_dir)
    if len(paths) < _LEAST_TO_FIT:
        return recognizer.threshold
    size = recognizer.image_size
    squares = np.stack([images.load_square(path, size) for path in paths])
    return trial.fit_threshold(lite, recognizer, squares)


def _try_classifier(
    run: Path,
    lite: LiteModel,
    recognizer: Recognizer,
    threshold: float,
    data_dir: Path | None,
) -> dict:
    paths, labels = parity.held_out(run, "test", data_dir)
    size = recognizer.image_size
    squares = [images.load_square(path, size) for path in paths]
    if not squares:
        noise = np.random.default_rng(0)
        squares = list(noise.integers(0, 256, (16, size, size, 3), np.uint8))
    squares = np.stack(squares)
    found = trial.try_classifier(lite, recognizer, squares, labels, threshold)
    return {**found, "real_pictures": len(paths)}
