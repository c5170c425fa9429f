"""Runs the server: socket, protocol, signals."""

import socket
from collections.abc import Callable

import uvicorn
from starlette.applications import Starlette

from anime_tf.errors import UserError
from anime_tf.server.connections import impatient
from anime_tf.server.limits import Limits

# Seconds that requests are given to be answered when the server is told to end.
_FAREWELL = 30


def bind(host: str, port: int) -> socket.socket:
    """Takes a port; 0 takes any that is free.

    Raises:
        UserError: If it cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=1024)
    # Also what is no host, and no port.
    except (OSError, OverflowError, UnicodeError) as error:
        raise UserError(
            f"cannot serve at {host}, port {port}: {error}; choose others by --host "
            "and --port"
        ) from error


def serve(
    app: Starlette,
    listener: socket.socket,
    limits: Limits,
    on_start: Callable[[], None],
) -> None:
    """Serves until told to end (SIGINT, SIGTERM); requests under way are answered.

    Args:
        app: The application.
        listener: From `bind`.
        limits: Those of the application.
        on_start: Called when the first request can be answered.
    """
    build_server(app, limits, on_start).run(sockets=[listener])


def build_server(
    app: Starlette, limits: Limits, on_start: Callable[[], None]
) -> uvicorn.Server:
    """Returns the server, not started yet; see `serve`."""
    config = uvicorn.Config(
        app,
        http=impatient(limits.receive_seconds),
        ws="none",
        lifespan="on",
        # Whatever the program does with its log.
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        limit_concurrency=limits.connections,
        timeout_keep_alive=max(1, round(limits.receive_seconds)),
        timeout_graceful_shutdown=_FAREWELL,
    )
    return _Server(config, on_start)


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, on_start: Callable[[], None]):
        super().__init__(config)
        self._on_start = on_start

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._on_start()
