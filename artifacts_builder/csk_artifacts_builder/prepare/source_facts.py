"""What stands in a source file, noted before anything is changed; so that no convolution of it goes without a word."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import onnx_ir as ir

from csk_artifacts_builder.emit import nodes_above

CONVOLUTIONS = {"Conv", "ConvTranspose", "DeformConv"}
# Why a convolution of the file is none of the prepared graph.
UNREAD = "nothing of it reaches the scores"
CONSTANT = "it works on constants alone"
CLASSIFIER = "it is the classifier"
REPLACED = "preparation wrote it as other ops"


@dataclass(frozen=True)
class FileConvolution:
    """One convolution of the file: its node's name, and its kernel, () where that is not known before it runs.

    `gone` is why it is none of the prepared graph, None where it is one.
    """

    node: str
    kernel: tuple[int, ...]
    gone: str | None = None


@dataclass(frozen=True)
class SourceFacts:
    """What the file says of itself, with its functions inlined."""

    producer: str = ""
    opset: int = 0
    nodes: int = 0
    batch_norms: int = 0
    convolutions: tuple[FileConvolution, ...] = ()

    @property
    def gone(self) -> tuple[FileConvolution, ...]:
        """The convolutions that are none of the prepared graph."""
        return tuple(one for one in self.convolutions if one.gone is not None)

    def with_read(self, model: ir.Model) -> SourceFacts:
        """After constants are folded and the output is chosen: which convolutions have nothing to do with it."""
        above = nodes_above(model.graph.outputs)
        return self._told(
            CONSTANT if node is None else None if node in above else UNREAD for node in self._nodes(model)
        )

    def with_prepared(self, model: ir.Model, is_classifier: bool) -> SourceFacts:
        """After preparation; `is_classifier` says that the last convolution became the linear layer at the end."""
        live = [place for place, one in enumerate(self.convolutions) if one.gone is None]
        last = live[-1] if live and is_classifier else None
        return self._told(
            None if node is not None else CLASSIFIER if place == last else REPLACED
            for place, node in enumerate(self._nodes(model))
        )

    def _nodes(self, model: ir.Model) -> Iterable[ir.Node | None]:
        """For each convolution the node of that name, None where there is none."""
        named = {node.name: node for node in model.graph if node.op_type in CONVOLUTIONS}
        return (named.get(one.node) for one in self.convolutions)

    def _told(self, reasons: Iterable[str | None]) -> SourceFacts:
        """What was said first stays."""
        told = (
            replace(one, gone=one.gone or reason)
            for one, reason in zip(self.convolutions, reasons, strict=True)
        )
        return replace(self, convolutions=tuple(told))


def note_facts(model: ir.Model) -> SourceFacts:
    """Read them; convolutions without a name of their own get one, in place, which they keep."""
    convolutions = [node for node in model.graph if node.op_type in CONVOLUTIONS]
    taken = {node.name for node in model.graph}
    seen: set[str | None] = set()
    for place, node in enumerate(model.graph):
        if node.op_type in CONVOLUTIONS and (not node.name or node.name in seen):
            name = f"{node.name or node.op_type}_{place}"
            node.name = name if name not in taken else f"{name}_{node.outputs[0].name}"
        seen.add(node.name)
    producer = f"{model.producer_name or ''} {model.producer_version or ''}".strip()
    return SourceFacts(
        producer,
        model.graph.opset_imports.get("", 0),
        len(model.graph),
        sum(node.op_type == "BatchNormalization" for node in model.graph),
        tuple(FileConvolution(str(node.name), _kernel(node)) for node in convolutions),
    )


def _kernel(node: ir.Node) -> tuple[int, ...]:
    weight = node.inputs[1]
    sizes = list(weight.shape) if weight is not None and weight.shape is not None else []
    known = tuple(size for size in sizes if isinstance(size, int))
    return known if len(known) == len(sizes) else ()
