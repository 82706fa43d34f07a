"""What the runtime may keep between two runs, and what it may not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

RUN = """
import re, sys
import numpy as np
from pathlib import Path
from csk_sdk.runtime.sessions import Graph, load_onnxruntime
load_onnxruntime()
def resident(field):
    found = re.search(rf"^{field}:\\s+(\\d+) kB", Path("/proc/self/status").read_text(), re.M)
    return int(found[1]) * 1024
graph = Graph(Path(sys.argv[1]), threads=1)
x = np.ones((1, 1 << 18), np.float32)
before = resident("VmRSS")
outputs = graph.run({"x": x}, release=len(sys.argv) > 2)
kept = outputs["y"]
del graph, outputs
print(resident("VmHWM") - before, resident("VmRSS") - before, kept.sum())
"""
MIB = 1 << 20


def measured(path: Path, *release: str) -> tuple[int, int]:
    """Peak of a run, and what is left when the graph is dropped and its output kept, in bytes."""
    done = subprocess.run(
        [sys.executable, "-c", RUN, path, *release], capture_output=True, text=True, check=True
    )
    peak, left, _ = done.stdout.split()
    return int(peak), int(left)


def saved(path: Path, nodes: list[onnx.NodeProto], sizes: list[int]) -> Path:
    shape = helper.make_tensor_value_info("y", TensorProto.FLOAT, sizes)
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1 << 18])
    onnx.save(
        helper.make_model(
            helper.make_graph(nodes, "g", [x], [shape]),
            opset_imports=[helper.make_opsetid("", 17)],
            ir_version=8,
        ),
        path,
    )
    return path


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="VmHWM is Linux's")
def test_a_forward_buffer_does_not_wait_for_a_gradient_of_its_shape(tmp_path):
    # Shapes are all distinct in the forward pass, as DenseNet's are, and come back in the backward pass.
    node = helper.make_node
    layers = 12
    nodes, last = [], "x"
    for number, width in enumerate([*range(1, layers + 1), *range(layers, 0, -1)]):
        y = "y" if number == 2 * layers - 1 else f"y{number}"
        nodes += [
            node("Mul", ["x", last], [f"x{number}"]),
            node("Concat", [f"x{number}"] * width, [f"c{number}"], axis=1),
            node("ReduceMean", [f"c{number}"], [y]),
        ]
        last = y
    peak, _ = measured(saved(tmp_path / "m.onnx", nodes, [1, 1]))
    # The largest has 12 MiB; all of the first half together have 78.
    assert peak < 50 * MIB


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="VmHWM is Linux's")
def test_an_output_that_is_kept_does_not_keep_the_arena(tmp_path):
    node = helper.make_node
    nodes = [
        node("Concat", ["x"] * 24, ["c"], axis=1),
        node("Exp", ["c"], ["e"]),
        node("ReduceMean", ["e"], ["y"]),
    ]
    path = saved(tmp_path / "m.onnx", nodes, [1, 1])
    peak, left = measured(path, "release")
    assert peak > 24 * MIB
    assert left < 8 * MIB
