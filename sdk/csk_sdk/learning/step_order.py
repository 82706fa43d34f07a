"""Which images each step of a run goes over: all of a task's, or those that most of the gradient comes from."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class StepOrder:
    """The order of `images` images in each epoch, by seed and epoch, so that any step can be redone.

    Steps go over the `chosen` `(n,)` of them, all at first, `batch_size` at a time: `count` images and `per_epoch`
    steps in an epoch.
    """

    def __init__(self, images: int, batch_size: int, seed: int) -> None:
        self._images, self._batch_size, self._seed = images, batch_size, seed
        self.over(np.ones(images, np.bool_))

    def over(self, chosen: NDArray[np.bool_]) -> None:
        """Let the steps go over these."""
        self.chosen, self.count = chosen, int(chosen.sum())
        self.per_epoch = -(-self.count // self._batch_size)
        # That of the last epoch that was asked for.
        self._epoch, self._order = -1, np.empty(0, np.int64)

    def step(self, epoch: int, position: int) -> NDArray[np.int64]:
        """The images of one step of an epoch."""
        if self._epoch != epoch:
            order = self.epoch(epoch)
            self._epoch, self._order = epoch, order[self.chosen[order]]
        return self._order[position * self._batch_size : (position + 1) * self._batch_size]

    def seen(self, steps: int) -> int:
        """How many images the steps of the last of so many steps' epoch have gone over by then."""
        return min(((steps - 1) % self.per_epoch + 1) * self._batch_size, self.count)

    def epoch(self, epoch: int) -> NDArray[np.int64]:
        """All images in the order of an epoch, also those that no step goes over."""
        return np.random.default_rng((self._seed, epoch)).permutation(self._images)

    def plain(self) -> NDArray[np.int64]:
        """All images in the order in which everything but steps sees them."""
        return np.random.default_rng(self._seed).permutation(self._images)
