"""Is the memory that `inspect` predicts the memory that learning takes, and what does a build take?

    python benchmarks/memory.py MODEL... --networks --write docs/memory.md

`--networks` adds the networks of docs/supported-models.md, exported by torch with random weights (which needs torch).
Every build and every measurement is a fresh process.

Measured is the high-water mark of resident memory (VmHWM, so Linux only) after a task was warmed up and trained for
three steps on random images, less the resident memory after all imports. Predicted is the manifest's
`memory["peak"]`. A build's peak is the process's own high-water mark, imports included.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from importlib import metadata
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

BATCHES = (1, 16)
PAGE = """# Memory of learning, predicted and measured

Written by `python benchmarks/memory.py MODEL... --networks --write docs/memory.md`; do not edit it by hand.

*Predicted* is what `csk-sdk inspect` shows and `--memory-budget` bounds: the peak resident memory, over that after all
imports, of a process that opens the bundle, warms a task up and trains it at the bundle's batch size. Its parts are
explained in `artifacts_builder/csk_artifacts_builder/measure/memory.py`, and what was done about the peak in
[decision 0009](decisions/0009-memory-of-opening.md); int8 bundles are in
[decision 0014](decisions/0014-memory-budget.md), and limits on the device in [device-memory.md](device-memory.md). Not
in it: images, or with `--prefix-cache memory` features, cached between epochs (64 MiB at most), consolidation, and
predicting at the same time.

*Measured* is the high-water mark of resident memory (VmHWM) of a fresh process after it warmed a task up and trained
three steps on random images, less its resident memory after imports. Bundles are built without base data, with
`--trainable auto`, `--features last` and a quarter of the channels. Steps are tiny, since noise teaches nothing.

Three constants of the prediction were *fitted*, on the models marked so; none on those *held out*, though these have
shown which parts the prediction lacked (decision 0009).

The second table is about the workstation: one build in a fresh process, its peak with imports (about 107 MiB)
included.

TABLES

Measured with VERSIONS.
"""
_FAMILIES = (
    *("VGG-11-BN", "MobileNetV3-small", "EfficientNet-B0", "DenseNet-121", "SqueezeNet 1.1", "ShuffleNetV2 x1.0"),
    *("RegNetX-400MF", "ConvNeXt-tiny"),
)  # fmt: skip
NETWORKS = (
    *(("ResNet-18", 32), ("MobileNetV2", 224), ("ResNet-50", 224)),
    *((name, size) for name in _FAMILIES for size in (32, 224)),
    *(("M5", 8000), ("ResNet-1d", 128)),
)  # fmt: skip
# The constants in csk_artifacts_builder/measure/memory.py were fitted on these; the others were held out.
FITTED = {"digits-base4", "cifar100-base50", "ResNet-18-32", "MobileNetV2-224", "ResNet-50-224"}


@dataclass
class Row:
    """One model at one batch size; sizes in bytes."""

    model: str
    batch: int
    model_bytes: int
    bundle_bytes: int
    build_seconds: float
    build_peak: int
    predicted: int
    measured: int

    @property
    def ratio(self) -> float:
        return self.predicted / self.measured


def resident(field: str) -> int:
    """VmRSS or VmHWM of this process in bytes."""
    found = re.search(rf"^{field}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


def measure_build(model: Path, out: Path, batch: int) -> dict[str, Any]:
    """Build in this process."""
    from csk_artifacts_builder import BuildOptions, build_artifacts

    begun = time.process_time()
    build_artifacts(model, out, BuildOptions(batch_size=batch, features="last"))
    return {"seconds": time.process_time() - begun, "peak": resident("VmHWM")}


def measure_learning(bundle_folder: Path, profile: str = "fast") -> dict[str, Any]:
    """Warm up and train in this process."""
    from csk_sdk import TrainingConfig
    from csk_sdk.bundle.folder import Bundle
    from csk_sdk.learning.training import TaskTraining
    from csk_sdk.network.profiles import PROFILES, in_profile
    from csk_sdk.runtime.sessions import load_onnxruntime

    load_onnxruntime()
    imported = resident("VmRSS")
    bundle = Bundle.open(bundle_folder)
    batch = bundle.manifest.batch_size
    shape = (batch, *bundle.manifest.input.shape)

    def batches() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        rng = np.random.default_rng(0)
        for index in range(4):
            labels = (np.arange(batch) + index) % 2
            yield rng.standard_normal(shape, np.float32), labels

    # Noise teaches nothing, and with larger steps some networks diverge on it.
    config = TrainingConfig(
        threads=1, learning_rate=1e-6, head_learning_rate=1e-6, few_shot=0, train="centers"
    )
    with tempfile.TemporaryDirectory() as scratch:
        opened = in_profile(bundle, PROFILES[profile], Path(scratch))
        training = TaskTraining(opened, bundle.stored_checkpoint(), ("a", "b"), config)
        training.warm_up(batches)
        for one, _ in zip(batches(), range(3), strict=False):
            training.step(one, 1.0)
    return {"predicted": bundle.manifest.memory["peak"], "measured": resident("VmHWM") - imported}


def undo(measure: str) -> None:
    """Learn without one of decision 0009's measures."""
    from csk_sdk.runtime import sessions as runtime

    if measure == "returning":
        runtime.returning_memory = nullcontext  # type: ignore[assignment]
    elif measure == "late-reuse":
        settings = runtime.session_options

        def planned(*arguments: Any, **named: Any) -> Any:
            options = settings(*arguments, **named)
            options.enable_mem_reuse = True
            return options

        runtime.session_options = planned
    else:
        run = runtime.Graph.run
        runtime.Graph.run = lambda self, feeds, outputs=None, release=False: run(self, feeds, outputs)  # type: ignore[method-assign]
        runtime.Graph.close = lambda self: None  # type: ignore[method-assign]


def fresh(*arguments: str) -> dict[str, Any]:
    """This script in a process of its own; what it printed."""
    done = subprocess.run([sys.executable, __file__, *arguments], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(model: Path, batch: int) -> Row:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "bundle"
        built = fresh("--build", str(model), str(out), str(batch))
        learned = fresh("--learn", str(out))
        size = sum(path.stat().st_size for path in out.iterdir())
    return Row(
        model.stem, batch, model.stat().st_size, size, built["seconds"], built["peak"], **learned
    )  # fmt: skip


def exported(folder: Path, only: list[str] | None) -> Iterator[Path]:
    """NETWORKS as torch writes them; what lies in `folder` already is taken as it is."""
    for name, size in NETWORKS:
        path = folder / f"{name}-{size}.onnx"
        if only and not any(part.lower() in path.stem.lower() for part in only):
            continue
        if not path.is_file():
            import networks

            networks.exported(name, size, networks.OLD, path)
        yield path


def versions() -> str:
    packages = ", ".join(
        f"{name} {metadata.version(name)}" for name in ("csk-sdk", "onnxruntime", "numpy", "onnx")
    )
    return f"{packages}, Python {platform.python_version()}, {platform.system()} {platform.machine()}, one thread"


def table(rows: list[Row]) -> str:
    lines = [
        "| model | | batch | predicted MiB | measured MiB | ratio |",
        "|---|---|---|---|---|---|",
        *(
            f"| {row.model} | {'fitted' if row.model in FITTED else 'held out'} | {row.batch} "
            f"| {row.predicted / 2**20:.1f} | {row.measured / 2**20:.1f} | {row.ratio:.2f} |"
            for row in rows
        ),
        "",
        "| model | file MiB | bundle MiB | build CPU s | build's peak MiB | of the file's size |",
        "|---|---|---|---|---|---|",
    ]
    for row in {row.model: row for row in rows}.values():
        lines.append(
            f"| {row.model} | {row.model_bytes / 2**20:.1f} | {row.bundle_bytes / 2**20:.1f} "
            f"| {row.build_seconds:.1f} | {row.build_peak / 2**20:.0f} | {row.build_peak / row.model_bytes:.2f} |"
        )
    return "\n".join(lines)


def page(rows: list[Row]) -> str:
    """docs/memory.md."""
    return PAGE.replace("TABLES", table(rows)).replace("VERSIONS", versions())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="*", type=Path, metavar="MODEL", help="ONNX classifiers")
    parser.add_argument("--networks", action="store_true", help="export and measure deployed networks too")
    parser.add_argument("--batch", type=int, action="append", help="batch sizes (1, 8, 16)")
    parser.add_argument("--only", action="append", help="networks whose name contains this")
    parser.add_argument("--exports", type=Path, metavar="DIR", help="keep the exported networks there")
    parser.add_argument("--out", type=Path, default=Path("out/memory.json"), help="all numbers, as JSON")
    parser.add_argument("--keep", action="store_true", help="measure only what --out lacks")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="write the page")
    parser.add_argument("--build", nargs=3, metavar=("MODEL", "BUNDLE", "BATCH"), help=argparse.SUPPRESS)
    parser.add_argument("--learn", type=Path, metavar="BUNDLE", help="only measure learning with this bundle")
    parser.add_argument("--profile", choices=("fast", "small"), default="fast", help="with --learn")
    parser.add_argument(
        "--without",
        action="append",
        choices=("returning", "releasing", "late-reuse"),
        help="with --learn: undo a measure",
    )
    arguments = parser.parse_args()
    if arguments.build:
        model, out, batch = arguments.build
        print(json.dumps(measure_build(Path(model), Path(out), int(batch))))
        return
    for one in arguments.without or ():
        undo(one)
    if arguments.learn:
        print(json.dumps(measure_learning(arguments.learn, arguments.profile)))
        return
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    rows: list[Row] = []
    if arguments.keep and arguments.out.is_file():
        rows = [Row(**row) for row in json.loads(arguments.out.read_text())["rows"]]
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        extra = (
            exported(arguments.exports or Path(folder), arguments.only) if arguments.networks else iter(())
        )
        for model in chain(arguments.models, extra):
            for batch in arguments.batch or BATCHES:
                if any((row.model, row.batch) == (model.stem, batch) for row in rows):
                    continue
                row = measure(model, batch)
                rows.append(row)
                print(f"{row.model} batch {batch}: ratio {row.ratio:.2f}, {asdict(row)}", flush=True)
                content = {"versions": versions(), "rows": [asdict(row) for row in rows]}
                arguments.out.write_text(json.dumps(content, indent=1) + "\n")
    order = [*dict.fromkeys(model.stem for model in arguments.models), *(f"{n}-{s}" for n, s in NETWORKS)]
    rows.sort(key=lambda row: (order.index(row.model) if row.model in order else len(order), row.batch))
    print(table(rows))
    if arguments.write:
        arguments.write.write_text(page(rows))


if __name__ == "__main__":
    main()
