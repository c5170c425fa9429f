"""Using a trained generator: a seed in, pictures of the character out."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from anime_tf import files
from anime_tf.errors import UserError
from anime_tf.run_files import GENERATOR, SAMPLER

_FORMAT = 1
_BATCH = 32


class Drawer:
    """Draws characters from noise, whatever network it is that draws.

    Attributes:
        class_names: The name of each label.
        drawn: The names that it was trained to draw, at least one.
        image_size: Side of the drawings in pixels.
        noise_size: Numbers that each drawing is made from.
    """

    class_names: tuple[str, ...]
    drawn: tuple[str, ...]
    image_size: int
    noise_size: int

    def draw(self, noise: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Returns uint8 `[n, h, w, 3]` for noise float32 `[n, d]` and int32 `[n]`."""
        raise NotImplementedError

    def generate(
        self,
        n: int,
        seed: int = 0,
        truncation: float = 1.0,
        character: str | None = None,
    ) -> np.ndarray:
        """Draws pictures.

        Args:
            n: How many.
            seed: At least 0. The i-th picture of a seed is the same for every n.
            truncation: Scales the noise, range [0, 1] (the truncation trick): less
                gives more typical, more alike pictures.
            character: One of `drawn`; by default each in turn.

        Returns:
            uint8 `[n, h, w, 3]`.

        Raises:
            UserError: If an argument is out of its range.
        """
        noise = truncation * self.noise(n, seed, truncation)
        return self.draw(noise, self.labels(n, character))

    def interpolate(
        self,
        seeds: Sequence[int],
        frames: int,
        truncation: float = 1.0,
        character: str | None = None,
    ) -> np.ndarray:
        """Draws the way from each seed's first picture to the next one's, and back.

        Args:
            seeds: At least two.
            frames: Pictures from one to the next.
            truncation, character: As for `generate`; by default the first of `drawn`.

        Returns:
            uint8 `[len(seeds) * frames, h, w, 3]`, a closed round.
        """
        noise = self.way(seeds, frames, truncation)
        return self.draw(noise, self.labels(len(noise), character or self.drawn[0]))

    def way(
        self, seeds: Sequence[int], frames: int, truncation: float = 1.0
    ) -> np.ndarray:
        """Returns the noise of an interpolation, truncated, float32 `[n, d]`."""
        if len(set(seeds)) < 2 or frames < 1:
            raise UserError("interpolation needs two different seeds and a frame")
        stops = [self.noise(1, seed, truncation)[0] for seed in seeds]
        rounds = zip(stops, [*stops[1:], stops[0]], strict=True)
        shares = np.arange(frames) / frames
        noise = [_between(a, b, share) for a, b in rounds for share in shares]
        return truncation * np.stack(noise).astype(np.float32)

    def best(
        self,
        n: int,
        of: int,
        judges: Sequence[Callable[[np.ndarray, np.ndarray], np.ndarray]],
        seed: int = 0,
        truncation: float = 1.0,
        character: str | None = None,
    ) -> np.ndarray:
        """Draws `of` pictures for each that is wanted, and keeps the best of them.

        Args:
            n, seed, truncation, character: As for `generate`.
            of: Candidates for each picture.
            judges: Images uint8 and labels to scores `[n]`, higher is better; their
                ranks are added up, so that none outshouts the others.

        Returns:
            uint8 `[n, h, w, 3]`, in the order of the candidates.
        """
        if of < 1:
            raise UserError(f"--best-of must be at least 1, got {of}")
        labels = np.repeat(self.labels(n, character), of)
        noise = truncation * self.noise(n * of, seed, truncation)
        images = self.draw(noise, labels)
        ranks = np.zeros((n, of))
        for judge in judges:
            scores = np.reshape(judge(images, labels), (n, of))
            ranks += scores.argsort(axis=1).argsort(axis=1)
        winners = ranks.argmax(axis=1) + of * np.arange(n)
        return images[winners]

    def noise(self, n: int, seed: int, truncation: float = 1.0) -> np.ndarray:
        """Returns the noise of a seed, float32 `[n, d]`, not truncated yet."""
        if n < 1:
            raise UserError(f"at least one picture must be asked for, got {n}")
        if seed < 0:
            raise UserError(f"--seed must be at least 0, got {seed}")
        if not 0 <= truncation <= 1:
            raise UserError(f"--truncation must be 0 to 1, got {truncation}")
        rows = [
            np.random.default_rng([seed, i]).normal(size=self.noise_size)
            for i in range(n)
        ]
        return np.array(rows, np.float32)

    def labels(self, n: int, character: str | None = None) -> np.ndarray:
        """Returns the labels int32 `[n]` of one character, or of each in turn."""
        names = self.drawn if character is None else (self.find(character),)
        numbers = [self.class_names.index(name) for name in names]
        return np.resize(numbers, n).astype(np.int32)

    def find(self, character: str) -> str:
        """Returns the name of a character that is given by name or by number."""
        return find_character(character, self.class_names, self.drawn)


class Sampler(Drawer):
    """A trained generator with the names of those it draws.

    Args:
        generator: Noise `[n, d]` and labels int `[n]` to images in [0, 255].
        class_names: The name of each label.
        drawn: The names that it was trained to draw, at least one.
        record: Whatever else is to be known of the run; JSON-ready.
    """

    def __init__(
        self,
        generator: keras.Model,
        class_names: Sequence[str],
        drawn: Sequence[str],
        record: dict | None = None,
    ):
        self.generator = generator
        self.class_names, self.drawn = tuple(class_names), tuple(drawn)
        self.record = record or {}
        self.image_size = generator.output_shape[1]
        self.noise_size = generator.input_shape[0][1]
        self._draw = tf.function(
            lambda noise, labels: generator([noise, labels], training=False),
            input_signature=[
                tf.TensorSpec([None, self.noise_size], tf.float32),
                tf.TensorSpec([None], tf.int32),
            ],
        )

    @classmethod
    def load(cls, folder: Path | str) -> "Sampler":
        """Reads a run's folder, strictly; the best drawings so far if it still runs.

        Raises:
            UserError: If a part is absent, damaged, or does not fit the others.
        """
        folder = Path(folder)
        if not (folder / SAMPLER).is_file():
            raise UserError(
                f"there is no trained generator in {folder}; train one with: "
                "anime-tf draw, or name another"
            )
        try:
            record = json.loads((folder / SAMPLER).read_text(encoding="utf-8"))
            if record.pop("format") != _FORMAT:
                raise ValueError("made by another version")
            names, drawn = record.pop("class_names"), record.pop("drawn")
            size = record.pop("image_size")
        except (OSError, ValueError, KeyError, AttributeError) as error:
            raise UserError(f"{folder / SAMPLER} is not valid: {error}") from error
        sampler = cls(load_network(folder / GENERATOR), names, drawn, record)
        if sampler.image_size != size or not set(drawn) <= set(names) or not drawn:
            raise UserError(
                f"{folder / SAMPLER} and {GENERATOR} beside it are of two runs: "
                f"drawings of {size} and of {sampler.image_size} pixels, or other names"
            )
        return sampler

    def save(self, folder: Path | str) -> None:
        """Writes the generator and, last, the record."""
        folder = Path(folder)
        save_network(self.generator, folder / GENERATOR)
        record = {
            "format": _FORMAT,
            "class_names": self.class_names,
            "drawn": self.drawn,
            "image_size": self.image_size,
            **self.record,
        }
        text = json.dumps(record, ensure_ascii=False, indent=1)
        files.write_text(folder / SAMPLER, text)

    def draw(self, noise: np.ndarray, labels: np.ndarray) -> np.ndarray:
        parts = [
            to_pixels(self._draw(noise[i : i + _BATCH], labels[i : i + _BATCH]).numpy())
            for i in range(0, len(noise), _BATCH)
        ]
        return np.concatenate(parts)


def find_character(
    character: str, class_names: Sequence[str], among: Sequence[str]
) -> str:
    """Returns the name of a character given by name or, if nobody is called that, by
    its number in `class_names`; it must be `among` some of them."""
    name = character
    if name not in class_names and character.isdecimal():
        number = int(character)
        name = class_names[number] if number < len(class_names) else ""
    if name not in among:
        known = ", ".join(f"{class_names.index(name)} {name}" for name in among)
        raise UserError(f"there is no character {character!r} here; there are: {known}")
    return name


def to_pixels(images: np.ndarray) -> np.ndarray:
    """Rounds float images in [0, 255] to uint8."""
    return np.clip(np.rint(images), 0, 255).astype(np.uint8)


def save_network(network: keras.Model, filepath: Path) -> None:
    """Writes a `.keras` file atomically."""
    with files.replacing(filepath) as temporary:
        network.save(temporary)


def load_network(filepath: Path) -> keras.Model:
    """Reads a `.keras` file without running any code from it; raises `UserError`."""
    # Registers the layers that the file names.
    from anime_tf import layers  # noqa: F401

    if not filepath.is_file():
        raise UserError(f"there is no model file {filepath}")
    try:
        return keras.models.load_model(filepath, compile=False, safe_mode=True)
    # A damaged or hostile file can fail in any of Keras' readers.
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"{filepath} is no network that this program made: {reason}"
        ) from error


def _between(first: np.ndarray, second: np.ndarray, share: float) -> np.ndarray:
    """Spherical interpolation: on the straight way the noise would be too short."""
    cosine = first @ second / (np.linalg.norm(first) * np.linalg.norm(second))
    angle = np.arccos(np.clip(cosine, -1.0, 1.0))
    ends = np.sin((1 - share) * angle) * first + np.sin(share * angle) * second
    return ends / np.sin(angle)
