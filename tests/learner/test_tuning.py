"""Which precision a device runs in: what is measured decides, and what was decided is remembered."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import csk_sdk.bundle.folder as bundle_module
import csk_sdk.device.choice as device_choice
import csk_sdk.device.tuning as tuning
from conftest import Digits, build_digits_bundle, open_learner
from csk_sdk import Learner, TrainingConfig
from csk_sdk.bundle.folder import Bundle
from csk_sdk.contract.manifest import TRAINING_MODEL
from csk_sdk.device.choice import in_chosen_precision, recall, remember
from csk_sdk.device.probe import probe
from csk_sdk.device.tuning import Choice, Measured, choose
from csk_sdk.errors import BundleError
from csk_sdk.network.knowledge import FeatureExtractor
from csk_sdk.runtime.sessions import Graph


@pytest.fixture(scope="module")
def int8_bundle(tmp_path_factory: pytest.TempPathFactory, base_data: Path) -> Path:
    folder = tmp_path_factory.mktemp("int8") / "bundle"
    return build_digits_bundle(folder, base_data=base_data, precision="int8")


@pytest.fixture
def opened(int8_bundle: Path) -> Bundle:
    return Bundle.open(int8_bundle)


def slower(monkeypatch: pytest.MonkeyPatch, **milliseconds: float) -> None:
    """Let a step take so long, by precision."""
    monkeypatch.setattr(tuning, "_milliseconds", lambda view, *_: milliseconds[view.precision])


@pytest.mark.slow
def test_the_faster_one_is_chosen(opened: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    slower(monkeypatch, exact=10.0, int8=4.0)
    choice = choose(opened, opened.checkpoint(), TrainingConfig(threads=1))
    assert choice.best.precision == "int8"
    assert choice.why.startswith("int8 takes 0.40 of the time of exact, and is 1.")
    slower(monkeypatch, exact=4.0, int8=3.9)
    choice = choose(opened, opened.checkpoint(), TrainingConfig(threads=1))
    assert choice.best.precision == "exact"
    assert choice.why.startswith("int8 is not faster on this CPU with this model")


def test_the_measurement_is_real(opened: Bundle) -> None:
    choice = choose(opened, opened.checkpoint(), TrainingConfig(threads=1))
    assert [one.precision for one in choice.measured] == ["exact", "int8"]
    assert all(one.step > 0 and one.cached is not None and one.cached > 0 for one in choice.measured)
    exact, int8 = choice.measured
    assert (exact.logits, exact.gradients) == (0.0, 0.0)
    # This machine adds up as the one that built the bundle: it is the same one.
    assert int8.logits == pytest.approx(opened.manifest.agreement["logits"], rel=1e-3)
    assert int8.gradients == pytest.approx(opened.manifest.agreement["gradients"], rel=1e-2, abs=1e-5)
    assert 0 < int8.logits < 0.05


def saturating(monkeypatch: pytest.MonkeyPatch, wide_helps: bool) -> None:
    """Graphs in int8 whose sums are cut off, as those of a CPU without VNNI are."""
    real = Graph.run

    def run(graph: Graph, *arguments: Any, **options: Any) -> dict[str, np.ndarray]:
        outputs = real(graph, *arguments, **options)
        cut = graph.int8 and not (wide_helps and graph.wide)  # type: ignore[attr-defined]
        return {name: np.clip(y, -0.1, 0.1) if cut else y for name, y in outputs.items()}

    opening = Bundle.graph

    def graph(bundle: Bundle, *arguments: Any, **options: Any) -> Graph:
        made = opening(bundle, *arguments, **options)
        made.int8, made.wide = bundle.precision == "int8", bundle.adds_wide  # type: ignore[attr-defined]
        return made

    monkeypatch.setattr(Graph, "run", run)
    monkeypatch.setattr(Bundle, "graph", graph)
    monkeypatch.setattr(tuning, "int8_sums_saturate", lambda: False)


@pytest.mark.parametrize("wide_helps", [True, False])
def test_int8_that_adds_up_wrong_is_run_with_wide_sums_or_not_at_all(
    opened: Bundle, monkeypatch: pytest.MonkeyPatch, wide_helps: bool, tmp_path: Path
) -> None:
    saturating(monkeypatch, wide_helps)
    slower(monkeypatch, exact=10.0, int8=4.0)
    choice = choose(opened, opened.checkpoint(), TrainingConfig(threads=1))
    assert [(one.precision, one.wide_sums) for one in choice.measured] == [
        ("exact", False),
        ("int8", False),
        ("int8", True),
    ]
    assert choice.best is choice.measured[2 if wide_helps else 0]
    wanted = "with wide sums, since this CPU's fast ones saturate" if wide_helps else "adds it up wrong"
    assert choice.why.endswith(wanted)
    remember(opened, tmp_path / "state", choice)
    view = in_chosen_precision(opened, "auto", tmp_path / "state")
    assert (view.precision, view.adds_wide) == (("int8", True) if wide_helps else ("exact", False))
    # Who asks for int8 gets it with the sums that are right.
    assert in_chosen_precision(opened, "int8", tmp_path / "state").adds_wide


def test_numbers_that_are_not_finite_are_as_far_off_as_can_be(
    opened: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = tuning._outputs

    def outputs(view: Bundle, *arguments: Any) -> dict[str, np.ndarray]:
        found = real(view, *arguments)
        return {name: y * np.nan for name, y in found.items()} if view.precision == "int8" else found

    monkeypatch.setattr(tuning, "_outputs", outputs)
    slower(monkeypatch, exact=10.0, int8=4.0)
    assert choose(opened, opened.checkpoint(), TrainingConfig(threads=1)).best.precision == "exact"


EXACT = Choice(Measured("exact", False, 1.0, None), (Measured("exact", False, 1.0, None),) * 2, "so")
INT8 = Choice(Measured("int8", False, 1.0, None), (Measured("int8", False, 1.0, None),) * 2, "so")


def test_a_choice_is_remembered_for_this_bundle_cpu_and_runtime_only(
    opened: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = tmp_path / "state"
    assert recall(opened, state) is None
    assert remember(opened, state, INT8) == tmp_path / "device.json"
    remember(opened, state, EXACT)
    found = recall(opened, state)
    assert found is not None
    assert (found["precision"], found["why"]) == ("exact", "so")
    assert len(json.loads((tmp_path / "device.json").read_text())["choices"]) == 1
    monkeypatch.setattr(device_choice, "cpu_name", lambda: "another")
    assert recall(opened, state) is None
    remember(opened, state, INT8)
    assert in_chosen_precision(opened, "auto", state).precision == "int8"
    monkeypatch.undo()
    assert in_chosen_precision(opened, "auto", state).precision == "exact"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff",
        b"[]",
        b"{}",
        b'{"schema_version": 1, "choices": 3}',
        b'{"schema_version": 1, "choices": [3]}',
        b'{"schema_version": 2, "choices": []}',
        b"[" * 100_000,
    ],
)
def test_what_cannot_be_read_is_not_there(opened: Bundle, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "device.json").write_bytes(content)
    assert recall(opened, tmp_path / "state") is None
    assert in_chosen_precision(opened, "auto", tmp_path / "state").precision == "int8"


@pytest.mark.parametrize("field", ["precision", "int8_wide_sums"])
def test_a_choice_with_a_wrong_value_is_not_there(opened: Bundle, tmp_path: Path, field: str) -> None:
    path = remember(opened, tmp_path / "state", EXACT)
    content = json.loads(path.read_text())
    content["choices"][0][field] = "half"
    path.write_text(json.dumps(content))
    assert recall(opened, tmp_path / "state") is None


@pytest.mark.parametrize("saturate", [True, False])
def test_before_anything_is_measured_int8_adds_up_as_this_cpu_needs_it(
    opened: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, saturate: bool
) -> None:
    monkeypatch.setattr(bundle_module, "int8_sums_saturate", lambda: saturate)
    state = tmp_path / "state"
    assert opened.adds_wide is saturate
    assert in_chosen_precision(opened, "auto", state).adds_wide is saturate
    assert not in_chosen_precision(opened, "exact", state).adds_wide
    # Narrow sums that came near enough on the probe may saturate on images.
    remember(opened, state, INT8)
    assert in_chosen_precision(opened, "auto", state).adds_wide is saturate


def test_where_sums_saturate_only_wide_ones_are_measured(
    opened: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning, "int8_sums_saturate", lambda: True)
    choice = choose(opened, opened.checkpoint(), TrainingConfig(threads=1))
    assert [(one.precision, one.wide_sums) for one in choice.measured] == [("exact", False), ("int8", True)]


@pytest.mark.slow
def test_an_int8_bundle_run_exact_is_the_exact_bundle(
    int8_bundle: Path, digits_bundle: Path, digits: Digits, tmp_path: Path
) -> None:
    """To the bit: the centers that are learned, and what is predicted with them."""
    chosen = open_learner(int8_bundle, tmp_path / "a", precision="exact")
    exact = open_learner(digits_bundle, tmp_path / "b")
    for learner in (chosen, exact):
        learner.learn(digits.task("01", (4, 5)))
    a, b = (dict(learner.state.load().tensors) for learner in (chosen, exact))
    # The base's own moments were measured with int8 graphs: a little else is protected.
    for name in (name for name in a if name.startswith("center/")):
        assert np.linalg.norm(a[name] - b[name]) < 0.01 * np.linalg.norm(b[name])
    x = exact.bundle.preprocessing(digits.of(4, 100, 130))
    for one, other in zip(*(_all_graphs(learner.bundle, b, x) for learner in (chosen, exact)), strict=True):
        np.testing.assert_array_equal(one, other)
    assert chosen.state.load().tasks[0].config["precision"] == "exact"


def _all_graphs(bundle: Bundle, tensors: dict, x: np.ndarray) -> list[np.ndarray]:
    outputs = bundle.graph(TRAINING_MODEL, tensors, 1).run(tuning._feeds(bundle, tensors, x))
    return [FeatureExtractor(bundle, tensors, 1)(x), *(outputs[name] for name in sorted(outputs))]


@pytest.mark.slow
def test_one_precision_learns_on_where_the_other_stopped(
    int8_bundle: Path, digits: Digits, tmp_path: Path
) -> None:
    """Centers are float32 in a state, so nothing is lost by changing; and changing back is no drift either."""
    always = life(int8_bundle, tmp_path / "a", digits, ("int8", "int8", "int8"))
    changing = life(int8_bundle, tmp_path / "b", digits, ("int8", "exact", "int8"))
    assert abs(np.mean(changing) - np.mean(always)) <= 1.0
    assert all(other >= one - 3.0 for one, other in zip(always, changing, strict=True))


def life(bundle: Path, state: Path, digits: Digits, precisions: tuple[str, ...]) -> list[float]:
    """Percent right of each task at the end, and of all classes, in int8."""
    tasks = {"01": (4, 5), "02": (6, 7), "03": (8, 9)}
    for precision, (name, chosen) in zip(precisions, tasks.items(), strict=True):
        open_learner(bundle, state, precision=precision).learn(digits.task(name, chosen))
    learner = open_learner(bundle, state, precision="int8")
    found = []
    for name, chosen in ({"base": (0, 1, 2, 3), **tasks} | {"": tuple(range(10))}).items():
        images, labels = digits.arrays(chosen, 100, 170)
        predicted = learner.predict(images, name or None)
        names = np.array([NAMES[digit] for digit in chosen])
        found.append(100 * float(np.mean(predicted.labels == names[labels])))
    return found


NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@pytest.mark.slow
def test_learning_takes_the_remembered_one_and_an_option_overrules_it(
    int8_bundle: Path, digits: Digits, tmp_path: Path
) -> None:
    opened = Bundle.open(int8_bundle)
    assert Learner.open(int8_bundle, tmp_path / "state").bundle.precision == "int8"
    remember(opened, tmp_path / "state", EXACT)
    assert Learner.open(int8_bundle, tmp_path / "state").bundle.precision == "exact"
    said = Learner.open(int8_bundle, tmp_path / "state", TrainingConfig(precision="int8"))
    assert said.bundle.precision == "int8"
    said.learn(
        digits.task("01", (4, 5)), TrainingConfig(precision="exact", threads=1, epochs=1, train="centers")
    )
    assert said.state.load().tasks[0].config["precision"] == "exact"


def test_a_bundle_of_one_precision_has_no_other(digits_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError) as error:
        Learner.open(digits_bundle, tmp_path / "state", TrainingConfig(precision="int8"))
    assert str(error.value) == (
        f"{digits_bundle} was built for precision exact, and has no graphs for int8: build it again with "
        "--precision int8."
    )
    broken = tmp_path / "bundle"
    shutil.copytree(digits_bundle, broken)
    assert recall(Bundle.open(broken), tmp_path / "state") is None


def test_the_probe_is_the_same_everywhere(opened: Bundle) -> None:
    """Builder and device must see the same numbers, so the first and the sum are fixed here."""
    images = probe(opened.manifest)
    assert images.shape == (8, *opened.manifest.input.shape)
    assert images.dtype == np.float32
    np.testing.assert_array_equal(images, probe(opened.manifest))
    assert 0.3 < float(images.std()) < 0.7
