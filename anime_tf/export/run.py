"""Exports a run: tells what it is, writes it, checks that it answers alike."""

from pathlib import Path

from anime_tf.errors import UserError
from anime_tf.export import folders, parity, records, saved_model
from anime_tf.inference import Recognizer
from anime_tf.progress import Reporter
from anime_tf.run_files import SAMPLER, check_complete
from anime_tf.sampler import Sampler

# Pictures that a SavedModel is compared on.
_PARITY_PICTURES = 64


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
