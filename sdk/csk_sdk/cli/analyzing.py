"""`analyze`: which kernel positions would learn the user's own data best."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from rich.text import Text

from csk_sdk.cli.building import require_builder
from csk_sdk.cli.class_file import described
from csk_sdk.cli.model_options import CenterKind
from csk_sdk.cli.options import AsJson, BitDepth, InputSize, OutputName
from csk_sdk.cli.rendering import Screen, by
from csk_sdk.cli.size_options import parse_input_size
from csk_sdk.formats.wording import plural, rounded

if TYPE_CHECKING:
    from csk_artifacts_builder.analysis.analyze import Analysis, SiteAnalysis

# A rank correlation below this is called none.
_CLEAR = 0.3


def analyze(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A trained ONNX image classifier.")],
    data: Annotated[
        Path,
        typer.Argument(metavar="DATA", help="Images of new classes: a task folder (train/<class>/*) or npz."),
    ],
    classes: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="As for build-artifacts; here only its normalisation matters."),
    ] = None,
    mean: Annotated[
        str | None, typer.Option(metavar="a,b,c", help="Subtracted from pixels scaled to 0..1.")
    ] = None,
    std: Annotated[str | None, typer.Option(metavar="a,b,c", help="They are divided by this.")] = None,
    input_size: InputSize = None,
    output: OutputName = None,
    bit_depth: BitDepth = None,
    sites: Annotated[
        CenterKind, typer.Option(help="Which convolutions: larger than 1x1 (center), 1x1, or all.")
    ] = CenterKind.CENTER,
    images: Annotated[int, typer.Option(min=1, help="Measure on at most this many images.")] = 512,
    batch_size: Annotated[int, typer.Option(min=1, help="Images per gradient.")] = 16,
    by_training: Annotated[
        int, typer.Option(min=0, metavar="STEPS", help="Also train each position alone, for STEPS steps.")
    ] = 0,
    picture: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw the table as heat maps: png, svg or pdf.")
    ] = None,
    threads: Annotated[int, typer.Option(min=0, help="Compute threads; 0 is one per core.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Measure which kernel positions would learn new data best.

    The knowledge intensity of a kernel position is the squared norm of the new task's gradient on it, with a head
    fitted to the task: what one step on this position alone would gain, per unit of the learning rate. The method
    trains centers by default; the table shows whether that is right for this model and this data.

    \b
    Example:  csk-sdk analyze model.onnx tasks/01-birds --classes classes.json --picture intensity.png
    """
    require_builder("analyze")
    from csk_artifacts_builder.analysis.analyze import AnalysisOptions, analyze_model
    from csk_artifacts_builder.analysis.intensity_picture import draw, require_drawable
    from csk_artifacts_builder.options import BuildOptions

    screen = Screen(as_json)
    names, chosen_mean, chosen_std = described(screen, classes, mean, std)
    options = AnalysisOptions(
        BuildOptions(
            classes=names,
            mean=chosen_mean,
            std=chosen_std,
            input_size=parse_input_size(input_size),
            output=output,
            sites=sites.value,
            bit_depth=bit_depth,
        ),
        images=images,
        batch_size=batch_size,
        train_steps=by_training,
        threads=threads,
    )
    if picture is not None:
        require_drawable(picture)
    with screen.bar("Measuring gradients") as update:
        found = analyze_model(model, data, options, on_progress=update)
    if picture is not None:
        draw(found, picture)
    _show(screen, found)
    if picture is not None:
        screen.say()
        screen.say(f"Image    {picture}")
    screen.json(found.to_json())


def _show(screen: Screen, found: Analysis) -> None:
    screen.say(
        f"{found.model}, {plural(len(found.classes), 'new class', 'new classes')} of {found.data}, "
        f"{plural(found.images, 'image')}",
        style="bold",
    )
    screen.say()
    screen.say("Knowledge intensity of kernel positions, relative to the strongest of each site")
    screen.say()
    columns = ["Site", "kernel", "positions", "center's\nrank", "center /\nmean", "center's\nintensity"]
    if found.train_steps:
        columns += ["trained alone:\nloss decrease\nx 1000", "center's\nrank", "on other\npictures"]
    screen.show_rows(columns, [_row(one) for one in found.sites], spaced=True)
    screen.say()
    for line in verdict(found):
        screen.say(line)


def _row(one: SiteAnalysis) -> list[str | Text]:
    from csk_artifacts_builder.analysis.analyze import center_rank

    size = one.intensity.size
    row: list[str | Text] = [
        one.site.name,
        by(one.site.shape),
        _grid(one.intensity / max(float(one.intensity.max()), 1e-300), one.center, "{:.2f}"),
        f"{one.center_rank} of {size}",
        f"{one.center_ratio:.2f}",
        f"{one.intensity[one.center]:.2e}",
    ]
    if one.learned is not None and one.held_out is not None:
        row += [_grid(1000 * one.learned, one.center, "{:.2f}")]
        row += [f"{center_rank(grid)} of {size}" for grid in (one.learned, one.held_out)]
    return row


def _grid(values: NDArray[np.float64], center: tuple[int, ...], form: str) -> Text:
    """A kernel's positions as lines of numbers, the center in bold."""
    rows = values.reshape(-1, values.shape[-1])
    width = max(len(form.format(value)) for value in values.ravel())
    middle = int(np.ravel_multi_index(center, values.shape))
    text = Text()
    for number, value in enumerate(rows.ravel()):
        text.append(form.format(value).rjust(width), "bold cyan" if number == middle else "")
        last = number == values.size - 1
        text.append("" if last else "\n" if (number + 1) % rows.shape[1] == 0 else " ")
    return text


def verdict(found: Analysis) -> list[str]:
    """Whether the premise of the method holds, in plain sentences."""
    lines = []
    compared = found.with_neighbours
    if compared:
        mean = float(np.mean([one.center_ratio for one in compared]))
        lines.append(
            f"The center is the strongest position at {found.center_first} of {plural(len(compared), 'site')}; "
            f"on average it has {mean:.2f} times the intensity of a position of its kernel."
        )
    lines += _trend("The intensity of the center", found.depth_correlation)
    lines += _trend("The lead of the center over its neighbours", found.ratio_depth_correlation)
    if found.agreement is not None:
        first = sum(one.learned is not None and _is_first(one.learned) for one in compared)
        unseen = sum(one.held_out is not None and _is_first(one.held_out) for one in compared)
        lines.append(
            f"Trained alone for {plural(found.train_steps, 'step')}, the center gains most at {first} of "
            f"{plural(len(compared), 'site')}, on images not trained on at {unseen}; gains and intensities of all "
            f"positions have rank correlation {rounded(found.agreement, '+.2f')}."
        )
    return lines


def _is_first(values: Any) -> bool:
    from csk_artifacts_builder.analysis.analyze import center_rank

    return center_rank(values) == 1


def _trend(thing: str, correlation: float | None) -> list[str]:
    if correlation is None:
        return []
    if abs(correlation) < _CLEAR:
        return [f"{thing} hardly changes with depth: rank correlation {rounded(correlation, '+.2f')}."]
    which = "grows" if correlation > 0 else "falls"
    return [f"{thing} {which} with depth: rank correlation {rounded(correlation, '+.2f')}."]
