"""What a camera that predicts now and then costs: CPU time per prediction, by how the runtime's threads wait for work.

    python benchmarks/idle_cpu.py BUNDLE --threads 2

By default ONNX Runtime's threads spin on behind a run, waiting for another. csk-sdk lets them sleep; with the setting
`spinning`, they spin within a training step and stop at its end. Each way has a process of its own, because threads
spin on into what follows, and the processes take turns: ten predictions of one image, 20 a second, and some training
steps, which follow each other at once. CPU time is the process's own, waiting between two predictions included.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from csk_sdk import Bundle, Learner, TrainingConfig
from csk_sdk.contract.manifest import TRAINING_MODEL
from csk_sdk.device.probe import probe
from csk_sdk.device.tuning import _feeds
from csk_sdk.runtime import sessions as runtime

WAYS = ("default", "spinning", "sleeping")
PERIOD, PREDICTIONS, STEPS = 0.05, 10, 4


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--worker", choices=WAYS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work(arguments.bundle, arguments.threads, arguments.worker)
    else:
        compare(arguments.bundle, arguments.threads, arguments.rounds)


def compare(bundle: Path, threads: int, rounds: int) -> None:
    """The ways in turn; medians over the rounds."""
    print(
        f"onnxruntime {runtime.load_onnxruntime().__version__}, {threads} threads on {os.cpu_count()} cores, "
        f"load {os.getloadavg()[0]:.1f}"
    )
    command = [sys.executable, __file__, str(bundle), "--threads", str(threads), "--worker"]
    workers = {
        way: subprocess.Popen([*command, way], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for way in WAYS
    }
    found: dict[str, list[list[float]]] = {way: [] for way in WAYS}
    for _ in range(1 + rounds):
        for way, worker in workers.items():
            assert worker.stdin is not None
            assert worker.stdout is not None
            print("go", file=worker.stdin, flush=True)
            found[way].append([float(number) for number in worker.stdout.readline().split()])
    for worker in workers.values():
        worker.communicate()
    medians = {way: 1e3 * np.median(rows[1:], axis=0) for way, rows in found.items()}
    kinds = ("prediction, 20 a second", "training step, whole batch", "training step, one image")
    for k, kind in enumerate(kinds):
        for way, numbers in medians.items():
            print(
                f"{kind}, {way}: {numbers[2 * k]:.2f} ms of CPU, {numbers[2 * k + 1]:.2f} ms from begin to end"
            )
    print(f"CPU per prediction, sleeping / default: {medians['sleeping'][0] / medians['default'][0]:.2f}")


def work(folder: Path, threads: int, way: str) -> None:
    """For each line that comes in, one line: CPU and wall seconds of each kind of work."""
    if way == "default":
        _leave_default()
    bundle = Bundle.open(folder).view(spinning=way == "spinning")
    learner = Learner.open(folder, state="no-state", config=TrainingConfig(threads=threads))
    if way == "spinning":
        learner.bundle = learner.bundle.view(spinning=True)
    pixels = picture(bundle)
    learner.predict(pixels)
    runs = [training(bundle, threads, batch) for batch in (bundle.manifest.batch_size, 1)]
    for _ in sys.stdin:
        numbers = measured(lambda: learner.predict(pixels), PREDICTIONS, PERIOD)
        for run in runs:
            numbers += measured(run, STEPS)
        print(*numbers, flush=True)


def measured(call: Callable[[], object], count: int, period: float = 0.0) -> list[float]:
    """Mean CPU seconds, pauses included, and median wall seconds of `count` calls, one every `period` seconds."""
    used, took = time.process_time(), []
    for _ in range(count):
        begun = time.perf_counter()
        call()
        took.append(time.perf_counter() - begun)
        time.sleep(max(0.0, period - took[-1]))
    return [(time.process_time() - used) / count, float(np.median(took))]


def training(bundle: Bundle, threads: int, batch: int) -> Callable[[], object]:
    """One training step; the first, which allocates, is done."""
    tensors, manifest = bundle.checkpoint(), bundle.manifest
    images = np.resize(probe(manifest), (batch, *manifest.input.shape))
    feeds = _feeds(bundle, tensors, images, manifest.channel_ratio)
    graph = bundle.graph(TRAINING_MODEL, tensors, threads)
    graph.run(feeds)
    return lambda: graph.run(feeds)


def picture(bundle: Bundle) -> np.ndarray:
    spec = bundle.manifest.input
    pixels = np.random.default_rng(0).integers(0, 256, (1, *spec.size, spec.channels))
    return pixels.astype(np.float32 if spec.is_signal else np.uint8)


def _leave_default() -> None:
    """Sessions whose threads wait as ONNX Runtime lets them by default."""
    ort = runtime.load_onnxruntime()
    entry = ort.SessionOptions.add_session_config_entry

    def others(options: Any, key: str, value: str) -> None:
        if "spinning" not in key:
            entry(options, key, value)

    ort.SessionOptions.add_session_config_entry = others


if __name__ == "__main__":
    main()
