"""What can be read of images in what leaves a device: pictures made of a contribution, and how recognisable they are.

    python benchmarks/inversion.py --out out/inversion                                    # the digits
    python benchmarks/inversion.py --data DIR --model cifar100-base50.onnx --out out/inversion

An attacker has the bundle and one class's contribution, as a file has it (packed and read back), and looks for images
whose features say the same, by gradient descent on their pixels (Adam, box, total variation):

- one: the mean of a class of one image, which `--least 1` would send
- mean: the mean of `--images`, 20 by default: one picture
- rows: mean and rows, which a device sends: as many pictures at once, whose mean and scatter are those of the file
- span: the same, but for each picture alone: its features are to be the mean and some mixture of the rows

A picture is compared with 1,000 candidates by the correlation of pixels, the true image among them: its rank, 500 where
nothing was learned. Candidates are of all classes, or (`same class`) of the true one only, as many as there are. Beside
stands how other images of the class do that the file is not of: what is better than that tells who was in it. SSIM is
the mean over windows of 7 pixels. Beside these pictures, whoever already has an image can ask whether it was among the
class's (`members`). Needs torch.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import tempfile
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from onnx import numpy_helper
from PIL import Image
from scipy.optimize import linear_sum_assignment

from csk_artifacts_builder import BuildOptions, build_artifacts
from csk_sdk import Learner
from csk_sdk.demo import digits
from csk_sdk.fleet.packing import pack, unpack
from csk_sdk.method.contributions import Contribution, ContributionSum

LEAST, CANDIDATES = 20, 1000
MEMBERS = (20, 40, 80, 160, 320)
Array = np.ndarray


@dataclass(frozen=True)
class Data:
    """Images as the network's users have them, `(n, c, h, w)` float32 from 0 to 1, and their labels."""

    name: str
    images: Array
    labels: Array
    network: Network
    classes: tuple[int, ...]


class Network:
    """The features of a bundle's own network, of images from 0 to 1, to be differentiated."""

    def __init__(self, bundle: Path, mean: list[float], std: list[float]) -> None:
        with tempfile.TemporaryDirectory() as place:
            Learner.open(bundle, Path(place) / "state").export(Path(place) / "network.onnx")
            self._graph = onnx.load(Path(place) / "network.onnx").graph
        self._constants = {
            one.name: torch.from_numpy(numpy_helper.to_array(one).copy()) for one in self._graph.initializer
        }
        self._mean, self._std = (torch.tensor(one).view(1, -1, 1, 1) for one in (mean, std))

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        values = {**self._constants, self._graph.input[0].name: (images - self._mean) / self._std}
        for node in self._graph.node:
            inputs = [values[name] for name in node.input]
            if node.op_type == "Gemm":
                return inputs[0]
            given = {one.name: onnx.helper.get_attribute_value(one) for one in node.attribute}
            values[node.output[0]] = _computed(node.op_type, inputs, given)
        raise ValueError("the network has no head")

    def of(self, images: Array) -> Array:
        """`(n, f)` float32."""
        with torch.no_grad():
            parts = [self(torch.from_numpy(images[i : i + 500])) for i in range(0, len(images), 500)]
        return torch.cat(parts).numpy()


def _computed(op: str, inputs: list[torch.Tensor], given: dict[str, Any]) -> torch.Tensor:
    x = inputs[0]
    if op == "Conv":
        pads = given.get("pads", [0, 0, 0, 0])
        padded = F.pad(x, (pads[1], pads[3], pads[0], pads[2]))
        bias = inputs[2] if len(inputs) > 2 else None
        return F.conv2d(padded, inputs[1], bias, tuple(given["strides"]), groups=given.get("group", 1))
    if op == "Relu":
        return torch.relu(x)
    if op == "Add":
        return x + inputs[1]
    if op == "GlobalAveragePool":
        return x.mean((2, 3), keepdim=True)
    if op == "ReduceMean":
        axes = given.get("axes") or inputs[1].tolist()
        return x.mean(tuple(axes), keepdim=bool(given.get("keepdims", 1)))
    if op == "Flatten":
        return x.flatten(1)
    if op == "Concat":
        return torch.cat(inputs, given["axis"])
    raise ValueError(f"no rule for {op}")


def the_digits() -> Data:
    found = digits.load()
    facts = digits.model_files()[1]["normalize"]
    with tempfile.TemporaryDirectory() as place:
        network = Network(digits.build_bundle(Path(place) / "bundle"), facts["mean"], facts["std"])
    images = np.concatenate([found.train_images, found.test_images])
    labels = np.concatenate([found.train_labels, found.test_labels])
    scaled = images.reshape(len(images), 1, 8, 8).astype(np.float32) / 255
    return Data("digits", scaled, labels, network, (4, 5, 6, 7, 8, 9))


def cifar100(data: Path, model: Path) -> Data:
    """Both splits: 600 images a class; attacked are ten of the classes that the base does not know."""
    facts = json.loads(model.with_suffix(".json").read_text())
    names = [*facts["classes"], *facts["later_classes_in_order"]]
    images, labels = [], []
    for split in ("train", "test"):
        with zipfile.ZipFile(data / f"cifar100-{split}.zip") as archive:
            for member in sorted(archive.namelist()):
                if member.endswith(".png"):
                    read = Image.open(io.BytesIO(archive.read(member))).convert("RGB")
                    images.append(np.asarray(read, np.uint8))
                    labels.append(names.index(member.partition("/")[0]))
    norm = facts["normalize"]
    with tempfile.TemporaryDirectory() as place:
        options = BuildOptions(classes=facts["classes"], mean=norm["mean"], std=norm["std"])
        build_artifacts(model, Path(place) / "bundle", options)
        network = Network(Path(place) / "bundle", norm["mean"], norm["std"])
    scaled = np.stack(images).transpose(0, 3, 1, 2).astype(np.float32) / 255
    return Data("CIFAR-100", scaled, np.array(labels), network, tuple(range(50, 60)))


def sent(features: Array) -> Contribution:
    """What a device's file says of a class with these features."""
    total = ContributionSum(features.shape[1])
    total.add(features)
    return unpack(pack(total.total()), features.shape[1])


@dataclass(frozen=True)
class Search:
    """Of how many images a file is; from how many starts, for how many steps; the weight of total variation."""

    images: int
    starts: int
    steps: int
    smooth: float


def searched(data: Data, loss_of: Any, shape: tuple[int, ...], how: Search) -> tuple[Array, Array]:
    """Images `shape` (starts, n, c, h, w) that make `loss_of(features (starts, n, f))` (starts, n or 1) small."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(shape, generator=generator).requires_grad_()
    adam = torch.optim.Adam([images], lr=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, how.steps, 0.001)
    for _ in range(how.steps):
        adam.zero_grad()
        loss = loss_of(data.network(images.flatten(0, 1)).unflatten(0, shape[:2]))
        rough = images.diff(dim=-1).abs().mean((2, 3, 4)) + images.diff(dim=-2).abs().mean((2, 3, 4))
        (loss.sum() + how.smooth * rough.sum()).backward()
        adam.step()
        schedule.step()
        with torch.no_grad():
            images.clamp_(0.0, 1.0)
    with torch.no_grad():
        loss = loss_of(data.network(images.flatten(0, 1)).unflatten(0, shape[:2]))
    return images.detach().numpy(), loss.numpy()


def of_means(data: Data, means: Array, spread: Array, how: Search) -> Array:
    """One image for each of the means `(n, f)`: the best of several starts."""
    target, unit = torch.from_numpy(means), torch.from_numpy(spread)

    def loss_of(features: torch.Tensor) -> torch.Tensor:
        return (((features - target) / unit) ** 2).mean(-1)

    found, loss = searched(data, loss_of, (how.starts, *means.shape[:1], *data.images.shape[1:]), how)
    return found[loss.argmin(0), np.arange(len(means))]


def of_rows(data: Data, one: Contribution, spread: Array, how: Search) -> Array:
    """As many images as the contribution is of, whose mean and scatter are its."""
    unit = torch.from_numpy(spread)
    mean, rows = torch.from_numpy(one.mean) / unit, torch.from_numpy(one.factor) / unit
    # |F'F - R'R|^2 by products of rows, which are few.
    own = ((rows @ rows.T) ** 2).sum()

    def loss_of(features: torch.Tensor) -> torch.Tensor:
        scaled = features / unit
        around = scaled - scaled.mean(1, keepdim=True)
        scatter = ((around @ around.mT) ** 2).sum((1, 2)) - 2 * ((around @ rows.T) ** 2).sum((1, 2)) + own
        return (((scaled.mean(1) - mean) ** 2).mean(-1) + scatter / own)[:, None]

    starts = max(1, how.starts // 4)
    found, loss = searched(data, loss_of, (starts, int(one.count), *data.images.shape[1:]), how)
    return found[loss[:, 0].argmin()]


def of_span(data: Data, one: Contribution, spread: Array, how: Search) -> Array:
    """As many images, each looked for alone, whose features are the mean and some mixture of the rows.

    Of all that were found, those that are so most nearly, and do not look alike.
    """
    unit = torch.from_numpy(spread)
    mean = torch.from_numpy(one.mean)
    axes = torch.linalg.svd(torch.from_numpy(one.factor / spread), full_matrices=False)[2]
    axes = axes[: min(len(axes), int(one.count) - 1)]

    def loss_of(features: torch.Tensor) -> torch.Tensor:
        around = (features - mean) / unit
        return ((around - around @ axes.T @ axes) ** 2).mean(-1)

    found, loss = searched(data, loss_of, (how.starts, int(one.count), *data.images.shape[1:]), how)
    found, loss = found.reshape(-1, *found.shape[2:]), loss.ravel()
    near = alike(found, found)
    chosen: list[int] = []
    for place in np.argsort(loss).tolist():
        if len(chosen) < one.count and all(near[place, other] < 0.9 for other in chosen):
            chosen.append(place)
    return found[chosen]


def alike(pictures: Array, images: Array) -> Array:
    """The correlation of pixels of each picture with each image, `(pictures, images)`."""
    parts = []
    for one in (pictures, images):
        flat = one.reshape(len(one), -1).astype(np.float64)
        flat = flat - flat.mean(1, keepdims=True)
        parts.append(flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-12))
    return parts[0] @ parts[1].T


def ssim(one: Array, other: Array) -> float:
    """Of two images `(c, h, w)` from 0 to 1: Wang et al. 2004, uniform windows of 7 pixels."""
    x, y = (torch.from_numpy(np.ascontiguousarray(part))[None].double() for part in (one, other))
    mean = [F.avg_pool2d(part, 7, 1) for part in (x, y)]
    var = [F.avg_pool2d(part * part, 7, 1) - m * m for part, m in zip((x, y), mean, strict=True)]
    both = F.avg_pool2d(x * y, 7, 1) - mean[0] * mean[1]
    top = (2 * mean[0] * mean[1] + 0.01**2) * (2 * both + 0.03**2)
    return float((top / ((mean[0] ** 2 + mean[1] ** 2 + 0.01**2) * (var[0] + var[1] + 0.03**2))).mean())


class Ranks:
    """Where true images come among candidates; and images that the file is not of, among the same."""

    def __init__(self, data: Data, rng: np.random.Generator) -> None:
        self._data, self._rng = data, rng
        self.all: dict[str, list[float]] = {"true": [], "other": []}
        self.same: dict[str, list[float]] = {"true": [], "other": []}
        self.ssim: dict[str, list[float]] = {"true": [], "other": []}

    def add(self, pictures: Array, true: Array, others: Array) -> None:
        """`pictures` were made of the images at `true`; `others` are of the same class, and were not in it."""
        data = self._data
        label = data.labels[true[0]]
        free = np.setdiff1d(np.arange(len(data.labels)), np.concatenate([true, others]))
        anything = self._rng.permutation(free)[: CANDIDATES - 1]
        alone = self._rng.permutation(free[data.labels[free] == label])[: CANDIDATES - 1]
        near = {
            what: alike(pictures, data.images[at]).max(0) for what, at in (("all", anything), ("same", alone))
        }
        for what, at in (("true", true), ("other", others)):
            for value in alike(pictures, data.images[at]).max(0):
                # As among 1,000, however many of the class there are.
                self.all[what].append(1 + CANDIDATES * float(np.mean(near["all"] > value)))
                self.same[what].append(1 + CANDIDATES * float(np.mean(near["same"] > value)))
            to_picture, to_image = linear_sum_assignment(-alike(pictures, data.images[at]))
            self.ssim[what] += [
                ssim(pictures[i], data.images[at[j]]) for i, j in zip(to_picture, to_image, strict=True)
            ]

    def row(self) -> dict[str, Any]:
        def middle(values: list[float]) -> float:
            return round(float(np.median(values)), 1)

        found: dict[str, Any] = {"images": len(self.all["true"])}
        for what in ("true", "other"):
            found[f"rank, {what}"] = middle(self.all[what])
            found[f"first, {what}, %"] = round(100 * float(np.mean(np.array(self.all[what]) < 2)), 1)
            found[f"rank in class, {what}"] = middle(self.same[what])
            found[f"ssim, {what}"] = round(float(np.mean(self.ssim[what])), 3)
        return found


def members(data: Data, label: int, spread: Array, rng: np.random.Generator) -> dict[int, float]:
    """Whoever has an image: was it among the class's? By number of images, the area under the ROC in percent.

    What of the image's features no mixture of the file's rows explains: small where it was. Others are of the class.
    """
    images = rng.permutation(np.flatnonzero(data.labels == label))
    features = data.network.of(data.images[images])
    found = {}
    for count in MEMBERS:
        if count > len(images) - LEAST:
            continue
        one = sent(features[:count])
        axes = np.linalg.svd((one.factor / spread).astype(np.float64), full_matrices=False)[2]
        around = (features - one.mean) / spread
        left = np.linalg.norm(around - around @ axes.T @ axes, axis=1)
        of_it, others = left[:count], left[count:]
        found[count] = 100 * float(np.mean(of_it[:, None] < others[None]))
    return found


def attacked(data: Data, how: Search, sets: int) -> tuple[dict[str, Any], Array]:
    """A row for each attack, and pictures: true images; made of each, of their rows, two ways, and of their mean."""
    rng = np.random.default_rng(0)
    # What a feature varies by as a rule: the attacker has images of their own.
    spread = np.maximum(data.network.of(data.images[rng.permutation(len(data.labels))[:1000]]).std(0), 1e-3)
    ranks = {name: Ranks(data, rng) for name in ("one", "mean", "rows", "span")}
    shown: Array | None = None
    found: dict[str, Any] = {}
    known: dict[int, list[float]] = {}
    for label in data.classes[:sets]:
        chosen = rng.permutation(np.flatnonzero(data.labels == label))
        true, others = chosen[: how.images], chosen[how.images : 2 * how.images]
        features = data.network.of(data.images[true])
        alone = of_means(data, np.stack([sent(one[None]).mean for one in features]), spread, how)
        mean = of_means(data, sent(features).mean[None], spread, how)
        rows = of_rows(data, sent(features), spread, how)
        span = of_span(data, sent(features), spread, how)
        for place in range(min(how.images, len(others))):
            ranks["one"].add(alone[place : place + 1], true[place : place + 1], others[place : place + 1])
        ranks["mean"].add(mean, true, others)
        ranks["rows"].add(rows, true, others)
        ranks["span"].add(span, true, others)
        if shown is None:
            average = data.images[true].mean(0, keepdims=True)
            matched = [_beside(data.images[true], one)[:10] for one in (rows, span)]
            same = [np.repeat(one, 10, 0) for one in (mean, average)]
            shown = np.stack([data.images[true][:10], alone[:10], *matched, *same])
        for count, area in members(data, label, spread, rng).items():
            known.setdefault(count, []).append(area)
        found = {name: one.row() for name, one in ranks.items()}
        means = {count: round(float(np.mean(one)), 1) for count, one in known.items()}
        found["members, area under the ROC, %"] = means
        print(f"{data.name}, up to class {label}: {json.dumps(found)}", flush=True)
    assert shown is not None
    return found, shown


def _beside(images: Array, pictures: Array) -> Array:
    """For each image the picture that is most like it, each once; black where there are too few."""
    to_image, to_picture = linear_sum_assignment(-alike(images, pictures))
    found = np.zeros_like(images)
    found[to_image] = pictures[to_picture]
    return found


def grid(pictures: Array, scale: int) -> Image.Image:
    """Rows of pictures as one image, white between them."""
    rows, columns, channels, height, width = pictures.shape
    sheet = np.ones((channels, rows * (height + 1) - 1, columns * (width + 1) - 1), np.float32)
    for row, column in np.ndindex(rows, columns):
        top, left = row * (height + 1), column * (width + 1)
        sheet[:, top : top + height, left : left + width] = pictures[row, column]
    image = (255 * sheet.transpose(1, 2, 0)).round().astype(np.uint8)
    made = Image.fromarray(image[:, :, 0] if channels == 1 else image)
    return made.resize((made.width * scale, made.height * scale), Image.Resampling.NEAREST)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path)
    parser.add_argument("--model", type=Path)
    parser.add_argument(
        "--starts", type=int, default=12, help="how often each search begins anew; rows: a quarter"
    )
    parser.add_argument("--images", type=int, default=LEAST, help="of a class in a file")
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--smooth", type=float, default=0.005, help="weight of total variation")
    parser.add_argument("--sets", type=int, default=6, help="classes of 20 images that are attacked")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("out/inversion"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    begun = time.perf_counter()
    data = the_digits() if options.data is None else cifar100(options.data, options.model)
    found, shown = attacked(
        data, Search(options.images, options.starts, options.steps, options.smooth), options.sets
    )
    options.out.mkdir(parents=True, exist_ok=True)
    name = data.name.lower() + (f"-{options.images}" if options.images != LEAST else "")
    grid(shown, 5 if data.images.shape[-1] < 16 else 2).save(
        options.out / f"inversion-{name}.png", optimize=True
    )
    (options.out / f"inversion-{name}.json").write_text(json.dumps(found, indent=1) + "\n")
    for attack, row in found.items():
        print(attack, json.dumps(row))
    print(f"{time.perf_counter() - begun:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
