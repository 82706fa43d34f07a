"""Whole training graphs against float64 central differences of the source network's loss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import networks
import numpy as np
import onnx
import pytest
import small_network
from networks import NETWORKS, chain
from numpy.typing import NDArray
from small_network import Network, Witness

from csk_artifacts_builder import BuildOptions, build_artifacts
from csk_sdk.bundle.folder import Bundle
from csk_sdk.contract.manifest import EVAL_MODEL, EXPORT_TEMPLATE, MEMORY_MODEL, TRAINING_MODEL, Site
from csk_sdk.runtime.sessions import Graph

STEP = 1e-5
FULL = 30  # deltas up to this size are checked along every coordinate, larger ones along random directions
DIRECTIONS = 20
IMAGES, CLASSES = 5, 4
MODELS = (TRAINING_MODEL, EVAL_MODEL, MEMORY_MODEL)


@dataclass(frozen=True)
class Case:
    """A network, its bundle, and center changes that lead it to a smooth point on `images`.

    `room` is the distance to the nearest kink there.
    """

    network: Network
    images: NDArray[np.float32]
    bundle: Bundle
    deltas: dict[str, NDArray]
    indices: dict[str, NDArray]
    room: float

    @property
    def feeds(self) -> dict[str, NDArray]:
        feeds = {"image": self.images}
        for site in self.bundle.manifest.sites:
            feeds[site.delta], feeds[site.indices] = self.deltas[site.name], self.indices[site.name]
        return feeds


Cases = Callable[..., Case]


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Cases:
    known: dict[tuple[str, bool], Case] = {}

    def case(network: Network, every: bool = False) -> Case:
        key = network.name, every
        if key not in known:
            known[key] = make_case(network, every, tmp_path_factory.mktemp(network.name))
        return known[key]

    return case


def make_case(network: Network, every: bool, folder: Path, **options: object) -> Case:
    """Choose the smooth point first; the bundle starts where the deltas lead there."""
    target, images = smooth_point(network)
    manifest = build(target, folder, **options).manifest
    deltas, indices = drawn_change(manifest.sites, every)
    back = Witness(target, manifest).changed({name: -delta for name, delta in deltas.items()}, indices)
    start = replace(target, tensors=target.tensors | back)
    room = small_network.room(target, images)
    return Case(start, images, build(start, folder, overwrite=True, **options), deltas, indices, room)


def smooth_point(network: Network) -> tuple[Network, NDArray[np.float32]]:
    """The first random images, with biases that avoid kinks on them, whose pooled maxima are clear."""
    for seed in range(40):
        images = small_network.pictures(network, IMAGES, seed)
        smoothed = small_network.smooth(network, images)
        if small_network.room(smoothed, images) > small_network.MARGIN:
            return smoothed, images
    raise AssertionError(f"{network.name} has no smooth point among 40")


def build(network: Network, folder: Path, **options: object) -> Bundle:
    onnx.save(network.proto(), folder / "model.onnx")
    names = {"trainable": "all", **options}
    build_artifacts(folder / "model.onnx", folder / "bundle", BuildOptions(features="last", **names))  # type: ignore[arg-type]
    return Bundle.open(folder / "bundle")


def drawn_change(sites: tuple[Site, ...], every: bool) -> tuple[dict[str, NDArray], dict[str, NDArray]]:
    """Deltas and indices: every channel, or half of them in no order. As large as the kernels themselves."""
    rng = np.random.default_rng(5)
    indices, deltas = {}, {}
    for site in sites:
        count = site.columns if every else max(1, site.columns // 2)
        indices[site.name] = np.arange(count) if every else rng.permutation(site.columns)[:count]
        deltas[site.name] = rng.normal(0, 0.2, (site.rows, count)).astype(np.float32)
    return deltas, indices


def drawn_head(bundle: Bundle) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    rng = np.random.default_rng(6)
    weight = rng.normal(0, 1.0, (CLASSES, bundle.manifest.head.features)).astype(np.float32)
    return weight, rng.normal(0, 0.3, CLASSES).astype(np.float32)


# --- gradients


@pytest.mark.slow
@pytest.mark.parametrize(
    ("batch", "every"),
    [(IMAGES, True), (IMAGES, False), (1, False)],
    ids=["all-channels", "some-channels", "one-picture"],
)
@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.name)
def test_gradients_equal_central_differences(cases: Cases, network: Network, batch: int, every: bool) -> None:
    gradients_agree(cases(network, every), batch)


def gradients_agree(case: Case, batch: int) -> None:
    assert case.room > 50 * STEP
    manifest = case.bundle.manifest
    images, labels = case.images[:batch], np.array([2, 0, 3, 1, 1])[:batch]
    weight, bias = drawn_head(case.bundle)
    feeds = case.feeds | {"image": images, "label": labels, "head.weight": weight, "head.bias": bias}
    got = Graph(case.bundle.path(TRAINING_MODEL), 1).run(feeds)

    witness = Witness(case.network, manifest)
    point = {name: delta.astype(np.float64) for name, delta in case.deltas.items()}
    head = {"weight": weight.astype(np.float64), "bias": bias.astype(np.float64)}

    def loss(moved: dict[str, NDArray]) -> float:
        parts = point | head | moved
        witness.change({name: parts[name] for name in point}, case.indices)
        return witness.loss(images, labels, source_form(case.network, parts["weight"]), parts["bias"])

    assert got["loss"] == pytest.approx(loss({}), rel=1e-5)
    gradients = {site.name: got[site.gradient] for site in manifest.sites}
    gradients |= {"weight": got[manifest.head.weight_gradient], "bias": got[manifest.head.bias_gradient]}
    for name, gradient in gradients.items():
        _agree(name, gradient.astype(np.float64), (point | head)[name], loss)


def source_form(network: Network, weight: NDArray) -> NDArray:
    """A `(classes, features)` head as the source network keeps it."""
    return weight.T if "MatMul" in network.nodes else weight


def _agree(name: str, gradient: NDArray, at: NDArray, loss: Callable[[dict[str, NDArray]], float]) -> None:
    """Compare along every coordinate, or along random directions and the gradient's own."""
    assert gradient.shape == at.shape, name
    if at.size <= FULL:
        directions = np.eye(at.size)
    else:
        random = np.random.default_rng(7).normal(size=(DIRECTIONS, at.size)) / np.sqrt(at.size)
        directions = np.vstack([random, gradient.ravel() / np.linalg.norm(gradient)])
    slopes = []
    for direction in directions:
        step = STEP * direction.reshape(at.shape)
        slopes.append((loss({name: at + step}) - loss({name: at - step})) / (2 * STEP))
    expected, along = np.array(slopes), directions @ gradient.ravel()
    assert np.linalg.norm(expected) > 1e-6, f"{name}: a gradient of zero proves nothing"
    cosine = expected @ along / (np.linalg.norm(expected) * np.linalg.norm(along))
    assert cosine >= 0.99999, name
    assert np.linalg.norm(expected - along) <= 2e-4 * np.linalg.norm(expected), name


@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.name)
def test_eval_model_is_the_source_model_with_changed_centers(cases: Cases, network: Network) -> None:
    outputs_agree(cases(network))


def outputs_agree(case: Case) -> None:
    """The eval model's logits are those of the source network with the case's changes, which change them."""
    start = case.bundle.checkpoint()
    feeds = case.feeds | {"head.weight": start["head/base/weight"], "head.bias": start["head/base/bias"]}
    got = Graph(case.bundle.path(EVAL_MODEL), 1).run(feeds, ["logits"])["logits"]
    witness = Witness(case.network, case.bundle.manifest)
    before = witness.logits(case.images)
    witness.change(case.deltas, case.indices)
    expected = witness.logits(case.images)
    assert np.abs(expected - before).max() > 1e-3
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


# --- what the graphs are made of


@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.name)
def test_graphs_are_standard_onnx(cases: Cases, network: Network) -> None:
    bundle = cases(network).bundle
    for name in MODELS:
        onnx.checker.check_model(str(bundle.path(name)), full_check=True)
    for name in (*MODELS, EXPORT_TEMPLATE):
        proto = onnx.load(str(bundle.path(name)), load_external_data=False)
        assert proto.ir_version == 8
        assert [(entry.domain, entry.version) for entry in proto.opset_import] == [("", 17)]
        assert {node.domain for node in proto.graph.node} == {""}
        assert not proto.functions
        assert not any(attribute.HasField("g") for node in proto.graph.node for attribute in node.attribute)


@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.name)
def test_graphs_have_the_names_of_the_manifest(cases: Cases, network: Network) -> None:
    bundle = cases(network).bundle
    manifest, head = bundle.manifest, bundle.manifest.head
    graphs = {name: onnx.load(str(bundle.path(name)), load_external_data=False).graph for name in MODELS}
    per_site = {name for site in manifest.sites for name in (site.delta, site.indices)}
    head_inputs = {head.weight, head.bias}
    inputs = {name: {value.name for value in graph.input} for name, graph in graphs.items()}
    outputs = {name: {value.name for value in graph.output} for name, graph in graphs.items()}
    assert inputs == {
        TRAINING_MODEL: {"image", "label", "label_smoothing", "class_mask"} | head_inputs | per_site,
        EVAL_MODEL: {"image"} | head_inputs | per_site,
        MEMORY_MODEL: {"image"} | per_site,
    }
    assert outputs == {
        TRAINING_MODEL: {"loss", "logits", head.weight_gradient, head.bias_gradient}
        | {site.gradient for site in manifest.sites},
        EVAL_MODEL: {"logits", "features"},
        MEMORY_MODEL: {"features"} | {site.moment for site in manifest.sites},
    }
    weights = {site.weight for site in manifest.sites}
    for name, graph in graphs.items():
        assert weights & {tensor.name for tensor in graph.initializer} == set(manifest.kernels[name])
    assert weights == set(manifest.kernels[EVAL_MODEL])


def test_nothing_before_the_first_site_is_differentiated(tmp_path: Path) -> None:
    """However deep the network is before it, the gradient part of the graph stays the same."""
    sizes = {}
    for depth in (1, 4):
        layers = [((4, 3, 3, 3), "<pads=[1,1,1,1]>")] + [((4, 4, 3, 3), "<pads=[1,1,1,1]>")] * depth
        network = chain(
            f"deep-{depth}", "Tanh", *layers, ((4, 4, 3, 3), "<strides=[2,2]>"), ((4, 4, 3, 3), "")
        )
        folder = tmp_path / network.name
        folder.mkdir()
        bundle = build(network, folder, trainable=f"from:c{depth + 2}")
        assert [site.node for site in bundle.manifest.sites] == [f"c{depth + 2}", f"c{depth + 3}"]
        training, evaluation = (
            len(onnx.load(str(bundle.path(name)), load_external_data=False).graph.node)
            for name in (TRAINING_MODEL, EVAL_MODEL)
        )
        sizes[depth] = (training - evaluation, evaluation)
    assert sizes[1][0] == sizes[4][0]
    assert sizes[1][1] < sizes[4][1]


def test_training_fewer_sites_makes_a_smaller_graph(tmp_path: Path) -> None:
    nodes = []
    for number, trainable in enumerate(("all", "from:c3")):
        folder = tmp_path / str(number)
        folder.mkdir()
        bundle = build(networks.GEOMETRIES, folder, trainable=trainable)
        nodes.append(len(onnx.load(str(bundle.path(TRAINING_MODEL)), load_external_data=False).graph.node))
    assert nodes[1] < nodes[0]


# --- second moments


@pytest.mark.parametrize(
    "network",
    [*NETWORKS, replace(networks.GEOMETRIES, name="geometries-even", image=(3, 10, 8))],
    ids=lambda network: network.name,
)
def test_second_moment_is_that_of_the_center_sampled_input(cases: Cases, network: Network) -> None:
    case = cases(network)
    manifest = case.bundle.manifest
    got = Graph(case.bundle.path(MEMORY_MODEL), 1).run(case.feeds)
    witness = Witness(case.network, manifest)
    witness.change(case.deltas, case.indices)
    for site in manifest.sites:
        x = witness.value(witness.input_of(site), case.images)
        expected = moment(center_sampled(x, site), site)
        assert got[site.moment].shape == expected.shape, site.name
        difference = np.linalg.norm(got[site.moment] - expected)
        assert difference <= 1e-5 * np.linalg.norm(expected), site.name


def center_sampled(x: NDArray, site: Site) -> NDArray:
    """`(n * positions, c_in)`: position by position, what the center tap of the kernel reads (docs/method.md)."""
    rows = []
    for image in x:
        for out in np.ndindex(site.output_size):
            place = [
                s * o - p + d * (k // 2)
                for s, o, p, d, k in zip(
                    site.stride, out, site.pads, site.dilation, site.shape[2:], strict=False
                )
            ]
            inside = all(0 <= at < size for at, size in zip(place, x.shape[2:], strict=True))
            rows.append(image[(slice(None), *place)] if inside else np.zeros(x.shape[1]))
    return np.array(rows)


def moment(x: NDArray, site: Site) -> NDArray:
    groups = [x[:, g * site.shape[1] : (g + 1) * site.shape[1]] for g in range(site.groups)]
    return np.array([group.T @ group for group in groups])
