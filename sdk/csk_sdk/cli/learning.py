"""`train`: learning tasks of the inbox."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import typer

from csk_sdk.cli.accuracies import present_table
from csk_sdk.cli.guard import Interrupted
from csk_sdk.cli.options import (
    HERE,
    AsJson,
    BundleDir,
    StateDir,
    TasksDir,
    TrustKey,
    WorkspaceDir,
    require_named,
)
from csk_sdk.cli.rendering import LearningView, Screen, counted, learned, plural
from csk_sdk.cli.size_options import parse_size
from csk_sdk.data.tasks import Task
from csk_sdk.errors import ConfigError, CskError
from csk_sdk.learner import Learner
from csk_sdk.learning.stopping import EPOCHS, PLATEAU
from csk_sdk.network.evaluation import Evaluation
from csk_sdk.workspace.folder import Workspace


class Backend(StrEnum):
    """What computes a training step; csk_sdk.contract.manifest.BACKENDS, or the bundle's first."""

    auto = "auto"
    portable = "portable"
    ort_training = "ort-training"


class OnForgetting(StrEnum):
    """What becomes of a task that costs older ones too much; csk_sdk.config.ON_FORGETTING."""

    heads_only = "heads-only"
    refuse = "refuse"


class MemoryProfile(StrEnum):
    """What is traded for memory; csk_sdk.network.profiles.PROFILES."""

    fast = "fast"
    small = "small"


class Optimizer(StrEnum):
    """How a gradient becomes a step; csk_sdk.config.OPTIMIZERS."""

    sgd = "sgd"
    adamw = "adamw"


class Precision(StrEnum):
    """What the graphs run in: csk_sdk.contract.manifest.PRECISIONS, or what was measured to be best on this device."""

    auto = "auto"
    exact = "exact"
    int8 = "int8"


class PrefixCache(StrEnum):
    """Where features of the frozen first layers are kept: csk_sdk.config.PREFIX_CACHES."""

    off = "off"
    memory = "memory"
    disk = "disk"
    auto = "auto"


def train(
    task: Annotated[
        str, typer.Option("--task", metavar="next|all|NAME", help="Which task of the inbox to learn.")
    ] = "next",
    epochs: Annotated[int | None, typer.Option(help="Passes over the task's data, at most.")] = None,
    patience: Annotated[
        int | None,
        typer.Option(metavar="N", help="Stop when the loss has not fallen by 1 % in N epochs; 0 never does."),
    ] = None,
    seconds: Annotated[
        float | None, typer.Option(help="Stop after so many seconds, and keep what was learned.")
    ] = None,
    flops: Annotated[
        float | None, typer.Option(help="Stop after so many floating-point operations, such as 2e12.")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Pictures or signals per step; the bundle's own by default.")
    ] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Peak learning rate of the centers.")] = None,
    head_learning_rate: Annotated[float | None, typer.Option(help="Peak learning rate of the head.")] = None,
    optimizer: Annotated[Optimizer | None, typer.Option(help="How a gradient becomes a step.")] = None,
    energy: Annotated[
        float | None, typer.Option(help="Share of the old data's variance that is protected, 0 to 1.")
    ] = None,
    follow_drift: Annotated[
        bool | None,
        typer.Option(
            "--follow-drift/--no-follow-drift",
            help="Carry old heads over to the features as they drift; by default unless --energy is 0.",
        ),
    ] = None,
    channel_ratio: Annotated[
        float | None,
        typer.Option(help="Share of each site's channels to train; the bundle's own by default."),
    ] = None,
    label_smoothing: Annotated[
        float | None,
        typer.Option(help="Share of each label that is spread over all classes (cross-entropy only)."),
    ] = None,
    class_statistics: Annotated[
        bool | None,
        typer.Option(
            "--class-statistics/--no-class-statistics",
            help="Keep sums over the features of each class (default), or nothing of the kind.",
        ),
    ] = None,
    label_check: Annotated[
        bool | None,
        typer.Option(
            "--label-check/--no-label-check",
            help="Refuse a task whose labels say nothing about its pictures (default), or learn it all the same.",
        ),
    ] = None,
    max_forgetting: Annotated[
        float | None,
        typer.Option(
            metavar="POINTS", help="Accuracy that an older task may lose, estimated without its pictures."
        ),
    ] = None,
    on_forgetting: Annotated[
        OnForgetting | None,
        typer.Option(help="A task that costs more: learn its heads only (default), or refuse it."),
    ] = None,
    few_shot: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="With fewer pictures or signals a class, learn heads only; 0 trains always."
        ),
    ] = None,
    skip_broken: Annotated[
        bool | None,
        typer.Option(
            "--skip-broken/--no-skip-broken",
            help="Leave out pictures or signals that cannot be read, and say which.",
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Order and augmentation of the data.")] = None,
    threads: Annotated[int | None, typer.Option(help="Compute threads; 0 is one per core.")] = None,
    time_limit: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="End a step or any other run of a graph that takes longer."),
    ] = None,
    spinning: Annotated[
        bool | None,
        typer.Option(
            help="Threads wait for work without sleeping: faster steps, where no other program needs the cores."
        ),
    ] = None,
    precision: Annotated[
        Precision | None,
        typer.Option(
            help="What the graphs run in; auto: what doctor found best here, else the bundle's own."
        ),
    ] = None,
    prefix_cache: Annotated[
        PrefixCache | None,
        typer.Option(help="Where features of the frozen first layers are kept; auto: memory, if they fit."),
    ] = None,
    prefix_views: Annotated[
        int | None, typer.Option(help="In how many views, mirrored and moved, of each picture.")
    ] = None,
    backend: Annotated[
        Backend, typer.Option(help="What computes a step; auto: the first that the bundle was built for.")
    ] = Backend.auto,
    memory_budget: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="What the whole process may have resident, such as 160MiB; profile and micro-batches are chosen.",
        ),
    ] = None,
    micro_batch: Annotated[
        int | None, typer.Option(help="Pictures of a batch in memory at once; all of them by default.")
    ] = None,
    profile: Annotated[
        MemoryProfile | None, typer.Option(help="small: less memory, slower steps; fast by default.")
    ] = None,
    no_evaluate: Annotated[bool, typer.Option("--no-evaluate", help="Do not test after learning.")] = False,
    workspace: WorkspaceDir = HERE,
    bundle: BundleDir = None,
    state: StateDir = None,
    tasks: TasksDir = None,
    trust: TrustKey = None,
    as_json: AsJson = False,
) -> None:
    """Learn the next task of the inbox, or all of them.

    Each learned task becomes a new generation. An interrupted run goes on where it stopped when the same
    command is given again. Settings not given here come from the table [training] of csk.toml.

    \b
    Example:  csk-sdk train --task next --epochs 4
    """
    screen = Screen(as_json)
    space = Workspace.open(workspace, bundle, state, tasks, trust)
    require_named(tasks, space.inbox)
    try:
        config = space.config.with_overrides(
            epochs=epochs,
            patience=patience,
            seconds=seconds,
            flops=flops,
            batch_size=batch_size,
            learning_rate=learning_rate,
            head_learning_rate=head_learning_rate,
            optimizer=optimizer.value if optimizer else None,
            energy=energy,
            follow_drift=follow_drift,
            channel_ratio=channel_ratio,
            label_smoothing=label_smoothing,
            class_statistics=class_statistics,
            label_check=label_check,
            max_forgetting=max_forgetting,
            on_forgetting=on_forgetting.value if on_forgetting else None,
            few_shot=few_shot,
            skip_broken=skip_broken,
            seed=seed,
            threads=threads,
            time_limit=time_limit,
            spinning=spinning,
            precision=precision.value if precision else None,
            prefix_cache=prefix_cache.value if prefix_cache else None,
            prefix_views=prefix_views,
            memory_budget=parse_size(memory_budget, "--memory-budget") if memory_budget else None,
            micro_batch=micro_batch,
            profile=profile.value if profile else None,
        )
    except ConfigError as error:
        raise typer.BadParameter(str(error)) from None
    learner = space.learner(config, backend.value)
    count = 0
    while (chosen := _choose(space, learner, task)) is not None:
        if count:
            screen.say()
        _learn(screen, space, learner, chosen, evaluate=not no_evaluate)
        count += 1
        if task != "all":
            return
    if not count:
        _nothing_to_learn(screen, space, learner)


def _choose(space: Workspace, learner: Learner, wanted: str) -> Task | None:
    if wanted in ("next", "all"):
        return next(space.waiting(learner), None)
    return space.inbox.open(wanted)


def _nothing_to_learn(screen: Screen, space: Workspace, learner: Learner) -> None:
    learned = [task.name for task in learner.tasks]
    if learned:
        text = f"Nothing to learn: all {plural(len(learned), 'task')} in {space.tasks} are learned."
    else:
        text = f"Nothing to learn: there is no task to learn in {space.tasks}."
    screen.say(text)
    screen.json({"task": None, "learned": learned, "message": text}, indent=None)


def _learn(screen: Screen, space: Workspace, learner: Learner, task: Task, evaluate: bool) -> None:
    task.require_trainable()
    learner.require_new(task.name)
    generation = learner.generation.number
    if evaluate and generation == 0 and 0 not in learner.state.load_scores():
        # So that what later tasks cost the base classes can be seen.
        _evaluate(screen, space, learner, "Testing the base model")
    assert task.train is not None
    classes = counted(len(task.classes), learner.bundle.manifest)
    count = plural(len(task.train), task.train.images.noun)
    screen.say(f"Learning {task.name}: {classes}, {count}", style="bold")
    try:
        with LearningView(screen) as view:
            report = learner.learn(task, on_progress=view)
    except KeyboardInterrupt:
        raise Interrupted(_after_interrupt(learner, task.name)) from None
    screen.say(learned(report))
    if report.stopped == PLATEAU:
        screen.say(f"Training stopped after epoch {report.epochs}: the loss did not fall any more.")
    elif report.stopped != EPOCHS:
        screen.say(f"Training stopped in epoch {report.epochs}: its budget of {report.stopped} was spent.")
    if report.known:
        count = plural(len(report.known), "class was", "classes were")
        screen.say(f"{count} known before, and updated: {_some(report.known)}.")
    for warning in report.warnings:
        screen.warn(warning)
    for one in report.skipped:
        screen.say(f"  left out: {one}")
    if not learner.config.class_statistics:
        screen.warn(
            f"no class statistics of {task.name} are kept: decisions over all classes now come from the tasks' own "
            "heads together, which is much less accurate. With --task they are as good as ever."
        )
    scores = _evaluate(screen, space, learner, "Testing") if evaluate else None
    if scores is not None:
        screen.say()
        screen.show(present_table(*scores))
    metric = learner.bundle.objective.metric
    screen.json({**report.to_json(), metric: _accuracy_json(scores)}, indent=None)


def _some(names: tuple[str, ...], most: int = 5) -> str:
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


def _evaluate(
    screen: Screen, space: Workspace, learner: Learner, label: str
) -> tuple[Evaluation, Evaluation] | None:
    """Both scenarios; None without test pictures. A failure is a warning: what was learned stays learned."""
    try:
        testable = space.testable(learner)
        if not testable:
            if learner.tasks:  # not already in front of the first task
                screen.say(
                    f"Nothing to test with in {space.tasks}: with NAME/test/<class>/ there, accuracies would be shown."
                )
            return None
        with screen.bar(label):
            scores = learner.score(testable)
    except CskError as error:
        screen.warn(f"not tested. {error}")
        return None
    return scores.evaluation("task"), scores.evaluation("class")


def _accuracy_json(scores: tuple[Evaluation, Evaluation] | None) -> dict[str, Any] | None:
    if scores is None:
        return None
    return {
        evaluation.scenario: {
            name: value
            for name, value in zip(
                evaluation.tasks, evaluation.to_json()["accuracy_matrix"][-1], strict=False
            )
            if value is not None
        }
        for evaluation in scores
    }


def _after_interrupt(learner: Learner, task: str) -> str:
    saved = learner.state.load_progress()
    if saved is not None and saved[1].get("task") == task:
        return "Interrupted; run the same command to go on where it stopped."
    return (
        "Interrupted before the first checkpoint: nothing was learned. Run the same command to start again."
    )
