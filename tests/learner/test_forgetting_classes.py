"""What was learned can be forgotten, renamed and merged, and nothing else changes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from conftest import NAMES, Digits, open_learner
from csk_sdk import Learner, StorageError, Task, TaskError, verify
from learner.knowing import accuracy

HEADS = {"few_shot": 10**6}
TASKS = {"01": (4, 5), "02": (6, 7), "03": (8, 9)}


@pytest.fixture
def device(digits_bundle: Path, tmp_path: Path, digits: Digits) -> Callable[..., Learner]:
    def made(name: str, *tasks: str, **settings: float) -> Learner:
        learner = open_learner(digits_bundle, tmp_path / name, **settings)
        for task in tasks:
            learner.learn(digits.task(task, TASKS[task]))
        return learner

    return made


def ledger(learner: Learner) -> set[str]:
    return {path.name for path in (learner.state.folder / "ledger").glob("*")}


def said(learner: Learner, digits: Digits) -> set[str]:
    return set(learner.predict(digits.arrays(tuple(range(10)), 0, 170)[0]).labels.tolist())


@pytest.mark.parametrize("task", TASKS)
def test_with_a_frozen_backbone_a_forgotten_task_was_never_learned(
    device: Callable[..., Learner], task: str
) -> None:
    learner = device("forgetful", *TASKS, **HEADS)
    before = {NAMES[digit] for digit in TASKS[task]}
    report = learner.forget(task=task)
    never = device("never", *(name for name in TASKS if name != task), **HEADS)
    assert set(report.classes) == before
    assert (report.tasks, report.refitted, report.hidden) == ((task,), (), ())
    ours, theirs = learner.generation.tensors, never.generation.tensors
    assert set(ours) == set(theirs)
    differ = {name for name in ours if ours[name].tobytes() != theirs[name].tobytes()}
    # What was learned later was measured beside the forgotten.
    later = task != "03"
    sketch = {"familiarity.margins", "familiarity.oddness"} if later else set()
    assert differ == {name for name in ours if name.startswith("moment/")} | sketch
    assert [one.split(",")[0] for one in report.remains] == [
        "the second moments of the trained layers",
        *(["how clearly"] if later else []),
    ]
    assert ledger(learner) == ledger(never), "contributions are named by what is in them"
    assert [one.classes for one in learner.tasks] == [one.classes for one in never.tasks]


def test_no_kept_generation_holds_it_nor_its_name(device: Callable[..., Learner], digits: Digits) -> None:
    learner = device("state", *TASKS, **HEADS)
    learner.learn(digits.task("04", (4, 6)), replace=True)
    assert learner.state.generation_of("01") == 1
    report = learner.forget("six")
    assert report.classes == ("six",)
    assert report.refitted == ("02", "04")
    # All since the second task held it.
    assert report.removed == 3
    files = {path.name for path in (learner.state.folder / "generations").glob("*.safetensors")}
    assert files == {"000001.safetensors", "000005.safetensors"}
    for path in learner.state.folder.rglob("*"):
        assert path.is_dir() or b"six" not in path.read_bytes(), path
    assert "six" not in learner.classes
    assert "six" not in said(learner, digits)
    for name in ("02", "04"):
        assert set(learner.predict(digits.arrays((6,), 0, 50)[0], name).labels) <= {"four", "seven"}
    learner.rollback("01")
    assert learner.tasks[-1].name == "01"


def test_the_others_are_known_as_if_it_had_never_been(
    device: Callable[..., Learner], digits: Digits, digits_bundle: Path, tmp_path: Path
) -> None:
    settings = HEADS
    learner = open_learner(digits_bundle, tmp_path / "forgetful", **settings)
    learner.learn(digits.task("01", (4, 5, 6)))
    learner.forget("five")
    never = open_learner(digits_bundle, tmp_path / "never", **settings)
    never.learn(digits.task("01", (4, 6)))
    for name in ("counts", "means"):
        ours, theirs = (one.generation.tensors[f"statistics.{name}"] for one in (learner, never))
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
    # The head of the task is made of what is known, and of nothing else.
    assert accuracy(learner, digits, (4, 6), "01") > 0.95
    assert (
        accuracy(learner, digits, (0, 1, 2, 3, 4, 6)) >= accuracy(never, digits, (0, 1, 2, 3, 4, 6)) - 0.003
    )


@pytest.mark.slow
def test_with_trained_centers_the_rest_is_as_good_and_what_remains_is_said(
    device: Callable[..., Learner], digits: Digits
) -> None:
    learner = device("forgetful", *TASKS)
    report = learner.forget(task="02")
    never = device("never", "01", "03")
    rest = (0, 1, 2, 3, 4, 5, 8, 9)
    assert accuracy(learner, digits, rest) >= accuracy(never, digits, rest) - 0.02
    assert "six" not in said(learner, digits)
    assert "what training has moved in the kernels" in report.remains[1]
    # It goes on learning, and forgets what came after it, too.
    learner.learn(digits.task("02", (6, 7)))
    assert accuracy(learner, digits, tuple(range(10))) > 0.9
    learner.forget("eight")
    assert "eight" not in said(learner, digits)


def test_of_all_that_was_learned_nothing_remains(device: Callable[..., Learner]) -> None:
    learner = device("state", "01")
    report = learner.forget("four", "five")
    assert report.remains == ()
    base = learner.bundle.checkpoint()
    tensors = learner.generation.tensors
    assert set(tensors) == set(base)
    for name in base:
        if not name.startswith("statistics."):
            assert tensors[name].tobytes() == base[name].tobytes(), name
    assert learner.tasks == ()
    assert learner.classes == NAMES[:4]
    assert ledger(learner) == set()


def test_a_class_of_the_base_is_hidden(
    device: Callable[..., Learner], digits: Digits, tmp_path: Path
) -> None:
    learner = device("state", "01", **HEADS)
    report = learner.forget("two")
    assert (report.classes, report.hidden, report.removed) == ((), ("two",), 0)
    assert "classes of the base are hidden, and not forgotten" in report.remains[-1]
    pictures = digits.arrays((2,), 0, 170)[0]
    assert "two" not in learner.classes
    assert "two" not in learner.predict(pictures).labels
    assert "two" not in learner.predict(pictures, "base").labels
    learner.export(tmp_path / "base.onnx", "base")
    session = onnxruntime.InferenceSession(tmp_path / "base.onnx")
    given = np.random.default_rng(0).normal(size=(50, 1, 8, 8)).astype(np.float32)
    (logits,) = session.run(None, {session.get_inputs()[0].name: given})
    assert 2 not in logits.argmax(axis=1)
    # Taught again, it is what it was taught as.
    images, labels = digits.arrays((6, 7), 0, 40)
    learner.learn(Task.from_arrays("other", images, labels, ["two", "seven"]))
    assert np.mean(learner.predict(digits.arrays((6,), 100, 170)[0]).labels == "two") > 0.9
    assert np.mean(learner.predict(pictures).labels == "two") < 0.2
    learner.forget("two")
    assert "two" not in said(learner, digits)
    with pytest.raises(
        TaskError, match=r"No class 'two' is known\. Known: four, five, seven, zero, one, three\."
    ):
        learner.forget("two")


def test_before_anything_is_learned_a_class_of_the_base_is_hidden_too(
    learner: Learner, digits: Digits
) -> None:
    learner.forget("one")
    assert "one" not in said(learner, digits)
    learner.learn(digits.task("01", (4, 5)))
    assert "one" not in said(learner, digits)


def test_the_last_class_that_is_known_stays(device: Callable[..., Learner], digits: Digits) -> None:
    """Without it all classes of the base would be named again."""
    learner = device("last", "01", **HEADS)
    learner.forget("zero", "one", "two", "three")
    assert learner.classes == ("four", "five")
    before = learner.generation.number
    for left in ({"task": "01"}, {}):
        with pytest.raises(TaskError, match="No class would be known any more"):
            learner.forget(*(() if left else ("four", "five")), **left)
    assert learner.generation.number == before
    learner.forget("four")
    assert said(learner, digits) == {"five"}


def test_what_a_forgotten_lesson_had_replaced_goes_with_it(
    device: Callable[..., Learner], digits: Digits
) -> None:
    learner = device("state", "01", "02", **HEADS)
    learner.learn(digits.task("03", (4, 5)), replace=True)
    report = learner.forget(task="03")
    assert set(report.classes) == {"four", "five"}
    assert set(report.tasks) == {"01", "03"}
    assert [one.name for one in learner.tasks] == ["02"]


def test_a_crash_in_the_middle_is_made_up_for(
    device: Callable[..., Learner], digits: Digits, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = device("state", "01", "02", **HEADS)
    with monkeypatch.context() as patched:

        def killed(*_: object) -> None:
            raise KeyboardInterrupt

        patched.setattr("csk_sdk.state.forgetting.forget_generations", killed)
        with pytest.raises(KeyboardInterrupt):
            learner.forget("six", "seven")
    assert (learner.state.folder / "generations" / "000002.safetensors").exists()
    again = open_learner(learner.bundle.folder, learner.state.folder, **HEADS)
    assert "six" not in again.classes
    again.learn(digits.task("03", (8, 9)))
    for path in learner.state.folder.rglob("*"):
        assert path.is_dir() or b"six" not in path.read_bytes(), path


def test_what_a_killed_lesson_left_is_not_taken_for_a_generation(
    device: Callable[..., Learner], digits: Digits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its number is that of the next commit, which would remove itself."""
    learner = device("state", *TASKS, **HEADS)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("csk_sdk.state.store.GenerationStore.write_head", killed)
        with pytest.raises(KeyboardInterrupt):
            learner.learn(digits.task("04", (1, 2)), replace=True)
    again = open_learner(learner.bundle.folder, learner.state.folder, **HEADS)
    assert again.forget("six").removed == 2
    assert [one.name for one in again.tasks] == ["01", "02", "03"]
    opened = open_learner(learner.bundle.folder, learner.state.folder, **HEADS)
    assert opened.generation.number == again.generation.number == 4
    assert verify(learner.bundle.folder, learner.state.folder).ok


def files_of(learner: Learner) -> bytes:
    return b"".join(path.read_bytes() for path in learner.state.folder.rglob("*") if path.is_file())


def mean_of(learner: Learner, name: str) -> bytes:
    tensors = learner.generation.tensors
    classes = json.loads(tensors["statistics.classes"].tobytes())
    return bytes(tensors["statistics.means"][classes.index(name)].tobytes())


def changed(learner: Learner, how: str) -> tuple[str, ...]:
    """A class renamed or merged, or on a branch that was left; and what it is to be forgotten by."""
    if how in ("renamed", "renamed on a branch"):
        learner.rename("six", "sechs")
    elif how in ("merged", "merged on a branch"):
        learner.merge("seven", "six")
    else:
        learner.merge("four", "six")
    if "branch" in how:
        # To the generation before it, which has the same tasks.
        with learner.state.lock():
            learner.state.rollback(3)
    return {
        "renamed": ("sechs",),
        "merged": ("seven",),
        "merged across tasks": ("four",),
    }.get(how, ("six",))


@pytest.mark.parametrize(
    "how", ["renamed", "merged", "merged across tasks", "renamed on a branch", "merged on a branch"]
)
def test_no_generation_holds_it_under_another_name(device: Callable[..., Learner], how: str) -> None:
    learner = device("state", *TASKS, **HEADS)
    marks = [mean_of(learner, "six"), b"six", b"sechs"]
    names = changed(learner, how)
    learner = open_learner(learner.bundle.folder, learner.state.folder, **HEADS)
    marks.append(mean_of(learner, names[0]))
    assert all(mark in files_of(learner) for mark in (marks[0], marks[1], marks[3]))
    report = learner.forget(*names)
    assert report.classes == names
    assert not [mark for mark in marks if mark in files_of(learner)]
    assert verify(learner.bundle.folder, learner.state.folder).ok
    # What never held it is there, and nothing else but the current generation.
    stored = {path.name for path in (learner.state.folder / "generations").glob("*.safetensors")}
    first = set() if how == "merged across tasks" else {"000001.safetensors"}
    assert stored == {"000005.safetensors"} | first


def test_what_cannot_be_removed_is_no_silence(
    device: Callable[..., Learner], monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = device("state", "01", "02", **HEADS)
    monkeypatch.setattr("csk_sdk.state.forgetting.remove_file", lambda path: False)
    with pytest.raises(StorageError, match="holds what is to be forgotten, and could not be removed"):
        learner.forget("six")


def without_ledger(learner: Learner) -> None:
    """As a csk-sdk of before the ledger, or the JavaScript runner, would have left it."""
    state = learner.state
    with state.lock():
        tasks = [replace(task, contributions={}, carried={}) for task in learner.tasks]
        tensors = {k: v for k, v in learner.generation.tensors.items() if not k.startswith("ledger.")}
        state.commit(learner.generation.number, tasks, tensors)


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, HEADS])
def test_what_was_learned_without_a_ledger_is_forgotten_as_far_as_it_can_be(
    device: Callable[..., Learner], digits: Digits, settings: dict[str, int]
) -> None:
    learner = device("state", "01", "02", **settings)
    without_ledger(learner)
    learner.learn(digits.task("03", (8, 9)))
    report = learner.forget("six")
    assert report.remains[-2] == "the spread that all classes share: not all of it is kept class by class"
    assert "six" not in said(learner, digits)
    assert accuracy(learner, digits, (0, 1, 2, 3, 4, 5, 7, 8, 9)) > 0.9


def test_a_class_gets_another_name(device: Callable[..., Learner], digits: Digits) -> None:
    learner = device("state", "01", "02")
    before = learner.generation.tensors
    assert learner.rename("six", "Six").tasks[1].classes == ("Six", "seven")
    generation = learner.rename("Six", "sechs")
    assert generation.tasks[1].classes == ("sechs", "seven")
    after = learner.generation.tensors
    for name in before:
        names = ("statistics.classes", "familiarity.classes")
        assert name in names or before[name].tobytes() == after[name].tobytes()
    assert learner.classes == (*NAMES[:6], "sechs", "seven")
    assert np.mean(learner.predict(digits.arrays((6,), 100, 170)[0]).labels == "sechs") > 0.9
    # It is that class from then on.
    images, labels = digits.arrays((6, 8), 40, 80)
    assert learner.learn(Task.from_arrays("03", images, labels, ["sechs", "eight"])).known == ("sechs",)
    assert learner.forget("sechs").classes == ("sechs",)


def test_two_classes_become_one(device: Callable[..., Learner], digits: Digits) -> None:
    learner = device("state", "01", "02", **HEADS)
    learner.merge("six", "four")
    assert learner.classes == (*NAMES[:4], "six", "five", "seven")
    found = learner.predict(digits.arrays((4, 6), 100, 170)[0]).labels
    assert np.mean(found == "six") > 0.85
    # In one task, too, and with the base.
    learner.merge("six", "seven")
    assert learner.tasks[1].classes == ("six",)
    learner.merge("three", "five")
    assert learner.classes == (*NAMES[:4], "six")
    assert np.mean(learner.predict(digits.arrays((3, 5), 100, 170)[0]).labels == "three") > 0.8
    assert learner.forget("six").remains[0].startswith("the second moments")


def test_what_cannot_be_done_is_said_and_costs_nothing(
    device: Callable[..., Learner], digits: Digits
) -> None:
    learner = device("state", "01", **HEADS)
    before = learner.generation.number
    for call, expected in (
        (lambda: learner.forget(), "Name classes to forget, or a task."),
        (lambda: learner.forget("four", task="01"), "Name classes to forget, or a task."),
        (lambda: learner.forget("nine"), "No class 'nine' is known. Known: four, five, zero, one, two, three."),
        (lambda: learner.forget(task="09"), "Task '09' is not learned. Learned: 01."),
        (lambda: learner.forget(task="base"), "The base is the bundle's, and cannot be forgotten"),
        (lambda: learner.rename("zero", "null"), "Class 'zero' is one of the base, which is the bundle's"),
        (lambda: learner.rename("four", "five"), "Class 'five' is known already: `csk-sdk merge` makes one"),
        (lambda: learner.rename("four", "Five "), "A class cannot be called 'Five ' beside 'five', which differs"),
        (lambda: learner.rename("nine", "x"), "No class 'nine' is known."),
        (lambda: learner.rename("four", "a\nb"), "A class cannot be called 'a\\nb'"),
        (lambda: learner.merge("four", "four"), "Class 'four' cannot be merged with itself."),
        (lambda: learner.merge("four", "zero"), "Class 'zero' is one of the base"),
        (lambda: learner.merge("nine", "four"), "No class 'nine' is known."),
    ):  # fmt: skip
        with pytest.raises(TaskError) as raised:
            call()
        assert str(raised.value).startswith(expected)
    assert learner.generation.number == before


def test_the_records_of_what_was_forgotten_say_nothing_of_it(device: Callable[..., Learner]) -> None:
    learner = device("state", *TASKS, **HEADS)
    learner.forget(task="02")
    record = json.loads((learner.state.folder / "generations" / "000002.json").read_text())
    assert record["tasks"] == []
    assert [one.number for one in learner.state.history()] == [4, 3, 2, 1]


def test_rows_of_the_matrix_stay_with_their_tasks(device: Callable[..., Learner], digits: Digits) -> None:
    learner = device("state", **HEADS)
    tasks = [digits.task(name, chosen) for name, chosen in TASKS.items()]
    for count in range(1, 4):
        learner.learn(tasks[count - 1])
        learner.evaluate(tasks[:count])
    learner.merge("zero", "nine")
    merged = [*tasks[:2], replace(tasks[2], test=None)]
    matrix = learner.evaluate(merged).to_json()["accuracy_matrix"]
    assert [sum(one is not None for one in row) for row in matrix[:2]] == [1, 2]
    learner.forget(task="02")
    # Its generations are gone, and so are their rows.
    matrix = learner.evaluate([tasks[0]]).to_json()["accuracy_matrix"]
    assert matrix[0][0] is not None
    assert matrix[-1][0] is not None


def test_what_was_measured_stands_in_its_task_s_row_also_where_a_class_was_renamed_behind_it(
    device: Callable[..., Learner], digits: Digits
) -> None:
    learner = device("state", **HEADS)
    tasks = [digits.task(name, chosen) for name, chosen in TASKS.items()]
    measured: list[float | None] = []
    for count, task in enumerate(tasks, 1):
        learner.learn(task)
        measured.append(learner.evaluate(tasks[:count]).to_json()["accuracy_matrix"][-1][0])
        # A class of the first task, so that its images are not tested twice under two names.
        learner.rename(learner.tasks[0].classes[0], f"called {count}")
        tasks[0] = replace(tasks[0], classes=learner.tasks[0].classes)
    rows = learner.evaluate(tasks).to_json()["accuracy_matrix"]
    assert [row[0] for row in rows[-3:-1]] == measured[:2]
    learner.forget(task="02")
    rows = learner.evaluate([tasks[0], tasks[2]]).to_json()["accuracy_matrix"]
    assert [row[0] for row in rows][:-1] == measured[:1]


def test_verify_reads_every_contribution(device: Callable[..., Learner]) -> None:
    learner = device("state", "01", **HEADS)
    folder = learner.bundle.folder, learner.state.folder
    found = verify(*folder)
    assert ("ledger", "2 contributions") in [(one.name, one.detail) for one in found.state]
    path = learner.state.folder / "ledger" / f"{learner.tasks[0].contributions['five']}.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert not verify(*folder).ok
    assert verify(*folder, repair=True).repaired == 1
    assert verify(*folder).ok
    assert not path.exists()
    # It is lost, which is said, and the rest is intact.
    found = verify(*folder)
    assert [(one.name, one.status) for one in found.state if one.name.startswith("ledger")] == [
        ("ledger", "intact"),
        (f"ledger/{path.name[:8]}…", "lost"),
    ]
    detail = next(one.detail for one in found.state if one.status == "lost")
    assert detail == (
        f"{path} is missing. Until 'five' of task '01' is forgotten, all else is taken out in part only."
    )
    assert found.ok
    # What it told goes as far as it can.
    assert learner.forget("four").remains[-1].startswith("the spread that all classes share")
    assert not learner.forget("five").remains


def test_a_class_whose_contribution_is_lost_is_forgotten_whole(
    device: Callable[..., Learner], digits: Digits
) -> None:
    """What is known is made anew of the others, and theirs are there."""
    learner, never = device("state", "01", **HEADS), device("never", **HEADS)
    learner.learn(digits.task("02", (6, 7, 8)))
    never.learn(digits.task("01", (4, 5)))
    (learner.state.folder / "ledger" / f"{learner.tasks[1].contributions['six']}.safetensors").unlink()
    report = learner.forget(task="02")
    assert [one for one in report.remains if "spread" in one] == []
    for name in ("means", "counts", "scatter"):
        ours, theirs = (one.generation.tensors[f"statistics.{name}"] for one in (learner, never))
        assert ours.tobytes() == theirs.tobytes()


# --- testing afterwards


def test_images_of_a_forgotten_class_are_left_out_of_tests(
    device: Callable[..., Learner], digits: Digits
) -> None:
    """Their folder is still there; all other tasks are tested as before."""
    learner = device("tested", "01", "02", **HEADS)
    tested = [digits.task(name, TASKS[name], test=20) for name in ("01", "02")]
    before = learner.evaluate(tested)
    assert before.notes == ()
    learner.forget("six")
    after = learner.evaluate(tested)
    assert after.notes == (
        "Test images of 'six' in task '02' are left out: it does not know this class. Remove what was forgotten, and "
        "rename what has another name now.",
    )
    assert after.to_json()["notes"] == list(after.notes)
    assert after.details["classes"]["01"] == before.details["classes"]["01"]
    assert set(after.details["classes"]["02"]) == {"seven"}
    assert after.details["classes"]["02"]["seven"]["images"] == 20
    learner.rename("seven", "siete")
    last = learner.evaluate(tested)
    assert "'six', 'seven' in task '02' are left out: it does not know these classes" in last.notes[0]
    assert set(last.details["classes"]) == {"01"}
    with pytest.raises(
        TaskError, match=r"There is nothing to test\. Test images of 'six', 'seven' in task '02'"
    ):
        learner.evaluate(tested[1:])
