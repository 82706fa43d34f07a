"""What a state reveals, what a task leaves behind, and what else docs/state.md says of the folder."""

from __future__ import annotations

import json
import os
import shutil
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from field.attack import judge
from field.attack.ground import SETTINGS, Ground, csk_sdk
from field.attack.handed import fresh, quick
from field.attack.intruders import random_bits
from field.attack.promise import GUARANTEES, STATE, Tries, promise


def _task(ground: Ground, tries: Tries, name: str = "x") -> tuple[Any, np.ndarray]:
    from csk_sdk import Task

    digits = tuple(tries.rng.sample(range(4, 10), 2))
    begin = tries.rng.randrange(60)
    images = np.concatenate([ground.of(digit, begin, begin + 14) for digit in digits])
    return Task.from_arrays(name, images, np.repeat([0, 1], 14), [f"{name}-a", f"{name}-b"]), images


@promise(GUARANTEES, "A state holds no image, no feature vector of an image, and no file name", tries=20)
def no_picture_in_a_state(tries: Tries, ground: Ground, place: Path) -> None:
    """Every file of a state, and every progress checkpoint on the way, searched for the bytes of the images."""
    for _ in tries:
        task, images = _task(ground, tries)
        learner = fresh(ground, place)
        kept: list[bytes] = []

        def keep(_: object, kept: list[bytes] = kept) -> None:
            path = place / "state/progress.safetensors"
            if path.exists():
                kept.append(path.read_bytes())

        with tries.one("a task"):
            learner.learn(task, quick(learner, checkpoint_seconds=0.0, gradient_share=1.0), on_progress=keep)
            assert kept
            kept += [path.read_bytes() for path in (place / "state").rglob("*") if path.is_file()]
            features = np.asarray(learner.features(images[..., None]), np.float32)
            for picture, vector in zip(images, features, strict=True):
                wanted = [
                    picture.tobytes(),
                    (picture / np.float32(255)).astype(np.float32).tobytes(),
                    vector.tobytes(),
                ]
                for content in kept:
                    assert not any(one in content for one in wanted), (
                        "an image, or its features, in the state"
                    )


@promise(
    GUARANTEES,
    "names of tasks and classes, numbers of images, times, settings, accuracies",
    "moment/SITE, the second moments",
    "center/SITE, head/...",
    "statistics.means, statistics.counts",
    "statistics.scatter",
    "statistics.temperature",
    "ledger/, the contributions",
    "ledger.map, ledger.centers",
    "familiarity.margins, familiarity.oddness",
    "progress.safetensors, while a task is learned",
    tries=12,
)
def nothing_else_is_in_a_state(tries: Tries, ground: Ground, place: Path) -> None:
    """The tensors of a generation are those of the table, and a class's mean is the mean of its images' features."""
    known = ("moment/", "center/", "head/", "statistics.", "familiarity.", "ledger.")
    for _ in tries:
        task, _ = _task(ground, tries)
        with tries.one("a task"):
            learner = fresh(ground, place)
            learner.learn(task)
            tensors = load_file(place / "state/generations/000001.safetensors")
            assert not [name for name in tensors if not name.startswith(known)]
            assert tensors["statistics.counts"][-2:].tolist() == [14, 14]
            names = {
                path.relative_to(place / "state").as_posix()
                for path in (place / "state").rglob("*")
                if path.is_file() and path.parent.name != "ledger"
            }
            for path in (place / "state/ledger").iterdir():
                assert set(load_file(path)) == {"count", "mean", "factor"}
            allowed = {
                "HEAD",
                "state.json",
                "lock",
                "generations/000001.json",
                "generations/000001.safetensors",
            }
            assert names <= allowed, names - allowed


@promise(
    GUARANTEES,
    "Then no sums, counts or second moments of features are kept of the task's classes",
    tries=12,
)
def no_class_statistics(tries: Tries, ground: Ground, place: Path) -> None:
    """Not a number of the statistics differs from the bundle's, and no class of the task is named in them."""
    base = load_file(ground.bundle / "checkpoint.safetensors")
    for _ in tries:
        task, _ = _task(ground, tries)
        with tries.one("a task"):
            learner = fresh(ground, place)
            learner.learn(task, replace(quick(learner), class_statistics=False))
            tensors = load_file(place / "state/generations/000001.safetensors")
            assert tensors["statistics.counts"].tolist() == base["statistics.counts"].tolist()
            assert tensors["statistics.means"].shape == base["statistics.means"].shape
            assert b"x-a" not in tensors["statistics.classes"].tobytes()


@promise(GUARANTEES, "With --prefix-cache disk, features of images", tries=8)
def the_prefix_cache_has_no_name(tries: Tries, ground: Ground, place: Path) -> None:
    """While it is learned there are files without a name, after it none; and none with a name but the state's."""
    if not Path("/proc/self/fd").is_dir():
        tries.skip("files without a name can be seen on Linux only")
        return
    for _ in tries:
        task, _ = _task(ground, tries)
        learner = fresh(ground, place)
        seen: set[str] = set()
        nameless: list[str] = []

        def look(_: object, seen: set[str] = seen, nameless: list[str] = nameless) -> None:
            seen.update(path.name for path in place.rglob("*"))
            nameless.extend(_nameless(place))

        with tries.one("a task"):
            learner.learn(task, quick(learner, prefix_cache="disk"), on_progress=look)
            odd = {name for name in seen if not name.endswith(".csk-tmp")} - _STATE_NAMES
            assert not odd, f"files with names: {odd}"
            assert nameless, "nothing was cached"
            assert not _nameless(place), "it is still open"


_STATE_NAMES = {"state", "lock", "HEAD", "state.json", "generations", "progress.safetensors"} | {
    f"000001.{suffix}" for suffix in ("json", "safetensors")
}


def _nameless(place: Path) -> list[str]:
    found = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            target = str(descriptor.readlink())
            if target.startswith(str(place)) and target.endswith("(deleted)"):
                found.append(target)
    return found


@promise(
    STATE,
    "so a resumed run gives the same numbers as one that was never interrupted, to the bit on one thread",
    tries=40,
)
def a_resumed_run_ends_alike(tries: Tries, ground: Ground, place: Path) -> None:
    """Stopped at any step, by an error of the application; with other settings it starts afresh."""

    class Enough(Exception):
        pass

    task, _ = _task(ground, tries)
    undisturbed: dict[int, judge.Bits] = {}
    for _ in tries:
        seed = tries.rng.randrange(2)
        settings = quick(fresh(ground, place), checkpoint_seconds=0.0, epochs=3, patience=0, seed=seed)
        if seed not in undisturbed:
            fresh(ground, place).learn(task, settings)
            undisturbed[seed] = judge.look(place / "state").intact[1]
        stop = tries.rng.randint(1, 5)
        calls: list[int] = []

        def count(_: object, calls: list[int] = calls, stop: int = stop) -> None:
            calls.append(1)
            if len(calls) > stop:
                raise Enough

        with tries.one(f"stopped after {stop} reports"):
            learner = fresh(ground, place)
            with suppress(Enough):
                learner.learn(task, settings, on_progress=count)
            again = fresh_on(ground, place)
            if tries.rng.random() < 0.3 and not judge.numbers(place / "state"):
                report = again.learn(task, replace(settings, learning_rate=0.011))
                assert report.resumed_at_step == 0, "it went on with other settings"
                continue
            if not judge.numbers(place / "state"):
                again.learn(task, settings)
            assert judge.look(place / "state").intact[1] == undisturbed[seed], "other bits"


def fresh_on(ground: Ground, place: Path) -> Any:
    from csk_sdk import Learner

    return Learner.open(ground.bundle, place / "state")


@promise(
    STATE,
    "They are not needed for anything else, and a damaged one is ignored.",
    "It holds nothing that was learned: delete it, and the bundle's own precision is used.",
    tries=100,
)
def scores_and_choices_may_rot(tries: Tries, ground: Ground, place: Path) -> None:
    """Scores, the progress checkpoint and device.json of any bytes: commands end, and the state stays."""
    workspace = ground.workspace(place / "workspace", 2)
    assert csk_sdk("evaluate", "--workspace", workspace).status == 0
    before = judge.look(workspace / "state").intact
    for _ in tries:
        name = tries.rng.choice(
            ["state/scores/000002.json", "state/progress.safetensors", "device.json", "state/scores/x.json"]
        )
        path = workspace / name
        good = path.read_bytes() if path.exists() else b'{"generation": 2, "scores": {}, "check": ""}'
        path.write_bytes(random_bits(good, tries.rng))
        command = tries.rng.choice(
            [("tasks",), ("report", "--out", str(place / "x.html"), "--overwrite"), ("train",)]
        )
        with tries.one(f"{name}, {command[0]}"):
            done = csk_sdk(*command, "--workspace", workspace)
            assert done.status == 0, done.err[-500:]
            assert judge.look(workspace / "state").intact == before
        (workspace / "device.json").unlink(missing_ok=True)


@promise(
    STATE,
    "To restore, put the folders back; no path or host name is stored in them.",
    "A state without its bundle cannot be opened, and neither can one whose bundle was built again",
    tries=30,
)
def backups(tries: Tries, ground: Ground, place: Path) -> None:
    """The files of the list alone, put elsewhere: the same predictions; with another bundle they are refused."""
    from field.attack.intruders import reseal

    picture = ground.of(5, 3, 9)[..., None]
    expected = _labels(ground.bundle, ground.state(2), picture)
    for number in tries:
        other = place / f"device {number} \u00e9"
        other.mkdir()
        with tries.one("restored"):
            for name in ("state.json", "HEAD"):
                (other / "state").mkdir(exist_ok=True)
                shutil.copy(ground.state(2) / name, other / "state" / name)
            shutil.copytree(ground.state(2) / "generations", other / "state/generations")
            shutil.copytree(ground.bundle, other / "bundle")
            assert _labels(other / "bundle", other / "state", picture) == expected
            for path in (other / "state").rglob("*.json"):
                assert str(ground.folder) not in path.read_text()
                assert os.uname().nodename not in path.read_text()
        with tries.one("another bundle"):
            raw = json.loads((other / "bundle/manifest.json").read_text())
            raw["batch_size"] += 1 + number
            reseal(other / "bundle", raw)
            before = judge.tree(other / "state")
            (other / "csk.toml").write_text(SETTINGS)
            for command in ("train", "tasks", "report", "rollback --to base", "verify --repair"):
                done = csk_sdk(*command.split(), "--workspace", other)
                assert done.status == 1, f"{command} went on with another bundle's state"
                judge.one_sentence(done.err)
            assert judge.tree(other / "state") == before
        shutil.rmtree(other)


def _labels(bundle: Path, state: Path, pictures: np.ndarray) -> list[str]:
    from csk_sdk import Learner

    return list(Learner.open(bundle, state).predict(pictures).labels.tolist())


@promise(
    STATE,
    "Readers take no lock: predict, evaluate and export work while another process trains, on the generation that was "
    "current when they opened it.",
    tries=40,
)
def readers_take_no_lock(tries: Tries, ground: Ground, place: Path) -> None:
    """Under a held lock; and a learner that was opened before a commit goes on with what was current then."""
    from csk_sdk import Learner
    from csk_sdk.state.lock import StateLock

    workspace = ground.workspace(place / "workspace", 1)
    pictures = ground.of(6, 0, 4)[..., None]
    for number in tries:
        ground.reset(workspace, 1)
        with tries.one("under a lock"), StateLock(workspace / "state"):
            learner = Learner.open(ground.bundle, workspace / "state")
            before = learner.predict(pictures).probabilities.tobytes()
            command = (("evaluate",), ("export", "--out", str(place / "x.onnx"), "--overwrite"), ("tasks",))[
                number % 3
            ]
            done = csk_sdk(*command, "--workspace", workspace)
            assert done.status == 0, done.err
            predictor = learner.predictor()
        with tries.one("a commit later"):
            shutil.copytree(ground.state(2), workspace / "state", dirs_exist_ok=True)
            assert predictor.generation.number == 1
            head = predictor.head()
            assert head.predict(predictor.features(pictures)).probabilities.tobytes() == before
            assert Learner.open(ground.bundle, workspace / "state").generation.number == 2
