"""The manifest of a bundle, as far as model and options say it; and what its user should know."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence

import numpy as np

from csk_artifacts_builder.graphs.head import SplitHead
from csk_artifacts_builder.int8.mixed import Mixed
from csk_artifacts_builder.measure.base_knowledge import BaseKnowledge
from csk_artifacts_builder.options import BACKEND_CHOICES, BuildOptions
from csk_artifacts_builder.ort.artifacts import head_capacity
from csk_artifacts_builder.prepare.model import SourceModel
from csk_artifacts_builder.prepare.pixels import BYTES
from csk_artifacts_builder.sites import COMPUTED, KERNELS, SHARED
from csk_sdk.contract.manifest import (
    BACKENDS,
    CROSS_ENTROPY,
    EXACT,
    INT8,
    MSE,
    ORT_TRAINING,
    PICTURE_SCALE,
    PORTABLE,
    SIGNAL_SCALE,
    Head,
    InputSpec,
    Manifest,
    PreprocessingSpec,
    Site,
)
from csk_sdk.errors import ConfigError
from csk_sdk.formats.names import LONGEST, first_twin, is_plain
from csk_sdk.formats.wording import plural, rounded
from csk_sdk.objectives import objective_of
from csk_sdk.runtime.sessions import require_training_package
from csk_sdk.version import __version__

# From so many base images on, and so many percent of them right, they look like those that the model was trained on.
_MANY_IMAGES, _ALL_RIGHT = 200, 99.5
# What a double holds exactly, and JavaScript with it.
_LARGEST_COUNTER = (1 << 53) - 1
_UNNORMALISED = {
    "images": "pixels are only scaled to 0..1",
    "signals": "int16 samples are only scaled to -1..1, and floats are taken as they are",
}


def describe(source: SourceModel, head: SplitHead, sites: Sequence[Site], options: BuildOptions) -> Manifest:
    """The manifest of a bundle with these sites, as far as the options and the model say it.

    Raises ConfigError for options that do not fit the model.
    """
    count, features = head.weight.shape
    classes = tuple(options.classes) if options.classes is not None else tuple(str(i) for i in range(count))
    if len(classes) != count:
        raise ConfigError(_other_count(len(classes), count, source))
    require_options(options)
    backends = _backends(options)
    shape = source.image.shape
    assert shape is not None
    channels, *size = (int(dim) for dim in list(shape)[1:])  # type: ignore[arg-type]
    given = InputSpec("image", channels, tuple(size))
    if options.flip and given.is_signal:
        raise ConfigError(f"--flip is for images, and {source.path.name} takes signals: leave it out.")
    return Manifest(
        model=source.path.name,
        classes=classes,
        input=given,
        preprocessing=_preprocessing(options, given, source),
        head=Head(features=features, source_weight=head.weight_name, source_bias=head.bias_name),
        sites=tuple(sites),
        base_protected=options.base_data is not None,
        channel_ratio=options.channel_ratio,
        batch_size=options.batch_size,
        flip=not given.is_signal if options.flip is None else options.flip,
        loss=options.loss,
        precision=options.precision,
        backends=backends,
        op_domains=_op_domains(backends),
        head_capacity=head_capacity(options.head_capacity, count) if ORT_TRAINING in backends else 0,
        memory_budget=options.memory_budget,
        counter=_counter(options),
        producer=f"csk-sdk {__version__}",
    )


def require_options(options: BuildOptions) -> None:
    """Raise ConfigError for options that no model fits, or that contradict one another."""
    for place, name in enumerate(options.classes or ()):
        if not is_plain(name):
            raise ConfigError(
                f"--classes calls class {place} {name[:40]!r}, and a name is not empty, at most {LONGEST} characters, "
                "in valid UTF-8 and without control characters. Rename it."
            )
    _require_told_apart(options.classes or ())
    if not 0.0 < options.channel_ratio <= 1.0:
        raise ConfigError(f"--channel-ratio is {options.channel_ratio}; it must be above 0 and at most 1.")
    if options.batch_size < 1:
        raise ConfigError(f"--batch-size is {options.batch_size}; it must be 1 or more.")
    if options.precision not in (EXACT, INT8):
        raise ConfigError(f"--precision is '{options.precision}'; it must be {EXACT} or {INT8}.")
    if options.precision == INT8 and options.base_data is None:
        raise ConfigError(
            "--precision int8 needs --base-data: the ranges of the network's activations are measured on images "
            "of the base classes. Pass a folder with some images of each, or build with --precision exact."
        )
    _backends(options)
    _counter(options)


def _other_count(names: int, count: int, source: SourceModel) -> str:
    given = f"--classes has {names} {'name' if names == 1 else 'names'}"
    where = source.path.name
    if source.binary:
        return (
            f"{given}, and the one output of {where} tells two classes apart: give both names, the class of low values "
            "first. If it is one label that an image may have or not, build with --loss binary-cross-entropy."
        )
    return f"{given}, but {where} has {count} {'output' if count == 1 else 'outputs'}."


def _require_told_apart(classes: Sequence[str]) -> None:
    """Raise ConfigError for names that are twice, or nearly so: a device would refuse a task with these."""
    again = next((name for name, count in Counter(classes).items() if count > 1), None)
    if again is not None:
        raise ConfigError(
            f"--classes has {again[:40]!r} twice, and every class needs a name of its own: rename one."
        )
    twins = first_twin(classes, ())
    if twins is not None:
        mine, theirs = (one[:40] for one in twins)
        raise ConfigError(
            f"--classes has {theirs!r} and {mine!r}, which differ only in case, spaces at their ends or how accents "
            "are stored, and no device would learn more of either beside the other: rename one."
        )


def _op_domains(backends: Sequence[str]) -> tuple[str, ...]:
    """Gradients that onnxruntime-training derives hold ops of its own."""
    return ("ai.onnx", "com.microsoft") if ORT_TRAINING in backends else ("ai.onnx",)


def _counter(options: BuildOptions) -> int:
    """How new a signed bundle is. Of one that is not signed nobody could believe it."""
    if options.counter is None:
        return int(time.time()) if options.sign is not None else 0
    if options.sign is None:
        raise ConfigError(
            "--counter says how new a signed bundle is: give a key with --sign, or leave it out."
        )
    if not 0 <= options.counter <= _LARGEST_COUNTER:
        raise ConfigError(f"--counter is {options.counter}; it must be from 0 to {_LARGEST_COUNTER}.")
    return options.counter


def _backends(options: BuildOptions) -> tuple[str, ...]:
    choice, loss = options.backend, options.loss
    if choice not in BACKEND_CHOICES:
        raise ConfigError(f"--backend is '{choice}'; it must be {', '.join(BACKENDS)} or both.")
    backends = BACKEND_CHOICES[choice]
    if ORT_TRAINING in backends:
        if loss != CROSS_ENTROPY:
            raise ConfigError(
                f"--backend {choice} trains with the loss {CROSS_ENTROPY} only, and --loss is {loss}: build with "
                f"--backend {PORTABLE}."
            )
        if options.precision != EXACT:
            raise ConfigError(
                f"--precision {options.precision} is for the portable backend, and --backend is {choice}: build with "
                f"--backend {PORTABLE}, or with --precision {EXACT}."
            )
        if options.sites == KERNELS:
            raise ConfigError(
                f"--sites {KERNELS} is for the portable backend, and --backend is {choice}: build with --backend "
                f"{PORTABLE}, or train centers alone."
            )
        require_training_package()
    return backends


# What float32 holds without loss, and can divide by.
_LARGEST, _SMALLEST = float(np.finfo(np.float32).max), float(np.finfo(np.float32).tiny)


def _preprocessing(options: BuildOptions, given: InputSpec, source: SourceModel) -> PreprocessingSpec:
    channels, model = given.channels, source.path.name
    mean = tuple(options.mean) if options.mean is not None else (0.0,) * channels
    std = tuple(options.std) if options.std is not None else (1.0,) * channels
    if _scales_bytes(options, source) and not given.is_signal:
        std = (PICTURE_SCALE,) * channels  # the network gets what it scales itself
    for name, values in (("--mean", mean), ("--std", std)):
        if len(values) != channels:
            raise ConfigError(
                f"{name} has {plural(len(values), 'number')}, but the model's input has {plural(channels, 'channel')}."
            )
        if not all(abs(value) <= _LARGEST for value in values):  # nor NaN
            raise ConfigError(f"{name} is {values}; every number must be finite, and within float32.")
    if not all(value >= _SMALLEST for value in std):
        raise ConfigError(f"--std is {std}; every number must be above 0.")
    if not given.is_signal and max(*mean, *std) > 1:
        raise ConfigError(_of_bytes(mean, std))
    ways = ("crop", "none") if given.is_signal else ("bilinear", "none")
    resize = options.resize or ways[0]
    if resize not in ways:
        raise ConfigError(
            f"--resize is '{resize}'; {model} takes {given.noun}s, so it must be {' or '.join(ways)}."
        )
    rate = options.sample_rate
    if rate is not None and not given.is_signal:
        raise ConfigError(f"--sample-rate is for signals, and {model} takes images: leave it out.")
    if rate is not None and rate < 1:
        raise ConfigError(f"--sample-rate is {rate}; it must be 1 Hz or more.")
    scale = SIGNAL_SCALE if given.is_signal else PICTURE_SCALE
    return PreprocessingSpec(mean=mean, std=std, scale=scale, resize=resize, sample_rate=rate)


def _scales_bytes(options: BuildOptions, source: SourceModel) -> bool:
    """Whether the network takes pixels of 0 to 255, and nothing else was said."""
    return source.pixels == BYTES and options.mean is None and options.std is None


def pixels_said(options: BuildOptions, source: SourceModel) -> tuple[str, ...]:
    """One sentence on the scaling that the network does itself, where `options` leave it to that."""
    if source.pixels is None or options.mean is not None or options.std is not None:
        return ()
    return (
        f"{source.path.name} scales its pixels itself: it is given pixels of 0 to {source.pixels:g}, and --mean and "
        "--std need not be given.",
    )


def _of_bytes(mean: Sequence[float], std: Sequence[float]) -> str:
    """Numbers for pixels of 0 to 255, and what they are for pixels of 0 to 1."""
    means, stds = (",".join(f"{value / 255:.6g}" for value in values) for values in (mean, std))
    return (
        f"--mean is {','.join(f'{value:g}' for value in mean)} and --std {','.join(f'{value:g}' for value in std)}: "
        "these are for pixels of 0 to 255, and csk-sdk scales pixels to 0..1 first. Divide by 255: "
        f"--mean {means} --std {stds}"
    )


def unprotected(options: BuildOptions, manifest: Manifest) -> tuple[str, ...]:
    """One sentence where there are no base data."""
    if options.base_data is not None:
        return ()
    kind = f"{manifest.input.noun}s"
    if objective_of(manifest.loss).tabular:
        risk = "what the model knows is UNPROTECTED: without --base-data the device will forget it"
        remedy = f"Pass a folder with some {kind} of it and their labels in a metadata.csv"
    else:
        risk = (
            "the base classes are UNPROTECTED: without --base-data the device will forget them, and cannot weigh "
            "them against new classes"
        )
        remedy = f"Pass a folder with some {kind} of each base class"
    if _beyond_picture_files(manifest):
        remedy = f"The files that it reads do not hold {manifest.input.channels} channels"
    return (f"{risk}. {remedy}.",)


def _beyond_picture_files(manifest: Manifest) -> bool:
    """Whether the model takes images of channels that no picture file is read with."""
    return not manifest.input.is_signal and manifest.input.channels not in (1, 3)


def warnings_about(
    options: BuildOptions,
    manifest: Manifest,
    measured: BaseKnowledge | None,
    mixed: Mixed | None,
    scaled_inside: bool = False,
) -> tuple[str, ...]:
    """What the user of a bundle should know; `measured` is what was seen of the model on its base data.

    `scaled_inside` says that the network scales its pixels itself.
    """
    found = []
    kind = f"{manifest.input.noun}s"
    if not scaled_inside and (options.mean is None or options.std is None):
        found.append(
            f"no --mean/--std given: {_UNNORMALISED[kind]}. If the model was trained on normalised "
            f"{kind}, pass the same numbers here."
        )
    if _beyond_picture_files(manifest):
        found.append(
            f"the model takes {manifest.input.channels} channels, and picture files are read as gray or RGB, without "
            "alpha: hand over arrays, such as those of an npz file."
        )
    found += [
        f"convolution '{one.node}' is never trained: {one.reason}."
        for one in manifest.left_out
        if one.reason == COMPUTED or one.reason.startswith(SHARED.format(""))
    ]
    if options.loss == MSE and manifest.flip:
        found.append(
            "images will be mirrored at random while training: pass --no-flip if a mirrored image has other values."
        )
    found += [] if measured is None else _of_base_data(measured, manifest)
    found += [] if mixed is None else _in_float(mixed, manifest)
    return tuple(found)


def _of_base_data(measured: BaseKnowledge, manifest: Manifest) -> list[str]:
    """Sentences on a model that answers its base data badly, or as well as only those that it was trained on."""
    objective, score = objective_of(manifest.loss), measured.accuracy
    if measured.is_blind:
        return [
            f"to the model all classes are equally likely on each of the {measured.images} base images, as where its "
            "weights, or those of its classifier, were never trained."
        ]
    found = list(measured.exchanged)
    if score < objective.suspicious:
        reached = (
            f"the model gets only {score:.1f} % of the base data right"
            if objective.metric == "accuracy"
            else f"the model's {objective.metric} on the base data is only {rounded(score, '.1f')} %"
        )
        found.insert(0, f"{reached}: check --mean/--std and the order of --classes.")
    if manifest.loss == CROSS_ENTROPY and measured.images >= _MANY_IMAGES and score >= _ALL_RIGHT:
        kind = f"{manifest.input.noun}s"
        found.append(
            f"the model gets {rounded(score, '.1f')} % of the {measured.images:,} base {kind} right, which is usual of "
            f"{kind} that it was trained on. If it was, probabilities will be far too sure: build with {kind} that it "
            "was not trained on, such as its test data."
        )
    return found


def _in_float(mixed: Mixed, manifest: Manifest) -> list[str]:
    """A sentence on what stays in float32 in the int8 graphs, and why."""
    names, before = manifest.in_float, mixed.unmixed
    if not mixed.calibration.in_float:
        return []
    worst = min(before.gradients, key=lambda name: before.gradients[name])
    coarse = (
        f"int8 is too coarse for parts of this network: with every convolution in int8, the gradient of site '{worst}' "
        f"has a cosine of only {rounded(before.worst_gradient, '.2f')} to the exact one."
    )
    if mixed.nothing:
        return [f"{coarse} Nothing is left to gain, so all stays in float32: build with --precision exact."]
    which = (
        f"convolution '{names[0]}' stays"
        if len(names) == 1
        else (f"{len(names)} convolutions, from '{names[0]}' to '{names[-1]}', stay")
    )
    return [
        f"{coarse} So {which} in float32, and the smallest cosine is {mixed.agreement.worst_gradient:.2f}. "
        "csk-sdk doctor measures on each device whether int8 is still faster there."
    ]
