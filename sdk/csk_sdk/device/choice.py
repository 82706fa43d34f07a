"""What was found to be best on this device, in `device.json` beside the state folder.

It is valid for one bundle on one CPU with one ONNX Runtime: with another of them, nothing is known. The file is a
convenience and may be deleted; what cannot be read counts as not there.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from csk_sdk.bundle.folder import Bundle
from csk_sdk.device.tuning import Choice
from csk_sdk.formats.opening import read_file
from csk_sdk.runtime.sessions import installed_runtimes
from csk_sdk.state.atomic import make_folder, replace_file

DEVICE = "device.json"
AUTO = "auto"
_SCHEMA = 1
_MOST_BYTES, _MOST_CHOICES = 1 << 20, 16


def in_chosen_precision(bundle: Bundle, wanted: str, state: Path, budgeted: bool = False) -> Bundle:
    """The bundle in the precision that is wanted; for "auto" in the remembered one, else the bundle's own.

    With a memory budget (`budgeted`), "auto" is the bundle's own: that is what its memory was predicted for.
    Raises BundleError where the bundle has no graphs for the wanted one.
    """
    found = recall(bundle, state) or {}
    own = bundle.manifest.precision
    precision = wanted if wanted != AUTO else own if budgeted else found.get("precision", own)
    # Where nothing is remembered, or narrow sums were right on the probe, it is as this CPU needs it.
    return bundle.view(precision, wide_sums=found.get("int8_wide_sums") or None)


def recall(bundle: Bundle, state: Path) -> dict[str, Any] | None:
    """The remembered choice for this bundle on this CPU and runtime: `precision`, `int8_wide_sums`, `why` and more."""
    key = _key(bundle)
    for choice in _read(state.absolute().parent / DEVICE):
        if (
            all(choice.get(name) == value for name, value in key.items())
            and choice.get("precision") in bundle.precisions
            and isinstance(choice.get("int8_wide_sums"), bool)
        ):
            return choice
    return None


def remember(bundle: Bundle, state: Path, choice: Choice) -> Path:
    """Write a choice in place of an older one for the same key. Raises StorageError."""
    path = state.absolute().parent / DEVICE
    key = _key(bundle)
    others = [one for one in _read(path) if any(one.get(name) != value for name, value in key.items())]
    new = {
        **key,
        "precision": choice.best.precision,
        "int8_wide_sums": choice.measured[-1].wide_sums,
        "why": choice.why,
        "measured": [asdict(one) for one in choice.measured],
    }
    content = {"schema_version": _SCHEMA, "choices": [new, *others][:_MOST_CHOICES]}
    make_folder(path.parent)
    replace_file(path, (json.dumps(content, indent=1) + "\n").encode())
    return path


def cpu_name() -> str:
    """The kernel's name for the CPU, or for the board, where it tells."""
    fields = dict(colon_lines(Path("/proc/cpuinfo")))
    named = fields.get("model name") or fields.get("Model") or fields.get("Hardware")
    return named or platform.processor() or "?"


def colon_lines(path: Path) -> Iterator[tuple[str, str]]:
    """The `name: value` lines of a file of the kernel; none where there is no such file."""
    try:
        text = path.read_text(errors="replace")
    except OSError:
        return
    for line in text.splitlines():
        name, colon, value = line.partition(":")
        if colon:
            yield name.strip(), value.strip()


def _key(bundle: Bundle) -> dict[str, str]:
    runtimes = ", ".join(f"{name} {version}" for name, version in installed_runtimes().items())
    return {"bundle": bundle.id, "cpu": f"{cpu_name()}, {platform.machine()}", "runtime": runtimes}


def _read(path: Path) -> list[dict[str, Any]]:
    try:
        content = json.loads(read_file(path, _MOST_BYTES))
    except (OSError, ValueError, RecursionError):
        return []
    if not isinstance(content, dict) or content.get("schema_version") != _SCHEMA:
        return []
    choices = content.get("choices")
    return [one for one in choices if isinstance(one, dict)] if isinstance(choices, list) else []
