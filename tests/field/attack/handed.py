"""Tasks: what of them is refused, and what a user may hand over."""

from __future__ import annotations

import io
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
from field.attack.ground import NAMES, Ground, csk_sdk, save_task
from field.attack.intruders import random_bits, refused_or_done
from field.attack.promise import GUARANTEES, Tries, promise


def written(picture: np.ndarray, form: str = "PNG", **options: Any) -> bytes:
    out = io.BytesIO()
    Image.fromarray(picture).save(out, form, **options)
    return out.getvalue()


def quick(learner: Any, **settings: Any) -> Any:
    """The learner's settings, made quick."""
    from dataclasses import replace

    return replace(
        learner.config, **{"epochs": 1, "few_shot": 0, "max_forgetting": 100.0, "threads": 1, **settings}
    )


def fresh(ground: Ground, place: Path) -> Any:
    from csk_sdk import Learner
    from csk_sdk.config import TrainingConfig

    shutil.rmtree(place / "state", ignore_errors=True)
    return Learner.open(
        ground.bundle, place / "state", TrainingConfig(threads=1, epochs=1, few_shot=0, max_forgetting=100.0)
    )


@promise(GUARANTEES, "an npz file", tries=400)
def hostile_archives(tries: Tries, ground: Ground, place: Path) -> None:
    """The table of tests/field/test_hostile_tasks.py, then random damage: refused in a sentence, or what NumPy reads."""
    from csk_sdk import Task, TaskError
    from field.test_hostile_tasks import NPZ

    path = place / "01.npz"
    cases = sorted(NPZ)
    save_task(place / "good.npz", ground, (4, 5))
    good = (place / "good.npz").read_bytes()
    for number in tries:
        path.unlink(missing_ok=True)
        case = cases[number] if number < len(cases) and tries.count >= len(cases) else ""
        if case:
            NPZ[case][0](path)
        else:
            path.write_bytes(random_bits(good, tries.rng))
        with tries.one(case or "random damage"):
            try:
                task = Task.open(path)
                task.fingerprint()
            except TaskError as error:
                assert "\n" not in str(error)
                if case:
                    assert any(part in str(error) for part in NPZ[case][1].split("|")), str(error)
                continue
            assert not case, "it was opened"
            with np.load(path, allow_pickle=False) as file:
                assert task.classes == tuple(file["class_names"].tolist())


@promise(GUARANTEES, "a picture", tries=1500)
def hostile_pictures(tries: Tries, ground: Ground, place: Path) -> None:
    """Known bombs, and random damage of all four formats: a sentence that names the file, or pixels."""
    from csk_sdk import TaskError
    from csk_sdk.data.images import FileImages
    from field.test_hostile_tasks import PICTURES

    path = place / "x.png"
    picture = tries.numpy.integers(0, 256, (12, 9, 3), np.uint8)
    good = [written(picture, form) for form in ("PNG", "JPEG", "BMP", "WEBP")]
    cases = sorted(PICTURES) if tries.count >= 100 else []
    for number in tries:
        case = cases[number] if number < len(cases) else ""
        path.write_bytes(PICTURES[case][0]() if case else random_bits(tries.rng.choice(good), tries.rng))
        with tries.one(case or "random damage"):
            try:
                pixels = FileImages([path]).read(0)
            except TaskError as error:
                assert str(path) in str(error)
                assert "\n" not in str(error)
                continue
            assert not case, "it was read"
            assert pixels.dtype == np.uint8
            assert pixels.ndim == 3
            assert pixels.size <= 3 * 2**26


@promise(GUARANTEES, "a task's folder", tries=100)
def links_pipes_and_devices(tries: Tries, ground: Ground, place: Path) -> None:
    """Put anywhere into a good task: what leads out is refused by name, what stays inside is learned from."""
    outside = place / "outside"
    outside.mkdir()
    (outside / "private.png").write_bytes(written(ground.of(4, 0, 1)[0]))
    workspace = ground.workspace(place / "workspace")
    (workspace / "tasks").unlink()
    for _ in tries:
        shutil.rmtree(workspace / "tasks", ignore_errors=True)
        ground.reset(workspace, 0)
        task = _folder(ground, workspace / "tasks/01", (4, 5), 6)
        kind = tries.rng.choice(
            ["file out", "folder out", "device", "pipe", "inside", "socketless pipe in test"]
        )
        at = task / tries.rng.choice(["train/four", "train/five"])
        if kind == "file out":
            (at / "x.png").symlink_to(
                tries.rng.choice([outside / "private.png", Path("../../../../../outside/private.png")])
            )
        elif kind == "folder out":
            (at.parent / "more").symlink_to(outside)
        elif kind == "device":
            (at / "x.png").symlink_to(tries.rng.choice(["/dev/zero", "/dev/urandom", "/dev/full"]))
        elif kind == "pipe":
            os.mkfifo(at / "x.png")
        elif kind == "inside":
            (at / "x.png").symlink_to("0.png")
        else:
            (task / "test/four").mkdir(parents=True)
            os.mkfifo(task / "test/four/x.png")
        with tries.one(kind):
            done = csk_sdk("train", "--epochs", "1", "--no-evaluate", "--workspace", workspace)
            refused_or_done(done)
            assert (done.status == 0) == (kind == "inside"), done.err
            if kind != "inside":
                assert "private" not in done.out
                assert not (workspace / "state/HEAD").exists()


def _folder(ground: Ground, task: Path, digits: tuple[int, ...], count: int) -> Path:
    for digit in digits:
        (task / "train" / NAMES[digit]).mkdir(parents=True)
        for index, picture in enumerate(ground.of(digit, 0, count)):
            (task / "train" / NAMES[digit] / f"{index}.png").write_bytes(written(picture))
    return task


@promise(GUARANTEES, "a task's labels", tries=24)
def labels_that_say_nothing(tries: Tries, ground: Ground, place: Path) -> None:
    """Shuffled or shifted labels are refused, and nothing is committed; --no-label-check learns them."""
    from csk_sdk import Task, TaskError

    images = np.concatenate([ground.of(digit, 0, 100) for digit in (4, 5, 6)])
    labels = np.repeat(np.arange(3), 100)
    for number in tries:
        order = tries.numpy.permutation(300)
        wrong = tries.numpy.permutation(labels) if number % 2 else np.roll(labels[order], 1)
        task = Task.from_arrays("x", images[order], wrong, ["a", "b", "c"])
        with tries.one("shuffled" if number % 2 else "shifted by a row"):
            learner = fresh(ground, place)
            try:
                learner.learn(task)
            except TaskError as error:
                assert str(error).endswith(".")
            else:
                raise AssertionError("it was learned")
            assert not (place / "state/generations").exists()
        if number % 8 == 0:
            with tries.one("the same with --no-label-check, and the right labels"):
                fresh(ground, place).learn(task, quick(fresh(ground, place), label_check=False))
                fresh(ground, place).learn(Task.from_arrays("x", images, labels, ["a", "b", "c"]))


@promise(GUARANTEES, "a class's or task's name", tries=200)
def names_that_are_none(tries: Tries, ground: Ground, place: Path) -> None:
    """Blank, too long, or with control characters: refused; other texts of any script are kept as they are."""
    from csk_sdk import Task, TaskError

    pixels = np.zeros((4, 8, 8, 1), np.uint8)
    for _ in tries:
        kind = tries.rng.choice(["blank", "long", "control", "fine"])
        name = {
            "blank": " " * tries.rng.randrange(5),
            "long": "x" * tries.rng.randint(1025, 5000),
            "control": "a" + chr(tries.rng.choice([0, 7, 10, 13, 27, 127, 0x85])) + "b",
            "fine": "".join(
                chr(tries.rng.randrange(0x4E00, 0x9FFF)) for _ in range(tries.rng.randint(1, 80))
            ),
        }[kind]
        with tries.one(f"{kind}: {name[:20]!r}"):
            learner = fresh(ground, place)
            try:
                task = Task.from_arrays("x", pixels, [0, 1, 0, 1], [name, "b"])
                learner.require_new(task.name, task.classes)
            except TaskError as error:
                assert kind != "fine", str(error)
                assert "\n" not in str(error)
                assert "\x1b" not in str(error)
            else:
                assert kind == "fine", "it was taken"
                assert task.classes[0] == name


# What a user may hand over


@promise(
    GUARANTEES,
    "a photo with EXIF orientation",
    "gray for a color model, color for a gray one",
    "alpha, also of a palette",
    "16-bit PNG",
    tries=800,
)
def pictures_as_people_have_them(tries: Tries, ground: Ground, place: Path) -> None:
    """Random pictures stored in random ways, compared with what the formats' specifications say of their pixels."""
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
    "the same picture twice in a class",
    "the same picture in two classes",
    "class names",
    "one picture a class",
    "1,000 pictures of one class, 1 of another",
    tries=24,
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
    names = ("caf\u00e9", "cafe\u0301")  # one word in two spellings: two names
    learner = fresh(ground, place)
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
    """Opened, and every picture in its class: twice as many take about twice the CPU time, not four times."""
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
