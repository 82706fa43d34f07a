"""csk-sdk: everything between two batches (feeds, graph, optimizer, projection), through the product's own code."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench import data
from bench.cases import (
    CACHED,
    CHANNEL_RATIO,
    CLASSES,
    EXACT,
    INT8,
    LAYERS,
    LEARNING_RATE,
    MOMENTUM,
    Case,
)
from bench.peers import UnavailableError
from csk_sdk import TrainingConfig
from csk_sdk.bundle.folder import Bundle
from csk_sdk.contract.manifest import PORTABLE
from csk_sdk.learning.training import TaskTraining
from csk_sdk.network.knowledge import Batch
from csk_sdk.network.profiles import FAST, in_profile
from csk_sdk.runtime.sessions import installed_runtimes, load_onnxruntime
from csk_sdk.version import __version__

load_onnxruntime()
WARM_UP_BATCHES = 2


def prepare(case: Case, folder: Path) -> None:
    """Bundles of both precisions on base images of digits, and the sites for the other peers.

    Heads see the network's last features, as the other peers' do, except in one bundle that is as built by default.
    """
    from csk_artifacts_builder import BuildOptions, build_artifacts

    if (folder / "sites.json").exists():
        return
    for name, precision, features in (
        (EXACT, "exact", "last"),
        (INT8, "int8", "last"),
        (LAYERS, "int8", "layers"),
    ):
        options = BuildOptions(
            base_data=folder / data.BASE, precision=precision, channel_ratio=CHANNEL_RATIO,
            mean=(data.MEAN,) * 3, std=(data.STD,) * 3, features=features, overwrite=True,
        )  # fmt: skip
        build_artifacts(folder / "model.onnx", folder / name, options)
    sites = [{"weight": site.weight} for site in Bundle.open(folder / "exact").manifest.sites]
    (folder / "sites.json").write_text(json.dumps(sites))


def open_method(case: Case, method: str, folder: Path) -> Callable[[], object]:
    """A task in the middle of its training."""
    if method != CACHED:
        return open_training(opened(folder / method), data.batch(case, folder), PORTABLE)
    bundle = opened(folder / INT8)
    if not getattr(bundle.manifest, "prefix", ()):
        raise UnavailableError("the bundle has no graphs that start behind its frozen layers")
    images, labels = data.batch(case, folder)
    graph = bundle.graph("prefix_model.onnx", bundle.checkpoint(), 1)
    kept = graph.run({"image": images}, release=True)["prefix"]
    del graph
    return open_training(bundle.view(from_prefix=True), (kept, labels), PORTABLE)


def opened(folder: Path) -> Bundle:
    """The bundle as `learn` opens its graphs."""
    return in_profile(Bundle.open(folder), FAST, folder.parent / "scratch")


def open_training(bundle: Bundle, one: Batch, backend: str) -> Callable[[], object]:
    """Warm a task up as `learn` does, and return its step on one batch, or on what the frozen layers made of it."""
    config = TrainingConfig(
        threads=1, momentum=MOMENTUM, learning_rate=LEARNING_RATE, head_learning_rate=LEARNING_RATE,
        sensitivity_batches=WARM_UP_BATCHES, channel_ratio=CHANNEL_RATIO,
    )  # fmt: skip
    classes = [f"new-{index}" for index in range(CLASSES)]
    training = TaskTraining(bundle, Protected(bundle), classes, config, backend)
    size = len(one[1])

    def batches() -> Iterator[Batch]:
        # Every class once, whatever the batch.
        labels = np.arange(max(WARM_UP_BATCHES * size, CLASSES)) % CLASSES
        for start in range(0, len(labels), size):
            given = labels[start : start + size]
            yield one[0][: len(given)], given

    training.warm_up(batches)
    order = np.arange(size)
    # A batch is gathered anew for each step, as from a cache of images or features.
    return lambda: training.step((one[0][order], one[1]), 1.0)


class Protected(Mapping[str, NDArray[Any]]):
    """The checkpoint, left in its file as `learn` leaves it, with bases as large as the default energy can make them.

    Every direction equally strong: 0.8 of the selected channels are protected. Noise would need fewer.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._stored = bundle.stored_checkpoint()

    def __getitem__(self, name: str) -> NDArray[Any]:
        found = self._stored[name]
        if name.startswith("moment/"):
            found[...] = np.eye(found.shape[-1])
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._stored)

    def __len__(self) -> int:
        return len(self._stored)


def versions() -> dict[str, str]:
    """What was measured."""
    return {"csk-sdk": __version__, "numpy": np.__version__, **installed_runtimes()}
