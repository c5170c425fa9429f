"""Reading from shards of tensorflow-datasets against reading from folders.

    anime-tf data demo --out many --characters 8 --count 100
    python benchmarks/tfds.py --data many --name tfds

The folders are exported once, in both formats of shards; then each pass runs in a
process of its own, in turn. The first pass of a run looks into every picture (hashes,
fingerprints for duplicates, pixels into an empty cache), from shards after unpacking
them. The epochs are those of training: on an empty cache, and on a filled one. On a
machine that is shared, trust `cpu_ms`, the processor's time for a picture: with fewer
than 2,000 pictures all the work is done in one process, whose time that is.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
from machine import save

_SIZE, _BATCH = 160, 32
_GIB = 1024**3


class _Stopwatch:
    def __init__(self):
        self._started, self._cpu = time.perf_counter(), time.process_time()

    def row(self, pictures: int) -> dict:
        seconds = time.perf_counter() - self._started
        cpu = time.process_time() - self._cpu
        return {
            "pictures": pictures,
            "seconds": round(seconds, 2),
            "pictures_per_second": round(pictures / seconds),
            "cpu_ms": round(1000 * cpu / pictures, 2),
        }


def _scan(source: Path, home: Path, cache_bytes: int = 8 * _GIB):
    from anime_tf.datasets import tfds_source
    from anime_tf.datasets.cache import PictureCache
    from anime_tf.datasets.image_folder import scan_folder

    cache = PictureCache(home, cache_bytes)
    if not next(source.rglob("dataset_info.json"), None):
        return cache, scan_folder(source, cache, _SIZE)
    builder = tfds_source.find_dataset(str(source))
    root = tfds_source.unpack(builder, home / "tfds")
    return cache, tfds_source.scan_unpacked(builder, root, cache, _SIZE)


def _epoch(source: Path, home: Path, cache_bytes: int) -> dict:
    """The second of two epochs, with nothing kept in RAM."""
    from anime_tf.datasets.manifest import build_manifest
    from anime_tf.datasets.pipeline import RunPictures

    cache, scan = _scan(source, home, cache_bytes)
    manifest = build_manifest(scan)
    items = manifest.split("train")
    batches = RunPictures(manifest, cache, _SIZE, 0).training(items, _BATCH, 0, 0, 2)
    steps = -(-len(items) // _BATCH)
    for number, _ in enumerate(batches):
        if number == steps - 1:
            watch = _Stopwatch()
    return watch.row(len(items))


def first_pass(source: Path, home: Path) -> dict:
    # Imported before the clock starts: training needs it in any case.
    import tensorflow  # noqa: F401

    watch = _Stopwatch()
    _, scan = _scan(source, home)
    return watch.row(len(scan.files))


def epoch_without_cache(source: Path, home: Path) -> dict:
    return _epoch(source, home, 0)


def epoch_with_cache(source: Path, home: Path) -> dict:
    return _epoch(source, home, 8 * _GIB)


_PASSES = (first_pass, epoch_without_cache, epoch_with_cache)
MEASUREMENTS = {function.__name__: function for function in _PASSES}


def measure(what: str, source: Path) -> dict:
    """Runs one pass in a fresh process, on an empty home of cache and shards."""
    with tempfile.TemporaryDirectory() as home:
        result = subprocess.run(
            [sys.executable, __file__, "--measure", what, str(source), home],
            check=True,
            stdout=subprocess.PIPE,
        )
    return json.loads(result.stdout.splitlines()[-1])


def export(data: Path, out: Path, file_format: str, image_size: int | None) -> dict:
    """Exports the folders; says how fast and how big."""
    from anime_tf.datasets.cache import PictureCache
    from anime_tf.datasets.image_folder import scan_folder
    from anime_tf.datasets.manifest import build_manifest
    from anime_tf.datasets.tfds_export import export_dataset

    cache = PictureCache(out / "cache", 0)
    manifest = build_manifest(scan_folder(data, cache))
    cache.close()
    watch = _Stopwatch()
    folder = export_dataset(manifest, out, image_size, file_format)
    size = sum(path.stat().st_size for path in folder.iterdir())
    return {**watch.row(len(manifest.items)), "mib": round(size / 1024**2, 1)}


@click.command()
@click.option("--data", type=Path, required=True, help="Folder of characters.")
@click.option("--name", required=True, help="Name of the result file.")
@click.option("--repeats", type=int, default=3, help="Alternating runs of each pass.")
def cli(data: Path, name: str, repeats: int):
    """Measures reading from shards and from folders."""
    rows = []

    def add(what: str, source: str, row: dict) -> None:
        rows.append({"what": what, "source": source, **row})
        click.echo(json.dumps(rows[-1]))

    with tempfile.TemporaryDirectory() as work:
        sources = {"folders": data}
        for source, file_format, image_size in (
            ("tfrecord", "tfrecord", None),
            ("array_record", "array_record", None),
            (f"tfrecord, {_SIZE} px", "tfrecord", _SIZE),
        ):
            sources[source] = Path(work, source)
            row = export(data, sources[source], file_format, image_size)
            add("export", source, row)
        for what in MEASUREMENTS:
            for _ in range(repeats):
                for source, folder in sources.items():
                    add(what, source, measure(what, folder))
    command = f"python benchmarks/tfds.py --data {data.name} --name {name}"
    save(name, command, rows)


if __name__ == "__main__":
    if sys.argv[1] == "--measure":
        what, source, home = sys.argv[2:]
        print(json.dumps(MEASUREMENTS[what](Path(source), Path(home))))
    else:
        cli()
