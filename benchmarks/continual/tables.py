"""The tables of the results page, each from the runs of one protocol."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

Run = Mapping[str, Any]
TASK, CLASS = "task, our head", "class, our head"
TASK_OWN, CLASS_OWN = "task, own head", "class, own head"
# The order of rows; whatever else there is comes last.
ORDER = (
    "ours", "ours-int8", "ours-all-channels", "ours-no-projection", "ours-plain", "ours-heads", "ours-last",
    "ours-last-heads", "finetune", "finetune-layers", "finetune-gentle", "one-softmax", "last-stage",
    "last-stage-gentle", "head-only", "bias-only", "sparse-update",
    "ewc", "lwf", "gpm", "adam-nscl", "replay", "fecam", "fetril", "joint",
    "joint-layers",
)  # fmt: skip
# Training on a device without anything against forgetting.
UNPROTECTED = (
    "finetune",
    "finetune-layers",
    "finetune-gentle",
    "one-softmax",
    "last-stage",
    "last-stage-gentle",
    "bias-only",
    "sparse-update",
)
# Counted on the same method in torch: the operations are the product's.
COUNTED_AS = {
    "ours": "csko-torch", "ours-all-channels": "csko-torch-all-channels",
    "ours-no-projection": "csko-torch-no-projection", "ours-plain": "csko-torch-plain", "ours-heads": "head-only",
    "ours-last": "csko-torch", "ours-last-heads": "head-only",
}  # fmt: skip


def task_table(runs: list[Run]) -> str:
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


def class_table(runs: list[Run]) -> str:
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


def gap(runs: list[Run]) -> str:
    """csk-sdk against on-device training without protection, which is what the paper's number is about."""
    ours = [run["scenarios"][CLASS]["accuracy"][-1] for run in runs if run["method"] == "ours"]
    others = {
        run["title"]: run["scenarios"][CLASS_OWN]["accuracy"][-1]
        for run in runs
        if run["method"] in UNPROTECTED and CLASS_OWN in run["scenarios"]
    }
    if not ours or not others:
        return ""
    mean = sum(ours) / len(ours)
    listed = ", ".join(f"{title} {value:.1f}" for title, value in others.items())
    given = ", ".join(
        f"{run['title']} {value:.1f} (csk-sdk leads by {mean - value:.1f})"
        for run in runs
        if run["method"] in ("finetune", "finetune-layers")
        for value in [run["scenarios"][CLASS]["accuracy"][-1]]
    )
    return (
        f"Beside csk-sdk's {mean:.1f} % over all classes, training without protection ends with its own heads at: "
        f"{listed}. Given csk-sdk's head: {given}. The paper's average lead over such methods, on its own networks and "
        "streams, is 38.08 points."
    )


def left_out(runs: list[Run]) -> str:
    """Which rows of the other tables this protocol lacks."""
    present = {run["method"] for run in runs}
    missing = [name for name in ORDER if name not in present]
    return f"Not run yet: {', '.join(f'`{name}`' for name in missing)}." if missing else ""


def cost_table(runs: list[Run]) -> str:
    counted = {run["method"]: run["costs"] for run in runs if run["costs"]}
    full = counted.get("finetune")
    rows = []
    for run, many in _by_method(runs):
        costs = counted.get(COUNTED_AS.get(run["method"], run["method"]))
        if (
            run["method"].startswith("csko-torch")
            or run["method"].startswith("joint")
            or not costs
            or not full
        ):
            continue
        rows.append(
            [
                run["title"], f"{costs['trained']:,}", f"{costs['flops'] / 1e9:.2f}",
                f"{costs['flops'] / full['flops']:.2f}",
                *(f"{costs[part] / 2**20:.2f}" for part in ("activation_bytes", "optimizer_bytes", "state_bytes")),
                f"{costs['step_bytes'] / full['step_bytes']:.2f}",
                _mean([sum(one["cpu_seconds"]) if "cpu_seconds" in one else None for one in many]),
                f"{run['peak_rss_bytes'] / 2**20:.0f}", run["by"],
            ]
        )  # fmt: skip
    if not rows:
        return ""
    header = [
        "method", "trained numbers", "GFLOP a step", "of fine-tuning", "kept inputs, MiB", "gradients, optimizer, MiB",
        "kept between tasks, MiB", "bytes, of fine-tuning", "learning, CPU s", "peak RSS, MiB", "run by",
    ]  # fmt: skip
    caption = "Costs. Operations and bytes are counted, CPU seconds (of all tasks) and RSS measured."
    return f"{caption}\n\n{table(header, rows)}"


def ablation(runs: list[Run]) -> str:
    rows = [
        [run["title"], *_of(many, TASK, "acc", "bwt", "new"), _final(many, CLASS), *_of(many, CLASS, "base")]
        for run, many in _by_method(runs)
        if run["method"].startswith("csko-torch")
    ]
    if not rows:
        return ""
    header = ["in torch, not the product", "ACC", "BWT", "new", "all classes", "base, of all classes"]
    return f"What each part does.\n\n{table(header, rows)}"


def domains(runs: list[Run]) -> str:
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


def few_shots(runs: list[Run]) -> str:
    rows = []
    for protocol in sorted({run["protocol"] for run in runs if few_shot(run["protocol"])}, key=_pictures):
        for run, many in _by_method(sorted((r for r in runs if r["protocol"] == protocol), key=place)):
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


def place(run: Run) -> tuple[int, str, int]:
    place = ORDER.index(run["method"]) if run["method"] in ORDER else len(ORDER)
    return place, run["method"], run["seed"]


def _pictures(protocol: str) -> int:
    return int(protocol.partition("@")[2] or 500)


def few_shot(protocol: str) -> bool:
    return not protocol.startswith("domain") and _pictures(protocol) <= 50


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])
