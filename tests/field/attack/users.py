"""What a user may hand over: images as people have them, and tasks that are odd."""

from __future__ import annotations

import json
import os
import shutil
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from field.attack import judge
from field.attack.ground import Ground
from field.attack.handed import fresh, quick, written
from field.attack.promise import GUARANTEES, Tries, promise


@promise(
    GUARANTEES,
    "a photo with EXIF orientation",
    "gray for a color model, color for a gray one",
    "alpha, also of a palette",
    "16-bit PNG, gray or color",
    tries=800,
)
def pictures_as_people_have_them(tries: Tries, ground: Ground, place: Path) -> None:
    """Random images stored in random ways, compared with what the formats' specifications say of their pixels."""
    from csk_sdk.data.images import FileImages

    path = place / "x.png"
    for _ in tries:
        height, width = (int(n) for n in tries.numpy.integers(1, 20, 2))
        color = tries.numpy.integers(0, 256, (height, width, 3), np.uint8)
        alpha = tries.numpy.integers(0, 256, (height, width), np.uint8)
        kind = tries.rng.choice(["turned", "alpha", "palette", "deep gray", "deep color", "gray and alpha"])
        expected = color
        if kind == "turned":
            turn = tries.rng.randint(1, 8)
            exif = Image.Exif()
            exif[274] = turn
            path.write_bytes(written(np.ascontiguousarray(_STORED[turn](color)), exif=exif))
        elif kind == "alpha":
            path.write_bytes(written(np.dstack([color, alpha])))
        elif kind == "palette":
            table = tries.numpy.integers(0, 256, (256, 3), np.uint8)
            image = Image.fromarray(color[:, :, 0], "L")
            image.putpalette(table.tobytes())
            image.save(path, transparency=bytes(tries.numpy.integers(0, 256, 256, np.uint8)))
            expected = table[color[:, :, 0]]
        elif kind == "gray and alpha":
            Image.fromarray(np.dstack([color[:, :, 0], alpha]), "LA").save(path)
            expected = color[:, :, :1]
        else:
            samples = color[:, :, :1] if kind == "deep gray" else color
            deep = samples.astype(np.uint16) << 8 | tries.numpy.integers(0, 256, samples.shape, np.uint8)
            path.write_bytes(_deep_png(deep))
            expected = samples
        with tries.one(f"{kind} of {height}x{width}"):
            found = FileImages([path]).read(0)
            assert found.shape == expected.shape, (found.shape, expected.shape)
            assert np.array_equal(found, expected), "other pixels"


# What a viewer does to show it upright, undone (EXIF 2.3, tag 274).
_STORED = {
    1: lambda up: up,
    2: lambda up: up[:, ::-1],
    3: lambda up: up[::-1, ::-1],
    4: lambda up: up[::-1],
    5: lambda up: up.transpose(1, 0, 2),
    6: lambda up: np.rot90(up, 1),
    7: lambda up: np.rot90(up, 2).transpose(1, 0, 2),
    8: lambda up: np.rot90(up, -1),
}


def _deep_png(samples: np.ndarray) -> bytes:
    """A PNG of 16 bits a sample, which Pillow cannot write (PNG specification: big-endian, filter 0)."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        )

    height, width, channels = samples.shape
    begin = struct.pack(">IIBBBBB", width, height, 16, 2 if channels == 3 else 0, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", begin)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


@promise(
    GUARANTEES,
    "any other number of channels",
    "the same image twice in a class",
    "the same image in two classes",
    "class names",
    "one image a class",
    "1,000 images of one class, 1 of another",
    tries=24,
    least=6,
)
def odd_tasks(tries: Tries, ground: Ground, place: Path) -> None:
    """Learned for real: what is to be refused is, what is to be learned is, and what was said of it holds."""
    from csk_sdk import Task, TaskError

    checks = [_channels, _twice, _both, _scripts, _one_each, _thousand]
    for number in tries:
        check = checks[number % len(checks)]
        first = tries.rng.randrange(5, 9)
        with tries.one(f"{check.__name__} {first}"):
            check(ground, place, (4, first), Task, TaskError)


def _arrays(ground: Ground, digits: tuple[int, ...], count: int) -> tuple[np.ndarray, np.ndarray]:
    return np.concatenate([ground.of(digit, 0, count) for digit in digits]), np.repeat(
        np.arange(len(digits)), count
    )


def _channels(ground: Ground, place: Path, digits: tuple[int, ...], task: Any, error: Any) -> None:
    for channels in (5, 7):
        wrong = task.from_arrays("x", np.zeros((4, 8, 8, channels), np.uint8), [0, 1, 0, 1], ["a", "b"])
        try:
            fresh(ground, place).learn(wrong)
        except error:
            continue
        raise AssertionError(f"{channels} channels were learned")


def _twice(ground: Ground, place: Path, digits: tuple[int, ...], task: Any, error: Any) -> None:
    images, labels = _arrays(ground, digits, 12)
    learner = fresh(ground, place)
    learner.learn(
        task.from_arrays("x", np.repeat(images, 2, 0), np.repeat(labels, 2), ["a", "b"]), quick(learner)
    )
    assert learner.generation.tensors["statistics.counts"][-2:].tolist() == [24, 24]


def _both(ground: Ground, place: Path, digits: tuple[int, ...], task: Any, error: Any) -> None:
    images, labels = _arrays(ground, digits, 20)
    learner = fresh(ground, place)
    learner.learn(task.from_arrays("x", np.append(images, images[:1], 0), np.append(labels, 1), ["a", "b"]))
    assert (learner.predict(ground.of(digits[0], 100, 130)[..., None], "x").labels == "a").mean() > 0.8


def _scripts(ground: Ground, place: Path, digits: tuple[int, ...], task: Any, error: Any) -> None:
    images, labels = _arrays(ground, digits, 12)
    names = ("caf\u00e9", "カフェ")
    learner = fresh(ground, place)
    for twin in ("cafe\u0301", "CAF\u00c9", " caf\u00e9"):  # one word in two spellings
        try:
            learner.learn(task.from_arrays("鳥", images, labels, (names[0], twin)))
        except error:
            continue
        raise AssertionError(f"{twin!r} beside {names[0]!r} is learned")
    learner.learn(task.from_arrays("鳥", images, labels, names))
    record = judge.look(place / "state").records[1]
    assert tuple(record["tasks"][0]["classes"]) == names
    assert set(names) <= set(learner.classes)


def _one_each(ground: Ground, place: Path, digits: tuple[int, ...], task: Any, error: Any) -> None:
    images, labels = _arrays(ground, digits, 1)
    learner = fresh(ground, place)
    learner.learn(task.from_arrays("x", images, labels, ["a", "b"]))
    found = learner.predict(images[..., None], "x").labels.tolist()
    assert found == ["a", "b"], found


def _thousand(ground: Ground, place: Path, digits: tuple[int, ...], task: Any, error: Any) -> None:
    many = np.resize(ground.of(digits[0], 0, 100), (1000, 8, 8))
    one = ground.of(digits[1], 0, 1)
    learner = fresh(ground, place)
    learner.learn(task.from_arrays("x", np.concatenate([many, one]), [0] * 1000 + [1], ["many", "rare"]))
    assert learner.predict(one[..., None], "x").labels.tolist() == ["rare"]
    assert learner.predict(one[..., None]).labels.tolist() == ["rare"]
    assert (learner.predict(ground.of(digits[0], 100, 140)[..., None], "x").labels == "many").mean() > 0.8


@promise(GUARANTEES, "10,000 class folders", tries=1)
def ten_thousand_classes(tries: Tries, ground: Ground, place: Path) -> None:
    """Opened, and every image in its class: twice as many take about twice the CPU time, not four times."""
    from csk_sdk import Task

    (place / "x.png").write_bytes(written(ground.of(4, 0, 1)[0]))
    for _ in tries:
        with tries.one("10,000 folders"):
            for number in range(10_000):
                folder = place / f"01/train/{number:05d}"
                folder.mkdir(parents=True)
                os.link(place / "x.png", folder / "0.png")
            task = Task.open(place / "01")
            assert task.train is not None
            assert task.train.labels.tolist() == list(range(10_000))
            assert json.dumps(task.classes) == json.dumps([f"{number:05d}" for number in range(10_000)])
        shutil.rmtree(place / "01", ignore_errors=True)
