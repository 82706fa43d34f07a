"""What `make bench` measures besides the steps: costs by formula and as torch counts them, growth, start."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench import costs, growth, layers, startup
from bench.cases import CASES, CHANNEL_RATIO, Case, folder_of
from bench.driver import environment
from bench.page import mebibytes, table
from csk_sdk.bundle.folder import Bundle

COMPUTED, COUNTED = (CASES[0], CASES[4]), CASES[0]
# Of a step's time: ops below are not shown.
LEAST_SHARE = 0.02


def prepared(root: Path) -> list[Case]:
    """Of COMPUTED, the cases that have been prepared; none of them before the first."""
    ready = [case for case in COMPUTED if (folder_of(root, case) / "sites.json").exists()]
    return ready if COUNTED in ready else []


def all_of(pythons: Mapping[str, Path], root: Path, timed: bool) -> tuple[dict[str, str], dict[str, Any]]:
    """Sections of the page, and their numbers: what is counted, and with `timed` what takes time to measure."""
    by_formula = {case.title: formulas(case, root) for case in prepared(root)}
    by_count = counted(COUNTED, pythons["torch_eager"], root)
    sections = {
        "costs": "\n\n".join(cost_table(title, found) for title, found in by_formula.items()),
        "counts": count_table(by_formula[COUNTED.title], by_count),
    }
    numbers: dict[str, Any] = {
        "costs": {
            title: {name: asdict(cost) for name, cost in found.items()} for title, found in by_formula.items()
        },
        "counts": by_count,
    }
    if not timed:
        return sections, numbers
    ops = {
        f"{case.network}, {case.size}x{case.size}, {precision}": by_op(case, precision, pythons["csk"], root)
        for case in prepared(root) for precision in ("exact", "int8")
    }  # fmt: skip
    grown = growth.run(pythons, root)
    started = startup.measure(pythons["csk"], root)
    sections |= {"ops": op_table(ops), "growth": growth.page(grown), "start": startup.page(started)}
    numbers |= {
        "ops": ops,
        "growth": {title: [asdict(row) for row in rows] for title, rows in grown.items()},
        "start": started,
    }
    return sections, numbers


def computed_targets(root: Path) -> list[tuple[str, float, float]]:
    """The shares of an Adam-NSCL step that csk-sdk's int8 step set out to stay below."""
    found = formulas(COUNTED, root)
    ours, reference = found[costs.OURS[1]], found[costs.ADAM_NSCL]
    return [
        ("operations, int8 / Adam-NSCL, batch 16", 0.25, ours.flops / reference.flops),
        ("memory of a step, int8 / Adam-NSCL, batch 16", 0.08, ours.bytes / reference.bytes),
    ]


def formulas(case: Case, root: Path) -> dict[str, costs.Cost]:
    """Every method's step by formula."""
    folder = folder_of(root, case)
    sites = Bundle.open(folder / "exact").manifest.sites
    network = layers.read(folder / "model.onnx", sites, CHANNEL_RATIO)
    return {name: method(network, case.batch) for name, method in costs.METHODS.items()}


def by_op(case: Case, precision: str, python: Path, root: Path) -> dict[str, float]:
    """Milliseconds of csk-sdk's step by op, in its environment."""
    command = [python, "-m", "bench.by_op", case.to_json(), folder_of(root, case), precision]
    done = subprocess.run(
        [*map(str, command)], stdout=subprocess.PIPE, text=True, env=environment(1), check=True
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def op_table(found: Mapping[str, Mapping[str, float]]) -> str:
    """Shares of the ops that take most, one column per step."""
    totals = {title: sum(ops.values()) for title, ops in found.items()}
    largest = {
        op: max(ops.get(op, 0) / totals[title] for title, ops in found.items())
        for ops in found.values()
        for op in ops
    }
    shown = sorted((op for op in largest if largest[op] >= LEAST_SHARE), key=lambda op: -largest[op])
    rows = [[op, *(percent(ops.get(op, 0), totals[title]) for title, ops in found.items())] for op in shown]
    return table(["", *found], rows)


def counted(case: Case, python: Path, root: Path) -> dict[str, dict[str, float]]:
    """What torch counts, in its environment; what csk-sdk's own graph keeps is counted by the builder, node by node."""
    command = [python, "-m", "bench.count", case.to_json(), folder_of(root, case)]
    done = subprocess.run(
        [*map(str, command)], stdout=subprocess.PIPE, text=True, env=environment(1), check=True
    )
    found: dict[str, dict[str, float]] = json.loads(done.stdout.splitlines()[-1])
    manifest = Bundle.open(folder_of(root, case) / "exact").manifest
    found[costs.OURS[0]]["kept"] = case.batch * manifest.costs["kept_centers"]
    return found


def cost_table(title: str, found: Mapping[str, costs.Cost]) -> str:
    """FLOPs and bytes, and their shares of an Adam-NSCL step."""
    reference = found[costs.ADAM_NSCL]
    rows = [
        [
            f"**{name}**" if name in costs.OURS else name,
            f"{cost.flops / 1e9:.1f}", percent(cost.flops, reference.flops),
            *(mebibytes(part) if part else "0" for part in parts(cost)),
            mebibytes(cost.bytes), percent(cost.bytes, reference.bytes),
        ]
        for name, cost in found.items()
    ]  # fmt: skip
    head = [
        "", "GFLOP", "of Adam-NSCL", "weights", "kept", "gradients", "optimizer", "protection",
        "MiB in all", "of Adam-NSCL",
    ]  # fmt: skip
    return f"**{title}**\n\n" + table(head, rows)


def parts(cost: costs.Cost) -> tuple[float, ...]:
    """Bytes by what holds them."""
    return cost.weights, cost.kept, cost.gradients, cost.optimizer, cost.protection


def percent(part: float, whole: float) -> str:
    """Of the whole."""
    return f"{100 * part / whole:.1f} %"


def count_table(by_formula: Mapping[str, costs.Cost], by_count: Mapping[str, Mapping[str, float]]) -> str:
    """Formula and count side by side."""
    rows = [
        [
            name, f"{by_formula[name].flops / 1e9:.2f}", f"{found['flops'] / 1e9:.2f}",
            f"{by_formula[name].kept / 2**20:.3f}", f"{found['kept'] / 2**20:.3f}",
        ]
        for name, found in by_count.items()
    ]  # fmt: skip
    return table(["", "GFLOP by formula", "counted", "kept MiB by formula", "counted"], rows)
