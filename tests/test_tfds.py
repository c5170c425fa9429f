import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anime_tf import images, run_files
from anime_tf.config import DrawConfig
from anime_tf.datasets import tfds_export, tfds_source
from anime_tf.datasets.cache import PictureCache
from anime_tf.datasets.image_folder import scan_folder
from anime_tf.datasets.manifest import SPLITS, Manifest, build_manifest
from anime_tf.errors import UserError
from anime_tf.evaluation import evaluate_run
from anime_tf.subject import Subject
from anime_tf.training.classifier import resume_classifier, train_classifier
from tests import tiny

tfds = pytest.importorskip("tensorflow_datasets", reason="needs the extra 'tfds'")

from anime_tf.datasets import tfds_builder  # noqa: E402

# Not in the order of their code points, as names in a foreign dataset may be.
FOREIGN = ("c/d", "b", "a")
# Of the older protobuf that Apache Beam asks for.
pytestmark = pytest.mark.filterwarnings("ignore:label.. is deprecated")


@pytest.fixture
def manifest(tmp_path, cache):
    data = tiny.write_characters(tmp_path / "data", 8)
    return build_manifest(scan_folder(data, cache))


@pytest.fixture
def exported(manifest, tmp_path):
    return tfds_export.export_dataset(manifest, tmp_path / "out")


class Foreign(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Somebody else's dataset: grey JPEGs, more features and splits than needed."""

    VERSION = tfds.core.Version("2.0.0")
    parts: tuple = ("train", "test", "extra")

    def _info(self):
        features = {
            "image": tfds.features.Image(shape=(20, 24, 1), encoding_format="jpeg"),
            "label": tfds.features.ClassLabel(names=FOREIGN),
            "boxes": tfds.features.Sequence(tfds.features.BBoxFeature()),
        }
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict(features)
        )

    def _split_generators(self, dl_manager):
        return {name: self._generate_examples(name) for name in self.parts}

    def _generate_examples(self, split):
        rng = np.random.default_rng(self.parts.index(split))
        for number in range(30):
            # Blocks, so that no two look alike.
            blocks = rng.integers(0, 256, (5, 6, 1), np.uint8)
            label = -1 if split == "test" and number == 0 else number % 3
            picture = blocks.repeat(4, axis=0).repeat(4, axis=1)
            yield number, {"image": picture, "label": label, "boxes": []}


def _build(builder_class, folder, parts=None, **arguments):
    builder = builder_class(data_dir=folder)
    builder.parts = parts or builder.parts
    settings = tfds.download.DownloadConfig(try_download_gcs=False)
    builder.download_and_prepare(download_config=settings, **arguments)
    return Path(builder.data_dir)


def _read(folder, split):
    """Examples by their path, whatever the file format."""
    builder = tfds.builder_from_directory(folder)
    if builder.info.file_format.value == "array_record":
        examples = builder.as_data_source(split)
    else:
        examples = tfds.as_numpy(builder.as_dataset(split=split))
    return {example["path"].decode(): example for example in examples}


def _scan(folder, tmp_path, cache):
    builder = tfds_source.find_dataset(str(folder))
    root = tfds_source.unpack(builder, tmp_path / "unpacked")
    return builder, tfds_source.scan_unpacked(builder, root, cache)


# The builder, by TFDS' own examination


class AnimeCharactersTest(tfds.testing.DatasetBuilderTestCase):
    DATASET_CLASS = tfds_builder.AnimeCharacters
    SPLITS = {"train": 6, "validation": 3, "test": 3}  # noqa: RUF012
    # Nothing is downloaded; the pictures are read where they are, without TFDS' files.
    EXAMPLE_DIR = Path(__file__).parent
    MOCK_OUT_FORBIDDEN_OS_FUNCTIONS = False

    def _make_builder(self, config=None):
        data = Path(self.tmp_dir, "data")
        if not data.exists():
            tiny.write_characters(data, 4)
        cache = PictureCache(Path(self.tmp_dir, "cache"), 0)
        manifest = build_manifest(scan_folder(data, cache), (0.5, 0.25, 0.25))
        cache.close()
        return self.DATASET_CLASS(manifest=manifest, data_dir=self.tmp_dir)

    def test_built_by_no_other_way(self):
        builder = self.DATASET_CLASS(data_dir=Path(self.tmp_dir, "other"))
        with pytest.raises(UserError, match="built from folders by: anime-tf data"):
            builder.download_and_prepare()


# Export


@pytest.mark.parametrize("file_format", tfds_export.FILE_FORMATS)
def test_the_split_and_the_names_are_kept(manifest, tmp_path, file_format):
    folder = tfds_export.export_dataset(
        manifest, tmp_path / "out", file_format=file_format
    )
    assert folder == tmp_path / "out/anime_characters/1.0.0"
    assert len(list(folder.glob(f"*.{file_format}-*"))) == 3
    for split in SPLITS:
        examples = _read(folder, split)
        items = {item.path: item for item in manifest.split(split)}
        assert examples.keys() == items.keys()
        for path, example in examples.items():
            assert example["label"] == items[path].label
            original = np.asarray(Image.open(manifest.path_of(items[path])))
            assert np.array_equal(example["image"], original)
    names = tfds.builder_from_directory(folder).info.features["label"].names
    assert tuple(names) == manifest.class_names == tuple(sorted(tiny.NAMES))


def test_any_name_finds_it(exported, tmp_path):
    dataset = tfds.load("anime_characters", data_dir=tmp_path / "out", split="train")
    assert dataset.element_spec["image"].shape == (None, None, 3)


def test_every_kind_of_picture_becomes_upright_rgb(tmp_path, draw, write, cache):
    data, size = tmp_path / "data", (40, 24)
    exif = Image.Exif()
    exif[0x0112] = 6
    clear = draw(1, size).convert("RGBA")
    clear.putalpha(Image.linear_gradient("L").resize(size))
    write(data / "a/alpha.webp", clear, lossless=True)
    write(data / "a/turned.JPG", draw(2, size), exif=exif)
    write(data / "a/grey.png", draw(3, size).convert("I;16"))
    write(data / "b/still.gif", draw(4, size).convert("P"))
    write(data / "b/b\udc80.bmp", draw(5, size))
    write(data / "b/none.png", b"nothing")
    manifest = build_manifest(scan_folder(data, cache), (1.0, 0.0, 0.0))
    whole = _read(tfds_export.export_dataset(manifest, tmp_path / "1"), "train")
    small = _read(tfds_export.export_dataset(manifest, tmp_path / "2", 16), "train")
    assert len(whole) == len(small) == 5
    assert whole["a/turned.JPG"]["image"].shape == (40, 24, 3)
    for item in manifest.items:
        key, path = item.path.replace("\udc80", "\\udc80"), manifest.path_of(item)
        decoded = images.decode(path.read_bytes()).image
        assert np.array_equal(whole[key]["image"], np.asarray(decoded))
        assert np.array_equal(small[key]["image"], images.load_square(path, 16))


def test_what_is_there_is_replaced_on_demand_only(manifest, exported, tmp_path):
    out = tmp_path / "out"
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    with pytest.raises(UserError, match=r"already holds a dataset: .*--overwrite"):
        tfds_export.export_dataset(manifest, out)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before
    tfds_export.export_dataset(manifest, out, image_size=8, overwrite=True)
    assert all(e["image"].shape == (8, 8, 3) for e in _read(exported, "test").values())
    assert [path.name for path in out.iterdir()] == ["anime_characters"]


def test_nothing_half_written_stays_behind(manifest, exported, tmp_path):
    manifest.path_of(manifest.items[-1]).write_bytes(b"no more")
    for out in ("out", "new"):
        with pytest.raises(UserError, match="was a picture a moment ago and is none"):
            tfds_export.export_dataset(manifest, tmp_path / out, overwrite=True)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["anime_characters"]
    assert len(_read(exported, "train")) == len(manifest.split("train"))
    assert not list((tmp_path / "new").iterdir())


@pytest.mark.parametrize("name", [" Rem", "Rem\t", "R\nem", "R\u2028em", "R\x00m"])
def test_names_that_cannot_be_stored(name, tmp_path):
    manifest = Manifest("in", ("Asuka", name), ())
    with pytest.raises(UserError, match="cannot be stored in a dataset: rename"):
        tfds_export.export_dataset(manifest, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_file_in_the_way(manifest, tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(UserError, match=r"out is a file; give another folder"):
        tfds_export.export_dataset(manifest, tmp_path / "out")


def test_beam_is_asked_for_where_it_is_absent(manifest, tmp_path, monkeypatch):
    monkeypatch.setattr(tfds_export.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs Apache Beam.*environment of its own"):
        tfds_export.export_dataset(manifest, tmp_path / "out", use_beam=True)


@pytest.mark.slow
def test_beam_builds_the_same(manifest, exported, tmp_path):
    pytest.importorskip("apache_beam", reason="needs Apache Beam")
    folder = tfds_export.export_dataset(manifest, tmp_path / "beam", use_beam=True)
    for split in SPLITS:
        expected, found = _read(exported, split), _read(folder, split)
        assert list(found) == list(expected)
        for path, example in found.items():
            assert example["label"] == expected[path]["label"]
            assert np.array_equal(example["image"], expected[path]["image"])
    manifest.path_of(manifest.items[-1]).write_bytes(b"no more")
    with pytest.raises(UserError, match=r"Beam did not .*was a picture a moment ago"):
        tfds_export.export_dataset(manifest, tmp_path / "new", use_beam=True)
    assert not list((tmp_path / "new").iterdir())


# Finding


def test_a_dataset_is_found_from_every_folder_above(exported, tmp_path):
    for folder in (exported, exported.parent, exported.parent.parent):
        builder = tfds_source.find_dataset(str(folder))
        assert Path(builder.data_dir) == exported


def test_no_dataset_or_several(exported, tmp_path):
    with pytest.raises(UserError, match=r"no dataset of .*make one with"):
        tfds_source.find_dataset(str(tmp_path / "data"))
    shutil.copytree(exported, exported.with_name("2.0.0"))
    with pytest.raises(UserError, match=r"2 datasets in .*1\.0\.0, .*2\.0\.0"):
        tfds_source.find_dataset(str(tmp_path / "out"))
    with pytest.raises(UserError, match="nobody is neither a folder nor a dataset"):
        tfds_source.find_dataset("nobody")


@pytest.mark.parametrize(
    ("name", "feature", "message"),
    [
        ("label", tfds.features.Text(), "not one of image classification"),
        ("image", tfds.features.Tensor(shape=(2, 2, 3), dtype=np.uint8), "not one of"),
        ("image", tfds.features.Image(shape=(2, 2, 1), dtype=np.float32), "floats"),
    ],
)
def test_not_of_image_classification(tmp_path, name, feature, message):
    folder = _build(Foreign, tmp_path / "out")
    builder = tfds.builder_from_directory(folder)
    features = dict(builder.info.features) | {name: feature}
    tfds.features.FeaturesDict(features).save_config(folder)
    with pytest.raises(UserError, match=message):
        tfds_source.find_dataset(str(folder))


def test_nothing_to_train_on(tmp_path):
    folder = _build(Foreign, tmp_path / "out", ("test", "extra"))
    with pytest.raises(UserError, match=r"nothing to learn from: .* test, extra,"):
        tfds_source.find_dataset(str(folder))


def test_without_the_library(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(UserError, match=r"pip install 'anime_tf\[tfds\]'"):
        tfds_source.find_dataset(str(tmp_path))


# Reading


@pytest.mark.parametrize("file_format", tfds_export.FILE_FORMATS)
def test_the_split_comes_back(manifest, tmp_path, cache, file_format):
    folder = tfds_export.export_dataset(
        manifest, tmp_path / "out", file_format=file_format
    )
    builder, scan = _scan(folder, tmp_path, cache)
    found = build_manifest(scan, seed=5)
    assert found.class_names == manifest.class_names
    assert tfds_source.left_unused(builder, scan) == []
    for split in SPLITS:
        pictures = [
            {
                (item.label, np.asarray(Image.open(one.path_of(item))).tobytes())
                for item in one.split(split)
            }
            for one in (manifest, found)
        ]
        assert pictures[0] == pictures[1]


def test_what_a_foreign_dataset_holds_out_stays_held_out(tmp_path, cache):
    builder, scan = _scan(_build(Foreign, tmp_path / "out"), tmp_path, cache)
    manifest = build_manifest(scan)
    assert manifest.class_names == FOREIGN
    # 70 to 15 of the 30 for training are 24.7 to 5.3.
    assert manifest.counts() == {
        "c/d": {"train": 8, "validation": 2, "test": 9},
        "b": {"train": 8, "validation": 2, "test": 10},
        "a": {"train": 8, "validation": 2, "test": 10},
    }
    assert all(i.path.startswith("test/") for i in manifest.split("test"))
    assert tfds_source.left_unused(builder, scan) == [
        "not used: the splits extra",
        "skipped, as they have no label: 1 examples",
    ]
    assert all(file.path.endswith(".jpg") for file in scan.files)


def test_a_dataset_without_parts_is_split(tmp_path, cache):
    folder = _build(Foreign, tmp_path / "out", ("train",))
    manifest = build_manifest(_scan(folder, tmp_path, cache)[1])
    assert manifest.counts()["b"] == {"train": 7, "validation": 2, "test": 1}


def test_unpacked_once(exported, manifest, tmp_path, monkeypatch):
    builder, totals, steps = tfds_source.find_dataset(str(exported)), [], []
    folder = tmp_path / "unpacked"
    arguments = (folder, totals.append, lambda: steps.append(1))
    root = tfds_source.unpack(builder, *arguments)
    assert totals == [len(steps)] == [len(manifest.items)]
    assert tfds_source.unpack(builder, *arguments) == root
    assert totals[1:] == [0]
    # Another dataset in its place does not change what older runs read.
    tfds_export.export_dataset(manifest, tmp_path / "out", 8, overwrite=True)
    builder = tfds_source.find_dataset(str(exported))
    assert tfds_source.unpack(builder, folder) != root
    assert sorted(path.name for path in root.iterdir()) == sorted(SPLITS)


def test_an_interrupted_unpacking_leaves_nothing(exported, tmp_path):
    def interrupt():
        raise KeyboardInterrupt

    builder = tfds_source.find_dataset(str(exported))
    with pytest.raises(KeyboardInterrupt):
        tfds_source.unpack(builder, tmp_path / "new", on_example=interrupt)
    assert not list((tmp_path / "new").iterdir())


@pytest.mark.parametrize("file_format", tfds_export.FILE_FORMATS)
def test_a_damaged_dataset(manifest, tmp_path, file_format):
    folder = tfds_export.export_dataset(
        manifest, tmp_path / "out", file_format=file_format
    )
    builder = tfds_source.find_dataset(str(folder))
    shard = next(folder.glob(f"*-train.{file_format}-*"))
    content = shard.read_bytes()
    for damaged in (content[: len(content) // 2], b"", None):
        shard.unlink()
        if damaged is not None:
            shard.write_bytes(damaged)
        with pytest.raises(UserError, match=r"the dataset in .*1\.0\.0 cannot be read"):
            list(tfds_source._examples(builder, "train"))
    (folder / "features.json").write_text("{")
    with pytest.raises(UserError, match=r"the dataset in .*1\.0\.0 cannot be read"):
        tfds_source.find_dataset(str(folder))


# Training


@pytest.mark.slow
def test_training_resuming_judging_and_drawing(
    manifest, exported, tmp_path, monkeypatch
):
    tiny.use_tiny_backbone(monkeypatch)
    changes = {"tfds": str(tmp_path / "out"), "epochs": 1, "head_epochs": 2}
    config = tiny.config("absent", tmp_path / "cache", **changes)
    run = tmp_path / "run"
    train_classifier(config, run)
    record = Manifest.load(run / run_files.MANIFEST)
    assert record.counts() == manifest.counts()
    # The dataset itself is not needed any more.
    shutil.rmtree(exported)
    assert evaluate_run(run)["num_pictures"] == len(manifest.split("test"))
    subject = Subject.find(DrawConfig(target_class=tiny.NAMES[2], classifier=str(run)))
    assert len(subject.learnt) == sum(
        record.counts()[tiny.NAMES[2]][split] for split in ("train", "validation")
    )
    (run / run_files.RECOGNIZER).unlink()
    resume_classifier(run)
    shutil.rmtree(record.data_dir)
    with pytest.raises(UserError, match="cannot be read"):
        evaluate_run(run)
    with pytest.raises(UserError, match="are gone"):
        Subject.find(DrawConfig(target_class="0", classifier=str(run)))


# The commands


def test_the_commands(manifest, tmp_path):
    out, cache = tmp_path / "out", tmp_path / "cache"
    arguments = ("data", "export-tfds", "--data-dir", tmp_path / "data", "--out", out)
    result = tiny.invoke(*arguments, "--image-size", 8, "--cache-dir", cache)
    assert result.exit_code == 0, result.output
    counts = [len(manifest.split(split)) for split in SPLITS]
    expected = "3 characters, {} train, {} validation, {} test: ".format(*counts)
    assert expected in result.stdout
    info = json.loads(next(out.rglob("dataset_info.json")).read_text())
    assert [int(s["shardLengths"][0]) for s in info["splits"]] == counts
    result = tiny.invoke(*arguments)
    assert result.exit_code == 2
    assert "already holds a dataset" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--tfds", "nobody"), "neither a folder nor a dataset"),
        (("--tfds", ".", "--data-dir", "."), "takes the place of --data-dir"),
        (("--tfds", ".", "--test-dir", "."), "--test-dir must be left out where"),
    ],
)
def test_mistakes(arguments, message, tmp_path):
    result = tiny.invoke("train", *arguments, "--out", tmp_path / "run")
    assert result.exit_code == 2
    assert message in result.stderr.splitlines()[-1]
    assert not (tmp_path / "run").exists()
