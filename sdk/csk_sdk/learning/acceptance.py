"""What a task must pass before it is committed, and the sentences that say why it did not."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from csk_sdk.config import REFUSE, TrainingConfig
from csk_sdk.contract.sentences import said
from csk_sdk.contract.thresholds import integer, number
from csk_sdk.data.labels import Labels
from csk_sdk.errors import ContradictionError, TaskError
from csk_sdk.formats.wording import plural
from csk_sdk.method.decisions import Judgement, Twin
from csk_sdk.method.heads import ClassStatistics
from csk_sdk.method.label_check import LabelEvidence
from csk_sdk.method.novelty import UNFAMILIAR, WIDER, widening

_NOT_TOLD, _TOLD = number("not_told", "all_classes"), number("not_told", "task")
_ADVISED = integer("one_image", "advised")


def require_learnable(evidence: LabelEvidence | None, config: TrainingConfig, task: str, noun: str) -> None:
    """Raise TaskError where a task's labels say nothing about its images or signals (`noun`).

    `evidence` is None where nothing was measured, as after resuming: then there is nothing to say.
    """
    if not config.label_check or evidence is None or not evidence.refuted:
        return
    accuracy, chance = f"{100 * evidence.accuracy:.0f}", f"{100 * evidence.chance:.0f}"
    raise TaskError(said("labels_look_wrong", task=task, noun=noun, accuracy=accuracy, chance=chance))


def require_agreement(
    found: Mapping[str, tuple[str, float]], known: Mapping[str, bool], task: str, noun: str
) -> None:
    """Raise ContradictionError where a task says of known classes that they are others.

    `found` is by class the other one and the share of its images or signals (`noun`); `known`, whether the base knows
    it.
    """
    if not found:
        return
    some = [
        said("contradicts_one", share=f"{100 * share:.0f}", noun=noun, name=name, other=other)
        for name, (other, share) in found.items()
    ]
    more = (
        said("contradicts_more", classes=plural(len(some) - 3, "more class", "more classes"))
        if len(some) > 3
        else ""
    )
    base = [name for name in found if known[name]]
    stays = said("contradicts_base", name=base[0]) if base else ""
    how = {"replace": "--replace", "add": "--add"}
    raise ContradictionError(
        said("contradicts", task=task, found=", ".join(some[:3]), more=more, stays=stays, noun=noun, **how)
    )


def require_scale(known: ClassStatistics, features: NDArray[np.float32], labels: Labels) -> None:
    """Raise TaskError for signals, by their features `(n, f)` and labels, of another scale than all that is known.

    Pixels have one scale; a signal has whatever unit its file was written in.
    """
    wider = widening(known, features, labels) if labels.ndim == 1 else 1.0
    if wider >= WIDER:
        raise TaskError(said("other_scale", score=f"{wider:,.0f}" if wider < 1e6 else f"{wider:.0e}"))


def unfamiliar(novelty: float | None, noun: str) -> tuple[str, ...]:
    """A warning where a task's images or signals (`noun`) are far from everything known; else nothing."""
    if novelty is None or novelty < UNFAMILIAR:
        return ()
    return (said("unfamiliar", noun=noun, score=f"{novelty:.1f}"),)


def forgets_too_much(forgetting: Mapping[str, float], config: TrainingConfig, task: str) -> bool:
    """Whether an old task is estimated to lose more than `max_forgetting` percentage points.

    Raises TaskError where that means to refuse (`on_forgetting`).
    """
    worst, points = worst_of(forgetting)
    if points <= config.max_forgetting:
        return False
    if config.on_forgetting == REFUSE:
        raise TaskError(
            said(
                "forgets_too_much",
                task=task,
                worst=worst,
                points=f"{points:.1f}",
                allowed=f"{config.max_forgetting:g}",
            )
        )
    return True


def heads_instead(forgetting: Mapping[str, float], config: TrainingConfig) -> str:
    """The sentence about a task whose trained centers were dropped."""
    worst, points = worst_of(forgetting)
    return said("heads_instead", worst=worst, points=f"{points:.1f}", allowed=f"{config.max_forgetting:g}")


def twins_to_part(
    judgement: Judgement | None, config: TrainingConfig, task: str, classes: Sequence[str]
) -> tuple[str, ...]:
    """Classes that decisions over all classes must leave out, since they would cost an old one `max_forgetting` points.

    Raises TaskError where that means to refuse (`on_forgetting`), or nothing would be left to learn.
    """
    found = {} if judgement is None else judgement.twins
    apart = tuple(name for name, twin in found.items() if 100.0 * twin.taken > config.max_forgetting)
    if apart and (config.on_forgetting == REFUSE or len(classes) == 1):
        raise TaskError(said("twin_refused", task=task, **_about(apart[0], found[apart[0]])))
    return apart


def told_twins(judgement: Judgement | None, apart: Sequence[str], noun: str) -> tuple[str, ...]:
    """A sentence for each class that cannot be told from an old one, or takes much of it."""
    if judgement is None:
        return ()
    twins = tuple(
        said("twin_apart" if name in apart else "twin_counted", **_about(name, twin))
        for name, twin in judgement.twins.items()
    )
    rivals = (
        said("hard_to_tell", new=name, old=rival.old, taken=f"{100 * rival.taken:.0f}", noun=noun)
        for name, rival in judgement.rivals.items()
    )
    return (*twins, *rivals)


def _about(name: str, twin: Twin) -> dict[str, str]:
    taken, back = f"{100 * twin.taken:.0f}", f"{100 * twin.back:.0f}"
    merge = f"`csk-sdk merge {shlex.quote(twin.old)} {shlex.quote(name)}`"
    return {"new": name, "old": twin.old, "taken": taken, "back": back, "merge": merge}


def not_told(judgement: Judgement | None, apart: Sequence[str]) -> tuple[str, ...]:
    """A loud warning where the task's decision works, and the one over all classes hardly ever names its classes."""
    if judgement is None:
        return ()
    counted = [one for name, one in judgement.expected.items() if name not in apart]
    if len(counted) < 2:
        return ()
    everywhere = sum(one.all_classes for one in counted) / len(counted)
    task = sum(one.task for one in counted) / len(counted)
    if everywhere >= _NOT_TOLD or task < _TOLD:
        return ()
    return (said("not_told", everywhere=f"{100 * everywhere:.0f}", task=f"{100 * task:.0f}"),)


def alone(classes: Sequence[str], judgement: Judgement | None, images: int) -> tuple[str, ...]:
    """Of a task of so many images, the classes that have one only, so that nothing judges what is made of it."""
    if judgement is None:
        return tuple(classes) if images == len(classes) else ()
    return tuple(name for name in classes if name not in judgement.expected)


def of_one_image(names: Sequence[str], noun: str) -> tuple[str, ...]:
    """What to expect of classes that were learned from one image or signal (`noun`)."""
    if not names:
        return ()
    return (
        said("one_image", names=_listed([f"'{name}'" for name in names]), noun=noun, advised=f"{_ADVISED}"),
    )


def told_alike(judgement: Judgement | None, noun: str) -> tuple[str, ...]:
    """A warning of classes of the task that its images or signals (`noun`) cannot tell apart."""
    if judgement is None or not judgement.alike:
        return ()
    pairs = _listed([f"'{one}' and '{other}'" for one, other in judgement.alike])
    return (said("alike", pairs=pairs, noun=noun),)


def _listed(names: Sequence[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


def warnings_about(
    novelty: float | None,
    forgetting: Mapping[str, float],
    heads_only: bool,
    judgement: Judgement | None,
    apart: Sequence[str],
    single: Sequence[str],
    config: TrainingConfig,
    noun: str,
) -> tuple[str, ...]:
    """All that the user of a learned task should know, one sentence each; `single` are classes of one image."""
    dropped = (heads_instead(forgetting, config),) if heads_only else ()
    judged = (*told_twins(judgement, apart, noun), *told_alike(judgement, noun), *not_told(judgement, apart))
    return (*unfamiliar(novelty, noun), *dropped, *judged, *of_one_image(single, noun))


def worst_of(forgetting: Mapping[str, float]) -> tuple[str, float]:
    """The old task that loses most, and its percentage points; 0 where none is known."""
    return max(forgetting.items(), key=lambda item: item[1], default=("", 0.0))
