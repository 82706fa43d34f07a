"""What a task must pass before it is committed, and the sentences that say why it did not."""

from __future__ import annotations

from collections.abc import Mapping

from csk_sdk.config import REFUSE, TrainingConfig
from csk_sdk.contract.sentences import said
from csk_sdk.errors import ContradictionError, TaskError
from csk_sdk.method.label_check import LabelEvidence
from csk_sdk.method.novelty import UNFAMILIAR


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

    `found` is by class the other one and the share of its images or signals (`noun`); `known`, whether it is the
    base that knows it.
    """
    if not found:
        return
    some = [
        said("contradicts_one", share=f"{100 * share:.0f}", noun=noun, name=name, other=other)
        for name, (other, share) in found.items()
    ]
    more = said("contradicts_more", count=str(len(some) - 3)) if len(some) > 3 else ""
    base = [name for name in found if known[name]]
    stays = said("contradicts_base", name=base[0]) if base else ""
    how = {"replace": "--replace", "add": "--add"}
    raise ContradictionError(
        said("contradicts", task=task, found=", ".join(some[:3]), more=more, stays=stays, noun=noun, **how)
    )


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


def warnings_about(
    novelty: float | None,
    forgetting: Mapping[str, float],
    heads_only: bool,
    config: TrainingConfig,
    noun: str,
) -> tuple[str, ...]:
    """All that the user of a learned task should know, one sentence each."""
    dropped = (heads_instead(forgetting, config),) if heads_only else ()
    return (*unfamiliar(novelty, noun), *dropped)


def worst_of(forgetting: Mapping[str, float]) -> tuple[str, float]:
    """The old task that loses most, and its percentage points; 0 where none is known."""
    return max(forgetting.items(), key=lambda item: item[1], default=("", 0.0))
