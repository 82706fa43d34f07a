"""The receiver of a fleet, over its port: half requests, wrong sizes and bytes, many at once, and kills meanwhile."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from field.attack.ground import Ground
from field.attack.intruders import random_bits
from field.attack.promise import GUARANTEES, Tries, promise

# Nothing here takes a hundredth of it.
_EVER_SECONDS = 120.0


class Site:
    """A receiver as a process of its own, and what its device has said one after the other: oldest first."""

    def __init__(self, ground: Ground, place: Path) -> None:
        self.place, self.inbox = place, place / "inbox"
        self.said = _exported(ground, place)
        self.url = ("", 0)

    @contextmanager
    def serving(self) -> Iterator[subprocess.Popen[str]]:
        scratch = self.place / "scratch"
        scratch.mkdir(exist_ok=True)
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "csk_sdk", "fleet", "serve", str(self.inbox), "--port", "0"),
                *("--trust", str(self.place / "keys")),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "TMPDIR": str(scratch)},
        )
        assert process.stdout is not None
        try:
            said = process.stdout.readline()
            found = re.search(r"http://(127\.0\.0\.1):(\d+)", said)
            assert found, said
            self.url = (found[1], int(found[2]))
            yield process
        finally:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=_EVER_SECONDS)

    def put(self, body: bytes, length: int | None = None, sent: int | None = None) -> int:
        """The status that is answered to `body` of which `sent` bytes go out; 0 where nothing is answered."""
        told = len(body) if length is None else length
        head = (
            f"PUT /contributions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {told}\r\n\r\n"
        )
        with suppress(OSError), socket.create_connection(self.url, timeout=_EVER_SECONDS) as line:
            line.sendall(head.encode() + body[:sent])
            if sent is not None or (length or 0) > len(body):
                line.shutdown(socket.SHUT_WR)
            found = re.match(rb"HTTP/1\.1 (\d{3}) ", line.recv(1000))
            return int(found[1]) if found else 0
        return 0

    def kept(self) -> int:
        """Which of what the device said is there: from 1; 0 where nothing is. Everything else is a fault."""
        from csk_sdk.fleet.receiving import LOCK_FILE

        there = list(self.inbox.iterdir()) if self.inbox.exists() else []
        whole = [one for one in there if one.suffix == ".cskc"]
        assert len(whole) <= 1, f"{len(whole)} files of one device"
        passing = [one for one in there if one.name == LOCK_FILE or one.name.endswith(".csk-tmp")]
        left = [one.name for one in there if one not in (*whole, *passing)]
        assert not left, f"left in the inbox: {left}"
        return 1 + self.said.index(whole[0].read_bytes()) if whole else 0


def _exported(ground: Ground, place: Path) -> list[bytes]:
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric import ed25519

    from csk_sdk import Learner, fleet

    key = ed25519.Ed25519PrivateKey.generate()
    (place / "keys").mkdir()
    secret = key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
    (place / "device.pem").write_bytes(secret)
    public = key.public_key().public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo)
    (place / "keys" / "device.pem").write_bytes(public)
    space = ground.workspace(place / "device", 2)
    learner = Learner.open(ground.bundle, space / "state")
    said = []
    for number in range(4):
        # Each says something else than the one before.
        fleet.export(
            learner, place / "own.cskc", least=1, bits=8 - 4 * (number % 2), sign=place / "device.pem"
        )
        said.append((place / "own.cskc").read_bytes())
    assert len({hashlib.sha256(one).digest() for one in said}) == len(said)
    return said


@promise(
    GUARANTEES,
    "What csk-sdk fleet serve has acknowledged of a device is kept whole, or something newer of it, whatever moment it "
    "dies at",
    tries=150,
)
def a_receiver_keeps_what_it_acknowledged(tries: Tries, ground: Ground, place: Path) -> None:
    """One device's files in any order, damaged, cut, too long, at once and by a receiver that is killed."""
    site = Site(ground, place)
    floor = 0
    done = 0
    while done < tries.count:
        with site.serving() as process:
            for _ in range(tries.rng.randint(3, 8)):
                if done >= tries.count:
                    break
                kind = tries.rng.choice(["whole", "cut", "bits", "long", "short", "many", "killed"])
                number = tries.rng.randrange(len(site.said))
                done += 1
                with tries.one(f"{kind}, of statement {number + 1}"):
                    floor = max(floor, _DO[kind](tries, site, number, process))
                    now = site.kept()
                    assert now >= floor, f"statement {now} is kept, and {floor} was acknowledged"
                if kind == "killed":
                    break
        # A fault is told once.
        floor = min(floor, site.kept())
        if floor == len(site.said):
            for one in site.inbox.glob("*.cskc"):
                one.unlink()
            floor = 0


def _whole(tries: Tries, site: Site, number: int, process: Any) -> int:
    assert site.put(site.said[number]) in (200, 201)
    return number + 1


def _cut(tries: Tries, site: Site, number: int, process: Any) -> int:
    before = site.kept()
    assert site.put(site.said[number], sent=tries.rng.randrange(len(site.said[number]))) in (0, 400)
    assert site.kept() == before
    return 0


def _bits(tries: Tries, site: Site, number: int, process: Any) -> int:
    before = site.kept()
    body = random_bits(site.said[number], tries.rng)
    status = site.put(body)
    if body == site.said[number]:
        return number + 1
    assert status in (400, 403), status
    assert site.kept() == before
    return 0


def _long(tries: Tries, site: Site, number: int, process: Any) -> int:
    before = site.kept()
    assert site.put(site.said[number], length=tries.rng.choice([65 << 20, 1 << 40, 1 << 62])) in (0, 400, 413)
    assert site.kept() == before
    return 0


def _short(tries: Tries, site: Site, number: int, process: Any) -> int:
    before = site.kept()
    assert site.put(site.said[number], length=tries.rng.randrange(len(site.said[number]))) in (0, 400)
    assert site.kept() == before
    return 0


def _many(tries: Tries, site: Site, number: int, process: Any) -> int:
    chosen = [tries.rng.randrange(len(site.said)) for _ in range(8)]
    answers: list[tuple[int, int]] = []
    threads = [
        threading.Thread(target=lambda one=one: answers.append((one, site.put(site.said[one]))))  # type: ignore[misc]
        for one in chosen
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(_EVER_SECONDS)
    assert [status for _, status in answers if status not in (200, 201)] == []
    return max(chosen) + 1


def _killed(tries: Tries, site: Site, number: int, process: Any) -> int:
    answers: list[int] = []
    thread = threading.Thread(target=lambda: answers.append(site.put(site.said[number])))
    thread.start()
    thread.join(tries.rng.random() * 0.03)
    process.kill()
    process.wait()
    thread.join(_EVER_SECONDS)
    return number + 1 if answers and answers[0] in (200, 201) else 0


_DO: dict[str, Callable[[Tries, Site, int, Any], int]] = {
    "whole": _whole,
    "cut": _cut,
    "bits": _bits,
    "long": _long,
    "short": _short,
    "many": _many,
    "killed": _killed,
}
