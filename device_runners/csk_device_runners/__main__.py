"""`python -m csk_device_runners check|conformance|table`; exits 0 where everything passes."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from csk_device_runners.check import check_bundle
from csk_device_runners.conformance import conforms, read_digest, report, run_conformance, write_report
from csk_device_runners.conformance_table import print_table, read_results
from csk_sdk.errors import CskError


def main(arguments: list[str] | None = None) -> int:
    """Parse the arguments, run the command, print what it found."""
    options = _parser().parse_args(arguments)
    commands = {"check": _check, "conformance": _conformance, "table": _table}
    try:
        return commands[options.command](options)
    except CskError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m csk_device_runners", description="Run and check csk-sdk bundles."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    check = commands.add_parser("check", help="check a bundle's graphs on this device's ONNX Runtime")
    check.add_argument("bundle", type=Path)
    check.add_argument("--threads", type=int, default=1, help="compute threads; 0 is one per core")
    check.add_argument("--json", action="store_true", help="print JSON")
    conformance = commands.add_parser("conformance", help="run the conformance vectors on this device")
    conformance.add_argument("vectors", type=Path, help="tests/conformance/vectors")
    conformance.add_argument("--out", type=Path, help="write the result file here")
    conformance.add_argument(
        "--platform", default="", help="what to call this platform; its machine by default"
    )
    conformance.add_argument(
        "--unsupported", action="append", default=[], metavar="FEATURE", help="skip cases that need this"
    )
    table = commands.add_parser("table", help="print several result files as one table")
    table.add_argument("vectors", type=Path)
    table.add_argument("results", type=Path, nargs="+")
    return parser


def _check(options: argparse.Namespace) -> int:
    results = check_bundle(options.bundle, options.threads)
    if options.json:
        print(json.dumps([asdict(result) for result in results], indent=1))
    else:
        width = max(len(result.name) for result in results)
        for result in results:
            print(f"{'ok  ' if result.passed else 'FAIL'}  {result.name:{width}}  {result.detail}")
    return 0 if all(result.passed for result in results) else 1


def _conformance(options: argparse.Namespace) -> int:
    unsupported = frozenset(options.unsupported)
    results = run_conformance(options.vectors, unsupported)
    for result in results:
        print(f"{result.status:7}  {result.name}{f': {result.reason}' if result.reason else ''}")
    if options.out is not None:
        write_report(options.out, report(options.vectors, results, options.platform, unsupported))
    passed = conforms(results)
    executed = sum(result.status != "skipped" for result in results)
    print(f"{executed} of {len(results)} cases executed: {'conforms' if passed else 'does NOT conform'}")
    return 0 if passed else 1


def _table(options: argparse.Namespace) -> int:
    results = read_results(options.results, read_digest(options.vectors))
    print_table(results, Console(soft_wrap=False))
    return 0 if all(result["passed"] for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
