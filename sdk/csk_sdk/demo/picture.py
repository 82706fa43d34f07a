"""The demo's image: each life's accuracy matrix, side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from csk_sdk.demo.result import DemoRun
from csk_sdk.errors import ConfigError


def draw(runs: tuple[DemoRun, ...], path: Path) -> None:
    """Draw each run's class-incremental accuracy matrix as a heat map, and its last row as bars.

    Raises ConfigError where matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError:
        raise ConfigError("The demo draws with matplotlib: pip install 'csk-sdk[demo]'.") from None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(runs), figsize=(4.6 * len(runs), 4.4), layout="constrained")
    images = [_heat_map(axis, run) for axis, run in zip(np.atleast_1d(axes), runs, strict=True)]
    figure.colorbar(images[0], ax=axes, label="accuracy, %", shrink=0.85)
    figure.suptitle("Handwritten digits, one prediction over all classes learned so far", fontsize=13)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def _heat_map(axis: Any, run: DemoRun) -> Any:
    names = run.classes["tasks"]
    values = np.array([[np.nan if v is None else v for v in row] for row in run.classes["accuracy_matrix"]])
    values[np.triu_indices(len(names), 1)] = np.nan
    image = axis.imshow(values, vmin=0, vmax=100, cmap="viridis")
    for (row, column), value in np.ndenumerate(values):
        if not np.isnan(value):
            colour = "black" if value > 60 else "white"
            axis.text(column, row, f"{value:.0f}", ha="center", va="center", color=colour, fontsize=12)
    labels = [name.split("-", 1)[-1] for name in names]
    axis.set_xticks(range(len(names)), labels, rotation=20)
    axis.set_yticks(range(len(names)), labels)
    axis.set_xlabel("tested on")
    axis.set_ylabel("after learning")
    axis.set_title(f"{run.label}: {run.classes['accuracy']:.0f} % over all ten digits", fontsize=11)
    axis.spines[:].set_visible(False)
    return image
