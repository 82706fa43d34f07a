"""A small network, written node by node; shapes come from the reference, on a probe of two images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import torch
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from reference import OPS, Node, as_tensor

CLASSES = 3
FIRST, LAST = "first_w", "last_w"


class Network:
    """Nodes so far; `draw` chooses (hypothesis), `rng` gives the values of constants."""

    def __init__(self, draw: st.DrawFn, opset: int, image: tuple[int, ...]) -> None:
        self.draw, self.opset, self.image = draw, opset, image
        self.rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, np.ndarray] = {}
        self._values = {"x": as_tensor(self.rng.normal(size=(2, *image)))}

    def integer(self, low: int, high: int) -> int:
        return self.draw(st.integers(low, high))

    def one_of(self, *choices: Any) -> Any:
        return self.draw(st.sampled_from(choices))

    def coin(self) -> bool:
        return self.draw(st.booleans())

    def number(self, low: float, high: float) -> float:
        return round(self.draw(st.floats(low, high)), 3)

    def shape(self, name: str) -> tuple[int, ...]:
        """Of the tensor for two images."""
        return tuple(self._values[name].shape)

    def constant(self, array: Any, dtype: Any = np.float32, name: str = "") -> str:
        name = name or f"c{len(self.constants)}"
        self.constants[name] = np.asarray(array, dtype)
        self._values[name] = as_tensor(self.constants[name])
        return name

    def ints(self, values: Sequence[int]) -> str:
        return self.constant(values, np.int64)

    def normal(self, *shape: int, scale: float = 1.0, name: str = "") -> str:
        return self.constant(self.rng.normal(scale=scale, size=shape), name=name)

    def add(self, op: str, *inputs: str, outputs: int = 1, **attributes: Any) -> str:
        return self.add_all(op, *inputs, outputs=outputs, **attributes)[0]

    def add_all(self, op: str, *inputs: str, outputs: int, **attributes: Any) -> list[str]:
        attributes = {name: value for name, value in attributes.items() if value is not None}
        names = [f"t{len(self.nodes)}_{number}" for number in range(outputs)]
        self.nodes.append(helper.make_node(op, list(inputs), names, f"{op}_{len(self.nodes)}", **attributes))
        given = (self._values[name] if name else None for name in inputs)
        made = OPS[op](Node(op, self.opset, attributes, outputs), *given)
        made = (made,) if isinstance(made, torch.Tensor) else made
        self._values.update(zip(names, made, strict=True))
        return names

    def conv(self, x: str, weight: str) -> str:
        """A 3x3 convolution that keeps the size and can be trained."""
        channels, made = self.shape(x)[1], self.integer(2, 4)
        w = self.normal(made, channels, 3, 3, scale=0.6 / channels**0.5, name=weight)
        return self.add("Conv", x, w, self.normal(made, scale=0.5), pads=[1, 1, 1, 1])

    def finish(self, x: str) -> onnx.ModelProto:
        """Flatten, a linear layer, and the checked model."""
        flat = self.add("Flatten", x)
        features = self.shape(flat)[1]
        w = self.normal(CLASSES, features, scale=features**-0.5, name="head_w")
        b = self.normal(CLASSES, scale=0.1, name="head_b")
        self.nodes.append(helper.make_node("Gemm", [flat, w, b], ["y"], "head", transB=1))
        value = helper.make_tensor_value_info
        graph = helper.make_graph(
            self.nodes,
            "sweep",
            [value("x", TensorProto.FLOAT, ["N", *self.image])],
            [value("y", TensorProto.FLOAT, ["N", CLASSES])],
            [numpy_helper.from_array(array, name) for name, array in self.constants.items()],
        )
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8)
        onnx.checker.check_model(made, full_check=True)
        return made
