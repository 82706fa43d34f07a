"""The largest deviations of several platforms beside each other, from their result files."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from csk_sdk.formats.opening import LARGEST_TEXT, read_file
from platforms.conformance import FORMAT, SKIPPED, ConformanceError

Result = Mapping[str, Any]
Row = tuple[str, str]
_NOT_RUN = "-"
# Percentage points that accuracies of one task learned on two platforms may be apart.
POINTS = 1.0


def read_results(paths: Iterable[Path], digest: str) -> list[Result]:
    """Result files of one and the same set of vectors, in the order given.

    Raises ConformanceError for a file of other vectors, and for one that is none.
    """
    results = []
    for path in paths:
        try:
            result = json.loads(read_file(path, LARGEST_TEXT))
            about = result["format"], result["vectors"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConformanceError(
                f"{path} is no result of a conformance run ({error!r}): run it again."
            ) from None
        if about != (FORMAT, digest):
            raise ConformanceError(
                f"{path} is a result of other vectors than these: run it again, or delete it."
            )
        results.append(result)
    return results


def digits_agree(results: Sequence[Result]) -> bool:
    """Whether the digits tasks ended within one point of each other, wherever they were learned."""
    found = [float(result["digits"]["accuracy"]) for result in results if result.get("digits")]
    return not found or max(found) - min(found) <= POINTS


def print_table(results: Sequence[Result], console: Console) -> None:
    """A row for each quantity, a column for each platform, and the digits task below."""
    table = Table(title="Largest deviations", title_justify="left", box=None, pad_edge=False)
    table.add_column("case")
    table.add_column("quantity")
    table.add_column("allowed", justify="right")
    for result in results:
        table.add_column(result["platform"].replace(" ", "\n"), justify="right")
    worst = [_worst(result) for result in results]
    rows = list(dict.fromkeys(row for one in worst for row in one))
    for row in sorted(rows):
        found = [one.get(row) for one in worst]
        allowed = next(entry[1] for entry in found if entry is not None)
        table.add_row(*row, _number(allowed), *(_cell(entry) for entry in found))
    console.print(table)
    console.print()
    for result in results:
        console.print(_summary(result), soft_wrap=True)


def _worst(result: Result) -> dict[Row, tuple[float, float]]:
    """Per quantity the deviation nearest to, or furthest above, its tolerance, and that tolerance."""
    worst: dict[Row, tuple[float, float]] = {}
    for case in result["cases"]:
        for one in case["deviations"]:
            row = _row(case, one)
            # null is how JSON has what is not finite.
            off = float("inf") if one["deviation"] is None else float(one["deviation"])
            if row not in worst or off >= worst[row][0]:
                worst[row] = off, float(one["tolerance"])
    return worst


def _row(case: Mapping[str, Any], output: Mapping[str, Any]) -> Row:
    parts = output["output"].replace(".", "/").split("/")
    quantity = parts[1] if parts[0] == "state" else parts[0]
    precision = ""
    if case["precision"] == "int8":
        precision = ", int8" if output["measure"] == "relative" else ", int8 to float64"
        if case["name"].endswith("-true"):
            precision = ", int8 to float64"
    return f"{case['kind']}{precision}", quantity


def _cell(entry: tuple[float, float] | None) -> str:
    if entry is None:
        return _NOT_RUN
    off, allowed = entry
    return _number(off) if off <= allowed else f"[red]{_number(off)}[/red]"


def _number(value: float) -> str:
    return "0" if value == 0 else f"{value:.0e}"


def _summary(result: Result) -> str:
    cases = result["cases"]
    skipped = [case["name"] for case in cases if case["status"] == SKIPPED]
    failed = [
        f"{case['name']} ({case['reason']})" for case in cases if case["status"] not in ("passed", SKIPPED)
    ]
    seconds = sum(case["seconds"] for case in cases)
    line = (
        f"{result['platform']}: {result['runtime']}, {len(cases) - len(skipped) - len(failed)} cases passed"
    )
    line += f", {len(skipped)} skipped ({', '.join(skipped)})" if skipped else ""
    line += f", [red]{len(failed)} failed[/red]: {'; '.join(failed)}" if failed else ""
    line += f", {seconds:.0f} s"
    digits = result.get("digits")
    if digits:
        line += f"; digits {digits['accuracy']:.1f} % after learning, in {digits['seconds']:.0f} s"
    return line
