"""Drawing with a trained generator."""

import json

import keras
import numpy as np
import pytest

from anime_tf.errors import UserError
from anime_tf.models.networks import build_generator
from anime_tf.sampler import Sampler, find_character

NAMES = ("Rem", "初音未来", "7", "")


@pytest.fixture(scope="module")
def sampler():
    keras.utils.set_random_seed(0)
    generator = build_generator(16, num_classes=len(NAMES), channels=8)
    return Sampler(generator, NAMES, NAMES[:3], {"finished": True})


def test_pictures_are_uint8(sampler):
    pictures = sampler.generate(3, seed=7)
    assert pictures.shape == (3, 16, 16, 3)
    assert pictures.dtype == np.uint8
    assert len({picture.tobytes() for picture in pictures}) == 3


def test_a_seed_gives_the_same_pictures(sampler):
    many = sampler.generate(40, seed=7)
    np.testing.assert_array_equal(many, sampler.generate(40, seed=7))
    few = sampler.generate(3, seed=7).astype(int)
    # The last bit of a row may depend on its batch.
    assert np.abs(few - many[:3]).max() <= 1
    assert np.abs(many - sampler.generate(40, seed=8).astype(int)).mean() > 1


def test_truncation_makes_pictures_more_alike(sampler):
    def spread(truncation):
        pictures = sampler.generate(16, 1, truncation, character="Rem")
        return pictures.std(axis=0).mean()

    assert spread(0.0) == 0
    assert 0 < spread(0.3) < spread(1.0)


def test_characters_by_name_and_number(sampler):
    assert sampler.labels(2, "初音未来").tolist() == [1, 1]
    assert sampler.labels(1, "0").tolist() == [0]
    # Somebody's name comes before a number.
    assert sampler.labels(1, "7").tolist() == [2]
    assert sampler.labels(5).tolist() == [0, 1, 2, 0, 1], "each in turn"
    for absent in ("Ram", "3", "99", ""):
        with pytest.raises(UserError, match="there are: 0 Rem, 1 初音未来"):
            sampler.labels(1, absent)


def test_only_those_among_the_drawn(sampler):
    with pytest.raises(UserError, match="'Rem'"):
        find_character("Rem", NAMES, ["初音未来"])


def test_interpolation_is_a_closed_round_of_small_steps(sampler):
    frames = sampler.interpolate([1, 2, 3], 6).astype(int)
    assert frames.shape == (18, 16, 16, 3)
    assert np.abs(frames[0] - sampler.generate(1, 1, character="Rem")[0]).max() <= 1
    steps = np.abs(frames - np.roll(frames, -1, axis=0)).mean(axis=(1, 2, 3))
    jump = np.abs(frames[0] - frames[6]).mean()
    assert steps.max() < 0.7 * jump


def test_noise_keeps_its_length_on_the_way(sampler):
    from anime_tf.sampler import _between

    ends = sampler.noise(1, 1)[0], sampler.noise(1, 2)[0]
    middle = np.linalg.norm(_between(*ends, 0.5))
    assert middle == pytest.approx(np.mean([np.linalg.norm(e) for e in ends]), rel=0.1)


def test_best_keeps_what_the_judges_like(sampler):
    def brightness(pictures, labels):
        return pictures.mean(axis=(1, 2, 3))

    candidates = sampler.generate(12, seed=3, character="Rem")
    best = sampler.best(3, 4, [brightness], seed=3, character="Rem")
    for number, picture in enumerate(best):
        group = candidates[4 * number : 4 * number + 4]
        wanted = group[brightness(group, None).argmax()]
        assert np.abs(picture.astype(int) - wanted).max() <= 1


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"n": 0}, "at least one picture"),
        ({"n": 1, "seed": -1}, "--seed"),
        ({"n": 1, "truncation": 1.5}, "--truncation"),
    ],
)
def test_bad_arguments(sampler, arguments, complaint):
    with pytest.raises(UserError, match=complaint):
        sampler.generate(**arguments)


def test_a_sampler_survives_its_folder(sampler, tmp_path):
    sampler.save(tmp_path)
    again = Sampler.load(tmp_path)
    assert (again.class_names, again.drawn) == (NAMES, NAMES[:3])
    assert again.record == {"finished": True}
    np.testing.assert_array_equal(again.generate(2), sampler.generate(2))


def test_bad_folders_get_one_sentence(sampler, tmp_path):
    with pytest.raises(UserError, match="anime-tf draw"):
        Sampler.load(tmp_path)
    sampler.save(tmp_path)
    record = json.loads((tmp_path / "sampler.json").read_text(encoding="utf-8"))
    for change in ({"format": 9}, {"image_size": 32}, {"drawn": ["Ram"]}):
        text = json.dumps({**record, **change})
        (tmp_path / "sampler.json").write_text(text, encoding="utf-8")
        with pytest.raises(UserError, match=r"sampler\.json"):
            Sampler.load(tmp_path)
    (tmp_path / "sampler.json").write_text(json.dumps(record), encoding="utf-8")
    (tmp_path / "generator.keras").write_bytes(b"nonsense")
    with pytest.raises(UserError, match=r"generator\.keras is no network"):
        Sampler.load(tmp_path)
    (tmp_path / "generator.keras").unlink()
    with pytest.raises(UserError, match="no model file"):
        Sampler.load(tmp_path)
