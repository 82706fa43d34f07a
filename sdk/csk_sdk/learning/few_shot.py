"""With few images a class, heads on the frozen backbone do as well as training: docs/decisions/0019-few-shot.md."""

from __future__ import annotations

from collections.abc import Sequence

from csk_sdk.config import TrainingConfig
from csk_sdk.contract.sentences import said
from csk_sdk.objectives import Objective

# Why a task has heads only, by the setting that decides it; "" where its centers were trained.
FEW_SHOT, MAX_FORGETTING = "few-shot", "max-forgetting"
# Not a setting: a decision among one class has no loss to train on.
ONE_CLASS = "one-class"


def is_few_shot(
    examples: int, classes: Sequence[str], objective: Objective, config: TrainingConfig, epochs: int = 1
) -> bool:
    """Whether `examples` of so many classes are fewer for each, on average, than `few_shot`, or are all of one class.

    What is lacking is steps: of more `epochs` than the default, each image counts for as many more.
    Only where each has one class: for tables of labels nothing was measured, and their centers are trained.
    """
    counted = examples * max(1.0, epochs / TrainingConfig.epochs)
    if objective.tabular:
        return False
    return len(classes) < 2 or counted < config.few_shot * len(classes)


def few_shot_notes(examples: int, classes: Sequence[str], noun: str) -> tuple[str, ...]:
    """The sentence about a task of `examples` images or signals (`noun`) whose centers were not trained."""
    if len(classes) < 2:
        return ()
    return (said("few_shot", each=f"{examples / len(classes):.3g}", noun=noun),)


def because(classes: Sequence[str], few: bool, forgetting: bool) -> str:
    """Which setting left a task with heads only, or ""; or that it has one class."""
    if few and len(classes) < 2:
        return ONE_CLASS
    return FEW_SHOT if few else MAX_FORGETTING if forgetting else ""
