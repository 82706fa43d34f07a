"""Which image or signal it is that nothing can be learned from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csk_sdk.errors import DivergedError
from csk_sdk.learning.life import TaskLife
from csk_sdk.network.finite import first_not_finite, unlearnable
from csk_sdk.network.knowledge import FeatureExtractor

# Numbers of images or signals, and these at the model's size, `(n, *size, channels)`.
Numbered = tuple[Sequence[int] | NDArray[np.int64], NDArray[Any]]


def naming(
    error: DivergedError, life: TaskLife, batches: Iterable[Numbered], name: Callable[[int], str]
) -> DivergedError:
    """What to raise for `error`: the first of `batches` without finite features, by name; `error` where all have some.

    Under the network as it was before the task: so it is the image, and not what training made of the network. That is
    asked only now, since images are looked at in any order and in parts, where their numbers are not known.
    """
    bundle, threads = life.bundle, life.config.threads
    features = FeatureExtractor(bundle, life.generation.tensors, threads, release=True)
    for numbers, pixels in batches:
        row = first_not_finite(features(bundle.preprocessing.normalize(pixels)))
        if row is not None:
            return unlearnable(bundle.manifest.input.noun, name(int(numbers[row])))
    return error
