"""States that other platforms wrote, without other platforms: what is found in them, and what is wrong with them.

The run itself is `make conformance`.
"""

import hashlib
import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file
from workspaces import digits_workspace

from csk_sdk import Learner
from platforms import travel
from platforms.__main__ import main
from platforms.conformance import ConformanceError
from platforms.digits import TASKS, Learned
from platforms.travel import begin, changed_files, check_states, tell


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    return digits_workspace(tmp_path_factory.mktemp("digits") / "digits")


@pytest.fixture(scope="module")
def begun(workspace):
    return begin(workspace)


@pytest.fixture
def sent(workspace, begun, monkeypatch):
    """A browser's state after the first task, and what it says of it; no task is learned on top."""
    states = workspace / "states"
    shutil.rmtree(states / "browser-first", ignore_errors=True)
    shutil.copytree(begun, states / "browser-first")
    (states / "conformance").mkdir(exist_ok=True)
    files = {
        path.relative_to(begun).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in begun.rglob("*")
        if path.is_file()
    }
    known = tell(workspace, begun)
    word = {
        "platform": "browser",
        "sha256": files,
        "told": {"accuracy": known.accuracy, "predictions": dict(known.predictions)},
    }
    monkeypatch.setattr(travel, "accuracy", lambda *_: 97.0)
    monkeypatch.setattr(travel, "learn", lambda *_: Learned(97.5, 1.0))
    return word


def said(workspace, word):
    (workspace / "states" / "browser-first.json").write_text(json.dumps(word))
    return check_states(workspace)


@pytest.mark.slow
def test_what_is_told_is_what_the_learner_says(workspace, begun):
    told = tell(workspace, begun)
    learner = Learner.open(workspace / "bundle", begun)
    pictures = load_file(workspace / "digits.safetensors")
    right = []
    for name, names in (("base", ("zero", "one", "two", "three")), (TASKS[0], ("four", "five"))):
        labels = learner.predict(pictures[f"{name}/test/images"][..., None]).labels
        truth = [names[label] for label in pictures[f"{name}/test/labels"]]
        right.append(sum(one == two for one, two in zip(labels, truth, strict=True)) / len(truth))
        assert list(told.predictions[name]) == list(labels)
    assert told.accuracy == pytest.approx(100 * np.mean(right))
    assert told.accuracy > 90


def test_a_state_as_it_was_sent_passes(workspace, sent, capsys):
    found = said(workspace, sent)
    assert [finding.what for finding in found if not finding.passed] == []
    assert len(found) == 3
    assert main(["states", str(workspace)]) == 0
    assert "ok    browser  begun: host says the same " in capsys.readouterr().out


def test_a_changed_file_and_a_missing_one_are_found(workspace, sent):
    state = workspace / "states" / "browser-first"
    record = next(path for path in sent["sha256"] if path.endswith("000001.json"))
    with (state / record).open("a") as file:
        file.write(" ")
    (state / "more").touch()
    assert changed_files(state, {**sent["sha256"], "HEAD.old": "0"}) == sorted(["HEAD.old", record, "more"])


@pytest.mark.parametrize("wrong", [4, 300])
def test_another_opinion_of_pictures_is_found(workspace, sent, wrong, capsys):
    labels = sent["told"]["predictions"]["base"]
    sent["told"]["predictions"]["base"] = ["nine"] * min(wrong, len(labels)) + labels[wrong:]
    (finding,) = [one for one in said(workspace, sent) if not one.passed]
    assert finding.what == "begun: host says the same"
    assert finding.detail.startswith(f"{min(wrong, len(labels))} of 269 images differ")
    assert main(["states", str(workspace)]) == 1
    assert "FAIL  browser" in capsys.readouterr().out


def test_a_task_that_is_not_known_here_is_found(workspace, sent):
    sent["told"]["predictions"]["03-eight-nine"] = ["eight"]
    (finding,) = [one for one in said(workspace, sent) if not one.passed]
    assert "03-eight-nine" in finding.detail


def test_a_continuation_that_ends_elsewhere_is_found(workspace, sent, monkeypatch):
    monkeypatch.setattr(travel, "learn", lambda *_: Learned(95.9, 1.0))
    (finding,) = [one for one in said(workspace, sent) if not one.passed]
    assert finding.detail == "95.9 %, 97.0 % where all was learned on host"


def test_no_states_are_told(tmp_path):
    with pytest.raises(ConformanceError, match="has no states to compare: run `make conformance`"):
        check_states(tmp_path)
