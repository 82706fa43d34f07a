"""The graphs of a domain: each convolution's channels are brought to given means and deviations, and measured so.

Oracle: ONNX's reference implementation in float64, with what every convolution gives, and what becomes of it, as
outputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import small_network
from networks import NETWORKS
from numpy.typing import NDArray
from onnx import helper
from onnx.reference import ReferenceEvaluator
from onnx_text import in_float64
from small_network import Network

from csk_artifacts_builder.graphs.domain import (
    domain_channels,
    domain_model,
    domain_statistics,
    plain_statistics,
)
from csk_artifacts_builder.graphs.head import split_head
from csk_artifacts_builder.graphs.models import eval_model
from csk_artifacts_builder.measure.verify import standard_ops_only
from csk_artifacts_builder.prepare.model import prepare
from csk_sdk.contract.manifest import (
    CHANNEL_MEAN,
    CHANNEL_VARIANCE,
    DOMAIN_DEVIATION,
    DOMAIN_MEAN,
    DOMAIN_SCALE,
    DOMAIN_SHIFT,
    Head,
)
from csk_sdk.method.domains import MOST_SCALE, ChannelSum, affine

Arrays = dict[str, NDArray]
IMAGES = 24


@dataclass(frozen=True)
class Case:
    """The graphs of one network, as protobufs, and its images and the same of a hazy camera."""

    evaluating: onnx.ModelProto
    seen: onnx.ModelProto
    statistics: onnx.ModelProto
    plain: onnx.ModelProto
    channels: int
    head: Arrays
    images: NDArray
    hazy: NDArray

    def __post_init__(self) -> None:
        assert self.channels > 0


def make_case(network: Network, folder: Path) -> Case:
    onnx.save(network.proto(), folder / "model.onnx")
    source = prepare(folder / "model.onnx")
    split = split_head(source.model, "model.onnx")
    head = Head(split.weight.shape[1], source_weight=split.weight_name, source_bias=split.bias_name)
    graphs = (
        eval_model(source.model, (), head, "model.onnx"),
        domain_model(source.model, head, "model.onnx"),
        domain_statistics(source.model, "model.onnx"),
        plain_statistics(source.model, "model.onnx"),
    )
    for graph in graphs:
        standard_ops_only("graph", graph)
    images = small_network.pictures(network, IMAGES, 1)
    return Case(
        *(in_float64(ir.to_proto(graph)) for graph in graphs),
        channels=domain_channels(source.model, "model.onnx"),
        head={head.weight: split.weight.astype(float), head.bias: split.bias.astype(float)},
        images=images.astype(float),
        hazy=0.4 * images.astype(float) + 0.7,
    )


@pytest.fixture(scope="module", params=NETWORKS, ids=lambda network: network.name)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    return make_case(request.param, tmp_path_factory.mktemp(request.param.name))


def run(proto: onnx.ModelProto, feeds: Arrays, more: tuple[str, ...] = ()) -> Arrays:
    shown = onnx.ModelProto()
    shown.CopyFrom(proto)
    shown.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in more)
    names = [output.name for output in shown.graph.output]
    return dict(zip(names, ReferenceEvaluator(shown).run(None, feeds), strict=True))


def convolutions(proto: onnx.ModelProto) -> list[str]:
    return [node.output[0] for node in proto.graph.node if node.op_type == "Conv"]


def moments(values: list[NDArray]) -> tuple[NDArray, NDArray]:
    """Mean and deviation of all channels, one convolution after the other."""
    axes = [(0, *range(2, one.ndim)) for one in values]
    means = [one.mean(axis) for one, axis in zip(values, axes, strict=True)]
    deviations = [one.std(axis) for one, axis in zip(values, axes, strict=True)]
    return np.concatenate(means), np.concatenate(deviations)


def base(case: Case) -> tuple[NDArray, NDArray]:
    found = run(case.plain, {"image": case.images})
    return found[CHANNEL_MEAN], np.sqrt(found[CHANNEL_VARIANCE])


def test_without_a_change_the_features_are_the_network_s(case: Case) -> None:
    expected = run(case.evaluating, {"image": case.images, **case.head})["features"]
    ones = {DOMAIN_SCALE: np.ones(case.channels), DOMAIN_SHIFT: np.zeros(case.channels)}
    np.testing.assert_allclose(
        run(case.seen, {"image": case.images, **ones})["features"], expected, rtol=1e-9
    )


def test_the_base_is_measured_as_the_network_is(case: Case) -> None:
    names = tuple(convolutions(case.plain))
    found = run(case.plain, {"image": case.images}, names)
    mean, deviation = moments([found[name] for name in names])
    np.testing.assert_allclose(found[CHANNEL_MEAN], mean, atol=1e-9)
    np.testing.assert_allclose(np.sqrt(found[CHANNEL_VARIANCE]), deviation, rtol=1e-6, atol=1e-9)


def test_images_of_the_base_are_measured_as_the_base(case: Case) -> None:
    """What is brought to where it is stays, and so does all that follows."""
    mean, deviation = base(case)
    found = run(case.statistics, {"image": case.images, DOMAIN_MEAN: mean, DOMAIN_DEVIATION: deviation})
    np.testing.assert_allclose(found[CHANNEL_MEAN], mean, atol=1e-6)
    np.testing.assert_allclose(np.sqrt(found[CHANNEL_VARIANCE]), deviation, rtol=1e-5, atol=1e-6)


def test_images_of_a_domain_are_brought_to_the_base(case: Case) -> None:
    """Seen through what was measured of them, every channel has the base's mean and deviation, in all convolutions."""
    mean, deviation = base(case)
    found = run(case.statistics, {"image": case.hazy, DOMAIN_MEAN: mean, DOMAIN_DEVIATION: deviation})
    total = ChannelSum()
    total.add(found[CHANNEL_MEAN], found[CHANNEL_VARIANCE], IMAGES)
    scale, shift = affine(total, mean, deviation)
    feeds = {"image": case.hazy, DOMAIN_SCALE: scale.astype(float), DOMAIN_SHIFT: shift.astype(float)}
    changed = tuple(_changed(case.seen, name) for name in convolutions(case.seen))
    shown = run(case.seen, feeds, changed)
    means, deviations = moments([shown[name] for name in changed])
    # Where a channel hardly says anything of the domain's images, what it says is not made that loud.
    loud = scale < MOST_SCALE
    assert loud.mean() > 0.5
    np.testing.assert_allclose(means, mean, atol=1e-4)
    np.testing.assert_allclose(deviations[loud], deviation[loud], rtol=1e-3, atol=1e-4)
    assert (deviations[~loud] <= deviation[~loud] + 1e-4).all()


def _changed(proto: onnx.ModelProto, convolution: str) -> str:
    """What follows a convolution's output: times the scale, and the shift."""
    by_input = {(node.op_type, node.input[0]): node.output[0] for node in proto.graph.node if node.input}
    return str(by_input["Add", by_input["Mul", convolution]])
