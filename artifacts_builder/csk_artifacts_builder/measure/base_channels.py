"""Mean and deviation of every convolution's channels over the base images: what a domain's are brought to."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csk_sdk.contract.manifest import CHANNEL_MEAN, CHANNEL_VARIANCE, Manifest
from csk_sdk.data.pixel_cache import PixelCache
from csk_sdk.data.preprocess_signals import preprocessing_of
from csk_sdk.data.tasks import Split
from csk_sdk.method.domains import ChannelSum, looked_at
from csk_sdk.runtime.sessions import Graph


def measure_channels(statistics: Path, split: Split, manifest: Manifest) -> dict[str, NDArray[Any]]:
    """`mean` and `deviation` `(channels,)` float32, by the graph `statistics` (`plain_statistics`).

    Of images that are spread over the split.
    """
    total, preprocessing = ChannelSum(), preprocessing_of(manifest)
    pixels = PixelCache(split, preprocessing, 0)
    with closing(Graph(statistics)) as graph:
        for images, _ in pixels.batches(manifest.batch_size, looked_at(len(split))):
            found = graph.run({"image": preprocessing.normalize(images)})
            total.add(found[CHANNEL_MEAN], found[CHANNEL_VARIANCE], len(images))
    return {"mean": total.mean.astype(np.float32), "deviation": total.deviation.astype(np.float32)}
