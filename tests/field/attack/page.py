"""How the result is told: a line each, a table, and the page docs/attack.md."""

from __future__ import annotations

from typing import Any

from field.attack.promise import PROMISES

# The promise whose tries are those of all victims together.
KILLED = "killed-at-any-moment"
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


def summary(result: dict[str, Any]) -> str:
    """The last lines on the terminal."""
    promises = result["promises"].values()
    tries, faults = (sum(one[key] for one in promises) for key in ("tries", "faults"))
    broken = sum(one["faults"] > 0 for one in promises)
    return f"{len(promises)} promises, {tries:,} tries, {faults} faults in {broken} promises; {result['seconds']:.0f} s"


def document(result: dict[str, Any]) -> str:
    """The page of the docs."""
    rows = [
        f"| {_cell(one['says'])} | {name} | {one['tries']:,} | {one['faults']} |"
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
            "Every promise of [guarantees.md](guarantees.md) and [state.md](state.md), how often it was attacked, and how",
            "often it broke. `make attack` (10 minutes on two quiet cores) tries all of it; `make attack MINUTES=2` a part,",
            "as CI does; `make attack ONLY=NAME` one promise. What is tried is seeded, so a run repeats the one before. The judge reads",
            "state and bundle with `json`, `hashlib` and `safetensors` only (`tests/field/attack/judge.py`), and a test keeps",
            "promises and attacks together: no sentence without an attack, no attack without its sentence.",
            "",
            f"Written by `make attack MINUTES={result['minutes']:g}` on {result['machine']}, Python {result['python']}.",
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


def _cell(says: list[str]) -> str:
    return " <br> ".join(says).replace("|", "\\|")
