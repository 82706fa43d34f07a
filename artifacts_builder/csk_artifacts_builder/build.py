"""`build_artifacts`: from a trained ONNX classifier to a bundle. Read it top to bottom."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from csk_artifacts_builder.base_knowledge import base_split, measure_base
from csk_artifacts_builder.bundle_writer import BundleDraft, large_weights
from csk_artifacts_builder.costs import measure_costs
from csk_artifacts_builder.graphs import eval_model, export_template, memory_model, training_model
from csk_artifacts_builder.head import SplitHead, split_head
from csk_artifacts_builder.prepare import SourceModel, prepare
from csk_artifacts_builder.sites import choose_sites, find_sites
from csk_artifacts_builder.verify import same_logits, standard_ops_only
from csk_sdk.bundle import Bundle, center_of
from csk_sdk.errors import ConfigError
from csk_sdk.manifest import (
    EVAL_MODEL,
    EXPORT_TEMPLATE,
    MEMORY_MODEL,
    TRAINING_MODEL,
    Head,
    InputSpec,
    Manifest,
    PreprocessingSpec,
    Site,
)
from csk_sdk.method.heads import ClassStatistics
from csk_sdk.signing import private_key
from csk_sdk.version import __version__

# Below this accuracy on its own training classes, pictures or label order are more likely wrong than the model.
SUSPICIOUS_ACCURACY = 50.0


@dataclass(frozen=True)
class BuildOptions:
    """What `build-artifacts` can be told.

    `classes` are the model's class names in label order (numbered when None). `mean` and `std` have one number per
    channel, in units of the scaled pixel `x / 255`; (0, 1) when None. `trainable` is "auto", "all" or "from:NODE".
    `sign` is a PEM file with an ed25519 private key, for devices that trust only its holder.
    """

    classes: Sequence[str] | None = None
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    resize: str = "bilinear"
    flip: bool = True
    trainable: str = "auto"
    channel_ratio: float = 0.25
    batch_size: int = 16
    base_data: Path | None = None
    overwrite: bool = False
    sign: Path | None = None


@dataclass(frozen=True)
class BuildReport:
    """What was built, and what its user should know. `base_accuracy` is in percent, None without base data."""

    bundle: Path
    sites: tuple[Site, ...]
    classes: int
    base_accuracy: float | None
    warnings: tuple[str, ...] = field(default=())


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
    if options.sign is not None:
        private_key(options.sign)  # now, and not when an hour of measuring is over
    source = prepare(Path(model))
    head = split_head(source.model, source.path.name)
    order = [str(node.name) for node in source.model.graph]
    sites = choose_sites(
        find_sites(source.model, source.path.name), options.trainable, order, source.path.name
    )
    manifest = _manifest(source, head, sites, options)
    split = base_split(options.base_data, manifest.classes) if options.base_data else None
    models = _graphs(source, sites, manifest.head)
    training = models[TRAINING_MODEL]
    costs = measure_costs(source.model, training, sites, len(manifest.classes), options.channel_ratio)
    same_logits(onnx.load(str(source.path)), source.model)
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
        if split is not None:
            # Through the bundle itself, as the device will open it.
            measured = measure_base(Bundle.open(draft.folder), split, checkpoint, on_progress)
            checkpoint.update(measured.tensors)
            accuracy = measured.accuracy
            draft.seal(checkpoint, manifest)
        draft.publish(options.sign)
    return BuildReport(Path(out), tuple(sites), len(manifest.classes), accuracy, _warnings(options, accuracy))


def _graphs(source: SourceModel, sites: Sequence[Site], head: Head) -> dict[str, ir.Model]:
    where = source.path.name
    models = {
        TRAINING_MODEL: training_model(source.model, sites, head, where),
        EVAL_MODEL: eval_model(source.model, sites, head, where),
        MEMORY_MODEL: memory_model(source.model, sites, head, where),
        EXPORT_TEMPLATE: export_template(source.model, head, where),
    }
    for name, model in models.items():
        standard_ops_only(name, model)
    return models


def _manifest(source: SourceModel, head: SplitHead, sites: Sequence[Site], options: BuildOptions) -> Manifest:
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
    shape = source.image.shape
    assert shape is not None
    channels, height, width = (int(dim) for dim in list(shape)[1:])  # type: ignore[arg-type]
    return Manifest(
        model=source.path.name,
        classes=classes,
        input=InputSpec("image", channels, height, width),
        preprocessing=_preprocessing(options, channels),
        head=Head(features=features, source_weight=head.weight_name, source_bias=head.bias_name),
        sites=tuple(sites),
        base_protected=options.base_data is not None,
        channel_ratio=options.channel_ratio,
        batch_size=options.batch_size,
        flip=options.flip,
        producer=f"csk-sdk {__version__}",
    )


def _preprocessing(options: BuildOptions, channels: int) -> PreprocessingSpec:
    mean = tuple(options.mean) if options.mean is not None else (0.0,) * channels
    std = tuple(options.std) if options.std is not None else (1.0,) * channels
    for name, values in (("--mean", mean), ("--std", std)):
        if len(values) != channels:
            raise ConfigError(
                f"{name} has {len(values)} numbers, but the model's input has {channels} channels."
            )
    if any(value <= 0 for value in std):
        raise ConfigError(f"--std is {std}; every number must be above 0.")
    if options.resize not in ("bilinear", "none"):
        raise ConfigError(f"--resize is '{options.resize}'; it must be bilinear or none.")
    return PreprocessingSpec(mean=mean, std=std, resize=options.resize)


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


def _warnings(options: BuildOptions, accuracy: float | None) -> tuple[str, ...]:
    found = []
    if options.base_data is None:
        found.append(
            "the base classes are UNPROTECTED: without --base-data the device will forget them, and cannot weigh "
            "them against new classes. Pass a folder with some pictures of each base class."
        )
    if options.mean is None or options.std is None:
        found.append(
            "no --mean/--std given: pixels are only scaled to 0..1. If the model was trained on normalised "
            "pictures, pass the same numbers here."
        )
    if accuracy is not None and accuracy < SUSPICIOUS_ACCURACY:
        found.append(
            f"the model gets only {accuracy:.1f} % of the base data right: check --mean/--std and the order of "
            "--classes."
        )
    return tuple(found)
