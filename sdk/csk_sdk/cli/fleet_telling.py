"""What several commands of a fleet say, and are told, in the same words."""

from __future__ import annotations

from csk_sdk.cli.rendering import Screen
from csk_sdk.errors import ConfigError
from csk_sdk.fleet.merging import MergeReport
from csk_sdk.formats.wording import plural


def classes_text(classes: dict[str, float]) -> str:
    """How many images there are of each class."""
    if not classes:
        return "no class"
    return f"{plural(len(classes), 'class', 'classes')} ({', '.join(f'{name} {n:g}' for name, n in classes.items())})"


def say_merged(screen: Screen, report: MergeReport) -> None:
    """What somebody who merges should read."""
    if report.withdrawn:
        screen.say(f"Taken back by their devices, and not in it: {plural(report.withdrawn, 'contribution')}.")
    for path, why in report.skipped.items():
        screen.warn(f"left out: {path}: {why}")
    for device, why in report.quarantined.items():
        screen.warn(f"set aside: {device}, since its {why}. Look at it; `--accept` counts it all the same.")
    for one in report.alike:
        screen.warn(one)
    if report.unconfirmed:
        screen.say(
            f"Unconfirmed, since fewer than three devices hold them: {', '.join(report.unconfirmed)}. Nobody can tell "
            "whether they are what they are called."
        )


def same_of(same: list[str] | None) -> dict[str, str]:
    """What `--same A=B` says. Raises ConfigError for anything else."""
    found: dict[str, str] = {}
    for one in same or ():
        name, equals, other = one.partition("=")
        if not (equals and name and other) or found.setdefault(name, other) != other:
            raise ConfigError(
                f"--same is {one[:80]!r}, and must be A=B, a class and the one that it is, each once."
            )
    return found
