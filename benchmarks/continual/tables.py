"""The tables of the results page, each from the runs of one protocol."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from typing import Any

Run = Mapping[str, Any]
TASK, CLASS = "task, our head", "class, our head"
TASK_OWN, CLASS_OWN = "task, own head", "class, own head"
# The order of rows; whatever else there is comes last.
ORDER = (
    "ours", "ours-int8", "ours-all-images", "ours-prefix", "ours-int8-prefix", "ours-all-channels",
    "ours-no-projection", "ours-plain", "ours-heads", "ours-centers", "ours-kernels", "ours-auto", "ours-kernels-auto",
    "ours-wide", "ours-wide-heads", "ours-all", "ours-all-heads", "ours-last", "ours-last-heads", "finetune",
    "finetune-layers", "finetune-gentle", "one-softmax", "last-stage", "last-stage-gentle", "head-only", "bias-only",
    "sparse-update",
    "ewc", "lwf", "gpm", "adam-nscl", "replay", "fecam", "fetril", "joint", "joint-layers", "joint-everything",
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
# Rows of the cold start: elsewhere, "ours" is the first.
OF_COLD_START = ("ours-centers", "ours-kernels", "ours-auto", "ours-kernels-auto")
# How the names of methods begin that are csk-sdk's own, written in torch: its parts, and what it might have been.
ABLATIONS, TRIED = "csko-torch", "tried"
# Counted on the same method in torch: the operations are the product's. int8 has as many of them as float32.
COUNTED_AS = {
    "ours": "csko-torch", "ours-int8": "csko-torch", "ours-prefix": "csko-torch", "ours-int8-prefix": "csko-torch",
    "ours-all-images": "csko-torch", "ours-all-channels": "csko-torch-all-channels",
    "ours-no-projection": "csko-torch-no-projection", "ours-plain": "csko-torch-plain", "ours-heads": "head-only",
    "ours-last": "csko-torch", "ours-last-heads": "head-only",
}  # fmt: skip


def task_table(runs: list[Run]) -> str:
    rows = [
        [
            title_of(run), *_of(many, TASK, "acc", "bwt", "forgetting", "new", "base"),
            mean_of([run_["fwt"] for run_ in many], signed=True), *_of(many, TASK_OWN, "acc", "bwt"), seeds_of(many),
        ]
        for run, many in by_method(compared(runs))
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
    return f"Task-incremental (among the classes of the task).\n\n{table(header, rows)}"


def title_of(run: Run) -> str:
    """Runs of before were recorded under other names: frozen backbones, and centers when they were the default."""
    title = str(run["title"]).replace("heads only", "frozen backbone")
    return title.replace("csk-sdk, defaults", "csk-sdk, centers")


def class_table(runs: list[Run]) -> str:
    rows = []
    for run, many in by_method(compared(runs)):
        # A loss over all classes leaves no task heads worth a joint head, and the other way round; both are shown.
        final, own = _final(many, CLASS), _final(many, CLASS_OWN)
        rows.append(
            [
                title_of(run),
                final,
                *_of(many, CLASS, "base", "new", "bwt"),
                own,
                *_of(many, CLASS_OWN, "base"),
            ]
        )
    header = ["method", "all classes", "base", "new", "BWT", "all classes, own head", "base, own head"]
    return f"Class-incremental (among all classes).\n\n{table(header, rows)}"


def gap(runs: list[Run]) -> str:
    """csk-sdk against on-device training without protection, which is what the paper's number is about."""
    same_head, own = _ended(runs, CLASS), _ended(runs, CLASS_OWN)
    others = [own[name] for name in UNPROTECTED if name in own]
    if "ours" not in same_head or not others:
        return ""
    mean = same_head["ours"][1]
    listed = ", ".join(f"{title} {value:.1f}" for title, value in others)
    wide = same_head["ours-wide"][1] if "ours-wide" in same_head else None
    given = ", ".join(
        f"{title} {value:.1f} (csk-sdk leads by {mean - value:.1f}"
        + (f", with wide features by {wide - value:.1f})" if wide is not None else ")")
        for title, value in (same_head[name] for name in ("finetune", "finetune-layers") if name in same_head)
    )
    ours = f"{mean:.1f} %" if wide is None else f"{mean:.1f} % ({wide:.1f} % with wide features)"
    return (
        f"Beside csk-sdk's {ours} over all classes, training without protection ends with its own heads at: "
        f"{listed}. Given csk-sdk's head: {given}. The paper's average lead over such methods, on its own networks and "
        "streams, is 38.08 points."
    )


def _ended(runs: list[Run], scenario: str) -> dict[str, tuple[str, float]]:
    """By method its title, and its accuracy over all classes after the last task, the mean over seeds."""
    return {
        run["method"]: (
            title_of(run),
            statistics.mean(one["scenarios"][scenario]["accuracy"][-1] for one in many),
        )
        for run, many in by_method(run for run in runs if scenario in run["scenarios"])
    }


def left_out(runs: list[Run]) -> str:
    """Which rows of the other tables this protocol lacks."""
    present = {run["method"] for run in runs}
    missing = [name for name in ORDER if name not in present and name not in OF_COLD_START]
    return f"Not run yet: {', '.join(f'`{name}`' for name in missing)}." if missing else ""


def cost_table(runs: list[Run], every: list[Run]) -> str:
    """Of one protocol's runs; what was counted in another of `every` protocol's holds here, for a step is a step."""
    counted = {run["method"]: run["costs"] for run in (*every, *runs) if run["costs"]}
    full = counted.get("finetune")
    strongest = counted.get("adam-nscl")
    rows = []
    for run, many in by_method(compared(runs)):
        costs = counted.get(COUNTED_AS.get(run["method"], run["method"]))
        if run["method"].startswith("joint") or not costs or not full:
            continue
        flops = costs["flops"] - _saved(run) * costs.get("prefix_flops", 0.0)
        rows.append(
            [
                title_of(run), f"{costs['trained']:,}", f"{flops / 1e9:.2f}", f"{flops / full['flops']:.2f}",
                f"{flops / strongest['flops']:.2f}" if strongest else "",
                *(f"{costs[part] / 2**20:.2f}" for part in ("activation_bytes", "optimizer_bytes", "state_bytes")),
                f"{costs['step_bytes'] / full['step_bytes']:.2f}",
                f"{costs['step_bytes'] / strongest['step_bytes']:.3f}" if strongest else "",
                mean_of([sum(one["cpu_seconds"]) if "cpu_seconds" in one else None for one in many]),
                f"{run['peak_rss_bytes'] / 2**20:.0f}", run["by"],
            ]
        )  # fmt: skip
    if not rows:
        return ""
    header = [
        "method", "trained numbers", "GFLOP a step", "of fine-tuning", "of Adam-NSCL", "kept inputs, MiB",
        "gradients, optimizer, MiB", "kept between tasks, MiB", "bytes, of fine-tuning", "of Adam-NSCL",
        "learning, CPU s", "peak RSS, MiB", "run by",
    ]  # fmt: skip
    caption = "Costs. Operations and bytes are counted, CPU seconds (of all tasks) and RSS measured."
    return f"{caption}\n\n{table(header, rows)}"


def _saved(run: Run) -> float:
    """The share of passes through the frozen stem that kept features of them save."""
    settings = run.get("settings") or {}
    if settings.get("prefix_cache", "off") == "off":
        return 0.0
    return 1.0 - float(settings["prefix_views"] / run["epochs"])


def ablation(runs: list[Run]) -> str:
    return _in_torch(runs, ABLATIONS, "What each part does, on the last features.")


def tried(runs: list[Run]) -> str:
    return _in_torch(runs, TRIED, "What was tried to learn more, on the features of layers.")


def _in_torch(runs: list[Run], prefix: str, caption: str) -> str:
    rows = [
        [
            title_of(run),
            *_of(many, TASK, "acc", "bwt", "new", "base"),
            _final(many, CLASS),
            *_of(many, CLASS, "base"),
        ]
        for run, many in sorted(
            by_method(run for run in runs if run["method"].startswith(prefix)), key=_acc, reverse=True
        )
    ]
    if not rows:
        return ""
    header = ["in torch, not the product", "ACC", "BWT", "new", "base", "all classes", "base, of all classes"]
    return f"{caption}\n\n{table(header, rows)}"


def _acc(one: tuple[Run, list[Run]]) -> float:
    return statistics.mean(float(run["scenarios"][TASK]["acc"]) for run in one[1])


def domains(runs: list[Run]) -> str:
    rows = []
    for run, many in by_method(runs):
        for label, scenario in (("one softmax", CLASS_OWN), ("our head", CLASS)):
            if scenario in run["scenarios"]:
                last = run["scenarios"][scenario]["accuracy_matrix"][-1]
                rows.append(
                    [
                        f"{title_of(run)}, {label}",
                        *_of(many, scenario, "acc", "bwt"),
                        *(f"{one:.1f}" for one in last),
                    ]
                )
    header = ["method", "ACC", "BWT", "clean", *runs[0]["tasks"]]
    return table(header, rows)


def _trained(run: Run, pictures: int) -> str:
    """Its title, and whether so many images a class are too few to train on."""
    few = run["method"] == "ours" and pictures < run["settings"].get("few_shot", 0)
    return title_of(run) + (" (too few images: frozen backbone)" if few else "")


def few_shots(runs: list[Run]) -> str:
    rows = []
    for protocol in sorted({run["protocol"] for run in runs if few_shot(run["protocol"])}, key=_pictures):
        for run, many in by_method(sorted((r for r in runs if r["protocol"] == protocol), key=place)):
            rows.append(
                [
                    str(_pictures(protocol)), _trained(run, _pictures(protocol)), *_of(many, TASK, "acc", "bwt", "new"),
                    _final(many, CLASS), *_of(many, CLASS, "base", "new"), seeds_of(many),
                ]
            )  # fmt: skip
    if not rows:
        return ""
    header = [
        "images a class",
        "method",
        "ACC",
        "BWT",
        "new",
        "all classes",
        "base of all",
        "new of all",
        "seeds",
    ]
    return f"## Few images: ten tasks of five classes\n\n{table(header, rows)}"


def compared(runs: Iterable[Run]) -> list[Run]:
    """Without the rows that take csk-sdk's method apart."""
    return [run for run in runs if not run["method"].startswith((ABLATIONS, TRIED))]


def by_method(runs: Iterable[Run]) -> list[tuple[Run, list[Run]]]:
    """One run of each method, and those of all seeds."""
    found: dict[str, list[Run]] = {}
    for run in runs:
        found.setdefault(run["method"], []).append(run)
    return [(many[0], many) for many in found.values()]


def _of(runs: list[Run], scenario: str, *names: str) -> list[str]:
    return [
        mean_of([run["scenarios"].get(scenario, {}).get(name) for run in runs], name in ("bwt",))
        for name in names
    ]


def _final(runs: list[Run], scenario: str) -> str:
    return mean_of(
        [run["scenarios"][scenario]["accuracy"][-1] if scenario in run["scenarios"] else None for run in runs]
    )


def mean_of(values: list[Any], signed: bool = False) -> str:
    """The mean, and the standard deviation over seeds where there are several."""
    known = [float(value) for value in values if value is not None]
    if not known:
        return ""
    mean = f"{statistics.mean(known):+.1f}" if signed else f"{statistics.mean(known):.1f}"
    return f"{mean} ± {statistics.stdev(known):.1f}" if len(known) > 1 else mean


def seeds_of(runs: list[Run]) -> str:
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
