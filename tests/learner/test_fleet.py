"""What one device learned, all know: exported, merged in any order, applied, and taken back."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import NAMES, Digits, build_digits_bundle, open_learner
from csk_sdk import CskError, FleetError, Learner, Task, fleet, upgrade
from csk_sdk.bundle.signing import SIGNATURE, sign
from csk_sdk.contract.manifest import MANIFEST
from csk_sdk.state.sealing import seal
from field.fuzz_targets import each_value_changed
from field.test_signing import write_keys
from learner.knowing import accuracy
from sdk.fleets import edited

FROZEN = {"few_shot": 10**6}
PLANS = {"kitchen": (4, 5), "hall": (6, 7), "yard": (8, 9)}
ALL = tuple(range(10))
Device = Callable[..., Learner]


@pytest.fixture
def device(digits_bundle: Path, tmp_path: Path, digits: Digits) -> Device:
    """A device that has learned these digits, one task each."""

    def made(name: str, *tasks: tuple[int, ...], images: int = 100, **settings: float) -> Learner:
        learner = open_learner(digits_bundle, tmp_path / name, **{**FROZEN, **settings})
        for number, chosen in enumerate(tasks):
            learner.learn(digits.task(f"{number + 1:02}", chosen, train=images))
        return learner

    return made


@pytest.fixture
def three(device: Device, tmp_path: Path) -> dict[str, Learner]:
    """Three devices of two classes each, and their files `NAME.cskc`."""
    devices = {name: device(name, chosen) for name, chosen in PLANS.items()}
    for name, learner in devices.items():
        fleet.export(learner, tmp_path / f"{name}.cskc")
    return devices


def files(folder: Path, *names: str) -> list[Path]:
    return [folder / f"{name}.cskc" for name in names or PLANS]


def test_three_devices_know_what_one_that_saw_everything_knows(
    three: dict[str, Learner], device: Device, digits: Digits, tmp_path: Path
) -> None:
    report = fleet.merge(files(tmp_path), tmp_path / "merged.cskc")
    assert report.classes == {NAMES[digit]: 100.0 for digit in sorted(range(4, 10), key=lambda d: NAMES[d])}
    assert (report.devices, report.contributions, report.quarantined) == (3, 6, {})
    everything = device("everything", *PLANS.values())
    best = accuracy(everything, digits, ALL)
    found = {}
    for name, learner in three.items():
        alone = accuracy(learner, digits, ALL)
        done = fleet.apply(learner, tmp_path / "merged.cskc")
        assert (done.changed, done.generation, done.own, done.notes) == (True, 2, 2, ())
        assert set(done.new) == set(report.classes) - {NAMES[digit] for digit in PLANS[name]}
        assert accuracy(learner, digits, ALL) >= best - 0.006 > alone + 0.2
        assert accuracy(learner, digits, tuple(range(4, 10)), "fleet") > 0.95
        assert accuracy(learner, digits, PLANS[name], "01") > 0.93
        found[name] = learner.generation.tensors
    for name, tensor in found["hall"].items():
        # All that is known of classes is the same on all of them, to the bit; each has its own task's head.
        if name.startswith(("statistics.", "head/base", "head/fleet", "center/")):
            for other in PLANS:
                assert tensor.tobytes() == found[other][name].tobytes(), name


def test_applying_again_changes_nothing_and_rollback_leads_back(
    three: dict[str, Learner], digits: Digits, tmp_path: Path
) -> None:
    learner = three["hall"]
    before = learner.generation.tensors
    fleet.merge(files(tmp_path), tmp_path / "merged.cskc")
    fleet.merge(reversed(files(tmp_path)), tmp_path / "again.cskc")
    fleet.apply(learner, tmp_path / "merged.cskc")
    for name in ("merged", "again"):
        done = fleet.apply(learner, tmp_path / f"{name}.cskc")
        assert (done.changed, done.generation) == (False, 2)
    assert learner.state.head() == 2
    learner.rollback("01")
    assert {name: one.tobytes() for name, one in learner.generation.tensors.items()} == {
        name: one.tobytes() for name, one in before.items()
    }
    assert learner.rollback("fleet").number == 2


def test_one_that_knows_nothing_yet_knows_what_the_fleet_knows(
    three: dict[str, Learner], device: Device, digits: Digits, tmp_path: Path
) -> None:
    fleet.merge(files(tmp_path), tmp_path / "merged.cskc")
    new, old = device("new"), three["hall"]
    for learner in (new, old):
        fleet.apply(learner, tmp_path / "merged.cskc")
    ours, theirs = new.generation.tensors, old.generation.tensors
    for name in ("statistics.scatter", "statistics.means", "statistics.counts"):
        assert ours[name].tobytes() == theirs[name].tobytes()
    with pytest.raises(FleetError, match="There is nothing to export: this device has learned no task"):
        fleet.export(new, tmp_path / "new.cskc")
    # It learns on, and exports that alone.
    images, labels = digits.arrays((4, 9), 0, 60)
    new.learn(Task.from_arrays("more", 255 - images, labels, ["light four", "light nine"]))
    assert set(fleet.export(new, tmp_path / "new.cskc").classes) == {"light four", "light nine"}
    assert accuracy(new, digits, ALL) > 0.9


@pytest.mark.parametrize("apart", [False, True])
def test_both_kinds_of_merged_files_come_to_the_same(
    three: dict[str, Learner], tmp_path: Path, apart: bool
) -> None:
    fleet.merge(files(tmp_path), tmp_path / "merged.cskc", keep_apart=apart)
    one, two = three["hall"], three["yard"]
    fleet.apply(one, tmp_path / "merged.cskc")
    fleet.merge(files(tmp_path), tmp_path / "other.cskc", keep_apart=not apart)
    assert fleet.apply(two, tmp_path / "other.cskc").changed
    assert not fleet.apply(one, tmp_path / "other.cskc").changed


def test_what_is_forgotten_or_corrected_on_a_device_goes_everywhere(
    three: dict[str, Learner], digits: Digits, tmp_path: Path
) -> None:
    fleet.merge(files(tmp_path), tmp_path / "merged.cskc")
    for learner in three.values():
        fleet.apply(learner, tmp_path / "merged.cskc")
    hall, yard = three["hall"], three["yard"]
    said = hall.forget(task="01").remains
    assert said[-1].startswith("what the fleet knows, in which this device's images count until")
    with pytest.raises(FleetError, match="nothing to export"):
        fleet.export(hall, tmp_path / "hall.cskc")
    images, labels = digits.arrays((6, 7), 0, 50)
    hall.learn(Task.from_arrays("02", images, labels, ["six", "seven"]), replace=True)
    fleet.export(hall, tmp_path / "hall2.cskc")
    # The older file of the same device counts no more, whichever comes first.
    for order in (["hall", "hall2", "yard"], ["hall2", "yard", "hall"]):
        report = fleet.merge(files(tmp_path, *order), tmp_path / "merged.cskc")
        assert report.classes == {"eight": 100.0, "nine": 100.0, "seven": 50.0, "six": 50.0}
        assert report.withdrawn == 2
    yard.forget("nine")
    assert "nine" not in yard.classes
    fleet.export(yard, tmp_path / "yard.cskc")
    report = fleet.merge(files(tmp_path, "kitchen", "hall2", "yard"), tmp_path / "merged.cskc")
    assert "nine" not in report.classes
    for learner in three.values():
        fleet.apply(learner, tmp_path / "merged.cskc")
        assert "nine" not in learner.classes
        assert "six" in learner.classes


def test_where_the_fleet_s_part_is_forgotten_one_s_own_counts_again(
    three: dict[str, Learner], tmp_path: Path
) -> None:
    learner = three["hall"]
    before = learner.generation.tensors
    fleet.merge(files(tmp_path), tmp_path / "merged.cskc")
    fleet.apply(learner, tmp_path / "merged.cskc")
    assert learner.tasks[0].shared == ("six", "seven")
    learner.forget(task="fleet")
    after = learner.generation.tensors
    assert learner.tasks[0].shared == ()
    for name in ("statistics.classes", "statistics.scatter", "statistics.means", "statistics.counts"):
        assert before[name].tobytes() == after[name].tobytes(), name


def test_few_images_stay_on_the_device(device: Device, tmp_path: Path) -> None:
    learner = device("few", (4, 5), images=10)
    with pytest.raises(
        FleetError, match=r"nothing to export: 'four' of task '01' stays here: of 10 images it would say"
    ):
        fleet.export(learner, tmp_path / "few.cskc")
    assert not (tmp_path / "few.cskc").exists()
    report = fleet.export(learner, tmp_path / "few.cskc", least=10)
    assert (report.classes, report.left_out) == ({"four": 10.0, "five": 10.0}, ())


def test_a_class_that_is_told_from_no_other_stays_on_the_device_and_is_named(
    device: Device, digits: Digits, tmp_path: Path
) -> None:
    learner = device("twin")
    images, labels = digits.arrays((3, 4), 0, 80)
    learner.learn(Task.from_arrays("01", images, labels, ["drei", "four"]), {"few_shot": 10**6})
    report = fleet.export(learner, tmp_path / "twin.cskc")
    assert list(report.classes) == ["four"]
    (said,) = report.left_out
    assert said.startswith("'drei' of task '01' stays here: it takes no part in decisions among all classes")
    # Of a class that a later lesson replaced, something is kept.
    learner.learn(digits.task("02", (4, 5)), {"few_shot": 10**6}, replace=True)
    assert fleet.export(learner, tmp_path / "twin.cskc").left_out == (said,)


def test_exporting_again_gives_the_same_file(three: dict[str, Learner], tmp_path: Path) -> None:
    before = (tmp_path / "hall.cskc").read_bytes()
    first = fleet.inspect(tmp_path / "hall.cskc")
    fleet.export(three["hall"], tmp_path / "hall.cskc")
    assert (tmp_path / "hall.cskc").read_bytes() == before
    # Applying is no lesson.
    fleet.merge(files(tmp_path), tmp_path / "merged.cskc")
    fleet.apply(three["hall"], tmp_path / "merged.cskc")
    fleet.export(three["hall"], tmp_path / "hall.cskc")
    assert (tmp_path / "hall.cskc").read_bytes() == before
    (found,) = first.devices.values()
    assert found["classes"] == {"seven": 100.0, "six": 100.0}


def test_two_names_for_one_thing(digits_bundle: Path, digits: Digits, tmp_path: Path) -> None:
    one = open_learner(digits_bundle, tmp_path / "one", **FROZEN)
    halves = np.concatenate([digits.of(digit, 0, 180)[::2][:80] for digit in (4, 5)])
    one.learn(Task.from_arrays("01", halves, np.repeat([0, 1], 80), ["four", "five"]))
    two = open_learner(one.bundle.folder, tmp_path / "two", **FROZEN)
    # The same writers as those of the other device, none of the same images.
    images = np.concatenate([digits.of(digit, 0, 180)[1::2][:80] for digit in (4, 6)])
    labels = np.repeat([0, 1], 80)
    two.learn(Task.from_arrays("01", images, labels, ["vier", "six"]))
    for name, learner in (("one", one), ("two", two)):
        fleet.export(learner, tmp_path / f"{name}.cskc")
    both = files(tmp_path, "one", "two")
    report = fleet.merge(both, tmp_path / "merged.cskc")
    (said,) = report.alike
    assert said.startswith("'four' and 'vier' look like one thing: ")
    assert said.endswith("merge again with `--same four=vier`.")
    report = fleet.merge(both, tmp_path / "merged.cskc", same={"vier": "four"})
    assert report.classes == {"five": 80.0, "four": 160.0, "six": 80.0}
    assert report.alike == ()
    for learner in (one, two):
        fleet.apply(learner, tmp_path / "merged.cskc")
        assert learner.classes[-3:] == ("five", "four", "six")
        assert accuracy(learner, digits, (0, 1, 2, 3, 4, 5, 6)) > 0.9
    assert two.tasks[0].classes == ("four", "six")
    fleet.export(two, tmp_path / "two.cskc")
    assert set(fleet.merge(both, tmp_path / "merged.cskc").classes) == {"five", "four", "six"}


def test_a_device_with_trained_centers_is_led_over_by_its_drift(
    device: Device, digits: Digits, tmp_path: Path
) -> None:
    trained = device("trained", (4, 5), few_shot=0, train="centers")
    frozen = device("frozen", (6, 7))
    for name, learner in (("trained", trained), ("frozen", frozen)):
        fleet.export(learner, tmp_path / f"{name}.cskc")
    fleet.merge(files(tmp_path, "trained", "frozen"), tmp_path / "merged.cskc")
    known = (0, 1, 2, 3, 4, 5, 6, 7)
    done = fleet.apply(trained, tmp_path / "merged.cskc")
    assert done.notes[0].startswith("This device has trained its network: ")
    assert fleet.apply(frozen, tmp_path / "merged.cskc").notes == ()
    assert accuracy(frozen, digits, known) > 0.97
    assert accuracy(trained, digits, known) > 0.95
    # And goes on.
    trained.learn(digits.task("02", (8, 9)), {"few_shot": 0, "train": "centers"})
    assert accuracy(trained, digits, ALL) > 0.9
    trained.forget("six")
    assert accuracy(trained, digits, (0, 1, 2, 3, 4, 5, 7)) > 0.9


def test_what_cannot_be_applied_is_one_sentence_and_changes_nothing(
    three: dict[str, Learner], device: Device, digits: Digits, tmp_path: Path, sounds_bundle: Path
) -> None:
    fleet.merge(files(tmp_path), tmp_path / "merged.cskc")
    other = open_learner(sounds_bundle, tmp_path / "sounds")
    with pytest.raises(
        FleetError, match=r"is of bundle .{8}…, and this device has .{8}…: take the file that was"
    ):
        fleet.apply(other, tmp_path / "merged.cskc")
    spelled = open_learner(three["hall"].bundle.folder, tmp_path / "spelled", **FROZEN)
    images, labels = digits.arrays((4, 5), 0, 40)
    spelled.learn(Task.from_arrays("01", images, labels, ["Six", "five"]))
    with pytest.raises(
        FleetError, match="has a class 'six', and there is one called 'Six' here, which differs"
    ):
        fleet.apply(spelled, tmp_path / "merged.cskc")
    assert spelled.state.head() == 1
    fleet.merge(files(tmp_path), tmp_path / "base.cskc", same={"zero": "six"})
    with pytest.raises(
        FleetError, match=r"'zero' is one of the base, which keeps its name: .*--same six=zero"
    ):
        fleet.apply(three["hall"], tmp_path / "base.cskc")
    named = device("named")
    named.learn(digits.task("fleet", (4, 5)))
    assert fleet.apply(named, tmp_path / "merged.cskc").task == "fleet-2"


def test_what_a_merged_file_tells_of_images_is_not_believed(
    three: dict[str, Learner], tmp_path: Path
) -> None:
    """Each contribution says how many there are: the sum of larger numbers would be none."""
    fleet.merge(files(tmp_path), tmp_path / "merged.cskc")

    def claims(said: dict[str, Any]) -> None:
        for one in said["merged"]["classes"]:
            one["count"] = 1e308

    fleet.apply(three["hall"], edited(tmp_path / "merged.cskc", claims))
    assert three["hall"].tasks[-1].images == 600


def test_a_learner_that_trusts_a_key_takes_what_its_holder_merged(
    three: dict[str, Learner], tmp_path: Path
) -> None:
    private, public = write_keys(tmp_path, "ours")
    bundle = Path(shutil.copytree(three["hall"].bundle.folder, tmp_path / "signed"))
    (bundle / SIGNATURE).write_bytes(sign((bundle / MANIFEST).read_bytes(), private))
    learner = Learner.open(bundle, tmp_path / "trusting", trust=public)
    fleet.merge(files(tmp_path), tmp_path / "merged.cskc")
    with pytest.raises(
        FleetError, match="is signed by nobody, and this device takes only what was signed by the key"
    ):
        fleet.apply(learner, tmp_path / "merged.cskc")
    fleet.merge(files(tmp_path), tmp_path / "merged.cskc", sign=private)
    assert fleet.apply(learner, tmp_path / "merged.cskc").changed


@pytest.mark.parametrize("part", ["contribution", "tensors", "record", "HEAD"])
def test_a_crash_while_it_is_applied_leaves_what_was_there(
    three: dict[str, Learner], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    fleet.merge(files(tmp_path), tmp_path / "merged.cskc")
    learner = three["hall"]
    before = learner.generation.tensors
    from csk_sdk.state import atomic

    real = atomic.os.replace
    ends = {
        "contribution": ".safetensors",
        "tensors": "000002.safetensors",
        "record": "000002.json",
        "HEAD": "HEAD",
    }

    def killed(source: Path, target: Path) -> None:
        if str(target).endswith(ends[part]):
            raise KeyboardInterrupt
        real(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(atomic.os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            fleet.apply(learner, tmp_path / "merged.cskc")
    again = open_learner(learner.bundle.folder, learner.state.folder, **FROZEN)
    assert again.state.head() == 1
    assert {name: one.tobytes() for name, one in again.generation.tensors.items()} == {
        name: one.tobytes() for name, one in before.items()
    }
    assert fleet.apply(again, tmp_path / "merged.cskc").changed
    fresh = open_learner(learner.bundle.folder, tmp_path / "fresh", **FROZEN)
    fleet.apply(fresh, tmp_path / "merged.cskc")
    ours, theirs = again.generation.tensors, fresh.generation.tensors
    assert ours["statistics.scatter"].tobytes() == theirs["statistics.scatter"].tobytes()


def test_no_image_and_no_name_of_a_task_is_in_a_file(three: dict[str, Learner], tmp_path: Path) -> None:
    learner = three["hall"]
    learner.learn(Task.from_arrays("a secret", *_light(), ["eight", "nine"]))
    fleet.export(learner, tmp_path / "hall.cskc")
    assert b"secret" not in (tmp_path / "hall.cskc").read_bytes()
    with pytest.raises(CskError, match="where only csk-sdk's own files are"):
        fleet.export(learner, learner.state.folder / "x.cskc")
    (tmp_path / "diary.txt").write_text("dear diary")
    with pytest.raises(CskError, match=r"is there and is not a \.cskc file: it would be lost"):
        fleet.export(learner, tmp_path / "diary.txt")


def _light() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    images = np.repeat(np.array([30, 200], np.uint8), 40)[:, None, None] + rng.integers(0, 20, (80, 8, 8))
    return images.astype(np.uint8), np.repeat([0, 1], 40)


def test_a_class_that_was_renamed_or_merged_here(
    three: dict[str, Learner], digits: Digits, tmp_path: Path
) -> None:
    fleet.merge(files(tmp_path), tmp_path / "merged.cskc")
    hall, kitchen = three["hall"], three["kitchen"]
    hall.rename("six", "sechs")
    (said,) = fleet.apply(hall, tmp_path / "merged.cskc").notes
    assert said.startswith("sechs of this device is called otherwise in it")
    kitchen.merge("five", "four")
    kitchen.learn(digits.task("02", (8, 9)))
    for _ in range(3):
        kitchen.merge("eight", "nine")
        kitchen.learn(digits.task(f"0{kitchen.state.head()}", (8, 9)))
    for name in ("hall", "kitchen"):
        fleet.export(three[name], tmp_path / f"{name}.cskc")
    report = fleet.merge(files(tmp_path), tmp_path / "merged.cskc")
    assert {"sechs": 100.0, "five": 200.0}.items() <= report.classes.items()
    assert "six" not in report.classes
    assert fleet.apply(hall, tmp_path / "merged.cskc").notes == ()
    assert "six" not in hall.classes


def test_the_next_bundle_carries_over_what_the_fleet_knows(
    three: dict[str, Learner], digits: Digits, base_data: Path, tmp_path: Path
) -> None:
    fleet.merge(files(tmp_path), tmp_path / "merged.cskc")
    learner = three["hall"]
    fleet.apply(learner, tmp_path / "merged.cskc")
    before = accuracy(learner, digits, ALL)
    old = Path(shutil.copytree(learner.bundle.folder, tmp_path / "old"))
    new = build_digits_bundle(tmp_path / "new", base_data=base_data, upgrade_from=old, trainable="all")
    report = upgrade(old, learner.state.folder, new)
    assert report.carried == ("01", "fleet")
    after = open_learner(old, learner.state.folder, **FROZEN)
    assert [task.shared for task in after.tasks] == [("six", "seven"), ()]
    assert accuracy(after, digits, ALL) >= before - 0.01
    with pytest.raises(FleetError, match="take the file that was merged for this bundle"):
        fleet.apply(after, tmp_path / "merged.cskc")


def test_what_a_device_said_that_is_damaged_is_no_silence(three: dict[str, Learner], tmp_path: Path) -> None:
    path = three["hall"].state.folder / "fleet.json"
    path.write_bytes(path.read_bytes().replace(b"sequence", b"sequencf"))
    with pytest.raises(
        FleetError, match=r"fleet\.json is damaged: its checksum does not match\. It says who this"
    ):
        fleet.export(three["hall"], tmp_path / "hall.cskc")


@pytest.mark.slow
def test_what_a_device_said_is_whole_or_refused(three: dict[str, Learner], tmp_path: Path) -> None:
    """Each value of it replaced by any other, under a checksum that fits."""
    path = three["hall"].state.folder / "fleet.json"
    said = json.loads(path.read_text())
    del said["check"]
    refused: list[str] = []
    for changed in each_value_changed(said):
        try:
            path.write_bytes(seal(changed))
        except (ValueError, TypeError):
            continue  # no JSON, or no text
        try:
            fleet.export(three["hall"], tmp_path / "again.cskc")
        except FleetError as error:
            refused.append(str(error))
    assert len(refused) > 100
    assert all("fleet.json is damaged: " in one for one in refused)


def test_a_device_with_a_thin_line(three: dict[str, Learner], tmp_path: Path) -> None:
    before = (tmp_path / "hall.cskc").stat().st_size
    assert fleet.export(three["hall"], tmp_path / "hall.cskc", bits=4).bytes < 0.7 * before
    fleet.merge(files(tmp_path), tmp_path / "merged.cskc")
    for learner in three.values():
        assert fleet.apply(learner, tmp_path / "merged.cskc").own == 2
