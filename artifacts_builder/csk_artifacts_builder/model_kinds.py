"""What a model is that is no classifier of whole images, said by what its graph shows."""

from __future__ import annotations

import onnx_ir as ir

CLASSIFIERS_ONLY = "csk-sdk teaches classifiers new classes: models with one answer for each image or signal."
_RECURRENT = {"GRU", "LSTM", "RNN"}
_ELEMENTWISE = {"Identity", "Sigmoid", "Tanh"}
_LINEAR = {"Add", "Gemm", "MatMul"}
_BETWEEN = {"Flatten", "Identity", "LogSoftmax", "Reshape", "Softmax", "Transpose"}
# A transformer has few convolutions, which cut the image into patches, and as many products of a softmax as layers.
_FEW_CONVOLUTIONS = 4


def kind_of(model: ir.Model) -> str | None:
    """ "a detector: its output ... has a box dimension" and the like; None where nothing is known of it."""
    return _detector(model) or _by_place(model) or _transformer(model)


def _detector(model: ir.Model) -> str | None:
    suppression = next((node for node in model.graph if node.op_type == "NonMaxSuppression"), None)
    if suppression is not None:
        return f"a detector: it chooses among boxes (op 'NonMaxSuppression', node '{suppression.name}')"
    for value in model.graph.outputs:
        shape = _shape(value)
        if len(shape) == 3 and not _ends_in_classes(model, value):
            return f"a detector: its output {_said(value)} has a box dimension"
    return None


def _by_place(model: ir.Model) -> str | None:
    """A recogniser of text or speech, a segmenter, or a table of numbers: one answer for each place."""
    for value in model.graph.outputs:
        shape = _shape(value)
        if len(shape) == 3 and _is_table(value):
            return f"a model of many numbers (landmarks, boxes): its output {_said(value)} is a table of them"
        if len(shape) == 3:
            return (
                f"a recogniser of sequences (text, speech): its output {_said(value)} tells a class at each of many "
                "places"
            )
        if len(shape) == 4 and any(size != 1 for size in shape[2:]):
            return (
                f"a model of maps (a segmenter, an autoencoder, a part of a detector): its output {_said(value)} has "
                "an answer for every place of the image"
            )
    return None


def _is_table(value: ir.Value) -> bool:
    """Whether it is a row of numbers an image, in another shape."""
    node = value.producer()
    while node is not None and node.op_type in _ELEMENTWISE and node.inputs[0] is not None:
        node = node.inputs[0].producer()
    if node is None or node.op_type != "Reshape" or node.inputs[0] is None:
        return False
    row = node.inputs[0].producer()
    return len(_shape(node.inputs[0])) == 2 or (row is not None and row.op_type == "Gemm")


def _said(value: ir.Value) -> str:
    """Its name and shape; N or ? where the file has no name of a size."""
    sizes = [str(size) for size in _shape(value)]
    named = [size not in ("None", "?") and not size.startswith("unk__") for size in sizes]
    shown = (
        size if own else "?" if place else "N"
        for place, (size, own) in enumerate(zip(sizes, named, strict=True))
    )
    return f"'{value.name}' [{','.join(shown)}]"


def _ends_in_classes(model: ir.Model, value: ir.Value) -> bool:
    """Whether a linear layer or a recurrent one gives the output, with nothing but a softmax or its like behind."""
    if any(node.op_type in _RECURRENT for node in model.graph):
        return True
    node = value.producer()
    while node is not None and node.op_type in _BETWEEN and node.inputs[0] is not None:
        node = node.inputs[0].producer()
    return node is not None and node.op_type in _LINEAR


def _transformer(model: ir.Model) -> str | None:
    convolutions = sum(node.op_type == "Conv" for node in model.graph)
    layers = sum(node.op_type in ("Attention", "MultiHeadAttention") for node in model.graph)
    for node in model.graph:
        if node.op_type == "Softmax":
            layers += any(user.op_type == "MatMul" for user in node.outputs[0].consumers())
    if not layers or convolutions > _FEW_CONVOLUTIONS:
        return None
    said = (
        f"a transformer: {layers} attention {'layer holds' if layers == 1 else 'layers hold'} what it knows"
    )
    return said + (", and its convolution only cuts the image into patches" if convolutions else "")


def _shape(value: ir.Value) -> list[int | ir.SymbolicDim]:
    return list(value.shape) if value.shape is not None else []
