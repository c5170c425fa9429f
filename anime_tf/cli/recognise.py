"""The commands around one classifier: train, evaluate, predict, sort."""

import time
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from anime_tf.cli.options import (
    SETTINGS,
    Bytes,
    Command,
    Duration,
    cache_options,
    check_resume,
    data_dir_option,
    given_by_user,
    model_option,
    set_up_output,
    with_options,
)
from anime_tf.config import BACKBONES, DEFAULT_OUT, PRESETS, RUNTIMES, TrainConfig
from anime_tf.errors import UserError
from anime_tf.listing import STYLES, render
from anime_tf.progress import Reporter
from anime_tf.quiet import load_tensorflow
from anime_tf.run_files import CONFIG, METRICS, REPORT, check_complete


@click.command(cls=Command, context_settings=SETTINGS)
@data_dir_option
@click.option("--test-dir", type=click.Path(), help="Test pictures of your choice.")
@click.option(
    "--tfds",
    metavar="NAME_OR_DIR",
    help="Learn from a dataset of tensorflow-datasets instead of --data-dir.",
)
@click.option(
    "--out", type=click.Path(path_type=Path), default=DEFAULT_OUT, help="Run's folder."
)
@click.option("--resume", is_flag=True, help="Go on with the run in --out.")
@click.option("--overwrite", is_flag=True, help="Replace the run in --out.")
@click.option("--preset", type=click.Choice(list(PRESETS)), default="default")
@click.option(
    "--time-budget",
    type=Duration(),
    help="Plan the epochs so that the whole run ends within, say, 10m.",
)
@click.option(
    "--backbone",
    type=click.Choice(BACKBONES),
    help="Network.",
)
@click.option("--weights", help="imagenet (downloaded), none (random), or a file.")
@click.option("--image-size", type=int, help="Side of the network's input in pixels.")
@click.option("--batch-size", type=int, help="Pictures per training step.")
@click.option("--epochs", type=int, help="Epochs of fine-tuning.")
@click.option("--head-epochs", type=int, help="Most epochs of the head alone.")
@click.option("--learning-rate", type=float, help="Peak rate of fine-tuning.")
@click.option("--head-learning-rate", type=float, help="Peak rate of the head.")
@click.option("--weight-decay", type=float, help="Of AdamW.")
@click.option("--label-smoothing", type=float)
@click.option("--dropout", type=float)
@click.option("--mixup", type=float, help="Alpha of mixup; 0 is off.")
@click.option("--cutmix", type=float, help="Alpha of CutMix; 0 is off.")
@click.option(
    "--class-weights",
    type=click.Choice(["auto", "on", "off"]),
    help="Weigh rare characters more; auto: over an imbalance of 3:1.",
)
@click.option("--patience", type=int, help="Epochs without progress before the end.")
@click.option("--validation-fraction", type=float)
@click.option("--test-fraction", type=float)
@click.option("--seed", type=int, help="Of split, weights, order and augmentation.")
@click.option(
    "--memory",
    "memory_bytes",
    type=Bytes(),
    help="Most RAM for decoded pictures [default: 1G]; the others are read from the "
    "cache on disk.",
)
@with_options(cache_options)
@click.pass_context
def train(ctx, out: Path, resume: bool, overwrite: bool, **given):
    """Learns the characters in --data-dir and leaves a tested model in --out.

    Every number left out comes from --preset:

    \b
      fast      128 px,  3 epochs: a first answer in minutes
      default   160 px, 12 epochs
      best      224 px, 40 epochs, mixup and CutMix: for a GPU or a night

    \b
    Example:
      anime-tf train --data-dir data/all_characters --preset fast
      anime-tf train --tfds data/tfds
      anime-tf train --resume
    """
    started = time.monotonic()
    set_up_output()
    reporter = Reporter(Console())
    # The checks that need no TensorFlow come before its import, which takes seconds.
    if resume:
        check_resume(ctx)
    else:
        config = TrainConfig.from_preset(**given)
        _check_source(ctx, config)
    load_tensorflow()
    from anime_tf.evaluation import evaluate_run
    from anime_tf.training import classifier as training

    try:
        if resume:
            recognizer = training.resume_classifier(out, reporter)
        else:
            recognizer = training.train_classifier(
                config, out, reporter, overwrite, started
            )
    except KeyboardInterrupt:
        reporter.say("Interrupted.")
        if (out / CONFIG).exists():
            reporter.say(f"Go on with: anime-tf train --resume --out {out}")
        ctx.exit(130)
    has_tests = training.has_test_pictures(out)
    if has_tests:
        metrics = evaluate_run(out, recognizer, reporter=reporter)
        _say_metrics(reporter, metrics)
    _accompany(out, recognizer, reporter)
    if not has_tests:
        reporter.say(f"Nothing was held out to test on. Model: {out}")
        return
    reporter.say(f"Model:  {out}\nReport: {out / REPORT}")
    reporter.say(f"Next:   anime-tf predict --model {out} PICTURES")


@click.command(cls=Command, context_settings=SETTINGS)
@model_option
@click.option("--data-dir", type=click.Path(), help="Where the pictures are now.")
@click.option(
    "--unknown-dir",
    type=click.Path(exists=True, file_okay=False),
    help="Pictures of nobody the model knows, to measure rejection on.",
)
def evaluate(model: Path, data_dir: str | None, unknown_dir: str | None):
    """Judges a model on the pictures that its training held out.

    Writes metrics.json and report.html into the model's folder.

    \b
    Example:
      anime-tf evaluate --unknown-dir photos/
    """
    check_complete(model)
    load_tensorflow()
    from anime_tf.evaluation import evaluate_run

    reporter = Reporter(Console())
    metrics = evaluate_run(
        model, data_dir=data_dir, unknown_dir=unknown_dir, reporter=reporter
    )
    _say_metrics(reporter, metrics)
    reporter.say(f"Figures: {model / METRICS}\nReport:  {model / REPORT}")


runtime_option = click.option(
    "--runtime",
    type=click.Choice(RUNTIMES),
    default="auto",
    help="What computes: LiteRT is fast on a CPU; auto takes it if training left its "
    "file, litert makes the file where it is missing.",
)
_server_options = [
    click.option(
        "--server",
        metavar="URL",
        help="Ask a server instead of --model: http://HOST:8501 or grpc://HOST:8500.",
    ),
    click.option(
        "--model-name", default="classifier", help="--server: the model's name there."
    ),
    click.option(
        "--model-label",
        help="--server: label of the version, such as stable [default: the newest].",
    ),
    click.option(
        "--timeout",
        type=Duration(),
        default="30s",
        help="--server: longest wait for an answer.",
    ),
    click.option(
        "--retries",
        type=click.IntRange(0, 4),
        default=3,
        help="--server: further tries when it is busy or out of reach.",
    ),
]


@click.command(cls=Command, context_settings=SETTINGS)
@click.argument("paths", nargs=-1, required=True)
@model_option
@click.option(
    "--format",
    "style",
    type=click.Choice(STYLES),
    default="table",
)
@click.option(
    "--top-k",
    type=click.IntRange(1),
    default=3,
    help="Names per picture; a server lists as many as its export was made for.",
)
@click.option("--batch-size", type=click.IntRange(1), default=32)
@click.option(
    "--explain",
    type=click.Path(path_type=Path),
    help="Write pictures of what spoke for each answer (Grad-CAM) to this new folder.",
)
@runtime_option
@with_options(_server_options)
@click.pass_context
def predict(ctx, paths, model, style, top_k, batch_size, explain, runtime, **server):
    """Names the characters in files, folders (with all below) or 'globs'.

    A picture of nobody known is "unknown". One that cannot be read gets a row with
    the reason. With --server, TensorFlow is not needed on this machine.

    \b
    Example:
      anime-tf predict new.png downloads/ --format csv > names.csv
      anime-tf predict --server http://localhost:8501 new.png
    """
    if server["server"]:
        _check_server(ctx, explain)
    else:
        runtime = _check_model(model, explain, runtime)
    from anime_tf.datasets.image_folder import find_pictures
    from anime_tf.export.recognition import load_predictor

    pictures = find_pictures(paths)
    if explain:
        _make_empty(explain)
    reporter = Reporter(Console(stderr=True))
    if server["server"]:
        predictor = _client(**server)
    else:
        predictor = load_predictor(model, runtime, reporter)
    options = {"on_batch": _Gallery(explain, predictor)} if explain else {}
    predictions = []
    with reporter.bar("Recognising", len(pictures)) as bar:
        for prediction in predictor.stream(pictures, top_k, batch_size, **options):
            predictions.append(prediction)
            bar.advance()
    click.echo(render(predictions, style), nl=False)
    if explain:
        reporter.say(f"Explanations: {explain}")


@click.command(cls=Command, context_settings=SETTINGS)
@click.argument("source", metavar="IN", type=click.Path(path_type=Path))
@click.argument("out", metavar="OUT", type=click.Path(path_type=Path))
@model_option
@click.option("--move", "way", flag_value="move", help="Move the pictures.")
@click.option("--link", "way", flag_value="link", help="Link them (symbolically).")
@click.option(
    "--copy", "way", flag_value="copy", default=True, help="Copy them, the default."
)
@click.option("--dry-run", is_flag=True, help="Only say what would happen.")
@runtime_option
def sort(source: Path, out: Path, model: Path, way: str, dry_run: bool, runtime: str):
    """Sorts the pictures in IN into OUT/NAME/, doubtful ones into OUT/unknown/.

    Nothing is overwritten: a file of the same name gets a number, the very same
    picture is left out. Try --dry-run first.

    \b
    Example:
      anime-tf sort downloads/ sorted/ --dry-run
    """
    runtime = _check_model(model, None, runtime)
    from anime_tf.datasets.image_folder import find_pictures
    from anime_tf.export.recognition import load_predictor
    from anime_tf.sorting import carry_out, plan_sorting

    inside = out.resolve()
    pictures = [p for p in find_pictures([source]) if inside not in p.resolve().parents]
    reporter = Reporter(Console())
    predictor = load_predictor(model, runtime, reporter)
    with reporter.bar("Recognising", len(pictures)) as bar:
        predictions = []
        for prediction in predictor.stream(pictures):
            predictions.append(prediction)
            bar.advance()
    steps = plan_sorting(predictions, out)
    if not dry_run:
        carry_out(steps, way)
    for step in steps:
        if step.reason or dry_run:
            outcome = step.reason or f"-> {step.target}"
            reporter.say(f"{step.source}  {outcome}")
    _say_sorted(reporter, steps, way, dry_run, out)


def _accompany(out: Path, recognizer, reporter: Reporter) -> None:
    """Leaves the run ready for LiteRT; where there is a GPU, TensorFlow is faster."""
    import tensorflow as tf

    from anime_tf.export import companion, lite

    if not lite.has_litert() or tf.config.list_physical_devices("GPU"):
        return
    try:
        companion.make(out, recognizer, reporter)
    except UserError as error:
        reporter.say(f"Predictions will run on TensorFlow: {error}")


def _check_source(ctx: click.Context, config: TrainConfig) -> None:
    if config.tfds is None:
        from anime_tf.datasets.image_folder import find_class_names

        find_class_names(config.data_dir)
        return
    from anime_tf.datasets.tfds_source import find_dataset

    if ctx.get_parameter_source("data_dir") == click.core.ParameterSource.COMMANDLINE:
        raise UserError("--tfds takes the place of --data-dir: leave out one of them")
    find_dataset(config.tfds)


def _check_model(model: Path, explain: Path | None, runtime: str) -> str:
    """Returns the runtime to take."""
    from anime_tf.export.recognition import is_export

    if not is_export(model):
        check_complete(model)
    if not explain:
        return runtime
    if is_export(model):
        raise UserError(f"--explain needs the run itself, {model} is an export")
    if runtime == "litert":
        raise UserError("--explain needs TensorFlow: leave out --runtime litert")
    return "tensorflow"


def _check_server(ctx: click.Context, explain: Path | None) -> None:
    for name in ("model", "runtime"):
        if name in given_by_user(ctx):
            raise UserError(
                f"--server takes the place of --{name}: leave out one of them"
            )
    if explain:
        raise UserError("--explain needs the run itself: name it by --model")


def _client(server: str, model_name: str, model_label: str | None, timeout, retries):
    from anime_tf.serving.client import Client

    return Client(
        server, model_name, label=model_label, timeout=timeout, retries=retries
    )


def _make_empty(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"--explain needs a new or empty folder, {folder} is neither")
    folder.mkdir(parents=True, exist_ok=True)


class _Gallery:
    """Writes the explanations of one batch after the other."""

    def __init__(self, folder: Path, recognizer):
        self._folder, self._recognizer, self._count = folder, recognizer, 0

    def __call__(self, squares, predictions) -> None:
        if not squares:
            return
        overlays = self._recognizer.explain(squares, predictions)
        for overlay, prediction in zip(overlays, predictions, strict=True):
            self._count += 1
            stem = Path(prediction.source).stem
            overlay.save(self._folder / f"{self._count:05d}_{stem}.png")


def _say_metrics(reporter: Reporter, metrics: dict) -> None:
    from anime_tf.tables import confusion_summary, metrics_table

    reporter.say(metrics_table(metrics))
    if metrics["most_confused"]:
        reporter.say(confusion_summary(metrics))
    unknown = metrics["unknown"]
    if unknown["auroc"] is not None:
        reporter.say(
            f"Unknowns: {unknown['unknown_rejected']:.1%} of {unknown['num_unknown']} "
            f"rejected, AUROC {unknown['auroc']:.3f}, false positives at 95 % true "
            f"positives {unknown['fpr_at_95_tpr']:.1%}"
        )


def _say_sorted(reporter: Reporter, steps, way: str, dry_run: bool, out: Path) -> None:
    table = Table("folder", "pictures", title=f"{'Would ' if dry_run else ''}{way}")
    names = [step.name for step in steps if step.target]
    for name in sorted(set(names)):
        table.add_row(name, str(names.count(name)))
    reporter.say(table)
    left = len(steps) - len(names)
    reporter.say(f"{len(names)} pictures to {out}, {left} left where they are")
    if dry_run:
        reporter.say("Nothing was touched: this was a dry run.")
