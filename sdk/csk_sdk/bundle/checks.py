"""What a bundle from outside must fulfil before anything in it is used: it is data, and it may be hostile.

What the manifest says about a file is compared with the file; the manifest itself is held against its schema
(`manifest.py`) and its parts against each other (`manifest_checks.py`).
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from csk_sdk.bundle.graph_interface import interface, misfit
from csk_sdk.bundle.onnx_file import OnnxContents, read_onnx
from csk_sdk.contract.manifest import MANIFEST, Manifest
from csk_sdk.contract.thresholds import integer
from csk_sdk.errors import BundleError
from csk_sdk.formats.opening import open_file, read_file
from csk_sdk.formats.places import BUNDLE, mistaken
from csk_sdk.formats.protobuf import MalformedError
from csk_sdk.formats.schema import quoted
from csk_sdk.formats.tensor_header import check_header
from csk_sdk.method.heads import STATISTICS
from csk_sdk.method.unknown import FAMILIARITY, QUANTILES
from csk_sdk.state.swap import aside

_AGAIN = "Copy the bundle again."
_LARGEST_MANIFEST = integer("limits", "manifest_bytes")
_MOST_NUMBERS = integer("limits", "tensor_numbers")


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
        if (said := mistaken(folder, BUNDLE)) is not None:
            raise BundleError(said) from None
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
            _check_graph(_contents(_Graph(entry.sha256, path)), manifest, name)
        elif path.suffix == ".safetensors":
            check_header(path)
    except OSError as error:
        raise BundleError(f"{path} cannot be read ({error.strerror or error}). {_AGAIN}") from None
    except ValueError as error:
        raise BundleError(
            f"{path} is damaged or hostile: {error}. Do not use this bundle; build it again."
        ) from None


def check_checkpoint(manifest: Manifest, tensors: Mapping[str, Any], where: Path) -> None:
    """Raise BundleError unless the checkpoint has the tensors that the manifest asks for, and they are finite."""
    features = manifest.head.features
    wanted: dict[str, tuple[int, ...]] = {
        "head/base/weight": (len(manifest.classes), features),
        "head/base/bias": (len(manifest.classes),),
    }
    wanted |= _wanted_statistics(tensors, features) | _wanted_familiarity(tensors)
    for site in manifest.sites:
        wanted[f"center/{site.name}"] = (site.shape[0], site.width)
        wanted[f"moment/{site.name}"] = (site.groups, site.width, site.width)
    _check_tensors(wanted, tensors, where)


def check_channels(manifest: Manifest, tensors: Mapping[str, Any], where: Path) -> None:
    """Raise BundleError unless mean and deviation of the manifest's channels are there, and finite."""
    _check_tensors(dict.fromkeys(("mean", "deviation"), (manifest.domain_channels,)), tensors, where)


def _check_tensors(wanted: Mapping[str, tuple[int, ...]], tensors: Mapping[str, Any], where: Path) -> None:
    for name, shape in wanted.items():
        found = np.shape(tensors[name]) if name in tensors else None
        if found != shape:
            there = "is missing" if found is None else f"has shape {found}"
            raise BundleError(
                f"{where}: tensor {name!r} {there}, and the manifest asks for {shape}. {_AGAIN}"
            )
    for name, tensor in tensors.items():
        if not np.isfinite(tensor).all():
            raise BundleError(f"{where}: tensor {name!r} holds numbers that are not finite. {_AGAIN}")


def _wanted_statistics(tensors: Mapping[str, Any], features: int) -> dict[str, tuple[int, ...]]:
    """The class statistics, which are there as a whole or not at all."""
    if not any(f"statistics.{name}" in tensors for name in STATISTICS):
        return {}
    # Earlier bundles have sums in place of means.
    square, rows = ("gram", "sums") if "statistics.sums" in tensors else ("scatter", "means")
    classes = _rows(tensors, "statistics.counts")
    wanted: dict[str, tuple[int, ...]] = {
        "statistics.classes": (_rows(tensors, "statistics.classes"),),
        "statistics.counts": (classes,),
        f"statistics.{rows}": (classes, features),
    }
    # Of no class yet, the scatter takes no room.
    return wanted | ({f"statistics.{square}": (features, features)} if classes else {})


def _wanted_familiarity(tensors: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """The sketch of known images, which is there as a whole or not at all."""
    if not any(f"familiarity.{name}" in tensors for name in FAMILIARITY):
        return {}
    rows = max(_rows(tensors, "familiarity.margins"), _rows(tensors, "familiarity.oddness"))
    return {
        "familiarity.classes": (_rows(tensors, "familiarity.classes"),),
        "familiarity.margins": (rows, QUANTILES),
        "familiarity.oddness": (rows, QUANTILES),
    }


def _rows(tensors: Mapping[str, Any], name: str) -> int:
    """0 of a tensor that is missing."""
    return next(iter(np.shape(tensors.get(name, ()))), 0)


@dataclass(frozen=True)
class _Graph:
    """A file, and what it was just found to hold."""

    sha256: str
    path: Path = field(compare=False)


@lru_cache(maxsize=64)
def _contents(graph: _Graph) -> OnnxContents:
    """Read once for each content, whichever bundle has it: whoever opens a bundle again waits less."""
    return read_onnx(graph.path)


def _check_graph(found: OnnxContents, manifest: Manifest, name: str) -> None:
    if found.functions:
        raise MalformedError(f"it defines {found.functions} functions of its own")
    if found.branching:
        raise MalformedError(f"it has op {quoted(min(found.branching))}, which runs a graph of its own")
    if found.numbers > _MOST_NUMBERS:
        raise MalformedError(f"its tensors claim more than {_MOST_NUMBERS} numbers together")
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
    ends = interface(manifest, name)
    if ends is not None:
        problem = misfit(ends[0], found.inputs, "input") or misfit(ends[1], found.outputs, "output")
        if problem is not None:
            raise MalformedError(problem)
