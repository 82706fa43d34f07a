"""How predictions went is counted where the owner asked for it, as counts only, and never at a prediction's cost."""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from conftest import NAMES, Digits, open_learner
from csk_sdk import Learner, StateError, Task
from csk_sdk.network.counting import Counter
from csk_sdk.network.status import Status, needs_of
from csk_sdk.state import LearnedTask
from csk_sdk.state.field import DAYS, FIELD, Day, add_days, read_field, start_counting
from csk_sdk.state.lock import StateLock

DAY = 86400.0


def days(learner: Learner) -> tuple[Day, ...]:
    found = learner.status().days
    assert found is not None
    return found


def test_nothing_is_counted_unless_asked_for(learner: Learner, digits: Digits) -> None:
    learner.predict(digits.of(3, 100, 110))
    assert learner.status().days is None
    learner.count()
    learner.predict(digits.of(3, 100, 110))
    (day,) = days(learner)
    assert (day.answers, day.measured, day.generation) == (10, 10, 0)
    learner.count(False)
    assert learner.status().days is None
    assert not (learner.state.folder / FIELD).exists()
    learner.predict(digits.of(3, 100, 110))
    assert not (learner.state.folder / FIELD).exists()


def test_what_is_known_has_the_shares_that_it_should_and_drift_is_told(
    learner: Learner, digits: Digits
) -> None:
    learner.count()
    known, _ = digits.arrays((0, 1, 2, 3), 100, 170)
    said = learner.predict(known)
    (day,) = days(learner)
    assert said.known is not None
    assert day.unknown == int((~said.known).sum()) == day.beyond[2]
    assert day.beyond[0] > day.beyond[1] > day.beyond[2]
    assert [one / day.measured for one in day.beyond] == pytest.approx([0.5, 0.2, 0.05], abs=0.17)
    assert learner.status().drift == ""
    strange = learner.predict(255 - known)
    assert strange.known is not None
    status = learner.status()
    assert status.answers == 2 * len(known)
    both = np.concatenate([said.known, strange.known])
    assert status.unknown == pytest.approx(float(np.mean(~both)))
    assert "are further from all that is known than 95 % of what was learned" in status.drift


def test_a_row_for_each_day_and_generation(learner: Learner, digits: Digits) -> None:
    learner.count()
    now = [10 * DAY]
    learner._counter = Counter(learner.state.folder, lambda: now[0])
    learner.predict(digits.of(3, 100, 104))
    learner.learn(digits.task("01", (4, 5)))
    learner.predict(digits.of(4, 100, 103))
    now[0] += DAY
    learner.predict(digits.of(4, 100, 102), task="01")
    found = [(day.day, day.generation, day.answers) for day in days(learner)]
    assert found == [("1970-01-11", 0, 4), ("1970-01-11", 1, 3), ("1970-01-12", 1, 2)]


def test_what_waits_is_gone_with_the_rest(learner: Learner, digits: Digits) -> None:
    learner.count()
    learner.predict(digits.of(3, 100, 104))
    learner.count(False)
    learner.count()
    learner.predict(digits.of(3, 100, 101))
    assert [day.answers for day in days(learner)] == [1]


def test_it_is_bounded_and_names_nothing(tmp_path: Path) -> None:
    start_counting(tmp_path)
    for number in range(3 * DAYS):
        add_days(tmp_path, [Day(f"2026-{1 + number // 28:02d}-{1 + number % 28:02d}", 1, 5, 5, 1, (3, 2, 1))])
    found = read_field(tmp_path)
    assert found is not None
    assert len(found) == DAYS
    content = (tmp_path / FIELD).read_bytes()
    assert len(content) < 150 * DAYS
    names = {"day", "generation", "answers", "measured", "unknown", "beyond"}
    assert all(set(day) == names for day in json.loads(content)["days"])


@pytest.mark.parametrize("content", [b"", b"{}", b'{"days": 3}', b"\x00" * 50, b"[" * 5000])
def test_a_damaged_file_is_told_and_begun_anew(learner: Learner, digits: Digits, content: bytes) -> None:
    learner.count()
    (learner.state.folder / FIELD).write_bytes(content)
    with pytest.raises(StateError, match=r"field\.json (cannot be read|is damaged)"):
        learner.status()
    learner.predict(digits.of(3, 100, 104))
    assert [day.answers for day in days(learner)] == [4]


def test_no_prediction_fails_for_it(learner: Learner, digits: Digits) -> None:
    learner.count()
    folder = learner.state.folder
    expected = learner.predict(digits.of(3, 100, 104)).labels.tolist()
    spoils = (
        lambda: (start_counting(folder), (folder / "field.lock").mkdir()),
        lambda: (folder / FIELD).mkdir(),
        lambda: os.mkfifo(folder / FIELD) if hasattr(os, "mkfifo") else None,
        lambda: (folder / FIELD).symlink_to("/dev/zero"),
    )
    for spoil in spoils:
        for name in (FIELD, "field.lock"):
            (folder / name).unlink(missing_ok=True)
        spoil()
        assert learner.predict(digits.of(3, 100, 104)).labels.tolist() == expected
        learner._counter.flush()
        for name in (FIELD, "field.lock"):
            if (folder / name).is_dir():
                (folder / name).rmdir()


def test_counts_wait_while_another_process_writes_and_none_is_lost(learner: Learner, digits: Digits) -> None:
    learner.count()
    with StateLock(learner.state.folder, "field.lock"):
        learner.predict(digits.of(3, 100, 104))
        learner._counter.flush()
        assert read_field(learner.state.folder) == ()
    assert [day.answers for day in days(learner)] == [4]


def test_learning_in_another_process_is_nothing_to_wait_for(learner: Learner, digits: Digits) -> None:
    learner.count()
    with StateLock(learner.state.folder):
        learner.predict(digits.of(3, 100, 104))
        assert [day.answers for day in days(learner)] == [4]


def test_what_waits_is_written_when_the_learner_goes_and_the_process_ends(
    digits_bundle: Path, digits: Digits, tmp_path: Path
) -> None:
    learner = open_learner(digits_bundle, tmp_path / "state")
    learner.count()
    learner.predict(digits.of(3, 100, 104))
    del learner
    gc.collect()
    np.save(tmp_path / "images.npy", digits.of(3, 100, 103))
    script = (
        "import sys, numpy; from csk_sdk import Learner\n"
        "Learner.open(sys.argv[1], sys.argv[2]).predict(numpy.load(sys.argv[3]))"
    )
    given = (str(digits_bundle), str(tmp_path / "state"), str(tmp_path / "images.npy"))
    subprocess.run([sys.executable, "-c", script, *given], check=True, timeout=120)
    found = read_field(tmp_path / "state")
    assert found is not None
    assert sum(day.answers for day in found) == 7


def test_a_forked_child_does_not_count_what_its_parent_does(learner: Learner, digits: Digits) -> None:
    if "fork" not in multiprocessing.get_all_start_methods():
        pytest.skip("no fork here")
    learner.count()
    learner.predict(digits.of(3, 100, 104))
    context = multiprocessing.get_context("fork")
    child = context.Process(target=learner._counter.flush)
    child.start()
    child.join(60)
    assert [day.answers for day in days(learner)] == [4]


def test_what_needs_more_images_is_told_with_their_kind(learner: Learner, digits: Digits) -> None:
    rng = np.random.default_rng(0)
    images, labels = digits.arrays((4, 9, 8), 0, 60)
    noisy = np.clip(images + rng.normal(scale=110, size=images.shape), 0, 255).astype(np.uint8)
    classes = [NAMES[digit] for digit in (4, 9, 8)]
    report = learner.learn(Task.from_arrays("noisy", noisy, labels, classes), {"few_shot": 10**6})
    needs = learner.status().needs
    low = {name for name, one in report.expected["classes"].items() if one["all_classes"] < 0.8}
    assert {need.name for need in needs} == low
    assert low, "or it says nothing"
    assert [need.all_classes for need in needs] == sorted(need.all_classes for need in needs)
    for need in needs:
        one = report.expected["classes"][need.name]
        assert need.images == 60
        if one["share"] >= 0.1:
            assert f"apart from '{one['confused']}'" in need.told


def test_a_class_that_was_taught_again_is_told_by_the_later_lesson() -> None:
    def lesson(name: str, right: float, **more: object) -> LearnedTask:
        one = {"all_classes": right, "task": 1.0, "confused": "b", "share": 0.05}
        return LearnedTask(
            name=name, classes=("a",), epochs=0, images=30, seconds=1.0, loss=0.1, peak_rss_bytes=1,
            config={}, expected={"classes": {"a": one}}, **more,  # type: ignore[arg-type]
        )  # fmt: skip

    assert needs_of([lesson("1", 0.3), lesson("2", 0.95)], "image") == ()
    (need,) = needs_of([lesson("1", 0.95), lesson("2", 0.3)], "signal")
    assert (need.task, need.confused) == ("2", "")
    assert need.told.startswith("more signals, of more kinds")
    (twin,) = needs_of([lesson("1", 0.0, contributions={"a": ""})], "image")
    assert "it cannot be told from 'b'" in twin.told


def test_drift_is_told_by_the_newest_days_of_the_current_generation_only() -> None:
    quiet = [Day(f"2026-01-{day:02d}", 2, 100, 100, 5, (50, 20, 5)) for day in range(1, 20)]
    loud = [Day(f"2026-02-{day:02d}", 1, 100, 100, 90, (99, 95, 90)) for day in range(1, 8)]

    def told(*days: Day, generation: int = 2) -> str:
        return Status(generation, (), 4, days, ()).drift

    assert told(*quiet, *loud) == ""
    assert told(*quiet, *loud, generation=1) != ""
    assert told(Day("2026-03-01", 2, 20, 20, 20, (20, 20, 20))) == "", "too few to tell"
