"""What is refused: one clear sentence, and the state folder as it was, to the byte."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from conftest import build_digits_bundle, open_learner
from csk_sdk import (
    ConfigError,
    CskError,
    DivergedError,
    Inbox,
    Learner,
    RuntimeMissingError,
    StateError,
    StateLockedError,
    Task,
    TaskError,
    TrainingConfig,
)
from csk_sdk.runtime import sessions
from learner.used_device import Device, refused

# Tasks


def empty_folder(device: Device) -> None:
    (device.folder / "tasks" / "03").mkdir(parents=True)
    Inbox(device.folder / "tasks").open("03")


def empty_train(device: Device) -> None:
    (device.folder / "tasks" / "03" / "train").mkdir(parents=True)
    Inbox(device.folder / "tasks").open("03")


def empty_class(device: Device) -> None:
    (device.pictures() / "train" / "ten").mkdir()
    Inbox(device.folder / "tasks").open("03")


def truncated_picture(device: Device) -> None:
    path = device.pictures() / "train" / "nine" / "0007.png"
    path.write_bytes(path.read_bytes()[:-30])
    device.learn(Inbox(device.folder / "tasks").open("03"))


def text_as_picture(device: Device) -> None:
    (device.pictures() / "train" / "nine" / "0003.png").write_text("import os; os.abort()")
    device.learn(Inbox(device.folder / "tasks").open("03"))


def picture_that_vanishes(device: Device) -> None:
    folder = device.pictures()
    task = Inbox(device.folder / "tasks").open("03")
    (folder / "train" / "nine" / "0003.png").unlink()
    device.learn(task)


def only_test_pictures(device: Device) -> None:
    folder = device.pictures()
    (folder / "train").rename(folder / "test")
    device.learn(Inbox(device.folder / "tasks").open("03"))


def nan_images(device: Device) -> None:
    images = device.digits.of(8, 0, 20).astype(np.float32)
    images[3, 2, 2] = np.nan
    device.npz(images=images)


def twenty(dtype: Any) -> Any:
    return np.arange(20).astype(dtype) % 2


def npz(**arrays: Any) -> Callable[[Device], None]:
    return lambda device: device.learn(device.npz(**arrays))


def named(name: str) -> Callable[[Device], None]:
    return lambda device: device.learn(device.named(name))


def with_classes(*classes: str) -> Callable[[Device], None]:
    def act(device: Device) -> None:
        task = device.named("03")
        device.learn(Task("03", classes, task.train, None))

    return act


def setting(**settings: Any) -> Callable[[Device], None]:
    return lambda device: device.learn(device.named("03"), **settings)


def from_file(**settings: Any) -> Callable[[Device], object]:
    return lambda device: TrainingConfig.from_mapping(settings, "csk.toml")


NAMING = ["A task cannot be called", "valid as a folder's name", "Rename it."]

TABLE: dict[str, tuple[Callable[[Device], object], type[CskError], list[str]]] = {
    "an empty folder": (empty_folder, TaskError, ["03 has no train/ folder", "put its images into"]),
    "an empty train folder": (empty_train, TaskError, ["train has no class folders"]),
    "an empty class": (empty_class, TaskError, ["ten holds no image", "or remove the folder"]),
    "no images in arrays": (
        npz(images=np.zeros((0, 8, 8), np.uint8), labels=np.zeros(0, np.int64)),
        TaskError,
        ["03.npz: images holds no image"],
    ),
    "a class without images": (
        npz(labels=np.zeros(20, np.int64)),
        TaskError,
        ["class 'nine' has no image"],
    ),
    "a truncated image": (truncated_picture, TaskError, ["nine/0007.png cannot be decoded", "replace it"]),
    "a text called image": (
        text_as_picture,
        TaskError,
        ["nine/0003.png", "not a PNG, JPEG, BMP, WebP, GIF or TIFF image"],
    ),
    "an image that vanishes": (
        picture_that_vanishes,
        TaskError,
        ["nine/0003.png cannot be read (No such file"],
    ),
    "only test images": (only_test_pictures, TaskError, ["Task '03' has no training images"]),
    "NaN": (nan_images, TaskError, ["images has 1 NaN values", "uint8"]),
    "floats": (
        npz(images=np.zeros((20, 8, 8), np.float32)),
        TaskError,
        ["images is float32", "must be uint8"],
    ),
    "a label too large": (npz(labels=twenty(int) * 2), TaskError, ["labels[1] is 2", "0 to 1"]),
    "a negative label": (npz(labels=twenty(int) - 1), TaskError, ["labels[0] is -1", "0 to 1"]),
    "labels of floats": (
        npz(labels=twenty(float)),
        TaskError,
        ["labels is float64", "one integer per image"],
    ),
    "labels missing": (npz(labels=twenty(int)[:19]), TaskError, ["labels has 19 entries for 20 images"]),
    "class names of bytes": (npz(class_names=np.array([b"a", b"b"])), TaskError, ["class_names is |S1"]),
    "pickled class names": (
        npz(class_names=np.array(["a", None])),
        TaskError,
        ["03.npz cannot be read", "Object arrays"],
    ),
    "too many channels": (
        npz(images=np.zeros((20, 8, 8, 5), np.uint8)),
        TaskError,
        ["images[0] has 5 channels"],
    ),
    "learned already": (named("01"), TaskError, ["Task '01' is learned already", "csk-sdk rollback --to"]),
    "called base": (named("base"), TaskError, ["cannot be called 'base'", "another name"]),
    "a name with a way out": (named("../x"), TaskError, [*NAMING, "'../x'"]),
    "a name with a slash": (named("a/b"), TaskError, [*NAMING, "'a/b'"]),
    "a name with a backslash": (named("a\\b"), TaskError, NAMING),
    "no name": (named(""), TaskError, [*NAMING, "''"]),
    "a blank name": (named("  "), TaskError, NAMING),
    "a name of two lines": (named("a\nb"), TaskError, [*NAMING, r"'a\nb'"]),
    "a name with a zero": (named("a\0b"), TaskError, NAMING),
    "a name that is not UTF-8": (named("caf\udce9"), TaskError, [*NAMING, r"'caf\udce9'"]),
    "a very long name": (named("x" * 256), TaskError, [*NAMING, "at most 255 bytes"]),
    "a long name in bytes": (named("ü" * 128), TaskError, [*NAMING, "at most 255 bytes"]),
    "a class twice": (
        with_classes("eight", "eight"),
        TaskError,
        ["has the class 'eight' twice, and each class needs a name of its own: leave one out, or rename it."],
    ),
    "a class known but for its case": (
        with_classes("eight", "Four "),
        TaskError,
        ["called 'Four '", "one called 'four'", "only in case", "Call it 'four'"],
    ),
    "two classes but for their case": (
        with_classes("Nine", "nine"),
        TaskError,
        ["'nine'", "one called 'Nine'"],
    ),
    "a class of two lines": (with_classes("eight", "ni\nne"), TaskError, [r"'ni\nne'", "control characters"]),
    "a class that is not UTF-8": (with_classes("a", "\udce9"), TaskError, [r"'\udce9'", "valid UTF-8"]),
    "epochs 0": (setting(epochs=0), ConfigError, ["epochs is 0; it must be a whole number, 1 or more."]),
    "epochs 2.5": (
        setting(epochs=2.5),
        ConfigError,
        ["epochs is 2.5; it must be a whole number, 1 or more."],
    ),
    "batch_size 0": (setting(batch_size=0), ConfigError, ["batch_size is 0"]),
    "channel_ratio 0": (setting(channel_ratio=0.0), ConfigError, ["channel_ratio is 0.0", "at most 1"]),
    "channel_ratio 2": (setting(channel_ratio=2), ConfigError, ["channel_ratio is 2", "at most 1"]),
    "energy 1.1": (setting(energy=1.1), ConfigError, ["energy is 1.1; it must be between 0 and 1."]),
    "energy NaN": (setting(energy=float("nan")), ConfigError, ["energy is nan"]),
    "another optimizer": (
        setting(optimizer="lbfgs"),
        ConfigError,
        ["optimizer is 'lbfgs'; it must be sgd, adamw or lion."],
    ),
    "learning_rate -1": (setting(learning_rate=-1.0), ConfigError, ["learning_rate is -1.0", "0 or more"]),
    "learning_rate inf": (
        setting(learning_rate=float("inf")),
        ConfigError,
        ["learning_rate is inf", "finite"],
    ),
    "momentum 1": (setting(momentum=1.0), ConfigError, ["momentum is 1.0", "below 1"]),
    "weight_decay inf": (setting(weight_decay=float("inf")), ConfigError, ["weight_decay is inf"]),
    "shift -1": (setting(shift=-1), ConfigError, ["shift is -1"]),
    "seed -1": (setting(seed=-1), ConfigError, ["seed is -1; it must be a whole number, 0 or more."]),
    "threads -1": (setting(threads=-1), ConfigError, ["threads is -1"]),
    "checkpoint_seconds NaN": (
        setting(checkpoint_seconds=float("nan")),
        ConfigError,
        ["checkpoint_seconds is nan"],
    ),
    "an unknown setting": (
        from_file(epoch=4),
        ConfigError,
        ["csk.toml sets 'epoch', which is no setting", "epochs"],
    ),
    "a text for a number": (
        from_file(epochs="4"),
        ConfigError,
        ["csk.toml: epochs is '4'; it must be a whole number"],
    ),
    "true for a number": (
        from_file(epochs=True),
        ConfigError,
        ["csk.toml: epochs is True; it must be a whole number"],
    ),
    "half a batch": (
        from_file(batch_size=2.5),
        ConfigError,
        ["csk.toml: batch_size is 2.5; it must be a whole number"],
    ),
    "out of range in a file": (
        from_file(epochs=0),
        ConfigError,
        ["csk.toml: epochs is 0; it must be a whole number, 1 or more."],
    ),
    "another scenario": (
        lambda device: device.learner().evaluate([device.named("01")], "domain"),
        ConfigError,
        ["scenario is 'domain'; it must be task or class."],
    ),
    "nothing to evaluate": (
        lambda device: device.learner().evaluate([]),
        TaskError,
        ["None of the learned tasks (base, 01) has test images"],
    ),
    "an unknown task to predict": (
        lambda device: device.learner().predict(device.digits.of(8, 0, 1), "02"),
        TaskError,
        ["Task '02' is not learned. Learned: base, 01."],
    ),
    "floats to predict": (
        lambda device: device.learner().predict(np.zeros((1, 8, 8), np.float32)),
        TaskError,
        ["The images are float32"],
    ),
    "an unknown task to go back to": (
        lambda device: device.learner().rollback("02"),
        StateError,
        ["has no generation of task '02'. Known: base, 01."],
    ),
    "an export into a folder's place": (
        lambda device: device.learner().export(device.folder),
        ConfigError,
        ["is a folder, and an ONNX model is a file: give a file's name"],
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", TABLE)
def test_refused_in_one_sentence_and_nothing_changed(device: Device, case: str) -> None:
    act, kind, words = TABLE[case]
    refused(device, kind, words, lambda: act(device))
    # Nothing stays in the way: the interrupted task goes on.
    assert device.learner(checkpoint_seconds=0.0).learn(device.digits.task("02", (6, 7))).resumed_at_step == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "ünï",
        "猫と犬",
        "with space",
        "x" * 255,
        "...dots",
        "%s{0}",
        "'; DROP",
        "head",
        "-",
        "01a",
    ],
)
def test_unusual_names_that_are_fine(device: Device, name: str) -> None:
    learner = device.learner()
    learner.learn(
        Task.from_arrays(name, *device.digits.arrays((8, 9), 0, 10), [f"{name} 1", "class/with/slashes"])
    )
    again = device.learner()
    assert again.tasks[-1].name == name
    assert again.predict(device.digits.of(8, 20, 30), name).classes == (f"{name} 1", "class/with/slashes")
    assert again.classes[-2:] == (f"{name} 1", "class/with/slashes")
    again.export(device.folder / "exported.onnx", name)
    again.rollback("01")
    assert again.rollback("base").number == 0
    assert {path.name for path in device.folder.iterdir()} == {"bundle", "state", "exported.onnx"}


# Sizes


@pytest.mark.slow
@pytest.mark.parametrize("resize", ["none", "bilinear"])
def test_pictures_of_another_size(device: Device, base_data: Path, tmp_path: Path, resize: str) -> None:
    bundle = build_digits_bundle(tmp_path / "other", base_data=base_data, resize=resize)
    device = Device(tmp_path, device.digits)
    folder = device.pictures()
    large = device.digits.of(9, 0, 1)[0].repeat(2, axis=0).repeat(3, axis=1)
    Image.fromarray(large).save(folder / "train" / "nine" / "0004.png")
    task = Inbox(folder.parent).open("03")
    learner = open_learner(bundle, device.state)
    learner.learn(device.digits.task("01", (4, 5)))
    if resize == "bilinear":
        learner.learn(task)
        assert learner.predict([large], "03").labels.tolist() == ["nine"]
        return
    words = ["nine/0004.png is 24x16 pixels", "the model takes 8x8", "--resize bilinear"]
    refused(device, TaskError, words, lambda: learner.learn(task))
    refused(device, TaskError, ["image 0 is 24x16 pixels", "8x8"], lambda: learner.predict([large]))


# Training that gets out of hand


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"learning_rate": 1e9},
        {"head_learning_rate": 1e9},
        {"learning_rate": 1e9, "batch_size": 100, "epochs": 1},
        {"learning_rate": 1e9, "optimizer": "adamw", "energy": 0.5},
        {"learning_rate": 1e30, "optimizer": "adamw", "weight_decay": 1.0},
        {"learning_rate": 1e38, "batch_size": 100, "epochs": 1},
    ],
    ids=str,
)
def test_training_that_diverges_commits_nothing(device: Device, settings: dict[str, Any]) -> None:
    task = device.digits.task("03", (7, 8, 9), test=0)
    words = ["lower --learning-rate", "Nothing was committed."]
    refused(device, DivergedError, words, lambda: device.learn(task, **settings))
    assert device.learner().learn(task).generation == 2


def test_a_stream_that_diverges_commits_nothing(device: Device) -> None:
    def act() -> None:
        with device.learner(learning_rate=1e9, sensitivity_batches=1).stream(
            "03", ["eight", "nine"]
        ) as stream:
            for start in range(0, 80, 8):
                images, labels = device.digits.arrays((8, 9), start, start + 8)
                # Even an application that goes on after an error cannot commit it.
                with suppress(TaskError):
                    stream.observe(images, labels)

    refused(device, DivergedError, ["lower --learning-rate", "Nothing was committed."], act)


# Other processes

HOLDER = """
import sys
from csk_sdk.state.lock import StateLock
with StateLock(__import__("pathlib").Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_another_process_holds_the_lock(device: Device) -> None:
    command = [sys.executable, "-c", HOLDER, str(device.state)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        words = [f"Another process (pid {holder.pid}) is writing", "Wait for it", "nothing was changed"]
        learner = device.learner()
        for act in (
            lambda: learner.learn(device.named("03")),
            lambda: learner.rollback("base"),
            lambda: learner.stream("03", ["eight", "nine"]).__enter__(),
        ):
            refused(device, StateLockedError, words, act)
        # Reading goes on.
        assert learner.predict(device.digits.of(4, 100, 101)).labels.tolist() == ["four"]
        holder.communicate("")
    learner.learn(device.named("03"))


# No runtime, or two


def installed(*names: str) -> Callable[[str], str]:
    def version(name: str) -> str:
        if name in names:
            return "1.19.2"
        raise metadata.PackageNotFoundError(name)

    return version


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ((), ["ONNX Runtime is not installed", "pip install 'csk-sdk[device]'"]),
        (("onnxruntime",), ["onnxruntime 1.19.2 is installed but cannot be imported", "'csk-sdk[device]'"]),
        (
            ("onnxruntime", "onnxruntime-training-cpu"),
            ["onnxruntime and onnxruntime-training-cpu are both installed", "Uninstall both"],
        ),
    ],
)
def test_no_runtime_or_two(
    device: Device, monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...], words: list[str]
) -> None:
    task = device.named("03")
    with monkeypatch.context() as patch:
        patch.setattr(metadata, "version", installed(*names))
        # As in a process that has not looked yet.
        patch.setattr(sessions, "installed_runtimes", sessions.installed_runtimes.__wrapped__)
        patch.setitem(sys.modules, "onnxruntime", None)
        refused(device, RuntimeMissingError, words, lambda: device.learn(task))
        refused(
            device, RuntimeMissingError, words, lambda: device.learner().predict(device.digits.of(1, 0, 1))
        )
    device.learn(task)


# What is meant is taken


def test_a_path_for_a_task_and_a_mapping_for_settings(device: Device) -> None:
    folder = device.pictures()
    report = device.learner().learn(
        str(folder), {"epochs": 1, "threads": 1, "few_shot": 0, "train": "centers"}
    )
    assert (report.task, report.epochs) == ("03", 1)
    with pytest.raises(ConfigError, match="config sets 'epoch', which is no setting"):
        device.learner().learn(folder, {"epoch": 1})
    with pytest.raises(TaskError, match="There is no task at nowhere"):
        device.learner().learn("nowhere")


def test_a_mapping_for_settings_wherever_they_are_taken(device: Device) -> None:
    learner = Learner.open(device.bundle, device.folder / "state", {"epochs": 2})
    assert learner.config == TrainingConfig(epochs=2)
    assert learner.stream("07", ("eight", "nine"), {"batch_size": 7})._config == TrainingConfig(batch_size=7)
    with pytest.raises(ConfigError, match="config sets 'epoch', which is no setting"):
        Learner.open(device.bundle, device.folder / "state", {"epoch": 1})
    with pytest.raises(
        ConfigError, match=r"^config is a list, and must be a TrainingConfig or a mapping of its settings\.$"
    ):
        Learner.open(device.bundle, device.folder / "state", [("epochs", 1)])  # type: ignore[arg-type]


def test_lists_generators_and_pictures_of_pillow(device: Device) -> None:
    from PIL import Image

    images, labels = device.digits.arrays((8, 9), 0, 4)
    wanted = Task.from_arrays("03", images, labels, ["eight", "nine"]).fingerprint()
    for given in (list(images), iter(images), [Image.fromarray(image) for image in images]):
        assert Task.from_arrays("03", given, list(labels), ["eight", "nine"]).fingerprint() == wanted  # type: ignore[arg-type]
    with pytest.raises(TaskError, match="Task '03': images holds arrays of several shapes"):
        Task.from_arrays("03", [images[0], images[1][:4]], [0, 1], ["eight", "nine"])  # type: ignore[arg-type]


def test_names_that_numpy_saved_as_objects(device: Device) -> None:
    images, labels = device.digits.arrays((8, 9), 0, 4)
    with pytest.raises(TaskError, match=r"save class_names\.npy as numpy\.array\(\.\.\., dtype=str\)"):
        device.npz(images=images, labels=labels, class_names=np.array(["eight", "nine"], object))


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"There is no folder .*nope: give the path of a task's folder"):
        Task.from_folder(tmp_path / "nope")
