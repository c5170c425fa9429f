"""A model on a server, however one talks to it, and what can go wrong with that."""

from collections.abc import Mapping

import numpy as np

from anime_tf.errors import UserError


class TooLargeError(UserError):
    """The server refuses so large a request; a smaller one may pass."""


class ServedModel:
    """A model on a server that speaks the API of TensorFlow Serving.

    Args:
        url: The server, as the user wrote it.
        name: The model's name on the server.
        label: Label of the version to ask, such as `canary`; the newest without.
        timeout: Seconds to wait for an answer.
        retries: How often to try again when the server is busy or cannot be reached.
    """

    def __init__(
        self,
        url: str,
        name: str,
        label: str | None = None,
        timeout: float = 30.0,
        retries: int = 3,
    ):
        self.url, self.name, self.label = url, name, label
        self.timeout, self.retries = timeout, retries

    def predict(
        self,
        signature: str,
        inputs: Mapping[str, np.ndarray],
        outputs: Mapping[str, type],
    ) -> dict[str, np.ndarray]:
        """Runs a signature.

        Args:
            signature: Its name.
            inputs: Its arguments; texts and files are bytes in arrays of objects.
            outputs: The results to return, each with its NumPy type; `object` stands
                for bytes.

        Returns:
            An array for each of `outputs`.

        Raises:
            TooLargeError: If the server refuses so large a request.
            UserError: If the server cannot be reached, does not answer in time, has no
                such model, or refuses the request.
        """
        raise NotImplementedError

    def states(self) -> list[str]:
        """Returns what the server says of each version, such as `version 1: LOADING`;
        nothing if it knows no such model."""
        raise NotImplementedError

    def unreachable(self, reason: object) -> UserError:
        # What answers in another protocol may be quoted in the reason.
        text = "".join(char for char in str(reason) if char.isprintable())
        return UserError(
            f"no server answers at {self.url}: is it running, and are that its address "
            f"and its protocol? ({text})"
        )

    def timed_out(self) -> UserError:
        return UserError(
            f"the server at {self.url} did not answer within {self.timeout:g} s; allow "
            "more by --timeout, or ask for less at once by --batch-size"
        )

    def busy(self, reason: object) -> UserError:
        return UserError(
            f"the server at {self.url} is too busy, asked {self.retries + 1} times; "
            f"try later ({reason})"
        )

    def refused(self, reason: object) -> UserError:
        return UserError(f"the server at {self.url} refused the request: {reason}")

    def too_large(self) -> TooLargeError:
        return TooLargeError(f"too large for the server at {self.url}")

    def malformed(self, reason: object) -> UserError:
        return UserError(
            f"what answers at {self.url} is no TensorFlow Serving with a model of "
            f"anime-tf by the name {self.name!r}: {reason}"
        )

    def missing(self, reason: object) -> UserError:
        """The error for a model that the server did not find: wrong name, or not ready.

        Asks the server which.
        """
        states = self.states()
        if not states:
            return UserError(
                f"the server at {self.url} has no model {self.name!r}; name another "
                f"by --model-name ({reason})"
            )
        return UserError(
            f"the model {self.name!r} at {self.url} is not ready, or not by the label "
            f"or version asked for ({reason}); it has: {'; '.join(states)}"
        )
