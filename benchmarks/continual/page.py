"""The results page: tables and plots from docs/results/continual.json alone."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from .cold import choices, cold, is_cold, published
from .corruptions import BLUR_DEVIATION, CONTRAST_LEFT, NOISE_DEVIATION, SEVERITY
from .results import key, network_of
from .tables import (
    Run,
    ablation,
    class_table,
    compared,
    cost_table,
    domains,
    few_shot,
    few_shots,
    gap,
    left_out,
    place,
    task_table,
    tried,
)

HERE = Path(__file__).parent
_EACH = {
    "10x5": "Ten tasks of five classes",
    "5x10": "Five tasks of ten classes",
    "25x2": "25 tasks of two classes",
    "9x10": "Nine tasks of ten classes",
    "18x5": "18 tasks of five classes",
}
_UNDER_PLOT = "On the right each method has the better of its own head and ours."
_CONSTANTS = {
    "NOISE": NOISE_DEVIATION[SEVERITY - 1],
    "BLUR": BLUR_DEVIATION[SEVERITY - 1],
    "CONTRAST": CONTRAST_LEFT[SEVERITY - 1],
    "SEVERITY": SEVERITY,
}


def merge(runs: Path, results: Path) -> None:
    """Add the runs of a folder to the results, in the place of earlier ones of the same kind."""
    known = {key(run): run for run in load(results)} if results.exists() else {}
    for file in sorted(runs.glob("*/*.json")):
        run = json.loads(file.read_text())
        known[key(run)] = run
    results.parent.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(json.dumps(known[one]) for one in sorted(known))
    results.write_text(f'{{"runs": [\n{lines}\n]}}\n')


def load(results: Path) -> list[dict[str, Any]]:
    """All runs."""
    runs: list[dict[str, Any]] = json.loads(results.read_text())["runs"]
    return runs


def write(results: Path, page: Path) -> None:
    """Write the page, and its plots into `images/` beside it."""
    from .plots import accuracies

    runs = load(results)
    pictures = {}
    for protocol in protocols(runs):
        if has_plot(protocol):
            file = page.parent / "images" / f"continual-{slug(protocol)}.png"
            accuracies([run for run in runs if run["protocol"] == protocol], file)
            pictures[protocol] = f"images/{file.name}"
    page.write_text(render(runs, pictures))


def render(runs: list[dict[str, Any]], pictures: Mapping[str, str]) -> str:
    """The page's text."""
    parts = [_prose("introduction.md")]
    for protocol in protocols(runs):
        chosen = sorted((run for run in runs if run["protocol"] == protocol), key=place)
        if few_shot(protocol) or is_cold(protocol):
            continue
        parts.append(f"## {_heading(protocol)}")
        if protocol.startswith("domain"):
            parts.append(domains(chosen))
            continue
        parts.append(task_table(chosen))
        parts.append(class_table(chosen))
        parts.append(gap(chosen))
        if protocol in pictures:
            parts.append(f"![Accuracy over the stream, {protocol}]({pictures[protocol]})\n\n{_UNDER_PLOT}")
        parts += [cost_table(chosen, runs), ablation(chosen), tried(chosen), left_out(chosen)]
    parts += [*_cold_start(runs), few_shots(runs), _prose("how-it-was-made.md"), _made_with(runs)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _cold_start(runs: list[dict[str, Any]]) -> list[str]:
    """What a weak base comes to, and what was published."""
    found = [protocol for protocol in protocols(runs) if is_cold(protocol)]
    if not found:
        return []
    parts = [_prose("cold-start.md")]
    for protocol in found:
        of = [run for run in runs if run["protocol"] == protocol]
        for network in sorted({network_of(run) for run in of}):
            kind = f"{_heading(protocol)}, {network}" if network else _heading(protocol)
            parts.append(f"{kind}, seconds as they were measured on two cores:")
            same = [run for run in of if network_of(run) == network]
            parts += [cold(same), choices(same)]
    return [*parts, published()]


def protocols(runs: Iterable[Run]) -> list[str]:
    """The protocols that were run, the one with the most compared runs first."""
    counts: dict[str, int] = defaultdict(int)
    for run in compared(runs):
        counts[run["protocol"]] += 1
    return sorted(counts, key=lambda name: (name.startswith("domain"), -counts[name], name))


def _prose(name: str) -> str:
    """A file of this folder, with the constants that the code uses in place of their names."""
    text = (HERE / name).read_text(encoding="utf-8").strip()
    return re.sub(r"\b(" + "|".join(_CONSTANTS) + r")\b", lambda match: str(_CONSTANTS[match[0]]), text)


def _heading(protocol: str) -> str:
    kind, _, pictures = protocol.partition("@")
    many = f"{pictures or 500} images a class"
    return f"Known classes behind a worse camera, {many}" if kind == "domain" else f"{_EACH[kind]}, {many}"


def has_plot(protocol: str) -> bool:
    """Whether the page has a plot of this protocol."""
    return not few_shot(protocol) and not protocol.startswith("domain") and not is_cold(protocol)


def slug(protocol: str) -> str:
    """A protocol's name in a file's name."""
    return re.sub(r"\W", "-", protocol)


def _made_with(runs: list[Run]) -> str:
    versions: dict[str, set[str]] = defaultdict(set)
    for run in runs:
        for name, version in run["machine"]["versions"].items():
            if version:
                versions[name].add(version)
    listed = ", ".join(f"{name} {' and '.join(sorted(found))}" for name, found in sorted(versions.items()))
    systems = sorted({f"{run['machine']['processor']}, Python {run['machine']['python']}" for run in runs})
    return f"Measured with {listed}, on {'; '.join(systems)}, one thread."
