"""`forget`, `rename`, `merge`, `rollback` and `train --replace`, as somebody at a terminal meets them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from cli.conftest import SETTINGS
from conftest import NAMES, Digits
from csk_sdk import StorageError, Task
from csk_sdk.cli.rendering import Screen


@pytest.fixture
def space(tmp_path: Path, digits_bundle: Path, digits: Digits) -> list[str]:
    """A workspace that waits to learn two tasks; options that name it."""
    (tmp_path / "csk.toml").write_text(SETTINGS.replace("few_shot = 0", "few_shot = 100000"))
    for name, chosen in (("01", (4, 5)), ("02", (6, 7))):
        digits.save(digits.task(name, chosen, test=0), tmp_path / "tasks")
    return ["--workspace", str(tmp_path), "--bundle", str(digits_bundle)]


def exchanged(digits: Digits) -> Task:
    images, labels = digits.arrays((5, 4), 0, 40)
    return Task.from_arrays("03", images, labels, [NAMES[4], NAMES[5]])


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[str]]:
    """Somebody at the terminal, who answers so; what was asked."""

    def answering(given: str) -> list[str]:
        asked: list[str] = []

        def reply(_: Screen, question: str, answers: Any) -> str:
            asked.append(question)
            assert given in answers
            return given

        monkeypatch.setattr(Screen, "can_ask", True)
        monkeypatch.setattr(Screen, "ask", reply)
        return asked

    return answering


def test_forget_says_what_it_did_and_what_remains(run: Callable[..., Any], space: list[str]) -> None:
    assert run("train", "--task", "all", *space).status == 0
    done = run("forget", "six", "two", *space)
    assert " ".join(done.out.split()) == (
        "Forgotten: six. Generation 3 is current. Hidden, and not forgotten: two, known to the base. Heads made anew: "
        "02. 1 older generation that held it removed. remains: the second moments of the trained layers, which are "
        "sums over all images, and protect what was learned remains: the bundle, which is signed as it is: classes "
        "of the base are hidden, and not forgotten"
    )
    done = run("forget", "--task", "01", "--json", *space)
    assert done.json["classes"] == ["four", "five"]
    waiting = "still holds the images: remove it, or the next `csk-sdk train` learns them again."
    assert waiting in " ".join(done.err.split())
    assert run("forget", *space).err.startswith(
        "Error: Name the classes to forget, or a task with --task NAME."
    )
    done = run("forget", "six", *space)
    assert (done.status, done.err) == (1, "Error: No class 'six' is known. Known: seven, zero, one, three.\n")


def test_verify_says_that_forgetting_was_interrupted_and_finishes_it(
    run: Callable[..., Any], space: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("train", "--task", "all", *space).status == 0

    def refused(*_: object) -> None:
        raise StorageError("the disk")

    with monkeypatch.context() as patched:
        patched.setattr("csk_sdk.state.forgetting.forget_shared", refused)
        assert run("forget", "six", *space).status == 1
    done = run("verify", *space)
    assert done.status == 1
    assert " ".join(done.out.split()).endswith("`csk-sdk verify --repair` mends what it can of a state.")
    (found,) = (one for one in run("verify", "--json", *space).json["state"] if one["status"] == "damaged")
    assert found["name"] == "forgetting"
    assert found["detail"].startswith(
        "Generation 3 was to remove what is forgotten, and something is left of 2: "
    )
    assert run("verify", "--repair", *space).out.endswith("Mended: 1 finding.\n")
    assert not [
        one for one in (tmp_path / "state").rglob("*") if one.is_file() and b"six" in one.read_bytes()
    ]
    next((tmp_path / "state/ledger").glob("*.safetensors")).unlink()
    done = run("verify", *space)
    assert done.status == 0
    assert done.out.endswith(
        "Everything is intact that is there; what is lost costs what is said beside it.\n"
    )


def test_evaluate_goes_on_behind_forget(
    run: Callable[..., Any], space: list[str], tmp_path: Path, digits: Digits
) -> None:
    for name, chosen in (("01", (4, 5)), ("02", (6, 7))):
        digits.save(digits.task(name, chosen, test=10), tmp_path / "tasks")
    assert run("train", "--task", "all", *space).status == 0
    assert run("forget", "six", *space).status == 0
    done = run("evaluate", *space)
    assert done.status == 0
    assert "Test images of 'six' in task '02' are left out" in " ".join(done.err.split())


def test_evaluate_leaves_out_what_is_hidden_and_what_is_broken(
    run: Callable[..., Any], space: list[str], tmp_path: Path, digits: Digits
) -> None:
    for name, chosen in (("01", (4, 5)), ("02", (6, 7))):
        digits.save(digits.task(name, chosen, test=10), tmp_path / "tasks")
    images, labels = digits.arrays((0, 1, 2, 3), 0, 10)
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        path = tmp_path / "tasks/base/test" / NAMES[label] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.reshape(8, 8)).save(path)
    assert run("train", "--task", "all", *space).status == 0
    before = run("evaluate", "--scenario", "class", "--json", *space).json
    assert run("forget", "two", *space).status == 0
    (tmp_path / "tasks/02.npz").write_bytes(b"no archive")
    done = run("evaluate", "--scenario", "class", "--json", *space)
    assert (done.status, done.json["tasks"]) == (0, before["tasks"])
    # Who has nothing to name the hidden class with is not measured on it.
    assert "two" not in done.json["classes"]["base"]
    assert done.json["acc"] > before["acc"] - 3
    hidden, broken = (
        "Test images of 'two' in task 'base' are left out",
        f"Not tested: {tmp_path}/tasks/02.npz",
    )
    said = " ".join(done.err.split())
    assert hidden in said
    assert broken in said
    assert len(done.json["notes"]) == 2


def test_evaluate_measures_where_nothing_can_be_written(
    run: Callable[..., Any], space: list[str], tmp_path: Path, digits: Digits, monkeypatch: pytest.MonkeyPatch
) -> None:
    digits.save(digits.task("01", (4, 5), test=10), tmp_path / "tasks")
    assert run("train", "--task", "01", *space).status == 0

    def refused(*_: object) -> None:
        raise StorageError("The disk is read-only.")

    monkeypatch.setattr("csk_sdk.state.folder.replace_file", refused)
    done = run("evaluate", *space)
    assert (done.status, done.err) == (
        0,
        "Warning: These accuracies are not kept for later. The disk is read-only.\n",
    )
    assert "01" in done.out


def test_rename_and_merge(run: Callable[..., Any], space: list[str], tmp_path: Path) -> None:
    run("train", "--task", "all", *space)
    inbox = tmp_path / "tasks"
    (inbox / "02/test/six").mkdir(parents=True)
    (inbox / "02/train/six").mkdir(parents=True)
    done = run("rename", "six", "sechs", *space)
    # Their folders are the owner's.
    assert done.out == (
        "six is called sechs now. Generation 3 is current.\n"
        f"  {inbox / '02/train/six'} and {inbox / '02/test/six'}: rename both to sechs, or 02 cannot be tested.\n"
    )
    (inbox / "02/test/six").rename(inbox / "02/test/sechs")
    (inbox / "02/train/six").rmdir()
    done = run("merge", "three", "sechs", *space)
    assert done.out == (
        "sechs is three now. Generation 4 is current.\n"
        f"  {inbox / '02/test/sechs'}: these images are of three now, so move them there, or rename it to three, "
        "or 02 cannot be tested.\n"
    )
    assert run("rename", "zero", "null", *space).status == 1


def test_rollback_and_forward_again(
    run: Callable[..., Any], space: list[str], answer: Callable[[str], list[str]]
) -> None:
    run("train", "--task", "all", *space)
    asked = answer("no")
    done = run("rollback", "--to", "base", *space)
    assert asked == [
        "01, 02 will count as not learned; `csk-sdk rollback --to 02` brings them back as long as they are kept. Go on?"
    ]
    assert (done.status, done.err) == (130, "Nothing was changed.\n")
    assert run("rollback", "--to", "base", "--yes", *space).out == "Back at generation 0. Known now: base.\n"
    # Nothing is dropped on the way forward, so nothing is asked.
    asked.clear()
    assert run("rollback", "--to", "02", *space).out == "Back at generation 2. Known now: base, 01, 02.\n"
    assert not asked
    done = run("rollback", "--to", "09", *space)
    assert done.err.endswith("has no generation of task '09'. Known: base, 01, 02.\n")


def test_forgetting_asks_first(
    run: Callable[..., Any], space: list[str], answer: Callable[[str], list[str]]
) -> None:
    run("train", *space)
    asked = answer("no")
    assert run("forget", "four", *space).err == "Nothing was changed.\n"
    assert asked == ["four: this is forgotten for good, in older generations too. Go on?"]
    assert run("forget", "four", "--yes", *space).out.startswith("Forgotten: four.")


@pytest.mark.slow
def test_a_contradiction_unattended_and_at_a_terminal(
    run: Callable[..., Any], space: list[str], digits: Digits, answer: Callable[[str], list[str]]
) -> None:
    run("train", *space)
    tasks = Path(space[1]) / "tasks"
    digits.save(exchanged(digits), tasks)
    done = run("train", "--task", "03", *space)
    assert done.status == 1
    assert "Error: Task '03' contradicts what is known: " in done.err
    watched = run("watch", "--once", "--settle", "0", "--json", *space)
    events = {line["task"]: line["event"] for line in watched.lines}
    assert events == {"02": "learned", "03": "set aside"}
    answer("leave")
    assert run("train", "--task", "03", *space).status == 1
    answer("replace")
    done = run("train", "--task", "03", *space)
    assert "What was learned of four, five before counts no more." in done.out
    assert done.status == 0


@pytest.mark.parametrize(("option", "replaced"), [("--replace", ["four", "five"]), ("--add", [])])
def test_it_can_be_said_beforehand(
    run: Callable[..., Any], space: list[str], digits: Digits, option: str, replaced: list[str]
) -> None:
    run("train", *space)
    digits.save(exchanged(digits), Path(space[1]) / "tasks")
    assert run("train", "--task", "03", option, "--json", *space).json["replaced"] == replaced


def test_who_answers_nothing_answers_no(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen()
    given = iter(["maybe", "R", ""])
    monkeypatch.setattr(screen.console, "input", lambda _: next(given))
    assert screen.ask("Which?", ("replace", "leave")) == "replace"
    assert screen.ask("Which?", ("replace", "leave")) == "leave"
    assert not screen.can_ask, "the streams of a test are no terminal"
