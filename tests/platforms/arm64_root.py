"""A small ARM64 Linux unpacked beside this one: Debian's packages and aarch64 wheels, run by qemu's user emulation.

Nothing is installed, and nothing of this machine's package database is touched: apt works in a folder of its own, from
this machine's own sources. Needs apt and dpkg-deb (Debian, on any CPU), and no rights.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import requires
from pathlib import Path

from csk_sdk.errors import CskError
from csk_sdk.formats.opening import LARGEST_TEXT, read_file

# What a Python interpreter with ONNX Runtime and NumPy needs of a system; apt adds what these need.
_PACKAGES = ("python3-minimal", "libpython3-stdlib", "libstdc++6")
_EMULATOR = ("qemu-user-static", "qemu-user")
_BINARIES = ("qemu-aarch64", "qemu-aarch64-static")
# Wheels say how new a C library they need: all that Debian 12 has.
_TAGS = ("manylinux_2_36", "manylinux_2_28", "manylinux_2_27", "manylinux_2_17", "manylinux2014")
_DONE = "complete.json"

# ONNX Runtime and NumPy read it to choose kernels: this machine's own would be a lie, and ONNX Runtime dies of it.
_CPUINFO = """\
processor\t: 0
BogoMIPS\t: 100.00
Features\t: {features}
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x{variant}
CPU part\t: {part}
CPU revision\t: {revision}

"""
_ARMV8 = "fp asimd evtstrm aes pmull sha1 sha2 crc32"


@dataclass(frozen=True)
class Cpu:
    """A CPU of qemu's, and what Linux says of it."""

    name: str
    features: str
    part: str
    variant: int
    revision: int

    @property
    def cpuinfo(self) -> str:
        """Its /proc/cpuinfo, with one core."""
        return _CPUINFO.format(
            features=self.features, part=self.part, variant=self.variant, revision=self.revision
        )


# With dot products of int8 (ARMv8.2), as servers and newer phones; and without, as a Raspberry Pi 3.
CPUS = (
    Cpu(
        "neoverse-n1",
        f"{_ARMV8} atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp ssbs",
        part="0xd0c",
        variant=4,
        revision=1,
    ),
    Cpu("cortex-a53", f"{_ARMV8} cpuid", part="0xd03", variant=0, revision=4),
)


class Arm64Error(CskError):
    """The ARM64 root cannot be made here, or a process in it failed."""


@dataclass(frozen=True)
class Arm64:
    """A root that was unpacked: `command` is how its Python runs on one of the CPUs."""

    folder: Path
    python: str
    emulator: Path

    @classmethod
    def prepare(cls, folder: Path) -> Arm64:
        """Unpack into `folder`, or find what was unpacked for the same requirements before.

        Raises Arm64Error where apt, dpkg-deb, pip or one of their sources refuses.
        """
        folder = folder.resolve()
        done = folder / _DONE
        wanted = hashlib.sha256(repr((_PACKAGES, _TAGS, _requirements())).encode()).hexdigest()
        if not done.is_file() or json.loads(read_file(done, LARGEST_TEXT))["wanted"] != wanted:
            shutil.rmtree(folder, ignore_errors=True)
            _unpack(folder)
            done.write_text(json.dumps({"wanted": wanted}))
        installed = next(filter(None, map(shutil.which, _BINARIES)), None)
        emulator = Path(installed or folder / _BINARIES[0])
        if not emulator.is_file():
            _unpack_emulator(folder, emulator)
        for cpu in CPUS:
            (folder / cpu.name / "proc" / "cpuinfo").write_text(cpu.cpuinfo)
        return cls(folder, _only(folder / "root", "usr/bin/python3.*[0-9]").name, emulator)

    def command(self, cpu: Cpu, arguments: list[str]) -> tuple[list[str], dict[str, str]]:
        """The command and environment that run this root's Python with `arguments` as on `cpu`."""
        root = self.folder / cpu.name
        # Without `site`: where the root lacks a file, the emulator would find this machine's own packages.
        command = [str(self.emulator), "-cpu", cpu.name, "-L", str(root)]
        command += [str(root / "usr" / "bin" / self.python), "-S", *arguments]
        sources = [path for path in sys.path if (Path(path) / "csk_sdk").is_dir()]
        sources += [str(Path(__file__).parents[1])]
        environment = {
            "PATH": os.defpath,
            "HOME": str(self.folder),
            "LANG": "C.UTF-8",
            "PYTHONPATH": os.pathsep.join([str(self.folder / "wheels"), *dict.fromkeys(sources)]),
            # Byte code lies with the root: the other interpreter of this version is not this one.
            "PYTHONPYCACHEPREFIX": str(self.folder / "pycache"),
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
        }
        return command, environment


def _unpack(folder: Path) -> None:
    root = folder / "root"
    apt = _Apt(folder / "apt", "arm64")
    apt.unpack(_PACKAGES, root)
    version = _only(root, "usr/bin/python3.*[0-9]").name.removeprefix("python")
    tags = [option for tag in _TAGS for option in ("--platform", f"{tag}_aarch64")]
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "install", "--no-compile"]
    pip += ["--target", str(folder / "wheels"), "--only-binary=:all:", *tags]
    _call([*pip, "--python-version", version, "--implementation", "cp", *_requirements()])
    for cpu in CPUS:
        # The same root for each, but for what Linux says of the CPU.
        (folder / cpu.name / "proc").mkdir(parents=True)
        for entry in root.iterdir():
            (folder / cpu.name / entry.name).symlink_to(Path("..") / "root" / entry.name)
    shutil.rmtree(folder / "apt")


def _unpack_emulator(folder: Path, out: Path) -> None:
    """qemu for this machine's own CPU; which package has the binary that needs no library depends on the release."""
    unpacked = folder / "emulator"
    apt = _Apt(folder / "apt", "")
    for package in _EMULATOR:
        apt.unpack((package,), unpacked)
        found = [path for path in (unpacked / "usr" / "bin" / name for name in _BINARIES) if path.is_file()]
        if found:
            # One of thirty CPUs, 10 of 370 MB.
            shutil.move(found[0], out)
            shutil.rmtree(unpacked)
            shutil.rmtree(folder / "apt")
            return
    raise Arm64Error(f"None of {', '.join(_EMULATOR)} has qemu-aarch64: install qemu-user.")


class _Apt:
    """apt in a folder of its own, for another architecture, with this machine's sources."""

    def __init__(self, folder: Path, architecture: str) -> None:
        for name in ("state/lists/partial", "cache/archives/partial"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / "status").touch()
        self._archives = folder / "cache" / "archives"
        settings = {
            "Dir::State": folder / "state",
            "Dir::State::status": folder / "status",
            "Dir::Cache": folder / "cache",
            "Debug::NoLocking": 1,
            "APT::Sandbox::User": "",
            "Acquire::Languages": "none",
            "APT::Install-Recommends": 0,
        }
        if architecture:
            settings |= {"APT::Architecture": architecture, "APT::Architectures": architecture}
        self._options = [part for name, value in settings.items() for part in ("-o", f"{name}={value}")]
        self._get("update")

    def unpack(self, packages: tuple[str, ...], root: Path) -> None:
        """The packages, with all that they depend on, into `root`, without their scripts."""
        for old in self._archives.glob("*.deb"):
            old.unlink()
        self._get("install", "--download-only", "--yes", *packages)
        root.mkdir(parents=True, exist_ok=True)
        for package in sorted(self._archives.glob("*.deb")):
            _call(["dpkg-deb", "-x", str(package), str(root)])

    def _get(self, *arguments: str) -> None:
        _call(["apt-get", "-qq", *self._options, *arguments])


def _requirements() -> list[str]:
    """What a device installs: csk-sdk's own dependencies, and those of its extra `device`."""
    listed = requires("csk-sdk") or []
    split = [(name.strip(), marker) for name, _, marker in (one.partition(";") for one in listed)]
    return [name for name, marker in split if not marker or "'device'" in marker.replace('"', "'")]


def _only(folder: Path, pattern: str) -> Path:
    found = sorted(folder.glob(pattern))
    if not found:
        raise Arm64Error(f"{folder} has no {pattern}: delete {folder.parent} and run the command again.")
    return found[0]


def _call(command: list[str]) -> None:
    """Raises Arm64Error with the last line of what it said."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise Arm64Error(
            f"{command[0]} is missing, and the ARM64 root is made of Debian's packages: run this on Debian."
        ) from None
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines() or ["it says nothing"]
        raise Arm64Error(
            f"`{' '.join(command[:2])}` failed ({said[-1]}): check this machine's package sources."
        )
