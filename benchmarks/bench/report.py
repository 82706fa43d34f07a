"""What was measured, as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bench.cases import CASES, METHODS, REFERENCE, Case
from bench.driver import Measured
from bench.page import mebibytes, milliseconds, table, times
from bench.targets import TARGETS
from bench.timing import medians, quartiles, ratio

Results = Mapping[str, Sequence[Measured]]
CSK_INT8 = "csk/int8"


def steps(case: Case, rows: Sequence[Measured]) -> str:
    """One case: every method's step, against torch's full fine-tuning and against csk-sdk's int8 step."""
    found = medians(rows)
    lines = []
    for method in METHODS:
        row = next((row for row in rows if row.key == method.key), None)
        if row is None or not row.cpu:
            continue
        low, high = quartiles(row.cpu)
        spread = f"{milliseconds(low)} to {milliseconds(high)}"
        lines.append(
            [
                method.label, milliseconds(found[row.key]), spread, times(ratio(found, row.key, REFERENCE)),
                times(ratio(found, row.key, CSK_INT8)), mebibytes(row.peak), f"{row.open_seconds:.1f}",
            ]
        )  # fmt: skip
    head = ["", "ms", "quartiles", "of torch, all weights", "times csk-sdk int8", "peak MiB", "ready s"]
    count = max((len(row.cpu) for row in rows), default=0)
    return f"**{case.title}**, {count} steps of each\n\n" + table(head, lines)


def all_steps(results: Results) -> str:
    """Every case that was measured."""
    return "\n\n".join(steps(case, results[case.title]) for case in CASES if case.title in results)


def absent(results: Results) -> str:
    """What has no row, and why: one line each."""
    reasons: dict[str, list[str]] = {}
    for title, rows in results.items():
        for row in rows:
            if row.missing:
                label = next(method.label for method in METHODS if method.key == row.key).strip("*")
                reasons.setdefault(f"{label}: {row.missing}", []).append(title)
    if not reasons:
        return "Every row was measured."
    return "\n".join(f"- {reason} ({'; '.join(titles)})." for reason, titles in reasons.items())


def targets(results: Results, computed: Sequence[tuple[str, float, float]] = ()) -> str:
    """Each target, what was measured, and whether it is met; `computed` are shares by formula: label, limit, share."""
    rows = []
    for target in TARGETS:
        value = target.measured(results)
        verdict = "not measured" if value is None else "met" if target.met(value) else "**not met**"
        rows.append([target.label, target.bound, times(value), verdict])
    for label, limit, share in computed:
        rows.append(
            [
                f"{label}, by formula",
                f"at most {limit:g}",
                times(share),
                "met" if share <= limit else "**not met**",
            ]
        )
    return table(["ratio", "target", "measured", ""], rows)


def machine(content: Mapping[str, Any]) -> str:
    """Processor and versions, in a sentence."""
    versions = ", ".join(f"{name} {version}" for name, version in sorted(content["versions"].items()))
    return f"Measured on {content['processor']} ({content['system']}), one thread, {content['date']}: {versions}."
