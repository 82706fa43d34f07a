"""`build_artifacts`: from a trained ONNX classifier to a bundle. Read it top to bottom."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from csk_artifacts_builder.base_knowledge import base_split, measure_base
from csk_artifacts_builder.bundle_writer import BundleDraft, large_weights
from csk_artifacts_builder.choice import choose_sites
from csk_artifacts_builder.costs import measure_costs
from csk_artifacts_builder.graphs import eval_model, export_template, memory_model, training_model
from csk_artifacts_builder.head import SplitHead, split_head
from csk_artifacts_builder.intensity import NewTask, measure_intensity, open_kernel_graph
from csk_artifacts_builder.losses import require_loss
from csk_artifacts_builder.ort_training import head_capacity, write_ort_artifacts
from csk_artifacts_builder.prepare import SourceModel, prepare
from csk_artifacts_builder.sites import CENTER, find_sites
from csk_artifacts_builder.verify import same_logits, standard_ops_only
from csk_sdk.bundle import Bundle, center_of
from csk_sdk.data.preprocess_signals import preprocessing_of
from csk_sdk.data.tasks import Task
from csk_sdk.errors import ConfigError
from csk_sdk.manifest import (
    BACKENDS,
    CROSS_ENTROPY,
    EVAL_MODEL,
    EXPORT_TEMPLATE,
    MEMORY_MODEL,
    MSE,
    ORT_FOLDER,
    ORT_TRAINING,
    PICTURE_SCALE,
    PORTABLE,
    SIGNAL_SCALE,
    TRAINING_MODEL,
    Candidate,
    Head,
    InputSpec,
    Manifest,
    PreprocessingSpec,
    Site,
)
from csk_sdk.method.heads import ClassStatistics
from csk_sdk.objectives import objective_of
from csk_sdk.runtime import require_training_package
from csk_sdk.version import __version__

# What `--backend` may say, and what is then built.
BACKEND_CHOICES = {**{name: (name,) for name in BACKENDS}, "both": BACKENDS}
_UNNORMALISED = {
    "pictures": "pixels are only scaled to 0..1",
    "signals": "int16 samples are only scaled to -1..1, and floats are taken as they are",
}


@dataclass(frozen=True)
class BuildOptions:
    """What `build-artifacts` can be told.

    `classes` are the model's class names in label order (numbered when None). `mean` and `std` have one number per
    channel, in units of the scaled pixel `x / 255`, or of samples from -1 to 1; (0, 1) when None. `resize` is
    "bilinear" (pictures), "crop" (signals) or "none", the first that fits when None. `flip` is on for pictures when
    None. `sample_rate` is that of the model's signals in Hz. `trainable` is "auto", "all" or "from:NODE", of the
    convolutions that `sites` names ("center", "1x1" or "all"). `intensity_data` is a task of new classes to measure
    their knowledge intensity on.
    `loss` is one of csk_artifacts_builder.losses; for "mse", `classes` are the targets' names.
    `backend` is "portable", "ort-training" or "both"; `head_capacity` the most classes that a task may have with
    ort-training (128, or as many as the base has, when None).
    """

    classes: Sequence[str] | None = None
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    resize: str | None = None
    flip: bool | None = None
    sample_rate: int | None = None
    sites: str = CENTER
    trainable: str = "auto"
    intensity_data: Path | None = None
    channel_ratio: float = 0.25
    batch_size: int = 16
    loss: str = CROSS_ENTROPY
    base_data: Path | None = None
    backend: str = PORTABLE
    head_capacity: int | None = None
    overwrite: bool = False


@dataclass(frozen=True)
class BuildReport:
    """What was built, and what its user should know.

    `base_accuracy` is in percent, None without base data; `metric` says what it is where it is no accuracy.
    """

    bundle: Path
    sites: tuple[Site, ...]
    classes: int
    base_accuracy: float | None
    warnings: tuple[str, ...] = field(default=())
    metric: str = "accuracy"


def build_artifacts(
    model: Path | str,
    out: Path | str,
    options: BuildOptions | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> BuildReport:
    """Turn a trained ONNX classifier into a bundle.

    Raises ModelError for a model that cannot be trained (UnsupportedOpError names the op), TaskError for base data
    that does not fit, StorageError when `out` cannot be written. A failed build leaves nothing behind.
    """
    options = options or BuildOptions()
    source = prepare(Path(model))
    head = split_head(source.model, source.path.name)
    require_loss(options.loss, head.activation, source.path.name)
    order = [str(node.name) for node in source.model.graph]
    possible = find_sites(source.model, source.path.name, options.sites)
    intensity = _measure_centers(source, head, possible, options) if options.intensity_data else None
    choice = choose_sites(possible, options.trainable, order, source.path.name, intensity)
    sites = choice.sites
    manifest = replace(
        describe(source, head, sites, options),
        candidates=_candidates(possible, sites, intensity or {}),
        choice=choice.reason,
    )
    split = base_split(options.base_data, manifest.classes, options.loss) if options.base_data else None
    models = _graphs(source, sites, manifest)
    training = models.get(TRAINING_MODEL)
    costs = measure_costs(source.model, training, sites, len(manifest.classes), options.channel_ratio)
    same_logits(onnx.load(str(source.path)), source.model, source.interface)
    # The head's tensors are in no graph: they live in the checkpoint.
    weights = {
        name: array
        for name, array in large_weights(source.model, sites).items()
        if any(name in model.graph.initializers for model in models.values())
    }
    manifest = replace(
        manifest,
        weights_in_export=_present(models[EXPORT_TEMPLATE], weights),
        costs=costs,
        kernels={name: _present(model, [site.weight for site in sites]) for name, model in models.items()},
    )
    checkpoint = _empty_checkpoint(source, head, sites)
    accuracy = None
    with BundleDraft(Path(out), options.overwrite) as draft:
        draft.write(models, weights, checkpoint, manifest)
        if ORT_TRAINING in manifest.backends:
            with draft.writing():
                write_ort_artifacts(
                    source.model, sites, manifest.head, manifest.head_capacity,
                    draft.folder / ORT_FOLDER, source.path.name,
                )  # fmt: skip
            draft.seal(checkpoint, manifest)
        if split is not None:
            # Through the bundle itself, as the device will open it.
            measured = measure_base(Bundle.open(draft.folder), split, checkpoint, on_progress)
            checkpoint.update(measured.tensors)
            accuracy = measured.accuracy
            draft.seal(checkpoint, manifest)
        draft.publish()
    metric = objective_of(options.loss).metric
    warnings = _warnings(options, manifest, accuracy)
    return BuildReport(Path(out), tuple(sites), len(manifest.classes), accuracy, warnings, metric)


def _measure_centers(
    source: SourceModel, head: SplitHead, sites: Sequence[Site], options: BuildOptions
) -> dict[str, float]:
    """The knowledge intensity of every site's center on `intensity_data`, by site name."""
    assert options.intensity_data is not None
    manifest = describe(source, head, sites, options)
    task = Task.open(options.intensity_data)
    task.require_trainable()
    assert task.train is not None
    data = NewTask(task.train, preprocessing_of(manifest), len(task.classes))
    with open_kernel_graph(source.model, sites, manifest.head, source.path.name) as graph:
        values = measure_intensity(graph, data).values
    return {
        site.name: float(values[site.name][tuple(size // 2 for size in site.shape[2:])]) for site in sites
    }


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


def describe(source: SourceModel, head: SplitHead, sites: Sequence[Site], options: BuildOptions) -> Manifest:
    """The manifest of a bundle with these sites, as far as the options and the model say it.

    Raises ConfigError for options that do not fit the model.
    """
    count, features = head.weight.shape
    classes = tuple(options.classes) if options.classes is not None else tuple(str(i) for i in range(count))
    if len(classes) != count:
        raise ConfigError(f"--classes has {len(classes)} names, but {source.path.name} has {count} outputs.")
    if len(set(classes)) != count:
        raise ConfigError("--classes has the same name twice; every class needs its own.")
    if not 0.0 < options.channel_ratio <= 1.0:
        raise ConfigError(f"--channel-ratio is {options.channel_ratio}; it must be above 0 and at most 1.")
    if options.batch_size < 1:
        raise ConfigError(f"--batch-size is {options.batch_size}; it must be 1 or more.")
    backends = _backends(options.backend, options.loss)
    shape = source.image.shape
    assert shape is not None
    channels, *size = (int(dim) for dim in list(shape)[1:])  # type: ignore[arg-type]
    given = InputSpec("image", channels, tuple(size))
    if options.flip and given.is_signal:
        raise ConfigError(f"--flip is for pictures, and {source.path.name} takes signals: leave it out.")
    return Manifest(
        model=source.path.name,
        classes=classes,
        input=given,
        preprocessing=_preprocessing(options, given, source.path.name),
        head=Head(features=features, source_weight=head.weight_name, source_bias=head.bias_name),
        sites=tuple(sites),
        base_protected=options.base_data is not None,
        channel_ratio=options.channel_ratio,
        batch_size=options.batch_size,
        flip=not given.is_signal if options.flip is None else options.flip,
        loss=options.loss,
        backends=backends,
        head_capacity=head_capacity(options.head_capacity, count) if ORT_TRAINING in backends else 0,
        producer=f"csk-sdk {__version__}",
    )


def _backends(choice: str, loss: str) -> tuple[str, ...]:
    if choice not in BACKEND_CHOICES:
        raise ConfigError(f"--backend is '{choice}'; it must be {', '.join(BACKENDS)} or both.")
    backends = BACKEND_CHOICES[choice]
    if ORT_TRAINING in backends:
        if loss != CROSS_ENTROPY:
            raise ConfigError(
                f"--backend {choice} trains with the loss {CROSS_ENTROPY} only, and --loss is {loss}: build with "
                f"--backend {PORTABLE}."
            )
        require_training_package()
    return backends


def _preprocessing(options: BuildOptions, given: InputSpec, model: str) -> PreprocessingSpec:
    channels = given.channels
    mean = tuple(options.mean) if options.mean is not None else (0.0,) * channels
    std = tuple(options.std) if options.std is not None else (1.0,) * channels
    for name, values in (("--mean", mean), ("--std", std)):
        if len(values) != channels:
            raise ConfigError(
                f"{name} has {len(values)} numbers, but the model's input has {channels} channels."
            )
    if any(value <= 0 for value in std):
        raise ConfigError(f"--std is {std}; every number must be above 0.")
    ways = ("crop", "none") if given.is_signal else ("bilinear", "none")
    resize = options.resize or ways[0]
    if resize not in ways:
        raise ConfigError(
            f"--resize is '{resize}'; {model} takes {given.noun}s, so it must be {' or '.join(ways)}."
        )
    rate = options.sample_rate
    if rate is not None and not given.is_signal:
        raise ConfigError(f"--sample-rate is for signals, and {model} takes pictures: leave it out.")
    if rate is not None and rate < 1:
        raise ConfigError(f"--sample-rate is {rate}; it must be 1 Hz or more.")
    scale = SIGNAL_SCALE if given.is_signal else PICTURE_SCALE
    return PreprocessingSpec(mean=mean, std=std, scale=scale, resize=resize, sample_rate=rate)


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


def _warnings(options: BuildOptions, manifest: Manifest, accuracy: float | None) -> tuple[str, ...]:
    found = []
    kind = f"{manifest.input.noun}s"
    objective = objective_of(manifest.loss)
    if options.base_data is None and objective.tabular:
        found.append(
            "what the model knows is UNPROTECTED: without --base-data the device will forget it. Pass a folder with "
            f"some {kind} of it and their labels in a metadata.csv."
        )
    elif options.base_data is None:
        found.append(
            "the base classes are UNPROTECTED: without --base-data the device will forget them, and cannot weigh "
            f"them against new classes. Pass a folder with some {kind} of each base class."
        )
    if options.mean is None or options.std is None:
        found.append(
            f"no --mean/--std given: {_UNNORMALISED[kind]}. If the model was trained on normalised "
            f"{kind}, pass the same numbers here."
        )
    if options.loss == MSE and manifest.flip:
        found.append(
            "pictures will be mirrored at random while training: pass --no-flip if a mirrored picture has other values."
        )
    if accuracy is not None and accuracy < objective.suspicious:
        reached = (
            f"the model gets only {accuracy:.1f} % of the base data right"
            if objective.metric == "accuracy"
            else f"the model's {objective.metric} on the base data is only {accuracy:.1f} %"
        )
        found.append(f"{reached}: check --mean/--std and the order of --classes.")
    return tuple(found)
