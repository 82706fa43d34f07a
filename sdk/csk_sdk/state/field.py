"""`field.json`: how predictions went in the field, day by day; kept only where the device's owner has asked for it.

Counts, and nothing else: no image, no feature, no name of a class. Of each day (UTC) and generation, how many answers
there were, how many of them unknown, and how many lay further from all that is known than half, a fifth and a
twentieth of known images do. Where images are as they were, these are the shares that are found; where they drift
away from what was learned, the shares grow. Bounded: of more than `DAYS` days the oldest go.
docs/state.md#fieldjson.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from csk_sdk.errors import StateError
from csk_sdk.state.atomic import UnreadableError, exists, remove_or_raise, replace_file
from csk_sdk.state.lock import StateLock
from csk_sdk.state.sealing import seal, unseal

FIELD, FIELD_LOCK = "field.json", "field.lock"
# Rows that are kept: a day has more than one where something was learned on it.
DAYS = 90
# Shares of known images that lie beyond the distances that are counted by.
SHARES = (0.5, 0.2, 0.05)
_MOST = 2**53
_ANEW = "`csk-sdk verify --repair` counts from nothing again; it is the only thing that is lost."


@dataclass(frozen=True)
class Day:
    """One day's predictions by one generation.

    - `day`: its date, ISO 8601, UTC, as the device's clock had it
    - `generation`: which one answered
    - `answers`: how many images or signals were predicted
    - `measured`: of how many it could be told how far from everything known they are
    - `unknown`: how many of these were called unknown
    - `beyond`: how many of these lay further than half, a fifth and a twentieth of known images do (`SHARES`)
    """

    day: str
    generation: int
    answers: int = 0
    measured: int = 0
    unknown: int = 0
    beyond: tuple[int, ...] = (0,) * len(SHARES)

    def __add__(self, other: Day) -> Day:
        return replace(
            self,
            answers=self.answers + other.answers,
            measured=self.measured + other.measured,
            unknown=self.unknown + other.unknown,
            beyond=tuple(a + b for a, b in zip(self.beyond, other.beyond, strict=True)),
        )


def is_counting(folder: Path) -> bool:
    """Whether predictions of the state in `folder` are counted."""
    return exists(folder / FIELD)


def read_field(folder: Path) -> tuple[Day, ...] | None:
    """What was counted, oldest first; None where nothing is. Raises StateError where the file is damaged."""
    path = folder / FIELD
    if not exists(path):
        return None
    try:
        return tuple(_day(one) for one in unseal(path)["days"])
    except UnreadableError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise StateError(f"{path} has a day that is none ({error}). {_ANEW}") from error
    except StateError as error:
        raise StateError(f"{error} {_ANEW}") from error


def start_counting(folder: Path) -> None:
    """Count from now on; what was counted stays. The folder must be there. Raises StorageError."""
    if not is_counting(folder):
        _write(folder, ())


def count_anew(folder: Path) -> None:
    """Forget what was counted, and count on. Raises StorageError."""
    with StateLock(folder, FIELD_LOCK):
        _write(folder, ())


def stop_counting(folder: Path) -> None:
    """Count no more, and forget what was counted. Raises StorageError."""
    with StateLock(folder, FIELD_LOCK):
        remove_or_raise(folder / FIELD)


def add_days(folder: Path, more: Iterable[Day]) -> None:
    """Add to what was counted; nothing happens where nothing is counted any more. A damaged file is begun anew.

    Raises StateLockedError while another process adds, StorageError where it cannot be written.
    """
    if not is_counting(folder):
        return
    with StateLock(folder, FIELD_LOCK):
        try:
            before = read_field(folder)
        except StateError:
            before = ()
        if before is not None:
            _write(folder, merged((*before, *more)))


def merged(days: Iterable[Day]) -> tuple[Day, ...]:
    """One row for each day and generation, oldest first, and no more than are kept."""
    found: dict[tuple[str, int], Day] = {}
    for one in days:
        key = one.day, one.generation
        found[key] = found[key] + one if key in found else one
    return tuple(found[key] for key in sorted(found)[-DAYS:])


def _write(folder: Path, days: tuple[Day, ...]) -> None:
    # A power cut costs the last half minute's counts; half of a file there never is.
    replace_file(folder / FIELD, seal({"days": [asdict(one) for one in days]}), durable=False)


def _day(raw: Any) -> Day:
    beyond = raw["beyond"]
    counts = [raw["generation"], raw["answers"], raw["measured"], raw["unknown"], *beyond]
    if len(beyond) != len(SHARES) or not isinstance(raw["day"], str):
        raise ValueError("of another form")
    if not all(type(count) is int and 0 <= count < _MOST for count in counts):
        raise ValueError("with what is no count")
    generation, answers, measured, unknown, *rest = counts
    return Day(raw["day"][:10], generation, answers, measured, unknown, tuple(rest))
