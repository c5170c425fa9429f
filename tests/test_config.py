import json
from dataclasses import asdict, fields

import pytest

from anime_tf.config import PRESETS, TrainConfig
from anime_tf.errors import UserError


@pytest.mark.parametrize("preset", list(PRESETS))
def test_presets(preset):
    config = TrainConfig.from_preset(preset)
    assert config.preset == preset
    decided = asdict(TrainConfig()) | {"preset": preset} | PRESETS[preset]
    assert asdict(config) == decided


def test_the_default_preset_is_the_default():
    assert TrainConfig.from_preset() == TrainConfig()


def test_what_is_named_wins_over_the_preset():
    config = TrainConfig.from_preset("best", image_size=64, cutmix=0.0, epochs=None)
    assert (config.image_size, config.cutmix, config.mixup) == (64, 0.0, 0.2)
    assert config.epochs == PRESETS["best"]["epochs"]


def test_unknown_preset():
    with pytest.raises(UserError, match=r"--preset must be one of.*fast.*got turbo"):
        TrainConfig.from_preset("turbo")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("backbone", "resnet"),
        ("seed", -1),
        ("seed", 2**31),
        ("image_size", 31),
        ("image_size", 601),
        ("batch_size", 0),
        ("head_epochs", 0),
        ("epochs", 0),
        ("epochs", -3),
        ("patience", 0),
        ("head_learning_rate", 0.0),
        ("learning_rate", -1e-3),
        ("learning_rate", float("nan")),
        ("weight_decay", -0.1),
        ("label_smoothing", 1.0),
        ("label_smoothing", -0.1),
        ("dropout", 1.0),
        ("dropout", float("nan")),
        ("mixup", -0.2),
        ("cutmix", -0.2),
        ("class_weights", "maybe"),
        ("time_budget", 0.0),
        ("time_budget", -5.0),
        ("validation_fraction", 0.0),
        ("validation_fraction", 0.9),
        ("test_fraction", 0.0),
        ("test_fraction", 1.0),
        ("cache_bytes", -1),
        ("memory_bytes", -1),
    ],
)
def test_bad_values_name_their_option(name, value):
    option = "--" + name.replace("_", "-")
    with pytest.raises(UserError, match=f"^{option} must be .*got {value}$"):
        TrainConfig.from_preset(**{name: value})


def test_fractions_that_leave_nothing_to_train_on():
    with pytest.raises(UserError, match=r"below 1 together with --test-fraction, got"):
        TrainConfig(validation_fraction=0.5, test_fraction=0.5)


def test_json_round_trip(tmp_path):
    config = TrainConfig.from_preset(
        "fast", data_dir="bilder/初音未来", seed=7, time_budget=90.0, mixup=0.1
    )
    path = tmp_path / "config.json"
    path.write_text(config.to_json(), encoding="utf-8")
    assert TrainConfig.load(path) == config
    assert "初音未来" in path.read_text(encoding="utf-8")
    assert set(json.loads(config.to_json())) == {f.name for f in fields(TrainConfig)}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ('{"epoch": 3}', "unknown entries.*epoch"),
        ('{"epochs": 0}', "--epochs must be"),
        ('{"epochs": "many"}', "no usable config"),
        ("[]", "no usable config"),
        ("3", "no usable config"),
        ("{", "no usable config"),
        ("", "no usable config"),
        ("\xff", "no usable config"),
    ],
)
def test_bad_files_are_named(tmp_path, content, reason):
    path = tmp_path / "config.json"
    path.write_text(content, encoding="latin-1")
    with pytest.raises(UserError, match=reason):
        TrainConfig.load(path)


def test_absent_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"config\.json is no usable config"):
        TrainConfig.load(tmp_path / "config.json")
