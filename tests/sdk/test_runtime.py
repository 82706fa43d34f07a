"""How sessions are opened: threads that wait, and where from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from conftest import Digits, open_learner
from csk_sdk.bundle import folder as bundles
from csk_sdk.network.profiles import SMALL, MappedBundle
from csk_sdk.runtime import sessions as runtime

SLEEP, STOP = "session.intra_op.allow_spinning", "session.force_spinning_stop"


def test_threads_sleep_unless_they_are_to_spin_within_a_run() -> None:
    assert runtime.session_options().get_session_config_entry(SLEEP) == "0"
    assert runtime.session_options(spinning=True).get_session_config_entry(STOP) == "1"
    with pytest.raises(Exception, match=SLEEP):
        runtime.session_options(spinning=True).get_session_config_entry(SLEEP)


@pytest.mark.parametrize("spinning", [False, True])
def test_only_training_steps_spin_and_only_where_it_is_set(
    spinning: bool, digits_bundle: Path, tmp_path: Path, digits: Digits, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[tuple[str, bool]] = []
    graph = bundles.Graph

    def watched(path: Path, *arguments: Any, **named: Any) -> Any:
        opened.append((path.name, named["spinning"]))
        return graph(path, *arguments, **named)

    monkeypatch.setattr(bundles, "Graph", watched)
    learner = open_learner(digits_bundle, tmp_path / "state", spinning=spinning)
    learner.learn(digits.task("01", (4, 5), test=0))
    learner.predict(digits.images[:1, :, :, None])
    assert ("training_model.onnx", spinning) in opened
    assert {spins for name, spins in opened if name != "training_model.onnx"} == {False}


def test_a_mapped_bundle_spins_as_the_bundle_does(digits_bundle: Path, tmp_path: Path) -> None:
    bundle = bundles.Bundle.open(digits_bundle).view(spinning=True)
    assert MappedBundle(bundle, tmp_path, SMALL).spinning
