"""What a report tells, read from a state: tasks, accuracies, how full the network is, time and memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from csk_sdk.learner import Learner
from csk_sdk.network.evaluation import Evaluation, recorded_scores
from csk_sdk.network.status import Status
from csk_sdk.network.taught import images_of_task
from csk_sdk.state import LearnedTask

SCENARIO_NAMES = {"task": "task-incremental", "class": "class-incremental"}


@dataclass(frozen=True)
class History:
    """A device's life up to its current generation.

    `fullness` is, by site, the share of the selected channels' directions that were kept for older knowledge when each
    task was learned, None for tasks of an older csk-sdk. `created` is when each task was committed, None where its
    record is lost. `evaluations` is empty where nothing was ever tested. `status` is how it is doing. `images` are how
    many the classes of each task were learned from, None where some were forgotten and nothing says how many are left.
    """

    model: str
    generation: int
    classes: tuple[str, ...]
    base_classes: tuple[str, ...]
    tasks: tuple[LearnedTask, ...]
    created: tuple[str | None, ...]
    evaluations: Mapping[str, Evaluation]
    fullness: Mapping[str, tuple[float | None, ...]]
    metric: str
    noun: str
    status: Status
    images: tuple[int | None, ...]

    @property
    def seconds(self) -> float:
        """Wall time of all tasks together."""
        return sum(task.seconds for task in self.tasks)

    @property
    def peak_bytes(self) -> int:
        """The largest peak memory of any task."""
        return max((task.peak_rss_bytes for task in self.tasks), default=0)


def read_history(learner: Learner) -> History:
    """The life of a learner's state; reads records and scores, and measures nothing.

    Raises StateError where the state is damaged.
    """
    generation, manifest = learner.generation, learner.bundle.manifest
    scores = recorded_scores(generation, learner.state, manifest.classes, learner.bundle.objective.metric)
    records = learner.state.history()
    dates = {record.task: record.created for record in reversed(records)}
    return History(
        model=manifest.model,
        generation=generation.number,
        classes=learner.classes,
        base_classes=tuple(manifest.classes),
        tasks=generation.tasks,
        created=tuple(dates.get(task.name) for task in generation.tasks),
        evaluations={} if scores is None else {name: scores.evaluation(name) for name in SCENARIO_NAMES},
        fullness=_fullness(generation.tasks),
        metric=learner.bundle.objective.metric,
        noun=manifest.input.noun,
        status=learner.status(),
        images=tuple(images_of_task(learner.state, records, task) for task in generation.tasks),
    )


def _fullness(tasks: tuple[LearnedTask, ...]) -> dict[str, tuple[float | None, ...]]:
    sites = dict.fromkeys(site for task in tasks for site in task.protected)
    return {site: tuple(_share(task.protected.get(site)) for task in tasks) for site in sites}


def _share(ratio: str | None) -> float | None:
    """Of "14/32", the percentage; None for what is no such ratio."""
    part, _, whole = (ratio or "").partition("/")
    if not (part.isdecimal() and whole.isdecimal() and int(whole)):
        return None
    return 100.0 * int(part) / int(whole)
