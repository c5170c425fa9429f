"""The input pipeline against a plain Pillow thread pool, and its peak memory.

    anime-tf data demo --out many --characters 20 --count 1000
    python benchmarks/input.py --data many --name input-20000

Each measurement runs in a process of its own, so that none warms another's caches and
each has a peak memory of its own. All of them read the same files.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click
import numpy as np
from machine import save
from PIL import Image

_SIZE, _BATCH = 160, 32
_MIB = 1024**2


def pillow_pool(data: Path, cache: Path, memory: int) -> dict:
    """The peer: decode, convert, fit into the square with Pillow, one thread a core."""

    def load(path: Path) -> np.ndarray:
        with Image.open(path) as image:
            image = image.convert("RGB")
        scale = _SIZE / max(image.size)
        size = tuple(max(1, round(side * scale)) for side in image.size)
        square = Image.new("RGB", (_SIZE, _SIZE), "white")
        offset = ((_SIZE - size[0]) // 2, (_SIZE - size[1]) // 2)
        square.paste(image.resize(size, Image.Resampling.BICUBIC), offset)
        return np.asarray(square)

    paths = sorted(path for path in data.rglob("*") if path.is_file())
    started = time.perf_counter()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(paths), 256):
            list(pool.map(load, paths[start : start + 256]))
    return {"pictures": len(paths), "seconds": time.perf_counter() - started}


def scan(data: Path, cache: Path, memory: int) -> dict:
    """A training run's first pass: read, hash, decode, fingerprint, cache."""
    from anime_tf.datasets.cache import open_cache
    from anime_tf.datasets.image_folder import scan_folder

    started = time.perf_counter()
    result = scan_folder(data, open_cache(cache), _SIZE)
    return {"pictures": len(result.files), "seconds": time.perf_counter() - started}


def _dataset(data: Path, cache: Path, memory: int, epochs: int):
    import hashlib

    from anime_tf.datasets.cache import open_cache
    from anime_tf.datasets.pipeline import PictureStore, training_batches

    paths = sorted(path for path in data.rglob("*") if path.is_file())
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]
    store = PictureStore(paths, digests, _SIZE, open_cache(cache), memory)
    labels = np.zeros((len(paths), 2), np.float32)
    return len(paths), training_batches(store, labels, _BATCH, 0, 0, epochs)


def uncached_epoch(data: Path, cache: Path, memory: int) -> dict:
    """An epoch of tf.data on an empty cache: every picture is decoded, then kept."""
    count, batches = _dataset(data, cache, memory, 1)
    started = time.perf_counter()
    for _ in batches:
        pass
    return {"pictures": count, "seconds": time.perf_counter() - started}


def later_epochs(data: Path, cache: Path, memory: int) -> dict:
    """Epochs of tf.data on a filled cache; the second one of two is timed."""
    count, batches = _dataset(data, cache, memory, 2)
    steps = -(-count // _BATCH)
    for number, _ in enumerate(batches):
        if number == steps - 1:
            started = time.perf_counter()
    return {"pictures": count, "seconds": time.perf_counter() - started}


_PASSES = (pillow_pool, scan, uncached_epoch, later_epochs)
MEASUREMENTS = {function.__name__: function for function in _PASSES}


def measure(name: str, data: Path, cache: Path, memory: int) -> dict:
    """Runs one measurement in a fresh process."""
    arguments = [name, str(data), str(cache), str(memory)]
    result = subprocess.run(
        [sys.executable, __file__, "--measure", *arguments],
        check=True,
        stdout=subprocess.PIPE,
    )
    row = json.loads(result.stdout.splitlines()[-1])
    row["pictures_per_second"] = round(row["pictures"] / row["seconds"])
    return {"what": name, "memory_flag_mib": memory // _MIB, **row}


@click.command()
@click.option("--data", type=Path, required=True, help="Folder of characters.")
@click.option("--name", required=True, help="Name of the result file.")
@click.option("--repeats", type=int, default=3, help="Alternating runs of each pass.")
def cli(data: Path, name: str, repeats: int):
    """Measures the input pipeline on a folder of pictures."""
    rows = []
    for _ in range(repeats):
        for what in ("pillow_pool", "scan", "uncached_epoch"):
            with tempfile.TemporaryDirectory() as cache:
                rows.append(measure(what, data, Path(cache), 0))
            click.echo(json.dumps(rows[-1]))
    with tempfile.TemporaryDirectory() as cache:
        measure("scan", data, Path(cache), 0)
        for memory in (0, 256 * _MIB, 1024 * _MIB):
            rows.append(measure("later_epochs", data, Path(cache), memory))
            click.echo(json.dumps(rows[-1]))
    command = f"python benchmarks/input.py --data {data.name} --name {name}"
    save(name, command, rows)


if __name__ == "__main__":
    if sys.argv[1] == "--measure":
        what, data, cache, memory = sys.argv[2:]
        row = MEASUREMENTS[what](Path(data), Path(cache), int(memory))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({**row, "peak_mib": round(peak)}))
    else:
        cli()
