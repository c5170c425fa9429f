"""What a client is told when its request cannot be answered."""


class RequestError(Exception):
    """A request that is refused, with one sentence for whoever sent it.

    Args:
        status: Status of HTTP, 400 to 599.
        message: What was wrong, and what to do.
    """

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status = status
        self.message = message


class BusyError(RequestError):
    """Nothing is wrong with the request: there are too many at the moment."""

    def __init__(self, message: str):
        super().__init__(503, f"{message}; try again in a moment")
