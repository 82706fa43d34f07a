"""`pool(x).squeeze()`: a Squeeze without axes leaves out the axes of 1 beside the batch, and the batch stays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from numpy.typing import NDArray
from onnx_text import model
from preparing import HEAD, IMAGE, buildable, images, outputs

from csk_artifacts_builder.graphs.head import split_head
from csk_artifacts_builder.prepare.model import SourceModel, prepare
from csk_sdk.errors import ModelError

LAYERS = "c = Conv(x, w) \n r = Relu(c) \n t = Conv(r, v)"
POOL = "p = GlobalAveragePool(t) \n f = Squeeze(p)"
GEMM = "y = Gemm<transB=1>(f, h, hb)"
PRODUCT = "m = MatMul(f, g) \n {} = Add(hb, m)"
HEAD_OF_MAPS = "s = Conv(t, {k}) \n p = GlobalAveragePool(s) \n y = Squeeze(p)"
TENSORS = HEAD | {
    "g": HEAD["h"].T,
    "k": np.random.default_rng(3).normal(size=(3, 5, 1, 1)),
    "only": np.random.default_rng(4).normal(size=(1, 5, 1, 1)),
    "flat": np.array([1, 5]),
    "zero": np.array([0]),
    "order": np.array([4, 2, 0, 1, 3]),
}


def source(tail: str, batch: str, output: str | None = None, opset: int = 17) -> onnx.ModelProto:
    nodes = f"{LAYERS} \n {tail}"
    given = {name: array for name, array in TENSORS.items() if f"{name})" in nodes or f"{name}," in nodes}
    out = output or f"float[{batch},3] y"
    return model(f"(float[{batch},{IMAGE}] x) => ({out}) {{ {nodes} }}", opset, **given)


def compared(proto: onnx.ModelProto, folder: Path, batch: int) -> SourceModel:
    """Images of a batch of the file's own size, by ONNX Runtime; all at once, by what it became."""
    onnx.save(proto, folder / "model.onnx")
    result = prepare(folder / "model.onnx")
    x = images(2 * batch)
    scores: list[NDArray] = [outputs(proto, part).reshape(batch, -1) for part in np.split(x, 2)]
    found = outputs(ir.to_proto(result.model), x)
    np.testing.assert_allclose(found, np.concatenate(scores), rtol=1e-4, atol=1e-5)
    return result


@pytest.mark.parametrize(
    ("tail", "batch", "output"),
    [
        (f"{POOL} \n {GEMM}", "N", None),
        (f"{POOL} \n {GEMM}", "2", None),
        (f"{POOL} \n {PRODUCT.format('y')}", "1", "float[3] y"),
        (f"{POOL} \n {PRODUCT.format('l')} \n y = Softmax<axis=0>(l)", "1", "float[3] y"),
        (f"{POOL} \n {PRODUCT.format('l')} \n y = LogSoftmax<axis=-1>(l)", "1", "float[3] y"),
        (HEAD_OF_MAPS.format(k="k"), "N", None),
        (HEAD_OF_MAPS.format(k="k"), "2", None),
        (HEAD_OF_MAPS.format(k="k"), "1", "float[3] y"),
        (
            f"p = GlobalAveragePool(t) \n f = Flatten(p) \n {GEMM.replace('y', 'l')} \n y = Squeeze(l)",
            "2",
            None,
        ),
        (
            f"p = GlobalAveragePool(t) \n f = Flatten(p) \n {GEMM.replace('y', 'l')} \n y = Squeeze(l)",
            "1",
            "float[3] y",
        ),
        *(
            (
                f"p = GlobalAveragePool(t) \n f = Flatten(p) \n {GEMM.replace('y', 'l')} \n {end}",
                "1",
                "float[3] y",
            )
            for end in ("y = Squeeze(l, zero)", "s = Squeeze(l, zero) \n y = Softmax<axis=0>(s)")
        ),
        (f"{POOL} \n {PRODUCT.format('l')} \n y = Unsqueeze(l, zero)", "1", None),
        (f"{POOL} \n i = Reshape(f, flat) \n y = Gemm<transB=1>(i, h, hb)", "1", None),
    ],
    ids=[
        *("dynamic", "two", "one", "one-softmax", "one-log-softmax", "maps", "maps-two", "maps-one"),
        *("scores-two", "scores-one", "batch", "batch-softmax", "put-back", "put-back-by-its-size"),
    ],
)
def test_a_squeeze_without_axes(tmp_path: Path, tail: str, batch: str, output: str | None) -> None:
    result = compared(source(tail, batch, output), tmp_path, 2 if batch == "N" else int(batch))
    buildable(result, tmp_path)
    said = "output 'y' [3] has no batch: the bundle, and what is exported of it, give [N,3], a row for each image."
    assert result.notes == ((said,) if output else ())


def test_a_squeeze_of_what_no_batch_can_follow_is_refused(tmp_path: Path) -> None:
    """A Gather along the one axis that is left is no op that means the same of a batch of vectors."""
    tail = f"{POOL} \n i = Gather(f, order) \n m = MatMul(i, g) \n y = Add(hb, m)"
    onnx.save(source(tail, "1", "float[3] y"), tmp_path / "model.onnx")
    with pytest.raises(ModelError, match=r"says no axes, and \.squeeze\(\) takes the batch away, too"):
        split_head(prepare(tmp_path / "model.onnx").model, "model.onnx")
