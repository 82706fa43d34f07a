"""What the others are compared with."""

from __future__ import annotations

from ..csko import Centers
from ..finetune import HeadOnly


class Defaults(Centers):
    """What the others are compared with."""

    name, title, layers = "tried-defaults", "the defaults", True


class Untrained(HeadOnly):
    """No step changes the network."""

    name, title, layers = "tried-heads", "frozen backbone", True
