"""A task being learned, as it is shown while it is, and in a sentence afterwards."""

from __future__ import annotations

import time

from rich.progress import Progress, TextColumn

from csk_sdk.cli.rendering import Screen, duration, progress_bar, size
from csk_sdk.formats.wording import rounded
from csk_sdk.learning.learn_run import Progress as LearnProgress
from csk_sdk.learning.life import LearnReport

_PHASES = {
    "check": "Checking the data",
    "prefix": "Running the frozen stem",
    "select": "Selecting channels",
    "consolidate": "Consolidating",
}


class LearningView:
    """One task being learned: a line for each epoch, and below them a bar where there is a terminal."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._progress: Progress | None = None
        self._last = LearnProgress("")
        self._epoch_began = time.monotonic()

    def __enter__(self) -> LearningView:
        if self._screen.live is not None:
            self._progress = progress_bar(self._screen.live, TextColumn("{task.fields[loss]}", style="dim"))
            self._task = self._progress.add_task("", total=None, loss="")
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    def __call__(self, now: LearnProgress) -> None:
        """Take the learner's report."""
        last, self._last = self._last, now
        if now.note:
            self._screen.say(f"  {now.note}")
        if last.phase == "train" and (now.phase, now.epoch) != ("train", last.epoch):
            # Where it was found not to pay, no step counts.
            self._end_epoch(last, counts=now.phase == "train" or now.steps > 0)
        if now.phase == "train" and last.phase != "train":
            self._epoch_began = time.monotonic()
            if now.step > 1:
                self._screen.say(
                    f"  Going on with the interrupted run at step {now.step:,} of {now.steps:,}."
                )
        if now.phase in _PHASES:
            self._begin_phase(_PHASES[now.phase])
        elif self._progress is not None:
            label = f"Epoch {now.epoch} of {now.epochs}"
            loss = f"loss {rounded(now.loss, '.3f')}"
            self._progress.update(
                self._task, description=label, completed=now.step, total=now.steps, loss=loss
            )

    def _begin_phase(self, label: str) -> None:
        if self._progress is None:
            self._screen.say(f"  {label} ...")
        else:
            self._progress.update(self._task, description=label, total=None, loss="")

    def _end_epoch(self, last: LearnProgress, counts: bool) -> None:
        seconds = time.monotonic() - self._epoch_began
        self._epoch_began = time.monotonic()
        done = f"Epoch {last.epoch} of {last.epochs}   loss {rounded(last.loss, '.3f')}"
        if not counts:
            done = f"{last.step:,} of {last.steps:,} steps, to ask whether training pays"
        self._screen.say(f"  {done}   {duration(seconds)}")


def learned(report: LearnReport) -> str:
    """What is said of a learned task, in a sentence."""
    fewer = 0 < report.stepped < report.images
    steps = f"steps over {report.stepped} of {report.images}, " if fewer else ""
    return (
        f"Learned {report.task} in {duration(report.seconds)}: generation {report.generation}, {steps}loss "
        f"{rounded(report.loss, '.3f')}, peak memory {_of_budget(report)}."
    )


def _of_budget(report: LearnReport) -> str:
    if report.memory_budget is None:
        return size(report.peak_rss_bytes)
    peak, budget = report.peak_rss_bytes / 2**20, report.memory_budget / 2**20
    return f"{peak:.1f} MiB of {budget:.4g} MiB" + ("" if peak <= budget else ", above the budget")
