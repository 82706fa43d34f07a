"""Commands and folders over ssh, by the system's own `ssh` and `tar`: nothing else has to be on the board."""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
import tarfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath

from csk_sdk.formats.opening import open_file

_BROKEN = 255


class RemoteError(Exception):
    """Something failed on the board, or on the way there: one sentence."""


class ConnectionBroken(RemoteError):
    """The connection to the board could not be made, or broke."""


class Board:
    """A machine that is reached by `ssh HOST` without a password.

    host: as `ssh` takes it, `user@name`. folder: the place there for everything, relative to the home directory.
    options: for `ssh`, such as `["-p", "2222"]`.
    """

    def __init__(self, host: str, folder: str, options: Sequence[str] = ()) -> None:
        if shutil.which("ssh") is None:
            raise RemoteError("There is no ssh on this machine: install OpenSSH's client.")
        self.host, self.folder = host, folder
        self._ssh = ["ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=15", "-o", "ServerAliveInterval=5"]
        self._ssh += ["-o", "ServerAliveCountMax=3", *options, host]

    def run(self, script: str, doing: str) -> str:
        """What a POSIX shell script printed there, in `folder`.

        Raises ConnectionBroken; RemoteError, with the script's last line of errors, where it fails. `doing` says
        what it is for: "installing csk-sdk".
        """
        done = subprocess.run([*self._ssh, self._there(script)], capture_output=True, text=True, check=False)
        self._judge(done.returncode, done.stderr, doing)
        return done.stdout

    def send(self, source: Path, name: str) -> bool:
        """Copy a file or folder to `folder`/`name`, unless it is there already; whether it was copied.

        A copy that breaks leaves nothing that could be taken for a whole one.
        """
        digest, doing = fingerprint(source), f"copying {source.name}"
        # Apart from what they speak of: a mark, or half a copy, must not be taken for a task of an inbox.
        place, mark = shlex.quote(name), shlex.quote(f"sent/{name.replace('/', '_')}.sha256")
        if self.run(f"test -e {place} && cat {mark} 2>/dev/null || true", doing).strip() == digest:
            return False
        parent = shlex.quote(str(PurePosixPath(name).parent))
        unpack = self._there(
            f"rm -rf incoming && mkdir -p incoming sent {parent} && tar -xf - -C incoming && rm -rf {place} {mark} && "
            f"mv incoming/content {place} && echo {digest} > {mark}"
        )
        process = subprocess.Popen([*self._ssh, unpack], stdin=subprocess.PIPE, stderr=subprocess.PIPE)
        assert process.stdin is not None
        assert process.stderr is not None
        # Where the other side stops listening, it says why on its stderr.
        with suppress(BrokenPipeError), tarfile.open(fileobj=process.stdin, mode="w|") as archive:
            archive.add(source.resolve(), arcname="content")
        with suppress(BrokenPipeError):
            process.stdin.close()
        with process.stderr:
            errors = process.stderr.read().decode(errors="replace")
        process.wait()
        self._judge(process.returncode, errors, doing)
        return True

    def fetch(self, names: Sequence[str], into: Path) -> None:
        """Bring `folder`'s entries of these names back; `into` is replaced at once or not at all."""
        part = into.with_name(f".{into.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        pack = self._there(f"tar -cf - {' '.join(shlex.quote(name) for name in names)}")
        with subprocess.Popen([*self._ssh, pack], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            try:
                with tarfile.open(fileobj=process.stdout, mode="r|") as archive:
                    _extract(archive, part)
                whole = True
            except (tarfile.TarError, EOFError):
                whole = False
            errors = process.stderr.read().decode(errors="replace")
        self._judge(process.returncode, errors, "bringing the results back")
        if not whole:
            raise ConnectionBroken(self._broken("bringing the results back", "the archive ended early"))
        before = into.with_name(f".{into.name}.before")
        shutil.rmtree(before, ignore_errors=True)
        if into.exists():
            into.rename(before)
        part.rename(into)
        shutil.rmtree(before, ignore_errors=True)

    def _there(self, script: str) -> str:
        folder = shlex.quote(self.folder)
        return f"mkdir -p {folder} && cd {folder} && {{ {script}\n}}"

    def _judge(self, status: int, errors: str, doing: str) -> None:
        last = (errors.strip().splitlines() or ["no reason given"])[-1].strip()
        if status == _BROKEN or status < 0:
            raise ConnectionBroken(self._broken(doing, last))
        if status:
            raise RemoteError(f"{self.host} failed at {doing} (exit status {status}): {last}")

    def _broken(self, doing: str, reason: str) -> str:
        return (
            f"The connection to {self.host} failed while {doing} ({reason.rstrip('.')}). "
            "Run the same command again: it goes on from there."
        )


def fingerprint(path: Path) -> str:
    """The sha256, in hexadecimal, of a file, or of the names and contents of all files in a folder."""
    digest = hashlib.sha256()
    files = (
        [path]
        if path.is_file()
        else sorted(Path(f) / name for f, _, names in os.walk(path) for name in names)
    )
    for file in files:
        name = file.name if path.is_file() else file.relative_to(path).as_posix()
        with open_file(file) as stream:
            content = hashlib.file_digest(stream, "sha256").hexdigest()
        digest.update(f"{name}\0{content}\n".encode())
    return digest.hexdigest()


def _extract(archive: tarfile.TarFile, into: Path) -> None:
    """Its files and folders. Raises TarError for what is neither, or would lead out of `into`."""
    if hasattr(tarfile, "data_filter"):
        archive.extractall(into, filter="data")
        return
    # Python 3.11 has filters from 3.11.4 on; Debian 12 has 3.11.2.
    for member in archive:
        place = PurePosixPath(member.name)
        if place.is_absolute() or ".." in place.parts or not (member.isfile() or member.isdir()):
            raise tarfile.ReadError(f"'{member.name}' is no file or folder within what was asked for")
        archive.extract(member, into, set_attrs=False)
