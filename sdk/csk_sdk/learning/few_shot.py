"""Which tasks get heads on the frozen backbone, and why: docs/decisions/0019-few-shot.md, 0035-train.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from csk_sdk.config import HEADS, TrainingConfig
from csk_sdk.contract.manifest import Site
from csk_sdk.contract.sentences import said
from csk_sdk.formats.wording import plural, rounded
from csk_sdk.method.gain import Gain
from csk_sdk.method.projection import is_frozen
from csk_sdk.objectives import Objective
from csk_sdk.state.versions import domain_names

# Why a task has heads only, by the setting that decides it; "" where its centers were trained.
FEW_SHOT, MAX_FORGETTING = "few-shot", "max-forgetting"
# It was asked for heads, or it was left to be decided and training would not have paid.
ASKED, NO_GAIN = "train", "no-gain"
# Not a setting: a decision among one class has no loss to train on.
ONE_CLASS = "one-class"
# Nor is this one: since an upgrade no site may be trained.
ALL_FROZEN = "frozen"
# Nor this: domains are known, and of the network as it is.
DOMAINS = "domains"


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


def why_fixed(sites: Sequence[Site], tensors: Mapping[str, NDArray[Any]]) -> str:
    """Why a generation with these `tensors` has no center that may be trained, "" where one may be."""
    if domain_names(tensors):
        return DOMAINS
    return ALL_FROZEN if all_frozen(sites, tensors) else ""


def heads_because(
    examples: int,
    classes: Sequence[str],
    objective: Objective,
    config: TrainingConfig,
    epochs: int = 1,
    fixed: str = "",
) -> str:
    """Why a task is to have heads only, before anything is seen of its images; "" where its centers may be trained.

    `fixed` is why none may be trained whatever the task, as `why_fixed` says it.
    """
    if fixed:
        return fixed
    if len(classes) < 2 and not objective.tabular:
        return ONE_CLASS
    if config.train == HEADS:
        return ASKED
    return FEW_SHOT if is_few_shot(examples, classes, objective, config, epochs) else ""


def heads_notes(why: str, examples: int, classes: Sequence[str], noun: str, trained: str) -> tuple[str, ...]:
    """The sentence about a task of `examples` images or signals (`noun`) that has heads only, as was known before.

    `trained` is what the bundle would train, as `train` says it. What was measured on the task's images is said by
    `gain_note`, and by `acceptance.heads_instead`.
    """
    if why == ALL_FROZEN:
        return (
            "all trainable layers are frozen since this device was upgraded: the classes have heads on the network as "
            "it is.",
        )
    if why == DOMAINS:
        return (said("heads_domains"),)
    if why == FEW_SHOT:
        return (said("few_shot", each=plural(f"{examples / len(classes):.3g}", noun), trained=trained),)
    return ()


def gain_note(
    gain: Gain, asked: int, noun: str, max_forgetting: float, trained: str, dropped: bool = False
) -> str:
    """The sentence about what held-out images or signals (`noun`) said of training, and what was chosen.

    `asked` is how many there were, held out or not; `trained` is what the bundle trains, as `train` says it;
    `dropped` says that it was trained, and cost older tasks too much.
    """
    if not gain.images:
        return said("heads_untold", images=plural(asked, noun), trained=trained)
    values = {"images": plural(gain.images, noun), "done": f"{100 * gain.done:.0f}"}
    values["likelihood"] = rounded(gain.likelihood, ".4f")
    if gain.clear and not gain.pays(max_forgetting):
        return said("centers_cost", lost=f"{gain.lost:.1f}", allowed=f"{max_forgetting:g}", **values)
    values |= {"before": f"{100 * gain.heads:.1f}", "after": f"{100 * gain.centers:.1f}"}
    chosen = "centers_dropped" if dropped else "centers_pay"
    return said(chosen if gain.clear else "heads_pay", trained=trained, **values)


def undecided_note(done: int, steps: int, seconds: float, dropped: bool) -> str:
    """The sentence about a task whose time was over before held-out images were asked, after `done` of its `steps`."""
    fate = "dropped, as older tasks would have lost too much" if dropped else "kept"
    return said("undecided", seconds=f"{seconds:g}", done=f"{done:,}", steps=f"{steps:,}", fate=fate)
