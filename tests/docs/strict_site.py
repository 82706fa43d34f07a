"""`make docs` is strict: one fault of each kind, planted into a copy of the repository, is told and ends the build.

    python tests/docs/strict_site.py 'COMMAND'

COMMAND is what `make docs` builds with: it is that very command which must fail.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# (file, what is there, or nothing for its end, what is put in its place, what the build must say)
FAULTS = (
    ("docs/service.md", "", "\n[x](nowhere.md)\n", "a link 'nowhere.md'"),
    ("docs/boards.md", "", "\n[x](bundle.md#no-such-heading)\n", "'bundle.md#no-such-heading'"),
    ("docs/signals.md", "", "\n[x](../examples/no-such-file.py)\n", "no-such-file.py'"),
    ("docs/losses.md", "", "\n![x](https://example.org/x.png)\n", "fetches https://example.org/x.png"),
    ("docs/api/errors.md", "::: csk_sdk.TaskError\n", "", "csk_sdk.TaskError is public, and no page"),
    ("mkdocs.yml", "  - FAQ: faq.md\n", "", 'not included in the "nav" configuration'),
)
# Public names, in whatever module they are: with a statement in front of it, a string is no docstring.
UNDOCUMENTED = (
    ('class StorageError(CskError):\n    """', "csk_sdk.StorageError has no docstring"),
    (
        'def rollback(self, task: str) -> Generation:\n        """',
        "csk_sdk.Learner.rollback has no docstring",
    ),
)


def main() -> None:
    """Print what each fault led to; exit with 1 where one went unnoticed."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        listed = subprocess.check_output(
            ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"], cwd=ROOT, text=True
        )
        for name in filter(None, listed.split("\0")):
            if (ROOT / name).is_file():
                (copy / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(ROOT / name, copy / name)
        wanted = [_plant(copy / name, old, new, said) for name, old, new, said in FAULTS]
        for head, said in UNDOCUMENTED:
            wanted.append(_plant(_holding(copy / "sdk", head), head, head.replace('"""', '...; """'), said))
        done = subprocess.run(
            sys.argv[1],
            shell=True,
            cwd=copy,
            capture_output=True,
            text=True,
            check=False,
        )
    missed = [said for said in wanted if said not in done.stderr]
    if missed or done.returncode == 0:
        sys.exit(f"The build ended with {done.returncode}, and did not say: {missed}\n{done.stderr}")
    print(f"{len(wanted)} planted faults, each of another kind, all told by the build.")


def _holding(folder: Path, text: str) -> Path:
    return next(path for path in sorted(folder.rglob("*.py")) if text in path.read_text(encoding="utf-8"))


def _plant(path: Path, old: str, new: str, said: str) -> str:
    text = path.read_text(encoding="utf-8")
    assert old in text, f"{path} no longer holds {old!r}"
    path.write_text(text.replace(old, new, 1) if old else text + new, encoding="utf-8")
    return said


if __name__ == "__main__":
    main()
