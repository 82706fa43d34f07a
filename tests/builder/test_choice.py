"""Which convolutions are sites, and which of them are trained."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import networks
import numpy as np
import onnx
import pytest
from small_network import Network
from test_networks import gradients_agree, make_case

from conftest import Digits, build_digits_bundle, open_learner
from csk_artifacts_builder.graphs.choice import Choice, choose_sites, last_stages, most_intense
from csk_artifacts_builder.prepare.model import prepare
from csk_artifacts_builder.sites import find_sites
from csk_sdk.bundle.folder import Bundle
from csk_sdk.contract.manifest import Site
from csk_sdk.errors import ConfigError, ModelError

# Strides and padding of their own, and groups: 1x1 kernels in every form.
POINTWISE = networks.chain(
    "pointwise",
    "Tanh",
    ((4, 3, 1, 1), ""),
    ((6, 4, 1, 1), "<strides=[2,2]>"),
    ((6, 2, 1, 1), "<group=3>"),
    ((4, 6, 1, 1), "<pads=[1,1,1,1], strides=[2,2]>"),
    ((8, 2, 1, 1), "<group=2, strides=[2,1]>"),
    ((4, 8, 3, 3), "<pads=[1,1,1,1]>"),
)
WITH_POINTWISE = [POINTWISE, networks.MOBILENET, networks.MOBILENET_V3, networks.RESNET]


# --- which can be


def sites_of(network: Network, kinds: str, folder: Path) -> list[str]:
    onnx.save(network.proto(), folder / "model.onnx")
    return [site.node for site in find_sites(prepare(folder / "model.onnx").model, "model.onnx", kinds)]


@pytest.mark.parametrize(
    ("kinds", "nodes"),
    [
        ("center", ["stem", "depth", "down"]),
        ("1x1", ["expand", "project", "last"]),
        ("all", ["stem", "expand", "depth", "project", "down", "last"]),
    ],
)
def test_kinds_of_sites(tmp_path: Path, kinds: str, nodes: list[str]) -> None:
    assert sites_of(networks.MOBILENET, kinds, tmp_path) == nodes


def test_a_model_without_such_a_site_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        sites_of(networks.GEOMETRIES, "1x1", tmp_path)
    assert str(caught.value) == (
        "model.onnx has 6 convolutions, but none with a 1x1 kernel of its own. Train the centers of larger kernels "
        "with --sites center."
    )
    only = networks.chain("only", "Tanh", ((4, 3, 1, 1), ""))
    with pytest.raises(ModelError, match=r"1x1 convolutions are trained with --sites 1x1\.$"):
        sites_of(only, "center", tmp_path)
    assert sites_of(only, "1x1", tmp_path) == ["c1"]


def test_an_unknown_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^--sites is '3x3'; it must be center, 1x1, all or kernels\.$"):
        sites_of(networks.RESNET, "3x3", tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("batch", [5, 1])
@pytest.mark.parametrize("every", [True, False], ids=["all-channels", "some-channels"])
@pytest.mark.parametrize("network", WITH_POINTWISE, ids=lambda network: network.name)
def test_gradients_of_1x1_sites_equal_central_differences(
    tmp_path: Path, network: Network, every: bool, batch: int
) -> None:
    case = make_case(network, every, tmp_path, sites="all")
    assert any(site.shape[2:] == (1, 1) for site in case.bundle.manifest.sites)
    gradients_agree(case, batch)


def test_1x1_sites_are_learned_remembered_and_exported(
    tmp_path: Path, base_data: Path, digits: Digits
) -> None:
    import onnxruntime as ort

    folder = build_digits_bundle(tmp_path / "bundle", base_data=base_data, sites="all")
    sites = {site.name: site for site in Bundle.open(folder).manifest.sites}
    (shortcut, *_) = [name for name, site in sites.items() if site.shape[2:] == (1, 1)]
    learner = open_learner(folder, tmp_path / "state", epochs=2)
    before = Bundle.open(folder).checkpoint()
    task = digits.task("four-five", (4, 5))
    learner.learn(task)
    after = learner.state.load().tensors
    change = after[f"center/{shortcut}"] - before[f"center/{shortcut}"]
    trained = np.any(change != 0, axis=0)
    assert trained.sum() == round(0.25 * sites[shortcut].columns)
    grown = np.trace(after[f"moment/{shortcut}"][0]) - np.trace(before[f"moment/{shortcut}"][0])
    assert grown > 0
    learner.export(tmp_path / "out.onnx")
    images = digits.arrays((4, 5), 100, 110)[0]
    session = ort.InferenceSession(str(tmp_path / "out.onnx"), providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: learner.bundle.preprocessing(images)}
    got = session.run(None, feed)[0].argmax(axis=1)
    np.testing.assert_array_equal(got, learner.predict(images)[1].argmax(axis=1))
    assert learner.evaluate([task]).to_json()["acc"] > 90


# --- which are


def site(name: str, size: int = 8) -> Site:
    return Site(
        *(name, name, name, (4, 4, 3, 3), 1, (1, 1), (1, 1), (1, 1, 1, 1), (size, size), (size, size)),
        *("d", "i", "g", "m"),
    )


SITES = [site(name, size) for name, size in zip("abcdef", (32, 32, 16, 16, 8, 8), strict=True)]
ORDER = list("abcdef")
INTENSITY = dict(zip("abcdef", (1.0, 9.0, 2.0, 4.0, 0.5, 3.0), strict=True))


def names(sites: Sequence[Site]) -> str:
    return "".join(one.name for one in sites)


def choose(trainable: str = "auto", **more: object) -> Choice:
    return choose_sites(SITES, trainable, ORDER, "model.onnx", **more)  # type: ignore[arg-type]


def reaching(budget: int, step: int = 1, reach: int = 3):  # type: ignore[no-untyped-def]
    """A budget as training has it: back-propagation costs `reach` for every layer back, and a site costs `step`."""

    def fits(chosen: Sequence[Site]) -> bool:
        first = ORDER.index(chosen[0].name)
        return reach * (len(ORDER) - first) + step * len(chosen) <= budget

    return fits


FROM_THE_BACK = "of the sites of the last two stages, as many from the back as fit into the memory budget"


@pytest.mark.parametrize(
    ("more", "expected", "reason"),
    [
        ({}, "cdef", "the sites of the last two stages (--trainable auto)"),
        ({"intensity": INTENSITY}, "cdef", "the sites of the last two stages (--trainable auto)"),
        ({"fits": reaching(8)}, "ef", FROM_THE_BACK),
        ({"fits": reaching(1000)}, "cdef", FROM_THE_BACK),
        (
            {"fits": reaching(11), "intensity": INTENSITY},
            "df",
            "of the sites of the last two stages, the most intense that fit together into the memory budget",
        ),
    ],
)
def test_automatic_choice(more: dict, expected: str, reason: str) -> None:
    choice = choose(**more)
    assert (names(choice.sites), choice.reason) == (expected, reason)


@pytest.mark.parametrize("budget", range(4, 26))
@pytest.mark.parametrize("step", [1, 2, 5])
def test_the_most_intense_set_is_the_best_of_all_that_fit(budget: int, step: int) -> None:
    """Every subset tried: where each site costs the same, none that fits is more intense."""
    fits = reaching(budget, step)
    every = [list(subset) for k in range(1, 7) for subset in combinations(SITES, k)]
    best = max((sum(INTENSITY[one.name] for one in s) for s in every if fits(s)), default=0.0)
    assert sum(INTENSITY[one.name] for one in most_intense(SITES, INTENSITY, fits)) == best


def test_a_budget_is_asked_seldom() -> None:
    """Saying whether sites fit may mean building a graph."""
    many = [site(f"s{number}") for number in range(50)]
    asked = 0

    def fits(chosen: Sequence[Site]) -> bool:
        nonlocal asked
        asked += 1
        return len(chosen) <= 20

    chosen = most_intense(many, {one.name: float(number) for number, one in enumerate(many)}, fits)
    assert names(chosen) == names(many[-20:])
    assert asked <= 50 * 7


def test_nothing_fits() -> None:
    for more in ({}, {"intensity": INTENSITY}):
        assert choose(fits=lambda sites: False, **more).sites == []


def test_a_budget_narrows_what_is_asked_for() -> None:
    assert names(choose("all", fits=lambda sites: len(sites) <= 5).sites) == "bcdef"
    assert names(choose("from:c", fits=lambda sites: len(sites) <= 2).sites) == "ef"


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ((32, 16, 8, 8), "bcd"),
        ((32, 1, 16, 1, 8, 1), "cdef"),  # gates on single pixels go with the stage around them
        ((4, 1), "ab"),
        ((1, 1, 1), "abc"),
        ((8, 16, 8, 16), "abcd"),
        ((32, 8, 16, 32), "bc"),
    ],
)
def test_last_stages(sizes: tuple[int, ...], expected: str) -> None:
    sites = [site(name, size) for name, size in zip("abcdef", sizes, strict=False)]
    assert names(last_stages(sites, ORDER)) == expected
