"""What a task must pass before it is committed, and the sentences that say why it did not."""

from __future__ import annotations

from csk_sdk.config import TrainingConfig
from csk_sdk.errors import TaskError
from csk_sdk.method.label_check import LabelEvidence
from csk_sdk.method.novelty import UNFAMILIAR


def require_learnable(evidence: LabelEvidence | None, config: TrainingConfig, task: str, noun: str) -> None:
    """Raise TaskError where a task's labels say nothing about its pictures or signals (`noun`).

    `evidence` is None where nothing was measured, as after resuming: then there is nothing to say.
    """
    if not config.label_check or evidence is None or not evidence.refuted:
        return
    raise TaskError(
        f"The labels of task '{task}' look wrong: a classifier fitted to the other {noun}s names a {noun} left out "
        f"correctly in {100 * evidence.accuracy:.0f} % of cases, and guessing in {100 * evidence.chance:.0f} %. Check "
        f"that each class holds its own {noun}s; if they are right, learn it with --no-label-check "
        "(label_check = false). Nothing was committed."
    )


def unfamiliar(novelty: float | None, noun: str) -> tuple[str, ...]:
    """A warning where a task's pictures or signals (`noun`) are far from everything known; else nothing."""
    if novelty is None or novelty < UNFAMILIAR:
        return ()
    return (
        f"these {noun}s are unlike all that the model knows ({novelty:.1f} times as far from the nearest class as its "
        f"own {noun}s are): expect little, and check the {noun}s and the bundle's preprocessing.",
    )
