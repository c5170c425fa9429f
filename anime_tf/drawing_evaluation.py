"""Judging a trained generator: its drawings against real pictures."""

import json
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from anime_tf import files, sheets
from anime_tf.config import DrawConfig
from anime_tf.datasets.cache import open_cache
from anime_tf.datasets.manifest import Item
from anime_tf.drawing_report import write_drawing_report
from anime_tf.errors import UserError
from anime_tf.feature_network import FeatureNetwork
from anime_tf.inference import Recognizer
from anime_tf.metrics import drawing
from anime_tf.progress import Reporter
from anime_tf.run_files import (
    CONFIG,
    EVOLUTION,
    HISTORY,
    METRICS,
    NEAREST_SHEET,
    PAIRS_SHEET,
    PREVIEWS,
    REPORT,
)
from anime_tf.sampler import Sampler
from anime_tf.subject import Subject

_SHOWN = 24  # of each character
_MOST_SHOWN = 96
_MAX_FRAMES = 60


def evaluate_drawing(
    folder: Path | str,
    count: int = 256,
    seed: int = 1,
    judge: Path | str | None = None,
    data_dir: Path | str | None = None,
    reporter: Reporter | None = None,
) -> dict:
    """Judges a generator; writes `metrics.json`, `report.html`, sheets and a GIF.

    Args:
        folder: The generator's run.
        count: Drawings of each character, at least 8.
        seed: Seed of the drawings.
        judge: Run of a classifier that is not the guide, for the hit rate, or None.
        data_dir: Where the real pictures are now, if they were moved.
        reporter: Where to show progress.

    Returns:
        The metrics, as written: `features`, `judge`, `num_generated`, and for each
        of `characters` its figures (see `anime_tf.metrics.drawing`).

    Raises:
        UserError: If the run, its pictures or the judge cannot be used.
    """
    folder, reporter = Path(folder), reporter or Reporter()
    sampler = Sampler.load(folder)
    config = DrawConfig.load(folder / CONFIG)
    if data_dir is not None:
        config = replace(config, data_dir=str(data_dir))
    evaluation = _Evaluation(config, sampler, count, seed)
    recognizer = _load_judge(judge, config)
    history = _read_history(folder)
    metrics = {
        "features": evaluation.network.name,
        "judge": str(judge) if judge else None,
        "num_generated": count,
        "seed": seed,
        "step": history[-1]["step"],
        **sampler.record,
        "characters": {},
    }
    shown = []
    bar_of_all = reporter.bar("Measuring", len(sampler.drawn))
    with closing(evaluation.cache), bar_of_all as bar:
        for name in sampler.drawn:
            figures, examples = evaluation.measure(name, recognizer)
            metrics["characters"][name] = figures
            shown.append(examples)
            bar.advance()
    text = json.dumps(metrics, ensure_ascii=False, indent=1)
    files.write_text(folder / METRICS, text)
    _write_sheets(folder, shown)
    write_drawing_report(
        folder / REPORT,
        title=f"{folder.name}: drawings of {', '.join(sampler.drawn)}",
        metrics=metrics,
        history=history,
        sheets=_read_sheets(folder),
        settings=asdict(config),
    )
    return metrics


def _read_history(folder: Path) -> list[dict]:
    try:
        return json.loads((folder / HISTORY).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{folder / HISTORY} is not valid: {error}") from error


def _read_sheets(folder: Path) -> list[tuple[str, str, bytes, str]]:
    """Title, caption, content and media type of each sheet that there is."""
    captions = {
        PAIRS_SHEET: ("Real and drawn", "Real pictures left, drawings right."),
        NEAREST_SHEET: (
            "Learnt, or learnt by heart?",
            "Each drawing beside the training picture that it is most like.",
        ),
        EVOLUTION: ("From noise to character", "The same noise, all through training."),
    }
    kinds = {".png": "image/png", ".gif": "image/gif"}
    return [
        (*texts, (folder / name).read_bytes(), kinds[Path(name).suffix])
        for name, texts in captions.items()
        if (folder / name).is_file()
    ]


def _load_judge(judge: Path | str | None, config: DrawConfig) -> Recognizer | None:
    if judge is None:
        return None
    if Path(judge).resolve() == Path(config.classifier).resolve():
        raise UserError(
            f"{judge} guided the generator, and is no independent judge (--judge); "
            "train another classifier, with another seed and backbone"
        )
    return Recognizer.load(judge)


class _Evaluation:
    """What is the same for all characters of one evaluation."""

    def __init__(
        self,
        config: DrawConfig,
        sampler: Sampler,
        count: int,
        seed: int,
    ):
        self.config, self.sampler = config, sampler
        self.count, self.seed = count, seed
        self.cache = open_cache(config.cache_dir, config.cache_bytes)
        self.network = FeatureNetwork.of_run(config)

    def measure(self, name: str, judge: Recognizer | None) -> tuple[dict, "_Examples"]:
        """Returns the figures of one character, and pictures to show."""
        subject = Subject.find(replace(self.config, target_class=name))
        learnt = self._pixels(subject, subject.learnt)
        held_out = self._pixels(subject, subject.held_out)
        real = np.concatenate([learnt, held_out])
        fake = self.sampler.generate(self.count, self.seed, character=name)
        learnt_features, fake_features = self.network(learnt), self.network(fake)
        real_features = learnt_features
        if len(held_out):
            unseen = self.network(held_out)
            real_features = np.concatenate([learnt_features, unseen])
        equal = min(len(real_features), len(fake_features))
        figures = {
            **drawing.kernel_distance(real_features, fake_features),
            "fid": drawing.frechet_distance(real_features, fake_features),
            **drawing.precision_recall(real_features[:equal], fake_features[:equal]),
            "diversity_ratio": drawing.diversity_ratio(real_features, fake_features),
            "memorisation_ratio": drawing.memorisation_ratio(
                learnt_features, fake_features
            ),
            "hit_rate": hit_rate(judge, fake, name) if judge else None,
            "checkerboard_score": drawing.checkerboard_score(fake),
            "checkerboard_ratio": drawing.checkerboard_ratio(real, fake),
            "num_real": len(real),
        }
        shown = fake[:_SHOWN]
        closest = drawing.nearest(fake_features[:_SHOWN], learnt_features)
        return figures, _Examples(real[:_SHOWN], shown, learnt[closest])

    def _pixels(self, subject: Subject, items: list[Item]) -> np.ndarray:
        config = self.config
        store = subject.store(items, config.image_size, self.cache, config.memory_bytes)
        size = (0, config.image_size, config.image_size, 3)
        if not items:
            return np.zeros(size, np.uint8)
        return store.batch(np.arange(len(items)))


@dataclass(frozen=True)
class _Examples:
    """Pictures of one character to show, each uint8 `[n, h, w, 3]`."""

    real: np.ndarray
    drawn: np.ndarray
    nearest: np.ndarray


def hit_rate(judge: Recognizer, drawings: np.ndarray, name: str) -> float:
    """Share of drawings that a classifier takes for the character.

    Args:
        judge: A trained classifier.
        drawings: uint8 `[n, h, w, 3]`.
        name: The character.

    Raises:
        UserError: If the judge does not know the character.
    """
    if name not in judge.class_names:
        raise UserError(f"the judge (--judge) does not know {name}")
    answers = judge.log_probabilities(drawings).argmax(axis=1)
    return float(np.mean(answers == judge.class_names.index(name)))


def _write_sheets(folder: Path, examples: list[_Examples]) -> None:
    """Writes real beside drawn, drawn beside nearest, and the way from noise."""
    real = np.concatenate([example.real for example in examples])[:_MOST_SHOWN]
    drawn = np.concatenate([example.drawn for example in examples])[:_MOST_SHOWN]
    nearest = np.concatenate([example.nearest for example in examples])[:_MOST_SHOWN]
    sheets.save_png(sheets.pairs_sheet(real, drawn), folder / PAIRS_SHEET)
    sheets.save_png(sheets.nearest_sheet(drawn, nearest), folder / NEAREST_SHEET)
    previews = sorted((folder / PREVIEWS).glob("*.png"))
    if previews:
        steps = np.linspace(0, len(previews) - 1, min(len(previews), _MAX_FRAMES))
        frames = [Image.open(previews[int(step)]) for step in np.rint(steps)]
        sheets.save_gif(frames, folder / EVOLUTION)
