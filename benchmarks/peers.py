"""Other libraries' processes, and fair turns with them."""

import json
import subprocess
import time
from pathlib import Path


class Peer:
    """A process of another environment that takes orders.

    Args:
        python: The environment's interpreter.
        script: A file of this folder: it reads orders, one a line, as JSON, and answers
            each by a line.
    """

    def __init__(self, python: str, script: str):
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            [python, Path(__file__).with_name(script)],
            stdin=pipe,
            stdout=pipe,
            text=True,
        )

    def order(self, order: str, **arguments) -> dict:
        line = json.dumps({"order": order, **arguments})
        print(line, file=self._process.stdin, flush=True)
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()


def timed(function, count: int = 1) -> dict[str, float]:
    """Seconds on the clock, and of all cores, for some calls."""
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(count):
        function()
    return {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}


def take_turns(runners: dict, turns: int, steps: int) -> dict[str, dict]:
    """Measures all, in short turns: the machine's speed changes within seconds."""
    seconds = {name: {"wall": [], "cpu": []} for name in runners}
    for turn in range(turns + 1):
        for name, run in runners.items():
            found = run(steps if turn else 1)
            for clock in found if turn else ():
                seconds[name][clock].append(found[clock] / steps)
    return seconds
