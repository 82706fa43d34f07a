"""With few images a class, heads on the frozen backbone do as well as training: docs/decisions/0019-few-shot.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from csk_sdk.config import TrainingConfig
from csk_sdk.contract.manifest import Site
from csk_sdk.contract.sentences import said
from csk_sdk.method.projection import is_frozen
from csk_sdk.objectives import Objective

# Why a task has heads only, by the setting that decides it; "" where its centers were trained.
FEW_SHOT, MAX_FORGETTING = "few-shot", "max-forgetting"
# Not a setting: a decision among one class has no loss to train on.
ONE_CLASS = "one-class"
# Nor is this one: since an upgrade no site may be trained.
ALL_FROZEN = "frozen"


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


def all_frozen(sites: Sequence[Site], tensors: Mapping[str, NDArray[Any]]) -> bool:
    """Whether there are sites, and a generation with these `tensors` has all of them frozen."""
    return bool(sites) and all(is_frozen(tensors[f"moment/{site.name}"]) for site in sites)


def few_shot_notes(examples: int, classes: Sequence[str], noun: str, frozen: bool = False) -> tuple[str, ...]:
    """The sentence about a task of `examples` images or signals (`noun`) whose centers were not trained."""
    if frozen:
        return (
            "all trainable layers are frozen since this device was upgraded: the classes have heads on the network as "
            "it is.",
        )
    if len(classes) < 2:
        return ()
    return (said("few_shot", each=f"{examples / len(classes):.3g}", noun=noun),)


def because(classes: Sequence[str], few: bool, forgetting: bool, frozen: bool = False) -> str:
    """Which setting left a task with heads only, or ""; or that it has one class, or all is frozen."""
    if few and frozen:
        return ALL_FROZEN
    if few and len(classes) < 2:
        return ONE_CLASS
    return FEW_SHOT if few else MAX_FORGETTING if forgetting else ""
