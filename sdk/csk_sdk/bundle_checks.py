"""What a bundle from outside must fulfil before anything in it is used: it is data, and it may be hostile.

Nothing here trusts the manifest more than any other file: its numbers are bounded before memory is asked for, its
names may not lead out of the folder, and what it says about a file is compared with the file.
"""

from __future__ import annotations

import errno
import hashlib
import math
import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from csk_sdk.errors import BundleError
from csk_sdk.manifest import (
    CHECKPOINT,
    EVAL_MODEL,
    EXPORT_TEMPLATE,
    MANIFEST,
    MEMORY_MODEL,
    MEMORY_SUFFIX,
    PORTABLE,
    PRECISIONS,
    PREFIX_MODEL,
    TRAINING_MODEL,
    TRAINING_SUFFIX,
    WEIGHTS,
    Manifest,
    exact_twin,
)
from csk_sdk.names import is_plain
from csk_sdk.onnx_file import STANDARD_DOMAIN, read_onnx
from csk_sdk.opening import open_file, read_file
from csk_sdk.protobuf import MalformedError
from csk_sdk.state.swap import aside
from csk_sdk.tensor_header import check_header

REQUIRED = (EXPORT_TEMPLATE, WEIGHTS, CHECKPOINT)
# Ops of these domains are part of ONNX Runtime itself; a manifest may allow no others.
KNOWN_DOMAINS = (STANDARD_DOMAIN, "com.microsoft")

_AGAIN = "Copy the bundle again."
_LARGEST_MANIFEST = 32 << 20
# Of an input picture, a batch and a layer: far above any camera and classifier, far below what exhausts a device.
_MOST_PIXELS, _LARGEST_BATCH, _MOST_PARAMETERS, _MOST_FEATURES = 64 << 20, 1 << 16, 1 << 31, 1 << 20


def read_manifest(folder: Path) -> bytes:
    """The bytes of a bundle's manifest. Raises BundleError where there is none, or what is there can be none."""
    path = folder / MANIFEST
    try:
        return read_file(path, _LARGEST_MANIFEST, folder)
    except (FileNotFoundError, NotADirectoryError):
        if (kept := aside(folder.absolute())).is_dir() and not folder.exists():
            raise BundleError(
                f"There is no bundle in {folder}: a build was killed just when it replaced it. The one before is in "
                f"{kept}; rename it to {folder.name}, or build again."
            ) from None
        raise BundleError(
            f"There is no bundle in {folder} ({MANIFEST} is missing). Build one on a workstation with "
            "`csk-sdk build-artifacts MODEL --out BUNDLE`, and copy it there."
        ) from None
    except OSError as error:
        if error.errno == errno.EFBIG:
            raise BundleError(
                f"{path} is larger than {_LARGEST_MANIFEST >> 20} MiB: it is no bundle's manifest."
            ) from None
        raise BundleError(f"{path} cannot be read ({error.strerror or error}). {_AGAIN}") from None


def check_manifest(manifest: Manifest, folder: Path) -> None:
    """Raise BundleError unless the manifest's numbers and names are possible and it lists every file that is read."""
    where = folder / MANIFEST
    for name in manifest.files:
        _require_inside(folder, name)
    image, head = manifest.input, manifest.head
    bounds = {
        "input.channels": (image.channels, 1 << 16),
        "the number of axes of an input": (len(image.size), 2),
        "the size of an input": (_product((image.channels, *image.size)), _MOST_PIXELS),
        "batch_size": (manifest.batch_size, _LARGEST_BATCH),
        "head.features": (head.features, _MOST_FEATURES),
    }
    if manifest.prefix:
        bounds["the size of prefix features"] = (_product(manifest.prefix), _MOST_PIXELS)
    for site in manifest.sites:
        bounds[f"the kernel of site {site.name[:80]!r}"] = (_product(site.shape), _MOST_PARAMETERS)
        bounds[f"groups of site {site.name[:80]!r}"] = (site.groups, _MOST_PARAMETERS)
        if len(site.shape) not in (3, 4, 5) or site.shape[0] % max(site.groups, 1):
            raise BundleError(
                f"{where} has a kernel of shape {site.shape[:8]} in {site.groups} groups. {_AGAIN}"
            )
    for what, (value, most) in bounds.items():
        if not 1 <= value <= most:
            raise BundleError(f"{where}: {what} is {value}, and must be from 1 to {most}. {_AGAIN}")
    for precision in {manifest.precision, *manifest.precisions}:
        if precision not in PRECISIONS:
            raise BundleError(
                f"{where} has graphs in precision {precision[:40]!r}, and this csk-sdk knows "
                f"{' and '.join(PRECISIONS)}: update csk-sdk on this device."
            )
    for what, share in (("channel_ratio", manifest.channel_ratio), ("scale", manifest.preprocessing.scale)):
        if not 0.0 < share <= 1.0:
            raise BundleError(f"{where}: {what} is {share}, and must be above 0 and at most 1. {_AGAIN}")
    bad = next((name for name in manifest.classes if not is_plain(name)), None)
    if bad is not None or len(set(manifest.classes)) != len(manifest.classes):
        which = "two of one name" if bad is None else f"one called {bad[:40]!r}"
        raise BundleError(
            f"{where} has classes that cannot be told apart or written: {which}. Build it again with --classes."
        )
    for domain in manifest.op_domains:
        if domain not in KNOWN_DOMAINS:
            raise BundleError(
                f"{where} wants ops of domain {domain[:80]!r}, and this csk-sdk runs only {', '.join(KNOWN_DOMAINS)}: "
                "update csk-sdk on this device, or do not use this bundle."
            )
    required = _required(manifest)
    missing = [name for name in required if name not in manifest.files]
    if missing:
        raise BundleError(f"{where} does not list {missing[0]}, so nobody knows what it should be. {_AGAIN}")


def _required(manifest: Manifest) -> list[str]:
    """The files that are read of a bundle with this manifest."""
    graphs = [*([TRAINING_MODEL] if PORTABLE in manifest.backends else []), EVAL_MODEL, MEMORY_MODEL]
    if manifest.prefix:
        graphs += [PREFIX_MODEL, TRAINING_SUFFIX, MEMORY_SUFFIX]
    if any(precision != manifest.precision for precision in manifest.precisions):
        graphs += [exact_twin(name) for name in graphs]
    return [*graphs, *REQUIRED]


def check_file(folder: Path, manifest: Manifest, name: str) -> None:
    """Raise BundleError unless a file is inside the bundle, what the manifest says, and safe to open."""
    path = folder / name
    entry = manifest.files[name]
    if not path.resolve().is_relative_to(folder.resolve()):
        raise BundleError(f"{path} is a link that leads out of the bundle. Copy the file itself there.")
    if not path.is_file():
        raise BundleError(f"{path} is missing. {_AGAIN}")
    try:
        with open_file(path, folder) as file:
            # The size first: hashing what never ends would take as long.
            same = os.fstat(file.fileno()).st_size == entry.size and (
                hashlib.file_digest(file, "sha256").hexdigest() == entry.sha256
            )
        if not same:
            raise BundleError(
                f"{path} is not the file that was built: its content differs from the manifest's sha256. {_AGAIN}"
            )
        if path.suffix == ".onnx":
            _check_graph(path, manifest, name)
        elif path.suffix == ".safetensors":
            check_header(path)
    except OSError as error:
        raise BundleError(f"{path} cannot be read ({error.strerror or error}). {_AGAIN}") from None
    except ValueError as error:
        raise BundleError(
            f"{path} is damaged or hostile: {error}. Do not use this bundle; build it again."
        ) from None


def check_checkpoint(manifest: Manifest, tensors: Mapping[str, Any], where: Path) -> None:
    """Raise BundleError unless the checkpoint has the tensors that the manifest's sites and head ask for."""
    features = manifest.head.features
    wanted: dict[str, tuple[int, ...]] = {
        "head/base/weight": (len(manifest.classes), features),
        "head/base/bias": (len(manifest.classes),),
    }
    # Of no class yet, it takes no room.
    if np.size(tensors.get("statistics.counts", ())):
        # Earlier bundles have sums in place of means.
        square = "gram" if "statistics.sums" in tensors else "scatter"
        wanted[f"statistics.{square}"] = (features, features)
    for site in manifest.sites:
        wanted[f"center/{site.name}"] = tuple(site.shape[:2])
        wanted[f"moment/{site.name}"] = (site.groups, site.shape[1], site.shape[1])
    for name, shape in wanted.items():
        found = np.shape(tensors[name]) if name in tensors else None
        if found != shape:
            there = "is missing" if found is None else f"has shape {found}"
            raise BundleError(
                f"{where}: tensor {name!r} {there}, and the manifest asks for {shape}. {_AGAIN}"
            )


def _require_inside(folder: Path, name: str) -> None:
    """Raise BundleError for a name that is not one of a file in the bundle's folder."""
    parts = PurePosixPath(name).parts
    odd = any(character in name for character in "\\:\0")
    if not name or odd or PurePosixPath(name).is_absolute() or ".." in parts or name != "/".join(parts):
        raise BundleError(
            f"{folder / MANIFEST} lists a file outside the bundle: {name[:200]!r}. Do not use this bundle."
        )


def _check_graph(path: Path, manifest: Manifest, name: str) -> None:
    found = read_onnx(path)
    if found.functions:
        raise MalformedError(f"it defines {found.functions} functions of its own")
    foreign = sorted(found.domains.difference(manifest.op_domains))
    if foreign:
        raise MalformedError(
            f"it has ops of domain {foreign[0][:80]!r}, and its manifest allows {', '.join(manifest.op_domains)}"
        )
    for location, offset, length in sorted(found.external, key=str):
        beside = (PurePosixPath(name).parent / location).as_posix()
        entry = manifest.files.get(beside)
        if (
            entry is None
            or location != PurePosixPath(location).as_posix()
            or ".." in PurePosixPath(location).parts
        ):
            raise MalformedError(f"it takes data from {location[:200]!r}, which is no file of the bundle")
        if offset > entry.size or (length is not None and offset + length > entry.size):
            raise MalformedError(f"it takes data from behind the end of {location!r}")


def _product(shape: tuple[int, ...]) -> int:
    return math.prod(shape) if all(size > 0 for size in shape) else 0
