"""`python -m csk_device_runners check BUNDLE [--threads N] [--json]`; exits 0 where every check passes."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from csk_device_runners.check import check_bundle
from csk_sdk.errors import CskError


def main(arguments: list[str] | None = None) -> int:
    """Parse the arguments, run the checks, print one line for each."""
    parser = argparse.ArgumentParser(
        prog="python -m csk_device_runners", description="Run and check csk-sdk bundles."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    check = commands.add_parser("check", help="check a bundle's graphs on this device's ONNX Runtime")
    check.add_argument("bundle", type=Path)
    check.add_argument("--threads", type=int, default=1, help="compute threads; 0 is one per core")
    check.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(arguments)
    try:
        results = check_bundle(options.bundle, options.threads)
    except CskError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    if options.json:
        print(json.dumps([asdict(result) for result in results], indent=1))
    else:
        width = max(len(result.name) for result in results)
        for result in results:
            print(f"{'ok  ' if result.passed else 'FAIL'}  {result.name:{width}}  {result.detail}")
    return 0 if all(result.passed for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
