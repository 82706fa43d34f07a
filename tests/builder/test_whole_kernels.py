"""Graphs that train whole kernels, against the source network in float64."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import networks
import numpy as np
import pytest
from networks import NETWORKS, chain
from numpy.typing import NDArray
from PIL import Image
from small_network import Network, Witness
from test_networks import Case, gradients_agree, make_case, outputs_agree

from csk_artifacts_builder import BuildOptions, build_artifacts
from csk_sdk.bundle.folder import Bundle, centers_of, put_centers
from csk_sdk.contract.manifest import MEMORY_MODEL, Manifest, Site
from csk_sdk.errors import ConfigError, ModelError
from csk_sdk.method.projection import add_to_centers
from csk_sdk.runtime.sessions import Graph

Cases = Callable[[Network, bool], Case]
# Kernels that have no center: of 2x2, and of 4.
EVEN = chain("even", "Tanh", ((4, 3, 2, 2), ""), ((6, 4, 4, 3), "<strides=[2,1], pads=[1,1,2,1]>"))


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Cases:
    known: dict[tuple[str, bool], Case] = {}

    def case(network: Network, every: bool) -> Case:
        key = network.name, every
        if key not in known:
            known[key] = make_case(network, every, tmp_path_factory.mktemp("whole"), sites="kernels")
        return known[key]

    return case


@pytest.mark.parametrize("network", [*NETWORKS, EVEN], ids=lambda network: network.name)
def test_eval_model_is_the_source_model_with_changed_kernels(cases: Cases, network: Network) -> None:
    outputs_agree(cases(network, False))


@pytest.mark.parametrize(
    "network", [networks.GEOMETRIES, networks.MOBILENET, EVEN], ids=lambda network: network.name
)
def test_gradients_equal_central_differences(cases: Cases, network: Network) -> None:
    gradients_agree(cases(network, False), 2)


@pytest.mark.slow
@pytest.mark.parametrize("every", [True, False], ids=["all-columns", "some-columns"])
@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.name)
def test_gradients_of_all_networks_equal_central_differences(
    cases: Cases, network: Network, every: bool
) -> None:
    gradients_agree(cases(network, every), 5)


@pytest.mark.parametrize("network", [*NETWORKS, EVEN], ids=lambda network: network.name)
def test_second_moment_is_that_of_the_patches(cases: Cases, network: Network) -> None:
    case = cases(network, False)
    got = Graph(case.bundle.path(MEMORY_MODEL), 1).run(case.feeds)
    witness = Witness(case.network, case.bundle.manifest)
    witness.change(case.deltas, case.indices)
    for site in case.bundle.manifest.sites:
        seen = patches(witness.value(witness.input_of(site), case.images), site)
        expected = np.array([group.T @ group for group in np.split(seen, site.groups, axis=1)])
        assert got[site.moment].shape == expected.shape == (site.groups, site.width, site.width), site.name
        difference = np.linalg.norm(got[site.moment] - expected)
        assert difference <= 1e-5 * np.linalg.norm(expected), site.name


def patches(x: NDArray, site: Site) -> NDArray:
    """`(n * positions, columns)`: what every output position sees, channel by channel."""
    axes = len(site.output_size)
    padded = np.pad(
        x, [(0, 0), (0, 0), *zip(site.pads[:axes], np.add(site.pads[axes:], site.stride), strict=True)]
    )
    rows = []
    for image in padded:
        for out in np.ndindex(*site.output_size):
            start = np.multiply(out, site.stride)
            reach = np.multiply(site.dilation, np.subtract(site.shape[2:], 1)) + 1
            window = [slice(s, s + r, d) for s, r, d in zip(start, reach, site.dilation, strict=True)]
            rows.append(image[(slice(None), *window)].ravel())
    return np.array(rows)


def test_kernels_come_back_as_they_were_and_change_where_they_are_told(cases: Cases) -> None:
    site = cases(networks.GEOMETRIES, False).bundle.manifest.sites[0]
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=site.shape).astype(np.float32)
    columns = centers_of(kernel, site)
    again = np.zeros_like(kernel)
    put_centers(again, site, columns)
    np.testing.assert_array_equal(again, kernel)
    delta = np.ones((site.rows, 1), np.float32)
    last = np.array([site.columns - 1])
    add_to_centers(columns, delta, last, site.groups)
    put_centers(again, site, columns)
    where = np.argwhere(again != kernel)
    assert {tuple(place[1:]) for place in where} == {tuple(size - 1 for size in site.shape[1:])}
    assert len(where) == site.rows


def test_a_bundle_of_centers_is_written_as_before_there_were_kernels(cases: Cases, tmp_path: Path) -> None:
    whole = cases(networks.GEOMETRIES, False).bundle.manifest
    plain = make_case(networks.GEOMETRIES, False, tmp_path).bundle.manifest
    assert (whole.trained, whole.schema_version) == ("kernels", 3)
    text = plain.to_json()
    assert '"whole"' not in text
    read = Manifest.from_json(text, "manifest")
    assert (read.trained, read.schema_version) == ("centers", 2)
    assert {site.taps for site in read.sites} == {1}


def test_what_cannot_be_built_is_said(tmp_path: Path) -> None:
    pointwise = chain("pointwise", "Relu", ((4, 3, 1, 1), ""), ((4, 4, 1, 1), ""))
    path = tmp_path / "model.onnx"
    path.write_bytes(pointwise.proto().SerializeToString())
    with pytest.raises(ModelError, match="none with a kernel larger than 1 of its own"):
        build_artifacts(path, tmp_path / "out", BuildOptions(sites="kernels"))
    path.write_bytes(EVEN.proto().SerializeToString())
    with pytest.raises(ConfigError, match="--sites kernels is for the portable backend"):
        build_artifacts(path, tmp_path / "out", BuildOptions(sites="kernels", backend="both"))
    data = colours(tmp_path)
    int8 = BuildOptions(sites="kernels", precision="int8", base_data=data, trainable="all")
    with pytest.raises(
        ConfigError, match=r"--precision int8 rounds convolutions that stay frozen, and of this"
    ):
        build_artifacts(path, tmp_path / "out", int8)
    wide = chain("wide", "Relu", ((64, 3, 3, 3), ""), ((256, 64, 3, 3), ""), ((8, 256, 3, 3), ""))
    path.write_bytes(wide.proto().SerializeToString())
    small = BuildOptions(sites="kernels", memory_budget=20 << 20)
    with pytest.raises(
        ConfigError, match=r"most of it for second moments\. Pass --memory-budget \d+MiB or more"
    ):
        build_artifacts(path, tmp_path / "out", small)
    assert not (tmp_path / "out").exists()


def colours(folder: Path) -> Path:
    """Base data of as many classes as the networks of this module have."""
    rng = np.random.default_rng(0)
    for name in "012":
        (folder / "base" / name).mkdir(parents=True)
        for index in range(8):
            picture = rng.integers(0, 256, (12, 12, 3)).astype(np.uint8)
            Image.fromarray(picture).save(folder / "base" / name / f"{index}.png")
    return folder / "base"


def test_costs_grow_with_the_positions(cases: Cases, tmp_path: Path) -> None:
    whole = cases(networks.RESNET, False).bundle
    plain = make_case(networks.RESNET, False, tmp_path).bundle
    assert whole.manifest.costs["step_centers"] > plain.manifest.costs["step_centers"]
    assert [site.width for site in whole.manifest.sites] == [9 * site.width for site in plain.manifest.sites]
    assert Bundle.open(whole.folder).manifest == whole.manifest
