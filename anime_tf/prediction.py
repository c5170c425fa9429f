"""What was recognised in one picture, whoever recognised it."""

from dataclasses import dataclass

UNKNOWN = "unknown"


@dataclass(frozen=True)
class Prediction:
    """What was recognised in one picture.

    Attributes:
        source: Path of the file, or a number for pictures given otherwise.
        name: The character, `UNKNOWN`, or empty when the picture is unreadable.
        confidence: Calibrated probability of the likeliest character, range [0, 1].
        known_score: How surely it is anybody known; `is_unknown` below the threshold.
        is_unknown: Whether it is nobody the model knows.
        top: The likeliest characters with their probabilities, likeliest first.
        problem: Why the picture could not be read, or empty.
    """

    source: str
    name: str = ""
    confidence: float = 0.0
    known_score: float = 0.0
    is_unknown: bool = False
    top: tuple[tuple[str, float], ...] = ()
    problem: str = ""
