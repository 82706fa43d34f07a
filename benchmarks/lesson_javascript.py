"""A lesson of benchmarks/lesson_times.py in JavaScript, which device_runners/js/tools/lesson.ts learns."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.continual.data import Split, Stream, TaskData

from csk_sdk.state.tensorfile import packed

RUNNER = Path(__file__).resolve().parents[1] / "device_runners" / "js"
_TOOL = RUNNER / "out" / "build" / "tools" / "lesson.js"
# Of the base's test images one in so many is asked, as in Python.
BASE_SHARE = 5


def learned(
    node: str, kind: str, bundle: Path, settings: Mapping[str, Any], stream: Stream, task: TaskData
) -> dict[str, float]:
    """What it took on `kind`, "node" or "wasm", in a process of its own; and what is right of the test images."""
    if not _TOOL.exists():
        raise SystemExit(f"{_TOOL} is missing: run `npm run build:tools` in {RUNNER}.")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        _write(folder, bundle, settings, stream, task)
        subprocess.run([node, str(_TOOL), kind, str(folder)], check=True, cwd=RUNNER)
        found: dict[str, float] = json.loads((folder / "found.json").read_text())
    return found


def _write(folder: Path, bundle: Path, settings: Mapping[str, Any], stream: Stream, task: TaskData) -> None:
    base = Split(stream.base.test.images[::BASE_SHARE], stream.base.test.labels[::BASE_SHARE])
    splits = {"train": task.train, "test": task.test, "base": base}
    tensors = {}
    for name, split in splits.items():
        tensors[f"{name}/images"] = np.ascontiguousarray(split.images)
        tensors[f"{name}/labels"] = np.ascontiguousarray(split.labels)
    (folder / "lesson.safetensors").write_bytes(packed(tensors))
    lesson = {
        "bundle": str(bundle), "name": task.name, "classes": list(task.classes),
        "base": list(stream.base.classes), "settings": dict(settings),
    }  # fmt: skip
    (folder / "lesson.json").write_text(json.dumps(lesson))
