"""`csk-sdk demo`: the main job on real images, from an ONNX file to a device that has learned three tasks.

The workstation's part runs in this process. The device's part runs as `csk-sdk train` in processes of their own, as
on a device, so that seconds and peak memory are the device's.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from csk_sdk.demo import digits
from csk_sdk.demo.result import DemoResult, DemoRun
from csk_sdk.errors import ConfigError, CskError

# The centers are trained, and protected, without asking whether it pays; and with more and larger steps than the
# defaults: on 270 images of 8x8 pixels, four epochs are 68 steps.
TRAIN, EPOCHS, RATE = "centers", 10, 0.1
SETTINGS = f'[training]\ntrain = "{TRAIN}"\nepochs = {EPOCHS}\nlearning_rate = {RATE}\n'
# The network as it is, and a classifier on its features: as linear probing does.
FROZEN = ["--train", "heads"]
# Plain training: no projection, old heads do not follow the drift either, and nothing is too much to forget.
UNPROTECTED = ["--energy", "0", "--channel-ratio", "1", "--max-forgetting", "100"]


def run_demo(out: Path, on_progress: Callable[[str], None] = lambda line: None) -> DemoResult:
    """Build a bundle from the shipped digits model, learn three tasks in three ways, draw all.

    With csk-sdk's protection, with a frozen backbone, and without any protection.

    `out` is made anew where it is an earlier demo's folder.
    Raises ConfigError where `out` is something else, or the demo's extra is not installed.
    """
    try:
        import_module("csk_artifacts_builder")
    except ImportError as error:
        raise ConfigError(f"The demo needs {error.name}: pip install 'csk-sdk[demo]'.") from None
    from csk_sdk.demo.picture import draw

    marker = out / ".csk-demo"
    if out.exists() and any(out.iterdir()) and not marker.exists():
        raise ConfigError(f"{out} is not empty and not an earlier demo. Choose another --out.")
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    marker.touch()
    workspace = out / "workspace"
    on_progress("workstation: writing scikit-learn's handwritten digits as PNG files")
    digits.write_folders(digits.load(), out / "base-data", workspace / "tasks")
    (workspace / "csk.toml").write_text(SETTINGS, encoding="utf-8")
    model, _ = digits.model_files()
    on_progress(f"workstation: building a bundle from {model.name}, which knows the digits 0 to 3")
    digits.build_bundle(workspace / "bundle", base_data=out / "base-data")
    lives: dict[str, tuple[str, Sequence[str]]] = {
        "csk-sdk": ("state", []),
        "frozen backbone": ("state-frozen", FROZEN),
        "unprotected": ("state-unprotected", UNPROTECTED),
    }
    runs = tuple(_live(label, workspace, *life, on_progress) for label, life in lives.items())
    picture = out / "demo.png"
    draw(runs, picture)
    return DemoResult(workspace, picture, runs)


def _live(
    label: str, workspace: Path, state: str, settings: Sequence[str], on_progress: Callable[[str], None]
) -> DemoRun:
    where = ["--workspace", str(workspace), "--state", str(workspace / state)]
    seconds, peak = 0.0, 0
    for name in digits.TASKS:
        report = _csk_sdk("train", "--task", "next", *where, *settings, "--json")
        on_progress(
            f"device ({label}): learned {name} in {report['seconds']:.1f} s, "
            f"peak memory {report['peak_rss_bytes'] / 2**20:.0f} MiB"
        )
        seconds += report["seconds"]
        peak = max(peak, report["peak_rss_bytes"])
    task = _csk_sdk("evaluate", "--scenario", "task", *where, "--json")
    classes = _csk_sdk("evaluate", "--scenario", "class", *where, "--json")
    return DemoRun(label, task, classes, round(seconds, 2), peak)


def _csk_sdk(*arguments: str) -> dict[str, Any]:
    """Run one command as a process of its own and read its JSON."""
    # One thread: on images of 8x8 pixels, a second one costs more than it brings.
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "csk_sdk", *arguments],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    if done.returncode != 0:
        raise CskError(f"`csk-sdk {' '.join(arguments)}` failed: {done.stderr.strip()}")
    result: dict[str, Any] = json.loads(done.stdout)
    return result
