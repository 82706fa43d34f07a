"""How unfamiliar images look, by the number that `train` warns from: docs/decisions/0015-label-check.md.

    python benchmarks/novelty.py --workspace out/cifar100/workspace

The workspace is one that benchmarks/cifar100.py made. Each row is one kind of images: those of the base that are for
testing, each later task's, the base's with something done to them, and scans of handwritten digits. Accuracy is that of
the base's classes, where the images show them.
"""

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from csk_sdk import Inbox, Learner
from csk_sdk.data.tasks import Split
from csk_sdk.demo import digits
from csk_sdk.method.heads import ClassStatistics
from csk_sdk.method.novelty import UNFAMILIAR, novelty

# As many images as the check sees by default: 32 batches of 16.
SEEN = 512
Pictures = NDArray[np.uint8]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--bundle", type=Path, help="another than the workspace's bundle-exact")
    arguments = parser.parse_args()
    bundle = arguments.bundle or arguments.workspace / "bundle-exact"
    learner = Learner.open(bundle, tempfile.mkdtemp())
    known = ClassStatistics.from_tensors(learner.bundle.checkpoint())
    tasks = Inbox(arguments.workspace / "tasks")
    base = tasks.open("base")
    names = np.array(base.classes)[base.test.labels[chosen(base.test)]]
    print("| images | distance | warned of | accuracy |")
    print("|---|---|---|---|")
    for name, pictures, shown in kinds(tasks, some(base.test)):
        distance = novelty(known, learner.features(pictures))
        assert distance is not None, "the base has too few images"
        right = f"{100 * np.mean(learner.predict(pictures, 'base').labels == names):.1f}" if shown else ""
        print(f"| {name} | {distance:.2f} | {'yes' if distance >= UNFAMILIAR else 'no'} | {right} |")


def kinds(tasks: Inbox, base: Pictures) -> Iterator[tuple[str, Pictures, bool]]:
    """Name, images, and whether they show the base's classes."""
    rng = np.random.default_rng(0)
    yield "the base's own, for testing", base, True
    for name in tasks.names():
        if name != "base":
            yield f"task {name}", some(tasks.open(name).train), False
    for levels in (30, 60):
        noisy = base + rng.normal(0, levels, base.shape)
        yield f"noise of {levels} grey levels", np.clip(np.rint(noisy), 0, 255).astype(np.uint8), True
    for part in (2, 4, 8, 16):
        yield f"1/{part} of the brightness", base // part, True
    flat = base.reshape(len(base), -1, base.shape[-1])
    yield "shuffled pixels", rng.permuted(flat, axis=1).reshape(base.shape), True
    yield "uniform noise", rng.integers(0, 256, base.shape, np.uint8), False
    yield "handwritten digits", handwritten(base.shape[1:]), False


def chosen(split: Split) -> NDArray[np.int64]:
    return np.random.default_rng(0).permutation(len(split))[:SEEN]


def some(split: Split) -> Pictures:
    return np.stack([split.images.read(int(index)) for index in chosen(split)])


def handwritten(shape: tuple[int, ...]) -> Pictures:
    height, width, channels = shape
    scans = digits.load().train_images[:SEEN]
    large = [np.asarray(Image.fromarray(scan).resize((width, height))) for scan in scans]
    return np.repeat(np.stack(large)[..., None], channels, axis=-1)


if __name__ == "__main__":
    main()
