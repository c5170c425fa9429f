"""How much one client, and all of them together, may ask for."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from starlette.requests import Request

from anime_tf.server.errors import BusyError, RequestError

_MIB = 1024**2
# Seconds for which a body that is too large is read on, and thrown away: a client that
# still writes does not see the answer.
_LINGER = 5.0


@dataclass(frozen=True)
class Limits:
    """The limits of a server.

    Attributes:
        body_bytes: Most bytes of one request.
        all_bodies_bytes: Most bytes of all requests that are held at once.
        pictures: Most pictures of one request, also of drawings.
        queue: Most pictures that wait for one model at once.
        pixels: Pictures that claim more are answered with `ok` false.
        receive_seconds: Most time that a client takes to send its request, and as much
            again to take its answer.
        answer_seconds: Most time from the last byte of a request to its answer.
        connections: Most clients that are connected at once.
    """

    body_bytes: int = 32 * _MIB
    all_bodies_bytes: int = 256 * _MIB
    pictures: int = 64
    queue: int = 512
    pixels: int = 16_000_000
    receive_seconds: float = 30.0
    answer_seconds: float = 60.0
    connections: int = 512


class Intake:
    """Receives the bodies of requests, and never holds more than it may.

    Args:
        limits: Those of the server.

    Attributes:
        limits: The same.
        held: Bytes of all bodies that are held at the moment.
    """

    def __init__(self, limits: Limits):
        self.limits = limits
        self.held = 0

    @asynccontextmanager
    async def receive(self, request: Request) -> AsyncIterator[bytearray]:
        """Gives the body of a request, which counts as held while the block runs.

        Raises:
            RequestError: If it is too large (413), too slow (408), or all bodies
                together are too large (503).
        """
        body = bytearray()
        try:
            await _in_time(
                self._read(request, body),
                self.limits.receive_seconds,
                RequestError(408, "the request did not arrive in time"),
            )
            yield body
        finally:
            self.held -= len(body)

    async def _read(self, request: Request, body: bytearray) -> None:
        if _announced(request) > self.limits.body_bytes:
            await self._refuse(request)
        async for chunk in request.stream():
            if len(body) + len(chunk) > self.limits.body_bytes:
                await self._refuse(request)
            if self.held + len(chunk) > self.limits.all_bodies_bytes:
                raise BusyError("too many requests are being received")
            body += chunk
            self.held += len(chunk)

    async def _refuse(self, request: Request) -> None:
        # Who asks first has sent nothing yet.
        if request.headers.get("expect", "").lower() != "100-continue":
            await _discard(request)
        size = self.limits.body_bytes
        raise RequestError(413, f"the request has more than {size:,} bytes; split it")


async def answer_in_time(awaitable, limits: Limits):
    """Awaits an answer; raises `RequestError` (504) if it takes too long."""
    error = RequestError(504, "the answer took too long; ask for fewer pictures")
    return await _in_time(awaitable, limits.answer_seconds, error)


async def _in_time(awaitable, seconds: float, error: RequestError):
    try:
        return await asyncio.wait_for(awaitable, seconds)
    # An alias of the built-in one from Python 3.11 on.
    except asyncio.TimeoutError:
        raise error from None


async def _discard(request: Request) -> None:
    async def read_on():
        async for _ in request.stream():
            pass

    with suppress(asyncio.TimeoutError):
        await asyncio.wait_for(read_on(), _LINGER)


def _announced(request: Request) -> int:
    """The length that a request says it has; 0 if it does not."""
    # The server has refused by now what is no number.
    return int(request.headers.get("content-length", 0))
