"""`anime-tf serve` under load against the bare network.

    python benchmarks/server.py --model RUN --data FOLDER --name server

Parallel clients send one picture a request, in base64, over connections that they
keep. The bare network judges ready squares in batches, in a process of its own. Both in
turn, several times; then many more requests, to see whether memory grows. An answer
counts as lost if it is an error, or not the one that the same picture got before.
"""

import base64
import http.client
import itertools
import json
import re
import statistics
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click
import numpy as np
import psutil
from machine import save

_PATH = "/v1/models/classifier:predict"
_MIB = 1024**2


def measure_bare(model: Path, data: Path, count: int, batch_size: int) -> float:
    """Pictures a second of the network alone, in this process."""
    from anime_tf import images
    from anime_tf.datasets.image_folder import find_pictures
    from anime_tf.export.recognition import load_predictor

    predictor = load_predictor(model)
    paths = list(itertools.islice(itertools.cycle(find_pictures([data])), batch_size))
    batch = np.stack([images.load_square(p, predictor.image_size) for p in paths])
    for _ in range(3):
        predictor.judge(batch)
    started = time.perf_counter()
    batches = max(1, count // batch_size)
    for _ in range(batches):
        predictor.judge(batch)
    return batches * batch_size / (time.perf_counter() - started)


class Server:
    """A server process, and clients that keep their connections."""

    def __init__(self, model: Path, clients: int):
        command = [*(sys.executable, "-m", "anime_tf", "serve"), "--port", "0"]
        self._process = subprocess.Popen(
            [*command, "--classifier", str(model)], stdout=subprocess.PIPE, text=True
        )
        line = self._process.stdout.readline()
        self._port = int(re.search(r":(\d+)/", line)[1])
        self._clients = ThreadPoolExecutor(clients)
        self._local = threading.local()
        self._known: dict[bytes, dict] = {}

    def load(self, bodies: list[bytes]) -> dict:
        """Sends requests, all clients at once; returns the figures."""
        started = time.perf_counter()
        found = list(self._clients.map(self._ask, bodies))
        seconds = time.perf_counter() - started
        times = sorted(1000 * seconds for seconds, _ in found)
        return {
            "requests": len(bodies),
            "lost": sum(not good for _, good in found),
            "pictures_per_second": round(len(bodies) / seconds, 1),
            "median_ms": round(statistics.median(times)),
            "slowest_of_100_ms": round(times[int(0.99 * len(times))]),
        }

    def rss_mib(self) -> float:
        return round(psutil.Process(self._process.pid).memory_info().rss / _MIB, 1)

    def cpu_seconds(self) -> float:
        times = psutil.Process(self._process.pid).cpu_times()
        return times.user + times.system

    def stop(self) -> None:
        self._clients.shutdown()
        self._process.terminate()
        self._process.wait()

    def _ask(self, body: bytes) -> tuple[float, bool]:
        started = time.perf_counter()
        try:
            if not hasattr(self._local, "connection"):
                address = ("127.0.0.1", self._port)
                self._local.connection = http.client.HTTPConnection(*address)
            self._local.connection.request("POST", _PATH, body)
            content = json.load(self._local.connection.getresponse())
            row = content["predictions"][0]
            answer = (row["ok"], row["labels"][0])
            good = answer == self._known.setdefault(body, answer)
        except (OSError, http.client.HTTPException, ValueError, KeyError):
            del self._local.connection
            good = False
        return time.perf_counter() - started, good


def read_bodies(data: Path, count: int) -> list[bytes]:
    """Requests of one picture each, over and over the pictures of a folder."""
    paths = sorted(path for path in data.rglob("*") if path.is_file())
    bodies = []
    for path in paths:
        picture = {"b64": base64.b64encode(path.read_bytes()).decode()}
        bodies.append(json.dumps({"instances": [picture]}).encode())
    return list(itertools.islice(itertools.cycle(bodies), count))


@click.command()
@click.option("--model", type=Path, required=True, help="A run or an export.")
@click.option("--data", type=Path, required=True, help="Folder of pictures.")
@click.option("--name", required=True, help="Name of the result file.")
@click.option("--clients", type=int, default=32)
@click.option("--count", type=int, default=1024, help="Pictures of a turn.")
@click.option("--repeats", type=int, default=5, help="Turns of each.")
@click.option("--requests", type=int, default=10_000, help="To watch the memory.")
@click.option("--batch-size", type=int, default=16, help="Of the bare network.")
@click.option("--bare", is_flag=True, hidden=True)
def cli(model, data, name, clients, count, repeats, requests, batch_size, bare):
    """Measures throughput, losses and memory of the server."""
    if bare:
        click.echo(measure_bare(model, data, count, batch_size))
        return
    rows = []

    def add(what: str, row: dict) -> None:
        rows.append({"what": what, **row})
        click.echo(json.dumps(rows[-1]))

    for _ in range(repeats):
        options = ["--bare", "--model", model, "--data", data, "--name", name]
        options += ["--count", count, "--batch-size", batch_size]
        command = [sys.executable, __file__, *map(str, options)]
        out = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
        alone = float(out.splitlines()[-1])
        add("bare", {"pictures_per_second": round(alone, 1)})
        server = Server(model, clients)
        server.load(read_bodies(data, 4 * clients))
        before = server.cpu_seconds()
        row = server.load(read_bodies(data, count))
        used = 1000 * (server.cpu_seconds() - before) / count
        share = round(row["pictures_per_second"] / alone, 3)
        add("server", {**row, "cpu_ms": round(used, 1), "share_of_bare": share})
        server.stop()
    server = Server(model, clients)
    for _ in range(10):
        row = server.load(read_bodies(data, requests // 10))
        add("memory", {**row, "rss_mib": server.rss_mib()})
    server.stop()
    options = f"--clients {clients} --count {count} --requests {requests}"
    command = f"python benchmarks/server.py --model RUN --data {data.name} {options}"
    save(name, f"{command} --name {name}", rows)


if __name__ == "__main__":
    cli()
