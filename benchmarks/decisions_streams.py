"""Of the streams of benchmarks/continual: the tasks that differ by a point, and what thresholds would choose."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from benchmarks.page_parts import row

from csk_sdk.method.gain import SURE, WORTH

# From this difference on, in points, a lesson's two ways are not the same.
POINT = 1.0
OWN, ALL = "task, our head", "class, our head"
SCENARIOS = {OWN: "own classes", ALL: "all classes"}
# Nats by the end that could be asked for: as it is, and less.
WORTHS = (WORTH, 0.02, 0.01, 0.005, 0.0)


@dataclass(frozen=True)
class Streamed:
    """A task of a stream in both ways: `gains` are the points that centers add right after it, by scenario.

    `gain` is what held-out images said of it, with `auto`, which chose `chosen`.
    """

    protocol: str
    seed: int
    task: str
    chosen: str
    gain: Mapping[str, float]
    gains: Mapping[str, float]

    def differs(self, scenario: str) -> bool:
        """Whether by a point at least."""
        return abs(self.gains[scenario]) >= POINT

    def right(self, scenario: str, way: str) -> bool:
        """Whether this way is the better one."""
        return (self.gains[scenario] > 0) == (way == "centers")

    def way(self, worth: float) -> str:
        """What `auto` would choose if it asked for so many nats by the end."""
        clear = self.gain["sure"] >= SURE and self.gain["likelihood"] / self.gain["done"] >= worth
        return "centers" if clear else "heads"


def of_streams(runs: Iterable[Mapping[str, Any]]) -> list[Streamed]:
    """The tasks of all streams that were lived with `auto`, and with what it did not choose for any of them."""
    by = {(run["protocol"], run["seed"], run["method"]): run for run in runs if not run.get("network")}
    found = []
    for (protocol, seed, method), run in sorted(by.items()):
        if method != "ours-auto" or len({epochs > 0 for epochs in run["epochs_trained"]}) > 1:
            continue
        chosen, other = ("centers", "heads") if run["epochs_trained"][0] else ("heads", "centers")
        if (protocol, seed, f"ours-{other}") not in by:
            continue
        ways = {chosen: run, other: by[protocol, seed, f"ours-{other}"]}
        for number, (task, gain) in enumerate(zip(run["tasks"], run["gains"], strict=True), 1):
            heads, centers = (_new(ways[way], number) for way in ("heads", "centers"))
            gains = {name: centers[name] - heads[name] for name in _scenarios(protocol)}
            found.append(Streamed(protocol, seed, task, chosen, gain, gains))
    return found


def _scenarios(protocol: str) -> tuple[str, ...]:
    """Domains have all classes each, and the heads of their runs are of different builds."""
    return (ALL,) if protocol.startswith("domain") else (OWN, ALL)


def _new(run: Mapping[str, Any], number: int) -> dict[str, float]:
    """Accuracy of a task right after it, by scenario."""
    return {name: run["scenarios"][name]["accuracy_matrix"][number][number] for name in SCENARIOS}


def streams_tables(found: Sequence[Streamed]) -> str:
    """The tasks that differ, by protocol and scenario, and how many of them other thresholds would choose right."""
    heads = ["protocol", "by", "tasks", "mean gain of centers", "deviation"]
    heads += ["differ by a point", "`auto` right", "task (seed)"]
    lines = [row(heads), "|---" * len(heads) + "|"]
    for protocol in dict.fromkeys(one.protocol for one in found):
        tasks = [one for one in found if one.protocol == protocol]
        for scenario in _scenarios(protocol):
            gains = np.array([one.gains[scenario] for one in tasks])
            spread = gains.std(ddof=1)
            mean = f"{gains.mean():+.2f} ± {spread / math.sqrt(len(gains)):.2f}"
            kept = [one for one in tasks if one.differs(scenario)]
            right = share_of([one.right(scenario, one.chosen) for one in kept])
            named = ", ".join(f"{one.task} ({one.seed}) {one.gains[scenario]:+.1f}" for one in kept)
            cells = [protocol, SCENARIOS[scenario], str(len(tasks)), mean, f"{spread:.2f}", str(len(kept))]
            lines.append(row([*cells, right, named]))
    return "\n".join([*lines, "", *_thresholds(found)])


def _thresholds(found: Sequence[Streamed]) -> list[str]:
    heads = ["nats asked for", "tasks trained", *(f"right, by {title}" for title in SCENARIOS.values())]
    lines = [row(heads), "|---" * len(heads) + "|"]
    for worth in WORTHS:
        cells = [f"{worth:g}", f"{sum(one.way(worth) == 'centers' for one in found)} of {len(found)}"]
        for scenario in SCENARIOS:
            kept = [one for one in found if scenario in one.gains and one.differs(scenario)]
            cells.append(share_of([one.right(scenario, one.way(worth)) for one in kept]))
        lines.append(row(cells))
    return lines


def share_of(right: Sequence[bool]) -> str:
    """How many of how many."""
    return f"{sum(right)} of {len(right)} ({100 * sum(right) / len(right):.0f} %)" if right else ""
