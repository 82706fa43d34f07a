"""The receiver as an ASGI application, without a network in between: what a socket makes hard to bring about."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from csk_sdk.fleet.serving import application
from learner.test_fleet_https import device_key

LENGTHLESS = ((b"host", b"fleet"),)


async def _asked(app: Any, method: str, path: str, parts: list[bytes]) -> tuple[int, Any]:
    """How `app` answers a request whose body comes in `parts`, and whose length it is not told."""
    sent: list[dict[str, Any]] = []
    given = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
    given.append({"type": "http.request", "body": b"", "more_body": False})

    async def receive() -> dict[str, Any]:
        return given.pop(0)

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {
        **{"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "scheme": "https"},
        **{"method": method, "path": path, "raw_path": path.encode(), "root_path": "", "query_string": b""},
        **{"headers": LENGTHLESS, "client": ("10.0.0.7", 4711), "server": ("fleet", 443)},
    }
    await app(scope, receive, send)
    body = b"".join(message.get("body", b"") for message in sent[1:])
    return sent[0]["status"], json.loads(body)


class Receiving:
    """A receiver that asks for no token and gives nothing out; `said` are its lines."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        device_key(folder, "kitchen", folder / "keys")
        self.inbox, self.said = folder / "inbox", list[str]()
        self.app = application(self.inbox, [folder / "keys"], say=self.said.append, **settings)

    def ask(self, method: str, path: str, parts: Iterable[bytes] = ()) -> tuple[int, Any]:
        return asyncio.run(_asked(self.app, method, path, list(parts)))


def test_without_a_token_everyone_may_ask_and_without_a_place_nothing_is_given_out(tmp_path: Path) -> None:
    ours = Receiving(tmp_path)
    sentence = "Nothing was merged yet: ask again later."
    assert ours.ask("GET", "/merged") == (404, {"error": sentence})
    assert ours.said == [f"Refused 10.0.0.7, GET /merged: {sentence}"]


def test_what_grows_too_large_on_its_way_ends(tmp_path: Path) -> None:
    ours = Receiving(tmp_path, largest=5_000)
    answer = ours.ask("PUT", "/contributions", [bytes(2_000)] * 3)
    assert answer == (413, {"error": "What was sent is larger than 0.005 MB."})
    assert not list(ours.inbox.glob("*.cskc"))


def test_a_disk_without_room_is_told_to_who_runs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The device reads no path of the server."""
    ours = Receiving(tmp_path)
    real = Path.open

    def full(path: Path, mode: str = "r", *more: Any, **how: Any) -> Any:
        if mode == "wb":
            raise OSError(28, "No space left on device", str(path))
        return real(path, mode, *more, **how)

    monkeypatch.setattr(Path, "open", full)
    status, said = ours.ask("PUT", "/contributions", [b"anything"])
    assert status == 507
    assert "the receiver's folder" in said["error"]
    assert str(tmp_path) not in said["error"]
    (line,) = ours.said
    assert line.startswith("Refused 10.0.0.7, PUT /contributions: ")
    assert str(ours.inbox) in line


def test_a_line_is_short_and_of_one_line(tmp_path: Path) -> None:
    ours = Receiving(tmp_path)
    status, _ = ours.ask("PUT", "/" + "long\n" * 1000)
    assert status == 404
    (line,) = ours.said
    assert len(line) == 1000
    assert line.isprintable()
