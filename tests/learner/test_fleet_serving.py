"""The receiver as an ASGI application, without a network in between: what a socket makes hard to bring about."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from csk_sdk.fleet import serving
from csk_sdk.fleet.serving import application
from learner.test_fleet_https import device_key

Headers = tuple[tuple[bytes, bytes], ...]
LENGTHLESS: Headers = ((b"host", b"fleet"),)


async def _asked(
    app: Any, method: str, path: str, parts: list[bytes], headers: Headers = LENGTHLESS
) -> tuple[int, Any, int]:
    """How `app` answers a request whose body comes in `parts`, and how many of these it had not read in the end."""
    sent: list[dict[str, Any]] = []
    left: list[int] = []
    given = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
    given.append({"type": "http.request", "body": b"", "more_body": False})

    async def receive() -> dict[str, Any]:
        return given.pop(0)

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)
        left.append(max(0, len(given) - 1))

    await app(_scope(method, path, headers), receive, send)
    body = b"".join(message.get("body", b"") for message in sent[1:])
    assert left[0] == left[1], "the answer is whole before anything more is read"
    return sent[0]["status"], json.loads(body), left[-1]


def _scope(method: str, path: str, headers: Headers) -> dict[str, Any]:
    return {
        **{"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "scheme": "https"},
        **{"method": method, "path": path, "raw_path": path.encode(), "root_path": "", "query_string": b""},
        **{"headers": headers, "client": ("10.0.0.7", 4711), "server": ("fleet", 443)},
    }


class Receiving:
    """A receiver that asks for no token and gives nothing out; `said` are its lines."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        device_key(folder, "kitchen", folder / "keys")
        self.inbox, self.said = folder / "inbox", list[str]()
        self.app = application(self.inbox, [folder / "keys"], say=self.said.append, **settings)

    def ask(self, method: str, path: str, parts: Iterable[bytes] = ()) -> tuple[int, Any]:
        return asyncio.run(_asked(self.app, method, path, list(parts)))[:2]

    def unread(self, path: str, parts: Iterable[bytes], headers: Headers = LENGTHLESS) -> int:
        """How many parts of a PUT that is refused were not read when it was answered."""
        status, _, left = asyncio.run(_asked(self.app, "PUT", path, list(parts), headers))
        assert status >= 400
        return left


def test_without_a_token_everyone_may_ask_and_without_a_place_nothing_is_given_out(tmp_path: Path) -> None:
    ours = Receiving(tmp_path)
    sentence = "Nothing was merged yet: ask again later."
    assert ours.ask("GET", "/merged") == (404, {"error": sentence})
    assert ours.said == [f"Refused 10.0.0.7, GET /merged: {sentence}"]


def test_what_grows_too_large_on_its_way_ends(tmp_path: Path) -> None:
    ours = Receiving(tmp_path, largest=5_000)
    answer = ours.ask("PUT", "/contributions", [bytes(2_000)] * 3)
    assert answer == (413, {"error": "What was sent is larger than 4.9 KiB."})
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


@pytest.mark.parametrize("path", ["/contributions", "/elsewhere"])
def test_who_is_refused_may_finish_sending(tmp_path: Path, path: str) -> None:
    """Cut off while it sends, an HTTPS client reports a broken connection in the place of the sentence."""
    ours = Receiving(tmp_path, token="t" * 16)
    assert ours.unread(path, [bytes(500_000)] * 9) == 0
    # Whoever asks first has the answer by then, and may not have waited for it.
    assert ours.unread(path, [bytes(100)] * 3, (*LENGTHLESS, (b"expect", b"100-continue"))) == 0
    assert ours.unread(path, [bytes(100)] * 3, (*LENGTHLESS, (b"content-length", b"99000000"))) == 0


@pytest.mark.parametrize("path", ["/contributions", "/elsewhere"])
def test_no_more_is_read_in_vain_than_may_be_sent(tmp_path: Path, path: str) -> None:
    ours = Receiving(tmp_path, token="t" * 16, largest=1 << 20)
    assert ours.unread(path, [bytes(500_000)] * 9) == 6


def test_who_is_refused_and_goes_on_sending_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "_WAITED_IN_VAIN", 0.01)
    ours = Receiving(tmp_path, token="t" * 16)
    assert asyncio.run(_stalled(ours.app))[0]["status"] == 401


async def _stalled(app: Any, headers: Headers = LENGTHLESS) -> list[dict[str, Any]]:
    """What `app` says to one who begins to send, and then does nothing."""
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await app(_scope("PUT", "/contributions", headers), asyncio.Event().wait, send)
    return sent


@asynccontextmanager
async def _others(app: Any, count: int) -> AsyncIterator[None]:
    """So many others who have begun to send."""
    them = [asyncio.create_task(_stalled(app)) for _ in range(count)]
    await asyncio.sleep(0)
    yield
    for one in them:
        one.cancel()
    await asyncio.gather(*them, return_exceptions=True)


def test_a_crowd_is_refused_in_a_sentence_and_told_of_once(tmp_path: Path) -> None:
    ours = Receiving(tmp_path, most=4)
    refused = 503, {"error": "Too many are asking at once: try again later."}

    async def asked(method: str = "GET", path: str = "/merged") -> tuple[int, Any]:
        return (await _asked(ours.app, method, path, []))[:2]

    async def crowd() -> None:
        async with _others(ours.app, 3):
            async with _others(ours.app, 1):
                assert [await asked(), await asked("PUT", "/contributions")] == [refused] * 2
            # Who finds a place at its edge is answered, and it is the same crowd.
            assert (await asked())[0] == 404
            async with _others(ours.app, 1):
                assert await asked() == refused

    asyncio.run(crowd())
    told = (
        "Refused 10.0.0.7, GET /merged: Too many are asking at once: try again later. More than 4 do; of others there "
        "is no line."
    )
    assert [one for one in ours.said if "Too many" in one] == [told]
    asyncio.run(crowd())
    assert [one for one in ours.said if "Too many" in one] == [told] * 2


def test_strangers_that_stall_keep_nobody_out(tmp_path: Path) -> None:
    """They are read on, so that they read why they are refused; that is no reason to refuse others."""
    ours = Receiving(tmp_path, token="t" * 16, most=4)
    known: Headers = (*LENGTHLESS, (b"authorization", b"Bearer " + b"t" * 16))

    async def crowd() -> int:
        async with _others(ours.app, 50):
            return (await _asked(ours.app, "GET", "/merged", [], known))[0]

    assert asyncio.run(crowd()) == 404
