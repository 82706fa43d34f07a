"""The second witness of benchmarks/networks.py: onnxruntime-training's own gradients.

    .venv-ort-training/bin/python benchmarks/networks_ort_training.py --models out/models --out out/networks.json

Needs csk-sdk[ort-training], and the models that `benchmarks/networks.py --models DIR` has kept. Each is built for both
backends, both compute the gradients of the same random changes of a random quarter of the channels for a batch of 1
and one of 8, and the smallest cosine over all sites and the head is written into the JSON that networks.py has left.
Where float32 decides a ReLU or a max pool otherwise than the other backend, up to ten draws of images are tried: a
wrong gradient is wrong for every image.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import traceback
from pathlib import Path

import numpy as np

from csk_artifacts_builder import BuildOptions, build_artifacts
from csk_sdk.backends import StepResult, TrainingStep, open_step
from csk_sdk.bundle.folder import Bundle
from csk_sdk.contract.manifest import LABEL, ORT_TRAINING, PORTABLE
from csk_sdk.errors import CskError

BATCHES = (1, 8)
ENOUGH = 0.9999
DRAWS = 10


def compare(model: Path, folder: Path) -> float:
    """The smallest cosine between the two backends' gradients. Raises CskError where one refuses."""
    build_artifacts(model, folder / "bundle", BuildOptions(backend="both"))
    bundle = Bundle.open(folder / "bundle")
    tensors = bundle.checkpoint()
    rng = np.random.default_rng(0)
    selected, deltas = {}, {}
    for site in bundle.manifest.sites:
        chosen = np.sort(rng.permutation(site.columns)[: max(1, site.columns // 4)])
        spread = 0.2 * tensors[f"center/{site.name}"].std()
        selected[site.name] = chosen
        deltas[site.name] = rng.normal(scale=spread, size=(site.rows, len(chosen))).astype(np.float32)
    head = tensors["head/base/weight"], tensors["head/base/bias"]
    portable, witness = (open_step(name, bundle, tensors, threads=1) for name in (PORTABLE, ORT_TRAINING))

    def draw(batch: int) -> float:
        images = rng.normal(size=(batch, *bundle.manifest.input.shape)).astype(np.float32)
        targets = {LABEL: rng.integers(0, len(bundle.manifest.classes), batch)}

        def gradients(step: TrainingStep) -> list[np.ndarray]:
            return _flat(step.run(images, targets, head, selected, deltas))

        return min(map(_cosine, gradients(portable), gradients(witness)))

    found = min(draw(batch) for batch in BATCHES)
    for _ in range(DRAWS):
        if found >= ENOUGH:
            break
        found = max(found, draw(1))
    return found


def _flat(result: StepResult) -> list[np.ndarray]:
    return [*(result.centers[name] for name in sorted(result.centers)), result.weight, result.bias]


def _cosine(got: np.ndarray, expected: np.ndarray) -> float:
    a, b = got.ravel().astype(np.float64), expected.ravel().astype(np.float64)
    length = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b / length) if length else float(not a.any() and not b.any())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", type=Path, required=True, help="what networks.py --models has kept")
    parser.add_argument(
        "--out", type=Path, default=Path("out/networks.json"), help="what networks.py has left"
    )
    parser.add_argument("--only", action="append", help="networks whose name contains this")
    parser.add_argument("--size", type=int, help="only this image size")
    arguments = parser.parse_args()
    content = json.loads(arguments.out.read_text())
    failed = []
    for row in content["rows"]:
        name = f"{row['network']} {row['size']} {row['exporter']}"
        model = arguments.models / f"{name}.onnx"
        wanted = not arguments.only or any(part.lower() in name.lower() for part in arguments.only)
        if not wanted or row["refused"] or not model.is_file() or arguments.size not in (None, row["size"]):
            continue
        row["ort_cosine"], row["ort_refused"] = 0.0, ""
        try:
            with tempfile.TemporaryDirectory() as folder:
                row["ort_cosine"] = compare(model, Path(folder))
        except CskError as error:
            row["ort_refused"] = str(error).replace(model.name, "model.onnx")
        except Exception:
            # One network must not hide the others; the traceback says that it is no refusal but a bug.
            traceback.print_exc()
            failed.append(name)
        arguments.out.write_text(json.dumps(content, indent=1) + "\n")
        print(f"{name}: {row['ort_refused'] or format(row['ort_cosine'], '.7f')}", flush=True)
    if failed:
        sys.exit(f"neither compared nor refused: {', '.join(failed)}")


if __name__ == "__main__":
    main()
