"""Model files out of other people's packages, through a whole life: build, learn two classes, predict, export, check.

    python benchmarks/real_files.py --write docs/supported-models.md
    python benchmarks/real_files.py --only timm

Needs torch, timm, keras and rapidocr-onnxruntime beside csk-sdk[device,builder]; files of a package that is not there
are left out. The page gets a section of its own, networks.py writes the rest. Results are kept in `--out`, so that a
run goes on where it stopped.

Of each file, images of all its classes are drawn (shapes, or lines of text) and a bundle is built with them as base
data; what it exports is compared with the file, by ONNX Runtime, on these images; two new classes are learned; their
test images are told among all classes; what is exported then is compared with the device's own predictions; and
`csk_device_runners check` measures every gradient. Networks of onnx, timm and Keras have no trained weights, so their
accuracy on base classes says nothing, and is not shown. Kernels of onnx's hold one number, so that the channels of a
layer differ by a bias at most: how many of a bundle's features differ is the rank of what it sees of the tests. To them
every class looks like any other, so labels are not checked there.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from csk_artifacts_builder import BuildOptions, build_artifacts
from csk_device_runners.check import check_bundle
from csk_sdk import Learner, Task
from csk_sdk.bundle.folder import Bundle
from csk_sdk.contract.manifest import EVAL_MODEL
from csk_sdk.errors import CskError
from csk_sdk.runtime.sessions import load_onnxruntime

Draw = Callable[[np.random.Generator, tuple[int, int]], Image.Image]
BEGIN, END = "<!-- real files -->", "<!-- end of real files -->"
EACH, NEW_EACH, TESTED = 12, 24, 10
ROUNDING = 1e-5
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


@dataclass
class Row:
    """One file. `error` is the export's, relative to the largest output; `same` the share of equal predictions.

    `rank` is that of the features of the test images, as far as float32 tells them apart.
    """

    file: str
    package: str
    refused: str = ""
    exporter: str = ""
    opset: int = 0
    image: str = ""
    options: str = ""
    classes: int = 0
    convolutions: int = 0
    sites: int = 0
    error: float = 0.0
    base: float = 0.0
    new: float = 0.0
    same: float = 0.0
    rank: int = 2 * TESTED
    check: str = ""
    seconds: float = 0.0

    @property
    def works(self) -> bool:
        """Every step of its life was right."""
        return self.is_right and self.same == 1.0

    @property
    def is_right(self) -> bool:
        """The bundle computes what the file does, and every gradient is right; what it learns may be rounding."""
        return not self.refused and self.error <= 1e-4 and self.check == "passed"

    @property
    def is_blind(self) -> bool:
        """Its features tell fewer images apart than there are."""
        return not self.refused and self.rank < TESTED


# Images


def shape_of(kind: int) -> Draw:
    """A polygon of `kind` + 3 corners in a color that belongs to it, at any place, size and turn."""

    def draw(rng: np.random.Generator, size: tuple[int, int]) -> Image.Image:
        height, width = size
        picture = Image.fromarray(rng.integers(60, 120, (height, width, 3), np.uint8))
        color = tuple(int(value) for value in np.random.default_rng(kind).integers(100, 256, 3))
        radius = min(size) * rng.uniform(0.25, 0.4)
        place = (
            rng.uniform(radius, width - radius),
            rng.uniform(radius, height - radius),
        )
        turn = float(rng.uniform(0, 360))
        ImageDraw.Draw(picture).regular_polygon((*place, radius), kind % 6 + 3, turn, fill=color)
        return picture

    return draw


def lines(rng: np.random.Generator, size: tuple[int, int], step: int, upright: bool) -> Image.Image:
    picture = Image.fromarray(rng.integers(200, 256, (*size, 3), np.uint8))
    draw = ImageDraw.Draw(picture)
    begin = int(rng.integers(0, step))
    for at in range(begin, size[1] if upright else size[0], step):
        ends = [(at, 0), (at, size[0])] if upright else [(0, at), (size[1], at)]
        draw.line(ends, fill=int(rng.integers(0, 90)), width=step // 3)
    return picture


def text(rng: np.random.Generator, size: tuple[int, int], turned: bool) -> Image.Image:
    """A line of letters and digits, as a scanner cuts it out, upright or upside down."""
    picture = Image.fromarray(rng.integers(225, 256, (*size, 3), np.uint8))
    letters = list("ABCDEFGHJKLMNPRSTUVWYabdefghijkmnpqrty2345679")
    said = "".join(rng.choice(letters, 9))
    font = ImageFont.load_default(size[0] * 0.7)
    ink = tuple(int(value) for value in rng.integers(0, 80, 3))
    ImageDraw.Draw(picture).text((rng.uniform(1, 8), size[0] * 0.08), said, font=font, fill=ink)
    return picture.rotate(180) if turned else picture


def shapes(count: int) -> dict[str, Draw]:
    return {f"shape-{number}": shape_of(number) for number in range(count)}


STRIPES: dict[str, Draw] = {
    "stripes": lambda rng, size: lines(rng, size, max(6, size[1] // 8), True),
    "rungs": lambda rng, size: lines(rng, size, max(6, size[0] // 8), False),
}
TEXT: dict[str, Draw] = {
    "0": lambda rng, size: text(rng, size, False),
    "180": lambda rng, size: text(rng, size, True),
}


def write_images(folder: Path, drawn: dict[str, Draw], size: tuple[int, int], each: int, seed: int) -> Path:
    rng = np.random.default_rng(seed)
    for name, draw in drawn.items():
        (folder / name).mkdir(parents=True)
        for number in range(each):
            draw(rng, size).save(folder / name / f"{number}.png")
    return folder


# Files


@dataclass(frozen=True)
class Case:
    """A file: where it comes from, how it gets into a folder, and how it is built."""

    name: str
    package: str
    write: Callable[[Path], Path]
    options: BuildOptions
    size: tuple[int, int]
    drawn: dict[str, Draw]
    each: int = EACH

    @property
    def shown(self) -> str:
        """What has to be said to the build, beside the classes."""
        chosen = self.options
        said = ["--mean, --std"] if chosen.mean else []
        said += [f"--input-size {'x'.join(map(str, chosen.input_size))}"] if chosen.input_size else []
        return ", ".join(said) or "none"


def inside(package: str, path: str) -> Callable[[Path], Path]:
    """A file that lies in an installed package."""
    return lambda folder: Path(str(getattr(find_spec(package), "origin", ""))).parent / path


def of_timm(name: str, size: int) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        import timm
        import torch

        torch.manual_seed(0)
        module = timm.create_model(name, pretrained=False, num_classes=10).eval()
        path = folder / f"{name}.onnx"
        example = (torch.randn(1, 3, size, size),)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(module, example, path, dynamo=True, external_data=False, verbose=False)
        return path

    return write


def of_keras(name: str, size: int) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        os.environ.setdefault("KERAS_BACKEND", "torch")
        import keras

        keras.utils.set_random_seed(0)
        model = getattr(keras.applications, name)(weights=None, input_shape=(size, size, 3), classes=10)
        model(np.zeros((1, size, size, 3), np.float32), training=False)
        path = folder / f"{name}.onnx"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.export(str(path), format="onnx", verbose=False)
        return path

    return write


TIMM = {
    "resnet10t": 64,
    "mobilenetv3_small_050": 64,
    "tinynet_e": 64,
    "regnetx_002": 64,
    "repvgg_a0": 64,
    "convnext_atto": 64,
    "efficientnet_lite0": 64,
    "ghostnet_050": 64,
    "mixnet_s": 64,
    "res2net50_14w_8s": 64,
    "vit_tiny_patch16_224": 224,
}
KERAS = {"MobileNetV2": 96, "EfficientNetB0": 64}
LIGHT = (
    "squeezenet",
    "shufflenet",
    "inception_v1",
    "resnet50",
    "inception_v2",
    "zfnet512",
    "densenet121",
    "bvlc_alexnet",
    "vgg19",
)


def cases() -> list[Case]:
    rapidocr = "rapidocr-onnxruntime"
    half = BuildOptions(mean=(0.5,) * 3, std=(0.5,) * 3)
    found = [
        Case(
            "ch_ppocr_mobile_v2.0_cls_infer.onnx",
            rapidocr,
            inside("rapidocr_onnxruntime", "models/ch_ppocr_mobile_v2.0_cls_infer.onnx"),
            BuildOptions(mean=(0.5,) * 3, std=(0.5,) * 3, input_size=(48, 192)),
            (48, 192),
            TEXT,
            60,
        ),
        *(
            Case(
                f"ch_PP-OCRv4_{part}_infer.onnx",
                rapidocr,
                inside("rapidocr_onnxruntime", f"models/ch_PP-OCRv4_{part}_infer.onnx"),
                half,
                (48, 192),
                TEXT,
            )
            for part in ("det", "rec")
        ),
    ]
    for name, size in KERAS.items():
        options = BuildOptions() if name == "EfficientNetB0" else half
        found.append(Case(f"{name}.onnx", "keras", of_keras(name, size), options, (size, size), shapes(10)))
    for name in LIGHT:
        write = inside("onnx", f"backend/test/data/light/light_{name}.onnx")
        found.append(
            Case(f"light_{name}.onnx", "onnx", write, BuildOptions(**IMAGENET), (56, 56), shapes(1000), 1)
        )
    for name, size in TIMM.items():
        options = BuildOptions(**IMAGENET)
        found.append(Case(f"{name}.onnx", "timm", of_timm(name, size), options, (size, size), shapes(10)))
    return found


# A life


def live(case: Case, folder: Path) -> Row:
    """Everything that the table tells of one file."""
    row = Row(case.name, f"{case.package} {metadata.version(case.package)}", options=case.shown)
    source = case.write(folder)
    proto = onnx.load(str(source), load_external_data=False)
    row.exporter = f"{proto.producer_name} {proto.producer_version}".strip() or "unknown"
    row.opset = next((one.version for one in proto.opset_import if one.domain in ("", "ai.onnx")), 0)
    row.convolutions = sum(node.op_type == "Conv" for node in proto.graph.node)
    begun = time.perf_counter()
    try:
        _live(case, source, folder, row)
    except CskError as error:
        row.refused = str(error)
    row.seconds = time.perf_counter() - begun
    return row


def _live(case: Case, source: Path, folder: Path, row: Row) -> None:
    base = write_images(folder / "base", case.drawn, case.size, case.each, 0)
    options = BuildOptions(
        **{**vars(case.options), "base_data": base, "classes": tuple(case.drawn), "flip": False}
    )
    report = build_artifacts(source, folder / "bundle", options)
    bundle = Bundle.open(folder / "bundle")
    row.image = "x".join(map(str, bundle.manifest.input.shape))
    row.classes, row.sites = report.classes, len(report.sites)
    row.base = report.base_accuracy or 0.0
    settings = {"threads": 2, "train": "centers", "label_check": case.package != "onnx"}
    learner = Learner.open(folder / "bundle", folder / "state", settings)
    paths = sorted(base.glob("*/*.png"))
    shown = [np.array(Image.open(path)) for path in paths[:: max(1, len(paths) // 16)]]
    learner.export(folder / "base.onnx", "base")
    expected, got = (_run(path, bundle, shown) for path in (source, folder / "base.onnx"))
    row.error = float(np.abs(got - expected).max() / max(np.abs(expected).max(), 1e-6))
    task = folder / "task"
    write_images(task / "train", STRIPES, case.size, NEW_EACH, 1)
    write_images(task / "test", STRIPES, case.size, TESTED, 2)
    learner.learn(Task.from_folder(task))
    tests = sorted((task / "test").glob("*/*.png"))
    pictures = [np.array(Image.open(path)) for path in tests]
    row.rank = rank_of(features_of(bundle, pictures))
    told = learner.predict(pictures)
    row.new = 100 * float(
        np.mean([label == path.parent.name for label, path in zip(told.labels, tests, strict=True)])
    )
    learner.export(folder / "updated.onnx")
    scores = _run(folder / "updated.onnx", bundle, pictures)
    names = [learner.classes[place] for place in scores.argmax(axis=1)]
    row.same = float(np.mean([a == b for a, b in zip(names, told.labels, strict=True)]))
    failed = [result.name for result in check_bundle(folder / "bundle", threads=2) if not result.passed]
    row.check = f"failed: {', '.join(failed)}" if failed else "passed"


def features_of(bundle: Bundle, pictures: list[NDArray[np.uint8]]) -> NDArray[np.float32]:
    """What a bundle's heads see of images, before anything is learned."""
    checkpoint, manifest = bundle.checkpoint(), bundle.manifest
    feeds = {
        manifest.head.weight: checkpoint["head/base/weight"],
        manifest.head.bias: checkpoint["head/base/bias"],
    }
    for site in manifest.sites:
        feeds |= {site.delta: np.zeros((site.rows, 1), np.float32), site.indices: np.zeros(1, np.int64)}
    graph = bundle.graph(EVAL_MODEL, checkpoint, threads=2)
    return np.concatenate(
        [graph.run({"image": one[None], **feeds})["features"] for one in bundle.preprocessing(pictures)]
    )


def rank_of(features: NDArray[np.float32]) -> int:
    """How many of the features `(images, features)` differ, each in units of its largest value, beyond rounding."""
    size = np.abs(features).max(axis=0).astype(np.float64)
    scaled = features[:, size > 0] / size[size > 0]
    return int(np.linalg.matrix_rank(scaled, ROUNDING * np.linalg.norm(scaled)))


def _run(path: Path, bundle: Bundle, pictures: list[NDArray[np.uint8]]) -> NDArray[np.float32]:
    """What a file says of images, one after the other; they are prepared as the bundle says."""
    ort = load_onnxruntime()
    settings = ort.SessionOptions()
    settings.log_severity_level = 3
    session = ort.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
    given = session.get_inputs()[0]
    batch = bundle.preprocessing(pictures)
    if given.shape[-1] == batch.shape[1] and given.shape[1] != batch.shape[1]:
        batch = batch.transpose(0, 2, 3, 1)  # a file with the channels last
    kind = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(uint8)": np.uint8}[given.type]
    rows = [session.run(None, {given.name: one[None].astype(kind)})[0] for one in batch]
    return np.concatenate(rows).reshape(len(rows), -1).astype(np.float32)


# The page


def section(rows: list[Row], measured_with: str) -> str:
    constant = (
        ", those of onnx kernels of one number"
        if any(row.package.startswith("onnx ") for row in rows)
        else ""
    )
    trained = ", ".join(f"{row.base:.1f} %" for row in rows if row.classes == 2)
    refused = [row for row in rows if row.refused]
    blind = [row for row in rows if row.is_blind]
    lines_ = [
        "## Files of other people",
        "",
        "Written by `python benchmarks/real_files.py --write docs/supported-models.md`: model files out of packages,",
        "as they are, or exported as the package says, through a whole life. Each is built with base data of all its",
        "classes, drawn by code; what the bundle exports is compared with the file in ONNX Runtime (*export*: the",
        f"largest difference over the largest output); two new classes are learned from {NEW_EACH} images each, and",
        f"{2 * TESTED} others of them are told among all classes (*new*); what is exported then answers as the device",
        "does; and `csk_device_runners check` measures every gradient. timm's and Keras's networks have random",
        f"weights{constant}; the first file is trained, and tells text from text upside down: its",
        f"base accuracy on drawn lines of text is {trained}.",
        "",
        f"Living: {sum(row.works for row in rows)} of {len(rows)} files; refused for what they are: {len(refused)}.",
        *blind_lines(blind),
        "",
        "| file | package | exporter | opset | image | said to the build | classes | convolutions | trained | export "
        "| new | check |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        head = f"| {row.file} | {row.package} | {row.exporter} | {row.opset} |"
        if row.refused:
            lines_.append(f"{head} | | | {row.convolutions} | | | | refused |")
            continue
        exported = f"{row.error:.0e}" if row.error else "equal"
        exported += "" if row.same == 1 else f"; answers {100 * row.same:.0f} % alike"
        lines_.append(
            f"{head} {row.image} | {row.options} | {row.classes} | {row.convolutions} | {row.sites} | {exported} "
            f"| {row.new:.0f} % | {row.check} |"
        )
    if refused:
        lines_ += ["", "What is refused, in the builder's own words:", ""]
        lines_ += [f"- {row.refused}" for row in refused]
    return "\n".join([BEGIN, *lines_, "", f"With {measured_with}.", END])


def blind_lines(blind: list[Row]) -> list[str]:
    """What is said of files whose features tell next to nothing apart."""
    if not blind:
        return []
    ranks = sorted(row.rank for row in blind)
    between = f"{ranks[0]} to {ranks[-1]}" if ranks[0] != ranks[-1] else f"{ranks[0]}"
    right = sum(row.is_right for row in blind)
    return [
        "",
        f"Of {len(blind)} files features tell next to nothing apart. Kernels of onnx's hold one number each, and the",
        "channels of a layer differ by a bias at most; in an untrained RepVGG gradients die away layer by layer.",
        f"Features of {2 * TESTED} images have a rank of {between}. {right} of them build, export what they are",
        "and have right gradients, but classes cannot be learned with them. Where answers differ behind the export,",
        "rounding decides.",
    ]


def section_of(page: Path) -> str:
    """What the page has of this section; nothing where it has none."""
    old = page.read_text("utf-8") if page.exists() else ""
    return old[old.index(BEGIN) : old.index(END) + len(END)] if BEGIN in old else ""


def put(page: Path, written: str) -> None:
    """The section in its place, or in front of the last heading."""
    old, before = page.read_text("utf-8"), section_of(page)
    if before:
        page.write_text(old.replace(before, written), "utf-8")
        return
    place = old.rindex("## Measured with")
    page.write_text(f"{old[:place]}{written}\n\n{old[place:]}", "utf-8")


def versions() -> str:
    found = [
        f"{name} {metadata.version(name)}" for name in ("torch", "onnx", "onnxscript", "onnxruntime", "numpy")
    ]
    return ", ".join(
        [*found, f"Python {platform.python_version()}", f"{platform.system()} {platform.machine()}"]
    )


def installed(package: str) -> bool:
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True


def main(arguments: argparse.Namespace) -> int:
    arguments.out.mkdir(parents=True, exist_ok=True)
    rows = []
    for case in cases():
        if arguments.only and arguments.only not in f"{case.package} {case.name}":
            continue
        kept = arguments.out / f"{case.package}-{case.name}.json"
        if arguments.kept and not kept.exists():
            continue
        if not (arguments.kept or installed(case.package)):
            print(f"{case.name}: left out, {case.package} is not installed", flush=True)
            continue
        if kept.exists():
            row = Row(**json.loads(kept.read_text()))
        else:
            with tempfile.TemporaryDirectory() as folder:
                row = live(case, Path(folder))
            kept.write_text(json.dumps(asdict(row), indent=1))
        rows.append(row)
        print(row.refused or row, flush=True)
    if arguments.write:
        put(arguments.write, section(rows, versions()))
    return 0 if all(row.works or row.refused or (row.is_blind and row.is_right) for row in rows) else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", help="what package or file must hold")
    parser.add_argument("--out", type=Path, default=Path("out/real-files"))
    parser.add_argument("--kept", action="store_true", help="run nothing, take what --out has")
    parser.add_argument("--write", type=Path, help="the page to write the section into")
    sys.exit(main(parser.parse_args()))
