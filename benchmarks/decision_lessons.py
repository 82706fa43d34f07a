"""The lessons of benchmarks/decisions.py: known classes that look otherwise, new ones, and what no photograph shows."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from benchmarks.continual.corruptions import CORRUPTIONS
from benchmarks.continual.data import Pictures, Split, TaskData
from benchmarks.scaled_digits import scaled_digits
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Images = NDArray[np.uint8]
Look = Callable[[Images, np.random.Generator], Images]

SIDE = 32
TURNED = "quarter turn"
# So many classes of a base that knows fifty are shown anew, evenly spread over them.
SOME_KNOWN = 10
NEW_CLASSES = 10
# Training images that a lesson of new classes does not have, of each class, are tested, too: nobody has seen them.
UNUSED = 100
# Of drawn letters, so many of each are tested.
DRAWN_TESTS = 100
LETTERS = "ABCDEFGHIJ"


@dataclass(frozen=True)
class Lesson:
    """`images` of a class: of a `known` few or `every` known one behind a `look`, of `new` ones of the later classes
    from `first` on, or of `far` ones."""

    base: str
    kind: str
    images: int
    look: str = ""
    first: int = 0

    @property
    def name(self) -> str:
        """As the tables have it, of its base."""
        if self.kind == "new":
            classes = f"new classes {self.first + 1} to {self.first + NEW_CLASSES}"
            return f"{classes}, {self.look}" if self.look else classes
        kinds = {"known": "known classes", "every": "every known class"}
        return f"{kinds[self.kind]}, {self.look}" if self.kind in kinds else self.look


WEAK, WARM = "cifar100-base10", "cifar100-base50"


def lessons() -> tuple[Lesson, ...]:
    """All that are learned, in order: some of each kind first, so that a run that ends early has seen all."""
    found = []
    for base, firsts, looks in ((WEAK, (0, 30, 60), MILD), (WARM, (0, 20), ())):
        found += [Lesson(base, "known", 100, look) for look in SEVERE[:2]]
        found += [Lesson(base, "far", 100, "drawn letters"), Lesson(base, "far", 70, "handwritten digits")]
        found += [Lesson(base, "new", 100, look) for look in ("gaussian noise 3", TURNED)]
        found += [Lesson(base, "new", 100, first=first) for first in firsts]
        found += [Lesson(base, "known", 100, look) for look in (*SEVERE[2:], *looks)]
    found += [Lesson(WEAK, "known", 500, look) for look in SEVERE[:2]]
    found += [Lesson(WARM, "every", 100, look) for look in LOOKS]
    return tuple(found)


def task_of(
    lesson: Lesson, known: tuple[str, ...], later: tuple[str, ...], pictures: Pictures, seed: int
) -> TaskData:
    """Its images as `seed` draws them, of a base that knows classes and may learn others later."""
    rng = np.random.default_rng((seed, lesson.images))
    if lesson.kind == "far":
        return _digits(lesson.images, rng) if "digits" in lesson.look else _letters(lesson.images, rng)
    if lesson.kind in ("known", "every"):
        classes = known[:: max(1, len(known) // SOME_KNOWN)] if lesson.kind == "known" else known
        train, test = pictures.split("train", classes, lesson.images, seed), pictures.split("test", classes)
    else:
        classes = tuple(sorted(later[lesson.first : lesson.first + NEW_CLASSES]))
        train, test = _new(classes, lesson.images, pictures, seed)
    if lesson.look:
        look = LOOKS[lesson.look]
        train, test = (Split(look(part.images, rng), part.labels) for part in (train, test))
    return TaskData("lesson", classes, train, test)


def _new(classes: tuple[str, ...], images: int, pictures: Pictures, seed: int) -> tuple[Split, Split]:
    """Training images, and the test images with unused training images."""
    train, test, labels = [], [], []
    for label, name in enumerate(classes):
        found = pictures.of("train", name)
        order = np.random.default_rng((seed, label)).permutation(len(found))
        train.append(found[order[:images]])
        test.append(np.concatenate([pictures.of("test", name), found[order[images : images + UNUSED]]]))
        labels.append(np.full(len(test[-1]), label, np.int64))
    trained = np.repeat(np.arange(len(classes)), [len(part) for part in train])
    return Split(np.concatenate(train), trained), Split(np.concatenate(test), np.concatenate(labels))


def _digits(images: int, rng: np.random.Generator) -> TaskData:
    """scikit-learn's scans of 8x8 pixels, scaled up; all that are not learned are tested."""
    drawn, labels = scaled_digits(SIDE, Image.Resampling.BILINEAR)
    order = rng.permutation(len(labels))
    learned = np.concatenate([order[labels[order] == digit][:images] for digit in range(10)])
    tested = np.setdiff1d(order, learned)
    names = tuple(f"digit {digit}" for digit in range(10))
    train, test = (Split(drawn[kept], labels[kept]) for kept in (learned, tested))
    return TaskData("lesson", names, train, test)


def _letters(images: int, rng: np.random.Generator) -> TaskData:
    """Letters of any colour, size and tilt on any ground, under noise."""
    splits = []
    for images_each in (images, DRAWN_TESTS):
        labels = np.repeat(np.arange(len(LETTERS)), images_each)
        splits.append(Split(np.stack([_letter(LETTERS[label], rng) for label in labels]), labels))
    return TaskData("lesson", tuple(f"letter {letter}" for letter in LETTERS), *splits)


def _letter(letter: str, rng: np.random.Generator) -> Images:
    ground, ink = rng.integers(0, 256, 3), rng.integers(0, 256, 3)
    mask = Image.new("L", (SIDE, SIDE))
    font = ImageFont.load_default(int(rng.integers(16, 29)))
    centre = tuple(SIDE / 2 + rng.integers(-4, 5, 2))
    ImageDraw.Draw(mask).text(centre, letter, fill=255, font=font, anchor="mm")
    turned = mask.rotate(float(rng.uniform(-30, 30)), Image.Resampling.BILINEAR)
    share = np.asarray(turned)[..., None] / 255.0
    return _to_uint8(ground + (ink - ground) * share + rng.normal(scale=20.0, size=(SIDE, SIDE, 3)))


def low_resolution(images: Images, rng: np.random.Generator, pixels: int) -> Images:
    """Squares of so many pixels have one colour."""
    n, height, width, channels = images.shape
    blocks = images.reshape(n, height // pixels, pixels, width // pixels, pixels, channels)
    means = blocks.mean(axis=(2, 4))
    return means.repeat(pixels, axis=1).repeat(pixels, axis=2).astype(np.uint8)


def jpeg(images: Images, rng: np.random.Generator) -> Images:
    """Compressed at quality 10 of 100."""
    found = np.empty_like(images)
    for image, out in zip(images, found, strict=True):
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "JPEG", quality=10)
        with Image.open(buffer) as picture:
            out[:] = np.asarray(picture)
    return found


def fog(images: Images, rng: np.random.Generator) -> Images:
    """Two thirds of bright clouds that are eight pixels wide."""
    n, height, width, _ = images.shape
    coarse = rng.normal(scale=30.0, size=(n, height // 8, width // 8))
    clouds = [np.asarray(Image.fromarray(one.astype(np.float32)).resize((width, height))) for one in coarse]
    return _to_uint8(images / 3 + (200.0 + np.stack(clouds)[..., None]) * 2 / 3)


def dark(images: Images, rng: np.random.Generator) -> Images:
    """A fifth of the light, and the sensor's noise."""
    return _to_uint8(images * 0.2 + rng.normal(scale=4.0, size=images.shape))


def colour_cast(images: Images, rng: np.random.Generator) -> Images:
    """As under a warm lamp."""
    return _to_uint8(images * np.array([1.0, 0.65, 0.3]))


def gray(images: Images, rng: np.random.Generator) -> Images:
    """Without colour."""
    return np.repeat(images.mean(axis=-1, keepdims=True), 3, axis=-1).astype(np.uint8)


def quarter_turn(images: Images, rng: np.random.Generator) -> Images:
    """A camera that lies on its side."""
    return np.ascontiguousarray(np.rot90(images, axes=(1, 2)))


def negative(images: Images, rng: np.random.Generator) -> Images:
    """Light where it was dark, as a thermal camera has it."""
    return 255 - images


def _to_uint8(values: NDArray[np.float64]) -> Images:
    return np.clip(values, 0, 255).astype(np.uint8)


SEVERITIES = tuple(f"{name} {severity}" for severity in (5, 3, 4, 2, 1) for name in CORRUPTIONS)
LOOKS: dict[str, Look] = {
    TURNED: quarter_turn,
    "negative": negative,
    "a quarter of the resolution": partial(low_resolution, pixels=4),
    "half the resolution": partial(low_resolution, pixels=2),
    "dark": dark,
    "fog": fog,
    "JPEG": jpeg,
    "colour cast": colour_cast,
    "gray": gray,
    **{
        look: partial(CORRUPTIONS[look[:-2]], severity=int(look[-1]))  # type: ignore[call-arg]
        for look in SEVERITIES
    },
}
SEVERE = (
    TURNED,
    "gaussian noise 5",
    "a quarter of the resolution",
    "gaussian blur 5",
    "negative",
    "contrast 5",
    "dark",
)
MILD = tuple(look for look in LOOKS if look not in SEVERE)
