"""The conformance vectors and what stands around them: docs/conformance.md.

PYTHONPATH=tests python -m platforms conformance|digits|arm64|states|table|matrix ...

A board needs csk-sdk as it is installed everywhere, this folder, and the vectors.
"""

from __future__ import annotations

import argparse
import sys

from csk_sdk.errors import CskError
from platforms.commands import add_conformance


def main(arguments: list[str] | None = None) -> int:
    """Run a command; the exit status is 1 where something deviates, or with one sentence on stderr."""
    parser = argparse.ArgumentParser(prog="python -m platforms", description="Run the conformance vectors.")
    add_conformance(parser.add_subparsers(dest="command", required=True))
    options = parser.parse_args(arguments)
    try:
        return int(options.run(options))
    except CskError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
