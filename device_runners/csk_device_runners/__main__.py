"""Run and check bundles on devices.

python -m csk_device_runners check BUNDLE                           this device's gradients
python -m csk_device_runners learn BUNDLE TASKS --ssh HOST --out DIR  learn on a board, and bring the state back
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from csk_device_runners.check import check_bundle
from csk_device_runners.remote import RemoteRun, learn_remotely
from csk_device_runners.ssh import Board, RemoteError
from csk_sdk.errors import CskError

_CHECKOUT = Path(__file__).resolve().parents[2]


def main(arguments: list[str] | None = None) -> int:
    """Run a command; the exit status is 1 where a check fails, or with one sentence on stderr."""
    parser = argparse.ArgumentParser(
        prog="python -m csk_device_runners", description="Run and check csk-sdk bundles."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    check = commands.add_parser("check", help="check a bundle's graphs on this device's ONNX Runtime")
    check.add_argument("bundle", type=Path)
    check.add_argument("--trust", type=Path, metavar="KEY", help="the public key that must have signed it")
    check.add_argument("--threads", type=int, default=1, help="compute threads; 0 is one per core")
    check.add_argument("--json", action="store_true", help="print JSON")
    check.set_defaults(run=_check)
    _add_learn(
        commands.add_parser("learn", help="learn an inbox on a board over ssh, and bring the state back")
    )
    options = parser.parse_args(arguments)
    try:
        return int(options.run(options))
    except (CskError, RemoteError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1


def _add_learn(learn: argparse.ArgumentParser) -> None:
    learn.add_argument("bundle", type=Path)
    learn.add_argument("tasks", type=Path, help="an inbox: a folder of tasks")
    learn.add_argument("--ssh", required=True, metavar="HOST", help="the board, as ssh takes it: user@name")
    learn.add_argument("--out", type=Path, required=True, help="where state and measurements go")
    learn.add_argument("--wheel", type=Path, help="csk-sdk's wheel; built from the checkout where not given")
    learn.add_argument("--wheels", type=Path, help="its dependencies' wheels, for a board without an index")
    learn.add_argument("--python", default="python3", help="the board's Python, 3.11 or newer")
    learn.add_argument("--folder", default="csk-sdk", help="the place on the board for everything")
    learn.add_argument("--ssh-option", action="append", default=[], metavar="-oNAME=VALUE")
    learn.add_argument("--train-option", action="append", default=[], metavar="--epochs=4")
    learn.add_argument("--json", action="store_true", help="print JSON")
    learn.set_defaults(run=_learn)


def _check(options: argparse.Namespace) -> int:
    results = check_bundle(options.bundle, options.threads, options.trust)
    if options.json:
        print(json.dumps([asdict(result) for result in results], indent=1))
    else:
        width = max(len(result.name) for result in results)
        for result in results:
            print(f"{'ok  ' if result.passed else 'FAIL'}  {result.name:{width}}  {result.detail}")
    return 0 if all(result.passed for result in results) else 1


def _learn(options: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory() as folder:
        run = learn_remotely(
            Board(options.ssh, options.folder, options.ssh_option),
            options.bundle,
            options.tasks,
            options.wheel or _own_wheel(Path(folder)),
            options.out,
            python=options.python,
            wheels=options.wheels,
            options=options.train_option,
            say=lambda line: print(line, file=sys.stderr, flush=True),
        )
    if options.json:
        print(json.dumps({**asdict(run), "folder": str(run.folder)}, indent=1))
    else:
        _show(run)
    return 0 if all(result["passed"] for result in run.check) else 1


def _show(run: RemoteRun) -> None:
    print(f"Learned on {run.machine.splitlines()[0] if run.machine else 'the board'}:")
    width = max((len(line["task"]) for line in run.learned), default=0)
    for line in run.learned:
        memory = line["peak_rss_bytes"] / 2**20
        print(
            f"  {line['task']:{width}}  generation {line['generation']}  {line['seconds']:8.1f} s  {memory:6.0f} MiB"
        )
    failed = [result["name"] for result in run.check if not result["passed"]]
    passed = len(run.check) - len(failed)
    print(
        f"Checks of its runtime: {passed} of {len(run.check)} passed{': not ' if failed else ''}{', '.join(failed)}."
    )
    print(f"State and measurements: {run.folder}")


def _own_wheel(folder: Path) -> Path:
    """A wheel of the checkout that this file is in. Raises RemoteError where it is in none."""
    if not (_CHECKOUT / "pyproject.toml").exists():
        raise RemoteError("This csk-sdk is installed and not a checkout: give its wheel with --wheel.")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps"]
    done = subprocess.run(
        [*command, "--wheel-dir", folder, _CHECKOUT], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RemoteError(f"The wheel could not be built: {(done.stderr.strip().splitlines() or ['?'])[-1]}")
    return next(folder.glob("*.whl"))


if __name__ == "__main__":
    sys.exit(main())
