"""A fleet that learns together: what merged knowledge is worth, what it costs, and what poison does.

    python benchmarks/fleet.py --data DIR --model cifar100-base50.onnx --out docs/results/fleet.json

CIFAR-100, a base of 50 classes. Ten devices learn 50 further ones, frozen backbone, 100 images a class and device:

- apart: five classes each. 100 images of each class are in the fleet.
- overlapping: each class on two devices, other images on each. 200 of each class.
- half of all: each device has 25 of the 50, at random. A class is on five, of 500 images in all.

Beside them is one device that saw all of these images as one task. Contributions and files are the product's; the
features are computed once, and kept in --cache. Accuracy in percent over the 10,000 test images, of the discriminant
over all classes. Then federated averaging of heads, poison, sizes, and 1,000 devices whose classes are drawn from the
50.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.averaging import Head, compared
from benchmarks.layer_features import Set
from benchmarks.ledger import accuracy, features_of, statistics

from csk_sdk import fleet
from csk_sdk.fleet.files import Content, FleetFile, write
from csk_sdk.fleet.packing import content_id, pack, pack_sketch, unpack
from csk_sdk.fleet.statement import Entry, Statement
from csk_sdk.method.contributions import Contribution, ContributionSum, Lesson
from csk_sdk.method.heads import ClassStatistics, lda_head
from csk_sdk.method.logistic import logistic_head
from csk_sdk.method.unknown import QUANTILES
from csk_sdk.objectives.classification import PRIOR_PICTURES
from csk_sdk.runtime.peak_memory import peak_rss_bytes

BASE, CLASSES, DEVICES, IMAGES = 50, 100, 10, 100
BUNDLE = "b" * 64
Plan = Mapping[str, Mapping[int, NDArray[np.int64]]]
Change = Callable[[str, int, Contribution], Contribution]


class Fleet:
    """Features of all images, and devices made of them."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.train, self.test = features_of(options)
        self.seeds = options.seeds
        base = self.train[1] < BASE
        self.base = statistics((self.train[0][base], self.train[1][base]), [str(one) for one in range(BASE)])
        self.features = self.train[0].shape[1]

    def plan(self, kind: str, seed: int) -> dict[str, dict[int, NDArray[np.int64]]]:
        """By device and class, which images it has."""
        rng = np.random.default_rng(seed)
        order = rng.permutation(np.arange(BASE, CLASSES))
        images = {
            label: rng.permutation(np.flatnonzero(self.train[1] == label)) for label in range(BASE, CLASSES)
        }
        holders: dict[int, Iterable[int]] = {}
        for place, label in enumerate(order.tolist()):
            first = place % DEVICES
            holders[label] = {
                "apart": [first],
                "overlapping": [first, (first + 1 + place // DEVICES) % DEVICES],
                "half of all": rng.permutation(DEVICES)[: DEVICES // 2].tolist(),
            }[kind]
        found: dict[str, dict[int, NDArray[np.int64]]] = {f"{n:03}": {} for n in range(DEVICES)}
        for label, some in holders.items():
            for number, device in enumerate(some):
                found[f"{device:03}"][label] = images[label][number * IMAGES : (number + 1) * IMAGES]
        return found

    def contribution(self, rows: NDArray[np.int64]) -> Contribution:
        total = ContributionSum(self.features)
        total.add(self.train[0][rows])
        return total.total()

    def export(self, plan: Plan, folder: Path, change: Change = lambda device, label, one: one) -> list[Path]:
        """The files of devices, as they export them."""
        return [
            save(
                folder,
                device,
                {
                    str(label): pack(change(device, label, self.contribution(rows)))
                    for label, rows in own.items()
                },
                self.features,
            )
            for device, own in plan.items()
        ]

    def accuracy_of(self, merged: Path) -> float:
        """Of a device that has applied the file, and knew the base."""
        return accuracy(known_from(merged).after(self.base), self.test)

    def everything(self, plan: Plan) -> ClassStatistics:
        """What one device knows that has seen all these images in one task."""
        rows: dict[int, list[NDArray[np.int64]]] = {}
        for own in plan.values():
            for label, some in own.items():
                rows.setdefault(label, []).append(some)
        parts = {str(label): self.contribution(np.concatenate(rows[label])) for label in sorted(rows)}
        return Lesson(tuple(parts), parts).after(self.base)


def save(folder: Path, device: str, packed: Mapping[str, bytes], features: int) -> Path:
    entries = [
        Entry(name, content_id(blob), unpack(blob, features).count, None) for name, blob in packed.items()
    ]
    # Of its own, as every device has one: how close its images lie, of which these numbers take the place.
    drawn = np.random.default_rng(list(device.encode())).uniform(0.1, 2.0, (2, QUANTILES))
    sketch = pack_sketch(*drawn.astype(np.float32))
    sketches = dict.fromkeys(packed, content_id(sketch))
    said = Statement.of(BUNDLE, content_id(device.encode()), device, 1, entries, sketches, (), None)
    blobs = {content_id(blob): blob for blob in (*packed.values(), sketch)}
    path = folder / f"{device}.cskc"
    write(path, Content(BUNDLE, features, (said,)), lambda one: len(blobs[one]), blobs.__getitem__)
    return path


def known_from(path: Path) -> Lesson:
    file = FleetFile.open(path)
    assert file.content.merged is not None
    found = {
        one.name: unpack(file.blob(one.id), file.content.features) for one in file.content.merged.classes
    }
    return Lesson(tuple(found), found)


def per_class(known: ClassStatistics, test: Set) -> NDArray[np.float64]:
    """Accuracy of each class, in percent."""
    weight, bias = lda_head(known, PRIOR_PICTURES)
    answers = np.array([int(name) for name in known.classes])
    right = answers[(test[0] @ weight.T + bias).argmax(axis=1)] == test[1]
    return np.array([100 * right[test[1] == label].mean() for label in range(CLASSES)])


def worth(world: Fleet) -> list[dict[str, Any]]:
    rows = []
    for kind in ("apart", "overlapping", "half of all"):
        for seed in range(world.seeds):
            plan = world.plan(kind, seed)
            with tempfile.TemporaryDirectory() as made:
                folder = Path(made)
                files = world.export(plan, folder)
                report = fleet.merge(files, folder / "merged.cskc")
                fleet.merge(files[:4], folder / "a.cskc", keep_apart=True)
                fleet.merge(files[:3:-1], folder / "b.cskc", keep_apart=True)
                fleet.merge([folder / "b.cskc", folder / "a.cskc"], folder / "again.cskc")
                same = (folder / "again.cskc").read_bytes() == (folder / "merged.cskc").read_bytes()
                merged = known_from(folder / "merged.cskc").after(world.base)
                first = Lesson(*_own(world, plan["000"])).after(world.base)
                best = world.everything(plan)
                found, everything = per_class(merged, world.test), per_class(best, world.test)
                apart = found - everything
                row = {
                    "kind": kind, "seed": seed, "alone": accuracy(first, world.test),
                    "everything": float(everything.mean()), "merged": float(found.mean()),
                    "worst class": float(apart.min()), "best class": float(apart.max()),
                    "set aside": len(report.quarantined), "same bits": same, "look alike": len(report.alike),
                    "kB a class and device": sum(one.stat().st_size for one in files) / 1e3 / report.contributions,
                    "kB a class, merged": report.bytes / 1e3 / len(report.classes),
                }  # fmt: skip
            rows.append(row)
            print(_rounded(row), flush=True)
    return rows


def _own(
    world: Fleet, own: Mapping[int, NDArray[np.int64]]
) -> tuple[tuple[str, ...], dict[str, Contribution]]:
    parts = {str(label): world.contribution(rows) for label, rows in own.items()}
    return tuple(parts), parts


def poisons(parts: Mapping[int, Contribution]) -> dict[str, Change | None]:
    """What a device can do to what it sends; `parts` are what it has."""
    own = list(parts)
    other = {label: parts[next_one] for label, next_one in zip(own, own[1:] + own[:1], strict=True)}
    return {
        "none": None,
        "exchanged labels": lambda device, label, one: other[label],
        "sums times 3": lambda device, label, one: Contribution(one.count, one.mean * 3, one.factor * 3),
        "means times 1.5": lambda device, label, one: Contribution(one.count, one.mean * 1.5, one.factor),
        "counts times 50": lambda device, label, one: Contribution(one.count * 50, one.mean, one.factor),
        "exchanged, counts times 50": lambda device, label, one: Contribution(
            one.count * 50, other[label].mean, other[label].factor * np.float32(50**0.5)
        ),
        "NaN": lambda device, label, one: Contribution(one.count, one.mean * np.float32("nan"), one.factor),
    }


def poison(world: Fleet) -> list[dict[str, Any]]:
    """One device of ten spoils what it sends; each class is on five."""
    rows: list[dict[str, Any]] = []
    for seed in range(world.seeds):
        plan = world.plan("half of all", seed)
        kinds = poisons({label: world.contribution(rows) for label, rows in sorted(plan["000"].items())})
        for kind, change in kinds.items():
            with tempfile.TemporaryDirectory() as made:
                folder = Path(made)

                def spoil(
                    device: str, label: int, one: Contribution, change: Change | None = change
                ) -> Contribution:
                    return change(device, label, one) if change is not None and device == "000" else one

                files = world.export(plan, folder, spoil)
                report = fleet.merge(files, folder / "merged.cskc")
                checked = world.accuracy_of(folder / "merged.cskc")
                unchecked = float("nan")
                if kind != "NaN":
                    everyone = [f"{n:03}" for n in range(DEVICES)]
                    fleet.merge(files, folder / "merged.cskc", accept=everyone)
                    unchecked = world.accuracy_of(folder / "merged.cskc")
            row = {
                "seed": seed, "poison": kind, "with the check": checked, "without": unchecked,
                "set aside": sorted(report.quarantined.values()), "of": sorted(report.quarantined),
            }  # fmt: skip
            rows.append(row)
            print(_rounded(row), flush=True)
    return rows


def many(world: Fleet, counts: Sequence[int] = (250, 500, 1000)) -> list[dict[str, Any]]:
    """Time and peak memory of a merge, as a process of its own on one core."""
    rng = np.random.default_rng(0)
    rows = []
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        images = {label: np.flatnonzero(world.train[1] == label) for label in range(BASE, CLASSES)}
        files = []
        for number in range(max(counts)):
            chosen = rng.permutation(np.arange(BASE, CLASSES))[:5].tolist()
            packed = {
                str(label): pack(world.contribution(rng.permutation(images[label])[:IMAGES]))
                for label in chosen
            }
            files.append(save(folder, f"{number:04}", packed, world.features))
        one_core = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        for count in counts:
            listed = folder / "files.json"
            listed.write_text(json.dumps([str(one) for one in files[:count]]))
            done = subprocess.run(
                [sys.executable, __file__, "--merge", str(listed), "--into", str(folder / "merged.cskc")],
                capture_output=True, text=True, check=True, env=one_core,
            )  # fmt: skip
            row = {
                "devices": count,
                **json.loads(done.stdout),
                "accuracy": world.accuracy_of(folder / "merged.cskc"),
            }
            row["ms a device"] = 1e3 * row["CPU seconds"] / count
            rows.append(row)
            print(_rounded(row), flush=True)
    return rows


def merge_alone(listed: Path, out: Path) -> None:
    """`merge` as a process of its own; prints what it took."""
    files = json.loads(listed.read_text())
    begun, cpu = time.perf_counter(), time.process_time()
    report = fleet.merge(files, out)
    took = {
        "seconds": time.perf_counter() - begun,
        "CPU seconds": time.process_time() - cpu,
        "peak MiB": peak_rss_bytes() / 2**20,
        "set aside": len(report.quarantined),
        "contributions": report.contributions,
        "MB": report.bytes / 1e6,
    }
    print(json.dumps(took))


def averaging(world: Fleet) -> list[dict[str, Any]]:
    """Federated averaging of heads on the same images, for as many rounds as it likes; merged takes one."""
    mean = world.base.sums.sum(axis=0) / world.base.counts.sum()
    scale = np.sqrt(np.maximum(np.diag(world.base.gram) / world.base.counts.sum() - mean**2, 1e-12))

    def standard(x: NDArray[np.float32]) -> NDArray[np.float32]:
        return ((x - mean) / scale).astype(np.float32)

    some = np.concatenate([np.flatnonzero(world.train[1] == label)[:IMAGES] for label in range(BASE)])
    server = standard(world.train[0][some]), world.train[1][some]
    weight, bias = logistic_head(*server, BASE)
    start = Head(
        np.vstack([weight, np.zeros((CLASSES - BASE, world.features), np.float32)]),
        np.concatenate([bias, np.zeros(CLASSES - BASE, np.float32)]),
    )
    rows: list[dict[str, Any]] = []
    for kind in ("apart", "overlapping"):
        plans = {}
        for seed in range(world.seeds):
            plans[seed] = [
                (
                    standard(world.train[0][np.concatenate(list(own.values()))]),
                    np.repeat(list(own), [len(some) for some in own.values()]),
                )
                for own in world.plan(kind, seed).values()
            ] + [server]
        for row in compared(start, plans, (standard(world.test[0]), world.test[1])):
            rows.append({"kind": kind, **row})
            print(_rounded(rows[-1]), flush=True)
    return rows


def sizes(world: Fleet) -> list[dict[str, Any]]:
    """What else a contribution could have been packed as, and what that costs."""
    rows = []
    for seed in range(world.seeds):
        plan = world.plan("apart", seed)
        for directions, mixtures in ((32, 32), (16, 16)):
            parts: dict[str, Contribution] = {}
            for own in plan.values():
                for label, some in own.items():
                    total = ContributionSum(world.features, directions, mixtures)
                    total.add(world.train[0][some])
                    parts[str(label)] = total.total()
            for kind, change in PACKINGS.items():
                packed = {name: change(one) for name, one in parts.items()}
                lesson = Lesson(tuple(packed), {name: one for name, (one, _) in packed.items()})
                row = {
                    "seed": seed, "rows": directions + mixtures, "packed as": kind,
                    "kB a class": float(np.mean([size for _, size in packed.values()])) / 1e3,
                    "all": accuracy(lesson.after(world.base), world.test),
                    "without base": accuracy(lesson.after(ClassStatistics.empty(world.features)), _new(world.test)),
                }  # fmt: skip
                rows.append(row)
                print(_rounded(row), flush=True)
    return rows


def _new(test: Set) -> Set:
    return test[0][test[1] >= BASE], test[1][test[1] >= BASE]


def _product(bits: int) -> Callable[[Contribution], tuple[Contribution, int]]:
    def packed(one: Contribution) -> tuple[Contribution, int]:
        blob = pack(one, bits)
        return unpack(blob, len(one.mean)), len(blob)

    return packed


def _float16(one: Contribution) -> tuple[Contribution, int]:
    factor = one.factor.astype(np.float16).astype(np.float32)
    return Contribution(one.count, one.mean, factor), 4 * len(one.mean) + 2 * factor.size


def _by_row(bits: int, alike: bool) -> Callable[[Contribution], tuple[Contribution, int]]:
    """Whole numbers times a scale for each row; with `alike`, of features over their own spread."""

    def packed(one: Contribution) -> tuple[Contribution, int]:
        most = 2 ** (bits - 1) - 1
        scale = np.sqrt(np.einsum("nf,nf->f", one.factor, one.factor)) if alike else np.ones(len(one.mean))
        scale = np.where(scale > 0, scale, 1.0)
        x = one.factor / scale
        steps = np.abs(x).max(axis=1, keepdims=True) / most
        factor = (np.round(x / np.where(steps > 0, steps, 1.0)) * steps * scale).astype(np.float32)
        size = 4 * len(one.mean) * (2 if alike else 1) + factor.size * bits // 8
        return Contribution(one.count, one.mean, factor), size

    return packed


PACKINGS: dict[str, Callable[[Contribution], tuple[Contribution, int]]] = {
    "float32": lambda one: (one, 4 * (one.mean.size + one.factor.size)),
    "float16": _float16,
    "8 bits": _by_row(8, False),
    "4 bits": _by_row(4, False),
    "8 bits, features alike, spread exact": _product(8),
    "4 bits, features alike, spread exact": _product(4),
    "3 bits, features alike": _by_row(3, True),
    "2 bits, features alike": _by_row(2, True),
}


def _rounded(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: round(value, 2) if isinstance(value, float) else value for key, value in row.items()}


PARTS = {"worth": worth, "averaging": averaging, "poison": poison, "many": many, "sizes": sizes}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--cache", type=Path, default=Path("out/living"))
    parser.add_argument("--out", type=Path, help="JSON to write")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", choices=PARTS, help="one part of it")
    parser.add_argument("--merge", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--into", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.merge:
        merge_alone(options.merge, options.into)
        return
    options.cache.mkdir(parents=True, exist_ok=True)
    world = Fleet(options)
    found = json.loads(options.out.read_text()) if options.out and options.out.exists() else {}
    for name in [options.only] if options.only else PARTS:
        print(f"== {name}", flush=True)
        found[name] = PARTS[name](world)
        if options.out:
            options.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
