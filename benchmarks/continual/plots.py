"""Accuracy over a stream, as lines."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .tables import title_of

TASK, CLASS, CLASS_OWN = "task, our head", "class, our head", "class, own head"
SHOWN = {
    "ours": ("#d62728", 2.4), "ours-heads": ("#ff9896", 1.6), "finetune": ("#7f7f7f", 1.4), "gpm": ("#1f77b4", 1.4),
    "adam-nscl": ("#17becf", 1.4), "lwf": ("#2ca02c", 1.4), "ewc": ("#9467bd", 1.4), "replay": ("#8c564b", 1.4),
    "fecam": ("#bcbd22", 1.4), "ours-wide": ("#ff7f0e", 1.8), "ours-last": ("#7a0c0c", 1.8),
}  # fmt: skip


def accuracies(runs: list[Mapping[str, Any]], file: Path) -> None:
    """Two panels: mean accuracy of the tasks learned so far, and accuracy over all classes seen so far."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(1, 2, figsize=(11, 4.4), sharex=True)
    chosen = sorted((run for run in runs if run["method"] in SHOWN and run["seed"] == 0), key=_order)
    for panel, kind, title in zip(
        panels, ("task", "class"),
        ("Task-incremental: mean accuracy of tasks", "Class-incremental: accuracy over all classes"),
        strict=True,
    ):  # fmt: skip
        for run in chosen:
            values = _line(run, kind)
            if values is None:
                continue
            color, width = SHOWN[run["method"]]
            panel.plot(
                range(len(values)),
                values,
                color=color,
                linewidth=width,
                label=title_of(run),
                zorder=width,
            )
        panel.set_title(title, fontsize=11, loc="left")
        panel.set_xlabel("tasks learned")
        panel.set_ylabel("test accuracy, %")
        panel.grid(alpha=0.25)
        for side in ("top", "right"):
            panel.spines[side].set_visible(False)
    labels = {
        label: handle
        for panel in panels
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)
    }
    figure.legend(labels.values(), labels.keys(), loc="lower center", ncols=5, fontsize=9, frameon=False)
    figure.tight_layout(rect=(0, 0.11, 1, 1))
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=110, metadata={"Software": None})
    plt.close(figure)


def _order(run: Mapping[str, Any]) -> int:
    return list(SHOWN).index(run["method"])


def _line(run: Mapping[str, Any], kind: str) -> list[float] | None:
    """What is drawn: for all classes the better of the method's own head and ours, named on the page."""
    scenarios = run["scenarios"]
    if kind == "task":
        return [float(np.mean(row)) for row in _known(scenarios[TASK]["accuracy_matrix"])]
    own, ours = scenarios.get(CLASS_OWN), scenarios[CLASS]
    best = own if own is not None and own["accuracy"][-1] > ours["accuracy"][-1] else ours
    return [float(value) for value in best["accuracy"]]


def _known(matrix: list[list[float | None]]) -> list[list[float]]:
    return [[value for value in row if value is not None] for row in matrix]
