"""What takes more memory than there is ends in a sentence: known before it is asked for, where that can be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from csk_sdk import TaskError
from csk_sdk.contract.manifest import MOST_FEATURES
from csk_sdk.formats.schema import load_schema
from csk_sdk.network import knowledge
from csk_sdk.runtime.peak_memory import available_bytes
from learner.used_device import Device, refused


def _stream(device: Device) -> None:
    with device.learner(sensitivity_batches=1).stream("03", ["eight", "nine"]) as stream:
        stream.observe(*device.digits.arrays((8, 9), 0, 8))


ACTS: dict[str, Callable[[Device], Any]] = {
    "learn": lambda device: device.learn(device.named("03")),
    "predict": lambda device: device.learner().predict(device.digits.of(8, 0, 1)),
    "evaluate": lambda device: device.learner().evaluate([device.digits.task("01", (4, 5))]),
    "export": lambda device: device.learner().export(device.folder / "x.onnx"),
    "stream": _stream,
}


@pytest.mark.parametrize("act", ACTS)
def test_sums_over_features_that_do_not_fit_are_told_before(
    device: Device, monkeypatch: pytest.MonkeyPatch, act: str
) -> None:
    monkeypatch.setattr(knowledge, "available_bytes", lambda: 100)
    words = ["features, and what is known of classes over so many takes", "this device has 0.0 GB left"]
    refused(device, TaskError, words, lambda: ACTS[act](device))


@pytest.mark.parametrize("act", ACTS)
def test_a_memory_error_is_a_sentence(device: Device, monkeypatch: pytest.MonkeyPatch, act: str) -> None:
    def full(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(knowledge, "available_bytes", full)  # what every one of them asks
    refused(device, TaskError, ["This device ran out of memory."], lambda: ACTS[act](device))


def test_a_bundle_of_too_many_features_is_refused_by_its_schema() -> None:
    head = load_schema("manifest")["properties"]["head"]["properties"]
    assert head["features"]["maximum"] == MOST_FEATURES
    assert 3 * 8 * MOST_FEATURES**2 < 32 << 30


def test_the_system_tells_what_it_has() -> None:
    available = available_bytes()
    assert available is None or 1 << 20 < available < 1 << 50
