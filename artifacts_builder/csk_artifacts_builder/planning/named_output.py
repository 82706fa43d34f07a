"""Where `--output` names an output that holds no scores: said by what it is in the file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import onnx

from csk_artifacts_builder.prepare.model import SourceModel
from csk_artifacts_builder.prepare.source_file import load_source
from csk_sdk.errors import ModelError


@contextmanager
def naming_output(source: SourceModel, wanted: str | None) -> Iterator[None]:
    """Within the block, a ModelError about how the network ends is one about the output that was named, if one was.

    Preparation has other ops than the file, and who named an output asks about that one.
    """
    try:
        yield
    except ModelError as error:
        if wanted is None:
            raise
        graph = load_source(source.path).graph
        others = [str(value.name) for value in graph.output if value.name != wanted]
        raise ModelError(_said(graph, source.path.name, wanted, others)) from error


def _said(graph: onnx.GraphProto, where: str, wanted: str, others: list[str]) -> str:
    node = next((node for node in graph.node if wanted in node.output), None)
    made = f"op '{node.op_type}'" + (f" (node '{node.name}')" if node.name else "") if node else "no op"
    remedy = f"The other outputs are {', '.join(map(repr, others))}." if others else "It has no other output."
    return (
        f"--output names '{wanted}', which {made} of {where} gives: it is not what a fully connected layer (Gemm, or "
        f"MatMul and Add) gives, nor made of that, so it holds no scores of classes. {remedy}"
    )
