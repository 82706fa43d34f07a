"""Quantised models: the numbers of docs/decisions/0031-quantised-models.md.

    python benchmarks/quantised.py --data DIR --model cifar100-base10.onnx

Quantises the model in four styles of QDQ and in QOperator with onnxruntime.quantization, and says on how many test
images of its classes the bundle's float32 and int8 export decide as the deployed file does, and what two new classes of
100 images come to; then, for one style, what of the ranges of activations is needed. DIR and the model are those of
benchmarks/cifar100.py.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from PIL import Image

from csk_artifacts_builder import BuildOptions, build_artifacts
from csk_artifacts_builder.prepare.model import prepare
from csk_artifacts_builder.prepare.quantized_values import Grid, Values
from csk_sdk import Learner, Task
from csk_sdk.runtime.sessions import open_session

CALIBRATED, BASE, TRAIN, TEST = 256, 50, 100, 100
STYLES = {
    f"{form.name}, {'u' if kind is QuantType.QUInt8 else 's'}8, {'channel' if each else 'tensor'}": {
        **{"quant_format": form, "activation_type": kind, "weight_type": QuantType.QInt8, "per_channel": each}
    }
    for form in (QuantFormat.QDQ, QuantFormat.QOperator)
    for kind in (QuantType.QUInt8, QuantType.QInt8)
    for each in (False, True)
}


class Images(CalibrationDataReader):
    def __init__(self, name: str, x: NDArray) -> None:
        self._batches = iter([{name: x[i : i + 16]} for i in range(0, len(x), 16)])

    def get_next(self) -> dict[str, NDArray] | None:
        return next(self._batches, None)


class Data:
    """CIFAR-100 for one model: images uint8 `(n, 32, 32, 3)` of some classes, and as the model takes them."""

    def __init__(self, folder: Path, model: Path) -> None:
        facts = json.loads(model.with_suffix(".json").read_text())
        self.folder, self.model = folder, model
        self.old, self.new = facts["classes"], facts["later_classes_in_order"][:2]
        self.mean, self.std = facts["normalize"]["mean"], facts["normalize"]["std"]
        self.input = ort.InferenceSession(str(model)).get_inputs()[0].name

    def of(self, part: str, classes: Sequence[str], count: int) -> tuple[NDArray, NDArray]:
        with zipfile.ZipFile(self.folder / f"cifar100-{part}.zip") as archive:
            names = sorted(archive.namelist())
            chosen = [[one for one in names if one.split("/")[-2] == name][:count] for name in classes]
            images = [np.asarray(Image.open(BytesIO(archive.read(one)))) for part in chosen for one in part]
        return np.stack(images), np.repeat(np.arange(len(classes)), [len(part) for part in chosen])

    def shown(self, images: NDArray) -> NDArray:
        x = (images / np.float32(255) - np.float32(self.mean)) / np.float32(self.std)
        return np.ascontiguousarray(x.transpose(0, 3, 1, 2), np.float32)

    def quantised(self, out: Path, count: int = CALIBRATED, **style: Any) -> Path:
        seen, _ = self.of("train", self.old, -(-CALIBRATED // len(self.old)))
        order = np.random.default_rng(0).permutation(len(seen))[:count]
        quantize_static(str(self.model), str(out), Images(self.input, self.shown(seen[order])), **style)
        return out

    def bundle(self, model: Path, out: Path, **options: Any) -> Path:
        known = {"classes": self.old, "mean": self.mean, "std": self.std, "overwrite": True}
        build_artifacts(model, out, BuildOptions(**{**known, **options}))
        return out


def run(model: Path | bytes, x: NDArray, optimised: bool = True) -> NDArray:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    if not optimised:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = open_session(str(model) if isinstance(model, Path) else model, options)
    name = session.get_inputs()[0].name
    return np.concatenate([session.run(None, {name: x[i : i + 50]})[0] for i in range(0, len(x), 50)])


def same(a: NDArray, b: NDArray) -> float:
    return 100 * float((a.argmax(axis=1) == b.argmax(axis=1)).mean())


def styles(data: Data, folder: Path) -> None:
    images, _ = data.of("test", data.old, TEST)
    everything, labels = data.of("test", [*data.old, *data.new], TEST)
    base = folder / "base"
    for name in data.old:
        (base / name).mkdir(parents=True)
        for place, image in enumerate(data.of("train", [name], BASE)[0]):
            Image.fromarray(image).save(base / name / f"{place}.png")
    taught = Task.from_arrays("new", *data.of("train", data.new, TRAIN), data.new)
    print(
        "| deployed as | float32 agrees | int8 agrees | device, learned | int8, learned | bytes | bytes, int8 |"
    )
    print("|---|---|---|---|---|---|---|")
    for name, style in {"(float32)": None, **STYLES}.items():
        model = data.quantised(folder / "model.onnx", **style) if style else data.model
        deployed = run(model, data.shown(images))
        forms = ("exact", "int8") if style else ("exact",)
        learner = Learner.open(data.bundle(model, folder / "plain"), folder / f"states/{name}/plain")
        agree = [same(deployed, exported(learner, folder, form, data.shown(images))) for form in forms]
        learner = Learner.open(
            data.bundle(model, folder / "bundle", base_data=base),
            folder / f"states/{name}/new",
            {"train": "centers"},
        )
        learner.learn(taught)
        names = np.array(learner.classes)
        right = [100 * float((np.array(learner.predict(everything)[0]) == names[labels]).mean())]
        if style:
            decided = exported(learner, folder, "int8", data.shown(everything)).argmax(axis=1)
            right.append(100 * float((decided == labels).mean()))
        sizes = [path.stat().st_size for path in (model, folder / "exported.onnx")][: 2 if style else 1]
        cells = [f"{value:.1f}" for value in agree] + [""] * (2 - len(agree))
        cells += [f"{value:.1f}" for value in right] + [""] * (2 - len(right))
        cells += [f"{size:,}" for size in sizes] + [""] * (2 - len(sizes))
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def exported(learner: Learner, folder: Path, form: str, x: NDArray) -> NDArray:
    path = folder / "exported.onnx"
    learner.export(path, precision=form)
    return run(path, x)


def nothing(values: Values, x: ir.Value, grid: Grid) -> ir.Value:
    return x


def lower_ends(values: Values, x: ir.Value, grid: Grid) -> ir.Value:
    return values.emit.op("Relu", x) if float(grid.ends[0]) == 0 else x


def rounding(values: Values, x: ir.Value, grid: Grid) -> ir.Value:
    zero = np.asarray(grid.zero, grid.dtype.numpy())
    grids = values.emit.constant(grid.scale, np.float32), values.emit.constant(zero, zero.dtype)
    y = values.emit.op("DequantizeLinear", values.emit.op("QuantizeLinear", x, *grids), *grids)
    y.shape, y.type = x.shape, x.type
    return y


HELD: dict[str, Callable[[Values, ir.Value, Grid], ir.Value]] = {
    "nothing else": nothing,
    "a Relu where a range begins at 0": lower_ends,
    "both ends of every range": Values.held,
    "rounding, too": rounding,
}


def ranges(data: Data, folder: Path) -> None:
    x = data.shown(data.of("test", data.old, TEST)[0])
    counts = (CALIBRATED, 4, 1)
    print(f"\n| kernels dequantised, and | {' | '.join(f'{count} images' for count in counts)} |")
    print("|---|---|---|---|")
    deployed = {
        count: data.quantised(folder / f"{count}.onnx", count, **STYLES["QDQ, u8, channel"])
        for count in counts
    }
    for name, held in HELD.items():
        Values.held = held  # type: ignore[method-assign]
        cells = []
        for path in deployed.values():
            expected = run(path, x)
            got = run(ir.to_proto(prepare(path).model).SerializeToString(), x, optimised=False)
            apart = np.sqrt(np.mean(np.square(got - expected)) / np.var(expected, axis=1).mean())
            cells.append(f"{same(expected, got):.1f} %, {100 * apart:.1f} % off")
        print(f"| {name} | {' | '.join(cells)} |")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    data = Data(arguments.data, arguments.model)
    with tempfile.TemporaryDirectory() as folder:
        styles(data, Path(folder))
        ranges(data, Path(folder))


if __name__ == "__main__":
    main()
