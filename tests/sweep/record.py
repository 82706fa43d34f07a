"""Draw networks, build each, and write what its graphs must give, as conformance vectors: `make sweep`.

    python tests/sweep/record.py out/sweep --graphs 2000

Needs torch. docs/conformance.md says what vectors are; `networks.json` beside them says what each network is.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
import onnx
import torch
from drawing import drawn
from golden import Unsteady, allowed, golden, inputs
from node_vectors import Vector, around, node_vectors
from nodes import CLASSES

from csk_artifacts_builder import BuildOptions, build_artifacts
from csk_artifacts_builder.graphs.layer_features import LAST
from csk_sdk.bundle.folder import Bundle
from csk_sdk.contract.manifest import EVAL_MODEL, EXPORT_TEMPLATE, MEMORY_MODEL, TRAINING_MODEL, Manifest
from csk_sdk.errors import CskError
from csk_sdk.state.tensorfile import packed

GRAPHS = (EVAL_MODEL, EXPORT_TEMPLATE, MEMORY_MODEL, TRAINING_MODEL)
ATTEMPTS = 30
# Some of the ONNX project's vectors have four decimals.
_FOUR_DECIMALS = 1e-4
# Of a sweep so large the ONNX project's node vectors are a part.
ALL_VECTORS = 1000
BUILT, REFUSED, UNSTEADY, BROKEN = "built", "refused", "unsteady", "broken"


@dataclass(frozen=True)
class Network:
    """One network: the op that it was made for, its nodes in words, and what became of it."""

    name: str
    kind: str
    opset: int
    nodes: list[str]
    status: str
    reason: str = ""


def record(out: Path, number: int, kind: str, model: onnx.ModelProto) -> Network:
    """Build one network into the vectors below `out`."""
    name = f"{number:05d}-{kind}"
    described = name, kind, model.opset_import[0].version, _all_words(model)
    manifest = _built(out / "bundles" / f"{name}.onnx", model)
    if isinstance(manifest, str):
        return Network(*described, *manifest.split(": ", 1))
    for attempt in range(ATTEMPTS):
        given = inputs(np.random.default_rng((number, attempt)), manifest, CLASSES)
        try:
            expected = golden(model, manifest, given)
        except Unsteady:
            continue
        write_case(out, name, {"graphs": list(GRAPHS), "precision": "exact", "input": "x"}, given, expected)
        return Network(*described, BUILT)
    return Network(*described, UNSTEADY)


def record_vector(out: Path, vector: Vector) -> Network | None:
    """Build a network around one of the ONNX project's node vectors: its features are what the vector says."""
    around_it = around(vector)
    if around_it is None:
        return None
    model, picture = around_it
    name = vector.name.replace("test_", "vector-")
    described = name, vector.node.op_type, model.opset_import[0].version, _all_words(model)
    manifest = _built(out / "bundles" / f"{name}.onnx", model)
    if isinstance(manifest, str):
        return Network(*described, *manifest.split(": ", 1))
    given = inputs(np.random.default_rng(0), manifest, CLASSES)
    given |= {"images": picture, "labels": np.arange(len(picture)) % CLASSES}
    given |= {key: np.zeros_like(value) for key, value in given.items() if key.startswith("delta/")}
    features = vector.output.reshape(len(picture), -1).astype(np.float64)
    logits = features @ given["weight"].T.astype(np.float64) + given["bias"]
    expected = {"eval_model/features": features, "eval_model/logits": logits}
    write_case(out, name, {"graphs": [EVAL_MODEL], "precision": "exact"}, given, expected, _FOUR_DECIMALS)
    return Network(*described, BUILT)


def _built(path: Path, model: onnx.ModelProto) -> Manifest | str:
    """The manifest of the bundle beside `path`; else `STATUS: REASON`."""
    onnx.save(model, path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            build_artifacts(path, path.with_suffix(""), BuildOptions(trainable="all", features=LAST))
    except CskError as error:
        return f"{REFUSED}: {error}"
    except Exception as error:
        return f"{BROKEN}: {type(error).__name__}: {error}"
    return Bundle.open(path.with_suffix("")).manifest


def write_case(
    out: Path,
    name: str,
    settings: dict[str, Any],
    given: dict[str, Any],
    expected: dict[str, Any],
    written: float = 0.0,
) -> None:
    """One case of kind `graphs`; `written` is how exactly its expected numbers are written down."""
    tensors = {f"in/{key}": np.array(value, order="C") for key, value in given.items()}
    tensors |= {f"out/{key}": np.array(value, order="C") for key, value in expected.items()}
    (out / "cases" / f"{name}.safetensors").write_bytes(packed(tensors))
    outputs = [
        {"name": key, "measure": "absolute", "tolerance": allowed(value) + written}
        for key, value in sorted(expected.items())
    ]
    case = {"format": 1, "name": name, "kind": "graphs", "about": "", "bundle": name, "precision": "exact"}
    case |= {"oracle": "source", "needs": [], "settings": settings, "outputs": outputs}
    (out / "cases" / f"{name}.json").write_text(json.dumps(case))


def _all_words(model: onnx.ModelProto) -> list[str]:
    """All but the first convolution, the flattening and the head."""
    return [_words(model, node) for node in model.graph.node[1:-2]]


def _words(model: onnx.ModelProto, node: onnx.NodeProto) -> str:
    """An op with its attributes, and its small constants."""
    given = {one.name: onnx.helper.get_attribute_value(one) for one in node.attribute}
    texts = [f"{key}={value.decode() if isinstance(value, bytes) else value}" for key, value in given.items()]
    small = {one.name: onnx.numpy_helper.to_array(one) for one in model.graph.initializer}
    texts += [str(small[name].tolist()) for name in node.input if name in small and small[name].size <= 8]
    return f"{node.op_type}({', '.join(texts)})"


def begin(out: Path) -> None:
    """An empty folder of vectors."""
    shutil.rmtree(out, ignore_errors=True)
    for folder in ("bundles", "cases"):
        (out / folder).mkdir(parents=True)


def finish(out: Path, networks: list[Network]) -> None:
    """The index of the vectors, and what each network is."""
    cases = sorted(path.stem for path in (out / "cases").glob("*.json"))
    digest = hashlib.sha256("".join(cases).encode()).hexdigest()
    (out / "index.json").write_text(json.dumps({"format": 1, "digest": digest, "cases": cases}))
    (out / "networks.json").write_text(json.dumps([asdict(network) for network in networks], indent=1))


def _one(job: tuple[Path, int, str, bytes]) -> Network:
    torch.set_num_threads(1)
    out, number, kind, model = job
    return record(out, number, kind, onnx.ModelProto.FromString(model))


def main(out: Path, count: int, workers: int) -> None:
    begin(out)

    def jobs() -> Iterator[tuple[Path, int, str, bytes]]:
        for number, one in enumerate(drawn(count)):
            yield out, number, one.kind, one.model.SerializeToString()

    with ProcessPoolExecutor(workers) as pool:
        networks = list(pool.map(_one, jobs(), chunksize=8))
        every = node_vectors() if count >= ALL_VECTORS else ()
        around_vectors = [one for one in map(partial(record_vector, out), every) if one is not None]
    finish(out, [*networks, *around_vectors])
    for what, found in (("networks", networks), ("ONNX node vectors", around_vectors)):
        counts = {
            one: sum(network.status == one for network in found) for one in (BUILT, REFUSED, UNSTEADY, BROKEN)
        }
        print(f"{len(found)} {what}: {', '.join(f'{many} {status}' for status, many in counts.items())}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--graphs", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    main(arguments.out, arguments.graphs, arguments.workers)
