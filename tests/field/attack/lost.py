"""What is never lost."""

from __future__ import annotations

from pathlib import Path

from field.attack.ground import Ground
from field.attack.promise import GUARANTEES, Tries, promise
from field.attack.victims import KILLS


@promise(
    GUARANTEES,
    "Whatever moment the power fails at, the state opens, every committed generation is whole, and the same command "
    "ends with the same bits.",
    "build-artifacts --overwrite leaves the old bundle or the new one, whole, whenever it is killed or power fails.",
    "A rename is atomic, so a reader sees the old file or the new one, whole.",
    tries=KILLS,
)
def killed_at_any_moment(tries: Tries, ground: Ground, place: Path) -> None:
    """The harness itself drives this one: field/attack/kills.py, field/attack/victims.py."""
    raise NotImplementedError
