"""The methods of the continual-learning benchmark, on a small residual network; needs torch (extra `benchmarks`)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from benchmarks.continual.data import Stream
from onnx import helper
from small_stream import NORMALIZE, small_model, small_stream

torch = pytest.importorskip("torch", reason="needs torch: pip install csk-sdk[benchmarks]")

from benchmarks.continual import costs, torch_runs  # noqa: E402
from benchmarks.continual.methods import METHODS  # noqa: E402
from benchmarks.continual.methods.gpm import extended  # noqa: E402
from benchmarks.continual.methods.lwf import distillation  # noqa: E402
from benchmarks.continual.methods.nscl import FREE, free_space  # noqa: E402
from benchmarks.continual.methods.sparse import channel_mask  # noqa: E402
from benchmarks.continual.network import Network, patches  # noqa: E402
from benchmarks.continual.pictures import Batches  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from csk_sdk.method.heads import ClassStatistics  # noqa: E402


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return small_model(tmp_path)


@pytest.fixture
def stream() -> Stream:
    return small_stream()


def started(name: str, model: Path, stream: Stream, rate: float = 0.01) -> torch_runs.Life:
    """A method before its first task, in float32."""
    torch.manual_seed(0)
    network = Network(model, METHODS[name].layers)
    network.half = False
    method = METHODS[name](network, stream, Batches(NORMALIZE, 0, shift=1), 0, rate)
    method.heads["base"] = network.head
    method.start()
    features, labels = method.batches.features(network, stream.base.train)
    statistics = ClassStatistics.empty(network.width).add(
        features.numpy(), labels.numpy(), stream.base.classes
    )
    return torch_runs.Life(method, statistics, {"base": network.head})


@pytest.mark.parametrize("pooled", [False, True])
def test_the_network_is_the_onnx_graph(model: Path, pooled: bool) -> None:
    ort = pytest.importorskip("onnxruntime")
    if pooled:
        pool_behind_first(model)
    x = np.random.default_rng(2).normal(size=(5, 3, 8, 8)).astype(np.float32)
    expected = ort.InferenceSession(str(model)).run(None, {"image": x})[0]
    network = Network(model)
    network.half = False
    weight, bias = network.head
    with torch.no_grad():
        found = network(torch.from_numpy(x)) @ weight.T + bias
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4, atol=1e-5)


def pool_behind_first(model: Path) -> None:
    """A max pool of 3x3 by twos behind the first ReLU, as in networks for large images."""
    proto = onnx.load(model)
    nodes = list(proto.graph.node)
    place = next(at for at, node in enumerate(nodes) if node.op_type == "Relu")
    seen = nodes[place].output[0]
    for node in nodes[place + 1 :]:
        node.input[:] = ["pooled" if name == seen else name for name in node.input]
    pool = helper.make_node(
        "MaxPool", [seen], ["pooled"], "pool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]
    )
    proto.graph.node.insert(place + 1, pool)
    onnx.save(proto, model)


def test_patches_are_what_the_convolution_multiplies(model: Path) -> None:
    conv = Network(model).convolutions["c2"]
    x = torch.randn(2, 8, 8, 8)
    with torch.no_grad():
        expected = (conv(x) - conv.bias[:, None, None]).permute(0, 2, 3, 1).reshape(-1, 16)
        found = patches(conv, x) @ conv.weight.flatten(1).T
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", list(METHODS))
def test_every_method_lives_a_stream(name: str, model: Path, stream: Stream) -> None:
    life = started(name, model, stream, 0.0003)
    before = {key: conv.weight.detach().clone() for key, conv in life.method.network.convolutions.items()}
    for task in stream.tasks:
        torch_runs.learn(life, task, life.method.batches, epochs=1)
    assert set(life.method.heads) == {"base", "01", "02"}
    features, _ = life.method.batches.features(life.method.network, stream.tasks[0].test)
    scores = life.method.scores(features)
    assert scores is None or scores.shape == (16, 6)
    moved = any(
        not torch.equal(conv.weight, before[key]) for key, conv in life.method.network.convolutions.items()
    )
    assert moved == (not life.method.frozen and name != "bias-only")


@pytest.mark.parametrize("name", ["finetune", "last-stage", "bias-only", "csko-torch-kernel-all-channels"])
def test_counted_operations_are_torchs(name: str, model: Path, stream: Stream) -> None:
    life = started(name, model, stream)
    task = stream.tasks[0]
    life.method.heads[task.name] = life.method.heads["base"]
    life.method.begin_task(task)
    x = torch.randn(16, 3, 8, 8)
    with FlopCounterMode(display=False) as counter:
        life.method.network(x).sum().backward()
    counted = costs.count(life.method, (3, 8, 8))
    assert counted.flops - life.method.extra_flops() == pytest.approx(counter.get_total_flops(), rel=1e-6)


def test_only_selected_centers_change_and_not_along_the_basis(model: Path, stream: Stream) -> None:
    life = started("csko-torch", model, stream)
    before = {weight: weight.detach().clone() for weight in life.method.network.parameters()}
    torch_runs.learn(life, stream.tasks[0], life.method.batches, epochs=2)
    sites = life.method._sites
    for weight, old in before.items():
        change = (weight.detach() - old).reshape(len(old), -1)
        if weight not in sites:
            assert not change.any()
            continue
        columns, basis = life.method._columns[weight], life.method._bases[weight]
        assert (columns % 9 == 4).all()
        assert len(columns) == round(0.25 * weight.shape[1])
        elsewhere = torch.ones(change.shape[1], dtype=torch.bool)
        elsewhere[columns] = False
        assert not change[:, elsewhere].any()
        # Of the three input channels of c1 one is trained, and all of it is protected.
        assert bool(change[:, columns].any()) == (basis.shape[1] < len(columns))
        assert (change[:, columns] @ basis).norm() <= 1e-4 * change.norm()


@pytest.mark.parametrize("name", ["gpm", "adam-nscl"])
def test_projected_methods_keep_what_they_promise(name: str, model: Path, stream: Stream) -> None:
    life = started(name, model, stream)
    gradient = torch.randn(16, 16, 3, 3)
    weight = life.method.network.convolutions["c3"].weight
    if name == "adam-nscl":
        life.method.begin_task(stream.tasks[0])
        projector = life.method._free["c3"]
        moment = life.method._moments["c3"]
        step = life.method.direction(weight, gradient).flatten(1)
        # Energy of the step on old inputs, against that of a step of the same length anywhere.
        energy = ((step @ moment) * step).sum() / step.square().sum()
        values = torch.linalg.eigvalsh(moment).abs()
        assert energy <= FREE * values.min() + 1e-6 * values.max()
        assert projector.norm() == pytest.approx(1.0, abs=1e-5)
    else:
        basis = life.method._bases["c3"]
        step = life.method.direction(weight, gradient).flatten(1)
        assert (step @ basis).norm() <= 1e-4 * step.norm()


def test_a_basis_is_extended_as_the_paper_says() -> None:
    rng = np.random.default_rng(3)
    mix = rng.normal(size=(12, 12)) * np.exp(-np.arange(12) / 3)
    first, second = mix @ rng.normal(size=(12, 200)), np.roll(mix, 5, axis=0) @ rng.normal(size=(12, 200))
    old = np.linalg.svd(first)[0][:, :3]
    # Equations 8 and 9, by singular values of the residual itself.
    residual = second - old @ old.T @ second
    vectors, values, _ = np.linalg.svd(residual, full_matrices=False)
    total = (second**2).sum()
    explained, count = (total - (values**2).sum()) / total, 0
    while explained < 0.97:
        explained += values[count] ** 2 / total
        count += 1
    expected = np.hstack([old, vectors[:, :count]])
    found = extended(torch.from_numpy(old), torch.from_numpy(second @ second.T), 0.97).numpy()
    assert found.shape == expected.shape
    np.testing.assert_allclose(found @ found.T, expected @ expected.T, atol=1e-10)


def test_the_free_space_is_where_no_old_input_was() -> None:
    inputs = torch.randn(50, 6, dtype=torch.float64) @ torch.randn(6, 9, dtype=torch.float64)
    free = free_space(inputs.T @ inputs)
    # Rank 6 of 9: with an exact null space, rounding says how much of it counts; none of it sees an input.
    assert (inputs @ free).norm() <= 1e-6 * inputs.norm()
    assert free.norm() == pytest.approx(1.0)


def test_distillation_is_the_divergence_at_temperature_two() -> None:
    new, old = torch.randn(4, 5, dtype=torch.float64), torch.randn(4, 5, dtype=torch.float64)
    p, q = (np.exp(x.numpy() / 2) / np.exp(x.numpy() / 2).sum(1, keepdims=True) for x in (old, new))
    assert float(distillation(new, old)) == pytest.approx((p * np.log(p / q)).sum(1).mean())
    assert float(distillation(old, old)) == pytest.approx(0.0, abs=1e-12)


def test_sparse_update_takes_the_channels_with_the_largest_weights() -> None:
    weight = torch.ones(2, 4, 3, 3) * torch.tensor([1.0, 3.0, 2.0, 0.5]).view(1, 4, 1, 1)
    assert channel_mask(weight, 0.5).flatten().tolist() == [0.0, 1.0, 1.0, 0.0]


def test_replay_stores_the_same_number_of_every_class(model: Path, stream: Stream) -> None:
    life = started("replay", model, stream)
    for task in stream.tasks:
        torch_runs.learn(life, task, life.method.batches, epochs=1)
    sizes = [len(images) for images in life.method._store.images.values()]
    # 32 images of each class exist, and 200 / 6 would be 33.
    assert sizes == [32] * 6 or max(sizes) - min(sizes) <= 1
    assert sum(sizes) <= 200


def test_ewc_pulls_back_in_proportion_to_importance(model: Path, stream: Stream) -> None:
    life = started("ewc", model, stream)
    method, task = life.method, stream.tasks[0]
    method.heads[task.name] = method.heads["base"]
    x, y = next(method.batches.shuffled(task.train))
    at_anchor = torch.autograd.grad(method.loss(x, y, task), method.trained)
    plain = torch.autograd.grad(super(type(method), method).loss(x, y, task), method.trained)
    for one, other in zip(at_anchor, plain, strict=True):
        torch.testing.assert_close(one, other)
    with torch.no_grad():
        method.trained[0].add_(0.01)
    moved = torch.autograd.grad(method.loss(x, y, task), method.trained)[0]
    plain_moved = torch.autograd.grad(super(type(method), method).loss(x, y, task), method.trained)[0]
    expected = 2 * 1000.0 * 0.01 * method._importance[0]
    torch.testing.assert_close(moved - plain_moved, expected, rtol=1e-3, atol=1e-5)
