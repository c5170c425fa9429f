"""Sorting pictures into folders by character; nothing is ever overwritten."""

import errno
import filecmp
import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from anime_tf import files
from anime_tf.errors import UserError
from anime_tf.prediction import Prediction

WAYS = ("copy", "move", "link")


@dataclass(frozen=True)
class Step:
    """What happens to one picture.

    Attributes:
        source: The picture.
        target: Where it goes, or None when it stays.
        name: The folder it goes to: a character or `unknown`.
        reason: Why it stays, or empty.
    """

    source: Path
    target: Path | None
    name: str = ""
    reason: str = ""


def plan_sorting(predictions: Iterable[Prediction], out: Path | str) -> list[Step]:
    """Decides where each picture goes, without touching anything.

    Args:
        predictions: Predictions whose sources are files.
        out: Folder that holds one folder per character.

    Returns:
        One step per picture. Unreadable pictures stay, and so do those whose very
        content lies at the target already; another file of that name is avoided by
        a number behind the name.

    Raises:
        UserError: If a character's name cannot be a folder's name.
    """
    out, steps, taken = Path(out), [], {}
    for prediction in predictions:
        source = Path(prediction.source)
        if prediction.problem:
            steps.append(Step(source, None, reason=prediction.problem))
            continue
        name = prediction.name
        if Path(name).name != name or name in (".", ".."):
            raise UserError(f"the character's name {name!r} cannot be a folder's name")
        target, is_there = _free_target(source, out / name, taken)
        if is_there:
            steps.append(Step(source, None, name, "already there"))
        else:
            taken[target] = source
            steps.append(Step(source, target, name))
    return steps


def carry_out(steps: Sequence[Step], way: str = "copy") -> None:
    """Copies, moves or links (symbolically) the pictures of a plan.

    Raises:
        UserError: If a target has appeared since planning or cannot be written;
            what was done before stays done, and the next run goes on from there.
    """
    if way not in WAYS:
        raise ValueError(f"way must be one of {WAYS}, got {way!r}")
    for step in steps:
        if step.target is None:
            continue
        try:
            _place(step.source, step.target, way)
        except OSError as error:
            raise UserError(
                f"{step.source} could not go to {step.target}: "
                f"{error.strerror or error}; nothing was overwritten, run it again "
                "to go on"
            ) from error


def _free_target(
    source: Path, folder: Path, taken: dict[Path, Path]
) -> tuple[Path, bool]:
    """Returns the first free name, and whether the same content is there already."""
    number = 1
    while True:
        suffix = "" if number == 1 else f" ({number})"
        target = folder / f"{source.stem}{suffix}{source.suffix}"
        occupant = taken.get(target, target if os.path.lexists(target) else None)
        if occupant is None:
            return target, False
        if occupant.is_file() and filecmp.cmp(source, occupant, shallow=False):
            return target, True
        number += 1


def _place(source: Path, target: Path, way: str) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if way == "link":
        target.symlink_to(source.resolve())
        return
    # Creating the name exclusively makes it ours: what replaces it is our own file.
    target.open("x").close()
    try:
        if way == "copy":
            _copy(source, target)
        else:
            _move(source, target)
    except BaseException:
        if source.exists() and target.exists() and target.stat().st_size == 0:
            target.unlink()
        raise


def _copy(source: Path, target: Path) -> None:
    with files.replacing(target) as temporary:
        shutil.copy2(source, temporary)


def _move(source: Path, target: Path) -> None:
    try:
        os.replace(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        # Another disk: the source goes only when all of the copy is there.
        _copy(source, target)
        source.unlink()
