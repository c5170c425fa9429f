"""A peer of `runtimes.py`: a network in ONNX Runtime.

Runs in an environment of its own, with onnxruntime. Orders and answers are lines of
JSON, arrays come and go as `.npy` files.
"""

import json
import sys
import time

import numpy as np
import onnxruntime


class Network:
    """An ONNX file and the batch that it is run on."""

    def __init__(self, model: str, images: str, answer: str):
        self._session = onnxruntime.InferenceSession(
            model, providers=["CPUExecutionProvider"]
        )
        self._name = self._session.get_inputs()[0].name
        self._images = np.load(images)
        np.save(answer, self._forward(len(self._images)))

    def run(self, count: int, batch: int) -> dict[str, float]:
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(count):
            self._forward(batch)
        return {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}

    def _forward(self, batch: int) -> np.ndarray:
        return self._session.run(None, {self._name: self._images[:batch]})[0]


def main() -> None:
    """Answers orders; `print` serves as the line back."""
    for line in sys.stdin:
        order = json.loads(line)
        if order.pop("order") == "build":
            network, answer = Network(**order), {}
        else:
            answer = network.run(**order)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
