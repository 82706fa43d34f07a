"""Tasks: what of them is refused."""

from __future__ import annotations

import io
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

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
        learner.config,
        **{"epochs": 1, "few_shot": 0, "train": "centers", "max_forgetting": 100.0, "threads": 1, **settings},
    )


def fresh(ground: Ground, place: Path) -> Any:
    from csk_sdk import Learner
    from csk_sdk.config import TrainingConfig

    shutil.rmtree(place / "state", ignore_errors=True)
    return Learner.open(
        ground.bundle,
        place / "state",
        TrainingConfig(threads=1, epochs=1, few_shot=0, train="centers", max_forgetting=100.0),
    )


@promise(GUARANTEES, "an npz file", tries=400)
def hostile_archives(tries: Tries, ground: Ground, place: Path) -> None:
    """The table of test_hostile_tasks.py, then random damage: refused in a sentence, or what NumPy reads."""
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


@promise(GUARANTEES, "an image", tries=1500)
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
        task = folder_of(ground, workspace / "tasks/01", (4, 5), 6)
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


def folder_of(ground: Ground, task: Path, digits: tuple[int, ...], count: int) -> Path:
    for digit in digits:
        (task / "train" / NAMES[digit]).mkdir(parents=True)
        for index, picture in enumerate(ground.of(digit, 0, count)):
            (task / "train" / NAMES[digit] / f"{index}.png").write_bytes(written(picture))
    return task


@promise(GUARANTEES, "a task's labels", tries=24, least=2)
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
