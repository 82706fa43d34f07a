"""How a step grows with the batch and with the images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from bench.cases import CASES, METHODS, REFERENCE, Case, prepared_by
from bench.driver import Measured, measure, prepare
from bench.page import mebibytes, milliseconds, table
from bench.timing import medians

SHOWN = (REFERENCE, "csk/exact", "csk/int8")
SMALL = replace(CASES[0], rounds=6, steps=2)
BATCHES = tuple(replace(SMALL, batch=batch) for batch in (1, 2, 4, 8, 16, 32))
SIZES = tuple(replace(SMALL, size=size, batch=4) for size in (32, 64, 96))

Results = dict[str, Sequence[Measured]]


def run(pythons: Mapping[str, Path], root: Path) -> Results:
    """Every batch and every size once, by the case's title."""
    methods = [method for method in METHODS if method.key in SHOWN]
    found: Results = {}
    for case in (*BATCHES, *SIZES):
        if case.title in found:
            continue
        for peer in prepared_by(methods):
            if reason := prepare(case, peer, pythons[peer], root):
                raise RuntimeError(f"{peer} could not prepare {case.title}: {reason}")
        found[case.title] = measure(case, pythons, root, methods)
    return found


def page(found: Results) -> str:
    """Two tables: batches, and sizes."""
    tables = (
        _table("batch", [(str(case.batch), case) for case in BATCHES], found),
        _table("image, batch 4", [(f"{case.size}x{case.size}", case) for case in SIZES], found),
    )
    return "\n\n".join(tables)


def _table(what: str, cases: Sequence[tuple[str, Case]], found: Results) -> str:
    labels = [method.label.strip("*") for method in METHODS if method.key in SHOWN]
    head = [what, *(f"{label}: ms" for label in labels), *(f"{label}: peak MiB" for label in labels)]
    rows = []
    for name, case in cases:
        by_key = {row.key: row for row in found[case.title]}
        times = medians(found[case.title])
        rows.append(
            [
                name,
                *(milliseconds(times[key]) if key in times else "-" for key in SHOWN),
                *(mebibytes(by_key[key].peak) if key in times else "-" for key in SHOWN),
            ]
        )
    return table(head, rows)
