"""The bundle's manifest: what is in it, and how to drive its graphs.

Plain frozen dataclasses that read from and write to JSON. Nothing here touches tensors.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from csk_sdk.contract.settings import SETTINGS
from csk_sdk.errors import BundleError
from csk_sdk.formats.schema import load_schema, parse_json, violation

SCHEMA_VERSION = 3
# What a bundle says that has none of what came later: devices with an older csk-sdk read it.
_BEFORE_KERNELS = 2
_UNSEALED = "0" * 64

# What makes full scale 1: of a uint8 pixel, and of an int16 sample.
PICTURE_SCALE = 1.0 / 255.0
SIGNAL_SCALE = 1.0 / 32768.0

# Of an image, as the classifier sees it: `maximum` in the schema.
MOST_FEATURES = 1 << 15

TRAINING_MODEL = "training_model.onnx"
EVAL_MODEL = "eval_model.onnx"
MEMORY_MODEL = "memory_model.onnx"
# The network cut in front of its first site: up to there, and the training and memory model from there on.
PREFIX_MODEL = "prefix_model.onnx"
TRAINING_SUFFIX = "training_suffix.onnx"
MEMORY_SUFFIX = "memory_suffix.onnx"
# What a domain's images are seen through, and what is measured of them; how base images are.
DOMAIN_MODEL = "domain_model.onnx"
DOMAIN_STATISTICS = "domain_statistics.onnx"
DOMAIN_CHANNELS = "domain_channels.safetensors"
EXPORT_TEMPLATE = "export_template.onnx"
QUANTISED_TEMPLATE = "export_template_int8.onnx"
WEIGHTS = "weights.safetensors"
CHECKPOINT = "checkpoint.safetensors"
# How what was learned on another bundle is carried over to this one.
UPGRADE = "upgrade.safetensors"
MANIFEST = "manifest.json"
# The artifacts of onnxruntime-training, under the names that it gives them.
ORT_FOLDER = "ort"
ORT_TRAINING_MODEL = f"{ORT_FOLDER}/training_model.onnx"
ORT_EVAL_MODEL = f"{ORT_FOLDER}/eval_model.onnx"
ORT_CHECKPOINT = f"{ORT_FOLDER}/checkpoint"

PORTABLE, ORT_TRAINING = BACKENDS = ("portable", "ort-training")
EXACT, INT8 = PRECISIONS = ("exact", "int8")
# The bias of a class that the ort-training head has room for and no use: its softmax is exactly 0.
UNUSED_CLASS = -1e30

# What tensors of a quantised layer are called: the float one's name and, as onnxruntime.quantization has it,
KERNEL, KERNEL_SCALE, KERNEL_ZERO = "_quantized", "_scale", "_zero_point"
BIAS, BIAS_SCALE = "_quantized", "_quantized_scale"

# What tasks train, by the setting `train`.
CENTERS, KERNELS = SETTINGS["train"].choices[-2:]

# What a head is trained for: the losses of csk_artifacts_builder/graphs/losses.py, and their names on a command line.
CROSS_ENTROPY = "cross-entropy"
BINARY_CROSS_ENTROPY = "binary-cross-entropy"
MSE = "mse"

# The training model's inputs that have to do with the loss; the last two, of cross-entropy, have defaults.
LABEL = "label"
LABEL_SMOOTHING = "label_smoothing"
CLASS_MASK = "class_mask"

# Inputs and outputs of a domain's graphs, of all channels of all convolutions.
DOMAIN_SCALE, DOMAIN_SHIFT = "domain_scale", "domain_shift"
DOMAIN_MEAN, DOMAIN_DEVIATION = "domain_mean", "domain_deviation"
CHANNEL_MEAN, CHANNEL_VARIANCE = "channel_mean", "channel_variance"


@dataclass(frozen=True)
class Site:
    """One convolution whose kernel center is trainable, or where it is `whole`, its kernel.

    `delta`, `indices` are inputs of the training, eval and memory model; `gradient` is an output of the
    training model; `moment` is an output of the memory model. Shapes: delta and gradient
    `(c_out // groups, k)` float32, indices `(k,)` int64, moment `(groups, width, width)` float32. Column `j` of a delta
    is the change of column `indices[j]`, for the output channels of its group: the center of that input channel, or
    of a whole kernel, channel `indices[j] // taps` at position `indices[j] % taps`.
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
    whole: bool = False

    @property
    def rows(self) -> int:
        """Number of output channels that one input channel feeds: `c_out // groups`."""
        return self.shape[0] // self.groups

    @property
    def taps(self) -> int:
        """How many positions of the kernel are trainable: its center, or all, row-major."""
        return math.prod(self.shape[2:]) if self.whole else 1

    @property
    def width(self) -> int:
        """What of a kernel one output channel can learn: `c_in / groups` times `taps`."""
        return self.shape[1] * self.taps

    @property
    def columns(self) -> int:
        """What tasks select from: `c_in` times `taps`, the groups one after the other."""
        return self.width * self.groups

    @property
    def center(self) -> str:
        """Name of the center's parameter in the ort-training artifacts."""
        return f"{self.name}.center"


@dataclass(frozen=True)
class Candidate:
    """A convolution that could have been a site: whether it is one, and its measured knowledge intensity.

    `intensity` is that of its center, as csk_artifacts_builder/analysis/intensity.py defines it; None if not measured.
    """

    name: str
    shape: tuple[int, ...]
    chosen: bool
    intensity: float | None = None


@dataclass(frozen=True)
class LeftOut:
    """A convolution that cannot be a site, by its node's name, and why, in a few words."""

    node: str
    reason: str


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
    """The input of every graph: float32, `(n, channels, *size)`.

    `size` is `(height, width)` of an image, or `(length,)` of a signal. The input is called "image" for both.
    """

    name: str
    channels: int
    size: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one image or signal in the graphs: `(channels, *size)`."""
        return self.channels, *self.size

    @property
    def is_signal(self) -> bool:
        """Whether the model takes signals, `(n, channels, length)`."""
        return len(self.size) == 1

    @property
    def noun(self) -> str:
        """What messages call one input: "image" or "signal"."""
        return "signal" if self.is_signal else "image"


@dataclass(frozen=True)
class PreprocessingSpec:
    """How a uint8 image or a signal becomes the model's input: resize, `x * scale`, minus mean, over std.

    `resize` is `"bilinear"` (images: stretch to height x width), `"crop"` (signals: the middle of a longer one,
    zeros around a shorter one) or `"none"` (another size is an error). `mean` and `std` hold one number per channel,
    in units of the scaled number. Of signals only int16 samples are scaled; floats are taken as they are.
    `sample_rate` is what recordings with a rate of their own must have, in Hz; None where the model's is not known.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    scale: float = PICTURE_SCALE
    resize: str = "bilinear"
    sample_rate: int | None = None


@dataclass(frozen=True)
class QuantisedLayer:
    """A layer that an export in int8 holds as integers: its kernel as int8, its bias as int32.

    `weight` and `bias` are the names of the float tensors, `bias` "" where there is none. `axis` is the kernel's axis
    with a scale of its own for each output, -1 for one scale. No integer is larger than `largest`. `input_scale` is
    that of what the layer reads.
    """

    weight: str
    bias: str
    axis: int
    largest: int
    input_scale: float


@dataclass(frozen=True)
class ProbeSpec:
    """Level and contrast of the base data: mean and deviation of each channel, in the graphs' units.

    Probes are drawn like it (csk_sdk/device/probe.py), and `agreement` was measured on such a one.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class FileEntry:
    """Integrity record of one file of the bundle."""

    sha256: str
    size: int


@dataclass(frozen=True)
class UpgradeFrom:
    """Which bundle's knowledge can be carried over to this one, by its id, and how well; `upgrade.safetensors` has how.

    `model` and `features` are that bundle's, `images` how many base images the map was fitted on. `kept` counts the
    features of this bundle that are features of that one; `explained` is the share of all features' variance that the
    map tells of classes that it has not seen.
    """

    bundle: str
    model: str
    features: int
    images: int
    kept: int
    explained: float


@dataclass(frozen=True)
class Manifest:
    """Everything a device must know about a bundle before it opens a graph.

    `loss` says what the head's outputs are: one decision over `classes`, a yes or no to each of them, or numbers
    (`classes` then holds the targets' names).
    `kernels` names, for each graph file, the sites' weights that it reads; `weights_in_export` the tensors of
    weights.safetensors that the export template lacks. `costs` counts parameters, and FLOPs and
    kept bytes of a training step per image (csk_artifacts_builder/measure/costs.py), and `memory` predicts the bytes
    that learning takes at this batch size (csk_artifacts_builder/measure/memory.py); empty where they are not known.
    `step_memory` are the bytes of a step's activations for "one" input, and for "each" further one.
    `memory_budget` is what the build was told to stay within, in bytes.
    `head_capacity` is how many classes a task may have with the ort-training backend, 0 without its artifacts.
    `counter` grows from one signed bundle to the next, 0 where it has none: csk_sdk/bundle/accepted.py.
    `op_domains` are the domains of the ops that the graphs may have.
    `prefix` is the shape of one image's features in front of the first site, `()` where the bundle has no graphs
    cut there. `precisions` are those that there are graphs for, the default, `precision`, first; of an older bundle,
    which has that one only, `()`. `agreement` is how far int8 was from exact on a probe, which is drawn
    as `probe` says; None for exact, and in older bundles, whose `agreement` is of another probe. `in_float` are the
    convolutions that stay in float32 in the int8 graphs, by node name: features at the cut are float16 there, too.
    `candidates` are all convolutions that could be trained, in graph order, `choice` says why the sites are
    those that they are, and `left_out` are all other convolutions. `upgrade` says from which bundle what a device
    knows can be carried over, None where from none. `quantised` are the layers of the int8 export template, of a bundle
    that was built from a quantised model; else there are none. `domain_channels` is how many channels all convolutions
    have together, where the bundle has graphs for domains (docs/domains.md); else 0.
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
    prefix: tuple[int, ...] = ()
    precisions: tuple[str, ...] = ()
    agreement: dict[str, float] = field(default_factory=dict)
    in_float: tuple[str, ...] = ()
    probe: ProbeSpec | None = None
    loss: str = CROSS_ENTROPY
    precision: str = EXACT
    backends: tuple[str, ...] = (PORTABLE,)
    head_capacity: int = 0
    counter: int = 0
    op_domains: tuple[str, ...] = ("ai.onnx",)
    weights_in_export: tuple[str, ...] = ()
    kernels: dict[str, tuple[str, ...]] = field(default_factory=dict)
    costs: dict[str, int] = field(default_factory=dict)
    candidates: tuple[Candidate, ...] = ()
    choice: str = ""
    left_out: tuple[LeftOut, ...] = ()
    quantised: tuple[QuantisedLayer, ...] = ()
    memory: dict[str, int] = field(default_factory=dict)
    step_memory: dict[str, int] = field(default_factory=dict)
    memory_budget: int | None = None
    upgrade: UpgradeFrom | None = None
    domain_channels: int = 0
    files: dict[str, FileEntry] = field(default_factory=dict)
    producer: str = ""
    schema_version: int = SCHEMA_VERSION

    def to_json(self) -> str:
        """Serialise as indented JSON with a stable key order, sealed by `sealed`.

        A bundle without whole kernels is written as before there were any.
        """
        content = asdict(self)
        if not self.whole_kernels:
            content["schema_version"] = min(self.schema_version, _BEFORE_KERNELS)
            for site in content["sites"]:
                del site["whole"]
        return sealed(content)

    @property
    def whole_kernels(self) -> bool:
        """Whether whole kernels are trainable, and not their centers alone."""
        return any(site.whole for site in self.sites)

    @property
    def trained(self) -> str:
        """What a task trains that does not leave the backbone as it is: "centers" or "kernels", as `train` says it."""
        return KERNELS if self.whole_kernels else CENTERS

    @classmethod
    def from_json(cls, text: str, where: str) -> Manifest:
        """Parse; `where` names the file in errors.

        Raises BundleError when it is no JSON, of a newer schema, or not as `contract/manifest.schema.json` has it.
        """
        try:
            raw = parse_json(text)
        except (ValueError, RecursionError):
            raise BundleError(f"{where} is not valid JSON; build the bundle again.") from None
        seal = raw.get("seal") if isinstance(raw, dict) else None
        version = raw.get("schema_version") if isinstance(raw, dict) else None
        if type(version) is not int:
            raise BundleError(f"{where} has no schema_version; it is not a csk-sdk bundle.")
        if version > SCHEMA_VERSION:
            raise BundleError(
                f"{where} has schema {version}, and this csk-sdk reads up to {SCHEMA_VERSION}: "
                "update csk-sdk on this device, or build the bundle with an older one."
            )
        if not isinstance(seal, str) or not seal or _digest(text.replace(seal, _UNSEALED)) != seal:
            raise BundleError(
                f"{where} was changed after it was built: its seal does not match. Copy the bundle again."
            )
        raw["input"] = _modern_input(raw.get("input"))
        wrong = violation(raw, load_schema("manifest"))
        if wrong is not None:
            raise BundleError(f"{where}: {wrong}. Build the bundle again, or update csk-sdk on this device.")
        return cls(
            **{
                **{f.name: _tupled(raw[f.name]) for f in fields(cls) if f.name in raw},
                "input": InputSpec(**_tupled_values(raw["input"])),
                "preprocessing": PreprocessingSpec(**_tupled_values(raw["preprocessing"])),
                "head": Head(**raw["head"]),
                "sites": tuple(Site(**_tupled_values(site)) for site in raw["sites"]),
                "candidates": tuple(Candidate(**_tupled_values(one)) for one in raw.get("candidates", ())),
                "left_out": tuple(LeftOut(**one) for one in raw.get("left_out", ())),
                "upgrade": UpgradeFrom(**raw["upgrade"]) if raw.get("upgrade") else None,
                "probe": ProbeSpec(**_tupled_values(raw["probe"])) if raw.get("probe") else None,
                "quantised": tuple(QuantisedLayer(**one) for one in raw.get("quantised", ())),
                "kernels": {name: tuple(kernels) for name, kernels in raw["kernels"].items()},
                "files": {name: FileEntry(**entry) for name, entry in raw["files"].items()},
            }
        )


def exact_twin(name: str) -> str:
    """The file of a graph in float32, in a bundle whose `precision` is int8."""
    return f"exact_{name}"


def sealed(content: dict[str, Any]) -> str:
    """A manifest's text with its own sha256 in it, so that no byte can change unnoticed.

    `seal` is the hash of the whole text with zeros in the seal's place.
    """
    text = json.dumps({**content, "seal": _UNSEALED}, indent=1) + "\n"
    return text.replace(_UNSEALED, _digest(text))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _modern_input(raw: Any) -> Any:
    """Schema 1 knew images only, and wrote `height` and `width` for `size`."""
    if not isinstance(raw, dict) or "height" not in raw:
        return raw
    rest = {name: value for name, value in raw.items() if name not in ("height", "width")}
    return {**rest, "size": [raw["height"], raw.get("width")]}


def _tupled(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _tupled_values(mapping: dict[str, Any]) -> dict[str, Any]:
    return {key: _tupled(value) for key, value in mapping.items()}
