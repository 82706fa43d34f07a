"""From the file an exporter wrote to the graph that the method works on.

After `prepare`: opset 17, float32, channels first, dynamic batch, static picture size or signal length, no batch norm,
no dropout, no identity, constants folded, every value's shape known, a linear layer as the classifier. Its logits are
those of the source model.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx_ir as ir
import onnx_ir.passes.common as passes
from onnxscript import optimizer

from csk_artifacts_builder.emit import attribute, constant_array
from csk_artifacts_builder.prepare.constant_sizes import fold_sizes, gather_to_reshape, infer_where_possible
from csk_artifacts_builder.prepare.fold_batch_norm import fold_batch_norm
from csk_artifacts_builder.prepare.interface import Interface, is_channels_last, take_channels_first
from csk_artifacts_builder.prepare.layer_norm import recognise_layer_norms
from csk_artifacts_builder.prepare.linear_head import to_linear_head
from csk_artifacts_builder.prepare.opset import downgrade, upgrade
from csk_artifacts_builder.prepare.pools import write_windows
from csk_artifacts_builder.prepare.precision import to_float32
from csk_sdk.errors import ModelError
from csk_sdk.formats.protobuf import MAX_BYTES

BATCH = "N"
_CONTROL_FLOW = {"If", "Loop", "Scan"}
_QUANTISED = {"QuantizeLinear", "DequantizeLinear", "QLinearConv", "ConvInteger", "QLinearMatMul"}


@dataclass(frozen=True)
class SourceModel:
    """A prepared model and where it came from."""

    model: ir.Model
    path: Path
    interface: Interface

    @property
    def image(self) -> ir.Value:
        """The one input: pictures `(N, channels, height, width)` or signals `(N, channels, length)`, float32."""
        return self.model.graph.inputs[0]


def load_source(path: Path) -> onnx.ModelProto:
    """Read an ONNX file with its external data.

    Raises ModelError when there is none, it is no valid ONNX model, or one of 2 GiB or more.
    """
    if not path.is_file():
        raise ModelError(f"There is no model file {path}. Give the path of a trained ONNX classifier.")
    require_writable(path.stat().st_size, path.name)
    try:
        # By path, and first: the checker makes copies of its own, which are gone before ours is made.
        onnx.checker.check_model(str(path))
        proto = onnx.load(str(path), load_external_data=False)
    except Exception as error:
        raise _invalid(path, error) from None
    require_writable(path.stat().st_size + _external_bytes(proto, path.parent), path.name)
    try:
        onnx.load_external_data_for_model(proto, str(path.parent))
    except Exception as error:
        raise _invalid(path, error) from None
    return proto


def require_writable(count: int, where: str) -> None:
    """Raise ModelError where `count` bytes of weights do not fit into one ONNX file: protobuf ends at 2 GiB."""
    if count >= MAX_BYTES:
        raise ModelError(
            f"{where} has {count / 2**30:.1f} GiB of weights, and the model that a device exports must stay below "
            f"{MAX_BYTES >> 30} GiB, the most that an ONNX file holds. Take a smaller network of the same family."
        )


def _invalid(path: Path, error: Exception) -> ModelError:
    reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
    return ModelError(f"{path} is not a valid ONNX model ({reason}).")


def _external_bytes(proto: onnx.ModelProto, folder: Path) -> int:
    """Bytes of the tensors that lie in other files; a tensor without a length takes its whole file."""
    count = 0
    for tensor in proto.graph.initializer:
        entries = {entry.key: entry.value for entry in tensor.external_data}
        if "length" in entries:
            count += int(entries["length"])
        elif "location" in entries and (folder / entries["location"]).is_file():
            count += (folder / entries["location"]).stat().st_size
    return count


def prepare(path: Path) -> SourceModel:
    """Load `path` and bring it to the form described above.

    Raises ModelError for what cannot be prepared.
    """
    proto = load_source(path)
    where = path.name
    model = ir.from_proto(upgrade(proto, where))
    del proto
    _own_tensors(model)
    _refuse_foreign(model, where)
    passes.InlinePass()(model)
    passes.RemoveInitializersFromInputsPass()(model)
    passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    interface = _source_interface(model, where)
    image = model.graph.inputs[0]
    infer_where_possible(model)  # while the batch is what the exporter saw
    gather_to_reshape(model)
    # Before sizes are written as constants: some pools have fewer windows than onnx says of older opsets.
    write_windows(model, where)
    static_batch = _make_batch_dynamic(model, image)
    _remove_dropout(model)
    passes.IdentityEliminationPass()(model)
    if static_batch is not None:
        _free_reshapes(model, static_batch)
    passes.ShapeInferencePass()(model)
    downgrade(model, where)
    optimizer.fold_constants(model, onnx_shape_inference=True, output_size_limit=1 << 28)
    fold_sizes(model)
    _remove_casts_to_same_type(model)
    recognise_layer_norms(model)
    fold_batch_norm(model, where)
    write_windows(model, where)
    _require_pads(model, where)
    _tidy(model)
    passes.ShapeInferencePass()(model)
    if to_linear_head(model):
        _tidy(model)
        passes.ShapeInferencePass()(model)
    return SourceModel(model, path, interface)


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
        if node.op_type in _QUANTISED:
            raise ModelError(
                f"{where} is quantised: op '{node.op_type}' (node '{node.name}'). Give the float32 model "
                "that it was made from."
            )
        if node.domain not in ("", "ai.onnx") and node.op_identifier() not in model.functions:
            raise ModelError(
                f"{where} has op '{node.domain}.{node.op_type}' (node '{node.name}'), which is not a standard "
                "ONNX op. Export the model without runtime-specific fusions."
            )


def _source_interface(model: ir.Model, where: str) -> Interface:
    """Note how the source's input and output are typed and laid out, and make them float32, channels first."""
    types = [value.dtype for value in (*model.graph.inputs[:1], *model.graph.outputs[:1])]
    half = to_float32(model, where)
    image = _image_input(model, where)
    assert image.shape is not None
    channels_last = is_channels_last(image)
    if channels_last:
        take_channels_first(model)
    if not half:
        return Interface(channels_last)
    taken, given = (kind or ir.DataType.FLOAT for kind in types)
    return Interface(channels_last, taken, given, half)


def _image_input(model: ir.Model, where: str) -> ir.Value:
    inputs = list(model.graph.inputs)
    if len(inputs) != 1:
        names = ", ".join(f"'{value.name}'" for value in inputs)
        raise ModelError(f"{where} has {len(inputs)} inputs ({names}); a classifier has one input.")
    image = inputs[0]
    if image.dtype != ir.DataType.FLOAT:
        raise ModelError(f"{where} takes {image.dtype} input '{image.name}'; export it with float32 input.")
    if image.shape is None or len(image.shape) not in (3, 4):
        raise ModelError(
            f"{where}: input '{image.name}' is neither (batch, channels, height, width) nor (batch, channels, length)."
        )
    picture = len(image.shape) == 4
    if not all(isinstance(dim, int) for dim in image.shape[1:]):
        what, size = ("height or width", "picture size") if picture else ("length", "length")
        raise ModelError(
            f"{where}: input '{image.name}' has dynamic {what} {image.shape}. Export it with a fixed "
            f"{size}; only the batch may be dynamic."
        )
    if not picture and is_channels_last(image):
        raise ModelError(
            f"{where}: input '{image.name}' has its channels last in {image.shape}. Export it in "
            "(batch, channels, length) order."
        )
    return image


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


def _free_reshapes(model: ir.Model, batch: int) -> None:
    """A Reshape that an exporter wrote for one fixed batch follows the batch instead."""
    for node in model.graph:
        if node.op_type != "Reshape":
            continue
        target = constant_array(node.inputs[1])
        if target is None or target.size == 0 or int(target[0]) != batch:
            continue
        freed = target.copy()
        freed[0] = 0 if -1 in target[1:] else -1
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
    """Raise ModelError naming a node whose padding follows from a picture of unknown size."""
    for node in model.graph:
        if (
            node.op_type in ("Conv", "MaxPool", "AveragePool")
            and attribute(node, "auto_pad", "NOTSET") != "NOTSET"
        ):
            raise ModelError(
                f"{where}: the size of '{node.name}' is not known, so its padding is not either."
            )


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
