"""int8 graphs that open with wide sums as a runtime opens them by itself, every optimizer at work.

ONNX Runtime copies each kernel and zero point by its name then, and fails where two convolutions have one in common.
That it does so only on CPUs whose sums saturate is why the names themselves are looked at.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from networks import NETWORKS, PLAIN, chain
from numpy.typing import NDArray
from small_network import Network, pictures

from csk_artifacts_builder.graphs.choice import choose_sites
from csk_artifacts_builder.graphs.head import split_head
from csk_artifacts_builder.graphs.models import training_model
from csk_artifacts_builder.int8.quantize import quantize, unmeasured
from csk_artifacts_builder.prepare.model import prepare
from csk_artifacts_builder.sites import find_sites
from csk_sdk.contract.manifest import Head

# One kernel for two layers, forward and backward, and without a bias nothing else tells them apart.
TIED = Network(
    "tied",
    """
    v1 = Conv <pads=[1,1,1,1]> (x, first_w)
    a1 = Tanh(v1)
    v2 = Conv <pads=[1,1,1,1]> (a1, tied_w)
    a2 = Tanh(v2)
    v3 = Conv <pads=[1,1,1,1]> (a2, tied_w)
    a3 = Tanh(v3)
    v4 = Conv <pads=[1,1,1,1]> (a3, last_w)
    g = GlobalAveragePool(v4)
    f = Flatten(g)
    y = Gemm <transB=1> (f, head_w, head_b)
    """,
    {
        "first_w": (4, 3, 3, 3),
        "tied_w": (4, 4, 3, 3),
        "last_w": (4, 4, 3, 3),
        "head_w": (3, 4),
        "head_b": (3,),
    },
)
# Zero points of a single number, and a stride that makes four phases of one kernel.
NARROW = chain(
    "narrow",
    "Tanh",
    ((1, 3, 3, 3), PLAIN),
    ((4, 1, 3, 3), "<pads=[1,1,1,1], strides=[2,2]>"),
    ((1, 4, 3, 3), PLAIN),
    ((1, 1, 3, 3), PLAIN),
)


def quantized(network: Network, folder: Path) -> tuple[bytes, dict[str, NDArray]]:
    """A network's training model in int8, by made-up ranges, and something to feed it."""
    path = folder / "model.onnx"
    onnx.save(network.proto(), path)
    source = prepare(path)
    split = split_head(source.model, path.name)
    head = Head(split.weight.shape[1], source_weight=split.weight_name, source_bias=split.bias_name)
    order = [str(node.name) for node in source.model.graph]
    sites = choose_sites(find_sites(source.model, path.name), "all", order, path.name).sites
    model = training_model(source.model, sites, head, path.name)
    quantize(model, unmeasured(model, head.weight), head.weight)
    feeds: dict[str, NDArray] = {
        "image": pictures(network, 4, 0),
        "label": np.arange(4) % network.classes,
        head.weight: split.weight,
        head.bias: split.bias,
    }
    for site in sites:
        feeds[site.indices] = np.arange(site.columns)
        feeds[site.delta] = np.zeros((site.rows, site.columns), np.float32)
    return ir.to_proto(model).SerializeToString(), feeds


@pytest.mark.parametrize("network", [*NETWORKS, TIED, NARROW], ids=lambda network: network.name)
def test_no_two_convolutions_share_what_wide_sums_copy_by_name(network: Network, tmp_path: Path) -> None:
    model, _ = quantized(network, tmp_path)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    convolutions = [
        node for node in onnx.load(tmp_path / "optimized.onnx").graph.node if node.op_type == "QLinearConv"
    ]
    assert len(convolutions) > 1
    for what, position in (("kernel", 3), ("zero point", 5)):
        shared = {
            name: count
            for name, count in Counter(n.input[position] for n in convolutions).items()
            if count > 1
        }
        assert not shared, f"{what}s of several convolutions: {shared}"


@pytest.mark.slow
@pytest.mark.parametrize("network", [*NETWORKS, TIED, NARROW], ids=lambda network: network.name)
def test_graphs_open_with_wide_sums_and_give_what_they_gave(network: Network, tmp_path: Path) -> None:
    model, feeds = quantized(network, tmp_path)
    runs = []
    # The other way to have wide sums: no two nodes are merged.
    for left_out in ([], ["CommonSubexpressionElimination"]):
        options = ort.SessionOptions()
        options.add_session_config_entry("session.x64quantprecision", "1")
        session = ort.InferenceSession(
            model, options, providers=["CPUExecutionProvider"], disabled_optimizers=left_out
        )
        taken = {value.name: feeds[value.name] for value in session.get_inputs() if value.name in feeds}
        runs.append(session.run(None, taken))
    # What stays float32 may be fused in another way, and so round in another: by a last digit.
    for one, other in zip(*runs, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-6 * max(1.0, float(np.abs(other).max())))
