"""How many of a task's images are looked at mirrored, too, for its own head.

Each takes as long as an image of its own, and beside many they hardly tell more (docs/decisions/0005-heads.md).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from csk_sdk.contract.thresholds import integer

_ENOUGH = integer("mirroring", "enough")


def mirrored_beside(images: int) -> int:
    """How many beside so many images: all of few, and none where these are enough."""
    return min(images, max(0, _ENOUGH - images))


def spread_over(images: int, count: int) -> NDArray[np.int64]:
    """Which `count` of so many images, ascending: they may lie sorted by class, and all are to be among them."""
    return np.arange(count) * images // max(count, 1)
