"""`try_model`: what a build would come to, said without writing anything."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir

from csk_artifacts_builder.describe import pixels_said, warnings_about
from csk_artifacts_builder.int8.calibrate import Agreement
from csk_artifacts_builder.measure.verify import same_logits
from csk_artifacts_builder.options import BuildOptions
from csk_artifacts_builder.planning.plan import Plan, plan_build
from csk_artifacts_builder.prepare.model import SourceModel
from csk_artifacts_builder.prepare.source_facts import CONVOLUTIONS, SourceFacts
from csk_artifacts_builder.prepare.source_file import require_writable
from csk_sdk.contract.manifest import Manifest
from csk_sdk.network.inspection import Inspection, summary_of
from csk_sdk.runtime.allocator import returning_memory

TRAINED, FROZEN, LEFT_OUT = "trained", "frozen", "left out"
_OPSET = 17


@dataclass(frozen=True)
class Convolution:
    """One convolution of the model, by its node's name, and what becomes of it: "trained", "frozen" or "left out".

    `kernel` is its shape `(output channels, input channels of a group, ...)`, and `output_size` that of its output's
    image, both () where they are not known; `channels` are those of its input and output. `reason` is why it is left
    out, or frozen.
    """

    node: str
    kernel: tuple[int, ...]
    channels: tuple[int, ...]
    output_size: tuple[int, ...]
    fate: str
    reason: str = ""


@dataclass(frozen=True)
class TrialHead:
    """The classifier, by its node's name: it sees `features` of an image, `own` of which the model has itself.

    `activation` is the op that makes probabilities of its logits, None without.
    """

    node: str
    features: int
    own: int
    activation: str | None


@dataclass(frozen=True)
class Trial:
    """What a build of a model would come to. Immutable.

    - `manifest`: the bundle's, as far as it is known before anything is measured on base data
    - `file`: what the file says of itself; `size`: its bytes, without tensors in other files
    - `convolutions`: every one that the file has, in its order; `head`: the classifier
    - `front`: the ops in front of the first layer, which stay in the graph: scaling, resizing, order of channels
    - `prepared`: sentences on what becomes other than it stands in the file
    - `warnings`: what `build_artifacts` would warn of, except that there are no base data
    - `agreement`: of int8 with exact, None for exact
    """

    manifest: Manifest
    file: SourceFacts
    size: int
    convolutions: tuple[Convolution, ...]
    head: TrialHead
    front: tuple[str, ...]
    prepared: tuple[str, ...]
    warnings: tuple[str, ...]
    agreement: Agreement | None = None

    @property
    def inspection(self) -> Inspection:
        """What `csk-sdk inspect` would say of the bundle; no files."""
        return summary_of(self.manifest, {})

    def to_json(self) -> dict[str, Any]:
        """Plain values for `try --json`."""
        shown = self.inspection.to_json()
        for name in ("files", "base_protected", "producer", "counter", "schema_version"):
            del shown[name]  # of a bundle, and there is none
        file = {"producer": self.file.producer, "opset": self.file.opset, "nodes": self.file.nodes}
        return {
            "file": {**file, "bytes": self.size},
            "head": asdict(self.head),
            "front": list(self.front),
            "convolutions": [asdict(one) for one in self.convolutions],
            "prepared": list(self.prepared),
            "agreement": asdict(self.agreement) if self.agreement else None,
            "warnings": list(self.warnings),
            **shown,
        }


def try_model(model: Path | str, options: BuildOptions | None = None) -> Trial:
    """Say what `build_artifacts` with these options would build of `model`. Writes nothing.

    The prepared graph is compared with the file as in a build, on random images, and on some of `options.base_data`.
    Raises ModelError for a model that cannot be trained (UnsupportedOpError names the op), ConfigError for options that
    do not fit it, TaskError for base data that does not fit: the sentences of `build_artifacts`.
    """
    options = options or BuildOptions()
    with returning_memory():
        plan = plan_build(Path(model), options)
        source = plan.source
        tensors = [value.const_value for value in source.model.graph.initializers.values()]
        weights = sum(tensor.nbytes for tensor in tensors if tensor is not None)
        require_writable(weights, source.path.name)
        prepared = ir.to_proto(source.model).SerializeToString()
        inexact = same_logits(source, prepared, plan.head.activation, plan.real_images())
    return _told(plan, options, inexact)


def _told(plan: Plan, options: BuildOptions, inexact: tuple[str, ...]) -> Trial:
    source, manifest = plan.source, plan.manifest
    scaled = pixels_said(options, source) if not manifest.input.is_signal else ()
    about = warnings_about(options, manifest, None, plan.mixed, bool(scaled))
    head = plan.head
    return Trial(
        manifest=manifest,
        file=source.facts,
        size=source.path.stat().st_size,
        convolutions=tuple(_convolutions(source, manifest)),
        head=TrialHead(str(head.node.name), head.weight.shape[1], plan.own_features, head.activation),
        front=source.front,
        prepared=(*_changes(source), *source.notes, *inexact, *scaled),
        warnings=(*source.warnings, *about),
        agreement=plan.agreement,
    )


def _convolutions(source: SourceModel, manifest: Manifest) -> Iterator[Convolution]:
    """In the file's order; those that preparation added come last."""
    reasons = {one.node: one.reason for one in manifest.left_out}
    trained = {site.node for site in manifest.sites}
    present = {str(node.name): node for node in source.model.graph if node.op_type in CONVOLUTIONS}
    for one in source.facts.convolutions:
        node = present.pop(one.node, None)
        if node is None:
            yield Convolution(one.node, one.kernel, (), (), LEFT_OUT, reasons.get(one.node, ""))
        else:
            yield _present(node, trained, reasons, manifest.choice)
    for node in present.values():
        yield _present(node, trained, reasons, manifest.choice)


def _present(node: ir.Node, trained: set[str], reasons: dict[str, str], choice: str) -> Convolution:
    name = str(node.name)
    fate = TRAINED if name in trained else LEFT_OUT if name in reasons else FROZEN
    reason = "" if fate == TRAINED else reasons.get(name, f"trained are {choice}")
    kernel, x, y = (_known(value) for value in (node.inputs[1], node.inputs[0], node.outputs[0]))
    return Convolution(name, kernel, (*x[:1], *y[:1]), y[1:], fate, reason)


def _known(value: ir.Value | None) -> tuple[int, ...]:
    """A shape without its batch where that is open; () where more of it is."""
    sizes = list(value.shape) if value is not None and value.shape is not None else []
    known = tuple(size for size in sizes if isinstance(size, int))
    return known if sizes and len(known) >= len(sizes) - 1 else ()


def _changes(source: SourceModel) -> Iterator[str]:
    """What preparation does without a warning, because nobody needs to act on it."""
    facts, interface = source.facts, source.interface
    if facts.opset != _OPSET:
        yield f"opset {facts.opset} is read as opset {_OPSET}."
    if facts.batch_norms:
        norms = (
            "1 batch norm becomes" if facts.batch_norms == 1 else f"{facts.batch_norms} batch norms become"
        )
        yield f"{norms} part of the convolutions in front of them, or factors and sums."
    if interface.half:
        yield "float16 becomes float32; exports take and give what the file does."
    if interface.channels_last:
        yield "the channels, which the file has last, come first; exports have them last again."
