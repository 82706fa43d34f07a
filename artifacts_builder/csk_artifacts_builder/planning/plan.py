"""What a build comes to, in memory: what `build_artifacts` writes, and `try_model` tells."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from csk_artifacts_builder.analysis.intensity import NewTask, measure_intensity, open_kernel_graph
from csk_artifacts_builder.bundle_writer import large_weights
from csk_artifacts_builder.describe import describe
from csk_artifacts_builder.graphs.binary import as_two_classes
from csk_artifacts_builder.graphs.choice import choose_sites
from csk_artifacts_builder.graphs.domain import domain_channels, domain_model, domain_statistics
from csk_artifacts_builder.graphs.head import SplitHead, split_head
from csk_artifacts_builder.graphs.layer_features import with_features
from csk_artifacts_builder.graphs.losses import require_loss
from csk_artifacts_builder.graphs.models import eval_model, export_template, memory_model, training_model
from csk_artifacts_builder.graphs.prefix import Cut, find_cut
from csk_artifacts_builder.graphs.variants import cut_graphs, in_exact, in_int8
from csk_artifacts_builder.int8.calibrate import (
    Agreement,
    Feeds,
    base_batches,
    base_feeds,
    calibrations,
    level_of,
)
from csk_artifacts_builder.int8.deployed import round_as_deployed
from csk_artifacts_builder.int8.mixed import COMPARED_BATCHES, Mixed, mix
from csk_artifacts_builder.measure.base_knowledge import base_split
from csk_artifacts_builder.measure.conv_shapes import write_conv_shapes
from csk_artifacts_builder.measure.costs import measure_costs
from csk_artifacts_builder.measure.memory import predict_memory, step_memory
from csk_artifacts_builder.measure.verify import noise_for, standard_ops_only
from csk_artifacts_builder.options import BuildOptions
from csk_artifacts_builder.planning.half_range import beyond_half
from csk_artifacts_builder.planning.leveling import leveled
from csk_artifacts_builder.planning.named_output import naming_output
from csk_artifacts_builder.planning.reaching import sites_behind
from csk_artifacts_builder.planning.site_budget import Budget
from csk_artifacts_builder.prepare.model import SourceModel, prepare
from csk_artifacts_builder.sites import find_sites, left_out
from csk_sdk.bundle.folder import center_of, centers_of
from csk_sdk.contract.manifest import (
    CROSS_ENTROPY,
    DOMAIN_MODEL,
    DOMAIN_STATISTICS,
    EVAL_MODEL,
    EXACT,
    EXPORT_TEMPLATE,
    INT8,
    MEMORY_MODEL,
    MOST_FEATURES,
    PORTABLE,
    QUANTISED_TEMPLATE,
    TRAINING_MODEL,
    Candidate,
    LeftOut,
    Manifest,
    ProbeSpec,
    QuantisedLayer,
    Site,
)
from csk_sdk.data.preprocess_signals import preprocessing_of
from csk_sdk.data.tasks import Split, Task
from csk_sdk.errors import ModelError, UnsupportedOpError
from csk_sdk.method.heads import ClassStatistics

# So many images of the base data the source model sees before anything is written.
COMPARED_PICTURES = 8


@dataclass(frozen=True)
class Plan:
    """A build before anything is written.

    - `source`: the prepared model, with the features that were asked for; `own_features`: how many it has of its own
    - `manifest`: complete but for what is known of the files only
    - `models`: every graph by its file's name, the weights in it; `checkpoint`: generation 0 before any base data
    - `split`: the base data, None without; `mixed`: what is in int8, and how near it is to exact, None for exact
    """

    source: SourceModel
    head: SplitHead
    own_features: int
    manifest: Manifest
    models: dict[str, ir.Model]
    checkpoint: dict[str, NDArray[Any]]
    split: Split | None
    mixed: Mixed | None

    @property
    def agreement(self) -> Agreement | None:
        """Of int8 with exact; None for exact."""
        return self.mixed.agreement if self.mixed is not None else None

    def real_images(self) -> NDArray[np.float32] | None:
        """Some of the base data, as the prepared graph takes them."""
        return _real_images(self.manifest, self.split)


def plan_build(model: Path, options: BuildOptions) -> Plan:
    """Everything that `build_artifacts` decides, and the graphs.

    Raises ModelError for a model that cannot be trained (UnsupportedOpError names the op), ConfigError for options that
    do not fit it, TaskError for base data that does not fit.
    """
    prepared = prepare(model, options.output, options.input_size)
    with naming_output(prepared, options.output):
        plain = as_two_classes(prepared, options.loss)
    where = plain.path.name
    possible = find_sites(plain.model, where, options.sites)
    own_features = split_head(plain.model, where).weight.shape[1]
    # Before anything is measured: options that do not fit the model are refused here.
    source, described = _described(plain, possible, options)
    split = _base_split(options, described) if options.base_data else None
    # Not on base images: others would give other powers, and a device that is upgraded other features.
    even = leveled(plain, noise_for(plain, (COMPARED_PICTURES, *described.input.shape)))
    if even is not plain:
        source, described = _described(even, possible, options)
    budget = None
    if options.memory_budget is not None:
        budget = Budget(options.memory_budget, source, split_head(source.model, where), options)
    plan = _planned(source, own_features, possible, options, described, split, budget)
    # What stays in float32 is known of chosen sites only, and takes more than a budget for int8 had counted.
    while budget is not None and plan.mixed is not None and not budget.is_kept(plan.manifest, plan.mixed):
        budget.count(plan.mixed)
        plan = _planned(source, own_features, possible, options, described, split, budget)
    return plan


def _described(
    plain: SourceModel, possible: list[Site], options: BuildOptions
) -> tuple[SourceModel, Manifest]:
    """The prepared model with the features that were asked for, and the manifest that describes it."""
    source = with_features(plain, possible, options.features)
    where = source.path.name
    head = split_head(source.model, where)
    require_loss(options.loss, head.activation, where)
    _require_few_features(head.weight.shape[1], options, where)
    return source, describe(source, head, possible, options)


def _planned(
    source: SourceModel,
    own_features: int,
    possible: list[Site],
    options: BuildOptions,
    described: Manifest,
    split: Split | None,
    budget: Budget | None,
) -> Plan:
    """Sites, graphs and what is known of both."""
    head = split_head(source.model, source.path.name)
    try:
        chosen = _with_sites(source, possible, options, described, budget)
        models = _graphs(source, chosen)
    except UnsupportedOpError as error:
        source, reached = sites_behind(source, possible, options, described, error)
        chosen = _with_sites(source, reached, options, described, budget)
        models = _graphs(source, chosen)
    quantised = _with_quantised(models, source, chosen)
    costs = measure_costs(
        source.model, models.get(TRAINING_MODEL), chosen.sites, len(chosen.classes), chosen.channel_ratio
    )
    checkpoint = _empty_checkpoint(source, head, chosen.sites)
    cut = find_cut(source.model, chosen.sites) if PORTABLE in chosen.backends else None
    if cut is not None and (told := beyond_half(source, cut, _shown(source, chosen, split))):
        source, cut = replace(source, notes=(*source.notes, told)), None
    models, mixed, probe = _in_all_forms(models, source, cut, chosen, split, checkpoint)
    channels = 0
    if split is not None and chosen.loss == CROSS_ENTROPY:
        channels = domain_channels(source.model, source.path.name)
        models |= _domain_graphs(source, chosen)
    manifest = replace(
        chosen,
        **_memory(models, chosen),
        quantised=quantised,
        costs=costs,
        prefix=cut.stored if cut is not None else (),
        precisions=(INT8, EXACT) if mixed is not None else (EXACT,),
        in_float=_in_order(source, mixed.calibration.in_float) if mixed is not None else (),
        probe=probe,
        domain_channels=channels,
    )
    return Plan(source, head, own_features, manifest, models, checkpoint, split, mixed)


def _require_few_features(features: int, options: BuildOptions, where: str) -> None:
    """What is known of classes is matrices of features by features, here and on every device."""
    if features > MOST_FEATURES:
        remedy = " With --features last it has fewer." if options.features != "last" else ""
        raise ModelError(
            f"{where}: the classifier sees {features:,} features of an image, and a bundle has at most "
            f"{MOST_FEATURES:,}: what a device knows of classes would take {8e-9 * features**2:.0f} GB. Take a network "
            f"with a pooling in front of its classifier.{remedy}"
        )


def _with_sites(
    source: SourceModel,
    possible: list[Site],
    options: BuildOptions,
    described: Manifest,
    budget: Budget | None,
) -> Manifest:
    """The described manifest with the sites that the options choose among the possible ones.

    Its candidates are all that it was described with, possible or not.
    """
    order = [str(node.name) for node in source.model.graph]
    intensity = (
        _measure_centers(
            source, replace(described, sites=tuple(possible)), options.intensity_data, options.bit_depth
        )
        if options.intensity_data
        else None
    )
    fits = budget.holds if budget is not None else None
    choice = choose_sites(possible, options.trainable, order, source.path.name, intensity, fits)
    if budget is not None and not choice.sites:
        raise budget.too_small(possible[-1])
    return replace(
        described,
        sites=tuple(choice.sites),
        candidates=_candidates(described.sites, choice.sites, intensity or {}),
        choice=choice.reason,
        left_out=_left_out(source, options.sites),
    )


def _left_out(source: SourceModel, kinds: str) -> tuple[LeftOut, ...]:
    """The prepared graph's convolutions that are no sites, and those of the file that it lacks, in the file's order."""
    gone = (LeftOut(one.node, str(one.gone)) for one in source.facts.gone)
    order = [one.node for one in source.facts.convolutions]
    found = (*left_out(source.model, kinds), *gone)
    return tuple(sorted(found, key=lambda one: order.index(one.node) if one.node in order else len(order)))


def _real_images(manifest: Manifest, split: Split | None) -> NDArray[np.float32] | None:
    if split is None:
        return None
    return next(base_batches(manifest, split))[0][:COMPARED_PICTURES]


def _shown(source: SourceModel, manifest: Manifest, split: Split | None) -> NDArray[np.float32]:
    """What activations are measured on: some of the base data, or noise where there are none."""
    real = _real_images(manifest, split)
    return real if real is not None else noise_for(source, (COMPARED_PICTURES, *manifest.input.shape))


def _memory(models: Mapping[str, ir.Model], chosen: Manifest) -> dict[str, Any]:
    """The manifest's fields of what learning takes, of the portable step where there is one."""
    if TRAINING_MODEL not in models:
        return {}
    training, sites, classes = models[TRAINING_MODEL], chosen.sites, len(chosen.classes)
    batch, features, int8 = chosen.batch_size, chosen.head.features, chosen.precision == INT8
    memory = predict_memory(training, sites, features, classes, batch, int8)
    return {"memory": memory, "step_memory": step_memory(training, sites, classes, batch, memory)}


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
    # Of a whole kernel, over all positions.
    return {
        site.name: float(values[site.name].mean() if site.whole else values[site.name][center_of(site)[2:]])
        for site in sites
    }


def _in_all_forms(
    models: dict[str, ir.Model],
    source: SourceModel,
    cut: Cut | None,
    manifest: Manifest,
    split: Split | None,
    checkpoint: dict[str, NDArray[Any]],
) -> tuple[dict[str, ir.Model], Mixed | None, ProbeSpec | None]:
    """All graphs but the export templates cut in front of the first site, and in the precisions of the bundle.

    With int8, what is in it and how close it comes to exact, and what a device is to try it with.
    """
    templates = {name: models.pop(name) for name in (EXPORT_TEMPLATE, QUANTISED_TEMPLATE) if name in models}
    if cut is not None:
        models |= cut_graphs(source.model, models, cut)
    mixed = probe = None
    if manifest.precision == INT8 and split is not None:
        head, training = manifest.head.weight, models[TRAINING_MODEL]

        def feeds() -> Iterator[Feeds]:
            return base_feeds(manifest, split, checkpoint)

        mixed = mix(training, calibrations(training, feeds(), head), feeds, manifest)
        probe = level_of(list(islice(feeds(), COMPARED_BATCHES)))
        models = in_int8(models, mixed.calibration, feeds, head)
    else:
        models = in_exact(models)
    for model in models.values():
        write_conv_shapes(model)
    return {**models, **templates}, mixed, probe


def _in_order(source: SourceModel, names: Collection[str]) -> tuple[str, ...]:
    """Those of the network's convolutions that `names` has, as they follow each other."""
    return tuple(str(node.name) for node in source.model.graph if node.name in names)


def _candidates(
    possible: Sequence[Site], sites: Sequence[Site], intensity: Mapping[str, float]
) -> tuple[Candidate, ...]:
    chosen = {site.name for site in sites}
    return tuple(
        Candidate(site.name, site.shape, site.name in chosen, intensity.get(site.name)) for site in possible
    )


def _graphs(source: SourceModel, chosen: Manifest) -> dict[str, ir.Model]:
    where, head, sites = source.path.name, chosen.head, chosen.sites
    models = {}
    if PORTABLE in chosen.backends:
        models[TRAINING_MODEL] = training_model(source.model, sites, head, where, chosen.loss)
    models[EVAL_MODEL] = eval_model(source.model, sites, head, where)
    models[MEMORY_MODEL] = memory_model(source.model, sites, head, where)
    models[EXPORT_TEMPLATE] = export_template(source.model, head, where, source.interface, chosen.loss)
    for name, model in models.items():
        standard_ops_only(name, model)
    return models


def _domain_graphs(source: SourceModel, chosen: Manifest) -> dict[str, ir.Model]:
    """What images of another domain are seen through, in float32 in any bundle."""
    where = source.path.name
    models = {
        DOMAIN_MODEL: domain_model(source.model, chosen.head, where),
        DOMAIN_STATISTICS: domain_statistics(source.model, where),
    }
    for name, model in models.items():
        standard_ops_only(name, model)
        write_conv_shapes(model)
    return models


def _with_quantised(
    models: dict[str, ir.Model], source: SourceModel, chosen: Manifest
) -> tuple[QuantisedLayer, ...]:
    """Add the export template in int8 to `models` where the source has such a form; its layers."""
    if source.quantised is None:
        return ()
    template = export_template(source.model, chosen.head, source.path.name, source.interface, chosen.loss)
    layers = round_as_deployed(template, source.quantised, chosen.head)
    if layers:
        standard_ops_only(QUANTISED_TEMPLATE, template)
        models[QUANTISED_TEMPLATE] = template
    return layers


def _empty_checkpoint(source: SourceModel, head: SplitHead, sites: Sequence[Site]) -> dict[str, NDArray[Any]]:
    """Generation 0 before any base data: centers and head of the source model, nothing protected."""
    weights = large_weights(source.model, sites)
    checkpoint: dict[str, NDArray[Any]] = {"head/base/weight": head.weight, "head/base/bias": head.bias}
    for site in sites:
        checkpoint[f"center/{site.name}"] = centers_of(weights[site.weight], site)
        checkpoint[f"moment/{site.name}"] = np.zeros((site.groups, site.width, site.width), np.float32)
    checkpoint.update(ClassStatistics.empty(head.weight.shape[1]).tensors())
    return checkpoint
