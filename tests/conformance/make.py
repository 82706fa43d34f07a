"""The conformance vectors: bundles, cases, and what each must give.

    python tests/conformance/make.py --bundles    # build the bundles again, and draw and write all cases
    python tests/conformance/make.py --add        # build and draw what is not there yet
    python tests/conformance/make.py              # compute what the cases must give, and write it
    python tests/conformance/make.py --verify     # compute it again, and compare with what is written

Format and meaning: docs/conformance.md.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "builder"))

import networks
import numpy as np
import onnx
from cases import GRAPH, MEAN, STD, Case, Draw, drawn, measure_of, samples, templates
from numpy.typing import NDArray
from oracle import KINDS, World, graph_step
from PIL import Image
from safetensors.numpy import load_file

from csk_artifacts_builder import BuildOptions, build_artifacts
from csk_artifacts_builder.graphs.layer_features import LAST, LAYERS
from csk_sdk.state.tensorfile import packed

VECTORS = Path(__file__).parent / "vectors"
INDEX = "index.json"
FORMAT = 1
# By name: a network, what of it is trained, and its features. Behind what is left frozen the graphs are cut.
NETWORKS = {
    "plain": (networks.RESNET, "all", LAYERS),
    "groups": (networks.GROUPS, "all", LAYERS),
    "mobile": (networks.MOBILENET, "all", LAYERS),
    "tail": (networks.RESNET, "from:second", LAST),
    "weather": (networks.RESNET, "all", LAYERS),
    "kernels": (networks.RESNET, "all", LAYERS),
}
INT8 = ("plain", "mobile", "tail", "kernels")
WHOLE = "kernels"
# Linear algebra of another machine rounds differently; so much is nobody's error.
SAME = 1e-7
ATTEMPTS = 30


def build_bundles(folder: Path) -> None:
    """Tiny bundles that know their base data, with the model that they were built from beside them.

    Those that are there stay.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        data = _write_pictures(Path(temporary), templates(0, 3))
        for name, (network, trainable, features) in NETWORKS.items():
            for precision in ("exact", "int8") if name in INT8 else ("exact",):
                out = folder / (name if precision == "exact" else f"{name}-int8")
                if out.exists():
                    continue
                onnx.save(network.proto(), out.with_suffix(".onnx"))
                options = BuildOptions(
                    classes=["a", "b", "c"],
                    mean=MEAN,
                    std=STD,
                    trainable=trainable,
                    sites=name if name == WHOLE else "center",
                    features=features,
                    channel_ratio=0.5,
                    batch_size=4,
                    base_data=data,
                    precision=precision,
                )
                build_artifacts(out.with_suffix(".onnx"), out, options)
    if not (folder / "gray").exists():
        _build_gray(folder / "gray")


def _build_gray(out: Path) -> None:
    network = networks.chain("gray", "Tanh", ((4, 1, 3, 3), networks.PLAIN), image=(1, 8, 8))
    onnx.save(network.proto(), out.with_suffix(".onnx"))
    options = BuildOptions(classes=["a", "b", "c"], mean=MEAN[:1], std=STD[:1], trainable="all")
    build_artifacts(out.with_suffix(".onnx"), out, options)


def _write_pictures(folder: Path, base: NDArray) -> Path:
    rng = np.random.default_rng(3)
    for label, name in enumerate("abc"):
        (folder / name).mkdir()
        for index, picture in enumerate(samples(rng, base, np.full(20, label))):
            Image.fromarray(picture).save(folder / name / f"{index:02d}.png")
    return folder


def settled(draw: Draw, bundles: Path, there: Collection[str] = ()) -> Case | None:
    """The first attempt at a case of which no number hangs on rounding; None where it is `there` by its name."""
    for attempt in range(ATTEMPTS):
        try:
            case = draw(attempt)
            if case.name in there:
                return None
            expected(case, bundles)
        except ValueError as error:
            print(f"attempt {attempt}: {error}")
        else:
            return case
    raise SystemExit(f"{draw}: nothing settled in {ATTEMPTS} attempts")


def write_case(case: Case, vectors: Path) -> None:
    """`cases/NAME.json` and `cases/NAME.safetensors`."""
    found, folder = expected(case, vectors / "bundles"), vectors / "cases"
    tensors = {f"in/{name}": np.asarray(value) for name, value in case.inputs.items()}
    tensors |= {f"out/{name}": np.asarray(value) for name, value in found.items()}
    outputs = []
    for name in sorted(found):
        measure, tolerance = measure_of(case, name)
        outputs.append({"name": name, "measure": measure, "tolerance": tolerance})
    described = {
        "format": FORMAT,
        "name": case.name,
        "kind": case.kind,
        "about": case.about,
        "bundle": case.bundle,
        "precision": case.precision,
        "oracle": case.oracle,
        "needs": list(case.needs),
        "settings": case.settings,
        "outputs": outputs,
    }
    (folder / f"{case.name}.json").write_text(json.dumps(described, indent=1) + "\n")
    (folder / f"{case.name}.safetensors").write_bytes(packed(tensors))


def expected(case: Case, bundles: Path) -> dict[str, NDArray]:
    """By the oracle, float64 (or int64 for numbers of something)."""
    world = World(bundles / case.bundle if case.bundle else None)
    compute = graph_step if (case.kind, case.oracle) == ("step", GRAPH) else KINDS[case.kind]
    found = compute(case.settings, case.inputs, world)
    if case.kind == "step" and not case.settings["moments"]:
        found = {name: value for name, value in found.items() if not name.startswith(("moment/", "features"))}
    return found


def read_case(path: Path) -> tuple[Case, dict[str, NDArray]]:
    """A case as it is in the files, and what they say that it must give."""
    raw: dict[str, Any] = json.loads(path.read_text())
    tensors = load_file(path.with_suffix(".safetensors"))
    inputs, outputs = (
        {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
        for prefix in ("in/", "out/")
    )
    case = Case(
        raw["name"],
        raw["kind"],
        raw["about"],
        raw["settings"],
        inputs,
        raw["bundle"],
        raw["oracle"],
        tuple(raw["needs"]),
        raw["precision"],
    )
    return case, outputs


def write_index(folder: Path) -> None:
    """All cases by name, and one digest over all files: of what a result is a result."""
    cases = sorted(path.stem for path in (folder / "cases").glob("*.json"))
    content = {"format": FORMAT, "digest": digest(folder), "cases": cases}
    (folder / INDEX).write_text(json.dumps(content, indent=1) + "\n")


def digest(folder: Path) -> str:
    """sha256 over paths and contents of all files but the index."""
    whole = hashlib.sha256()
    for path in sorted(folder.rglob("*"), key=lambda path: path.relative_to(folder).as_posix()):
        if path.is_file() and path.name != INDEX:
            whole.update(path.relative_to(folder).as_posix().encode() + b"\0")
            whole.update(hashlib.sha256(path.read_bytes()).digest())
    return whole.hexdigest()


def differences(path: Path) -> list[str]:
    """One line for each output of a case that is not what the oracle says."""
    case, written = read_case(path)
    now = expected(case, path.parents[1] / "bundles")
    if set(now) != set(written):
        return [f"{case.name}: outputs {sorted(set(now) ^ set(written))} are in one of both only"]
    found = []
    for name, value in now.items():
        off = np.abs(value - written[name]).max(initial=0.0)
        if value.shape != written[name].shape or not off <= SAME * max(1.0, np.abs(value).max(initial=0.0)):
            found.append(f"{case.name}: {name} is off by {off:.2g}")
    return found


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Make or verify the conformance vectors.")
    parser.add_argument("--bundles", action="store_true", help="build bundles and draw inputs again, too")
    parser.add_argument("--add", action="store_true", help="the same for what is not there yet")
    parser.add_argument(
        "--verify", action="store_true", help="write nothing; fail where a golden is not current"
    )
    parser.add_argument("--vectors", type=Path, default=VECTORS)
    parser.add_argument("names", nargs="*", help="verify only these cases")
    options = parser.parse_args(arguments)
    vectors: Path = options.vectors
    cases, bundles = vectors / "cases", vectors / "bundles"
    if options.verify:
        return verify(vectors, options.names)
    if options.bundles:
        shutil.rmtree(bundles, ignore_errors=True)
        shutil.rmtree(cases, ignore_errors=True)
    if options.bundles or options.add:
        build_bundles(bundles)
        cases.mkdir(exist_ok=True)
        there = {path.stem for path in cases.glob("*.json")}
        new = (settled(draw, bundles, there) for draw in drawn(bundles))
        todo = [case for case in new if case is not None]
    else:
        todo = [read_case(path)[0] for path in sorted(cases.glob("*.json"))]
    for case in todo:
        write_case(case, vectors)
    write_index(vectors)
    print(f"{len(todo)} cases written to {vectors}")
    return 0


def verify(vectors: Path, names: list[str]) -> int:
    """0 where every golden (of the named cases), computed again, is the one that is written."""
    every = sorted(path.stem for path in (vectors / "cases").glob("*.json"))
    cases = [vectors / "cases" / f"{name}.json" for name in names or every]
    index = json.loads((vectors / INDEX).read_text())
    found = [line for path in cases for line in differences(path)]
    if index["cases"] != every or index["digest"] != digest(vectors):
        found.append("index.json does not fit the files: run python tests/conformance/make.py")
    for line in found:
        print(f"FAIL  {line}")
    print(f"{len(cases)} cases, {len(found)} differences")
    return 1 if found or not cases else 0


if __name__ == "__main__":
    sys.exit(main())
