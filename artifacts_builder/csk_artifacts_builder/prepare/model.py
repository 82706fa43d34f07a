"""From the file an exporter wrote to the graph that the method works on.

After `prepare`: opset 17, float32, channels first, dynamic batch, static image size or signal length, no batch norm,
no dropout, no identity, constants folded, every value's shape known, a linear layer as the classifier. Its logits are
those of the source model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as passes
from onnxscript import optimizer

from csk_artifacts_builder.emit import attribute, constant_array
from csk_artifacts_builder.prepare.branches import take_branches
from csk_artifacts_builder.prepare.channel_axis import is_channels_last
from csk_artifacts_builder.prepare.composites import write_composites
from csk_artifacts_builder.prepare.constant_sizes import (
    fold_sizes,
    gather_to_reshape,
    infer_where_possible,
    sizes_to_scales,
)
from csk_artifacts_builder.prepare.constants import fold_constants, is_random, may_fold
from csk_artifacts_builder.prepare.ending import (
    PROBABILITIES,
    choose_output,
    cut_labels,
    flatten_scores,
    fold_scales,
)
from csk_artifacts_builder.prepare.fold_batch_norm import fold_batch_norm
from csk_artifacts_builder.prepare.image_input import image_input
from csk_artifacts_builder.prepare.inference import to_inference
from csk_artifacts_builder.prepare.interface import Interface, take_channels_first
from csk_artifacts_builder.prepare.layer_norm import recognise_layer_norms
from csk_artifacts_builder.prepare.linear_head import to_linear_head
from csk_artifacts_builder.prepare.opset import downgrade, upgrade
from csk_artifacts_builder.prepare.pixels import in_front, pixel_range
from csk_artifacts_builder.prepare.pools import misread_windows, write_windows
from csk_artifacts_builder.prepare.precision import to_float32
from csk_artifacts_builder.prepare.quantized import Quantised, to_float
from csk_artifacts_builder.prepare.source_facts import SourceFacts, note_facts
from csk_artifacts_builder.prepare.source_file import load_source
from csk_artifacts_builder.prepare.squeezes import squeeze_beside_batch
from csk_sdk.contract.manifest import Head
from csk_sdk.errors import ModelError

BATCH = "N"
_CONTROL_FLOW = {"If", "Loop", "Scan"}


@dataclass(frozen=True)
class SourceModel:
    """A prepared model and where it came from.

    `notes` are sentences on what is built otherwise than the file says, and `warnings` those that its user should look
    into; `rewritten` says that ONNX Runtime cannot
    tell what the file as it is computes by the standard, or for inference. `output` is the file's output that holds
    the scores, or is made of them, and `binary` says that its one number became two.
    `pixels` is what the file's own scaling takes for a white pixel, 255 or 1; None where it scales none. `front` are
    the ops in front of the first layer. `facts` are of the file as it was, with every convolution of it.
    `quantised` says how the file is quantised; None where it is not.
    """

    model: ir.Model
    path: Path
    interface: Interface
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    rewritten: bool = False
    output: str = ""
    binary: bool = False
    pixels: float | None = None
    front: tuple[str, ...] = ()
    facts: SourceFacts = field(default_factory=SourceFacts)
    quantised: Quantised | None = None

    @property
    def image(self) -> ir.Value:
        """The one input: images `(N, channels, height, width)` or signals `(N, channels, length)`, float32."""
        return self.model.graph.inputs[0]


def prepare(path: Path, output: str | None = None, input_size: Sequence[int] | None = None) -> SourceModel:
    """Load `path` and bring it to the form described above.

    `output` names the one of several outputs that holds the scores of the classes, and `input_size` is that of an
    image `(height, width)` or signal `(length,)` whose size the file leaves open.
    Raises ModelError for what cannot be prepared, ConfigError for a size that the file does not have.
    """
    where = path.name
    model = ir.from_proto(load_source(path))
    _own_tensors(model)
    take_branches(model)
    quantised = to_float(model, where)
    _refuse_foreign(model, where)
    passes.InlinePass()(model)
    passes.RemoveInitializersFromInputsPass()(model)
    passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    facts = note_facts(model)
    fold_constants(model)
    trained = to_inference(model)
    said: tuple[str, ...] = (quantised.said,) if quantised is not None else ()
    said += choose_output(model, output, where)
    facts = facts.with_read(model)
    scores = str(model.graph.outputs[0].name)
    alone = _without_batch(model)
    model = upgrade(model, where)
    interface = _source_interface(model, where, input_size)
    image = model.graph.inputs[0]
    infer_where_possible(model)  # while the batch is what the exporter saw
    squeeze_beside_batch(model)
    gather_to_reshape(model)
    sizes_to_scales(model)
    write_composites(model)
    misread = misread_windows(model)
    said = (*misread, *said)
    # Before sizes are written as constants: some pools have fewer windows than onnx says of older opsets.
    write_windows(model, where)
    sizes = _sizes_of_reshapes(model, image)
    static_batch = _make_batch_dynamic(model, image)
    _remove_dropout(model)
    passes.IdentityEliminationPass()(model)
    if static_batch is not None:
        _free_reshapes(model, static_batch, sizes)
    passes.ShapeInferencePass()(model)
    downgrade(model, where)
    fold_constants(model)
    optimizer.fold_constants(model, onnx_shape_inference=True, should_fold=may_fold)
    fold_sizes(model)
    fold_constants(model)
    _remove_casts_to_same_type(model)
    recognise_layer_norms(model)
    fold_batch_norm(model, where)
    write_windows(model, where)
    _require_pads(model, where)
    _tidy(model)
    _refuse_random(model, where)
    passes.ShapeInferencePass()(model)
    labels = cut_labels(model)
    passes.RemoveUnusedNodesPass()(model)
    steps = (*flatten_scores(model), *labels)
    said += tuple(
        f"op '{step.op_type}' at the end of {where} is cut off: the bundle has the scores in front of it, and exports "
        "have it again."
        for step in labels[:1]
    )
    convolutional = to_linear_head(model)
    if convolutional:
        _tidy(model)
        passes.ShapeInferencePass()(model)
    said += fold_scales(model)
    said += tuple(one for one in alone if not steps)
    _tidy(model)
    passes.ShapeInferencePass()(model)
    facts = facts.with_prepared(model, convolutional)
    _free_names(model)
    rewritten = bool(trained or misread or labels)
    interface = replace(interface, steps=steps)
    pixels = pixel_range(model, interface.input_type == ir.DataType.UINT8)
    front = tuple(node.op_type for node in in_front(model))
    return SourceModel(
        model,
        path,
        interface,
        notes=said,
        warnings=trained,
        rewritten=rewritten,
        output=scores,
        pixels=pixels,
        front=front,
        facts=facts,
        quantised=quantised,
    )


@contextmanager
def within_memory(path: Path, input_size: Sequence[int] | None) -> Iterator[None]:
    """Within the block, running out of memory is a ModelError about the network's size, and not about a device's."""
    try:
        yield
    except MemoryError as error:
        size = "x".join(map(str, input_size or ()))
        remedy = f"a smaller --input-size than {size}" if size else "the model exported for smaller inputs"
        raise ModelError(
            f"This machine ran out of memory over {path.name}: try {remedy}, or a machine with more memory."
        ) from error


def _own_tensors(model: ir.Model) -> None:
    """Arrays instead of parts of the protobuf message, which is freed only as a whole."""
    for value in model.graph.initializers.values():
        if value.const_value is not None and value.dtype == ir.DataType.FLOAT:
            value.const_value = ir.tensor(value.const_value.numpy().copy(), name=value.name)


def _refuse_foreign(model: ir.Model, where: str) -> None:
    for node in model.graph.all_nodes():
        if node.op_type in _CONTROL_FLOW and node.domain == "":
            raise ModelError(
                f"{where} has control flow: op '{node.op_type}' (node '{node.name}'). "
                "Export the model without loops and branches."
            )
        if node.domain not in ("", "ai.onnx") and node.op_identifier() not in model.functions:
            raise ModelError(
                f"{where} has op '{node.domain}.{node.op_type}' (node '{node.name}'), which is not a standard "
                "ONNX op. Export the model without runtime-specific fusions."
            )


def _refuse_random(model: ir.Model, where: str) -> None:
    for node in model.graph:
        if is_random(node):
            raise ModelError(
                f"{where} has op '{node.op_type}' (node '{node.name}'), which draws random numbers: the same image "
                "gets other answers. Export the model for inference."
            )


def _source_interface(model: ir.Model, where: str, size: Sequence[int] | None) -> Interface:
    """Note how the source's input and output are typed and laid out, and make them float32, channels first."""
    types = [value.dtype for value in (*model.graph.inputs[:1], *model.graph.outputs[:1])]
    half = to_float32(model, where)
    if types[0] == ir.DataType.UINT8:
        model.graph.inputs[0].dtype = ir.DataType.FLOAT  # each of its numbers is one
    image = image_input(model, where, size)
    assert image.shape is not None
    channels_last = is_channels_last(image)
    if channels_last:
        take_channels_first(model)
    if not half and types[0] == ir.DataType.FLOAT:
        return Interface(channels_last)
    taken, given = (kind or ir.DataType.FLOAT for kind in types)
    if given not in (ir.DataType.FLOAT, ir.DataType.FLOAT16):
        given = ir.DataType.FLOAT  # a label's
    return Interface(channels_last, taken, given, half)


def _without_batch(model: ir.Model) -> tuple[str, ...]:
    """A sentence on an output of one axis, of fixed size: a file for one image that has squeezed its batch away."""
    output = model.graph.outputs[0]
    shape = list(output.shape) if output.shape is not None else []
    if len(shape) != 1 or not isinstance(shape[0], int):
        return ()
    return (
        f"output '{output.name}' [{shape[0]}] has no batch: the bundle, and what is exported of it, give "
        f"[N,{shape[0]}], a row for each image.",
    )


def _make_batch_dynamic(model: ir.Model, image: ir.Value) -> int | None:
    """Give the image a symbolic batch; the fixed batch it had, if any."""
    assert image.shape is not None
    batch = image.shape[0]
    image.shape = ir.Shape([BATCH, *image.shape[1:]])
    for node in model.graph:
        for value in node.outputs:
            value.shape = None
    for value in model.graph.outputs:
        value.shape = None
    return batch if isinstance(batch, int) else None


def _sizes_of_reshapes(model: ir.Model, image: ir.Value) -> dict[ir.Node, list[int]]:
    """What each Reshape gives of parts of an image, or makes of them: where a first axis is not the batch."""
    assert image.shape is not None
    found, batch = {}, image.shape[0]
    for node in model.graph:
        if node.op_type != "Reshape":
            continue
        before, shape = (
            value.shape if value is not None else None for value in (node.inputs[0], node.outputs[0])
        )
        if before and shape and shape.is_static() and not before[0] == shape[0] == batch:
            found[node] = list(shape.numpy())
    return found


def _free_reshapes(model: ir.Model, batch: int, sizes: Mapping[ir.Node, list[int]]) -> None:
    """A Reshape that an exporter wrote for one fixed batch follows the batch instead.

    Where the batch is, there may be parts of each image: windows that a layer looks at one by one. `sizes` is what
    the Reshapes into these and back gave for the batch.
    """
    for node in model.graph:
        if node.op_type != "Reshape":
            continue
        target = constant_array(node.inputs[1])
        if target is None or target.size == 0:
            continue
        if node in sizes and target.size > 2 and sizes[node][0] % max(batch, 1) == 0:
            target = np.array(sizes[node], np.int64)
        elif int(target[0]) != batch:
            continue
        freed = target.copy()
        freed[0] = 0 if -1 in target[1:] else -1
        if freed[0] == 0 and 0 not in target[1:]:
            node.attributes.pop("allowzero", None)  # by which 0 would be a size, and not the batch's
        name = f"{node.name or node.outputs[0].name}.shape"
        value = ir.Value(name=name, const_value=ir.tensor(freed, name=name))
        value.shape, value.dtype = ir.Shape(freed.shape), ir.DataType.INT64
        model.graph.initializers[name] = value
        node.replace_input_with(1, value)


def _bypass(model: ir.Model, node: ir.Node) -> None:
    x, y = node.inputs[0], node.outputs[0]
    assert x is not None
    if y.is_graph_output() and (x.is_graph_input() or x.is_initializer()):
        return
    if y.is_graph_output():
        name, y.name = y.name, None
        x.name = name
    y.replace_all_uses_with(x, replace_graph_outputs=True)
    model.graph.remove(node, safe=True)


def _remove_dropout(model: ir.Model) -> None:
    for node in list(model.graph):
        if node.op_type == "Dropout" and (len(node.outputs) < 2 or not node.outputs[1].uses()):
            _bypass(model, node)


def _remove_casts_to_same_type(model: ir.Model) -> None:
    for node in list(model.graph):
        x = node.inputs[0] if node.inputs else None
        if node.op_type == "Cast" and x is not None and x.dtype == attribute(node, "to"):
            _bypass(model, node)


def _require_pads(model: ir.Model, where: str) -> None:
    """Raise ModelError naming a node whose padding follows from an image of unknown size."""
    for node in model.graph:
        if (
            node.op_type in ("Conv", "MaxPool", "AveragePool")
            and attribute(node, "auto_pad", "NOTSET") != "NOTSET"
        ):
            raise ModelError(
                f"{where}: the size of '{node.name}' is not known, so its padding is not either."
            )


def _free_names(model: ir.Model) -> None:
    """Give tensors of other layers another name where they are called as the head's are in every bundle."""
    graph = model.graph
    classifier = set()
    node = graph.outputs[0].producer()
    while (
        node is not None
        and node.op_type in PROBABILITIES | {"Add", "Gemm", "MatMul"}
        and node not in classifier
    ):
        classifier.add(node)
        node = node.inputs[0].producer() if node.inputs[0] is not None else None
    for name in (Head.weight, Head.bias):
        value = graph.initializers.get(name)
        if value is not None and not classifier.issuperset(value.consumers()):
            del graph.initializers[name]
            while name in graph.initializers or name in (Head.weight, Head.bias):
                name += ".source"
            value.name = name
            graph.initializers[name] = value


def _tidy(model: ir.Model) -> None:
    passes.IdentityEliminationPass()(model)
    passes.RemoveUnusedNodesPass()(model)
    passes.ClearMetadataAndDocStringPass()(model)
    passes.TopologicalSortPass()(model)
    taken = {node.name for node in model.graph}
    seen: set[str | None] = set()
    for position, node in enumerate(model.graph):
        if not node.name or node.name in seen:
            name = f"{node.name or node.op_type}_{position}"
            node.name = name if name not in taken else f"{name}_{node.outputs[0].name}"
        seen.add(node.name)
    model.functions.clear()
