"""How the result is told: a line each, a table, and the page docs/attack.md."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from field.attack.attacks import PROMISES

# The promise whose tries are those of all victims together.
KILLED = "killed-at-any-moment"
INTRODUCTION = (
    "Every promise of [guarantees.md](guarantees.md) and [state.md](state.md), how often it was attacked, and how",
    "often it broke. `make attack` tries all of it, in 10 minutes on two quiet cores; `make attack MINUTES=2` a part,",
    "as CI does; `make attack ONLY=NAME` one attack. Chance is seeded: a run tries what the one before tried. The",
    "judge reads states and bundles with `json`, `hashlib` and `safetensors` alone (`tests/field/attack/judge.py`),",
    "and a test keeps both together: no row or paragraph without an attack, no attack without its sentence.",
)
Found = dict[str, dict[str, Any]]


def line(name: str, one: dict[str, Any]) -> str:
    """What is printed when an attack has ended."""
    text = f"{one.get('victim', name):32} {one['tries']:>7,} tries {one['faults']:>3} faults {one['seconds']:>7.1f} s"
    more = [
        *(f"   FAULT: {fault}" for fault in one["told"]),
        *(f"   left out: {why}" for why in one["skipped"]),
    ]
    return "\n".join([text, *more])


def gathered(found: Found) -> Found:
    """By promise, in the order of the docs; the victims' tries are one promise's."""
    victims = {one["victim"]: one for name, one in found.items() if name.startswith("kill ")}
    result: Found = {}
    for name, promise in PROMISES.items():
        if name == KILLED and victims:
            one: dict[str, Any] = {
                "tries": sum(victim["tries"] for victim in victims.values()),
                "faults": sum(victim["faults"] for victim in victims.values()),
                "told": [told for victim in victims.values() for told in victim["told"]],
                "skipped": [],
                "notes": [f"{victim} {one['tries']}" for victim, one in victims.items()],
                "seconds": round(sum(victim["seconds"] for victim in victims.values()), 1),
            }
        elif name in found:
            one = found[name]
        else:
            continue
        result[name] = {"page": promise.page, "says": list(promise.says), **one}
    return result


def broken(result: dict[str, Any]) -> list[str]:
    """Every promise that broke, told again: the end of a log may be all that is kept of it."""
    lines = []
    for name, one in result["promises"].items():
        if one["faults"]:
            lines.append(
                f"BROKEN: {name}, {one['faults']} of {one['tries']:,} tries: {' / '.join(one['says'])}"
            )
            lines += [f"   FAULT: {fault}" for fault in one["told"]]
    return lines


def summary(result: dict[str, Any]) -> str:
    """The last lines on the terminal."""
    promises = result["promises"].values()
    tries, faults = (sum(one[key] for one in promises) for key in ("tries", "faults"))
    took = f"{result['seconds']:.0f} s, {result['cpu_seconds'] or 0:.0f} s of CPU time"
    broken = sum(one["faults"] > 0 for one in promises)
    return f"{len(promises)} promises, {tries:,} tries, {faults} faults in {broken} promises; {took}"


def document(result: dict[str, Any]) -> str:
    """The page of the docs."""
    rows = [
        f"| {cell(one['says'])} | {name} | {one['tries']:,} | {one['faults']} |"
        for name, one in result["promises"].items()
    ]
    notes = [
        f"- `{name}`: {', '.join(one['notes'])}" for name, one in result["promises"].items() if one["notes"]
    ]
    left_out = sorted({why for one in result["promises"].values() for why in one["skipped"]})
    return "\n".join(
        [
            "# Attacks",
            "",
            *INTRODUCTION,
            "",
            f"Written by `make attack MINUTES={result['minutes']:g} PAGE=docs/attack.md` on {result['machine']}, "
            f"Python {result['python']}:",
            summary(result) + ".",
            "",
            "| promise | attack | tries | faults |",
            "|---|---|---:|---:|",
            *rows,
            "",
            *notes,
            *(["", "Left out on that machine:", "", *(f"- {why}" for why in left_out)] if left_out else []),
            "",
        ]
    )


def cell(says: Sequence[str]) -> str:
    """Sentences in a table."""
    return " <br> ".join(says).replace("|", "\\|")
