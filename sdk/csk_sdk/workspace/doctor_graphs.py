"""What `doctor` measures of a bundle's graphs on this device: precision, a training step, other providers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np

from csk_sdk.backends import AUTO, StepResult, TrainingStep, choose_backend, open_step
from csk_sdk.bundle.folder import Bundle
from csk_sdk.config import TrainingConfig
from csk_sdk.contract.manifest import (
    EVAL_MODEL,
    LABEL,
    MEMORY_MODEL,
    ORT_TRAINING_MODEL,
    PORTABLE,
    TRAINING_MODEL,
)
from csk_sdk.device.choice import remember
from csk_sdk.device.comparing import compare_providers, in_turn
from csk_sdk.device.probe import like_data
from csk_sdk.device.tuning import Measured, choose
from csk_sdk.errors import CskError
from csk_sdk.formats.wording import plural
from csk_sdk.method.selection import channel_count
from csk_sdk.runtime.peak_memory import peak_rss_bytes
from csk_sdk.runtime.providers import find_providers, provider_names, short
from csk_sdk.workspace.folder import Workspace

OK, WARN, FAIL = "ok", "warn", "fail"
_TIMED_STEPS = 9
# What another setting must bring, to be spoken of.
_WORTH = 0.9


@dataclass(frozen=True)
class Check:
    """One finding. `status` is "ok", "warn" or "fail"; `remedy` is what to do, or empty.

    `measured` is what a choice was made from, for a table; empty elsewhere.
    """

    name: str
    status: str
    detail: str
    remedy: str = ""
    measured: tuple[Measured, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain values for `doctor --json`."""
        values = asdict(self)
        if not self.measured:
            del values["measured"]
        return values


def precision_check(bundle: Bundle, checkpoint: dict[str, Any], space: Workspace) -> Check:
    """Measure what is best here, and remember it."""
    name = "Precision"
    try:
        choice = choose(bundle, checkpoint, space.config)
    except Exception as error:
        # ONNX Runtime raises its own classes, which cannot be named without importing it.
        reason = str(error).splitlines()[0]
        return Check(name, WARN, f"cannot be measured ({reason})", "Try a smaller batch_size in csk.toml.")
    best, wanted = choice.best.precision, space.config.precision
    detail = f"{best}: {choice.why}"
    try:
        remember(bundle, space.state, choice)
    except CskError as error:
        remedy = f"It could not be remembered, so learning takes {bundle.precision}: {error}"
        return Check(name, WARN, detail, remedy, choice.measured)
    if wanted not in (AUTO, best):
        return Check(
            name, OK, detail, f"csk.toml sets precision to {wanted}, and so it stays.", choice.measured
        )
    return Check(name, OK, detail, measured=choice.measured)


def graph_checks(bundle: Bundle, checkpoint: dict[str, Any], config: TrainingConfig) -> Iterator[Check]:
    """Open what learning opens, with the backend that `train` takes by default, and time a step."""
    backend = choose_backend(AUTO, bundle)
    try:
        for name in (EVAL_MODEL, MEMORY_MODEL):
            bundle.graph(name, checkpoint, config.threads)
        step = open_step(backend, bundle, checkpoint, config.threads)
    except CskError as error:
        yield Check("Graphs", FAIL, str(error), "Install another ONNX Runtime, or build the bundle again.")
        return
    training = TRAINING_MODEL if backend == PORTABLE else ORT_TRAINING_MODEL
    yield Check("Graphs", OK, f"{training}, {EVAL_MODEL}, {MEMORY_MODEL} open")
    # Threads that wait the other way.
    other = open_step(backend, bundle.view(spinning=not config.spinning), checkpoint, config.threads)
    yield _training_step(bundle, checkpoint, {config.spinning: step, not config.spinning: other}, config)


def _training_step(
    bundle: Bundle, checkpoint: dict[str, Any], steps: dict[bool, TrainingStep], config: TrainingConfig
) -> Check:
    """Time a step on a batch of noise, with sleeping and with spinning threads in turn."""
    manifest = bundle.manifest
    batch = config.batch_size or manifest.batch_size
    ratio = config.channel_ratio or manifest.channel_ratio
    rng = np.random.default_rng(0)
    images = like_data(manifest, rng.normal(size=(batch, *manifest.input.shape)))
    targets = {LABEL: bundle.objective.blank_labels(batch, manifest.classes)}
    head = checkpoint["head/base/weight"], checkpoint["head/base/bias"]
    selected = {site.name: np.arange(channel_count(site.columns, ratio)) for site in manifest.sites}
    deltas = {
        site.name: np.zeros((site.rows, len(selected[site.name])), np.float32) for site in manifest.sites
    }

    def run(spinning: bool) -> StepResult:
        return steps[spinning].run(images, targets, head, selected, deltas)

    try:
        result = run(config.spinning)
        took = in_turn({str(one): partial(run, one) for one in steps}, _TIMED_STEPS)
    except Exception as error:
        # ONNX Runtime raises its own classes, which cannot be named without importing it.
        return Check(
            "Training step", FAIL, str(error).splitlines()[0], "Try a smaller batch_size in csk.toml."
        )
    gradients = {"loss": np.array(result.loss), "head": result.weight, **result.centers}
    bad = [name for name, value in gradients.items() if not np.isfinite(value).all()]
    if bad:
        return Check(
            "Training step",
            FAIL,
            f"{', '.join(bad)} not finite",
            "Check --mean and --std; build the bundle again.",
        )
    ours = 1e3 * took[str(config.spinning)]
    detail = f"{ours:.1f} ms for {plural(batch, 'image')}, peak memory {peak_rss_bytes() / 1e6:.0f} MB"
    return Check("Training step", OK, detail, _about_spinning(took, config))


def _about_spinning(took: dict[str, float], config: TrainingConfig) -> str:
    """What the other way to wait would bring, where it is worth a setting."""
    ours, other = took[str(config.spinning)], took[str(not config.spinning)]
    if other > _WORTH * ours:
        return ""
    setting = f"spinning = {str(not config.spinning).lower()}"
    return f"With {setting} under [training] in csk.toml it takes {1e3 * other:.1f} ms, as the cores are used now."


def provider_checks(bundle: Bundle, checkpoint: dict[str, Any], space: Workspace) -> Iterator[Check]:
    """What else could compute predictions here: whether it computes the same, and how fast."""
    name = "Providers"
    try:
        chosen = [short(one) for one in provider_names(find_providers(space.providers, "csk.toml"))]
    except CskError as error:
        yield Check(name, FAIL, str(error))
        return
    found = compare_providers(bundle, checkpoint, space.config.threads)
    if len(found) == 1:
        return
    words = [
        f"{one.name} cannot be used ({one.error.rstrip('.')})"
        if one.error
        else f"{one.name}: {one.milliseconds:.2f} ms an image"
        + (f", features within {one.apart:.0e}" if one.apart else "")
        for one in found
    ]
    wrong = [one.name for one in found if one.name in chosen and not one.same]
    if wrong:
        remedy = f"{wrong[0]} does not compute what the CPU does: take it out of providers in csk.toml."
        yield Check(name, FAIL, "; ".join(words), remedy)
        return
    best = min((one for one in found if one.same), key=lambda one: one.milliseconds)
    current = next(one for one in found if one.name == chosen[0])
    remedy = (
        f'With providers = ["{best.name}"] under [runtime] in csk.toml predictions are faster.'
        if best.milliseconds < _WORTH * current.milliseconds
        else ""
    )
    yield Check(name, OK, "; ".join(words), remedy)
