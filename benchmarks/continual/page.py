"""The results page: tables and plots from docs/results/continual.json alone."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from .corruptions import BLUR_DEVIATION, CONTRAST_LEFT, NOISE_DEVIATION, SEVERITY
from .results import key

HERE = Path(__file__).parent
_EACH = {
    "10x5": "Ten tasks of five classes",
    "5x10": "Five tasks of ten classes",
    "25x2": "25 tasks of two classes",
}
_CONSTANTS = {
    "NOISE": NOISE_DEVIATION[SEVERITY - 1],
    "BLUR": BLUR_DEVIATION[SEVERITY - 1],
    "CONTRAST": CONTRAST_LEFT[SEVERITY - 1],
    "SEVERITY": SEVERITY,
}
Run = Mapping[str, Any]
TASK, CLASS = "task, our head", "class, our head"
TASK_OWN, CLASS_OWN = "task, own head", "class, own head"
# The order of rows; whatever else there is comes last.
ORDER = (
    "ours", "ours-int8", "ours-all-channels", "ours-no-projection", "ours-plain", "ours-heads", "finetune",
    "one-softmax", "last-stage", "head-only", "bias-only", "sparse-update", "ewc", "lwf", "gpm", "adam-nscl", "replay",
    "fecam", "fetril", "joint",
)  # fmt: skip
# Training on a device without anything against forgetting.
UNPROTECTED = ("one-softmax", "last-stage", "bias-only", "sparse-update")
# Counted on the same method in torch: the operations are the product's.
COUNTED_AS = {
    "ours": "csko-torch", "ours-all-channels": "csko-torch-all-channels",
    "ours-no-projection": "csko-torch-no-projection", "ours-plain": "csko-torch-plain", "ours-heads": "head-only",
}  # fmt: skip


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
        chosen = sorted((run for run in runs if run["protocol"] == protocol), key=_place)
        if _few_shot(protocol):
            continue
        parts.append(f"## {_heading(protocol)}")
        if protocol.startswith("domain"):
            parts.append(_domains(chosen))
            continue
        parts.append(_task_table(chosen))
        parts.append(_class_table(chosen))
        parts.append(_gap(chosen))
        if protocol in pictures:
            parts.append(f"![Accuracy over the stream, {protocol}]({pictures[protocol]})")
        parts += [_cost_table(chosen), _ablation(chosen)]
    parts += [_few_shots(runs), _prose("how-it-was-made.md"), _made_with(runs)]
    return "\n\n".join(part for part in parts if part) + "\n"


def protocols(runs: Iterable[Run]) -> list[str]:
    """The protocols that were run, the most methods first."""
    counts: dict[str, int] = defaultdict(int)
    for run in runs:
        counts[run["protocol"]] += 1
    return sorted(counts, key=lambda name: (name.startswith("domain"), -counts[name], name))


def _prose(name: str) -> str:
    """A file of this folder, with the constants that the code uses in place of their names."""
    text = (HERE / name).read_text(encoding="utf-8").strip()
    return re.sub(r"\b(" + "|".join(_CONSTANTS) + r")\b", lambda match: str(_CONSTANTS[match[0]]), text)


def _heading(protocol: str) -> str:
    kind, _, pictures = protocol.partition("@")
    many = f"{pictures or 500} pictures a class"
    return f"Known classes behind a worse camera, {many}" if kind == "domain" else f"{_EACH[kind]}, {many}"


def _task_table(runs: list[Run]) -> str:
    rows = [
        [
            run["title"], *_of(many, TASK, "acc", "bwt", "forgetting", "new", "base"),
            _mean([run_["fwt"] for run_ in many], signed=True), *_of(many, TASK_OWN, "acc", "bwt"), _seeds(many),
        ]
        for run, many in _by_method(runs) if not run["method"].startswith("csko-torch")
    ]  # fmt: skip
    header = [
        "method",
        "ACC",
        "BWT",
        "forgetting",
        "new",
        "base",
        "FWT",
        "ACC, own head",
        "BWT, own head",
        "seeds",
    ]
    return f"Task-incremental (the task is known).\n\n{table(header, rows)}"


def _class_table(runs: list[Run]) -> str:
    rows = []
    for run, many in _by_method(runs):
        if run["method"].startswith("csko-torch"):
            continue
        # A loss over all classes leaves no task heads worth a joint head, and the other way round; both are shown.
        final, own = _final(many, CLASS), _final(many, CLASS_OWN)
        rows.append(
            [run["title"], final, *_of(many, CLASS, "base", "new", "bwt"), own, *_of(many, CLASS_OWN, "base")]
        )
    header = ["method", "all classes", "base", "new", "BWT", "all classes, own head", "base, own head"]
    return f"Class-incremental (one decision over all classes).\n\n{table(header, rows)}"


def _gap(runs: list[Run]) -> str:
    """csk-sdk against on-device training without protection, which is what the paper's number is about."""
    ours = [run["scenarios"][CLASS]["accuracy"][-1] for run in runs if run["method"] == "ours"]
    others = {
        run["title"]: run["scenarios"][CLASS_OWN]["accuracy"][-1]
        for run in runs
        if run["method"] in UNPROTECTED and CLASS_OWN in run["scenarios"]
    }
    if not ours or not others:
        return ""
    gap = sum(ours) / len(ours) - sum(others.values()) / len(others)
    return (
        f"Over all classes csk-sdk is {gap:.1f} points above the mean of {', '.join(others)} with their own heads. "
        "The paper's number for such a comparison, on its own networks and streams, is 38.08."
    )


def _cost_table(runs: list[Run]) -> str:
    counted = {run["method"]: run["costs"] for run in runs if run["costs"]}
    full = counted.get("finetune")
    rows = []
    for run, many in _by_method(runs):
        costs = counted.get(COUNTED_AS.get(run["method"], run["method"]))
        if run["method"].startswith("csko-torch") or run["method"] == "joint" or not costs or not full:
            continue
        rows.append(
            [
                run["title"], f"{costs['trained']:,}", f"{costs['flops'] / 1e9:.2f}",
                f"{costs['flops'] / full['flops']:.2f}",
                *(f"{costs[part] / 2**20:.2f}" for part in ("activation_bytes", "optimizer_bytes", "state_bytes")),
                f"{costs['step_bytes'] / full['step_bytes']:.2f}",
                _mean([sum(one["seconds"]) for one in many]), f"{run['peak_rss_bytes'] / 2**20:.0f}", run["by"],
            ]
        )  # fmt: skip
    if not rows:
        return ""
    header = [
        "method", "trained numbers", "GFLOP a step", "of fine-tuning", "kept inputs, MiB", "gradients, optimizer, MiB",
        "kept between tasks, MiB", "bytes, of fine-tuning", "learning, s", "peak RSS, MiB", "run by",
    ]  # fmt: skip
    return f"Costs. Operations and bytes are counted, seconds and RSS measured.\n\n{table(header, rows)}"


def _ablation(runs: list[Run]) -> str:
    rows = [
        [run["title"], *_of(many, TASK, "acc", "bwt", "new"), _final(many, CLASS), *_of(many, CLASS, "base")]
        for run, many in _by_method(runs)
        if run["method"].startswith("csko-torch")
    ]
    if not rows:
        return ""
    header = ["in torch, not the product", "ACC", "BWT", "new", "all classes", "base, of all classes"]
    return f"What each part does.\n\n{table(header, rows)}"


def _domains(runs: list[Run]) -> str:
    rows = []
    for run, many in _by_method(runs):
        for label, scenario in (("one softmax", CLASS_OWN), ("our head", CLASS)):
            if scenario in run["scenarios"]:
                last = run["scenarios"][scenario]["accuracy_matrix"][-1]
                rows.append(
                    [
                        f"{run['title']}, {label}",
                        *_of(many, scenario, "acc", "bwt"),
                        *(f"{one:.1f}" for one in last),
                    ]
                )
    header = ["method", "ACC", "BWT", "clean", *runs[0]["tasks"]]
    return table(header, rows)


def _few_shots(runs: list[Run]) -> str:
    rows = []
    for protocol in sorted({run["protocol"] for run in runs if _few_shot(run["protocol"])}, key=_pictures):
        for run, many in _by_method(sorted((r for r in runs if r["protocol"] == protocol), key=_place)):
            rows.append(
                [
                    str(_pictures(protocol)), run["title"], *_of(many, TASK, "acc", "bwt", "new"),
                    _final(many, CLASS), *_of(many, CLASS, "base", "new"), _seeds(many),
                ]
            )  # fmt: skip
    if not rows:
        return ""
    header = [
        "pictures a class",
        "method",
        "ACC",
        "BWT",
        "new",
        "all classes",
        "base of all",
        "new of all",
        "seeds",
    ]
    return f"## Few pictures: ten tasks of five classes\n\n{table(header, rows)}"


def _by_method(runs: Iterable[Run]) -> list[tuple[Run, list[Run]]]:
    """One run of each method, and those of all seeds."""
    found: dict[str, list[Run]] = {}
    for run in runs:
        found.setdefault(run["method"], []).append(run)
    return [(many[0], many) for many in found.values()]


def _of(runs: list[Run], scenario: str, *names: str) -> list[str]:
    return [
        _mean([run["scenarios"].get(scenario, {}).get(name) for run in runs], name in ("bwt",))
        for name in names
    ]


def _final(runs: list[Run], scenario: str) -> str:
    return _mean(
        [run["scenarios"][scenario]["accuracy"][-1] if scenario in run["scenarios"] else None for run in runs]
    )


def _mean(values: list[Any], signed: bool = False) -> str:
    known = [float(value) for value in values if value is not None]
    if not known:
        return ""
    return f"{sum(known) / len(known):+.1f}" if signed else f"{sum(known) / len(known):.1f}"


def _seeds(runs: list[Run]) -> str:
    return ", ".join(str(run["seed"]) for run in runs)


def _place(run: Run) -> tuple[int, str, int]:
    place = ORDER.index(run["method"]) if run["method"] in ORDER else len(ORDER)
    return place, run["method"], run["seed"]


def _pictures(protocol: str) -> int:
    return int(protocol.partition("@")[2] or 500)


def _few_shot(protocol: str) -> bool:
    return not protocol.startswith("domain") and _pictures(protocol) <= 50


def has_plot(protocol: str) -> bool:
    """Whether the page has a plot of this protocol."""
    return not _few_shot(protocol) and not protocol.startswith("domain")


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


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])
