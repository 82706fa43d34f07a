"""Dynamic channel element selection: which input channels of a site a task may train.

CsKO (arXiv 2406.08830), "dynamic channel element selection"; the formula is `Sensitivity`'s.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from csk_sdk.errors import ConfigError, DivergedError


class Sensitivity:
    """Running sensitivity of one site's input channels, `s_j = sum over batches of ||dL/dC[:, j]||^2`.

    It accumulates, so that a device holds one batch's gradient at a time and never the task's.
    """

    def __init__(self, channels: int) -> None:
        self._values = np.zeros(channels, np.float64)

    def add(self, gradient: NDArray[Any], indices: NDArray[np.int64] | None = None) -> None:
        """Add one batch's center gradient, `(rows, c_in)` float32.

        With `indices` `(k,)`, distinct, the gradient is `(rows, k)` and its column `i` belongs to channel
        `indices[i]`: a device short of memory can visit the channels in portions.
        """
        # Summed in float64: squares of small float32 gradients would underflow, and many batches would round.
        squared = np.einsum("rc,rc->c", gradient, gradient, dtype=np.float64)
        if indices is None:
            self._values += squared
        else:
            self._values[indices] += squared

    @property
    def values(self) -> NDArray[np.float64]:
        """A copy of the sensitivities so far, `(c_in,)` float64, not negative."""
        return self._values.copy()


def channel_count(channels: int, channel_ratio: float) -> int:
    """How many of `channels` a ratio selects: `max(1, round(channel_ratio * channels))`.

    Raises ConfigError when the ratio is outside (0, 1].
    """
    if not 0.0 < channel_ratio <= 1.0:
        raise ConfigError(
            f"channel_ratio is {channel_ratio}, but it must be above 0 and at most 1: "
            "give the share of input channels to train, for example 0.25."
        )
    return max(1, round(channel_ratio * channels))


def select_channels(sensitivity: NDArray[np.float64], channel_ratio: float) -> NDArray[np.int64]:
    """The most sensitive channels, `(k,)` int64 in ascending order; `k` is `channel_count`'s.

    `sensitivity` is `(c_in,)`. Of equally sensitive channels the lower index wins, so the choice is the same
    on every platform. Raises ConfigError for a ratio outside (0, 1], DivergedError when a sensitivity is NaN or
    infinite (nothing could be learned from such gradients).
    """
    count = channel_count(sensitivity.size, channel_ratio)
    broken = np.flatnonzero(~np.isfinite(sensitivity))
    if broken.size:
        raise DivergedError(
            f"the gradient of input channel {broken[0]} is not finite on this task's data: "
            "check the images, and that the bundle's preprocessing fits the model."
        )
    order = np.argsort(-sensitivity, kind="stable")
    return np.sort(order[:count]).astype(np.int64, copy=False)
