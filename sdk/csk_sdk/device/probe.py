"""Made-up images and signals that are like a bundle's data in level and contrast: what a device tries its graphs with.

A bundle holds no image of anyone's, so noise stands in for them. int8 graphs know the range of the data that they were
calibrated on, and cut off what lies outside: so the noise must lie inside, whatever a graph's units are.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from csk_sdk.contract.manifest import Manifest
from csk_sdk.contract.thresholds import number

_PROBE = 8
_LARGEST = 255
_CONTRAST, _LEVEL, _SPREAD = number("probe", "contrast"), number("probe", "level"), number("probe", "spread")


def probe(manifest: Manifest) -> NDArray[np.float32]:
    """Eight images or signals of smooth noise, the same everywhere: `(8, channels, *size)`, in the graphs' units."""
    rng = np.random.default_rng(0)
    shape = manifest.input.shape
    coarse = [-(-size // 8) for size in shape[1:]]
    smooth = rng.normal(size=(_PROBE, shape[0], *coarse))
    for axis, size in enumerate(shape[1:], start=2):
        smooth = np.repeat(smooth, 8, axis=axis).take(range(size), axis=axis)
    noise = rng.normal(size=(_PROBE, *shape))
    return like_data(manifest, _CONTRAST * (smooth + 0.2 * noise))


def like_data(manifest: Manifest, noise: NDArray[Any]) -> NDArray[np.float32]:
    """Noise around 0 with deviation 1, `(n, channels, *size)`, at the data's level and contrast; float32.

    These are what the builder measured (`Manifest.probe`); else they are guessed: for images, as pixels of their range;
    for signals, as what mean and std of the manifest make of them. No image leaves the range of its pixels.
    """
    channels = (-1, *[1] * len(manifest.input.size))
    spec = manifest.preprocessing
    mean, std = np.array(spec.mean), np.array(spec.std)

    def of_pixels(value: float) -> NDArray[np.float64]:
        return np.asarray((value * spec.scale - mean) / std).reshape(channels)

    if manifest.probe is not None:
        level, spread = (
            np.array(values).reshape(channels) for values in (manifest.probe.mean, manifest.probe.std)
        )
    elif manifest.input.is_signal:
        level, spread = np.zeros(1), np.ones(1)
    else:
        level, spread = of_pixels(_LEVEL), of_pixels(_LEVEL + _SPREAD) - of_pixels(_LEVEL)
    made = level + spread * noise
    if not manifest.input.is_signal:
        made = np.clip(made, of_pixels(0), of_pixels(_LARGEST))
    return np.asarray(made, np.float32)
