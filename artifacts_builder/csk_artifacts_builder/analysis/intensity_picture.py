"""The image of an analysis: one heat map for each site, the deeper the further right, and bars of the centers."""

from __future__ import annotations

from math import ceil
from pathlib import Path
from typing import Any

import numpy as np

from csk_artifacts_builder.analysis.analyze import Analysis, SiteAnalysis
from csk_sdk.errors import ConfigError, StorageError
from csk_sdk.formats.wording import plural

FORMATS = (".png", ".svg", ".pdf")
# Light to dark in one order for every kind of colour vision (ColorBrewer), so that it survives printing.
_COLOURS = "YlGnBu"
_ACROSS = 9
_INK, _QUIET, _MARK = "#22262b", "#6b7280", "#d9480f"


def require_drawable(path: Path) -> None:
    """Raise ConfigError where matplotlib is not installed, or the file's suffix is no image format."""
    if path.suffix.lower() not in FORMATS:
        raise ConfigError(f"--picture {path} must end in .png, .svg or .pdf.")
    try:
        import matplotlib
    except ImportError:
        raise ConfigError("--picture draws with matplotlib: pip install 'csk-sdk[demo]'.") from None
    matplotlib.use("Agg")


def draw(analysis: Analysis, path: Path) -> None:
    """Draw kernel maps, each relative to its site's strongest position, and below them the centers' intensities.

    Raises ConfigError as `require_drawable` does, StorageError where the file cannot be written.
    """
    require_drawable(path)
    from matplotlib import pyplot

    sites = analysis.sites
    across = min(len(sites), _ACROSS)
    rows = ceil(len(sites) / across)
    width = max(6.4, 1.3 * across + 1.2)
    figure: Any = pyplot.figure(figsize=(width, 1.75 * rows + 3.6), layout="constrained", facecolor="white")
    figure.get_layout_engine().set(w_pad=0.08, h_pad=0.08)
    above, below = figure.subfigures(2, 1, height_ratios=[1.75 * rows + 0.9, 2.7])
    classes = plural(len(analysis.classes), "new class", "new classes")
    title = f"{analysis.model}, {classes}, {plural(analysis.images, 'image')}"
    _maps(above, sites, rows, across, title)
    _bars(below.subplots(), sites)
    try:
        figure.savefig(path, dpi=160)
    except OSError as error:
        raise StorageError(f"The image could not be written to {path} ({error.strerror}).") from None
    finally:
        pyplot.close(figure)


def _maps(figure: Any, sites: tuple[SiteAnalysis, ...], rows: int, across: int, title: str) -> None:
    axes = figure.subplots(rows, across, squeeze=False).ravel()
    image = None
    for axis, one in zip(axes, sites, strict=False):
        image = _heat_map(axis, one)
    for axis in axes[len(sites) :]:
        axis.axis("off")
    figure.suptitle(
        "Knowledge intensity of every kernel position, relative to the strongest of its site\n"
        f"{title}; the center is framed",
        fontsize=10.5,
        color=_INK,
    )
    bar = figure.colorbar(image, ax=list(axes), shrink=0.8, aspect=18, pad=0.01)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=8, colors=_QUIET, length=0)


def _heat_map(axis: Any, one: SiteAnalysis) -> Any:
    values = one.intensity.reshape(-1, one.intensity.shape[-1])
    relative = values / max(float(values.max()), 1e-300)
    image = axis.imshow(relative, vmin=0, vmax=1, cmap=_COLOURS)
    if values.size <= 9:
        for (row, column), value in np.ndenumerate(relative):
            ink = "white" if value > 0.6 else _INK
            axis.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=7, color=ink)
    middle = np.unravel_index(int(np.ravel_multi_index(one.center, one.intensity.shape)), values.shape)
    axis.add_patch(_frame(int(middle[0]), int(middle[1])))
    axis.set_xticks([])
    axis.set_yticks([])
    axis.spines[:].set_visible(False)
    axis.set_title(one.site.name, fontsize=9, color=_INK, pad=4)
    rank = "center first" if one.center_rank == 1 else f"center {one.center_rank} of {values.size}"
    stride = f", stride {max(one.site.stride)}" if max(one.site.stride) > 1 else ""
    axis.set_xlabel(f"{rank}{stride}", fontsize=7.5, color=_QUIET, labelpad=3)
    return image


def _frame(row: int, column: int) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor=_MARK, linewidth=1.6)


def _bars(axis: Any, sites: tuple[SiteAnalysis, ...]) -> None:
    values = [max(float(one.intensity[one.center]), 1e-300) for one in sites]
    places = np.arange(len(sites))
    axis.vlines(places, min(values) / 2, values, color="#c9ced6", linewidth=1.2)
    axis.plot(places, values, "o", color=_MARK, markersize=7)
    axis.set_yscale("log")
    axis.set_ylim(min(values) / 2, max(values) * 2)
    axis.set_xlim(-0.6, len(sites) - 0.4)
    rotation = 0 if len(sites) <= _ACROSS else 90
    axis.set_xticks(places, [one.site.name for one in sites], rotation=rotation, fontsize=8, color=_INK)
    axis.set_ylabel("center's intensity", fontsize=8.5, color=_QUIET)
    axis.set_xlabel("deeper in the network  →", fontsize=8.5, color=_QUIET)
    axis.tick_params(axis="y", labelsize=8, colors=_QUIET)
    axis.tick_params(axis="both", which="both", length=0)
    axis.grid(axis="y", color="#e5e7eb", linewidth=0.8)
    axis.set_axisbelow(True)
    axis.spines[:].set_visible(False)
