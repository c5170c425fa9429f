import asyncio
import threading

import pytest

from anime_tf.server.batching import Batcher
from anime_tf.server.errors import BusyError


class _Doubler:
    def __init__(self, held_up=False):
        self.batches, self.threads = [], set()
        self.begun, self.goes = threading.Event(), threading.Event()
        if not held_up:
            self.goes.set()

    def __call__(self, rows):
        self.batches.append(list(rows))
        self.threads.add(threading.get_ident())
        self.begun.set()
        self.goes.wait()
        if "bad" in rows:
            raise ValueError("bad")
        return [2 * row for row in rows]


def _run(scenario, function, batch_size=4, max_wait=0.05, queue=100):
    async def main():
        batcher = Batcher(function, batch_size, max_wait, queue)
        batcher.start()
        try:
            return await scenario(batcher)
        finally:
            await batcher.stop()

    return asyncio.run(main())


async def _ask(batcher, row, delay=0.0):
    with batcher.expecting(1):
        await asyncio.sleep(delay)
        return await batcher.run(row)


def test_requests_that_come_together_run_together():
    double = _Doubler()

    async def scenario(batcher):
        return await asyncio.gather(*(_ask(batcher, row) for row in range(10)))

    assert _run(scenario, double) == [2 * row for row in range(10)]
    assert [len(batch) for batch in double.batches] == [4, 4, 2]
    assert len(double.threads) == 1
    assert threading.get_ident() not in double.threads


def test_nobody_waits_for_nobody():
    async def scenario(batcher):
        return await asyncio.wait_for(_ask(batcher, 1), 5)

    assert _run(scenario, _Doubler(), max_wait=60) == 2


def test_what_is_on_its_way_is_waited_for():
    double = _Doubler()

    async def scenario(batcher):
        await asyncio.gather(_ask(batcher, 1), _ask(batcher, 2, 0.1))

    _run(scenario, double, max_wait=60)
    assert double.batches == [[1, 2]]


def test_but_not_for_ever():
    double = _Doubler()

    async def scenario(batcher):
        with batcher.expecting(2):
            await batcher.run(1)
            await batcher.run(2)

    _run(scenario, double, max_wait=0.01)
    assert double.batches == [[1], [2]]


def test_what_never_comes_is_not_waited_for():
    async def announce_only(batcher):
        with batcher.expecting(1):
            await asyncio.sleep(0.05)

    async def scenario(batcher):
        both = asyncio.gather(_ask(batcher, 1), announce_only(batcher))
        return (await asyncio.wait_for(both, 5))[0]

    assert _run(scenario, _Doubler(), max_wait=60) == 2


def test_an_error_reaches_its_batch_and_no_other():
    async def scenario(batcher):
        with pytest.raises(ValueError, match="bad"):
            await _ask(batcher, "bad")
        return await _ask(batcher, 1)

    assert _run(scenario, _Doubler()) == 2


def test_who_went_away_is_not_served():
    double = _Doubler(held_up=True)

    async def scenario(batcher):
        first = asyncio.create_task(_ask(batcher, 1))
        await asyncio.to_thread(double.begun.wait)
        gone = asyncio.create_task(_ask(batcher, 2))
        await asyncio.sleep(0)
        gone.cancel()
        double.goes.set()
        await asyncio.gather(first, gone, return_exceptions=True)
        return await _ask(batcher, 3)

    assert _run(scenario, double) == 6
    assert double.batches == [[1], [3]]


def test_a_full_queue_is_said():
    double = _Doubler(held_up=True)

    async def scenario(batcher):
        asked = [asyncio.create_task(_ask(batcher, row)) for row in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(BusyError, match="3 pictures are waiting"):
            await _ask(batcher, 4)
        double.goes.set()
        await asyncio.gather(*asked)
        return await _ask(batcher, 5)

    assert _run(scenario, double, queue=3) == 10


def test_stopping_leaves_nobody_waiting():
    double = _Doubler(held_up=True)

    async def scenario(batcher):
        asked = [asyncio.create_task(_ask(batcher, row)) for row in range(9)]
        await asyncio.to_thread(double.begun.wait)
        # It waits for its thread, and for no result.
        double.goes.set()
        await batcher.stop()
        return await asyncio.wait_for(asyncio.gather(*asked, return_exceptions=True), 5)

    found = _run(scenario, double)
    assert all(isinstance(one, asyncio.CancelledError) for one in found)
