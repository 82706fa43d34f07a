"""A fleet as NVFlare provisions it, on loopback: a server, three devices and an operator, as processes of their own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from conftest import Digits, open_learner
from csk_sdk import Learner, fleet
from csk_sdk.fleet.engine import prepare_device, prepare_server

PLANS = {"kitchen": (4, 5), "hall": (6, 7), "yard": (8, 9)}
OPERATOR = "operator@example.org"
SERVER = "localhost"
# For what hangs: nothing that is asserted depends on it.
BOUND = 240.0
BIN = Path(sys.executable).parent

PROJECT = """
api_version: 3
name: fleet
participants:
  - {{name: localhost, type: server, org: example, fed_learn_port: {port}}}
  - {{name: kitchen, type: client, org: example}}
  - {{name: hall, type: client, org: example}}
  - {{name: yard, type: client, org: example}}
  - {{name: operator@example.org, type: admin, org: example, role: project_admin}}
builders:
  - path: nvflare.lighter.impl.workspace.WorkspaceBuilder
    args: {{template_file: [master_template.yml]}}
  - path: nvflare.lighter.impl.static_file.StaticFileBuilder
    args: {{config_folder: config}}
  - path: nvflare.lighter.impl.cert.CertBuilder
  - path: nvflare.lighter.impl.signature.SignatureBuilder
"""

# Loaded by every process of the fleet: whatever looks for another machine, or starts an installer, is written down.
WATCHED = """
import socket, sys

def watch(event, arguments):
    if event == "socket.connect":
        address = arguments[1]
        # UDP's `connect` sends nothing: it is how a program finds its own address.
        outside = arguments[0].type == socket.SOCK_STREAM and isinstance(address, tuple)
        outside = outside and address[0] not in ("127.0.0.1", "::1", "localhost")
    elif event == "subprocess.Popen":
        outside = any(word in str(arguments[:2]) for word in ("'pip'", "'uv'"))
    else:
        return
    if outside:
        with open({file!r}, "a") as file:
            file.write(f"{{event}} {{arguments!r}} of {{sys.argv}}\\n")

sys.addaudithook(watch)
"""


def free_port() -> int:
    with socket.create_server(("localhost", 0)) as heard:
        return int(heard.getsockname()[1])


def provision(folder: Path, port: int) -> Path:
    """What `nvflare provision` writes: a folder for each who takes part."""
    folder.mkdir()
    (folder / "project.yml").write_text(PROJECT.format(port=port))
    command = [BIN / "nvflare", "provision", "-p", "project.yml", "-w", "kits"]
    subprocess.run(command, cwd=folder, env=surroundings(folder), check=True, capture_output=True)
    return folder / "kits" / "fleet" / "prod_00"


def surroundings(home: Path, **more: str) -> dict[str, str]:
    """The environment of the fleet's processes: a home of their own."""
    return {**os.environ, "HOME": str(home), "OMP_NUM_THREADS": "1", **more}


def wait_for(met: Callable[[], object], what: str) -> None:
    end = time.monotonic() + BOUND
    while not met():
        assert time.monotonic() < end, f"waited in vain: {what}"
        time.sleep(0.1)


def device_key(folder: Path, name: str, keys: str = "keys") -> Path:
    """A device's private key, and its public one in the folder `keys`."""
    pem = serialization.Encoding.PEM
    key = ed25519.Ed25519PrivateKey.generate()
    path = folder / f"{name}-key.pem"
    path.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    (folder / keys).mkdir(exist_ok=True)
    public = key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
    (folder / keys / f"{name}.pem").write_bytes(public)
    return path


@dataclass
class Fleet:
    """Kits, workspaces and keys in a folder; `start` and `kill` by a site's name."""

    folder: Path
    port: int
    kits: Path
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    before: dict[str, int] = field(default_factory=dict)

    @classmethod
    def made(cls, folder: Path, bundle: Path, digits: Digits) -> Fleet:
        """Three devices that have each learned two digits."""
        port = free_port()
        found = cls(folder, port, provision(folder / "provisioned", port))
        (folder / "watch").mkdir()
        (folder / "watch" / "sitecustomize.py").write_text(WATCHED.format(file=str(folder / "outside")))
        for name, chosen in PLANS.items():
            space = folder / name
            space.mkdir()
            shutil.copytree(bundle, space / "bundle")
            learner = open_learner(space / "bundle", space / "state", train="heads")
            learner.learn(digits.task("01", chosen, train=40))
            prepare_device(found.kits / name, space, sign=device_key(folder, name))
        prepare_server(
            found.kits / SERVER, folder / "inbox", found.merged, trust=(folder / "keys",), bundle=bundle
        )
        return found

    @property
    def merged(self) -> Path:
        return self.folder / "merged.cskc"

    def learner(self, name: str) -> Learner:
        space = self.folder / name
        return open_learner(space / "bundle", space / "state", train="heads")

    def by_files(self, *names: str) -> bytes:
        """What the same devices come to by `fleet.export` and `fleet.merge`."""
        for name in names:
            self.export(name)
        place = self.folder / "by-files"
        fleet.merge([place / f"{name}.cskc" for name in names], place / "merged.cskc")
        return (place / "merged.cskc").read_bytes()

    def export(self, name: str) -> bytes:
        """What a device has to say."""
        place = self.folder / "by-files"
        place.mkdir(exist_ok=True)
        out = place / f"{name}.cskc"
        fleet.export(self.learner(name), out, name=name, sign=self.folder / f"{name}-key.pem")
        return out.read_bytes()

    @property
    def kept(self) -> set[bytes]:
        """The files that the server has."""
        return {one.read_bytes() for one in (self.folder / "inbox").glob("*.cskc")}

    @property
    def outside(self) -> Path:
        """Where it is written down when a process looks for another machine."""
        return self.folder / "outside"

    def start(self, name: str, kit: Path | None = None) -> None:
        """As an operating system's service would."""
        kit = kit or self.kits / name
        self.before[name] = len(self.log(name))
        with (self.folder / f"{name}.log").open("ab") as out:
            self.running[name] = subprocess.Popen(
                [sys.executable, "-m", "csk_sdk", "fleet", "start", str(kit)],
                env=self.environment,
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        if name in PLANS:
            wait_for(lambda: "Successfully registered client" in self.new(name), f"{name} is there")

    @property
    def environment(self) -> dict[str, str]:
        path = os.pathsep.join([str(self.folder / "watch"), *sys.path])
        return surroundings(self.folder, PYTHONPATH=path)

    def log(self, name: str) -> str:
        path = self.folder / f"{name}.log"
        return path.read_text("utf-8", errors="replace") if path.exists() else ""

    def new(self, name: str) -> str:
        """What a site has said since it was started last."""
        return self.log(name)[self.before.get(name, 0) :]

    def kill(self, name: str) -> None:
        """All its processes at once, as when power is lost: nobody is left to tell of it."""
        process = self.running.pop(name)
        others: list[psutil.Process] = []
        with psutil_gone():
            others = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        process.wait()
        _killed(others)

    def kill_job(self, name: str) -> None:
        """The processes of its part of a round, and not the site's own."""
        others = psutil.Process(self.running[name].pid).children(recursive=True)
        assert others
        _killed(others)

    def round(self, *options: str, kit: Path | None = None) -> subprocess.Popen[str]:
        """`csk-sdk fleet round`, begun."""
        command = [sys.executable, "-m", "csk_sdk", "fleet", "round", str(kit or self.kits / OPERATOR)]
        return subprocess.Popen(
            [*command, "--json", "--wait", str(BOUND), *options],
            env=self.environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def learning(self, name: str) -> Any:
        """While the block runs, the device is as one that learns."""
        return self.learner(name).state.lock()


def _killed(processes: list[psutil.Process]) -> None:
    for one in processes:
        with psutil_gone():
            one.send_signal(signal.SIGKILL)


@contextmanager
def psutil_gone() -> Iterator[None]:
    """Whatever has ended by itself meanwhile has ended."""
    try:
        yield
    except psutil.NoSuchProcess:
        return


def report_of(process: subprocess.Popen[str]) -> dict[str, Any]:
    """What a round came to, once it is over."""
    said, errors = process.communicate(timeout=BOUND)
    assert process.returncode == 0, errors
    return dict(json.loads(said))
