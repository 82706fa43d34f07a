"""Is this device, and this workspace, fit to learn? Every finding says what to do about it."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from csk_sdk.bundle.folder import Bundle
from csk_sdk.contract.manifest import MANIFEST
from csk_sdk.device.choice import colon_lines, cpu_name, in_chosen_precision
from csk_sdk.errors import ConfigError, CskError, StateLockedError, TaskError
from csk_sdk.formats.places import BUNDLE, mistaken
from csk_sdk.formats.wording import plural
from csk_sdk.learning.life import require_trainable
from csk_sdk.runtime.providers import CPU
from csk_sdk.runtime.sessions import installed_runtimes, load_onnxruntime
from csk_sdk.state import State
from csk_sdk.workspace.doctor_graphs import (
    FAIL,
    OK,
    WARN,
    Check,
    graph_checks,
    precision_check,
    provider_checks,
)
from csk_sdk.workspace.folder import Workspace

_SCARCE_MEMORY = 256 << 20
_SCARCE_DISK = 100 << 20


def examine(
    folder: Path | str = ".",
    bundle: Path | None = None,
    state: Path | None = None,
    tasks: Path | None = None,
    trust: Path | None = None,
) -> Iterator[Check]:
    """Check this device, then the workspace, one finding at a time.

    Changes nothing but `device.json` beside the state: which of a bundle's precisions is best on this device.
    """
    yield from _device()
    runtime = _onnxruntime()
    yield runtime
    try:
        space = Workspace.open(folder, bundle, state, tasks, trust)
    except ConfigError as error:
        yield Check("Workspace", FAIL, str(error))
        return
    yield _disk(space.state)
    if not os.path.lexists(space.bundle / MANIFEST):
        yield Check(
            "Bundle",
            FAIL,
            mistaken(space.bundle, BUNDLE) or f"there is none in {space.bundle}",
            "Build one on a workstation with `csk-sdk build-artifacts`, and copy it there.",
        )
        return
    try:
        opened = space.open_bundle()
        checkpoint = opened.checkpoint()
    except CskError as error:
        yield Check("Bundle", FAIL, str(error))
        return
    yield _bundle(opened)
    if runtime.status != FAIL:
        if len(opened.precisions) > 1:
            yield precision_check(opened, checkpoint, space)
        try:
            opened = in_chosen_precision(opened, space.config.precision, space.state)
        except CskError as error:
            yield Check("Graphs", FAIL, str(error))
            return
        try:
            require_trainable(opened, space.config)
        except ConfigError as error:
            yield Check("Settings", FAIL, str(error), "Change `train` under [training] in csk.toml.")
        yield from graph_checks(opened, checkpoint, space.config)
        yield from provider_checks(opened, checkpoint, space)
    yield from _state(space, opened, checkpoint)


def _device() -> Iterator[Check]:
    yield Check("Python", OK, f"{platform.python_version()} ({sys.executable})")
    yield Check("System", OK, f"{platform.system()} {platform.release()}, {platform.machine()}")
    yield Check("CPU", OK, f"{cpu_name()}, {_cores()}")
    yield _memory()
    yield Check("NumPy", OK, np.__version__)


def _cores() -> str:
    there = os.cpu_count() or 1
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else there
    return f"{there} cores" if usable == there else f"{usable} of {there} cores usable"


def _memory() -> Check:
    fields = dict(colon_lines(Path("/proc/meminfo")))
    try:
        total, free = (int(fields[key].split()[0]) << 10 for key in ("MemTotal", "MemAvailable"))
    except (KeyError, ValueError, IndexError):
        return Check("Memory", OK, "this system does not tell")
    detail = f"{total / 1e9:.1f} GB, {free / 1e9:.1f} GB available"
    if free < _SCARCE_MEMORY:
        return Check(
            "Memory", WARN, detail, "Stop other programs before training, or use a smaller --batch-size."
        )
    return Check("Memory", OK, detail)


def _onnxruntime() -> Check:
    found = installed_runtimes()
    try:
        ort = load_onnxruntime()
    except CskError as error:
        return Check("ONNX Runtime", FAIL, str(error))
    names = ", ".join(f"{name} {version}" for name, version in found.items())
    return Check("ONNX Runtime", OK, names or f"{ort.__version__} (not installed by pip)")


def _disk(folder: Path) -> Check:
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    try:
        free = shutil.disk_usage(there).free
    except OSError as error:
        return Check("Disk", WARN, f"{there} cannot be measured ({error.strerror})")
    detail = f"{free / 1e9:.1f} GB free for {folder}"
    if not os.access(there, os.W_OK):
        return Check(
            "Disk", FAIL, f"{there} cannot be written by this user", "Change its owner, or use --state."
        )
    if free < _SCARCE_DISK:
        return Check("Disk", WARN, detail, "Free some space, or set keep = 2 under [state] in csk.toml.")
    return Check("Disk", OK, detail)


def _bundle(bundle: Bundle) -> Check:
    manifest = bundle.manifest
    size = sum(entry.size for entry in manifest.files.values())
    detail = (
        f"{manifest.model}: {plural(len(manifest.classes), 'class', 'classes')}, "
        f"{plural(len(manifest.sites), 'site')}, {size / 1e6:.1f} MB; every file is as it was built"
        f"{', ' + bundle.origin if bundle.origin else ''}"
    )
    if not manifest.base_protected:
        return Check(
            "Bundle", WARN, f"{detail}; base classes unprotected", "Build it again with --base-data."
        )
    return Check("Bundle", OK, detail)


def _state(space: Workspace, bundle: Bundle, checkpoint: dict[str, Any]) -> Iterator[Check]:
    if not space.state.exists():
        yield Check("State", OK, f"nothing learned yet ({space.state} is made by the first csk-sdk train)")
    else:
        try:
            state = State.open(space.state, bundle.id, checkpoint, keep=space.keep)
            generation = state.load()
        except CskError as error:
            yield Check("State", FAIL, str(error))
            return
        names = ", ".join(task.name for task in generation.tasks) or "nothing learned yet"
        yield Check("State", OK, f"generation {generation.number}, intact: {names}")
        yield from _writing(state)
    yield from _tasks(space)


def _writing(state: State) -> Iterator[Check]:
    try:
        state.require_writable()
    except CskError as error:
        yield Check("Learning", FAIL, str(error))
        return
    yield _lock(state)
    yield from _progress(state)


def _lock(state: State) -> Check:
    try:
        with state.lock():
            return Check("Lock", OK, "free")
    except StateLockedError as error:
        return Check("Lock", WARN, str(error))
    except CskError as error:
        return Check("Lock", FAIL, str(error))


def _progress(state: State) -> Iterator[Check]:
    saved = state.load_progress()
    if saved is not None:
        task, step = saved[1].get("task"), saved[1].get("step")
        if task in [learned.name for learned in state.load().tasks]:
            # The device died between the commit and the clearing; the next training replaces it.
            return
        yield Check(
            "Progress",
            OK,
            f"task {task} was interrupted; `csk-sdk train --task {task}` goes on at step {step}",
        )


def _tasks(space: Workspace) -> Iterator[Check]:
    try:
        found = space.survey(space.on(CPU).learner())
    except TaskError as error:
        yield Check("Tasks", FAIL, str(error))
        return
    states = [status.state for status in found]
    counts = {"learned": states.count("learned"), "waiting": states.count("waiting") + states.count("next")}
    broken = [status for status in found if status.error]
    detail = ", ".join(f"{count} {name}" for name, count in counts.items())
    if broken:
        detail += f", {len(broken)} broken"
        yield Check("Tasks", WARN, f"{detail} in {space.tasks}", str(broken[0].error))
    else:
        yield Check("Tasks", OK, f"{detail} in {space.tasks}")
