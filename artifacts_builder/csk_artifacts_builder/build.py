"""`build_artifacts`: from a trained ONNX classifier to a bundle. Read it top to bottom."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from csk_artifacts_builder.analysis.intensity import NewTask, measure_intensity, open_kernel_graph
from csk_artifacts_builder.bundle_writer import BundleDraft, large_weights
from csk_artifacts_builder.describe import describe, pixels_said, warnings_about
from csk_artifacts_builder.graphs.binary import as_two_classes
from csk_artifacts_builder.graphs.choice import AUTO, choose_sites
from csk_artifacts_builder.graphs.head import SplitHead, split_head
from csk_artifacts_builder.graphs.layer_features import with_features
from csk_artifacts_builder.graphs.losses import require_loss
from csk_artifacts_builder.graphs.models import eval_model, export_template, memory_model, training_model
from csk_artifacts_builder.graphs.prefix import Cut, find_cut
from csk_artifacts_builder.graphs.variants import cut_graphs, in_exact, in_int8
from csk_artifacts_builder.int8.calibrate import Agreement, base_feeds, compare
from csk_artifacts_builder.measure.base_knowledge import base_split, measure_base
from csk_artifacts_builder.measure.conv_shapes import write_conv_shapes
from csk_artifacts_builder.measure.costs import measure_costs
from csk_artifacts_builder.measure.feature_map import bundle_to_upgrade, measure_upgrade
from csk_artifacts_builder.measure.memory import predict_memory, step_memory
from csk_artifacts_builder.measure.verify import same_logits, standard_ops_only
from csk_artifacts_builder.options import BuildOptions
from csk_artifacts_builder.ort.artifacts import write_ort_artifacts
from csk_artifacts_builder.prepare.model import SourceModel, prepare
from csk_artifacts_builder.prepare.source_file import require_writable
from csk_artifacts_builder.site_budget import Budget
from csk_artifacts_builder.sites import find_sites, left_out
from csk_sdk.bundle.folder import Bundle, center_of
from csk_sdk.bundle.signing import private_key
from csk_sdk.contract.manifest import (
    EVAL_MODEL,
    EXACT,
    EXPORT_TEMPLATE,
    INT8,
    MEMORY_MODEL,
    MOST_FEATURES,
    ORT_FOLDER,
    ORT_TRAINING,
    PORTABLE,
    TRAINING_MODEL,
    UPGRADE,
    Candidate,
    Manifest,
    Site,
    exact_twin,
)
from csk_sdk.data.preprocess_signals import preprocessing_of
from csk_sdk.data.tasks import Split, Task
from csk_sdk.device import tuning
from csk_sdk.device.comparing import require_same
from csk_sdk.errors import ModelError, UnsupportedOpError
from csk_sdk.method.heads import ClassStatistics
from csk_sdk.objectives import objective_of
from csk_sdk.runtime.allocator import returning_memory
from csk_sdk.runtime.providers import find_providers

COMPARED_BATCHES = 4
# So many images of the base data the source model sees before anything is written.
COMPARED_PICTURES = 8


@dataclass(frozen=True)
class BuildReport:
    """What was built, and what its user should know. Immutable.

    - `bundle`: the folder, `sites`: the convolutions that learn, `classes`: how many the model knows
    - `base_accuracy`: in percent on the base data, None without; `metric` says what it is where it is no accuracy
    - `agreement`: int8 compared with exact: `logits`, a relative error, and `gradients`, a cosine for each site; None
      for exact
    - `warnings`: sentences about what its user should mend, or know
    """

    bundle: Path
    sites: tuple[Site, ...]
    classes: int
    base_accuracy: float | None
    agreement: Agreement | None = None
    warnings: tuple[str, ...] = field(default=())
    metric: str = "accuracy"


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
    if options.sign is not None:
        private_key(options.sign)  # now, and not when an hour of measuring is over
    with returning_memory():
        return _build(Path(model), Path(out), options, on_progress)


def _build(
    model: Path, out: Path, options: BuildOptions, on_progress: Callable[[int, int], None]
) -> BuildReport:
    providers = find_providers(options.provider and [options.provider], "--provider")
    source = as_two_classes(prepare(model, options.output, options.input_size), options.loss)
    where = source.path.name
    possible = find_sites(source.model, where, options.sites)
    source = with_features(source, possible, options.features)
    head = split_head(source.model, where)
    require_loss(options.loss, head.activation, where)
    _require_few_features(head.weight.shape[1], options, where)
    split = _base_split(options, describe(source, head, possible, options)) if options.base_data else None
    upgraded = bundle_to_upgrade(options.upgrade_from, options.base_data)
    try:
        manifest, sites = _with_sites(source, head, possible, options)
        models = _graphs(source, sites, manifest)
    except UnsupportedOpError as error:
        source, reached = _behind(source, head, possible, options, error)
        manifest, sites = _with_sites(source, head, reached, options, possible)
        models = _graphs(source, sites, manifest)
    costs = measure_costs(
        source.model, models.get(TRAINING_MODEL), sites, len(manifest.classes), manifest.channel_ratio
    )
    checkpoint = _empty_checkpoint(source, head, sites)
    cut = find_cut(source.model, sites) if PORTABLE in manifest.backends else None
    models, agreement = _in_all_forms(models, source, cut, manifest, split, checkpoint)
    manifest = replace(
        _with_memory(models, manifest),
        costs=costs,
        prefix=cut.shape if cut is not None else (),
        precisions=(INT8, EXACT) if agreement is not None else (EXACT,),
    )
    # The head's tensors are in no graph: they live in the checkpoint.
    weights = {
        name: array
        for name, array in large_weights(source.model, sites).items()
        if any(name in model.graph.initializers for model in models.values())
    }
    manifest = replace(
        manifest,
        weights_in_export=_present(models[EXPORT_TEMPLATE], weights),
        kernels={name: _present(model, [site.weight for site in sites]) for name, model in models.items()},
    )
    real = next(base_feeds(manifest, split, checkpoint))["image"][:COMPARED_PICTURES] if split else None
    accuracy = None
    unchecked: tuple[str, ...] = ()
    exchanged: tuple[str, ...] = ()
    require_writable(sum(array.nbytes for array in weights.values()), where)
    with BundleDraft(out, options.overwrite) as draft:
        draft.write_weights(weights, (source.model, *models.values()))
        del weights  # from here on they are read from the file
        with draft.scratch(source.model) as prepared:
            same_logits(source, prepared, head.activation, real)
        draft.write(models, checkpoint, manifest)
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
            draft.seal(checkpoint, manifest)
        if split is not None:
            # Through the bundle itself, as the device will open it.
            opened = Bundle.open(draft.folder)
            if manifest.precision == INT8:
                manifest = replace(manifest, agreement=tuning.agreement(opened, checkpoint))
            opened = opened.view(providers=providers)
            require_same(opened, checkpoint)
            measured = measure_base(opened, split, checkpoint, on_progress)
            checkpoint.update(measured.tensors)
            accuracy, exchanged = measured.accuracy, measured.exchanged
            if upgraded is not None:
                carrying, described = measure_upgrade(upgraded, Bundle.open(draft.folder), split, on_progress)
                draft.write_tensors(UPGRADE, carrying.tensors())
                manifest = replace(manifest, upgrade=described)
            draft.seal(checkpoint, manifest)
        draft.publish(options.sign)
    metric = objective_of(options.loss).metric
    scaled = pixels_said(options, source) if not manifest.input.is_signal else ()
    about = warnings_about(options, manifest, accuracy, agreement, exchanged, bool(scaled))
    warnings = (*source.warnings, *scaled, *about, *unchecked)
    return BuildReport(out, tuple(sites), len(manifest.classes), accuracy, agreement, warnings, metric)


def _require_few_features(features: int, options: BuildOptions, where: str) -> None:
    """What is known of classes is matrices of features by features, here and on every device."""
    if features > MOST_FEATURES:
        remedy = " With --features last it has fewer." if options.features != "last" else ""
        raise ModelError(
            f"{where}: the classifier sees {features:,} features of an image, and a bundle has at most "
            f"{MOST_FEATURES:,}: what a device knows of classes would take {8e-9 * features**2:.0f} GB. Take a network "
            f"with a pooling in front of its classifier.{remedy}"
        )


def _behind(
    source: SourceModel,
    head: SplitHead,
    possible: list[Site],
    options: BuildOptions,
    error: UnsupportedOpError,
) -> tuple[SourceModel, list[Site]]:
    """With `--trainable auto`, the sites behind the last op that has no gradient rule, and the source with a warning.

    Raises `error` where another choice was asked for, or none lies behind.
    """
    manifest = describe(source, head, possible, options)
    low, high = 1, len(possible)
    while low < high:
        middle = (low + high) // 2
        if _is_differentiable(source, possible[middle:], manifest):
            high = middle
        else:
            low = middle + 1
    reached = possible[low:]
    if options.trainable != AUTO or not reached:
        raise error
    reason = str(error).split(". Train only later layers")[0]
    said = f"{reason}: --trainable auto trains what lies behind it, from node '{reached[0].node}' on."
    return replace(source, warnings=(*source.warnings, said)), reached


def _is_differentiable(source: SourceModel, sites: Sequence[Site], manifest: Manifest) -> bool:
    try:
        training_model(source.model, sites, manifest.head, source.path.name, manifest.loss)
    except UnsupportedOpError:
        return False
    return True


def _with_sites(
    source: SourceModel,
    head: SplitHead,
    possible: list[Site],
    options: BuildOptions,
    candidates: list[Site] | None = None,
) -> tuple[Manifest, list[Site]]:
    """The manifest with the sites that the options choose among the possible ones, and these.

    `candidates` are those that the manifest names, the possible ones if None.
    """
    where = source.path.name
    # Before anything is measured: options that do not fit the model are refused here.
    manifest = describe(source, head, possible, options)
    order = [str(node.name) for node in source.model.graph]
    intensity = (
        _measure_centers(source, manifest, options.intensity_data, options.bit_depth)
        if options.intensity_data
        else None
    )
    budget = (
        Budget(options.memory_budget, source, head, options) if options.memory_budget is not None else None
    )
    fits = budget.holds if budget is not None else None
    choice = choose_sites(possible, options.trainable, order, where, intensity, fits)
    if budget is not None and not choice.sites:
        raise budget.too_small(possible[-1])
    manifest = replace(
        manifest,
        sites=tuple(choice.sites),
        candidates=_candidates(candidates or possible, choice.sites, intensity or {}),
        choice=choice.reason,
        left_out=left_out(source.model, options.sites),
    )
    return manifest, choice.sites


def _with_memory(models: Mapping[str, ir.Model], manifest: Manifest) -> Manifest:
    """The manifest with what learning takes, of the portable step where there is one."""
    if TRAINING_MODEL not in models:
        return manifest
    training, sites, classes = models[TRAINING_MODEL], manifest.sites, len(manifest.classes)
    batch = manifest.batch_size
    memory = predict_memory(
        training,
        sites,
        manifest.head.features,
        classes,
        batch,
        manifest.precision == INT8,
    )
    return replace(manifest, memory=memory, step_memory=step_memory(training, sites, classes, batch))


def _base_split(options: BuildOptions, manifest: Manifest) -> Split:
    assert options.base_data is not None
    return base_split(options.base_data, manifest.classes, options.loss, options.bit_depth)


def _measure_centers(
    source: SourceModel, manifest: Manifest, folder: Path, bit_depth: int | None
) -> dict[str, float]:
    """The knowledge intensity of every site's center on the task in `folder`, by site name."""
    task = Task.open(folder, bit_depth)
    task.require_trainable()
    assert task.train is not None
    sites = manifest.sites
    data = NewTask(task.train, preprocessing_of(manifest), len(task.classes))
    with open_kernel_graph(source.model, sites, manifest.head, source.path.name) as graph:
        values = measure_intensity(graph, data).values
    return {
        site.name: float(values[site.name][tuple(size // 2 for size in site.shape[2:])]) for site in sites
    }


def _in_all_forms(
    models: dict[str, ir.Model],
    source: SourceModel,
    cut: Cut | None,
    manifest: Manifest,
    split: Split | None,
    checkpoint: dict[str, NDArray[Any]],
) -> tuple[dict[str, ir.Model], Agreement | None]:
    """All graphs but the export template cut in front of the first site, and in the precisions of the bundle."""
    template = models.pop(EXPORT_TEMPLATE)
    if cut is not None:
        models |= cut_graphs(source.model, models, cut)
    agreement = None
    if manifest.precision == INT8 and split is not None:
        models = in_int8(models, lambda: base_feeds(manifest, split, checkpoint), manifest.head.weight)
        few = list(islice(base_feeds(manifest, split, checkpoint), COMPARED_BATCHES))
        agreement = compare(models[exact_twin(TRAINING_MODEL)], models[TRAINING_MODEL], few, manifest)
    else:
        models = in_exact(models)
    for model in models.values():
        write_conv_shapes(model)
    return {**models, EXPORT_TEMPLATE: template}, agreement


def _candidates(
    possible: Sequence[Site], sites: Sequence[Site], intensity: Mapping[str, float]
) -> tuple[Candidate, ...]:
    chosen = {site.name for site in sites}
    return tuple(
        Candidate(site.name, site.shape, site.name in chosen, intensity.get(site.name)) for site in possible
    )


def _graphs(source: SourceModel, sites: Sequence[Site], manifest: Manifest) -> dict[str, ir.Model]:
    where, head = source.path.name, manifest.head
    models = {}
    if PORTABLE in manifest.backends:
        models[TRAINING_MODEL] = training_model(source.model, sites, head, where, manifest.loss)
    models[EVAL_MODEL] = eval_model(source.model, sites, head, where)
    models[MEMORY_MODEL] = memory_model(source.model, sites, head, where)
    models[EXPORT_TEMPLATE] = export_template(source.model, head, where, source.interface)
    for name, model in models.items():
        standard_ops_only(name, model)
    return models


def _empty_checkpoint(source: SourceModel, head: SplitHead, sites: Sequence[Site]) -> dict[str, NDArray[Any]]:
    """Generation 0 before any base data: centers and head of the source model, nothing protected."""
    weights = large_weights(source.model, sites)
    checkpoint: dict[str, NDArray[Any]] = {"head/base/weight": head.weight, "head/base/bias": head.bias}
    for site in sites:
        checkpoint[f"center/{site.name}"] = np.ascontiguousarray(weights[site.weight][center_of(site)])
        checkpoint[f"moment/{site.name}"] = np.zeros((site.groups, site.shape[1], site.shape[1]), np.float32)
    checkpoint.update(ClassStatistics.empty(head.weight.shape[1]).tensors())
    return checkpoint


def _present(model: ir.Model, names: Iterable[str]) -> tuple[str, ...]:
    """Those of `names` that are tensors of the graph."""
    return tuple(name for name in names if name in model.graph.initializers)
