"""How long csk-sdk takes until it can learn: import, open, first step. Each in fresh processes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from bench.cases import CASES, folder_of
from bench.driver import environment
from bench.page import milliseconds, table

REPEATS = 5
STAGES = (
    "Python itself",
    "import csk_sdk",
    "import onnxruntime",
    "Bundle.open, all checksums",
    "open the training graph",
)

SCRIPT = """
import json, sys, time
begun = time.process_time()
import csk_sdk
imported = time.process_time()
from csk_sdk.runtime.sessions import load_onnxruntime
load_onnxruntime()
runtime = time.process_time()
from csk_sdk.bundle.folder import Bundle
bundle = Bundle.open(sys.argv[1])
opened = time.process_time()
from csk_sdk.backends import open_step
step = open_step("portable", bundle, bundle.checkpoint(), 1)
ready = time.process_time()
print(json.dumps([begun, imported - begun, runtime - imported, opened - runtime, ready - opened]))
"""


def measure(python: Path, root: Path) -> dict[str, list[float]]:
    """Median CPU seconds of each stage, by precision, for ResNet-18 at 32x32."""
    found = {}
    for precision in ("exact", "int8"):
        bundle = folder_of(root, CASES[0]) / precision
        runs = [_once(python, bundle) for _ in range(REPEATS)]
        found[precision] = [float(value) for value in np.median(runs, axis=0)]
    return found


def _once(python: Path, bundle: Path) -> list[float]:
    done = subprocess.run(
        [str(python), "-c", SCRIPT, str(bundle)],
        capture_output=True,
        text=True,
        env=environment(1),
        check=False,
    )
    if done.returncode:
        sys.exit(done.stderr)
    stages: list[float] = json.loads(done.stdout.splitlines()[-1])
    return stages


def page(found: dict[str, list[float]]) -> str:
    """One row per stage."""
    rows = [
        [stage, *(milliseconds(found[precision][index]) for precision in found)]
        for index, stage in enumerate(STAGES)
    ]
    return table(["ms", *found], rows)
