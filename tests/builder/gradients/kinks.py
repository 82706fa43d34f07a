"""The gradient of every op at its kinks: the table of docs/gradients.md, the same in both backends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as passes
from numpy.typing import NDArray
from onnx_text import model

from csk_artifacts_builder.prepare.pools import write_windows


@dataclass(frozen=True)
class Kink:
    """`call` over `x` (and `x2`, `x3`), each one row of an image; `dx` is the gradient of each for a `g` of ones."""

    op: str
    case: str
    call: str
    x: Sequence[Sequence[float]]
    dx: Sequence[Sequence[float]]
    tensors: Mapping[str, NDArray] = field(default_factory=dict)
    shape: str = "1,1,1,{n}"
    wide: str = ""
    front: str = ""

    def __str__(self) -> str:
        return f"{self.op}-{self.case}"

    def forward(self) -> ir.Model:
        """The graph as a build differentiates it: the windows of pools are written as numbers."""
        graph = ir.from_proto(model(self.text, **self.tensors))
        passes.ShapeInferencePass()(graph)
        write_windows(graph, str(self))
        passes.NameFixPass()(graph)
        return graph

    @property
    def text(self) -> str:
        """The graph in ONNX text."""
        dims = self.shape.format(n=len(self.x[0]))
        names = ("x", "x2", "x3")[: len(self.x)]
        typed = ", ".join(f"float[{dims}] {name}" for name in names)
        return f"({typed}) => (float[{self.out}] y) {{ {self.front} y = {self.call} }}"

    @property
    def out(self) -> str:
        """The shape of `y`: that of `x`, or a wider one, or one number of what reduces."""
        reduces = self.op in ("ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2", "GlobalMaxPool", "MaxPool")
        return self.wide or ("1,1,1,1" if reduces else self.shape.format(n=len(self.x[0])))

    @property
    def feeds(self) -> dict[str, NDArray[np.float32]]:
        """The inputs."""
        dims = [int(dim) for dim in self.shape.format(n=len(self.x[0])).split(",")]
        return {
            name: np.array(values, np.float32).reshape(dims)
            for name, values in zip(("x", "x2", "x3"), self.x, strict=False)
        }


def kink(op: str, case: str, call: str, x: Sequence[float], dx: Sequence[float], **tensors: object) -> Kink:
    """One of a single input."""
    return Kink(op, case, call, [x], [dx], {name: np.array(value) for name, value in tensors.items()})


SIGNS = [-1.0, 0.0, 1.0]
SELU = 1.6732632423543772 * 1.0507009873554805

KINKS = [
    kink("Relu", "0 at 0", "Relu(x)", SIGNS, [0, 0, 1]),
    kink("Clip", "0 at both bounds", "Clip(x, a, b)", [-1, 0, 3, 6, 7], [0, 0, 1, 0, 0], a=0.0, b=6.0),
    kink("Clip", "bounds other than 0", "Clip(x, a, b)", [-1, 0.3, 2, 2.7, 3], [0, 0, 1, 0, 0], a=0.3, b=2.7),
    kink("Clip", "a lower bound", "Clip(x, a)", [-1, 0.5, 1], [0, 0, 1], a=0.5),
    kink("Clip", "an upper bound", "Clip(x, , b)", [-1, 0.5, 1], [1, 0, 0], b=0.5),
    kink("Clip", "no bound", "Clip(x)", SIGNS, [1, 1, 1]),
    kink("HardSigmoid", "0 at both", "HardSigmoid<alpha=0.25, beta=0.5>(x)", [-2, 0, 2], [0, 0.25, 0]),
    kink("HardSwish", "0 at -3, 1 at 3", "HardSwish(x)", [-4, -3, 0, 3, 4], [0, 0, 0.5, 1, 1]),
    kink("LeakyRelu", "the left slope", "LeakyRelu<alpha=0.1>(x)", SIGNS, [0.1, 0.1, 1]),
    kink("PRelu", "the left slope", "PRelu(x, s)", SIGNS, [0.25, 0.25, 1], s=[0.25]),
    Kink("PRelu", "of the slope", "PRelu(x, x2)", [SIGNS, [0.25] * 3], [[0.25, 0.25, 1], [-1, 0, 0]]),
    kink("Elu", "the left slope", "Elu<alpha=2.0>(x)", [0, 1], [2, 1]),
    kink("Selu", "the left slope", "Selu(x)", [0, 1], [SELU, 1.0507009873554805]),
    kink("Celu", "1 on both sides", "Celu<alpha=2.0>(x)", [0, 1], [1, 1]),
    kink("Abs", "0 at 0", "Abs(x)", SIGNS, [-1, 0, 1]),
    kink("Max", "with 0, as Relu", "Max(x, z)", SIGNS, [0, 0, 1], z=0.0),
    kink("Max", "with 0 on the left", "Max(z, x)", SIGNS, [0, 0, 1], z=[0.0]),
    kink("Max", "with zeros of its shape", "Max(x, z)", SIGNS, [0, 0, 1], z=np.zeros((1, 1, 1, 3))),
    Kink(
        "Max",
        "with zeros wider than x",
        "Max(x, z)",
        [SIGNS],
        [[0, 0, 2]],
        {"z": np.zeros((1, 1, 2, 1))},
        wide="1,1,2,3",
    ),
    kink("Min", "with 0", "Min(x, z)", SIGNS, [1, 0, 0], z=0.0),
    kink("Max", "with another constant", "Max(x, z)", [0, 1, 2], [0, 0.5, 1], z=1.0),
    kink("Min", "with another constant", "Min(z, x)", [0, 1, 2], [1, 0.5, 0], z=1.0),
    kink("Max", "with some zeros", "Max(x, z)", [0, 1, 2, -1, 0], [0, 0.5, 1, 0, 0], z=[0.0, 1, 1, 0, 1]),
    kink("Min", "with some zeros", "Min(z, x)", [0, 1, 2, -1, 0], [0, 0.5, 0, 1, 1], z=[0.0, 1, 1, 0, 1]),
    kink(
        "Max",
        "with zeros of two",
        "Max(x, z, k)",
        [0, 0, 1, 1],
        [0, 0, 1 / 3, 1],
        z=[0.0, -1, 1, 0.5],
        k=[-1.0, 0, 1, 0],
    ),
    Kink(
        "Max",
        "with some zeros wider than x",
        "Max(x, z)",
        [SIGNS],
        [[0.5, 1, 2]],
        {"z": np.array([[[[0.0], [-1.0]]]])},
        wide="1,1,2,3",
    ),
    Kink(
        "Max",
        "of two with some zeros",
        "Max(x, z, x2)",
        [[0, 1, -1, 2], [0, 1, -2, 2]],
        [[0, 1 / 3, 0, 0.5], [0, 1 / 3, 0, 0.5]],
        {"z": np.array([0.0, 1, 0, -1])},
    ),
    kink("Max", "of one", "Max(x)", SIGNS, [1, 1, 1]),
    kink("Max", "of the same", "Max(x, x)", SIGNS, [1, 1, 1]),
    kink("Min", "of the same", "Min(x, x)", SIGNS, [1, 1, 1]),
    *(
        Kink(op, "of two", f"{op}(x, x2)", [[0, 1, -2, 2], [0, 1, -2, 2]], [[0.5] * 4, [0.5] * 4])
        for op in ("Max", "Min")
    ),
    *(
        Kink(
            op,
            "of three",
            f"{op}(x, x2, x3)",
            [[1, 1, 0], [1, 1, 0], [1, other, 0]],
            [[1 / 3, 0.5, 1 / 3], [1 / 3, 0.5, 1 / 3], [1 / 3, 0, 1 / 3]],
        )
        for op, other in (("Max", 0), ("Min", 2))
    ),
    Kink(
        "Max",
        "of two with 0",
        "Max(x, z, x2)",
        [[0, 1, -1], [0, 1, -2]],
        [[0, 0.5, 0], [0, 0.5, 0]],
        {"z": np.array(0.0)},
    ),
    kink("ReduceMax", "shared", "ReduceMax<axes=[3]>(x)", [1, 3, 3, 0], [0, 0.5, 0.5, 0]),
    kink("ReduceMin", "shared", "ReduceMin<axes=[3]>(x)", [1, 3, 1, 1], [1 / 3, 0, 1 / 3, 1 / 3]),
    kink("ReduceL1", "0 at 0", "ReduceL1<axes=[3]>(x)", SIGNS, [-1, 0, 1]),
    kink("ReduceL2", "0 where all are 0", "ReduceL2<axes=[3]>(x)", [0, 0], [0, 0]),
    kink("GlobalMaxPool", "shared", "GlobalMaxPool(x)", [2, 1, 2], [0.5, 0, 0.5]),
    Kink(
        "MaxPool",
        "to the first of a window, row by row",
        "MaxPool<kernel_shape=[2,2]>(x)",
        [[1, 2, 2, 2]],
        [[0, 1, 0, 0]],
        shape="1,1,2,2",
    ),
    *(
        Kink(
            "MaxPool",
            f"of zeros by a Pad {where}",
            f"MaxPool<kernel_shape=[{kernel}]>(q)",
            [x],
            [dx],
            {"around": np.array(around)},
            shape="1,1,2,2",
            front="q = Pad(x, around)",
        )
        for where, around, kernel in (
            ("in front", [0, 0, 1, 0, 0, 0, 0, 0], "3,2"),
            ("behind", [0, 0, 0, 0, 0, 0, 1, 1], "3,3"),
            ("wider than a pool's", [0, 0, 4, 4, 0, 0, 1, 1], "7,7"),
        )
        for x, dx in (([0, -1, -2, 0], [0, 0, 0, 0]), ([-1, 0, 2, 2], [0, 0, 1, 0]))
    ),
    Kink(
        "MaxPool",
        "of zeros by a Pad in some windows",
        "MaxPool<kernel_shape=[2,2], strides=[2,2]>(q)",
        [[0, -1, 0, 0, -1, 0, 0, -1]],
        [[0, 0, 1, 0, 0, 0, 0, 0]],
        {"around": np.array([0, 0, 0, 1, 0, 0, 0, 1])},
        shape="1,1,2,4",
        wide="1,1,1,3",
        front="q = Pad(x, around)",
    ),
]
