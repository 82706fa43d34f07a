"""What doctor finds where a device or a workspace is not as it should be, and what to do about it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from csk_sdk import BundleError, StorageError, TrainingConfig
from csk_sdk.backends import StepResult
from csk_sdk.bundle.folder import Bundle
from csk_sdk.device.comparing import ProviderResult
from csk_sdk.device.tuning import Choice, Measured
from csk_sdk.state import State
from csk_sdk.workspace import doctor, doctor_graphs
from csk_sdk.workspace.doctor_graphs import Check

Findings = dict[str, Check]


@pytest.fixture
def examine(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], Findings]:
    """All findings but of the graphs, which are timed elsewhere, by their names."""
    for name in ("graph_checks", "provider_checks"):
        monkeypatch.setattr(doctor, name, lambda *_: iter(()))
    return lambda folder: {check.name: check for check in doctor.examine(folder)}


@pytest.mark.parametrize(
    ("lines", "status", "detail"),
    [
        ({"MemTotal": "4000000 kB", "MemAvailable": "2000000 kB"}, "ok", "4.1 GB, 2.0 GB available"),
        ({"MemTotal": "500000 kB", "MemAvailable": "200000 kB"}, "warn", "0.5 GB, 0.2 GB available"),
        ({}, "ok", "this system does not tell"),
        ({"MemTotal": "", "MemAvailable": "much"}, "ok", "this system does not tell"),
    ],
)
def test_memory(
    examine: Callable[[Path], Findings],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    lines: dict[str, str],
    status: str,
    detail: str,
) -> None:
    monkeypatch.setattr(doctor, "colon_lines", lambda path: lines.items())
    found = examine(tmp_path)["Memory"]
    assert (found.status, found.detail) == (status, detail)
    assert ("use a smaller --batch-size" in found.remedy) == (status == "warn")


def test_cores_that_this_process_may_not_use(
    examine: Callable[[Path], Findings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0}, raising=False)
    assert examine(tmp_path)["CPU"].detail.endswith(", 1 of 4 cores usable")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3}, raising=False)
    assert examine(tmp_path)["CPU"].detail.endswith(", 4 cores")


def test_the_disk(
    examine: Callable[[Path], Findings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=50_000_000))
    found = examine(tmp_path)["Disk"]
    assert (found.status, found.detail) == ("warn", f"0.1 GB free for {tmp_path / 'state'}")
    assert found.remedy == "Free some space, or set keep = 2 under [state] in csk.toml."
    with monkeypatch.context() as patch:
        patch.setattr(os, "access", lambda path, mode: False)
        found = examine(tmp_path)["Disk"]
    assert (found.status, found.detail) == ("fail", f"{tmp_path} cannot be written by this user")

    def failing(path: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(shutil, "disk_usage", failing)
    found = examine(tmp_path)["Disk"]
    assert (found.status, found.detail) == ("warn", f"{tmp_path} cannot be measured (Input/output error)")


def test_a_state_that_cannot_be_locked(
    examine: Callable[[Path], Findings], learned: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(state: State) -> None:
        raise StorageError("The disk says no.")

    monkeypatch.setattr(State, "lock", failing)
    found = examine(learned)["Lock"]
    assert (found.status, found.detail) == ("fail", "The disk says no.")


def test_the_checkpoint_of_a_task_that_is_learned_by_now_is_nothing_to_tell(
    examine: Callable[[Path], Findings], learned: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The device died between the commit and the clearing."""
    progress: dict[str, Any] = {"task": "01-four-five", "step": 3}
    monkeypatch.setattr(State, "load_progress", lambda state: ({}, progress))
    assert "Progress" not in examine(learned)
    progress["task"] = "03-nine"
    assert "`csk-sdk train --task 03-nine` goes on at step 3" in examine(learned)["Progress"].detail


def test_tasks_that_are_no_folder(examine: Callable[[Path], Findings], workspace: Path) -> None:
    shutil.rmtree(workspace / "tasks")
    (workspace / "tasks").write_text("")
    found = examine(workspace)["Tasks"]
    assert found.status == "fail"
    assert str(workspace / "tasks") in found.detail


def test_a_precision_that_the_bundle_has_not(examine: Callable[[Path], Findings], workspace: Path) -> None:
    (workspace / "csk.toml").write_text('[training]\nprecision = "int8"\n')
    found = examine(workspace)["Graphs"]
    assert found.status == "fail"
    assert "int8" in found.detail


# Graphs


@pytest.fixture
def bundle(digits_bundle: Path) -> Bundle:
    return Bundle.open(digits_bundle)


def steps_like(loss: float) -> Callable[..., Any]:
    """Training steps that give this loss, or raise where it is none."""

    def run(*_: object) -> StepResult:
        if loss < 0:
            raise RuntimeError("[ONNXRuntimeError] : 6 : no room\nand a trace")
        nothing = np.zeros(1, np.float32)
        return StepResult(loss=loss, weight=nothing, bias=nothing, centers={})

    return lambda *_, **__: SimpleNamespace(run=run)


def graphs_of(bundle: Bundle, **settings: Any) -> list[Check]:
    config = TrainingConfig(threads=1, **settings)
    return list(doctor_graphs.graph_checks(bundle, bundle.checkpoint(), config))


@pytest.mark.parametrize(
    ("loss", "detail", "remedy"),
    [
        (-1.0, "[ONNXRuntimeError] : 6 : no room", "Try a smaller batch_size in csk.toml."),
        (np.nan, "loss not finite", "Check --mean and --std; build the bundle again."),
    ],
    ids=["raises", "not-finite"],
)
def test_a_training_step_that_fails(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, loss: float, detail: str, remedy: str
) -> None:
    monkeypatch.setattr(doctor_graphs, "open_step", steps_like(loss))
    graphs, step = graphs_of(bundle)
    assert (graphs.name, graphs.status) == ("Graphs", "ok")
    assert step == Check("Training step", "fail", detail, remedy)


@pytest.mark.parametrize("spinning", [False, True])
@pytest.mark.parametrize(("other", "told"), [(0.5, True), (0.95, False)])
def test_threads_that_wait_the_other_way_are_spoken_of_where_they_bring_something(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, spinning: bool, other: float, told: bool
) -> None:
    took = {str(spinning): 0.020, str(not spinning): 0.020 * other}
    monkeypatch.setattr(doctor_graphs, "open_step", steps_like(1.0))
    monkeypatch.setattr(doctor_graphs, "in_turn", lambda *_: took)
    step = graphs_of(bundle, spinning=spinning, batch_size=4)[1]
    assert step.status == "ok"
    assert step.detail.startswith("20.0 ms for 4 images, peak memory ")
    setting = (
        f"With spinning = {'false' if spinning else 'true'} under [training] in csk.toml it takes 10.0 ms"
    )
    assert step.remedy.startswith(setting) if told else step.remedy == ""


def test_graphs_that_do_not_open(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object) -> None:
        raise BundleError("ONNX Runtime 9 cannot open it.")

    monkeypatch.setattr(doctor_graphs, "open_step", failing)
    (found,) = graphs_of(bundle)
    assert found == Check(
        "Graphs",
        "fail",
        "ONNX Runtime 9 cannot open it.",
        "Install another ONNX Runtime, or build the bundle again.",
    )


EXACT, INT8 = Measured("exact", False, 9.0, None), Measured("int8", False, 5.0, None, 0.01, 0.02)
CHOICE = Choice(INT8, (EXACT, INT8), "int8 takes 0.56 of the time of exact")


def space_with(tmp_path: Path, **settings: Any) -> Any:
    config = TrainingConfig(**settings)
    return SimpleNamespace(config=config, state=tmp_path / "state", providers=None)


@pytest.mark.parametrize(
    ("wanted", "remedy"),
    [("auto", ""), ("int8", ""), ("exact", "csk.toml sets precision to exact, and so it stays.")],
)
def test_a_precision_that_is_set_stays(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wanted: str, remedy: str
) -> None:
    monkeypatch.setattr(doctor_graphs, "choose", lambda *_: CHOICE)
    found = doctor_graphs.precision_check(bundle, {}, space_with(tmp_path, precision=wanted))
    assert found == Check("Precision", "ok", f"int8: {CHOICE.why}", remedy, (EXACT, INT8))
    assert [one["precision"] for one in found.to_json()["measured"]] == ["exact", "int8"]
    assert '"precision": "int8"' in (tmp_path / "device.json").read_text()


def test_a_precision_that_cannot_be_measured_or_remembered(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object) -> None:
        raise RuntimeError("no room\nand a trace")

    monkeypatch.setattr(doctor_graphs, "choose", failing)
    found = doctor_graphs.precision_check(bundle, {}, space_with(tmp_path))
    remedy = "Try a smaller batch_size in csk.toml."
    assert found == Check("Precision", "warn", "cannot be measured (no room)", remedy)
    assert "measured" not in found.to_json()
    (tmp_path / "device.json").mkdir()
    monkeypatch.setattr(doctor_graphs, "choose", lambda *_: CHOICE)
    found = doctor_graphs.precision_check(bundle, {}, space_with(tmp_path))
    assert (found.status, found.detail) == ("warn", f"int8: {CHOICE.why}")
    assert found.remedy.startswith("It could not be remembered, so learning takes exact: ")


ON_CPU = ProviderResult("cpu", 4.0, 0.0, True)
FAST = ProviderResult("fast", 2.0, 3e-6, True)
WRONG = ProviderResult("wrong", 1.0, 0.3, False)
BROKEN = ProviderResult("broken", 0.0, 0.0, False, "it cannot start here.")


@pytest.mark.parametrize(
    ("found", "chosen", "check"),
    [
        ([ON_CPU], ["cpu"], None),
        (
            [ON_CPU, FAST, BROKEN],
            ["cpu"],
            (
                "ok",
                "cpu: 4.00 ms an image; fast: 2.00 ms an image, features within 3e-06; "
                "broken cannot be used (it cannot start here)",
                'With providers = ["fast"] under [runtime] in csk.toml predictions are faster.',
            ),
        ),
        (
            [ON_CPU, FAST],
            ["fast"],
            ("ok", "cpu: 4.00 ms an image; fast: 2.00 ms an image, features within 3e-06", ""),
        ),
        # The fastest of all is none where it computes something else.
        (
            [ON_CPU, WRONG],
            ["cpu"],
            ("ok", "cpu: 4.00 ms an image; wrong: 1.00 ms an image, features within 3e-01", ""),
        ),
        (
            [ON_CPU, WRONG],
            ["wrong"],
            (
                "fail",
                "cpu: 4.00 ms an image; wrong: 1.00 ms an image, features within 3e-01",
                "wrong does not compute what the CPU does: take it out of providers in csk.toml.",
            ),
        ),
    ],
    ids=["cpu-alone", "faster", "chosen-already", "wrong", "wrong-and-chosen"],
)
def test_providers(
    bundle: Bundle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    found: list[ProviderResult],
    chosen: list[str],
    check: tuple[str, str, str] | None,
) -> None:
    monkeypatch.setattr(doctor_graphs, "find_providers", lambda *_: chosen)
    monkeypatch.setattr(doctor_graphs, "compare_providers", lambda *_: found)
    checks = list(doctor_graphs.provider_checks(bundle, {}, space_with(tmp_path)))
    assert checks == ([] if check is None else [Check("Providers", *check)])


def test_a_provider_that_is_not_there(bundle: Bundle, tmp_path: Path) -> None:
    space = space_with(tmp_path)
    space.providers = ["openvino"]
    (found,) = doctor_graphs.provider_checks(bundle, {}, space)
    assert (found.name, found.status) == ("Providers", "fail")
    assert found.detail.startswith(
        "csk.toml has 'openvino', which the ONNX Runtime of this environment does not"
    )
