"""`csk-sdk fleet round` and `start`, with a stand-in for NVFlare's session: what is asked of it, and what is told."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from csk_sdk import ConfigError
from csk_sdk.fleet.engine import starting
from csk_sdk.fleet.engine.words import REPORT
from csk_sdk.fleet.merging import MergeReport
from csk_sdk.state.sealing import seal

Run = Callable[..., Any]
MERGED = MergeReport(
    devices=2,
    classes={"four": 40.0, "five": 38.5},
    contributions=3,
    quarantined={"abcdef": "classes are unlike those of the others"},
    skipped={"inbox/hall.cskc": "it is damaged"},
    unconfirmed=("five",),
    alike=("'four' and 'vier' look like one thing.",),
    withdrawn=1,
    bytes=1234,
    knowledge="0" * 64,
)
ROUND: dict[str, Any] = {
    "asked": ["attic", "cellar", "hall", "kitchen"],
    "contributed": {
        "kitchen": {"receipt": {"status": "new"}},
        "hall": {"receipt": {"status": "same"}},
        "attic": {"refused": "It was learning until the round was over."},
    },
    "merged": MERGED.to_json(),
    "applied": {"kitchen": {"applied": {"generation": 7}}, "attic": {"refused": "It was learning."}},
    "ended": "",
}


class Session:
    """A session of an operator, whose job ends with `content`, or fails where that is an error."""

    def __init__(self, content: Any) -> None:
        self.content, self.closed, self.asked = content, False, dict[str, Any]()

    def submit_job(self, folder: str) -> str:
        config = Path(folder) / "app" / "config" / "config_fed_server.json"
        self.asked = json.loads(config.read_text())["workflows"][0]["args"]
        print("what NVFlare tells a terminal")
        return "job"

    def wait_for_job(self, job: str, timeout: float, poll_interval: float) -> dict[str, str]:
        self.asked["timeout"] = timeout
        return {"status": "FINISHED:EXECUTION_EXCEPTION"}

    def download_job_result(self, job: str, into: str) -> str:
        if isinstance(self.content, Exception):
            raise self.content
        folder = Path(into) / "workspace"
        folder.mkdir(parents=True)
        if self.content is not None:
            (folder / REPORT).write_bytes(seal(self.content))
        return into

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def kit(tmp_path: Path) -> Path:
    (tmp_path / "kit" / "startup").mkdir(parents=True)
    (tmp_path / "kit" / "startup" / "fed_admin.json").write_text('{"admin": {"username": "me@example.org"}}')
    return tmp_path / "kit"


@pytest.fixture
def connected(monkeypatch: pytest.MonkeyPatch, kit: Path) -> Callable[[Any], Session]:
    """Whoever asks for a session gets the one whose job ends so."""

    def to(content: Any) -> Session:
        session = Session(content)

        def new_secure_session(user: str, folder: str, timeout: float) -> Session:
            assert (user, folder) == ("me@example.org", str(kit))
            return session

        flare = SimpleNamespace(new_secure_session=new_secure_session)
        for name in ("nvflare", "nvflare.fuel", "nvflare.fuel.flare_api"):
            monkeypatch.setitem(sys.modules, name, SimpleNamespace())
        monkeypatch.setitem(sys.modules, "nvflare.fuel.flare_api.flare_api", flare)
        return session

    return to


def test_a_round_tells_what_became_of_each_device(
    run: Run, kit: Path, connected: Callable[[Any], Session]
) -> None:
    session = connected(ROUND)
    done = run("fleet", "round", kit, "--wait", "60", "--enough", "2", "--grace", "5", "--same", "vier=four")
    assert done.status == 0
    assert done.out.splitlines() == [
        "hall: its file is here (same).",
        "kitchen: its file is here (new).",
        "kitchen: knows what the fleet knows; generation 7 is current.",
        "Merged: 2 classes (four 40, five 38.5), of 2 devices.",
        "Taken back by their devices, and not in it: 1 contribution.",
        "Unconfirmed, since fewer than three devices hold them: five. Nobody can tell whether they are what they are "
        "called.",
    ]
    for said in (
        "attic: It was learning.",
        "cellar: no answer in time; it is asked again in the next round.",
        "left out: inbox/hall.cskc: it is damaged",
        "set aside: abcdef, since its classes are unlike those of the others.",
        "'four' and 'vier' look like one thing.",
        "what NVFlare tells a terminal",
    ):
        assert said in done.err
    assert session.closed
    given = {**{"wait": 60.0, "enough": 2, "grace": 5.0, "only": ""}, "same": {"vier": "four"}}
    assert session.asked == {**given, "without": [], "accept": [], "timeout": 2 * 60 + 5 + 600}


def test_a_round_as_json(run: Run, kit: Path, connected: Callable[[Any], Session]) -> None:
    session = connected({**ROUND, "merged": None, "contributed": {}})
    done = run("fleet", "round", kit, "--only", "apply", "--json")
    assert (done.status, session.asked["only"]) == (0, "apply")
    assert done.json["applied"] == {"kitchen": 7}
    assert done.json["refused"] == {"attic": "It was learning."}
    assert done.json["silent"] == ["cellar", "hall"]
    assert done.json["merged"] is None


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({**ROUND, "ended": "nobody is there."}, "Error: The round ended early: nobody is there.\n"),
        (None, "Error: The round failed (FINISHED:EXECUTION_EXCEPTION): the server's log says why.\n"),
        (
            ConnectionError("lost"),
            "Error: The round was not run to its end (ConnectionError: lost): run it again.\n",
        ),
    ],
    ids=["early", "without-a-report", "lost"],
)
def test_a_round_that_does_not_come_to_its_end(
    run: Run, kit: Path, connected: Callable[[Any], Session], content: Any, words: str
) -> None:
    session = connected(content)
    done = run("fleet", "round", kit)
    assert done.status == 1
    assert done.err.endswith(words)
    assert session.closed


def test_an_operator_who_is_not_let_in(run: Run, kit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise ConnectionError("no answer")

    for name in ("nvflare", "nvflare.fuel", "nvflare.fuel.flare_api"):
        monkeypatch.setitem(sys.modules, name, SimpleNamespace())
    flare = SimpleNamespace(new_secure_session=refused)
    monkeypatch.setitem(sys.modules, "nvflare.fuel.flare_api.flare_api", flare)
    done = run("fleet", "round", kit)
    said = "Error: The server does not let me@example.org in, or cannot be reached (ConnectionError: no answer).\n"
    assert (done.status, done.err) == (1, said)


@pytest.mark.parametrize("path", ["/usr/bin", None])
def test_a_site_is_started_by_its_own_script(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str | None
) -> None:
    kit = tmp_path / "kit"
    (kit / "local").mkdir(parents=True)
    (kit / "startup").mkdir()
    (kit / "local" / starting.FILE).write_text("{}")
    (kit / "startup" / "sub_start.sh").write_text("true")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    if path is None:
        monkeypatch.delenv("PATH")
    else:
        monkeypatch.setenv("PATH", path)
    became: list[Any] = []
    monkeypatch.setattr(os, "execvpe", lambda *given: became.append(given))
    assert run("fleet", "start", kit).status == 0
    ((program, arguments, environment),) = became
    assert (program, arguments) == ("bash", ["bash", str(kit / "startup" / "sub_start.sh"), "--once"])
    assert environment["PATH"].split(os.pathsep)[0] == str(Path(sys.executable).parent)
    assert environment["PATH"].endswith(path or os.defpath)
    assert environment["MALLOC_ARENA_MAX"] == "2"
    assert (kit / "transfer").is_dir()

    def missing(*_: object) -> None:
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(os, "execvpe", missing)
    with pytest.raises(
        ConfigError, match=r"sub_start\.sh cannot be run by bash \(No such file or directory\)"
    ):
        starting.start(kit)


def test_what_a_device_keeps_is_not_replaced_by_what_the_operator_says() -> None:
    given = {"MALLOC_ARENA_MAX": "8", "PATH": "/bin"}
    assert starting.surroundings(given)["MALLOC_ARENA_MAX"] == "8"
