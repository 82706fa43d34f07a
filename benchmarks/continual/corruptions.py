"""Images as a worse camera would take them: ImageNet-C's definitions, with its constants for 32x32 (CIFAR-10-C).

Hendrycks & Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations", ICLR 2019
(arXiv 1903.12261). Severity 3 of 5 for all. Images are `(n, h, w, 3)` uint8, the constants are for values in 0..1.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Images = NDArray[np.uint8]

# Severities 1 to 5, as in the released CIFAR-10-C.
NOISE_DEVIATION = (0.04, 0.06, 0.08, 0.09, 0.10)
BLUR_DEVIATION = (0.4, 0.6, 0.7, 0.8, 1.0)
CONTRAST_LEFT = (0.75, 0.5, 0.4, 0.3, 0.15)
SEVERITY = 3


def gaussian_noise(images: Images, rng: np.random.Generator, severity: int = SEVERITY) -> Images:
    """Independent normal noise on every value."""
    values = images / 255.0
    return _to_uint8(values + rng.normal(scale=NOISE_DEVIATION[severity - 1], size=values.shape))


def gaussian_blur(images: Images, rng: np.random.Generator, severity: int = SEVERITY) -> Images:
    """A Gaussian kernel over rows and columns, cut at four deviations, edges repeated."""
    deviation = BLUR_DEVIATION[severity - 1]
    radius = int(4.0 * deviation + 0.5)
    offsets = np.arange(-radius, radius + 1)
    kernel = np.exp(-0.5 * (offsets / deviation) ** 2)
    kernel /= kernel.sum()
    values = images / 255.0
    for axis in (1, 2):
        width = [(radius, radius) if a == axis else (0, 0) for a in range(4)]
        padded = np.pad(values, width, mode="edge")
        size = values.shape[axis]
        values = sum(
            weight * np.take(padded, np.arange(start, start + size), axis=axis)
            for start, weight in enumerate(kernel)
        )
    return _to_uint8(values)


def contrast(images: Images, rng: np.random.Generator, severity: int = SEVERITY) -> Images:
    """Every channel of an image drawn towards its mean."""
    values = images / 255.0
    means = values.mean(axis=(1, 2), keepdims=True)
    return _to_uint8((values - means) * CONTRAST_LEFT[severity - 1] + means)


CORRUPTIONS: dict[str, Callable[[Images, np.random.Generator], Images]] = {
    "gaussian noise": gaussian_noise,
    "gaussian blur": gaussian_blur,
    "contrast": contrast,
}


def _to_uint8(values: NDArray[np.float64]) -> Images:
    return (np.clip(values, 0.0, 1.0) * 255.0).astype(np.uint8)
