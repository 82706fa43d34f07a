"""The formulas of costs against the builder's count on the graphs, node by node, and against sums done by hand."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from bench import costs, layers
from bench.layers import Network

from csk_artifacts_builder import BuildOptions, build_artifacts
from csk_sdk.bundle.folder import Bundle
from csk_sdk.contract.manifest import Manifest

MODEL = Path(__file__).parents[2] / "examples/digits/digits-base4.onnx"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Network, Manifest]:
    folder = tmp_path_factory.mktemp("costs") / "bundle"
    build_artifacts(MODEL, folder, BuildOptions(channel_ratio=0.25, features="last"))
    manifest = Bundle.open(folder).manifest
    return layers.read(MODEL, manifest.sites, 0.25), manifest


@pytest.mark.parametrize("n", [1, 7])
def test_fine_tuning_is_as_counted(built: tuple[Network, Manifest], n: int) -> None:
    network, manifest = built
    cost = costs.fine_tuning(network, n)
    assert costs.forward(network) == manifest.costs["forward"]
    assert cost.flops == n * manifest.costs["step_full"]
    assert cost.kept == n * manifest.costs["kept_full"]
    assert cost.weights == cost.gradients == cost.optimizer == 4 * manifest.costs["parameters"]


def test_centers_are_as_counted_but_for_the_projection(built: tuple[Network, Manifest]) -> None:
    network, manifest = built
    one, two = costs.centers(network, 1), costs.centers(network, 2)
    # What does not grow with the batch is the projection, which the graph does not hold. What the graph computes more
    # is one channel of zeros in each branch, and padding of gradients through strides; this network is small.
    product = two.flops - one.flops
    assert product <= manifest.costs["step_centers"] <= 1.09 * product
    loss = 2 * 4 * len(manifest.classes)  # its probabilities, and their logarithms
    assert one.kept + loss == manifest.costs["kept_centers"]
    projection = sum(4 * s.rows * k * 0.8 * k for s in manifest.sites for k in [round(0.25 * s.columns)])
    assert 2 * one.flops - two.flops == pytest.approx(projection)


def test_int8_holds_a_quarter_of_the_frozen_kernels(built: tuple[Network, Manifest]) -> None:
    network, _ = built
    exact, int8 = costs.centers(network, 4), costs.centers_int8(network, 4)
    kernels = sum(layer.weights for layer in network.layers[:-1])
    assert exact.weights - int8.weights >= 3 * kernels
    assert (exact.flops, exact.kept, exact.optimizer) == (int8.flops, int8.kept, int8.optimizer)


def test_adam_nscl_projects_every_kernel_by_hand(built: tuple[Network, Manifest]) -> None:
    network, _ = built
    full, projected = costs.fine_tuning(network, 3), costs.adam_nscl(network, 3)
    kernels = [tensor.dims for tensor in onnx.load(MODEL).graph.initializer if len(tensor.dims) == 4]
    convolutions = [(dims[0], dims[1] * dims[2] * dims[3]) for dims in kernels]
    assert len(convolutions) == len(network.layers) - 1
    assert projected.flops - full.flops == sum(2 * rows * depth**2 for rows, depth in convolutions)
    assert projected.protection == sum(4 * depth**2 for _, depth in convolutions)
    assert projected.optimizer == 2 * full.optimizer


def test_methods_are_ordered_as_their_definitions_say(built: tuple[Network, Manifest]) -> None:
    network, _ = built
    found = {name: method(network, 8) for name, method in costs.METHODS.items()}
    assert found["ER"].flops == 2 * found["fine-tuning"].flops
    assert found["LwF"].flops == found["fine-tuning"].flops + 8 * costs.forward(network)
    assert found["head only"].flops < found["last stage"].flops < found["fine-tuning"].flops
    assert found["head only"].bytes < found["biases only (TinyTL)"].bytes < found["fine-tuning"].bytes
