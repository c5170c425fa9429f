"""Clients that hold a connection and do nothing with it."""

import asyncio

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

_TOO_SLOW = (
    b"HTTP/1.1 408 Request Timeout\r\n"
    b"Connection: close\r\n"
    b"Content-Type: application/json\r\n"
    b"\r\n"
    b'{"error":"the request did not arrive in time"}'
)


def impatient(seconds: float) -> type[H11Protocol]:
    """Returns a protocol for uvicorn, which sets no such limits itself: a client must
    send the head of a request, and take an answer, within so many seconds each."""

    class ImpatientProtocol(H11Protocol):
        _timer: asyncio.TimerHandle | None = None
        _writing: asyncio.TimerHandle | None = None

        def connection_made(self, transport):
            super().connection_made(transport)
            self._watch()

        def data_received(self, data):
            super().data_received(data)
            self._watch()

        def connection_lost(self, exc):
            super().connection_lost(exc)
            for timer in (self._timer, self._writing):
                if timer:
                    timer.cancel()

        def pause_writing(self):
            super().pause_writing()
            self._writing = self.loop.call_later(seconds, self.transport.abort)

        def resume_writing(self):
            super().resume_writing()
            if self._writing:
                self._writing.cancel()

        def _watch(self):
            is_waiting = self.conn.their_state is h11.IDLE
            if is_waiting and not self._timer:
                self._timer = self.loop.call_later(seconds, self._give_up)
            elif not is_waiting and self._timer:
                self._timer.cancel()
                self._timer = None

        def _give_up(self):
            if not self.transport.is_closing():
                self.transport.write(_TOO_SLOW)
                self.transport.close()

    return ImpatientProtocol
