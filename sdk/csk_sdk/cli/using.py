"""`evaluate`, `predict` and `export`: what a device's state is good for."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from csk_sdk.cli.accuracies import confusions_table, errors_table, matrix_table, summary_line, title
from csk_sdk.cli.given_files import files_at
from csk_sdk.cli.options import (
    HERE,
    AsJson,
    BundleDir,
    Precision,
    ProviderName,
    StateDir,
    TasksDir,
    TrustKey,
    WorkspaceDir,
    require_named,
)
from csk_sdk.cli.predictions import counted, described, show_predictions
from csk_sdk.cli.rendering import Screen, size
from csk_sdk.contract.sentences import said
from csk_sdk.data.files import open_files
from csk_sdk.data.source import Source, require_bright
from csk_sdk.errors import ConfigError, TaskError
from csk_sdk.formats.wording import rounded
from csk_sdk.learner import Learner
from csk_sdk.method.unknown import REJECT
from csk_sdk.network.evaluation import Evaluation
from csk_sdk.network.finite import NotFiniteError
from csk_sdk.workspace.folder import Workspace

_BATCH = 16


class Scenario(StrEnum):
    """Which accuracy matrix: task-incremental, class-incremental, or both."""

    task = "task"
    class_ = "class"
    both = "both"


def evaluate(
    scenario: Annotated[
        Scenario,
        typer.Option(help="task: task-incremental, among a task's classes. class: class-incremental, all."),
    ] = Scenario.task,
    workspace: WorkspaceDir = HERE,
    bundle: BundleDir = None,
    state: StateDir = None,
    tasks: TasksDir = None,
    trust: TrustKey = None,
    provider: ProviderName = None,
    as_json: AsJson = False,
) -> None:
    """Test what is known, and show the accuracy matrix.

    Tested are the images or signals of the learned tasks in the inbox, NAME/test/<class>/, and base/test/<class>/.
    Earlier rows are those that `train` and `evaluate` measured at the time. In place of accuracies, a multi-label
    bundle has mean average precisions (mAP), and a regression shares of variance explained (R2). The classes that are
    right least often are told with what they are taken for; --json has all. Without test images of the base, it is
    told what its classes are estimated to lose to those learned since (--scenario class).

    \b
    ACC         mean accuracy over the tasks now
    BWT         mean change since each task was learned; below 0 is forgetting
    forgetting  mean drop from each task's best

    \b
    Example:  csk-sdk evaluate --scenario class --json
    """
    screen = Screen(as_json)
    space = Workspace.open(workspace, bundle, state, tasks, trust).on(provider)
    require_named(tasks, space.inbox)
    learner = space.learner()
    with screen.bar("Testing"):
        testable, broken = space.testable(learner)
        scores = learner.score(testable)
        scores = replace(scores, notes=(*broken, *scores.notes))
    wanted = ["task", "class"] if scenario is Scenario.both else [scenario.value]
    found = {name: scores.evaluation(name) for name in wanted}
    for note in scores.notes:
        screen.warn(note)
    for position, evaluation in enumerate(found.values()):
        if position:
            screen.say()
        _show(screen, evaluation)
    if scenario is Scenario.both:
        screen.json({name: evaluation.to_json() for name, evaluation in found.items()})
    else:
        screen.json(found[scenario.value].to_json())


def _show(screen: Screen, evaluation: Evaluation) -> None:
    screen.say(title(evaluation), style="bold")
    screen.say()
    screen.show(matrix_table(evaluation, screen.width))
    screen.say()
    screen.show(summary_line(evaluation))
    errors = errors_table(evaluation)
    if errors is not None:
        screen.say()
        screen.show(errors)
    confusions = confusions_table(evaluation)
    if confusions is not None:
        screen.say()
        screen.show(confusions)
    if evaluation.base_lost is not None:
        screen.say(
            "The base has no test images here. By what is kept of its classes, they lose about "
            f"{rounded(max(evaluation.base_lost, 0.0), '.1f')} points to those learned since."
        )


def predict(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE...",
            help="PNG, JPEG, BMP, WebP, GIF or TIFF images, or WAV or npy signals; or their folders.",
        ),
    ],
    task: Annotated[
        str | None,
        typer.Option(
            "--task", metavar="NAME", help="Decide among this task's classes only (base: the model's own)."
        ),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="How many classes to name.")] = 3,
    reject: Annotated[
        float | None,
        typer.Option(
            "--reject",
            metavar="SHARE",
            help="Call unknown what is unlike all that is known, and so this share of known ones too; 0: nothing. "
            "[default: 0.05]",
            show_default=False,
        ),
    ] = None,
    workspace: WorkspaceDir = HERE,
    bundle: BundleDir = None,
    state: StateDir = None,
    trust: TrustKey = None,
    provider: ProviderName = None,
    as_json: AsJson = False,
) -> None:
    """Name the classes of images or signals, among all known.

    What is unlike everything known is "unknown", with the best guess behind it. A multi-label bundle names every class
    above 50 %, a regression tells its targets' values.

    \b
    Example:  csk-sdk predict photo.jpg --top 1 --reject 0.1
    """
    screen = Screen(as_json)
    space = Workspace.open(workspace, bundle, state, trust=trust).on(provider)
    files = [inner for path in files for inner in files_at(path)]
    source = open_files(files, bit_depth=space.bit_depth)
    found = _predictions(space.learner(), source, files, task, top, reject)
    screen.json(found)
    show_predictions(screen, found)
    try:
        require_bright(source)
    except TaskError as error:
        # What is seen may be that dark, at night: so there is an answer, and the question that training asks.
        screen.warn(str(error))


def _predictions(
    learner: Learner, source: Source, paths: list[Path], task: str | None, top: int, reject: float | None
) -> list[dict[str, Any]]:
    fit = learner.bundle.preprocessing.to_size
    found: list[dict[str, Any]] = []
    loss = learner.bundle.manifest.loss
    for start in range(0, len(paths), _BATCH):
        batch = range(start, min(start + _BATCH, len(paths)))
        # Fitted here, where a file's name is known, so that an error names it.
        fitted = [fit(source.read(index), source.name(index)) for index in batch]
        try:
            prediction = learner.predict(fitted, task, reject)
        except NotFiniteError as error:
            raise error.named(source.name(batch[error.index])) from None
        found += described(prediction, [str(paths[index]) for index in batch], top, loss)
    return found


def export(
    out: Annotated[Path, typer.Option("--out", metavar="MODEL", help="The ONNX file to write.")],
    task: Annotated[
        str | None,
        typer.Option("--task", metavar="NAME", help="Only this task's classes (base: the model's own)."),
    ] = None,
    with_rejection: Annotated[
        bool,
        typer.Option(
            "--with-rejection",
            help="Two more outputs: whether an image is known, and its distance from what is.",
        ),
    ] = False,
    reject: Annotated[
        float | None,
        typer.Option(
            "--reject",
            metavar="SHARE",
            help=f"With --with-rejection: the share of known ones that is rejected. [default: {REJECT:g}]",
            show_default=False,
        ),
    ] = None,
    precision: Annotated[
        Precision,
        typer.Option("--precision", help="int8: quantised as the model was that the bundle was built from."),
    ] = Precision.exact,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace MODEL where it exists.")] = False,
    workspace: WorkspaceDir = HERE,
    bundle: BundleDir = None,
    state: StateDir = None,
    trust: TrustKey = None,
) -> None:
    """Write what is known as an ordinary ONNX model.

    Its input is the source model's; its class names are in the metadata under "classes". Where class statistics are
    kept, scores are those of a discriminant over all classes; --task base has those of the source model.

    \b
    Example:  csk-sdk export --out model.onnx
    """
    screen = Screen()
    if reject is not None and not with_rejection:
        raise ConfigError("--reject says what --with-rejection rejects: give both, or leave --reject out.")
    if out.exists() and not overwrite:
        raise ConfigError(f"{out} exists already. Choose another --out, or pass --overwrite to replace it.")
    learner = Workspace.open(workspace, bundle, state, trust=trust).learner()
    classes = len(learner.head(task).classes)
    share = REJECT if reject is None else reject
    learner.export(out, task, share if with_rejection else None, precision.value)
    screen.say(
        f"Wrote {out}: {counted(classes, learner.bundle.manifest)}, generation {learner.generation.number}, "
        f"{size(out.stat().st_size)}."
    )
    if learner.domains:
        screen.warn(said("export_domains", domains=", ".join(learner.domains)))
