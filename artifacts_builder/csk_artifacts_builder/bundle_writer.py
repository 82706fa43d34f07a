"""Writing a bundle: graphs that hold no large tensor, and two safetensors files that hold them all."""

from __future__ import annotations

import glob
import hashlib
import json
import os
import shutil
import struct
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from csk_artifacts_builder.emit import constant_array
from csk_artifacts_builder.prepare.source_file import require_writable
from csk_sdk.bundle.checks import read_manifest
from csk_sdk.bundle.signing import SIGNATURE, sign
from csk_sdk.contract.manifest import (
    CHECKPOINT,
    EXPORT_TEMPLATE,
    MANIFEST,
    QUANTISED_TEMPLATE,
    WEIGHTS,
    FileEntry,
    Manifest,
    QuantisedLayer,
    Site,
)
from csk_sdk.errors import ConfigError, StorageError
from csk_sdk.formats.opening import open_file
from csk_sdk.state.swap import remove_folder, replace_folder, restore_folder

# Smaller tensors stay in the graphs, where shape inference can see them.
_EXTERNAL_ELEMENTS = 64
# A draft that nothing was written to for so long belongs to nobody: measuring base data takes minutes to hours.
_ABANDONED_SECONDS = 86_400.0


def large_weights(
    model: ir.Model, sites: Sequence[Site], layers: Sequence[QuantisedLayer] = ()
) -> dict[str, NDArray[np.float32]]:
    """The float32 tensors of a prepared model that live in weights.safetensors, by name.

    Those are the large ones, and those that a device replaces or rounds however small they are: every site's kernel,
    and what an export in int8 has as integers.
    """
    kernels = {site.weight for site in sites}.union(*({layer.weight, layer.bias} for layer in layers))
    weights = {}
    for name, value in model.graph.initializers.items():
        array = constant_array(value)
        if (
            array is not None
            and array.dtype == np.float32
            and (array.size >= _EXTERNAL_ELEMENTS or name in kernels)
            and value.uses()
        ):
            weights[name] = np.ascontiguousarray(array)
    return weights


def require_free(out: Path, overwrite: bool) -> None:
    """Raise ConfigError where something is at `out` that a bundle is not to replace."""
    with _told(out):
        restore_folder(out.absolute())
    in_the_way = out.exists() and (not out.is_dir() or any(out.iterdir()))
    if in_the_way and not overwrite:
        raise ConfigError(f"{out} exists already. Choose another --out, or pass --overwrite to replace it.")
    if in_the_way and not (out / MANIFEST).is_file():
        raise ConfigError(f"{out} is not a bundle, so --overwrite will not replace it. Choose another --out.")


class BundleDraft:
    """A bundle being written beside its place, so that a half-written one is never seen there.

        with BundleDraft(out, overwrite) as draft:
            draft.write_weights(weights, models.values())
            draft.write(models, checkpoint, manifest)
            draft.publish()

    Raises StorageError for a full disk, ModelError for 2 GiB in one graph, ConfigError where `out` is in the way.
    What is not published is removed.
    """

    def __init__(self, out: Path, overwrite: bool) -> None:
        require_free(out, overwrite)
        self.out = out.absolute()  # "." has no name to derive a neighbour's from
        self.folder = self.out.with_name(f"{_building(self.out)}{os.getpid()}")
        _clear_abandoned(self.out)

    def __enter__(self) -> BundleDraft:
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def write_weights(self, weights: Mapping[str, NDArray[np.float32]], models: Iterable[ir.Model]) -> None:
        """Write weights.safetensors; `models` afterwards point into it, and hold none of its arrays any more."""
        with self.writing():
            self.folder.mkdir(parents=True)
            offsets = write_tensors(self.folder / WEIGHTS, weights)
        for model in models:
            _point_to_weights(model, self.folder, weights, offsets)

    def write(
        self, models: Mapping[str, ir.Model], checkpoint: Mapping[str, NDArray[Any]], manifest: Manifest
    ) -> None:
        """Write every other file; `models` maps file names to graphs."""
        for name, model in models.items():
            if name in (EXPORT_TEMPLATE, QUANTISED_TEMPLATE):
                _omit_weights(model)
            self._write_graph(self.folder / name, model)
        self.seal(checkpoint, manifest)

    @contextmanager
    def scratch(self, model: ir.Model) -> Iterator[Path]:
        """A graph as a file within the block, to be run; it will not be part of the bundle."""
        path = self.folder / "scratch.onnx"
        self._write_graph(path, model)
        try:
            yield path
        finally:
            path.unlink()

    def _write_graph(self, path: Path, model: ir.Model) -> None:
        proto = ir.to_proto(model)
        proto.producer_name = "csk-sdk"
        require_writable(proto.ByteSize(), path.name)
        with self.writing():
            path.write_bytes(proto.SerializeToString(deterministic=True))

    def write_tensors(self, name: str, tensors: Mapping[str, NDArray[Any]]) -> None:
        """Write another safetensors file."""
        with self.writing():
            write_tensors(self.folder / name, tensors)

    def seal(self, checkpoint: Mapping[str, NDArray[Any]], manifest: Manifest) -> None:
        """Write (or replace) the checkpoint, and the manifest with the hash of every file."""
        with self.writing():
            write_tensors(self.folder / CHECKPOINT, checkpoint)
            files = {
                path.relative_to(self.folder).as_posix(): _entry(path)
                for path in sorted(self.folder.rglob("*"))
                if path.is_file() and path.name != MANIFEST
            }
            # Bytes: on Windows, text would get other line ends than those that were sealed.
            (self.folder / MANIFEST).write_bytes(replace(manifest, files=files).to_json().encode())

    def publish(self, key: Path | None = None) -> None:
        """Move the bundle to its place, signed by the private key in the PEM file `key` if there is one."""
        with self.writing():
            if key is not None:
                signature = sign(read_manifest(self.folder), key)
                (self.folder / SIGNATURE).write_bytes(signature)
            replace_folder(self.folder, self.out)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Within the block, what the disk refuses is a StorageError."""
        with _told(self.out):
            yield


@contextmanager
def _told(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise StorageError(
            f"The bundle could not be written to {out} ({reason}). Nothing was left behind."
        ) from None


def _building(out: Path) -> str:
    """How the names of drafts of the bundle `out` begin."""
    return f".{out.name}.building-"


def _clear_abandoned(out: Path) -> None:
    """Remove the drafts of builds that were killed."""
    for draft in out.parent.glob(f"{glob.escape(_building(out))}*"):
        with suppress(OSError):
            if time.time() - draft.stat().st_mtime > _ABANDONED_SECONDS:
                remove_folder(draft)


_TYPES = {"float32": "F32", "float64": "F64", "int64": "I64", "uint8": "U8"}


def write_tensors(path: Path, tensors: Mapping[str, NDArray[Any]]) -> dict[str, int]:
    """Write a safetensors file, tensor by tensor; where each one's bytes begin in it.

    Format: length of the header, the header as JSON, the data. safetensors' own writers first make one copy of all
    data, or files that only their owner can read. Wide types come first, so that every tensor is aligned.
    """
    order = sorted(tensors, key=lambda name: (-tensors[name].itemsize, name))
    header: dict[str, Any] = {}
    end = 0
    for name in order:
        array = tensors[name]
        begin, end = end, end + array.nbytes
        header[name] = {
            "dtype": _TYPES[array.dtype.name],
            "shape": list(array.shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in order:
            array = np.asarray(tensors[name], tensors[name].dtype.newbyteorder("<"), order="C")
            file.write(array.data if array.size else b"")
    return {name: 8 + len(text) + entry["data_offsets"][0] for name, entry in header.items()}


def _point_to_weights(
    model: ir.Model, folder: Path, weights: Mapping[str, NDArray[np.float32]], offsets: Mapping[str, int]
) -> None:
    for name, array in weights.items():
        value = model.graph.initializers.get(name)
        if value is not None:
            value.const_value = ir.ExternalTensor(
                WEIGHTS,
                offsets[name],
                array.nbytes,
                ir.DataType.FLOAT,
                shape=ir.Shape(array.shape),
                name=name,
                base_dir=folder,
            )


def _omit_weights(model: ir.Model) -> None:
    """Leave the tensors of weights.safetensors undefined."""
    for name, value in list(model.graph.initializers.items()):
        if isinstance(value.const_value, ir.ExternalTensor):
            del model.graph.initializers[name]
            value.const_value = None


def _entry(path: Path) -> FileEntry:
    with open_file(path) as file:
        return FileEntry(hashlib.file_digest(file, "sha256").hexdigest(), path.stat().st_size)
