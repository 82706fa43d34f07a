"""The image: a step of every method, case by case."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.cases import CASES, METHODS
from bench.driver import Measured
from bench.page import milliseconds
from bench.timing import medians

OURS, OTHERS, FORWARD = "#c0392b", "#7f8c8d", "#d5dbdb"


def draw(results: Mapping[str, Sequence[Measured]], path: Path) -> None:
    """Horizontal bars, one panel per case, slowest at the bottom; without very slow methods, which leave no room."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    cases = [case for case in CASES if case.title in results]
    figure, panels = plt.subplots(
        (len(cases) + 1) // 2, 2, figsize=(13, 2.9 * ((len(cases) + 1) // 2)), squeeze=False
    )
    for panel in panels.flat[len(cases) :]:
        panel.axis("off")
    for case, panel in zip(cases, panels.flat, strict=False):
        found = medians(results[case.title])
        shown = sorted(
            (m for m in METHODS if m.key in found and m.at_most is None), key=lambda m: -found[m.key]
        )
        bars = panel.barh(
            [m.label.strip("*").replace(" (csk-sdk's ort-training backend)", "") for m in shown],
            [1e3 * found[m.key] for m in shown],
            color=[OURS if m.peer == "csk" else FORWARD if m.name == "forward" else OTHERS for m in shown],
        )
        panel.bar_label(bars, [milliseconds(found[m.key]) for m in shown], padding=3, fontsize=8)
        panel.set_title(case.title, fontsize=10, loc="left")
        panel.tick_params(axis="y", labelsize=8, length=0)
        panel.xaxis.set_visible(False)
        panel.margins(x=0.12)
        for side in ("top", "right", "bottom"):
            panel.spines[side].set_visible(False)
    figure.suptitle(
        "Milliseconds per training step, one thread (pale: a forward pass only)", x=0.01, ha="left"
    )
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)
