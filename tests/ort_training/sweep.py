"""Gradients of onnxruntime-training beside the portable ones: every rule, in the forms that tables and generators give.

python tests/ort_training/sweep.py --draws 20 --chains 200 --seed 0
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as passes
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

sys.path.extend(
    str(Path(__file__).parents[1] / name) for name in ("builder", "builder/gradients", "ort_training")
)

import random_elementwise
import random_layout
import random_pictures
from chains import chain
from gradient_check import dims_of, run_ort, smooth, tensor
from gradient_row import Row
from onnx_text import model
from random_row import finished
from test_gradient_rows import ROWS

from csk_artifacts_builder.ort.artifacts import no_gradient, quiet, reason
from csk_artifacts_builder.ort.probe import ort_gradients, portable_gradients, relative_difference

SHAPES = random_elementwise.SHAPES | random_layout.SHAPES | random_pictures.SHAPES
EQUAL, WITHOUT, FAILS, WRONG = "equal", "without a gradient there", "failing there", "wrong"
TOLERANCE, CHAIN_TOLERANCE = 1e-4, 1e-3
ATTEMPTS = 3


def drawn(op: str, count: int, start: int) -> list[Row]:
    """`count` random rows of an op, the same for the same `start`."""
    rows: list[Row] = []

    @seed(start)
    @settings(
        max_examples=count, database=None, deadline=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(st.data())
    def draw(data: st.DataObject) -> None:
        rows.append(finished(SHAPES[op](data.draw)))

    draw()
    return rows


def outcome(row: Row, raw: bool = False) -> tuple[str, str]:
    """One of the four words, and what there is to say; `raw` is without the rewriting of `ort_dialect`.

    A chain is wrong where it is so on three draws, as for a build: rounding may turn a Relu, or move a maximum.
    """
    off = []
    for attempt in range(ATTEMPTS if row.op == "chain" else 1):
        try:
            off.append(_difference(row, attempt, raw))
        except Exception as error:
            return (FAILS if no_gradient(error) is None else WITHOUT), reason(error)
        if off[-1] <= (CHAIN_TOLERANCE if row.op == "chain" else TOLERANCE):
            return EQUAL, ""
    return WRONG, f"off by {min(off):.2g} of the gradient"


def _difference(row: Row, attempt: int, raw: bool) -> float:
    rng = np.random.default_rng(sum(map(ord, row.text)) + attempt)
    proto = model(row.text, **{name: tensor(rng, spec) for name, spec in row.tensors.items()})
    for number, node in enumerate(proto.graph.node):
        node.name = f"node{number}"
    feeds = {value.name: smooth(rng, dims_of(value), row) for value in proto.graph.input}
    forward = ir.from_proto(proto)
    passes.ShapeInferencePass()(forward)
    g = rng.normal(size=run_ort(proto, feeds)["y"].shape).astype(np.float32)
    ours = portable_gradients(forward.clone(), feeds, g)
    with quiet():
        theirs = ort_gradients(forward, feeds, g, raw)
    return max(relative_difference(ours[name], theirs[name]) for name in feeds)


def main() -> int:
    """Sweep, and print counts for each op, and for chains of several."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--draws", type=int, default=20, help="drawn graphs for each op, beside the tables' rows"
    )
    parser.add_argument("--chains", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--op", choices=sorted(SHAPES), help="this op only")
    parser.add_argument("--raw", action="store_true", help="without the builder's rewriting")
    asked = parser.parse_args()
    counts: Counter[str] = Counter()
    for op in [asked.op] if asked.op else sorted(SHAPES):
        rows = [row for row in ROWS if row.op == op] + drawn(op, asked.draws, asked.seed)
        counts += _printed(op, rows, asked.raw)
    if not asked.op:
        first = asked.seed * asked.chains
        counts += _printed("chains", [chain(first + number) for number in range(asked.chains)], asked.raw)
    print(f"{counts.total()} graphs: {_listed(counts)}")
    return int(counts[WRONG] > 0)


def _printed(name: str, rows: Sequence[Row], raw: bool) -> Counter[str]:
    counts: Counter[str] = Counter()
    for row in rows:
        word, said = outcome(row, raw)
        counts[word] += 1
        if word in (FAILS, WRONG):
            print(f"  {word}: {row}: {said}\n    {row.text}")
    print(f"{name:22} {_listed(counts)}", flush=True)
    return counts


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{number} {word}" for word, number in sorted(counts.items()))


if __name__ == "__main__":
    sys.exit(main())
