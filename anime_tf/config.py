"""What a run is asked to do: frozen, checked, JSON in and out.

The defaults are the published recipe.
"""

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from anime_tf.errors import UserError

DEFAULT_DATA_DIR = "data/all_characters"
DEFAULT_TFDS_DIR = "data/tfds"
DEFAULT_OUT = "saved_models/classifier"
DEFAULT_DRAW_OUT = "saved_models/generator"
DEFAULT_BASE = "saved_models/generator_base"
DEFAULT_SERVING_OUT = "saved_models/serving"
BACKBONES = ("efficientnetb0", "efficientnetv2b0")
# What a trained classifier computes on.
RUNTIMES = ("auto", "litert", "tensorflow")
# Of a TFLite file: how its numbers are stored.
VARIANTS = ("float32", "float16", "dynamic", "int8")

# What a preset decides; options given by name win over it.
PRESETS: dict[str, dict] = {
    "fast": {"image_size": 128, "epochs": 3},
    "default": {"image_size": 160, "epochs": 12},
    "best": {"image_size": 224, "epochs": 40, "cutmix": 0.5, "mixup": 0.2},
}


IMAGE_SIZES = (32, 64, 96, 128, 224)
PERCEPTUAL = ("paired", "nearest", "drift", "statistics")
DISCRIMINATORS = ("pixel", "projected")
UPSAMPLING = ("nearest", "transposed")


class _Config:
    """What all configs can do: check their values, JSON in and out."""

    def _check(self, name: str, valid: bool, expected: str) -> None:
        if not valid:
            raise UserError(
                f"--{name.replace('_', '-')} must be {expected}, "
                f"got {getattr(self, name)}"
            )

    def _check_choice(self, name: str, choices: tuple) -> None:
        *most, last = map(str, choices)
        expected = f"{', '.join(most)} or {last}"
        self._check(name, getattr(self, name) in choices, expected)

    def _check_shared(self) -> None:
        self._check("seed", 0 <= self.seed < 2**31, "0 to 2147483647")
        for name in ("cache_bytes", "memory_bytes"):
            self._check(name, getattr(self, name) >= 0, "at least 0")
        within = self.time_budget is None or self.time_budget > 0
        self._check("time_budget", within, "above 0 seconds")

    def to_json(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False, indent=1)

    @classmethod
    def load(cls, filepath: Path):
        """Reads a config; raises `UserError` when it is absent or not valid."""
        try:
            content = json.loads(filepath.read_text(encoding="utf-8"))
            unknown = set(content) - {field.name for field in fields(cls)}
            if unknown:
                raise ValueError(f"unknown entries {sorted(unknown)}")
            return cls(**content)
        except (OSError, ValueError, TypeError) as error:
            raise UserError(f"{filepath} is no usable config: {error}") from error


@dataclass(frozen=True)
class TrainConfig(_Config):
    """One training run of the classifier.

    Attributes:
        data_dir: Folder with one folder of pictures per character.
        test_dir: An explicit test folder of the same form, or None to hold out.
        tfds: A dataset of tensorflow-datasets to train from instead, by name or
            folder, or None.
        backbone: One of `BACKBONES`.
        weights: `imagenet`, `none`, or a path.
        preset: Name in `PRESETS` that gave the unnamed values.
        seed: Seed of the split, the weights, the order and the augmentation.
        image_size: Side of the network's input in pixels, 32 to 600.
        batch_size: Pictures per step of fine-tuning.
        head_epochs: Most epochs of stage 1, on stored features.
        epochs: Epochs of stage 2, fine-tuning.
        head_learning_rate, learning_rate: Peaks of the two cosine schedules.
        weight_decay: Decoupled weight decay of AdamW (Loshchilov and Hutter, 2019).
        label_smoothing: Share of the target spread over all classes, range [0, 1).
        dropout: Share of pooled features dropped, range [0, 1).
        mixup: Alpha of mixup (Zhang et al., 2018); 0 switches it off.
        cutmix: Alpha of CutMix (Yun et al., 2019); 0 switches it off.
        class_weights: `auto` (on when the imbalance is over 3:1), `on` or `off`.
        patience: Epochs without a better validation macro-F1 before stopping.
        time_budget: Seconds the whole run may take, or None.
        validation_fraction, test_fraction: Shares held out of the collection.
        cache_dir: Folder of the picture cache, or None for the platform's own.
        cache_bytes: Most bytes of decoded pictures on disk.
        memory_bytes: Most bytes of decoded pictures in RAM.
    """

    data_dir: str = DEFAULT_DATA_DIR
    test_dir: str | None = None
    tfds: str | None = None
    backbone: str = "efficientnetb0"
    weights: str = "imagenet"
    preset: str = "default"
    seed: int = 0
    image_size: int = 160
    batch_size: int = 32
    head_epochs: int = 60
    epochs: int = 12
    head_learning_rate: float = 3e-3
    learning_rate: float = 1e-3
    weight_decay: float = 0.02
    label_smoothing: float = 0.1
    dropout: float = 0.3
    mixup: float = 0.0
    cutmix: float = 0.0
    class_weights: str = "auto"
    patience: int = 10
    time_budget: float | None = None
    validation_fraction: float = 0.15
    test_fraction: float = 0.15
    cache_dir: str | None = None
    cache_bytes: int = 8 * 1024**3
    memory_bytes: int = 1024**3

    def __post_init__(self):
        self._check_shared()
        self._check_choice("backbone", BACKBONES)
        self._check_choice("class_weights", ("auto", "on", "off"))
        self._check("image_size", 32 <= self.image_size <= 600, "32 to 600")
        for name in ("batch_size", "head_epochs", "epochs", "patience"):
            self._check(name, getattr(self, name) >= 1, "at least 1")
        for name in ("head_learning_rate", "learning_rate"):
            self._check(name, getattr(self, name) > 0, "above 0")
        for name in ("weight_decay", "mixup", "cutmix"):
            self._check(name, getattr(self, name) >= 0, "at least 0")
        for name in ("label_smoothing", "dropout"):
            self._check(name, 0 <= getattr(self, name) < 1, "0 to below 1")
        for name in ("validation_fraction", "test_fraction"):
            self._check(name, 0 < getattr(self, name) < 1, "above 0 and below 1")
        held_out = self.validation_fraction + self.test_fraction
        expected = "below 1 together with --test-fraction"
        self._check("validation_fraction", held_out < 1, expected)
        alone = self.tfds is None or self.test_dir is None
        self._check("test_dir", alone, "left out where --tfds is given")

    @property
    def fractions(self) -> tuple[float, float, float]:
        """Shares of training, validation and test."""
        held_out = (self.validation_fraction, self.test_fraction)
        return 1 - sum(held_out), *held_out

    @classmethod
    def from_preset(cls, preset: str = "default", **given) -> "TrainConfig":
        """Builds a config from a preset and the values that were given by name.

        Values that are None count as not given.

        Raises:
            UserError: If the preset is unknown or a value is out of range.
        """
        if preset not in PRESETS:
            raise UserError(f"--preset must be one of {list(PRESETS)}, got {preset}")
        named = {name: value for name, value in given.items() if value is not None}
        return cls(**{"preset": preset, **PRESETS[preset], **named})


@dataclass(frozen=True)
class DrawConfig(_Config):
    """One training run of the generator.

    Attributes:
        target_class: The character: its name, its number in the classifier's order,
            or `all`.
        num_epochs: Passes over the character's pictures.
        classifier: Folder of the trained classifier, the guide. Its run also says
            which pictures there are, and which of them are held out.
        data_dir: Where these pictures are now, or None for where they were.
        vgg_weights: `imagenet`, `none`, or a path.
        image_size: Side of the drawings in pixels, one of `IMAGE_SIZES`.
        batch_size: Pictures per step.
        adversarial_weight, classification_weight, perceptual_weight: Of the three
            terms of the generator's loss.
        perceptual: One of `PERCEPTUAL`.
        discriminator: One of `DISCRIMINATORS`.
        upsampling: One of `UPSAMPLING`; `transposed` shows what it spoils.
        learning_rate: Of both networks' Adam.
        channels: Channels of the generator's last block.
        references: Most real pictures that a step compares the drawings with.
        pretrain: Whether to start from a generator of all characters, which is
            trained first where there is none.
        pretrained: Folder of that generator.
        pretrain_epochs: Its passes over all characters' pictures.
        extra_images: Folder of pictures of anybody that it learns from too, or None.
        preview_steps: Steps from one examination to the next, about.
        seed: Seed of the weights, the noise, the order and the augmentation.
        time_budget: Seconds the whole run may take, or None.
        cache_dir, cache_bytes, memory_bytes: As for `TrainConfig`.
    """

    target_class: str = "0"
    num_epochs: int = 3000
    classifier: str = DEFAULT_OUT
    data_dir: str | None = None
    vgg_weights: str = "imagenet"
    image_size: int = 64
    batch_size: int = 16
    adversarial_weight: float = 0.1
    classification_weight: float = 0.2
    perceptual_weight: float = 10.0
    perceptual: str = "drift"
    discriminator: str = "pixel"
    upsampling: str = "nearest"
    learning_rate: float = 1e-3
    channels: int = 32
    references: int = 96
    pretrain: bool = False
    pretrained: str = DEFAULT_BASE
    pretrain_epochs: int = 60
    extra_images: str | None = None
    preview_steps: int = 150
    seed: int = 0
    time_budget: float | None = None
    cache_dir: str | None = None
    cache_bytes: int = 8 * 1024**3
    memory_bytes: int = 1024**3

    def __post_init__(self):
        self._check_shared()
        self._check_choice("image_size", IMAGE_SIZES)
        self._check_choice("perceptual", PERCEPTUAL)
        self._check_choice("discriminator", DISCRIMINATORS)
        self._check_choice("upsampling", UPSAMPLING)
        for name in ("num_epochs", "pretrain_epochs", "channels", "preview_steps"):
            self._check(name, getattr(self, name) >= 1, "at least 1")
        for name in ("batch_size", "references"):
            self._check(name, getattr(self, name) >= 2, "at least 2")
        terms = ("adversarial_weight", "classification_weight", "perceptual_weight")
        for name in terms:
            self._check(name, getattr(self, name) >= 0, "at least 0")
        taught = self.adversarial_weight + self.perceptual_weight > 0
        expected = "above 0, or --perceptual-weight must be"
        self._check("adversarial_weight", taught, expected)
        self._check("learning_rate", self.learning_rate > 0, "above 0")
