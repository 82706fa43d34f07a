"""Batches of images as torch tensors, augmented and normalised as csk-sdk does it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from csk_sdk.data.augment import augment

from .data import Split

BATCH = 16
_CHUNK = 32


class Batches:
    """Images of a split in batches, with csk-sdk's own shuffles and augmentation."""

    def __init__(self, normalize: dict[str, Any], seed: int, shift: int = 2) -> None:
        self._mean = np.asarray(normalize["mean"], np.float32)
        self._std = np.asarray(normalize["std"], np.float32)
        self._seed, self._shift = seed, shift

    def tensor(self, images: NDArray[np.uint8]) -> torch.Tensor:
        """uint8 `(n, h, w, 3)` to float32 `(n, 3, h, w)`, channels last in memory."""
        values = (images.astype(np.float32) / 255.0 - self._mean) / self._std
        return torch.from_numpy(values).permute(0, 3, 1, 2)

    def training(self, split: Split, epoch: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """One epoch: shuffled, flipped and shifted by seed, epoch and position, as `learn_run` does it."""
        order = np.random.default_rng((self._seed, epoch)).permutation(len(split.labels))
        for position, start in enumerate(range(0, len(order), BATCH)):
            index = order[start : start + BATCH]
            rng = np.random.default_rng((self._seed, epoch, position))
            images = augment(split.images[index], rng, True, self._shift)
            yield self.tensor(images), torch.from_numpy(split.labels[index])

    def plain(self, split: Split, flip: bool = False) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """All images once, in order, as they are or mirrored."""
        for start in range(0, len(split.labels), _CHUNK):
            images = split.images[start : start + _CHUNK]
            yield (
                self.tensor(images[:, :, ::-1] if flip else images),
                torch.from_numpy(split.labels[start : start + _CHUNK]),
            )

    def shuffled(self, split: Split) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """All images once in batches of the training's size, shuffled, not augmented."""
        order = np.random.default_rng(self._seed).permutation(len(split.labels))
        for start in range(0, len(order), BATCH):
            index = order[start : start + BATCH]
            yield self.tensor(split.images[index]), torch.from_numpy(split.labels[index])

    @torch.no_grad()
    def features(
        self, network: torch.nn.Module, split: Split, flip: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Features `(n, f)` float32 and labels of a split, in order."""
        found, labels = zip(*((network(x), y) for x, y in self.plain(split, flip)), strict=True)
        return torch.cat(found), torch.cat(labels)

    def sample(self, split: Split, count: int) -> Split:
        """`count` images of a split, spread evenly over it (which is sorted by class)."""
        index = np.linspace(0, len(split.labels) - 1, min(count, len(split.labels))).astype(np.int64)
        return Split(split.images[index], split.labels[index])
