"""The bundle's manifest: what is in it, and how to drive its graphs.

Plain frozen dataclasses that read from and write to JSON. Nothing here touches tensors.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from csk_sdk.errors import BundleError
from csk_sdk.typed import mistyped

SCHEMA_VERSION = 1
_UNSEALED = "0" * 64

TRAINING_MODEL = "training_model.onnx"
EVAL_MODEL = "eval_model.onnx"
MEMORY_MODEL = "memory_model.onnx"
EXPORT_TEMPLATE = "export_template.onnx"
WEIGHTS = "weights.safetensors"
CHECKPOINT = "checkpoint.safetensors"
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Site:
    """One convolution whose kernel center is trainable.

    `delta`, `indices` are inputs of the training, eval and memory model; `gradient` is an output of the
    training model; `moment` is an output of the memory model. Shapes: delta and gradient
    `(c_out // groups, k)` float32, indices `(k,)` int64, moment `(groups, c_in / groups, c_in / groups)`
    float32. Column `j` of a delta is the change of the center column of input channel `indices[j]`, for
    the output channels of that channel's group.
    """

    name: str
    node: str
    weight: str
    shape: tuple[int, ...]
    groups: int
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    pads: tuple[int, ...]
    input_size: tuple[int, ...]
    output_size: tuple[int, ...]
    delta: str
    indices: str
    gradient: str
    moment: str

    @property
    def rows(self) -> int:
        """Number of output channels that one input channel feeds: `c_out // groups`."""
        return self.shape[0] // self.groups

    @property
    def channels(self) -> int:
        """Number of input channels, `c_in`."""
        return self.shape[1] * self.groups


@dataclass(frozen=True)
class Head:
    """The linear classifier: `logits = features @ weight.T + bias`, given as graph inputs.

    weight `(n_classes, features)` float32, bias `(n_classes,)` float32; both class counts are dynamic.
    """

    features: int
    weight: str = "head.weight"
    bias: str = "head.bias"
    weight_gradient: str = "head.weight.gradient"
    bias_gradient: str = "head.bias.gradient"
    source_weight: str = ""
    source_bias: str = ""


@dataclass(frozen=True)
class InputSpec:
    """The image input of every graph: float32, `(n, channels, height, width)`."""

    name: str
    channels: int
    height: int
    width: int


@dataclass(frozen=True)
class PreprocessingSpec:
    """How a uint8 picture becomes the model's input: resize, `x * scale`, minus mean, over std.

    `resize` is `"bilinear"` (stretch to height x width) or `"none"` (another size is an error).
    `mean` and `std` hold one number per channel, in units of the scaled pixel.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    scale: float = 1.0 / 255.0
    resize: str = "bilinear"


@dataclass(frozen=True)
class FileEntry:
    """Integrity record of one file of the bundle."""

    sha256: str
    size: int


@dataclass(frozen=True)
class Manifest:
    """Everything a device must know about a bundle before it opens a graph.

    `kernels` names, for each graph file, the sites' weights that it reads; `weights_in_export` the tensors of
    weights.safetensors that the export template lacks. `costs` counts parameters, and FLOPs and
    kept bytes of a training step per image (csk_artifacts_builder/costs.py); empty where they are not known.
    `op_domains` are the domains of the ops that the graphs may have.
    """

    model: str
    classes: tuple[str, ...]
    input: InputSpec
    preprocessing: PreprocessingSpec
    head: Head
    sites: tuple[Site, ...]
    base_protected: bool
    channel_ratio: float
    batch_size: int
    flip: bool = True
    precision: str = "exact"
    backends: tuple[str, ...] = ("portable",)
    op_domains: tuple[str, ...] = ("ai.onnx",)
    weights_in_export: tuple[str, ...] = ()
    kernels: dict[str, tuple[str, ...]] = field(default_factory=dict)
    costs: dict[str, int] = field(default_factory=dict)
    files: dict[str, FileEntry] = field(default_factory=dict)
    producer: str = ""
    schema_version: int = SCHEMA_VERSION

    def to_json(self) -> str:
        """Serialise as indented JSON with a stable key order, sealed by `sealed`."""
        return sealed(asdict(self))

    @classmethod
    def from_json(cls, text: str, where: str) -> Manifest:
        """Parse; `where` names the file in errors.

        Raises BundleError when it is no JSON, of a newer schema, or lacks a field.
        """
        try:
            raw = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise BundleError(f"{where} is not valid JSON ({error}); build the bundle again.") from None
        seal = raw.get("seal") if isinstance(raw, dict) else None
        version = raw.get("schema_version") if isinstance(raw, dict) else None
        if type(version) is not int:
            raise BundleError(f"{where} has no schema_version; it is not a csk-sdk bundle.")
        if version > SCHEMA_VERSION:
            raise BundleError(
                f"{where} has schema {version}, and this csk-sdk reads up to {SCHEMA_VERSION}: "
                "update csk-sdk on this device, or build the bundle with an older one."
            )
        if not isinstance(seal, str) or _digest(text.replace(seal, _UNSEALED)) != seal:
            raise BundleError(
                f"{where} was changed after it was built: its seal does not match. Copy the bundle again."
            )
        try:
            manifest = cls(
                **{
                    **{f.name: _tupled(raw[f.name]) for f in fields(cls) if f.name in raw},
                    "input": InputSpec(**raw["input"]),
                    "preprocessing": PreprocessingSpec(**_tupled_values(raw["preprocessing"])),
                    "head": Head(**raw["head"]),
                    "sites": tuple(Site(**_tupled_values(site)) for site in raw["sites"]),
                    "kernels": {name: tuple(kernels) for name, kernels in raw["kernels"].items()},
                    "files": {name: FileEntry(**entry) for name, entry in raw["files"].items()},
                }
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise BundleError(
                f"{where} lacks or misnames a field ({error}); build the bundle again."
            ) from None
        if (wrong := mistyped(manifest)) is not None:
            raise BundleError(f"{where} has a value of a wrong type in '{wrong}'; build the bundle again.")
        return manifest


def sealed(content: dict[str, Any]) -> str:
    """A manifest's text with its own sha256 in it, so that no byte can change unnoticed.

    `seal` is the hash of the whole text with zeros in the seal's place.
    """
    text = json.dumps({**content, "seal": _UNSEALED}, indent=1) + "\n"
    return text.replace(_UNSEALED, _digest(text))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _tupled(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _tupled_values(mapping: dict[str, Any]) -> dict[str, Any]:
    return {key: _tupled(value) for key, value in mapping.items()}
