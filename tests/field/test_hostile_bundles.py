"""Bundles made to harm: each is refused in one sentence, though its seal and every hash in its manifest are right."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from safetensors.numpy import load_file

from csk_sdk import Bundle, BundleError, Learner, TrainingConfig
from csk_sdk.contract.manifest import MANIFEST, sealed
from csk_sdk.formats import protobuf
from csk_sdk.runtime.sessions import Graph
from csk_sdk.state.tensorfile import packed


@dataclasses.dataclass
class Hostile:
    """A copy of a good bundle, to be changed; `finish` makes its manifest right again."""

    folder: Path
    raw: dict[str, Any]

    def __truediv__(self, name: str) -> Path:
        return self.folder / name

    def edit(self, **changes: Any) -> None:
        self.raw.update(changes)

    def graph(self, change: Callable[[onnx.ModelProto], None], name: str = "eval_model.onnx") -> None:
        model = onnx.load(self / name, load_external_data=False)
        change(model)
        (self / name).write_bytes(model.SerializeToString())

    def list(self, name: str) -> None:
        self.raw["files"][name] = {"sha256": "0" * 64, "size": 1}

    def finish(self) -> None:
        for name, entry in self.raw["files"].items():
            path = self.folder / name
            if entry["size"] != 1 and path.is_file():
                content = path.read_bytes()
                entry.update(sha256=hashlib.sha256(content).hexdigest(), size=len(content))
        (self.folder / MANIFEST).write_text(sealed(self.raw))


@pytest.fixture
def hostile(tmp_path: Path, digits_bundle: Path) -> Hostile:
    folder = Path(shutil.copytree(digits_bundle, tmp_path / "bundle"))
    return Hostile(folder, json.loads((folder / MANIFEST).read_text()))


def lists(name: str) -> Callable[[Hostile], None]:
    return lambda bundle: bundle.list(name)


def manifest(**changes: Any) -> Callable[[Hostile], None]:
    return lambda bundle: bundle.edit(**changes)


def of(part: str, **changes: Any) -> Callable[[Hostile], None]:
    return lambda bundle: bundle.raw[part].update(changes)


def of_site(**changes: Any) -> Callable[[Hostile], None]:
    return lambda bundle: bundle.raw["sites"][0].update(changes)


def link_out(bundle: Hostile) -> None:
    outside = bundle.folder.parent / "elsewhere.onnx"
    shutil.move(bundle / "eval_model.onnx", outside)
    (bundle / "eval_model.onnx").symlink_to(outside)


def link_in_folder(bundle: Hostile) -> None:
    outside = bundle.folder.parent / "outside"
    outside.mkdir()
    shutil.copy(bundle / "eval_model.onnx", outside / "more.onnx")
    (bundle / "sub").symlink_to(outside)
    bundle.raw["files"]["sub/more.onnx"] = {"sha256": "0" * 64, "size": 0}


def fifo(bundle: Hostile) -> None:
    (bundle / "eval_model.onnx").unlink()
    os.mkfifo(bundle / "eval_model.onnx")


def swapped(bundle: Hostile) -> None:
    bundle.finish()
    one, other = bundle / "eval_model.onnx", bundle / "training_model.onnx"
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)
    bundle.raw["files"] = json.loads((bundle / MANIFEST).read_text())["files"]
    for name in ("eval_model.onnx", "training_model.onnx"):
        bundle.raw["files"][name]["size"] = 1


def unlisted(bundle: Hostile) -> None:
    del bundle.raw["files"]["checkpoint.safetensors"]


def node(op: str, domain: str) -> Callable[[Hostile], None]:
    def change(model: onnx.ModelProto) -> None:
        model.graph.node.append(helper.make_node(op, ["image"], ["odd"], domain=domain))

    return lambda bundle: bundle.graph(change)


def nested(op: str, domain: str) -> Callable[[Hostile], None]:
    def change(model: onnx.ModelProto) -> None:
        inner = helper.make_graph(
            [helper.make_node(op, [], ["y"], domain=domain)],
            "inner",
            [],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
        )
        outer = helper.make_node("If", ["image"], ["odd"], then_branch=inner, else_branch=inner)
        model.graph.node.append(outer)

    return lambda bundle: bundle.graph(change)


def nested_deep(bundle: Hostile) -> None:
    # By hand: onnx itself refuses to write it. Appended, so it also shows that messages merge.
    graph = b""
    for _ in range(5000):
        graph = protobuf.field(1, protobuf.field(5, protobuf.field(6, graph)))
    with (bundle / "eval_model.onnx").open("ab") as file:
        file.write(protobuf.field(7, graph))


def appended_node(bundle: Hostile) -> None:
    graph = protobuf.field(1, protobuf.field(4, b"Steal") + protobuf.field(7, b"evil.ops"))
    with (bundle / "eval_model.onnx").open("ab") as file:
        file.write(protobuf.field(7, graph))


def function(bundle: Hostile) -> None:
    def change(model: onnx.ModelProto) -> None:
        made = helper.make_function("", "Relu", ["x"], ["y"], [], [helper.make_opsetid("", 17)])
        model.functions.append(made)

    bundle.graph(change)


def graph(more: bytes) -> Callable[[Hostile], None]:
    """Appended to the eval model's graph: messages merge."""

    def act(bundle: Hostile) -> None:
        with (bundle / "eval_model.onnx").open("ab") as file:
            file.write(protobuf.field(7, more))

    return act


def value(name: bytes, size: int, kind: int = TensorProto.FLOAT) -> bytes:
    """A ValueInfoProto with one free and one fixed size."""
    shape = protobuf.field(1, protobuf.field(2, b"N")) + protobuf.field(1, bytes([8]) + protobuf.varint(size))
    return protobuf.field(1, name) + protobuf.field(
        2, protobuf.field(1, bytes([8, kind]) + protobuf.field(2, shape))
    )


def renamed(bundle: Hostile) -> None:
    def change(model: onnx.ModelProto) -> None:
        model.graph.output[1].name = "other"

    bundle.graph(change)


def external(location: str, **more: str) -> Callable[[Hostile], None]:
    def change(model: onnx.ModelProto) -> None:
        tensor = TensorProto(name="odd", data_type=TensorProto.FLOAT, dims=[1])
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in {"location": location, **more}.items():
            tensor.external_data.add(key=key, value=value)
        model.graph.initializer.append(tensor)

    return lambda bundle: bundle.graph(change)


def external_in_constant(bundle: Hostile) -> None:
    def change(model: onnx.ModelProto) -> None:
        tensor = TensorProto(name="odd", data_type=TensorProto.FLOAT, dims=[1])
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="/etc/passwd")
        model.graph.node.append(helper.make_node("Constant", [], ["odd"], value=tensor))

    bundle.graph(change)


def content(name: str, data: bytes) -> Callable[[Hostile], object]:
    return lambda bundle: (bundle / name).write_bytes(data)


def header(name: str, raw: Any, data: bytes = b"", length: int | None = None) -> Callable[[Hostile], object]:
    text = json.dumps(raw).encode()
    return content(name, struct.pack("<Q", len(text) if length is None else length) + text + data)


def f32(shape: list[int], begin: int, end: int, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def checkpoint(name: str, array: Any) -> Callable[[Hostile], None]:
    def act(bundle: Hostile) -> None:
        tensors = load_file(bundle / "checkpoint.safetensors")
        if array is None:
            del tensors[name]
        else:
            tensors[name] = array
        (bundle / "checkpoint.safetensors").write_bytes(packed(tensors))

    return act


CHECKPOINT, WEIGHTS = "checkpoint.safetensors", "weights.safetensors"
OUTSIDE = "lists a file outside the bundle: "
# Deep enough for Python's JSON reader to give up, and for a recursive one to die.
DEEP = ("[" * 100_000 + "]" * 100_000).encode()

HOSTILE: dict[str, tuple[Callable[[Hostile], object], str]] = {
    "a name with ..": (lists("../x"), OUTSIDE + '"../x"'),
    "a name with .. inside": (lists("ort/../../x"), OUTSIDE + '"ort/../../x"'),
    "an absolute name": (lists("/etc/passwd"), OUTSIDE + '"/etc/passwd"'),
    "a Windows name": (lists("C:\\x"), OUTSIDE),
    "a name with a backslash": (lists("..\\x"), OUTSIDE),
    "a name with a zero": (lists("a\0b"), OUTSIDE),
    "no name": (lists(""), OUTSIDE + '""'),
    "a link that leads out": (link_out, "eval_model.onnx is a link that leads out of the bundle."),
    "a folder that leads out": (link_in_folder, "sub/more.onnx is a link that leads out of the bundle."),
    "a pipe": (fifo, "eval_model.onnx is missing"),
    "two files swapped": (swapped, "is not the file that was built"),
    "a file that is not listed": (unlisted, "does not list checkpoint.safetensors, so nobody knows"),
    "an op of a foreign domain": (
        node("Steal", "evil.ops"),
        "ops of domain 'evil.ops', and its manifest allows ai.onnx",
    ),
    "an op of ONNX Runtime's own": (node("FusedConv", "com.microsoft"), "ops of domain 'com.microsoft'"),
    "a foreign op in a branch": (
        nested("Steal", "evil.ops"),
        'it has op "If", which runs a graph of its own',
    ),
    "a foreign op behind the model's end": (appended_node, "ops of domain 'evil.ops'"),
    "branches 5000 deep": (nested_deep, "graphs are nested more than 32 deep"),
    "a branch": (
        graph(protobuf.field(1, protobuf.field(4, b"If") + protobuf.field(5, protobuf.field(6, b"")))),
        'it has op "If", which runs a graph of its own',
    ),
    "an output of another shape": (
        graph(protobuf.field(12, value(b"features", 7))),
        'its output "features" has another type or shape than the manifest says',
    ),
    "an output of another type": (
        graph(protobuf.field(12, value(b"features", 208, TensorProto.DOUBLE))),
        'its output "features" has another type or shape than the manifest says',
    ),
    "an output of another name": (renamed, 'it has no output "features"'),
    "an input that nothing gives": (
        graph(protobuf.field(11, value(b"more", 7))),
        'it has an input "more", which nothing in the manifest names',
    ),
    "a tensor that claims terabytes": (
        graph(protobuf.field(5, bytes([8]) + protobuf.varint(1 << 40) + protobuf.field(8, b"odd"))),
        "its tensors claim more than 17179869184 numbers together",
    ),
    "packed dims that claim terabytes": (
        graph(protobuf.field(5, protobuf.field(1, protobuf.varint(1 << 40)) + protobuf.field(8, b"odd"))),
        "its tensors claim more than 17179869184 numbers together",
    ),
    "no kernels": (manifest(kernels={}), 'kernels["training_model.onnx"] is missing'),
    "a resize of the future": (of("preprocessing", resize="lanczos"), 'preprocessing.resize is "lanczos"'),
    "counts below zero": (manifest(costs={"forward": -1}), 'costs["forward"] is -1, and must be from 0'),
    "a prefix of 2^60 numbers": (manifest(prefix=[1 << 30, 1 << 30]), "prefix is a shape of more than"),
    "class names nested 200 deep": (
        manifest(classes=json.loads("[" * 200 + "]" * 200)),
        "is not valid JSON",
    ),
    "a function that is called Relu": (function, "it defines 1 functions of its own"),
    "a manifest that allows foreign ops": (
        manifest(op_domains=["ai.onnx", "evil.ops"]),
        'op_domains[1] is "evil.ops", and must be one of ai.onnx, com.microsoft',
    ),
    "external data with ..": (
        external("../secret"),
        "it takes data from '../secret', which is no file of the bundle",
    ),
    "external data, absolute": (external("/etc/passwd"), "it takes data from '/etc/passwd', which is no"),
    "external data, roundabout": (external("x/../weights.safetensors"), "which is no file of the bundle"),
    "external data not listed": (external("other.bin"), "it takes data from 'other.bin', which is no"),
    "external data in a Constant": (external_in_constant, "it takes data from '/etc/passwd'"),
    "external data behind the end": (
        external(WEIGHTS, offset="999999999"),
        "it takes data from behind the end of 'weights.safetensors'",
    ),
    "external data longer than the file": (
        external(WEIGHTS, offset="8", length=str(1 << 62)),
        "it takes data from behind the end of",
    ),
    "an offset that is no number": (external(WEIGHTS, offset="-1"), "'-1' is no offset or length"),
    "a graph that is none": (
        content("eval_model.onnx", b"\xff" * 50),
        "eval_model.onnx is damaged or hostile",
    ),
    "an empty graph": (content("eval_model.onnx", b""), "eval_model.onnx is damaged or hostile: it is empty"),
    "a graph cut off": (
        lambda b: (b / "eval_model.onnx").write_bytes((b / "eval_model.onnx").read_bytes()[:5000]),
        "is longer than what is left",
    ),
    "a header of 2^63 bytes": (
        header(CHECKPOINT, {}, length=1 << 63),
        "its header claims 9223372036854775808 bytes",
    ),
    "a header longer than the file": (header(CHECKPOINT, {}, length=1000), "its header claims 1000 bytes"),
    "a file of 3 bytes": (content(CHECKPOINT, b"abc"), "it has 3 bytes, too few for a safetensors file"),
    "a header that is no JSON": (
        content(CHECKPOINT, struct.pack("<Q", 4) + b"{{{{"),
        "its header is not valid JSON",
    ),
    "a header nested 100,000 deep": (
        content(CHECKPOINT, struct.pack("<Q", len(DEEP)) + DEEP),
        "header is not valid JSON",
    ),
    "a header that is a list": (header(CHECKPOINT, []), "its header is not a JSON object"),
    "huge dims": (header(CHECKPOINT, {"w": f32([1 << 40, 1 << 40], 0, 4)}, b"abcd"), "cannot have 4 bytes"),
    "dims beyond any memory": (
        header(CHECKPOINT, {"w": f32([1 << 62], 0, 4)}, b"abcd"),
        "shape or offsets that cannot be",
    ),
    "a million dims": (
        header(CHECKPOINT, {"w": f32([1] * 10**6, 0, 4)}, b"abcd"),
        "shape or offsets that cannot be",
    ),
    "negative dims": (
        header(CHECKPOINT, {"w": f32([-1, -1], 0, 4)}, b"abcd"),
        "shape or offsets that cannot be",
    ),
    "dims that are floats": (
        header(CHECKPOINT, {"w": {**f32([], 0, 4), "shape": [1.0]}}, b"abcd"),
        "offsets that cannot",
    ),
    "overlapping tensors": (
        header(CHECKPOINT, {"v": f32([1], 0, 4), "w": f32([1], 0, 4)}, b"abcd"),
        "tensor 'w' does not begin where the one before it ends",
    ),
    "a hole between tensors": (
        header(CHECKPOINT, {"v": f32([1], 0, 4), "w": f32([1], 8, 12)}, b"x" * 12),
        "tensor 'w' does not begin where",
    ),
    "offsets backwards": (header(CHECKPOINT, {"w": f32([1], 4, 0)}, b"abcd"), "cannot have -4 bytes"),
    "bytes that belong to nothing": (
        header(CHECKPOINT, {"w": f32([1], 0, 4)}, b"x" * 9),
        "its tensors take 4 bytes",
    ),
    "a dtype that is none": (
        header(CHECKPOINT, {"w": f32([1], 0, 4, "PICKLE")}, b"abcd"),
        "a dtype that is not known",
    ),
    "a pickle for a tensor file": (content(CHECKPOINT, b"\x80\x04\x95" + b"." * 50), "its header claims"),
    "a center of another shape": (
        checkpoint("center/stage3.first.conv", np.zeros((1, 1), np.float32)),
        "tensor 'center/stage3.first.conv' has shape (1, 1), and the manifest asks for",
    ),
    "a missing head": (checkpoint("head/base/weight", None), "tensor 'head/base/weight' is missing"),
    "a moment of another shape": (
        checkpoint("statistics.scatter", np.zeros((3, 3))),
        "'statistics.scatter' has shape (3, 3)",
    ),
    **{
        f"no {name}, and what belongs to it": (checkpoint(name, None), f"tensor '{name}' is missing")
        for name in (
            "statistics.classes",
            "statistics.counts",
            "statistics.means",
            "statistics.scatter",
            "familiarity.classes",
            "familiarity.margins",
            "familiarity.oddness",
        )
    },
    "means of another shape": (
        checkpoint("statistics.means", np.zeros((4, 3), np.float32)),
        "'statistics.means' has shape (4, 3)",
    ),
    "a center that is not finite": (
        checkpoint("center/stage3.first.conv", np.full((64, 32), np.nan, np.float32)),
        "tensor 'center/stage3.first.conv' holds numbers that are not finite. Copy the bundle again.",
    ),
    "an input of a billion pixels": (
        of("input", size=[1 << 16, 1 << 16]),
        "input.channels and input.size are more than 67108864 numbers",
    ),
    "an input of no pixels": (of("input", size=[0, 8]), "input.size[0] is 0, and must be from 1 to"),
    "a negative input": (of("input", size=[8, -5]), "input.size[1] is -5, and must be from 1"),
    "a million channels": (
        of("input", channels=10**6),
        "input.channels is 1000000, and must be from 1 to 65536",
    ),
    "a batch of 2^40": (manifest(batch_size=1 << 40), "batch_size is 1099511627776"),
    "features beyond memory": (of("head", features=1 << 40), "head.features is 1099511627776"),
    "a kernel beyond memory": (
        of_site(shape=[1 << 20, 1 << 20, 3, 3]),
        "sites[0].shape is a kernel of more than",
    ),
    "a kernel of one dimension": (of_site(shape=[3]), "sites[0].shape must have from 3 to 5 entries"),
    "no groups": (of_site(groups=0), "sites[0].groups is 0, and must be from 1"),
    "a channel ratio of 0": (manifest(channel_ratio=0), "channel_ratio must be above 0 and at most 1"),
    "a scale that is NaN": (of("preprocessing", scale=float("nan")), "is not valid JSON"),
    "a mean that is infinite": (of("preprocessing", mean=[float("inf")]), "is not valid JSON"),
    "a batch of text": (manifest(batch_size="16"), "batch_size must be a whole number"),
    "a list of numbers as classes": (manifest(classes=[1, 2, 3, 4]), "classes[0] must be a text"),
    "a size of text": (
        of("files", x={"sha256": "0" * 64, "size": "1"}),
        'files["x"].size must be a whole number',
    ),
    "a site of text": (manifest(sites=["x"]), "sites[0] must be an object"),
    "a head of numbers": (manifest(head=5), "head must be an object"),
    "a class that drives the terminal": (
        manifest(classes=["\x1b[2J", "b", "c", "d"]),
        r'a class is called "\u001b[2J", which is no plain text. Build it again with --classes.',
    ),
    "a class that is no text": (
        manifest(classes=["\ud800", "b", "c", "d"]),
        r'a class is called "\ud800", which is no plain text',
    ),
    "a class twice": (manifest(classes=["a", "a", "c", "d"]), 'two classes are called "a"'),
    "fewer classes than the head": (manifest(classes=["a"]), "tensor 'head/base/weight' has shape (4, "),
    "a schema of the future": (manifest(schema_version=10**9), "update csk-sdk on this device"),
    "a schema that is true": (manifest(schema_version=True), "has no schema_version"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_refused_in_one_sentence(hostile: Hostile, case: str) -> None:
    change, text = HOSTILE[case]
    change(hostile)
    hostile.finish()
    begun = time.monotonic()
    with pytest.raises(BundleError) as caught:
        _ = Learner.open(hostile.folder, hostile.folder.parent / "state").bundle.preprocessing
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600 + 2 * len(str(hostile.folder))
    assert str(caught.value).endswith(".")
    assert time.monotonic() - begun < 60
    assert not (hostile.folder.parent / "state").exists()


def test_the_copy_that_all_of_them_start_from_is_good(hostile: Hostile) -> None:
    hostile.finish()
    assert Bundle.open(hostile.folder).checkpoint()


def test_a_manifest_nested_too_deep(hostile: Hostile) -> None:
    (hostile / MANIFEST).write_bytes(DEEP)
    with pytest.raises(BundleError, match="is not valid JSON"):
        Bundle.open(hostile.folder)


def test_a_manifest_of_gigabytes_is_not_read(hostile: Hostile) -> None:
    os.truncate(hostile / MANIFEST, 4 << 30)  # sparse: it takes no room on the disk
    with pytest.raises(BundleError, match="is larger than 8 MiB: it is no bundle's manifest"):
        Bundle.open(hostile.folder)


def test_a_file_of_another_size_is_not_hashed(hostile: Hostile) -> None:
    os.truncate(hostile / "weights.safetensors", 1 << 40)
    begun = time.monotonic()
    with pytest.raises(BundleError, match="is not the file that was built"):
        Bundle.open(hostile.folder)
    assert time.monotonic() - begun < 20


def test_a_link_inside_the_bundle_is_fine(hostile: Hostile) -> None:
    (hostile / "eval_model.onnx").rename(hostile / "graph.onnx")
    (hostile / "eval_model.onnx").symlink_to("graph.onnx")
    assert Bundle.open(hostile.folder)


def test_what_fails_inside_the_runtime_is_an_error_of_the_bundle(digits_bundle: Path) -> None:
    bundle = Bundle.open(digits_bundle)
    graph = bundle.graph("eval_model.onnx", bundle.checkpoint(), 1)
    for release in (False, True):
        with pytest.raises(BundleError, match=r"^ONNX Runtime .* cannot run .*eval_model\.onnx \(.*\)\.$"):
            graph.run({"image": np.zeros((1, 1, 1, 1), np.float32)}, release=release)


@pytest.mark.slow
def test_a_graph_that_computes_for_ever_is_ended(tmp_path: Path) -> None:
    """Ordinary ops, each quick: it is their number that takes minutes."""
    size = 1200
    nodes = [
        helper.make_node("MatMul", ["x" if i == 0 else f"y{i}", "w"], [f"y{i + 1}"]) for i in range(2000)
    ]
    graph = helper.make_graph(
        nodes, "long",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [size, size])],
        [helper.make_tensor_value_info("y2000", TensorProto.FLOAT, [size, size])],
        [onnx.numpy_helper.from_array(np.eye(size, dtype=np.float32), "w")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "long.onnx")
    feeds = {"x": np.eye(size, dtype=np.float32)}
    for release in (False, True):
        limited = Graph(tmp_path / "long.onnx", 1, time_limit=0.05)
        with pytest.raises(
            BundleError,
            match=r"was still computing after 0\.05 s, and was ended\. Allow one run more time with time_limit",
        ):
            limited.run(feeds, release=release)


def test_a_limit_that_is_not_reached_changes_nothing(
    digits_bundle: Path, digits: Any, tmp_path: Path
) -> None:
    told = []
    for limit in (None, 600.0):
        config = TrainingConfig(threads=1, epochs=1, few_shot=0, train="centers", time_limit=limit)
        learner = Learner.open(digits_bundle, tmp_path / str(limit), config)
        told.append(
            (learner.learn(digits.task("01", (4, 5), 8)).loss, list(learner.predict(digits.of(4, 0, 9))[0]))
        )
    assert told[0] == told[1]


@pytest.mark.parametrize(
    ("mean", "sentence"),
    [
        (None, r"tensor 'mean' is missing, and the manifest asks for \(22,\)"),
        (np.zeros(21, np.float32), r"tensor 'mean' has shape \(21,\), and the manifest asks for \(22,\)"),
        (np.zeros(22), "tensor 'mean' is missing"),
        (np.full(22, np.inf, np.float32), "tensor 'mean' holds numbers that are not finite"),
    ],
    ids=["missing", "short", "of another type", "infinite"],
)
def test_channels_of_another_network(tmp_path: Path, mean: Any, sentence: str) -> None:
    good = Path(__file__).parents[1] / "conformance" / "vectors" / "bundles" / "weather"
    folder = Path(shutil.copytree(good, tmp_path / "bundle"))
    bundle = Hostile(folder, json.loads((folder / MANIFEST).read_text()))
    tensors = {"deviation": np.ones(22, np.float32)} | ({} if mean is None else {"mean": mean})
    (bundle / "domain_channels.safetensors").write_bytes(packed(tensors))
    bundle.finish()
    with pytest.raises(BundleError, match=sentence):
        Bundle.open(folder).domain_channels()
