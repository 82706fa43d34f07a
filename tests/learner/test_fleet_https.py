"""A fleet over HTTPS: a receiver as a process of its own, and devices that speak to it with nothing but HTTP."""

from __future__ import annotations

import datetime
import json
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import NameOID

from conftest import NAMES, Digits, open_learner
from csk_sdk import ConfigError, FleetError, Learner, StateLockedError, fleet
from csk_sdk.fleet import receiving, serving
from csk_sdk.fleet.listening import Place, Site, listen
from csk_sdk.fleet.receiving import LOCK_FILE, Receiver
from csk_sdk.fleet.serving import application
from csk_sdk.fleet.trusting import UntrustedError
from csk_sdk.state.lock import StateLock

pytestmark = pytest.mark.slow
PEM = serialization.Encoding.PEM
TOKEN = "0123456789abcdef-this-fleet"
PLANS = {"kitchen": (4, 5), "hall": (6, 7), "yard": (8, 9)}


@dataclass
class Answer:
    status: int
    body: bytes
    headers: dict[str, str]

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def certificate(folder: Path, name: str) -> Path:
    """A certificate for 127.0.0.1 that signs itself, `NAME.pem`, and its key `NAME-key.pem`."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    (folder / f"{name}.pem").write_bytes(made.public_bytes(PEM))
    (folder / f"{name}-key.pem").write_bytes(
        key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return folder / f"{name}.pem"


def device_key(folder: Path, name: str, public: Path | None) -> Path:
    """A device's private key, and its public one in the folder `public`."""
    key = ed25519.Ed25519PrivateKey.generate()
    path = folder / f"{name}-device.pem"
    path.write_bytes(key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    if public is not None:
        public.mkdir(exist_ok=True)
        (public / f"{name}.pem").write_bytes(
            key.public_key().public_bytes(PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        )
    return path


class Fleet:
    """A receiver's folder, its certificate and token, and devices that have each learned two digits."""

    def __init__(self, folder: Path, bundle: Path, digits: Digits) -> None:
        self.folder, self.bundle, self.digits = folder, bundle, digits
        self.inbox, self.merged = folder / "inbox", folder / "merged.cskc"
        self.trusted = certificate(folder, "server")
        (folder / "token").write_text(TOKEN + "\n")
        self.url = ""

    def device(self, name: str, chosen: tuple[int, ...], known: bool = True) -> Learner:
        """One that has learned; its file lies in `NAME.cskc`."""
        learner = open_learner(self.bundle, self.folder / name, few_shot=10**6)
        learner.learn(self.digits.task("01", chosen, train=40))
        self.export(learner, name, known)
        return learner

    def export(self, learner: Learner, name: str, known: bool = True) -> None:
        key = self.folder / f"{name}-device.pem"
        if not key.exists():
            device_key(self.folder, name, self.folder / "keys" if known else None)
        fleet.export(learner, self.folder / f"{name}.cskc", sign=key)

    @property
    def kept(self) -> list[Path]:
        """All that is in the inbox but for its lock."""
        return sorted(one for one in self.inbox.iterdir() if one.name != LOCK_FILE)

    def put(self, name: str, **how: Any) -> Answer:
        return self.ask("PUT", "/contributions", (self.folder / f"{name}.cskc").read_bytes(), **how)

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        token: str | None = TOKEN,
        trusted: Path | None = None,
        **headers: str,
    ) -> Answer:
        context = ssl.create_default_context(cafile=str(trusted or self.trusted))
        request = urllib.request.Request(self.url + path, body, method=method)
        for key, value in headers.items():
            request.add_header(key.replace("_", "-"), value)
        if token is not None:
            request.add_header("Authorization", f"Bearer {token}")
        try:
            with urllib.request.urlopen(request, context=context, timeout=60) as answer:
                return Answer(answer.status, answer.read(), dict(answer.headers.items()))
        except urllib.error.HTTPError as error:
            return Answer(error.code, error.read(), dict(error.headers.items()))

    @contextmanager
    def serving(
        self, *options: str, first: Callable[[], object] | None = None
    ) -> Iterator[subprocess.Popen[str]]:
        """The receiver, until the block ends; its process does `first` before all else."""
        command = [
            *(sys.executable, "-m", "csk_sdk", "fleet", "serve", str(self.inbox)),
            *("--trust", str(self.folder / "keys"), "--merged", str(self.merged), "--port", "0"),
            *("--certificate", str(self.trusted), "--key", str(self.folder / "server-key.pem")),
            *("--token", str(self.folder / "token"), "--bundle", str(self.bundle), *options),
        ]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=first
        )
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            said = process.stdout.readline()
            found = re.fullmatch(r"Listening on (https://127\.0\.0\.1:\d+)\n", said)
            assert found, said + process.stderr.read()
            self.url = found[1]
            yield process
        finally:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=60)


@pytest.fixture
def ours(tmp_path: Path, digits_bundle: Path, digits: Digits) -> Fleet:
    return Fleet(tmp_path, digits_bundle, digits)


def test_three_devices_and_a_server_that_dies_in_the_middle(ours: Fleet, digits: Digits) -> None:
    devices = {name: ours.device(name, chosen) for name, chosen in PLANS.items()}
    with ours.serving() as process:
        assert ours.ask("GET", "/merged").json == {"error": "Nothing was merged yet: ask again later."}
        first = ours.put("kitchen")
        assert (first.status, first.json["status"], first.json["name"]) == (201, "new", "kitchen")
        assert first.json["classes"] == {NAMES[4]: 40.0, NAMES[5]: 40.0}
        assert ours.put("hall").status == 201
        process.kill()
        process.wait()
    with ours.serving():
        # What was acknowledged is there, and sending again does no harm.
        assert [(one.status, one.json["status"]) for one in (ours.put("hall"), ours.put("yard"))] == [
            (200, "same"),
            (201, "new"),
        ]
        kept = sorted(ours.inbox.glob("*.cskc"))
        assert ours.kept == kept
        report = fleet.merge(kept, ours.merged)
        assert (report.devices, len(report.classes)) == (3, 6)
        got = ours.ask("GET", "/merged")
        assert (got.status, got.body) == (200, ours.merged.read_bytes())
        again = ours.ask("GET", "/merged", If_None_Match=got.headers["etag"])
        assert (again.status, again.body) == (304, b"")
    # The same as by files: to the byte, and so each device predicts the same.
    by_files = fleet.merge([ours.folder / f"{name}.cskc" for name in PLANS], ours.folder / "files.cskc")
    assert by_files.knowledge == report.knowledge
    assert (ours.folder / "files.cskc").read_bytes() == got.body
    (ours.folder / "got.cskc").write_bytes(got.body)
    fleet.apply(devices["hall"], ours.folder / "got.cskc")
    assert set(devices["hall"].predict(digits.of(8, 100, 104)).labels.tolist()) == {NAMES[8]}


def test_of_each_device_the_newest_is_kept(ours: Fleet) -> None:
    learner = ours.device("kitchen", (4, 5))
    older = (ours.folder / "kitchen.cskc").read_bytes()
    with ours.serving():
        assert ours.put("kitchen").json["status"] == "new"
        learner.learn(ours.digits.task("02", (6, 7), train=40))
        ours.export(learner, "kitchen")
        answer = ours.put("kitchen")
        assert (answer.status, answer.json["status"], len(answer.json["classes"])) == (200, "newer", 4)
        late = ours.ask("PUT", "/contributions", older)
        assert (late.status, late.json["status"]) == (200, "older")
        (kept,) = ours.kept
        assert kept.read_bytes() == (ours.folder / "kitchen.cskc").read_bytes()
        # What time has damaged there is replaced by the next.
        kept.write_bytes(kept.read_bytes()[:-20])
        assert ours.put("kitchen").json["status"] == "new"
        assert kept.read_bytes() == (ours.folder / "kitchen.cskc").read_bytes()


def test_the_newest_is_kept_by_two_receivers_of_one_folder(
    ours: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One compares the older file, and would put it in place of the newer one that has come meanwhile."""
    learner = ours.device("kitchen", (4, 5))
    older = ours.folder / "older.cskc"
    older.write_bytes((ours.folder / "kitchen.cskc").read_bytes())
    learner.learn(ours.digits.task("02", (6, 7), train=40))
    ours.export(learner, "kitchen")
    one, other = (Receiver(ours.inbox, [ours.folder / "keys"]) for _ in range(2))
    came: list[str] = []
    meanwhile = threading.Thread(target=lambda: came.append(other.take(ours.folder / "kitchen.cskc").status))
    compare = receiving._status

    def slowly(*them: Any) -> str:
        found = compare(*them)
        if not meanwhile.ident:
            meanwhile.start()
            meanwhile.join(0.5)
        return found

    monkeypatch.setattr(receiving, "_status", slowly)
    assert one.take(older).status == "new"
    meanwhile.join(60)
    assert came == ["newer"]
    (kept,) = ours.kept
    assert kept.read_bytes() == (ours.folder / "kitchen.cskc").read_bytes()


def test_a_folder_that_another_process_holds_is_waited_for_no_longer_than_said(
    ours: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours.device("kitchen", (4, 5))
    receiver = Receiver(ours.inbox, [ours.folder / "keys"])
    monkeypatch.setattr(receiving, "_LOCK_SECONDS", 0.1)
    with StateLock(ours.inbox, LOCK_FILE), pytest.raises(StateLockedError, match=r"is writing to .*inbox"):
        receiver.take(ours.folder / "kitchen.cskc")
    assert receiver.take(ours.folder / "kitchen.cskc").status == "new"


def test_strangers_are_refused(ours: Fleet, tmp_path: Path) -> None:
    ours.device("kitchen", (4, 5))
    ours.device("stranger", (6, 7), known=False)
    unsigned = open_learner(ours.bundle, tmp_path / "unsigned", few_shot=10**6)
    unsigned.learn(ours.digits.task("01", (8, 9), train=40))
    fleet.export(unsigned, tmp_path / "unsigned.cskc")
    with ours.serving():
        ours.merged.write_bytes(b"what was merged")
        for token in (None, "", TOKEN[:-1], "ü" * 20):
            for method, path in (("PUT", "/contributions"), ("GET", "/merged")):
                answer = ours.ask(
                    method, path, b"x" if method == "PUT" else None, token=token and quoted(token)
                )
                assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer")
                assert b"what was merged" not in answer.body
        for name, how in (("stranger", "by a key that this fleet does not know"), ("unsigned", "by nobody")):
            refused = ours.put(name)
            assert refused.status == 403
            assert f"signed {how}" in refused.json["error"]
            assert str(tmp_path) not in refused.json["error"]
        other = certificate(tmp_path, "other")
        with pytest.raises(urllib.error.URLError, match="CERTIFICATE_VERIFY_FAILED"):
            ours.put("kitchen", trusted=other)
        assert ours.kept == []
        assert ours.put("kitchen").status == 201


def quoted(token: str) -> str:
    return token.encode().decode("latin-1")


def test_what_is_no_file_of_a_device_is_one_sentence(ours: Fleet, tmp_path: Path) -> None:
    ours.device("kitchen", (4, 5))
    whole = (tmp_path / "kitchen.cskc").read_bytes()
    fleet.merge([tmp_path / "kitchen.cskc"], tmp_path / "both.cskc")
    flipped = bytearray(whole)
    flipped[-50] ^= 1
    with ours.serving():
        for body, words in (
            (b"", "cannot be read as a .cskc file"),
            (whole[:-1], "cannot be read as a .cskc file"),
            (bytes(flipped), "is damaged: what it holds is not what it says"),
            ((tmp_path / "both.cskc").read_bytes(), "is not the file of one device"),
        ):
            answer = ours.ask("PUT", "/contributions", body)
            assert answer.status == 400
            assert answer.json["error"].startswith("What was sent ")
            assert words in answer.json["error"]
            assert str(tmp_path) not in answer.json["error"]
        assert ours.ask("POST", "/contributions", whole).status == 405
        assert ours.ask("GET", "/inbox").status == 404
        assert ours.kept == []


def test_who_hangs_up_in_the_middle_leaves_nothing(ours: Fleet) -> None:
    ours.device("kitchen", (4, 5))
    with ours.serving():
        with sending(ours):
            pass
        assert ours.put("kitchen").status == 201
        assert len(ours.kept) == 1


@contextmanager
def sending(ours: Fleet) -> Iterator[ssl.SSLSocket]:
    """A connection on which half a file was sent."""
    port = int(ours.url.rsplit(":", 1)[1])
    context = ssl.create_default_context(cafile=str(ours.trusted))
    with (
        socket.create_connection(("127.0.0.1", port)) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as half,
    ):
        head = f"PUT /contributions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"
        half.sendall(f"{head}Content-Length: 100000\r\n\r\n".encode() + bytes(500))
        yield half


@contextmanager
def half_sent(ours: Fleet) -> Iterator[ssl.SSLSocket]:
    """The same, and it is being kept."""
    with sending(ours) as half:
        half.settimeout(60)
        while len(list(ours.inbox.glob(".sent.*"))) < 2:
            time.sleep(0.01)
        yield half


def test_what_a_killed_receiver_was_being_sent_goes_at_the_next_start(ours: Fleet) -> None:
    ours.device("kitchen", (4, 5))
    with ours.serving() as process, half_sent(ours):
        assert list(ours.inbox.glob("*.cskc")) == []
        # Another receiver of the folder leaves it alone.
        Receiver(ours.inbox, [ours.folder / "keys"])
        assert len(ours.kept) == 2
        process.kill()
        process.wait()
    assert len(ours.kept) == 2
    with ours.serving():
        assert ours.kept == []
        assert ours.put("kitchen").status == 201


@pytest.mark.parametrize("background", [False, True])
def test_ctrl_c_ends_what_is_being_sent_in_a_sentence(ours: Fleet, background: bool) -> None:
    """What a script's shell runs in the background ignores SIGINT, until the server takes it."""
    ours.device("kitchen", (4, 5))
    first = partial(
        signal.signal, signal.SIGINT, signal.SIG_IGN if background else signal.default_int_handler
    )
    with ours.serving(first=first) as process, half_sent(ours) as half:
        process.send_signal(signal.SIGINT)
        answer = b"".join(iter(lambda: half.recv(1 << 16), b""))
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert answer.endswith(b'{"error":"The receiver is being stopped: send it again later."}')
        half.close()
        out, err = process.communicate(timeout=60)
        assert (process.returncode, err) == (130, "Interrupted.\n")
        assert out == (
            "Refused 127.0.0.1, PUT /contributions: The receiver is being stopped: send it again later.\n"
        )
    assert ours.kept == []


def test_a_line_of_what_came_and_of_what_was_refused(ours: Fleet) -> None:
    learner = ours.device("kitchen", (4, 5))
    ours.device("stranger", (6, 7), known=False)
    with ours.serving() as process:
        first = ours.put("kitchen").json["device"][:8]
        ours.put("kitchen")
        learner.learn(ours.digits.task("02", (6,), train=40))
        ours.export(learner, "kitchen")
        ours.put("kitchen")
        ours.put("stranger")
        ours.ask("GET", "/merged")
        elsewhere = ours.ask("GET", "/inbox")
        assert (elsewhere.status, list(elsewhere.json)) == (404, ["error"])
        other = ours.ask("POST", "/contributions", b"x")
        assert (other.status, other.headers["allow"], list(other.json)) == (405, "PUT", ["error"])
        ours.inbox.rename(ours.folder / "moved")
        ours.inbox.write_text("in the way")
        refused = ours.put("kitchen")
        assert (refused.status, str(ours.folder) in refused.json["error"]) == (507, False)
        process.send_signal(signal.SIGINT)
        lines = process.communicate(timeout=60)[0].splitlines()
    who, only = "Refused 127.0.0.1, ", "There are `PUT /contributions` and `GET /merged`, and nothing else."
    assert lines[:-1] == [
        f"kitchen ({first}): 2 classes, new.",
        f"kitchen ({first}): 2 classes, here already.",
        f"kitchen ({first}): 3 classes, newer than what was here.",
        f"{who}PUT /contributions: What was sent is signed by a key that this fleet does not know: export it with "
        "`--sign`, and give the public key to whoever merges.",
        f"{who}GET /merged: Nothing was merged yet: ask again later.",
        f"{who}GET /inbox: {only}",
        f"{who}POST /contributions: {only}",
    ]
    assert str(ours.inbox) in lines[-1]
    assert "a file of that name is in the way" in lines[-1]


def test_only_a_whole_merged_file_is_given_out(ours: Fleet) -> None:
    ours.device("kitchen", (4, 5))
    sent = (ours.folder / "kitchen.cskc").read_bytes()
    fleet.merge([ours.folder / "kitchen.cskc"], ours.merged)
    whole = ours.merged.read_bytes()
    wrong = {
        b"junk, and no file of a fleet": "cannot be read as a .cskc file",
        b"": "cannot be read as a .cskc file",
        whole[:-1]: "cannot be read as a .cskc file",
        whole[:-1] + bytes([whole[-1] ^ 1]): "is damaged",
        sent: "has what single devices say, which is not for all",
    }
    with ours.serving() as process:
        assert ours.ask("GET", "/merged").body == whole
        for content in wrong:
            ours.merged.write_bytes(content)
            answer = ours.ask("GET", "/merged")
            assert (answer.status, answer.json) == (
                503,
                {"error": "What was merged cannot be given out, since it is not whole: ask again later."},
            )
            ours.merged.write_bytes(whole)
            assert ours.ask("GET", "/merged").body == whole
        process.send_signal(signal.SIGINT)
        lines = process.communicate(timeout=60)[0].splitlines()
    for line, words in zip(lines, wrong.values(), strict=True):
        assert line.startswith(f"Refused 127.0.0.1, GET /merged: {ours.merged}")
        assert words in line
    for content, words in wrong.items():
        ours.merged.write_bytes(content)
        with pytest.raises(ConfigError, match=words):
            listen(*changed(ours.folder, merged=ours.merged), pytest.fail)
    with pytest.raises(ConfigError, match="cannot be given out"):
        listen(*changed(ours.folder, merged=ours.inbox), pytest.fail)
    ours.merged.write_bytes(whole)
    with pytest.raises(ConfigError, match=r"is of bundle .*, and this fleet learns on 00000000"):
        application(ours.inbox, [ours.folder / "keys"], merged=ours.merged, bundle="0" * 64)


def test_what_is_too_large_or_too_slow_ends(ours: Fleet) -> None:
    """On a server within this process, which has little patience."""
    ours.device("kitchen", (4, 5))
    app = application(ours.inbox, [ours.folder / "keys"], token=TOKEN, largest=5_000, patience=0.5)
    with within(app) as place:
        ours.url = f"http://127.0.0.1:{place[1]}"
        answer = ours.put("kitchen")
        assert (answer.status, answer.json) == (413, {"error": "What was sent is larger than 4.9 KiB."})
        with socket.create_connection(place) as slow:
            slow.settimeout(60)
            head = f"PUT /contributions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"
            slow.sendall(f"{head}Content-Length: 4000\r\n\r\n".encode() + bytes(10))
            assert slow.recv(1 << 16).startswith(b"HTTP/1.1 408 ")
    assert ours.kept == []


@contextmanager
def within(app: Any, **settings: Any) -> Iterator[tuple[str, int]]:
    """Where a server within this process listens, until the block ends."""
    import uvicorn

    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="off", **settings))
    with socket.create_server(("127.0.0.1", 0)) as heard:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [heard]})
        thread.start()
        try:
            yield heard.getsockname()
        finally:
            server.should_exit = True
            thread.join(60)


@pytest.mark.parametrize("expect", ["", "Expect: 100-continue\r\n"], ids=["sends", "asks, and does not wait"])
def test_who_is_refused_while_sending_reads_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expect: str
) -> None:
    monkeypatch.setattr(serving, "_WAITED_IN_VAIN", 60.0)
    trusted = certificate(tmp_path, "server")
    device_key(tmp_path, "kitchen", tmp_path / "keys")
    app = application(tmp_path / "inbox", [tmp_path / "keys"], token=TOKEN)
    context = ssl.create_default_context(cafile=str(trusted))
    count = 8 << 20
    with (
        within(app, ssl_certfile=trusted, ssl_keyfile=tmp_path / "server-key.pem") as place,
        socket.create_connection(place, timeout=60) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as client,
    ):
        head = f"PUT /contributions HTTP/1.1\r\nHost: x\r\n{expect}Content-Length: {count}\r\n\r\n"
        client.sendall(head.encode())
        client.sendall(bytes(count))
        answer = b"".join(iter(lambda: client.recv(1 << 16), b""))
    assert answer.startswith(b"HTTP/1.1 401 ")
    assert answer.endswith(b'send `Authorization: Bearer TOKEN`."}')


def changed(folder: Path, **what: Any) -> tuple[Site, Place]:
    site = {"folder": folder / "inbox", "trust": (folder / "keys",)}
    place: dict[str, Any] = {}
    for key, value in what.items():
        (site if key in Site.__dataclass_fields__ else place)[key] = value
    return Site(**site), Place(**place)


@pytest.mark.parametrize(
    ("what", "words"),
    [
        (lambda _: {"host": "0.0.0.0"}, "--host 0.0.0.0 is reached from other machines, which needs"),
        (lambda f: {"certificate": f / "server.pem"}, "belong together"),
        (lambda f: {"certificate": f / "server.pem", "key": f / "no.pem"}, "cannot be used"),
        (lambda f: {"certificate": f / "server.pem", "key": f / "token"}, "cannot be used"),
        (lambda f: {"token": f / "no"}, "cannot be read (No such file"),
        (lambda f: {"token": f / "short"}, "must hold one word of 16 characters or more"),
        (lambda f: {"trust": (f / "server.pem",)}, "is not a"),
        (lambda _: {"port": 70_000}, "--port is 70000, and must be from 0 to 65535"),
        (lambda _: {"host": "no such host"}, "is reached from other machines"),
    ],
)
def test_settings_that_do_not_fit(tmp_path: Path, what: Callable[[Path], dict[str, Any]], words: str) -> None:
    certificate(tmp_path, "server")
    device_key(tmp_path, "kitchen", tmp_path / "keys")
    (tmp_path / "token").write_text(TOKEN)
    (tmp_path / "short").write_text("secret")
    with pytest.raises(ConfigError, match=re.escape(words)):
        listen(*changed(tmp_path, **what(tmp_path)), pytest.fail)


def test_without_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device_key(tmp_path, "kitchen", tmp_path / "keys")
    monkeypatch.setitem(sys.modules, "starlette", None)
    with pytest.raises(ConfigError, match=re.escape("pip install 'csk-sdk[fleet]'")):
        application(tmp_path / "inbox", [tmp_path / "keys"])


def test_a_bundle_of_another_fleet(tmp_path: Path, digits_bundle: Path, digits: Digits) -> None:
    ours = Fleet(tmp_path, digits_bundle, digits)
    ours.device("kitchen", (4, 5))
    receiver = Receiver(ours.inbox, [tmp_path / "keys"], "0" * 64)
    with pytest.raises(
        FleetError, match=r"^What was sent is of bundle .*, and this fleet learns on 00000000"
    ):
        receiver.take(tmp_path / "kitchen.cskc")
    device_key(tmp_path, "other", tmp_path / "others")
    with pytest.raises(UntrustedError, match="by a key that this fleet does not know"):
        Receiver(ours.inbox, [tmp_path / "others"]).take(tmp_path / "kitchen.cskc")
    assert ours.kept == []
