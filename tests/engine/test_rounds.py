"""Rounds of a fleet on loopback: what a device that dies, and a server that dies, cost."""

from __future__ import annotations

import shutil

import numpy as np

from conftest import NAMES, Digits
from csk_sdk import fleet
from csk_sdk.fleet.engine.exchange import BUSY
from engine.provisioned import BOUND, PLANS, SERVER, Fleet, report_of, wait_for


def busy(ours: Fleet, name: str) -> int:
    """How often a device, since it was started, has said that it learns while it was asked."""
    return ours.new(name).count(BUSY)


def test_a_device_and_the_server_die_in_the_middle(ours: Fleet, digits: Digits) -> None:
    for name in (SERVER, *PLANS):
        ours.start(name)
    # A device that learns is waited for, and one that dies then is missed: the round goes on with the others.
    with ours.learning("yard"), ours.learning("kitchen"):
        first = ours.round("--enough", "2")
        wait_for(lambda: busy(ours, "yard") and busy(ours, "kitchen"), "both are asked")
        # First its part of the round, as for want of memory: that is its own trouble. Then all of it.
        ours.kill_job("yard")
        wait_for(lambda: "child worker process finished" in ours.new("yard"), "yard has noticed")
        ours.kill("yard")
    report = report_of(first)
    assert report["contributed"] == {"hall": "new", "kitchen": "new"}
    assert set(report["applied"]) == {"hall", "kitchen"}
    assert report["silent"] == ["yard"]
    assert report["merged"]["devices"] == 2
    assert ours.merged.read_bytes() == ours.by_files("hall", "kitchen")

    # It comes back, and the server dies in the middle of the next round: what has come is kept.
    ours.start("yard")
    ours.learner("hall").learn(digits.task("02", (1, 2), train=40))
    newer = ours.export("hall")
    with ours.learning("yard"):
        second = ours.round()
        wait_for(lambda: newer in ours.kept, "hall's newer file is kept")
        wait_for(lambda: busy(ours, "yard"), "yard is asked")
        ours.kill(SERVER)
        said, errors = second.communicate(timeout=BOUND)
        assert (second.returncode, said) == (1, "")
        assert "The round was not run to its end" in errors
    assert newer in ours.kept
    shutil.copytree(ours.folder / "hall", ours.folder / "hall-by-files")
    ours.start(SERVER)
    wait_for(
        lambda: all(f"Re-activate the client: {name} " in ours.new(SERVER) for name in PLANS), "all are back"
    )

    third = report_of(ours.round())
    assert third["contributed"] == {"hall": "same", "kitchen": "same", "yard": "new"}
    assert set(third["applied"]) == set(PLANS)
    assert (third["silent"], third["refused"], third["ended"]) == ([], {}, "")
    by_files = ours.by_files(*PLANS)
    assert ours.merged.read_bytes() == by_files

    # What a device knows then is what it knows by files.
    same = ours.learner("hall-by-files")
    fleet.apply(same, ours.folder / "by-files" / "merged.cskc")
    images, labels = digits.arrays(tuple(range(len(NAMES))), 100, 110)
    one, other = ours.learner("hall").predict(images), same.predict(images)
    assert one.labels.tolist() == other.labels.tolist()
    assert one.probabilities.tobytes() == other.probabilities.tobytes()
    assert np.mean(one.labels == np.array(NAMES)[labels]) > 0.9
    # And nobody has asked another machine for anything, or installed anything.
    assert not ours.outside.exists(), ours.outside.read_text()
