"""`evaluate`, `predict` and `export`: what a device's state is good for."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from csk_sdk.cli.accuracies import TITLES, matrix_table, summary_line
from csk_sdk.cli.options import HERE, AsJson, BundleDir, StateDir, TasksDir, TrustKey, WorkspaceDir
from csk_sdk.cli.rendering import Screen, plural, size, table
from csk_sdk.data.images import FileImages
from csk_sdk.errors import ConfigError
from csk_sdk.evaluation import Evaluation
from csk_sdk.learner import Learner
from csk_sdk.workspace import Workspace

_BATCH = 16
_ORDINALS = {2: "2nd", 3: "3rd"}


class Scenario(StrEnum):
    """Which accuracy matrix: the task is known, one decision over all classes, or both."""

    task = "task"
    class_ = "class"
    both = "both"


def evaluate(
    scenario: Annotated[
        Scenario, typer.Option(help="task: each picture's task is known. class: decide among all classes.")
    ] = Scenario.task,
    workspace: WorkspaceDir = HERE,
    bundle: BundleDir = None,
    state: StateDir = None,
    tasks: TasksDir = None,
    trust: TrustKey = None,
    as_json: AsJson = False,
) -> None:
    """Test what is known, and show the accuracy matrix.

    The test pictures are those of the learned tasks in the inbox, NAME/test/<class>/, and base/test/<class>/.
    Earlier rows are those that `train` and `evaluate` measured at the time.

    \b
    ACC         mean accuracy over the tasks now
    BWT         mean change since each task was learned; below 0 is forgetting
    forgetting  mean drop from each task's best

    \b
    Example:  csk-sdk evaluate --scenario class --json
    """
    screen = Screen(as_json)
    space = Workspace.open(workspace, bundle, state, tasks, trust)
    learner = space.learner()
    with screen.bar("Testing"):
        scores = learner.score(space.testable(learner))
    wanted = ["task", "class"] if scenario is Scenario.both else [scenario.value]
    found = {name: scores.evaluation(name) for name in wanted}
    for position, evaluation in enumerate(found.values()):
        if position:
            screen.say()
        _show(screen, evaluation)
    if scenario is Scenario.both:
        screen.json({name: evaluation.to_json() for name, evaluation in found.items()})
    else:
        screen.json(found[scenario.value].to_json())


def _show(screen: Screen, evaluation: Evaluation) -> None:
    screen.say(TITLES[evaluation.scenario], style="bold")
    screen.say()
    screen.show(matrix_table(evaluation, screen.width))
    screen.say()
    screen.show(summary_line(evaluation))


def predict(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="PNG, JPEG, BMP or WebP files.")],
    task: Annotated[
        str | None,
        typer.Option(
            "--task", metavar="NAME", help="Decide among this task's classes only (base: the model's own)."
        ),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="How many classes to name.")] = 3,
    workspace: WorkspaceDir = HERE,
    bundle: BundleDir = None,
    state: StateDir = None,
    trust: TrustKey = None,
    as_json: AsJson = False,
) -> None:
    """Name what is in pictures, among all known classes.

    \b
    Example:  csk-sdk predict photo.jpg --top 1
    """
    screen = Screen(as_json)
    learner = Workspace.open(workspace, bundle, state, trust=trust).learner()
    found = _predictions(learner, images, task, top)
    screen.json(found)
    made = table("Picture", "Class", "%", left=2)
    for place in range(2, len(found[0]["top"]) + 1):
        made.add_column(_ORDINALS.get(place, f"{place}th"))
        made.add_column("%", justify="right", no_wrap=True)
    for one in found:
        cells = [(choice["class"], f"{100 * choice['probability']:.1f}") for choice in one["top"]]
        made.add_row(one["image"], *(cell for pair in cells for cell in pair))
    screen.show(made)


def _predictions(learner: Learner, paths: list[Path], task: str | None, top: int) -> list[dict[str, Any]]:
    pictures = FileImages(paths)
    found = []
    for start in range(0, len(paths), _BATCH):
        batch = range(start, min(start + _BATCH, len(paths)))
        prediction = learner.predict([pictures.read(index) for index in batch], task)
        for index, probabilities in zip(batch, prediction.probabilities, strict=True):
            best = np.argsort(-probabilities, kind="stable")[:top]
            choices = [
                {"class": prediction.classes[i], "probability": round(float(probabilities[i]), 6)}
                for i in best
            ]
            found.append({"image": str(paths[index]), "label": choices[0]["class"], "top": choices})
    return found


def export(
    out: Annotated[Path, typer.Option("--out", metavar="MODEL", help="The ONNX file to write.")],
    task: Annotated[
        str | None,
        typer.Option("--task", metavar="NAME", help="Only this task's classes (base: the model's own)."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace MODEL where it exists.")] = False,
    workspace: WorkspaceDir = HERE,
    bundle: BundleDir = None,
    state: StateDir = None,
    trust: TrustKey = None,
) -> None:
    """Write what is known as an ordinary ONNX model.

    Its input is the source model's; its class names are in the metadata under "classes".

    \b
    Example:  csk-sdk export --out model.onnx
    """
    screen = Screen()
    if out.exists() and not overwrite:
        raise ConfigError(f"{out} exists already. Choose another --out, or pass --overwrite to replace it.")
    learner = Workspace.open(workspace, bundle, state, trust=trust).learner()
    classes = len(learner.head(task).classes)
    learner.export(out, task)
    screen.say(
        f"Wrote {out}: {plural(classes, 'class', 'classes')}, generation {learner.generation.number}, "
        f"{size(out.stat().st_size)}."
    )
