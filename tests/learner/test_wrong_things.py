"""Wrong things through the whole public Python API: a CskError with one sentence, never a raw error of Python's."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import csk_sdk
from csk_sdk import (
    Bundle,
    CskError,
    Inbox,
    Learner,
    Task,
    TrainingConfig,
    fleet,
    upgrade,
    upgrade_back,
    verify,
)
from csk_sdk.workspace.folder import Workspace
from learner.used_device import Device

# What nobody means, and what somebody hands over by mistake.
WRONG: dict[str, Any] = {
    "None": None,
    "True": True,
    "3": 3,
    "-1": -1,
    "nan": float("nan"),
    "bytes": b"x",
    "an object": object(),
    "an empty list": [],
    "an empty dict": {},
    "a dict": {"a": 1},
    "a list of None": [None],
    "a list of strings": ["a", "b"],
    "a nested list": [[1, 2], [3]],
    "numbers": np.zeros(3),
    "objects": np.array([object(), None]),
    "a structured array": np.zeros(2, [("a", "i4")]),
    "a function": len,
    "a class": Task,
    "no text": "",
    "no path": "nowhere/at/all",
    "a path with a zero": "a\0b",
    "a very long path": "x" * 5000,
    "a surrogate": "\udce9",
    "a set": {1},
    "a generator": "made anew",
    "a complex number": 1j,
}


def _wrong(name: str) -> Any:
    return (one for one in (None, 3)) if name == "a generator" else WRONG[name]


Call = tuple[Callable[..., Any], dict[str, Any]]


def calls(device: Device) -> dict[str, Call]:
    """Every public function, with arguments that are right."""
    images = device.digits.of(8, 0, 2)
    arrays = {"images": device.digits.arrays((8, 9), 0, 3)[0], "labels": [0, 0, 0, 1, 1, 1]}
    tests = {"test_images": arrays["images"], "test_labels": arrays["labels"]}
    signals = {"signals": np.zeros((6, 8), np.int16), "labels": arrays["labels"]}
    bundle, state = device.folder / "bundle", device.folder / "state"
    learner = device.learner()
    task = device.digits.task("03", (8, 9), test=0)
    (device.folder / "tasks").mkdir(exist_ok=True)
    device.digits.save(task, device.folder / "tasks")
    npz = device.folder / "tasks" / "03.npz"
    inbox = Inbox(device.folder / "tasks")

    def observe(images: Any, labels: Any) -> None:
        stream = learner.stream("04", ["eight", "nine"])
        with suppress(_Over), stream:
            stream.observe(images, labels)
            raise _Over

    def forget(name: Any, task: Any) -> None:
        learner.forget(*(() if task is not None else (name,)), task=task)

    def learn(task: Any, config: Any, on_progress: Any, replace: Any) -> None:
        def stop(_: Any) -> None:
            raise _Over

        try:
            with suppress(_Over):
                on_progress = stop if on_progress is stop_marker else on_progress
                learner.learn(task, config, on_progress, replace=replace)
        finally:
            learner.rollback("01")

    exported, merged = device.folder / "device.cskc", device.folder / "fleet.cskc"
    fleet.export(learner, exported, least=1)
    fleet.merge([exported], merged)

    def apply(learner: Any, file: Any, trust: Any) -> None:
        try:
            fleet.apply(learner, file, trust=trust)
        finally:
            device.learner().rollback("01")

    def adapt(name: Any, images: Any, replace: Any) -> None:
        try:
            learner.adapt(name, images, replace=replace)
        finally:
            for known in learner.domains:
                learner.forget_domain(known)

    def forget_domain(name: Any) -> None:
        learner.adapt("haze", haze)
        try:
            learner.forget_domain(name)
        finally:
            adapt("haze", haze, True)

    haze = (device.digits.arrays((0, 1, 2, 3), 0, 20)[0] * 0.12 + 60).astype(np.uint8)
    stop_marker = object()
    return {
        "Bundle.open": (Bundle.open, {"folder": bundle, "trust": None}),
        "Bundle.read_manifest": (Bundle.read_manifest, {"folder": bundle, "trust": None}),
        "Inbox": (
            lambda **given: Inbox(**given).names(),
            {"folder": device.folder / "tasks", "bit_depth": None},
        ),
        "Inbox.open": (inbox.open, {"name": "03"}),
        "Learner.open": (
            Learner.open,
            {
                "bundle": bundle,
                "state": state,
                "config": None,
                "backend": "auto",
                "trust": None,
                "allow_older": False,
                "providers": None,
            },
        ),
        "Learner.learn": (learn, {"task": task, "config": None, "on_progress": stop_marker, "replace": None}),
        "Learner.stream": (
            learner.stream,
            {"name": "03", "classes": ["a", "b"], "config": None, "replace": None},
        ),
        "Learner.adapt": (adapt, {"name": "haze", "images": haze, "replace": False}),
        "Learner.forget_domain": (forget_domain, {"name": "haze"}),
        "Learner.forget": (forget, {"name": "four", "task": None}),
        "Learner.rename": (learner.rename, {"old": "four", "new": "four"}),
        "Learner.merge": (learner.merge, {"into": "four", "other": "four"}),
        "Learner.features": (learner.features, {"images": images}),
        "Learner.predict": (learner.predict, {"images": images, "task": None}),
        "Learner.evaluate": (learner.evaluate, {"tasks": [device.named("01")], "scenario": "task"}),
        "Learner.score": (learner.score, {"tasks": [device.named("01")]}),
        "Learner.export": (learner.export, {"path": device.folder / "a.onnx", "task": None}),
        "Learner.head": (learner.head, {"task": None}),
        "Learner.count": (learner.count, {"on": True}),
        "Learner.rollback": (learner.rollback, {"task": "01"}),
        "Learner.require_new": (learner.require_new, {"name": "03", "classes": ("a", "b")}),
        "Task.open": (Task.open, {"path": npz, "bit_depth": None}),
        "Task.from_folder": (Task.from_folder, {"path": device.folder / "tasks", "bit_depth": None}),
        "Task.from_npz": (Task.from_npz, {"path": npz, "bit_depth": None}),
        "Task.from_arrays": (
            Task.from_arrays,
            {"name": "03", "class_names": ["a", "b"], "bit_depth": None, **arrays, **tests},
        ),
        "Task.from_signals": (Task.from_signals, {"name": "03", "class_names": ["a", "b"], **signals}),
        "TaskStream.observe": (observe, {"images": images, "labels": [0, 1]}),
        "TrainingConfig": (
            TrainingConfig,
            {field.name: getattr(TrainingConfig(), field.name) for field in fields(TrainingConfig)},
        ),
        "TrainingConfig.from_mapping": (TrainingConfig.from_mapping, {"values": {}, "where": "here"}),
        "TrainingConfig.with_overrides": (TrainingConfig().with_overrides, {"epochs": 3, "energy": 0.5}),
        "Workspace.open": (
            Workspace.open,
            {"folder": device.folder, "bundle": None, "state": None, "tasks": None, "trust": None},
        ),
        "fleet.export": (
            fleet.export,
            {
                "learner": learner,
                "out": device.folder / "a.cskc",
                "least": 20,
                "bits": 8,
                "name": None,
                "sign": None,
            },
        ),
        "fleet.merge": (
            fleet.merge,
            {
                "files": [exported],
                "out": device.folder / "merged.cskc",
                "same": None,
                "without_devices": (),
                "accept": (),
                "trust": (),
                "keep_apart": False,
                "skip_broken": False,
                "sign": None,
            },
        ),
        "fleet.apply": (apply, {"learner": learner, "file": merged, "trust": None}),
        "fleet.inspect": (fleet.inspect, {"file": merged}),
        "upgrade": (
            upgrade,
            # That is the bundle that the device has: one sentence, too.
            {
                "bundle": bundle,
                "state": state,
                "new": bundle,
                "tasks": None,
                "config": None,
                "trust": None,
                "on_step": print,
            },
        ),
        "upgrade_back": (upgrade_back, {"bundle": bundle, "state": state, "trust": None}),
        "verify": (
            verify,
            {"bundle": bundle, "state": state, "repair": False, "trust": None, "allow_older": False},
        ),
    }


class _Over(Exception):
    """Raised where a run shall end without having changed anything."""


@pytest.mark.slow
def test_every_wrong_thing_is_one_sentence(
    device: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")  # where "nowhere" may be made
    raw = []
    for name, (function, right) in calls(device).items():
        for argument in right:
            for kind in WRONG:
                if argument == "on_progress" and callable(WRONG[kind]):
                    continue  # what an application's own function raises is its own
                try:
                    function(**{**right, argument: _wrong(kind)})
                except CskError as error:
                    if len(str(error).splitlines()) != 1 or not str(error).endswith("."):
                        raw.append(f"{name}({argument}={kind}): {error!r}")
                except Exception as error:
                    raw.append(f"{name}({argument}={kind}): {type(error).__name__}: {str(error)[:90]}")
    assert not raw, "\n".join([f"{len(raw)} of them", *raw])


def _public() -> Iterator[str]:
    yield from (f"fleet.{name}" for name in fleet.__all__ if not inspect.isclass(getattr(fleet, name)))
    for name in csk_sdk.__all__:
        value = getattr(csk_sdk, name)
        if not inspect.isclass(value):
            yield name
        elif not issubclass(value, Exception):
            for part, member in vars(value).items():
                if (
                    not part.startswith("_")
                    and callable(getattr(value, part))
                    and not isinstance(member, property)
                ):
                    yield f"{name}.{part}"


def test_no_public_function_is_left_out(device: Device) -> None:
    # Without arguments, of results, or under another name here.
    others = {
        "Bundle.checkpoint",
        "Bundle.stored_checkpoint",
        "Bundle.weights",
        "Bundle.domain_channels",
        "Bundle.folded_kernels",
        "Bundle.graph",
        "Bundle.graph_file",
        "Bundle.session",
        "Bundle.view",
        "Bundle.path",
        "Bundle.verify_file",
        "Evaluation.to_json",
        "Adapted.to_json",
        "Forgotten.to_json",
        "Inbox.names",
        "Inbox.paths",
        "Inbox.found",
        "Inbox.require_folder",
        "Inbox.require_no_file",
        "LearnReport.to_json",
        "Learner.status",
        "Status.to_json",
        "Learner.predictor",
        "Task.fingerprint",
        "Task.require_trainable",
        "TaskStream.end_epoch",
        "TrainingConfig.to_json",
        "UpgradeReport.to_json",
        "Verification.to_json",
        "Prediction.count",
        "Prediction.index",
    }
    missing = sorted(set(_public()) - set(calls(device)) - others)
    assert not missing, missing
