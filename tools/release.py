"""Check a release before anyone sees it: `make release`. Nothing is uploaded.

python tools/release.py check DIST      contents of the wheel and the sdist in DIST, held against the repository
python tools/release.py installed BIN   what an environment with nothing but the wheel says of itself
python tools/release.py notes FILE      the version's part of CHANGELOG.md, as the release's notes
"""

from __future__ import annotations

import email
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PACKAGES = {
    "csk_sdk": "sdk",
    "csk_artifacts_builder": "artifacts_builder",
    "csk_device_runners": "device_runners",
}
# What is in the wheel and not in a package's folder.
ASSETS = {"csk_sdk/demo_assets/digits-base4.onnx", "csk_sdk/demo_assets/digits-base4.json"}
# What a reader of the sdist cannot do without.
IN_SDIST = (
    "pyproject.toml",
    "README.md",
    "CHANGELOG.md",
    "LICENSE",
    "SECURITY.md",
    "CONTRIBUTING.md",
    "Makefile",
)
# One command of each kind: what the device's part says without a runtime, and what it needs one for.
RUNS = (["--version"], ["--help"], ["train", "--help"])
WITHOUT_RUNTIME = ["doctor", "--workspace", "."]


def version() -> str:
    """The version that `csk_sdk/version.py` says."""
    text = (ROOT / "sdk" / "csk_sdk" / "version.py").read_text(encoding="utf-8")
    (found,) = re.findall(r'^__version__ = "(.+)"$', text, re.MULTILINE)
    return str(found)


def main() -> None:
    """One of the three above."""
    command, argument = sys.argv[1], Path(sys.argv[2]).absolute()
    problems = {"check": check, "installed": installed, "notes": notes}[command](argument)
    if problems:
        sys.exit("\n".join(f"release: {problem}" for problem in problems))


def check(dist: Path) -> list[str]:
    """What is wrong with the wheel and the sdist."""
    wheel = dist / f"csk_sdk-{version()}-py3-none-any.whl"
    sdist = dist / f"csk_sdk-{version()}.tar.gz"
    there = sorted(path.name for path in dist.iterdir())
    if there != sorted([wheel.name, sdist.name]):
        return [f"{dist} holds {', '.join(there)}, and should hold {wheel.name} and {sdist.name}"]
    with zipfile.ZipFile(wheel) as file:
        names = set(file.namelist())
        metadata = email.message_from_bytes(file.read(f"csk_sdk-{version()}.dist-info/METADATA"))
    with tarfile.open(sdist) as archive:
        top = f"csk_sdk-{version()}/"
        source = {one.name.removeprefix(top) for one in archive.getmembers() if one.isfile()}
    problems = [*_differences(_packaged(), _without_info(names)), *_metadata(metadata)]
    if f"csk_sdk-{version()}.dist-info/licenses/LICENSE" not in names:
        problems.append("the wheel has no LICENSE")
    problems += [f"the sdist lacks {name}" for name in (*IN_SDIST, *_sources()) if name not in source]
    if not problems:
        print(f"{wheel.name}: {len(names)} files, {wheel.stat().st_size:,} bytes, as the repository has them")
        print(f"{sdist.name}: {len(source)} files, {sdist.stat().st_size:,} bytes")
    return problems


def _packaged() -> set[str]:
    """The files that belong into the wheel: those of the packages that git knows, and the demo's model."""
    return {name.split("/", 1)[1] for name in _sources()} | ASSETS


def _sources() -> list[str]:
    folders = [f"{folder}/{package}" for package, folder in PACKAGES.items()]
    return subprocess.check_output(["git", "ls-files", "--", *folders], cwd=ROOT, text=True).split()


def _without_info(names: Iterable[str]) -> set[str]:
    return {name for name in names if ".dist-info/" not in name}


def _differences(wanted: set[str], found: set[str]) -> list[str]:
    return [
        *(f"the wheel lacks {name}" for name in sorted(wanted - found)),
        *(f"the wheel holds {name}, which is no part of it" for name in sorted(found - wanted)),
    ]


def _metadata(metadata: email.message.Message) -> list[str]:
    wanted = {
        "Name": PROJECT["name"],
        "Version": version(),
        "Requires-Python": PROJECT["requires-python"],
        "License-Expression": PROJECT["license"],
        "Summary": PROJECT["description"],
    }
    problems = [
        f"the wheel says {key}: {metadata[key]}, and should say {value}"
        for key, value in wanted.items()
        if metadata[key] != value
    ]
    extras = set(metadata.get_all("Provides-Extra") or ())
    if extras != set(PROJECT["optional-dependencies"]):
        problems.append(f"the wheel has the extras {', '.join(sorted(extras))}")
    return problems


def installed(programs: Path) -> list[str]:
    """What is wrong with the wheel where it is installed without any extra, as on a machine that reads states."""
    program = programs / "csk-sdk"
    said = [_run([str(program), *arguments]) for arguments in RUNS]
    problems = [
        f"csk-sdk {' '.join(run)} ends with {done.returncode}: {done.stderr}"
        for run, done in zip(RUNS, said, strict=True)
        if done.returncode
    ]
    if said[0].stdout.strip() != f"csk-sdk {version()}":
        problems.append(f"csk-sdk --version says {said[0].stdout.strip()!r}")
    names = _run([str(programs / "python"), "-c", "from csk_sdk import *"])
    if names.returncode:
        problems.append(f"not every name of csk_sdk.__all__ is there: {names.stderr}")
    missing = _run([str(program), *WITHOUT_RUNTIME])
    if "ONNX Runtime is not installed" not in missing.stdout or "Traceback" in missing.stderr:
        problems.append(f"csk-sdk doctor without a runtime says {missing.stdout}{missing.stderr}")
    if not problems:
        print(f"{said[0].stdout.strip()}, installed by itself: help, names, and doctor's word on the runtime")
    return problems


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT / "out", capture_output=True, text=True, check=False)


def notes(out: Path) -> list[str]:
    """Write the version's part of CHANGELOG.md; what is wrong with it."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    parts = re.split(r"^## \[([^\]]+)\] - (.+)$", text, flags=re.MULTILINE)
    heads = zip(parts[1::3], parts[2::3], parts[3::3], strict=True)
    found = {name: (date.strip(), body.strip()) for name, date, body in heads}
    if version() not in found:
        return [f"CHANGELOG.md has no part for {version()}, only for {', '.join(found) or 'nothing'}"]
    date, body = found[version()]
    out.write_text(f"# csk-sdk {version()}\n\n{_relinked(_gathered(body))}\n", encoding="utf-8")
    print(f"{out}: {len(body.split()):,} words")
    if date == "unreleased":
        print(f"CHANGELOG.md says that {version()} is unreleased: date it in the commit that is tagged.")
    elif not re.fullmatch(r"\d{4}-\d{2}-\d{2}", date):
        return [f"CHANGELOG.md dates {version()} {date!r}, and not year-month-day"]
    return []


def _gathered(body: str) -> str:
    """Each heading once, with the lines of all parts of that name: branches that merge leave several."""
    head, *parts = re.split(r"^### (.+)$", body, flags=re.MULTILINE)
    sections: dict[str, str] = {}
    for name, lines in zip(parts[::2], parts[1::2], strict=True):
        sections[name] = f"{sections.get(name, '')}\n{lines.strip()}".strip()
    return "\n\n".join(
        filter(None, [head.strip(), *(f"### {name}\n\n{lines}" for name, lines in sections.items())])
    )


def _relinked(body: str) -> str:
    """Links into the repository lead nowhere from a page of releases: their text stays."""
    return re.sub(r"\[([^\]]+)\]\((?!https?:)[^)]+\)", r"\1", body)


if __name__ == "__main__":
    main()
