"""`train`: learning tasks of the inbox."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import typer

from csk_sdk.cli.accuracies import expected_table, present_table
from csk_sdk.cli.guard import Interrupted
from csk_sdk.cli.learning_view import LearningView, learned
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
from csk_sdk.cli.predictions import counted
from csk_sdk.cli.rendering import Screen
from csk_sdk.cli.setting_options import given_settings, setting
from csk_sdk.cli.size_options import memory_size
from csk_sdk.data.tasks import Task
from csk_sdk.errors import ContradictionError, CskError
from csk_sdk.formats.wording import plural
from csk_sdk.learner import Learner
from csk_sdk.learning.few_shot import ONE_CLASS
from csk_sdk.learning.life import LearnReport
from csk_sdk.learning.stopping import EPOCHS, PLATEAU
from csk_sdk.network.evaluation import Evaluation
from csk_sdk.workspace.folder import Workspace


class Backend(StrEnum):
    """What computes a training step; csk_sdk.contract.manifest.BACKENDS, or the bundle's first."""

    auto = "auto"
    portable = "portable"
    ort_training = "ort-training"


def train(
    context: typer.Context,
    task: Annotated[
        str, typer.Option("--task", metavar="next|all|NAME", help="Which task of the inbox to learn.")
    ] = "next",
    epochs: Annotated[int | None, setting("epochs")] = None,
    patience: Annotated[int | None, setting("patience", metavar="N")] = None,
    seconds: Annotated[float | None, setting("seconds")] = None,
    flops: Annotated[float | None, setting("flops")] = None,
    batch_size: Annotated[int | None, setting("batch_size")] = None,
    learning_rate: Annotated[float | None, setting("learning_rate")] = None,
    head_learning_rate: Annotated[float | None, setting("head_learning_rate")] = None,
    optimizer: Annotated[str | None, setting("optimizer")] = None,
    energy: Annotated[float | None, setting("energy")] = None,
    follow_drift: Annotated[bool | None, setting("follow_drift")] = None,
    channel_ratio: Annotated[float | None, setting("channel_ratio")] = None,
    label_smoothing: Annotated[float | None, setting("label_smoothing")] = None,
    class_statistics: Annotated[bool | None, setting("class_statistics")] = None,
    label_check: Annotated[bool | None, setting("label_check")] = None,
    max_forgetting: Annotated[float | None, setting("max_forgetting", metavar="POINTS")] = None,
    on_forgetting: Annotated[str | None, setting("on_forgetting")] = None,
    few_shot: Annotated[int | None, setting("few_shot", metavar="N")] = None,
    train: Annotated[str | None, setting("train")] = None,
    skip_broken: Annotated[bool | None, setting("skip_broken")] = None,
    seed: Annotated[int | None, setting("seed")] = None,
    threads: Annotated[int | None, setting("threads")] = None,
    time_limit: Annotated[float | None, setting("time_limit", metavar="SECONDS")] = None,
    spinning: Annotated[bool | None, setting("spinning")] = None,
    precision: Annotated[str | None, setting("precision")] = None,
    prefix_cache: Annotated[str | None, setting("prefix_cache")] = None,
    prefix_views: Annotated[int | None, setting("prefix_views")] = None,
    backend: Annotated[
        Backend, typer.Option(help="What computes a step; auto: the first that the bundle was built for.")
    ] = Backend.auto,
    memory_budget: Annotated[
        int | None, setting("memory_budget", metavar="SIZE", parser=memory_size, rule="a size such as 160MiB")
    ] = None,
    micro_batch: Annotated[int | None, setting("micro_batch")] = None,
    profile: Annotated[str | None, setting("profile")] = None,
    replace: Annotated[
        bool | None,
        typer.Option(
            "--replace/--add",
            help="Whether images of classes that were learned before replace what was learned, or add to it. Without "
            "either they add, and a task that contradicts what is known is not learned.",
        ),
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
    config = space.config.with_overrides(**given_settings(context))
    learner = space.learner(config, backend.value)
    learner.state.require_writable()
    count = 0
    while (chosen := _choose(space, learner, task)) is not None:
        if count:
            screen.say()
        _learn(screen, space, learner, chosen, not no_evaluate, replace)
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


def _learn(
    screen: Screen, space: Workspace, learner: Learner, task: Task, evaluate: bool, replace: bool | None
) -> None:
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
        report = _learned(screen, learner, task, replace)
    except KeyboardInterrupt:
        raise Interrupted(_after_interrupt(learner, task.name)) from None
    screen.say(learned(report))
    if report.stopped == PLATEAU:
        screen.say(f"Training stopped after epoch {report.epochs}: the loss did not fall any more.")
    elif report.stopped != EPOCHS:
        screen.say(f"Training stopped in epoch {report.epochs}: its budget of {report.stopped} was spent.")
    if report.heads_only_because == ONE_CLASS and learner.config.train == learner.bundle.manifest.trained:
        screen.say("Of one class alone there is no decision to train on: the backbone stays as it is.")
    if report.known:
        count = plural(len(report.known), "class was", "classes were")
        screen.say(f"{count} known before, and updated: {_some(report.known)}.")
    if report.replaced:
        screen.say(f"What was learned of {_some(report.replaced)} before counts no more.")
    if report.choice:
        screen.say(f"{report.choice[0].upper()}{report.choice[1:]}")
    for warning in report.warnings:
        screen.warn(warning)
    for one in report.skipped:
        screen.say(f"  left out: {one}")
    if not learner.config.class_statistics:
        screen.warn(
            f"no class statistics of {task.name} are kept: decisions over all classes now come from the tasks' own "
            "heads together, which is much less accurate. With --task they are as good as ever."
        )
    table = expected_table(report.expected)
    if table is not None:
        screen.say()
        screen.show(table)
    scores = _evaluate(screen, space, learner, "Testing") if evaluate else None
    if scores is not None:
        screen.say()
        screen.show(present_table(*scores))
    metric = learner.bundle.objective.metric
    screen.json({**report.to_json(), metric: _accuracy_json(scores)}, indent=None)


def _learned(screen: Screen, learner: Learner, task: Task, replace: bool | None) -> LearnReport:
    """Learn it; where it contradicts what is known, ask somebody who is there."""
    try:
        with LearningView(screen) as view:
            return learner.learn(task, on_progress=view, replace=replace)
    except ContradictionError as error:
        if not screen.can_ask:
            raise
        screen.say(str(error))
        answer = screen.ask(
            "Replace what is known, add to it, or leave it as it is?", ("replace", "add", "leave")
        )
        if answer == "leave":
            raise
    with LearningView(screen) as view:
        return learner.learn(task, on_progress=view, replace=answer == "replace")


def _some(names: tuple[str, ...], most: int = 5) -> str:
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


def _evaluate(
    screen: Screen, space: Workspace, learner: Learner, label: str
) -> tuple[Evaluation, Evaluation] | None:
    """Both scenarios; None without test images. A failure is a warning: what was learned stays learned."""
    try:
        testable, broken = space.testable(learner)
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
    for note in (*broken, *scores.notes):
        screen.warn(note)
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
