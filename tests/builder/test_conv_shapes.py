"""Shapes written at convolutions, against those of the arrays that really come there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
import small_network
from networks import NETWORKS
from small_network import Network

from csk_artifacts_builder.graphs.head import split_head
from csk_artifacts_builder.graphs.models import training_model
from csk_artifacts_builder.measure.conv_shapes import write_conv_shapes
from csk_artifacts_builder.prepare.model import prepare
from csk_artifacts_builder.sites import find_sites
from csk_sdk.contract.manifest import Head


@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.name)
def test_every_convolution_of_a_step_has_the_shapes_that_come(network: Network, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(network.proto(), path)
    source = prepare(path)
    head = Head(split_head(source.model, path.name).weight.shape[1])
    sites = find_sites(source.model, path.name)
    graph = training_model(source.model, sites, head, path.name)
    write_conv_shapes(graph)

    proto = ir.to_proto(graph)
    written = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*proto.graph.value_info, *proto.graph.input)
    }
    written |= {tensor.name: list(tensor.dims) for tensor in proto.graph.initializer}
    # Every convolution but the branches at the centers, whose kernels come from the device.
    constants = {tensor.name for tensor in proto.graph.initializer}
    frozen = []
    for node in proto.graph.node:
        if node.op_type == "Conv" and node.input[1] in constants:
            frozen.append(node)
        if node.input and constants.issuperset(node.input):
            constants.update(node.output)
    assert len(frozen) >= len(sites)
    watched = sorted({name for node in frozen for name in node.input[:2]})
    del proto.graph.output[:]
    for name in watched:
        proto.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))

    rng = np.random.default_rng(0)
    feeds = {
        "image": small_network.pictures(network, 5, 0),
        "label": rng.integers(network.classes, size=5),
        head.weight: rng.normal(size=(network.classes, head.features)).astype(np.float32),
        head.bias: np.zeros(network.classes, np.float32),
    }
    for site in sites:
        feeds[site.indices] = np.arange(site.columns)
        feeds[site.delta] = rng.normal(0, 0.1, (site.rows, site.columns)).astype(np.float32)
    session = ort.InferenceSession(proto.SerializeToString())
    fed = {value.name: feeds[value.name] for value in session.get_inputs() if value.name in feeds}
    for name, array in zip(watched, session.run(watched, fed), strict=True):
        assert written[name][1:] == list(array.shape[1:]), name
