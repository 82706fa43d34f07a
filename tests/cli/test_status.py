"""status, pause and resume; and when watch learns."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from cli.conftest import write_png
from csk_sdk.errors import ConfigError
from csk_sdk.learner import Learner
from csk_sdk.workspace.conditions import PAUSED, Conditions, When, is_charging
from csk_sdk.workspace.folder import Workspace
from csk_sdk.workspace.watching import Watcher


def test_status_tells_what_is_known_and_waits(run, learned):
    shutil.copytree(learned / "tasks/01-four-five", learned / "tasks/03-again")
    done = run("status", "--workspace", learned)
    assert done.status == 0
    assert done.out.startswith("Generation 2: 2 tasks learned, 8 classes known, 1 task waiting.")
    assert "Predictions are not counted: `csk-sdk status --count` begins." in done.out
    found = run("status", "--workspace", learned, "--json").json
    assert (found["counting"], found["paused"]) == (False, False)
    assert len(found["waiting"]) == 1


def test_predict_is_counted_where_asked_for(run, learned):
    picture = next((learned / "tasks").rglob("*.png"))
    assert run("status", "--count", "--workspace", learned).status == 0
    assert run("predict", picture, picture, "--workspace", learned).status == 0
    found = run("status", "--workspace", learned, "--json").json
    assert found["answers"] == 2
    done = run("status", "--workspace", learned)
    assert "2 answers counted" in done.out
    assert "what was learned" in done.out
    page = learned / "report.html"
    assert run("report", "--out", page, "--workspace", learned).status == 0
    assert "Predictions, day by day" in page.read_text()
    assert run("status", "--no-count", "--workspace", learned, "--json").json["counting"] is False


def test_a_class_taught_twice_has_the_images_of_both_lessons(run, learned, digits, monkeypatch):
    monkeypatch.setattr("csk_sdk.network.status.ENOUGH", 2.0)
    needs = run("status", "--workspace", learned, "--json").json["needs"]
    assert {one["name"]: one["images"] for one in needs} == dict.fromkeys(
        ("four", "five", "six", "seven"), 20
    )
    for index, picture in enumerate(digits.of(4, 20, 36)):
        write_png(learned / f"tasks/03-more/train/four/{index}.png", picture)
    assert run("train", "--no-evaluate", "--workspace", learned).status == 0
    needs = run("status", "--workspace", learned, "--json").json["needs"]
    assert {one["name"]: one["images"] for one in needs} == {"four": 36, "five": 20, "six": 20, "seven": 20}


def test_of_what_is_left_of_a_task_only_the_images_are_counted(run, learned):
    shutil.rmtree(learned / "tasks/01-four-five")
    assert listed(run, learned) == (("five", "four"), 40)
    assert run("forget", "four", "-y", "--workspace", learned).status == 0
    assert listed(run, learned) == (("five",), 20)
    page = learned / "report.html"
    assert run("report", "--out", page, "--workspace", learned).status == 0
    assert '<td class="names">five</td><td>20</td>' in page.read_text()
    # Lost with its contribution, their number is not told.
    for file in (learned / "state/ledger").iterdir():
        file.unlink()
    assert listed(run, learned) == (("five",), None)
    assert ["01-four-five", "learned", "1", "-", "-"] in [
        line.split()[:5] for line in run("tasks", "--workspace", learned).out.splitlines()
    ]


def listed(run, folder: Path) -> tuple[tuple[str, ...], int | None]:
    found = next(
        one for one in run("tasks", "--workspace", folder, "--json").json if one["name"] == "01-four-five"
    )
    return tuple(found["classes"]), found["train_images"]


def test_counting_may_begin_in_an_empty_state(run, workspace):
    """The folder of a state may be made by counting; the first task finds it."""
    assert run("status", "--count", "--workspace", workspace).status == 0
    assert run("train", "--workspace", workspace).status == 0
    found = run("status", "--workspace", workspace, "--json").json
    assert (found["generation"], found["counting"]) == (1, True)
    assert run("verify", "--workspace", workspace).status == 0


def test_what_can_only_be_tested_does_not_wait(run, workspace):
    before = run("status", "--workspace", workspace, "--json").json["waiting"]
    (workspace / "tasks/00-only/test").mkdir(parents=True)
    shutil.copytree(workspace / "tasks/01-four-five/train/four", workspace / "tasks/00-only/test/four")
    states = {one["name"]: one["state"] for one in run("tasks", "--workspace", workspace, "--json").json}
    assert states["00-only"] == "test only"
    assert run("status", "--workspace", workspace, "--json").json["waiting"] == before


def test_pause_holds_watch_and_resume_lets_it_go_on(run, workspace):
    once = ("watch", "--workspace", workspace, "--once", "--settle", "0", "--poll", "0.1", "--nice", "0")
    assert run("pause", "--workspace", workspace).status == 0
    assert run("status", "--workspace", workspace, "--json").json["paused"] is True
    done = run(*once)
    assert done.status == 0
    assert "Learning is paused: `csk-sdk resume` lets it go on." in done.out
    assert Learner.open(workspace / "bundle", workspace / "state").generation.number == 0
    assert "Learning may go on." in run("resume", "--workspace", workspace).out
    assert "Learning was not paused." in run("resume", "--workspace", workspace).out
    assert "Learned 01-four-five" in run(*once).out


def watcher(workspace: Path, **conditions: object) -> Watcher:
    space = Workspace.open(workspace)
    held = Conditions(space.tasks, **conditions)  # type: ignore[arg-type]
    return Watcher(space, space.learner(), 0.0, 0.01, held)


def test_a_task_is_held_in_its_middle_and_goes_on(workspace, monkeypatch):
    shutil.rmtree(workspace / "tasks/02-six-seven", ignore_errors=True)
    (workspace / "tasks/02-six-seven.npz").unlink(missing_ok=True)
    watching = watcher(workspace)
    step = Watcher._on_progress
    seen = []

    def stepped(self, progress):
        seen.append(progress.phase)
        if progress.phase == "train" and seen.count("train") == 2:
            (workspace / "tasks" / PAUSED).touch()
        self._asked = float("-inf")
        step(self, progress)

    monkeypatch.setattr(Watcher, "_on_progress", stepped)
    events = []
    for happened in watching.run():
        events.append((happened.event, happened.task))
        if happened.event == "paused":
            (workspace / "tasks" / PAUSED).unlink()
        if happened.event == "learned":
            watching.stop()
    assert events == [("paused", "01-four-five"), ("resumed", ""), ("learned", "01-four-five")]


def test_a_busy_device_waits_and_says_so_once(workspace):
    loads = iter([9.0, 9.0, 9.0, *[0.1] * 100])
    watching = watcher(workspace, when={When.idle}, running=lambda: next(loads), cores=4)
    events = []
    for happened in watching.run(once=False):
        events.append((happened.event, happened.task, happened.reason))
        if happened.event == "learned":
            watching.stop()
    assert [one[:2] for one in events] == [("paused", ""), ("resumed", ""), ("learned", "01-four-five")]
    assert events[0][2] == "The device is busy: it learns when it is idle."


def power(folder: Path, **supplies: dict[str, str]) -> Path:
    for name, files in supplies.items():
        (folder / name).mkdir(parents=True)
        for file, word in files.items():
            (folder / name / file).write_text(word + "\n")
    folder.mkdir(exist_ok=True)
    return folder


BATTERY = {"type": "Battery", "status": "Discharging"}


@pytest.mark.parametrize(
    ("supplies", "charging"),
    [
        ({}, True),
        ({"AC": {"type": "Mains", "online": "0"}}, True),
        ({"BAT0": BATTERY}, False),
        ({"BAT0": BATTERY, "AC": {"type": "Mains", "online": "0"}}, False),
        ({"BAT0": BATTERY, "AC": {"type": "Mains", "online": "1"}}, True),
        ({"BAT0": BATTERY, "usb": {"type": "USB", "online": "2"}}, True),
        ({"BAT0": {**BATTERY, "status": "Charging"}}, True),
        ({"BAT0": {**BATTERY, "status": "Full"}}, True),
        ({"BAT0": {**BATTERY, "status": "Not charging"}}, False),
        ({"mouse": {**BATTERY, "scope": "Device"}}, True),
        ({"BAT0": {"type": "Battery"}}, False),
    ],
)
def test_what_charging_is(tmp_path: Path, supplies: dict[str, dict[str, str]], charging: bool) -> None:
    assert is_charging(power(tmp_path / "power_supply", **supplies)) is charging


def test_a_pulled_plug_holds_a_task_and_idle_does_not(tmp_path: Path) -> None:
    supplies = power(tmp_path / "power", BAT0=BATTERY, AC={"type": "Mains", "online": "1"})
    held = Conditions(tmp_path, {When.idle, When.charging}, supplies, lambda: 4.0, 4)
    assert held.hindrance() == "The device is busy: it learns when it is idle."
    assert held.hindrance(learning=True) == ""
    (supplies / "AC" / "online").write_text("0")
    assert held.hindrance(learning=True) == "The device runs on its battery: it learns when it is charging."


def test_a_system_that_does_not_tell_is_refused(tmp_path: Path) -> None:
    def unknown() -> float:
        raise OSError

    with pytest.raises(ConfigError, match="does not tell how busy it is: leave out --when idle"):
        Conditions(tmp_path, {When.idle}, running=unknown).require_told()
    with pytest.raises(ConfigError, match="does not tell whether it is charging"):
        Conditions(tmp_path, {When.charging}, tmp_path / "none").require_told()
