"""The cold start's tables: a base of ten classes that meets ninety more, beside what was published on it."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .data import COLD
from .tables import CLASS, TASK, Run, by_method, mean_of, place, seeds_of, table, title_of

PUBLISHED = Path(__file__).parent / "published.json"
_HEADER = (
    "method", "ACC", "BWT", "new", "mean over the stages", "all classes at the end",
    "measured again", "BWT, all classes",
    "lessons trained", "learning, CPU s", "whole run, s", "seeds",
)  # fmt: skip


def is_cold(protocol: str) -> bool:
    """Whether this protocol is one of the cold start's."""
    return protocol.partition("@")[0] in COLD


def cold(runs: list[Run]) -> str:
    """What one protocol's runs came to."""
    rows = []
    for run, many in by_method(sorted(runs, key=place)):
        task, everything = ([one["scenarios"][scenario] for one in many] for scenario in (TASK, CLASS))
        rows.append(
            [
                title_of(run), *(mean_of([one[name] for one in task], name == "bwt") for name in ("acc", "bwt", "new")),
                mean_of([stages(one) for one in everything]),
                mean_of([one["accuracy"][-1] for one in everything]),
                mean_of([again(one) for one in many]), mean_of([one["bwt"] for one in everything], signed=True),
                mean_of([sum(map(bool, one["epochs_trained"])) for one in many]),
                mean_of([sum(one["cpu_seconds"]) for one in many]),
                mean_of([one["whole_seconds"] for one in many]), seeds_of(many),
            ]
        )  # fmt: skip
    return table(list(_HEADER), rows)


def choices(runs: list[Run]) -> str:
    """By task of a seed that was lived all three ways: what it is worth to train it, and what was chosen."""
    lived: dict[int, dict[str, Run]] = {}
    for run in runs:
        lived.setdefault(run["seed"], {})[run["method"]] = run
    rows = []
    for seed, ways in sorted(lived.items()):
        if not {"ours-heads", "ours-centers", "ours-auto"} <= ways.keys():
            continue
        for index, name in enumerate(ways["ours-auto"]["tasks"]):
            heads, centers = (
                [_after(ways[way], scenario, index) for scenario in (TASK, CLASS)]
                for way in ("ours-heads", "ours-centers")
            )
            gain = ways["ours-auto"]["gains"][index]
            rows.append(
                [
                    str(seed), name, f"{heads[0]:.1f}", f"{centers[0] - heads[0]:+.1f}", f"{heads[1]:.1f}",
                    f"{centers[1] - heads[1]:+.1f}", f"{gain['likelihood'] / gain['done']:.3f}", f"{gain['sure']:.1f}",
                    "centers" if ways["ours-auto"]["epochs_trained"][index] else "heads",
                ]
            )  # fmt: skip
    header = [
        "seed", "task", "heads: new", "centers", "heads: all classes then", "centers", "nats by the end",
        "standard errors", "chosen",
    ]  # fmt: skip
    return (
        f"What each lesson gains by training, and what `auto` chose.\n\n{table(header, rows)}" if rows else ""
    )


def _after(run: Run, scenario: str, index: int) -> float:
    """After the task of this index, in percent: of the task itself with it known, else over all classes known."""
    found = run["scenarios"][scenario]
    return float(
        found["accuracy"][index + 1] if scenario == CLASS else found["accuracy_matrix"][index + 1][index + 1]
    )


def again(run: Run) -> float | None:
    """Over all classes at the end, if statistics and heads were measured anew on the network that is left."""
    if not any(run["epochs_trained"]):
        return float(run["scenarios"][CLASS]["accuracy"][-1])
    found = run.get("measured_again")
    return float(found["all_classes"]) if found else None


def stages(scenario: Mapping[str, Any]) -> float:
    """The mean of the accuracy over all classes known, after the base and after each task."""
    return statistics.mean(scenario["accuracy"])


def published() -> str:
    """What others report on it, and what differs."""
    found = json.loads(PUBLISHED.read_text(encoding="utf-8"))["methods"]
    rows = [
        [
            one["name"], *(f"{one[name]:.1f}" if name in one else "" for name in ("acc", "bwt", "stages")),
            one["source"], one["differs"],
        ]
        for one in found
    ]  # fmt: skip
    header = ["published", "ACC", "BWT", "mean over the stages", "source", "what differs"]
    return table(header, rows)
