"""Puts what many requests ask for into common batches of one model.

A network takes little longer for a batch than for one picture, so pictures of requests
that come in at the same time go through it together. Nobody waits for a picture that
is not on its way already.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

from anime_tf.server.errors import BusyError

Row = Any
Result = Any


class Batcher:
    """Runs a function on rows of many requests, one batch at a time, in one thread.

    To be used in one event loop: `start` there first, `stop` in the end.

    Args:
        function: Rows to as many results.
        batch_size: Most rows of one batch.
        max_wait: Most seconds that a row waits for others that are on their way.
        queue: Most rows that are on their way or waiting.
    """

    def __init__(
        self,
        function: Callable[[list[Row]], Sequence[Result]],
        batch_size: int,
        max_wait: float,
        queue: int,
    ):
        self._function = function
        self._batch_size, self._max_wait, self._queue = batch_size, max_wait, queue
        self._waiting: deque[tuple[Row, asyncio.Future]] = deque()
        self._expected = 0
        self._thread = ThreadPoolExecutor(1)

    def start(self) -> None:
        self._changed = asyncio.Event()
        self._worker = asyncio.get_running_loop().create_task(self._work())

    async def stop(self) -> None:
        """Ends the worker; whoever still waits is cancelled."""
        self._worker.cancel()
        await asyncio.gather(self._worker, return_exceptions=True)
        while self._waiting:
            self._waiting.popleft()[1].cancel()
        self._thread.shutdown()

    @contextmanager
    def expecting(self, count: int) -> Iterator[None]:
        """Announces rows: they will be run in this block, or not at all.

        Raises:
            BusyError: If too many are announced already.
        """
        if self._expected + count > self._queue:
            raise BusyError(f"{self._expected} pictures are waiting")
        self._expected += count
        try:
            yield
        finally:
            self._expected -= count
            self._changed.set()

    async def run(self, row: Row) -> Result:
        """Returns the result of an announced row."""
        future = asyncio.get_running_loop().create_future()
        self._waiting.append((row, future))
        self._changed.set()
        return await future

    async def call(self, function: Callable, *arguments):
        """Runs something else in the thread of the model, between two batches."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, function, *arguments)

    async def _work(self) -> None:
        while True:
            batch = await self._collect()
            if not batch:
                continue
            try:
                results = await self.call(self._function, [row for row, _ in batch])
            except Exception as error:
                for _, future in batch:
                    _settle(future, error=error)
            else:
                for (_, future), result in zip(batch, results, strict=True):
                    _settle(future, result)
            finally:
                # Whoever has no result yet gets none: the worker was stopped.
                for _, future in batch:
                    future.cancel()

    async def _collect(self) -> list[tuple[Row, asyncio.Future]]:
        loop = asyncio.get_running_loop()
        while not self._waiting:
            await self._next_change(None)
        deadline = loop.time() + self._max_wait
        while len(self._waiting) < min(self._batch_size, self._expected):
            if (left := deadline - loop.time()) <= 0:
                break
            await self._next_change(left)
        count = min(self._batch_size, len(self._waiting))
        batch = [self._waiting.popleft() for _ in range(count)]
        # Whoever has gone away in the meantime is not served.
        return [(row, future) for row, future in batch if not future.done()]

    async def _next_change(self, seconds: float | None) -> None:
        self._changed.clear()
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._changed.wait(), seconds)


def _settle(
    future: asyncio.Future, result: Result = None, error: Exception | None = None
) -> None:
    if future.done():
        return
    if error:
        future.set_exception(error)
    else:
        future.set_result(result)
