"""All attacks, in the order of the docs' promises."""

from __future__ import annotations

from field.attack import commits, disks, handed, intruders, lost, places, revealed
from field.attack.promise import PROMISES

__all__ = ["PROMISES", "commits", "disks", "handed", "intruders", "lost", "places", "revealed"]
