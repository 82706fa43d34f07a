"""Who is not provisioned is not let in, as server, device or operator, and no operator's code runs on a device."""

from __future__ import annotations

import json
import shutil
import socket
import ssl
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from csk_sdk.fleet.engine import prepare_device
from csk_sdk.fleet.engine.operator import write_job
from engine.provisioned import BOUND, OPERATOR, SERVER, Fleet, device_key, provision, report_of, wait_for


@pytest.fixture
def stranger(ours: Fleet) -> Path:
    """Kits of the same names and for the same port that somebody else has provisioned."""
    return provision(ours.folder / "stranger", ours.port)


def heard(port: int, trusted: Path, certificate: Path | None) -> bytes:
    """What a server answers to somebody with this certificate, if any: nothing where it hangs up."""
    context = ssl.create_default_context(cafile=str(trusted))
    if certificate is not None:
        context.load_cert_chain(certificate.with_suffix(".crt"), certificate.with_suffix(".key"))
    with (
        socket.create_connection((SERVER, port), timeout=BOUND) as plain,
        suppress(ssl.SSLError, ConnectionError),
        context.wrap_socket(plain, server_hostname=SERVER) as secured,
    ):
        secured.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        return secured.recv(1000)
    return b""


def test_strangers(ours: Fleet, stranger: Path) -> None:
    ours.start(SERVER)
    ours.start("kitchen")
    root = "startup/rootCA.pem"

    # A server whose certificate somebody else has signed, as a device of theirs meets ours.
    prepare_device(stranger / "hall", ours.folder / "hall", sign=ours.folder / "hall-key.pem")
    ours.start("stranger", stranger / "hall")
    wait_for(lambda: "CERTIFICATE_VERIFY_FAILED" in ours.log("stranger"), "it refuses our server")
    ours.kill("stranger")

    # Whoever knocks with no certificate of this fleet, as a device or as an operator, hears nothing of our server.
    trusted = ours.kits / "kitchen" / root
    known = ours.kits / "kitchen" / "startup" / "client"
    unknown = [stranger / name / "startup" / "client" for name in ("hall", OPERATOR)]
    assert heard(ours.port, trusted, known).startswith(b"HTTP/1.1 ")
    assert [heard(ours.port, trusted, one) for one in (None, *unknown)] == [b"", b"", b""]

    # Operators: somebody else's, and one that has a device's certificate.
    device = ours.folder / "device-as-operator"
    shutil.copytree(ours.kits / OPERATOR, device)
    for one in ("client.crt", "client.key"):
        shutil.copy(ours.kits / "kitchen" / "startup" / one, device / "startup" / one)
    for kit in (stranger / OPERATOR, device):
        asked = ours.round(kit=kit)
        said, errors = asked.communicate(timeout=BOUND)
        assert (asked.returncode, said) == (1, ""), errors
        assert f"The server does not let {OPERATOR} in, or cannot be reached" in errors
    assert not ours.kept

    # Ours is let in, and a device whose key the fleet does not know is told so.
    prepare_device(
        ours.kits / "kitchen", ours.folder / "kitchen", sign=device_key(ours.folder, "other", "others")
    )
    report = report_of(ours.round("--only", "contribute"))
    assert (report["asked"], report["contributed"]) == (["kitchen"], {})
    assert "signed by a key that this fleet does not know" in report["refused"]["kitchen"]
    assert not ours.kept


# What an operator can do with NVFlare's own interface: two jobs, and a look at files.
OPERATING = """
import json, sys
from nvflare.fuel.flare_api.flare_api import new_secure_session

user, kit, bound, *jobs = sys.argv[1:]
session = new_secure_session(user, kit, timeout=60.0)
begun = [session.submit_job(job) for job in jobs]
found = [session.wait_for_job(job, timeout=float(bound), poll_interval=0.5)["status"] for job in begun]
for look in (session.ls_target, lambda name: session.cat_target(name, file="local/csk-fleet.json")):
    try:
        found.append(look("kitchen"))
    except Exception as error:
        found.append(f"refused: {error}")
session.close()
print("FOUND", json.dumps(found))
"""


def test_no_code_of_an_operator_runs_on_a_device(ours: Fleet) -> None:
    # The server as it was provisioned, which lets an operator do all: it is the device that refuses.
    for one in ("authorization.json", "resources.json"):
        (ours.kits / SERVER / "local" / one).unlink()
    ours.start(SERVER)
    ours.start("kitchen")
    ran = ours.folder / "ran"
    code, named = ours.folder / "code", ours.folder / "named"
    for job, path, arguments in (
        (code, "other.Other", {}),
        (named, "subprocess.Popen", {"args": ["touch", str(ran)]}),
    ):
        write_job(job, {"wait": BOUND})
        config = job / "app" / "config" / "config_fed_client.json"
        raw = json.loads(config.read_text())
        raw["executors"][0]["executor"] = {"path": path, "args": arguments}
        config.write_text(json.dumps(raw))
    custom = code / "app" / "custom" / "other.py"
    custom.parent.mkdir()
    custom.write_text(
        f"open({str(ran)!r}, 'w')\nfrom csk_sdk.fleet.engine.device import FleetDevice as Other\n"
    )
    arguments = [OPERATOR, str(ours.kits / OPERATOR), str(BOUND), str(code), str(named)]
    done = subprocess.run(
        [sys.executable, "-c", OPERATING, *arguments], env=ours.environment, text=True, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    *ended, listed, read = json.loads(done.stdout.partition("FOUND ")[2])
    assert len(ended) == 2
    assert "FINISHED:COMPLETED" not in ended
    assert "not authorized" in listed
    assert "not authorized" in read
    assert "is not in allow_list" in ours.log("kitchen")
    assert not ran.exists()
