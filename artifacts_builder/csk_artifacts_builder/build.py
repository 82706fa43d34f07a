"""`build_artifacts`: from a trained ONNX classifier to a bundle. Read it top to bottom."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import onnx_ir as ir

from csk_artifacts_builder.bundle_writer import BundleDraft, large_weights, require_free
from csk_artifacts_builder.describe import pixels_said, require_options, unprotected, warnings_about
from csk_artifacts_builder.graphs.domain import plain_statistics
from csk_artifacts_builder.int8.calibrate import Agreement
from csk_artifacts_builder.measure.base_channels import measure_channels
from csk_artifacts_builder.measure.base_knowledge import measure_base, require_base_folder
from csk_artifacts_builder.measure.feature_map import bundle_to_upgrade, measure_upgrade
from csk_artifacts_builder.measure.verify import same_logits
from csk_artifacts_builder.options import BuildOptions
from csk_artifacts_builder.ort.artifacts import write_ort_artifacts
from csk_artifacts_builder.planning.plan import plan_build
from csk_artifacts_builder.prepare.model import within_memory
from csk_artifacts_builder.prepare.source_file import require_writable
from csk_sdk.bundle.folder import Bundle
from csk_sdk.bundle.signing import private_key
from csk_sdk.contract.manifest import (
    DOMAIN_CHANNELS,
    EXPORT_TEMPLATE,
    INT8,
    ORT_FOLDER,
    ORT_TRAINING,
    UPGRADE,
    Site,
)
from csk_sdk.data.tasks import Task
from csk_sdk.device import tuning
from csk_sdk.device.comparing import require_same
from csk_sdk.objectives import objective_of
from csk_sdk.runtime.allocator import returning_memory
from csk_sdk.runtime.providers import find_providers


@dataclass(frozen=True)
class BuildReport:
    """What was built, and what its user should know. Immutable.

    - `bundle`: the folder, `sites`: the convolutions that learn, `classes`: how many the model knows
    - `base_accuracy`: in percent on the base data, None without; `metric` says what it is where it is no accuracy
    - `agreement`: int8 compared with exact: `logits`, a relative error, and `gradients`, a cosine for each site; None
      for exact
    - `warnings`: sentences about what its user should mend, or know
    - `notes`: sentences on what was built otherwise than the file says
    """

    bundle: Path
    sites: tuple[Site, ...]
    classes: int
    base_accuracy: float | None
    agreement: Agreement | None = None
    warnings: tuple[str, ...] = field(default=())
    metric: str = "accuracy"
    notes: tuple[str, ...] = field(default=())


def build_artifacts(
    model: Path | str,
    out: Path | str,
    options: BuildOptions | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> BuildReport:
    """Turn a trained ONNX classifier into a bundle.

    `on_progress` is called with the images measured, and how many there are. Builds beside each other are for processes
    of their own: with threads it was not tested.

    Raises ModelError for a model that cannot be trained (UnsupportedOpError names the op),
    ConfigError for options that do not fit it, TaskError for base data that does not fit, StorageError when `out`
    cannot be written. A failed build leaves nothing behind, and what was at `out` as it was.
    """
    options = options or BuildOptions()
    require_possible(Path(out), options)
    with returning_memory(), within_memory(Path(model), options.input_size):
        return _build(Path(model), Path(out), options, on_progress)


def require_possible(out: Path, options: BuildOptions) -> None:
    """Refuse what can be refused before the model is read: now, and not when an hour of measuring is over.

    Raises ConfigError for options that fit no model, and where `out` is in the way, TaskError for data that are not
    there.
    """
    require_free(out, options.overwrite)
    require_options(options)
    if options.sign is not None:
        private_key(options.sign)
    if options.base_data is not None:
        require_base_folder(options.base_data)
    if options.intensity_data is not None:
        Task.open(options.intensity_data, options.bit_depth).require_trainable()


def _build(
    model: Path, out: Path, options: BuildOptions, on_progress: Callable[[int, int], None]
) -> BuildReport:
    providers = find_providers(options.provider and [options.provider], "--provider")
    upgraded = bundle_to_upgrade(options.upgrade_from, options.base_data)
    plan = plan_build(model, options)
    source, head, manifest, models = plan.source, plan.head, plan.manifest, plan.models
    checkpoint, split, mixed = plan.checkpoint, plan.split, plan.mixed
    where, sites = source.path.name, manifest.sites
    # The head's tensors are in no graph: they live in the checkpoint.
    weights = {
        name: array
        for name, array in large_weights(source.model, sites, manifest.quantised).items()
        if any(name in model.graph.initializers for model in models.values())
    }
    manifest = replace(
        manifest,
        weights_in_export=_present(models[EXPORT_TEMPLATE], weights),
        kernels={name: _present(model, [site.weight for site in sites]) for name, model in models.items()},
    )
    real = plan.real_images()
    measured = None
    unchecked: tuple[str, ...] = ()
    require_writable(sum(array.nbytes for array in weights.values()), where)
    with BundleDraft(out, options.overwrite) as draft:
        draft.write_weights(weights, (source.model, *models.values()))
        del weights  # from here on they are read from the file
        with draft.scratch(source.model) as prepared:
            inexact = same_logits(source, prepared, head.activation, real)
        if split is not None and manifest.domain_channels:
            with draft.scratch(plain_statistics(source.model, where)) as graph:
                draft.write_tensors(DOMAIN_CHANNELS, measure_channels(graph, split, manifest))
        if ORT_TRAINING in manifest.backends:
            with draft.writing():
                unchecked = write_ort_artifacts(
                    source.model,
                    sites,
                    manifest.head,
                    manifest.head_capacity,
                    draft.folder / ORT_FOLDER,
                    where,
                )
        draft.write(models, checkpoint, manifest)
        if split is not None:
            # Through the bundle itself, as the device will open it.
            opened = Bundle.open(draft.folder)
            if manifest.precision == INT8:
                manifest = replace(manifest, agreement=tuning.agreement(opened, checkpoint))
            opened = opened.view(providers=providers)
            require_same(opened, checkpoint)
            measured = measure_base(opened, split, checkpoint, on_progress)
            checkpoint.update(measured.tensors)
            if upgraded is not None:
                carrying, described = measure_upgrade(upgraded, Bundle.open(draft.folder), split, on_progress)
                draft.write_tensors(UPGRADE, carrying.tensors())
                manifest = replace(manifest, upgrade=described)
            draft.seal(checkpoint, manifest)
        draft.publish(options.sign)
    metric = objective_of(options.loss).metric
    scaled = pixels_said(options, source) if not manifest.input.is_signal else ()
    about = warnings_about(options, manifest, measured, mixed, bool(scaled))
    warnings = (*source.warnings, *unprotected(options, manifest), *about, *unchecked)
    notes = (*source.notes, *inexact, *scaled)
    accuracy = measured.accuracy if measured is not None else None
    return BuildReport(out, sites, len(manifest.classes), accuracy, plan.agreement, warnings, metric, notes)


def _present(model: ir.Model, names: Iterable[str]) -> tuple[str, ...]:
    """Those of `names` that are tensors of the graph."""
    return tuple(name for name in names if name in model.graph.initializers)
