"""Where a figure comes from: results are kept with their command and machine."""

import json
import os
from pathlib import Path

RESULTS = Path(__file__).parent / "results"


def save(name: str, command: str, rows: list[dict]) -> None:
    """Writes `results/NAME.json`."""
    RESULTS.mkdir(exist_ok=True)
    machine = f"{os.cpu_count()} cores, {_processor()}, no GPU"
    content = {"command": command, "machine": machine, "rows": rows}
    text = json.dumps(content, indent=1, ensure_ascii=False)
    (RESULTS / f"{name}.json").write_text(text + "\n", encoding="utf-8")


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next(line.split(":")[1].strip() for line in lines if "model name" in line)
