"""Execution providers: chosen by name, told of where they are not there, no silent fallback, and not for learning.

ONNX Runtime's package for CPUs has no other provider, so here stand-ins are put where it lists its own; what real ones
compute is tested by the conformance vectors (`--provider`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cli.conftest import csk_sdk
from conftest import NAMES, REPOSITORY, Digits, open_learner
from csk_sdk import Bundle, ConfigError, Learner, RuntimeMissingError, TrainingConfig
from csk_sdk.contract.manifest import MEMORY_MODEL
from csk_sdk.device import comparing as comparisons
from csk_sdk.device.comparing import compare_providers, require_same
from csk_sdk.runtime import sessions as runtime
from csk_sdk.runtime.providers import available, find_providers
from csk_sdk.runtime.sessions import ON_CPU, load_onnxruntime

NEW = "NewExecutionProvider"


@pytest.fixture
def newcomer(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """A runtime that lists a further provider, and opens on the CPU what is asked of it; with what it was asked."""
    ort = load_onnxruntime()
    asked: list[dict[str, Any]] = []
    session = ort.InferenceSession

    class Session(session):  # type: ignore[misc,valid-type]
        def __init__(self, path: str | bytes, options: Any, providers: list[Any], **named: Any) -> None:
            self.claimed = [one if isinstance(one, str) else one[0] for one in providers]
            asked.append({"graph": Path(path).name if isinstance(path, str) else "", "providers": providers})
            super().__init__(path, options, providers=["CPUExecutionProvider"], **named)

        def get_providers(self) -> list[str]:
            return self.claimed

    monkeypatch.setattr(ort, "InferenceSession", Session)
    monkeypatch.setattr(ort, "get_available_providers", lambda: [NEW, "CPUExecutionProvider"])
    return asked


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (None, ON_CPU),
        ([], ON_CPU),
        (["cpu"], ON_CPU),
        ("CPUExecutionProvider", ON_CPU),
        (["new"], (NEW,)),
        (["NEWExecutionProvider", "cpu"], (NEW, "CPUExecutionProvider")),
        ([("new", {"device_id": 1})], ((NEW, {"device_id": 1}),)),
    ],
)
def test_names_as_people_write_them(wanted: Any, found: object, newcomer: object) -> None:
    assert find_providers(wanted) == found


@pytest.mark.parametrize(
    ("version", "found"),
    [("1.32.0", ("CUDAExecutionProvider", {"use_tf32": "0"})), ("1.17.3", "CUDAExecutionProvider")],
)
def test_cuda_computes_in_float32_unless_it_is_told_how(
    version: str, found: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    ort = load_onnxruntime()
    monkeypatch.setattr(
        ort, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
    )
    monkeypatch.setattr(ort, "__version__", version)
    assert find_providers(["cuda"]) == (found,)
    assert find_providers([("cuda", {})]) == (("CUDAExecutionProvider", {}),)


def test_the_builder_says_what_is_installed(tmp_path: Path) -> None:
    model = REPOSITORY / "examples" / "digits" / "digits-base4.onnx"
    done = csk_sdk("build-artifacts", str(model), "--out", str(tmp_path / "bundle"), "--provider", "cuda")
    assert done.status == 1
    assert "--provider has 'cuda', which the ONNX Runtime" in " ".join(done.err.split())
    assert not (tmp_path / "bundle").exists()


def test_the_builder_measures_with_it(tmp_path: Path, digits: Digits, newcomer: list[dict[str, Any]]) -> None:
    model = REPOSITORY / "examples" / "digits" / "digits-base4.onnx"
    for digit, name in enumerate(NAMES[:4]):
        (tmp_path / "base" / name).mkdir(parents=True)
        Image.fromarray(digits.of(digit, 0, 1)[0]).save(tmp_path / "base" / name / "0.png")
    described = model.with_suffix(".json")
    options = ("--base-data", str(tmp_path / "base"), "--classes", str(described), "--provider", "new")
    assert csk_sdk("build-artifacts", str(model), "--out", str(tmp_path / "bundle"), *options).status == 0
    used = {one["graph"] for one in newcomer if one["providers"] == [NEW]}
    assert used == {"eval_model.onnx", "memory_model.onnx"}


@pytest.mark.parametrize("wanted", ["cuda", "AzureExecutionProvider", "", "azure"])
def test_what_is_not_installed_is_told_with_what_is(wanted: str) -> None:
    # Azure's provider, which every package lists, computes on somebody else's machine.
    with pytest.raises(ConfigError, match=rf"has '{wanted}', which the ONNX Runtime .* \(it has cpu\)"):
        find_providers([wanted])
    assert available() == ["CPUExecutionProvider"]


@pytest.mark.parametrize("wanted", [[3], [("new", 1)], [("new",)], [None]])
def test_what_is_no_provider(wanted: Any) -> None:
    with pytest.raises(ConfigError, match="must have names such as 'openvino'"):
        find_providers(wanted)


def test_predictions_are_the_providers_and_learning_the_cpus(
    digits_bundle: Path, tmp_path: Path, digits: Digits, newcomer: list[dict[str, Any]]
) -> None:
    learner = Learner.open(
        digits_bundle,
        tmp_path / "state",
        TrainingConfig(epochs=1, threads=1, train="centers"),
        providers=[("new", {"a": "1"})],
    )
    learner.learn(digits.task("01", (4, 5), test=0))
    assert {one["graph"] for one in newcomer} >= {"training_model.onnx", "memory_model.onnx"}
    assert [one["providers"] for one in newcomer] == [["CPUExecutionProvider"]] * len(newcomer)
    newcomer.clear()
    learner.predict(digits.images[:2, :, :, None])
    learner.features(digits.images[:2, :, :, None])
    assert newcomer == [{"graph": "eval_model.onnx", "providers": [(NEW, {"a": "1"})]}]


def test_a_provider_that_does_not_start_is_an_error(
    digits_bundle: Path, tmp_path: Path, digits: Digits, monkeypatch: pytest.MonkeyPatch
) -> None:
    ort = load_onnxruntime()
    monkeypatch.setattr(ort, "get_available_providers", lambda: [NEW, "CPUExecutionProvider"])
    learner = Learner.open(digits_bundle, tmp_path / "state", providers=["new"])
    with (
        pytest.warns(UserWarning, match=NEW),
        pytest.raises(RuntimeMissingError, match=f"{NEW} .* cannot start here"),
    ):
        learner.predict(digits.images[:1, :, :, None])


def test_a_provider_that_fails_in_a_run_is_an_error_and_not_done_again(
    digits_bundle: Path, tmp_path: Path, digits: Digits, newcomer: object
) -> None:
    learner = Learner.open(digits_bundle, tmp_path / "state", providers=["new"])
    learner.predict(digits.images[:1, :, :, None])
    extractor = learner.predictor()._extractor
    assert extractor is not None
    session = extractor._graph._session
    assert not session._enable_fallback

    def broken(*_: object) -> None:
        raise RuntimeError("out of memory on the device\nat line 7")

    session.run = broken
    with pytest.raises(
        RuntimeMissingError, match=rf"{NEW} cannot compute this network \(out of memory on the device\)"
    ):
        learner.predict(digits.images[:1, :, :, None])


def test_numbers_of_channels_are_fixed_for_other_providers(digits_bundle: Path, newcomer: object) -> None:
    bundle = Bundle.open(digits_bundle)
    site = bundle.manifest.sites[0]
    for view, channels, expected in (
        (bundle, None, f"{site.name}.k"),
        (bundle.view(providers=(NEW,)), None, 1),
        (bundle.view(providers=(NEW,)), {site.name: 3}, 3),
    ):
        graph = view.graph(MEMORY_MODEL, bundle.checkpoint(), 1, channels)
        shapes = {one.name: one.shape for one in graph._session.get_inputs()}
        assert shapes[site.indices] == [expected]


def test_a_provider_that_computes_something_else_is_found(
    digits_bundle: Path, newcomer: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = Bundle.open(digits_bundle)
    tensors = bundle.checkpoint()
    assert [(one.name, one.same, one.apart) for one in compare_providers(bundle, tensors, 1)] == [
        ("cpu", True, 0.0),
        ("new", True, 0.0),
    ]
    require_same(bundle.view(providers=(NEW,)), tensors)
    run = runtime.Graph.run

    def other(self: Any, *arguments: Any, **named: Any) -> Any:
        found = run(self, *arguments, **named)
        return {name: value + (0.1 if self._provider else 0) for name, value in found.items()}

    monkeypatch.setattr(runtime.Graph, "run", other)
    assert [one.same for one in compare_providers(bundle, tensors, 1)] == [True, False]
    with pytest.raises(ConfigError, match=f"{NEW} computes other features than the CPU does, off by"):
        require_same(bundle.view(providers=(NEW,)), tensors)


def test_a_workspace_names_its_providers(
    digits_bundle: Path, tmp_path: Path, newcomer: list[dict[str, Any]]
) -> None:
    picture = tmp_path / "x.png"
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(picture)
    options = ("--workspace", str(tmp_path), "--bundle", str(digits_bundle))
    (tmp_path / "csk.toml").write_text('[runtime]\nproviders = ["New"]\n')
    assert csk_sdk("predict", str(picture), *options).status == 0
    assert newcomer.pop()["providers"] == [NEW]
    assert csk_sdk("predict", str(picture), "--provider", "cpu", *options).status == 0
    assert newcomer.pop()["providers"] == ["CPUExecutionProvider"]
    refused = csk_sdk("predict", str(picture), "--provider", "xnnpack", *options)
    assert refused.status == 1
    assert "(it has new, cpu)" in " ".join(refused.err.split())


@pytest.mark.slow
@pytest.mark.parametrize(("faster", "advice"), [(0.5, 'With providers = ["new"] under [runtime]'), (1.0, "")])
def test_doctor_compares_them(
    faster: float,
    advice: str,
    digits_bundle: Path,
    tmp_path: Path,
    newcomer: object,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    timed = comparisons.in_turn
    seconds = {NEW: 0.002 * faster, "CPUExecutionProvider": 0.002}
    monkeypatch.setattr(
        comparisons, "in_turn", lambda calls, rounds: seconds if NEW in calls else timed(calls, rounds)
    )
    options = ("--workspace", str(tmp_path), "--bundle", str(digits_bundle))
    checks = {one["name"]: one for one in csk_sdk("doctor", "--json", *options).json["checks"]}
    found = checks["Providers"]
    assert found["status"] == "ok"
    assert found["detail"] == f"cpu: 2.00 ms an image; new: {2 * faster:.2f} ms an image"
    assert found["remedy"].startswith(advice)
    assert bool(found["remedy"]) == bool(advice)
    (tmp_path / "csk.toml").write_text('[runtime]\nproviders = ["cuda"]\n')
    checks = {one["name"]: one for one in csk_sdk("doctor", "--json", *options).json["checks"]}
    assert checks["Providers"]["status"] == "fail"


def test_doctor_is_silent_where_there_is_only_the_cpu(digits_bundle: Path, tmp_path: Path) -> None:
    found = csk_sdk("doctor", "--json", "--workspace", str(tmp_path), "--bundle", str(digits_bundle)).json[
        "checks"
    ]
    assert "Providers" not in {one["name"] for one in found}


def test_the_small_profile_keeps_the_providers(
    digits_bundle: Path, tmp_path: Path, digits: Digits, newcomer: list[dict[str, Any]]
) -> None:
    learner = open_learner(digits_bundle, tmp_path / "state", profile="small")
    learner.providers = (NEW,)
    learner.predict(digits.images[:1, :, :, None])
    assert newcomer[-1]["providers"] == [NEW]
