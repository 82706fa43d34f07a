"""Numbers that are not finite never become a prediction, and never part of a state.

A network can compute them for any image: by a runtime's mistake, a division by nothing, an overflow. `argmax` would
make a class of them, and in a sum they would stay for ever. The sentences are JavaScript's, too
(src/network/finite.ts).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csk_sdk.errors import DivergedError, StateError, TaskError

_WHAT = "the network computes numbers that are not finite (NaN or infinity)"
_ADVICE = "If others fail, too, try another release of ONNX Runtime, or build the bundle again."


class NotFiniteError(TaskError):
    """Nothing can be said of one image or signal, the one at `index` of those handed over."""

    def __init__(self, index: int, noun: str, which: str = "") -> None:
        super().__init__(
            f"For {which or f'{noun} {index}'} {_WHAT}, so nothing can be said of it: check the {noun}. {_ADVICE}"
        )
        self.index, self.noun = index, noun

    def named(self, which: str) -> NotFiniteError:
        """The same, with the name that the image or signal has for a user."""
        return NotFiniteError(self.index, self.noun, which)


def first_not_finite(values: NDArray[Any]) -> int | None:
    """The first row of `values` `(n, k)` with a number that is not finite; None where all are."""
    finite = np.isfinite(values)
    return None if finite.all() else int(np.argwhere(~finite)[0][0])


def require_answers(values: NDArray[Any], noun: str, first: int = 0) -> None:
    """Raise NotFiniteError for the first row of `values` `(n, k)` that is not finite.

    They are what the network or a head computes for `n` images or signals (`noun`), the first of which is number
    `first`.
    """
    row = first_not_finite(values)
    if row is not None:
        raise NotFiniteError(first + row, noun)


def unlearnable(noun: str, which: str = "") -> DivergedError:
    """Nothing can be learned from one of a task's images or signals (`noun`), `which` it is where that is known."""
    check = f"check the {noun}" if which else f"check the task's {noun}s"
    return DivergedError(
        f"For {which or f'one {noun} of the task'} {_WHAT}, so nothing can be learned from it: {check}. {_ADVICE} "
        "Nothing was committed."
    )


def require_learnable_features(features: NDArray[Any], noun: str) -> None:
    """Raise DivergedError where features `(n, f)` of a task's images or signals (`noun`) are not finite."""
    if not np.isfinite(features).all():
        raise unlearnable(noun)


def require_converged(tensors: Mapping[str, NDArray[Any]]) -> None:
    """Raise DivergedError where a tensor of a task's training is not finite: committed, it could not be unlearned."""
    for name, tensor in tensors.items():
        if not np.isfinite(tensor).all():
            raise DivergedError(
                f"Training diverged ('{name}' is no longer finite): lower --learning-rate, and check this "
                "task's data. Nothing was committed."
            )


def require_usable_head(weight: NDArray[Any], bias: NDArray[Any], whose: str) -> None:
    """Raise StateError where a stored head, or one made of stored statistics, is not finite."""
    if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
        raise StateError(
            f"The head of {whose} holds numbers that are not finite (NaN or infinity): roll back to an earlier task."
        )
