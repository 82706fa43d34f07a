"""What a manifest must fulfil beyond its schema: numbers that fit each other, names that are not used twice.

Its types and bounds are in `contract/manifest.schema.json`. The same checks, in the same order and words, are in
`device_runners/js/src/bundle/manifestChecks.ts`; `tests/contract/manifests.json` holds both to one answer.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

from csk_sdk.contract.manifest import (
    CHANNEL_MEAN,
    CHANNEL_VARIANCE,
    CHECKPOINT,
    DOMAIN_CHANNELS,
    DOMAIN_DEVIATION,
    DOMAIN_MEAN,
    DOMAIN_MODEL,
    DOMAIN_SCALE,
    DOMAIN_SHIFT,
    DOMAIN_STATISTICS,
    EVAL_MODEL,
    EXPORT_TEMPLATE,
    MANIFEST,
    MEMORY_MODEL,
    MEMORY_SUFFIX,
    PORTABLE,
    PREFIX_MODEL,
    QUANTISED_TEMPLATE,
    TRAINING_MODEL,
    TRAINING_SUFFIX,
    WEIGHTS,
    Manifest,
    Site,
    exact_twin,
)
from csk_sdk.contract.thresholds import integer
from csk_sdk.errors import BundleError
from csk_sdk.formats.names import is_plain
from csk_sdk.formats.schema import quoted
from csk_sdk.formats.wording import plural

_MOST_PIXELS, _MOST_PARAMETERS = integer("limits", "input_numbers"), integer("limits", "kernel_numbers")


def check_manifest(manifest: Manifest, folder: Path) -> None:
    """Raise BundleError unless the manifest's parts fit each other and it lists every file that is read."""
    problem = next(problems(manifest), None)
    if problem is not None:
        raise BundleError(f"{folder / MANIFEST}: {problem}")


def problems(manifest: Manifest) -> Iterator[str]:
    """What is wrong with a manifest that fulfils its schema, and what to do, a sentence each."""
    for name in sorted(manifest.files):
        if not is_inside(name):
            yield f"it lists a file outside the bundle: {quoted(name)}. Do not use this bundle."
    again = "Build the bundle again."
    yield from (f"{problem}. {again}" for problem in _sizes(manifest))
    yield from (f"{problem}. Build it again with --classes." for problem in _classes(manifest))
    yield from (f"{problem}. {again}" for problem in _names(manifest))
    for name in required_files(manifest):
        if name not in manifest.files:
            yield f"it does not list {name}, so nobody knows what it should be. Copy the bundle again."
    yield from (f"{problem}. {again}" for problem in (*_kernels(manifest), *_quantised(manifest)))


def is_inside(name: str) -> bool:
    """Whether this is the name of a file in the bundle's folder, written in the one way that there is."""
    odd = any(character in name for character in "\\:\0")
    return not odd and not any(part in ("", ".", "..") for part in name.split("/"))


def graph_files(manifest: Manifest) -> list[str]:
    """The graphs that a device opens of a bundle with this manifest."""
    graphs = [*([TRAINING_MODEL] if PORTABLE in manifest.backends else []), EVAL_MODEL, MEMORY_MODEL]
    if manifest.prefix:
        graphs += [PREFIX_MODEL, TRAINING_SUFFIX, MEMORY_SUFFIX]
    if any(precision != manifest.precision for precision in manifest.precisions):
        graphs += [exact_twin(name) for name in graphs]
    if manifest.domain_channels:
        graphs += [DOMAIN_MODEL, DOMAIN_STATISTICS]
    return graphs


def required_files(manifest: Manifest) -> list[str]:
    """The files that are read of a bundle with this manifest."""
    templates = [EXPORT_TEMPLATE, *([QUANTISED_TEMPLATE] if manifest.quantised else [])]
    domains = [DOMAIN_CHANNELS] if manifest.domain_channels else []
    return [*graph_files(manifest), *templates, WEIGHTS, CHECKPOINT, *domains]


def _sizes(manifest: Manifest) -> Iterator[str]:
    image, preprocessing = manifest.input, manifest.preprocessing
    if math.prod((image.channels, *image.size)) > _MOST_PIXELS:
        yield f"input.channels and input.size are more than {_MOST_PIXELS} numbers"
    if math.prod(manifest.prefix) > _MOST_PIXELS:
        yield f"prefix is a shape of more than {_MOST_PIXELS} numbers"
    for where, spec in (("preprocessing", preprocessing), ("probe", manifest.probe)):
        for name, values in (("mean", spec.mean), ("std", spec.std)) if spec else ():
            if len(values) != image.channels:
                yield f"{where}.{name} must have {plural(image.channels, 'entry', 'entries')}, one for each channel"
    if preprocessing.resize == ("bilinear" if image.is_signal else "crop"):
        kind = "images" if image.is_signal else "signals"
        yield f'preprocessing.resize is "{preprocessing.resize}", which is for {kind}'
    if manifest.precisions and manifest.precisions[0] != manifest.precision:
        yield "precisions must begin with precision"
    for index, site in enumerate(manifest.sites):
        yield from _site(site, f"sites[{index}]")


def _site(site: Site, where: str) -> Iterator[str]:
    axes = len(site.shape) - 2
    lists = {
        "stride": (site.stride, axes),
        "dilation": (site.dilation, axes),
        "pads": (site.pads, 2 * axes),
        "input_size": (site.input_size, axes),
        "output_size": (site.output_size, axes),
    }
    for name, (values, count) in lists.items():
        if len(values) != count:
            entries, kernel = plural(count, "entry", "entries"), plural(axes, "axis", "axes")
            yield f"{where}.{name} must have {entries}, as its kernel has {kernel}"
    if math.prod(site.shape) > _MOST_PARAMETERS:
        yield f"{where}.shape is a kernel of more than {_MOST_PARAMETERS} numbers"
    if site.shape[0] % site.groups:
        yield f"{where}.groups is {site.groups}, and must divide its {site.shape[0]} output channels"


def _classes(manifest: Manifest) -> Iterator[str]:
    seen: set[str] = set()
    for name in manifest.classes:
        if not is_plain(name):
            yield f"a class is called {quoted(name)}, which is no plain text"
        if name in seen:
            yield f"two classes are called {quoted(name)}"
        seen.add(name)


def _names(manifest: Manifest) -> Iterator[str]:
    """Sites, their kernels, and what goes into and comes out of the graphs: nothing may take another's place."""
    head, sites = manifest.head, manifest.sites
    ends = ["image", "label", "label_smoothing", "class_mask", "loss", "logits", "features", "prefix"]
    if manifest.domain_channels:
        ends += [DOMAIN_SCALE, DOMAIN_SHIFT, DOMAIN_MEAN, DOMAIN_DEVIATION, CHANNEL_MEAN, CHANNEL_VARIANCE]
    ends += [head.weight, head.bias, head.weight_gradient, head.bias_gradient]
    for site in sites:
        ends += [site.delta, site.indices, site.gradient, site.moment]
    kinds = {
        "sites": [site.name for site in sites],
        "sites' kernels": [site.weight for site in sites],
        "inputs or outputs of the graphs": ends,
    }
    for what, names in kinds.items():
        seen: set[str] = set()
        for name in names:
            if name in seen:
                yield f"two {what} are called {quoted(name)}"
            seen.add(name)


def _quantised(manifest: Manifest) -> Iterator[str]:
    """What an export in int8 rounds is there, and once."""
    there = {*manifest.weights_in_export, *(site.weight for site in manifest.sites)}
    there |= {manifest.head.weight, manifest.head.bias}
    for index, layer in enumerate(manifest.quantised):
        for name in (layer.weight, *([layer.bias] if layer.bias else [])):
            if name not in there:
                yield f"quantised[{index}] has {quoted(name)}, which is no tensor of an export, or another layer's"
            there.discard(name)


def _kernels(manifest: Manifest) -> Iterator[str]:
    weights = {site.weight for site in manifest.sites}
    for name in [*graph_files(manifest), EXPORT_TEMPLATE]:
        if name not in manifest.kernels:
            yield f"kernels[{quoted(name)}] is missing"
        for weight in manifest.kernels.get(name, ()):
            if weight not in weights:
                yield f"kernels[{quoted(name)}] has {quoted(weight)}, which is no site's weight"
