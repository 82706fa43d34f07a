"""Features of mirrored images, for a task's own head: of some from the network, of the others from what these tell.

What mirroring changes in an image's features depends little on what the image shows, so that of many images a part goes
through the network a second time, and their changes are added to the features of the others
(docs/decisions/0005-heads.md).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from csk_sdk.contract.thresholds import integer

_LEAST, _ONE_IN = integer("mirroring", "least_images"), integer("mirroring", "one_in")


def mirrored_by_the_network(images: int) -> int:
    """How many of so many images are mirrored themselves."""
    return min(images, max(_LEAST, -(-images // _ONE_IN)))


def spread_over(images: int, count: int) -> NDArray[np.int64]:
    """Which `count` of so many images, ascending: they may lie sorted by class, and all are to be among them."""
    return np.arange(count) * images // count


def mirrored_like(own: NDArray[np.float32], mirrored: NDArray[np.float32]) -> NDArray[np.float32]:
    """The features `(n - m, f)` float32 of the images that are not mirrored themselves, as if they were.

    `own` `(n, f)` are those of all images as they are, and `mirrored` `(m, f)` those of the images `spread_over(n, m)`
    mirrored. The first of the others changes as the first of these did, and so on, over and over.
    """
    count = len(mirrored)
    chosen = spread_over(len(own), count)
    change = mirrored - own[chosen]
    others = np.delete(own, chosen, axis=0)
    for start in range(0, len(others), count):
        part = others[start : start + count]
        part += change[: len(part)]
    return others
