"""Whoever catches CskError catches what an input from outside can cause: each kind of error, caused from there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx
import pytest

import csk_sdk.errors as errors_module
from builder.test_auto_behind import network
from conftest import NAMES, Digits, build_digits_bundle, open_learner
from csk_artifacts_builder import BuildOptions, build_artifacts
from csk_sdk import CskError, Learner, Task, TrainingConfig, errors, fleet
from csk_sdk.runtime import sessions as runtime_module
from csk_sdk.state.lock import StateLock


@dataclass
class World:
    """What comes from outside here: files, images, settings, other processes."""

    folder: Path
    bundle: Path
    digits: Digits
    monkeypatch: pytest.MonkeyPatch

    def learner(self, **settings: float) -> Learner:
        return open_learner(self.bundle, self.folder / "state", **settings)

    def file(self, name: str, content: bytes = b"no such thing") -> Path:
        (self.folder / name).write_bytes(content)
        return self.folder / name


def no_model(world: World) -> object:
    return build_artifacts(world.file("model.onnx"), world.folder / "out", BuildOptions())


def no_rule(world: World) -> object:
    onnx.save(network("Relu", "ThresholdedRelu"), world.folder / "model.onnx")
    return build_artifacts(world.folder / "model.onnx", world.folder / "out", BuildOptions(trainable="all"))


def no_bundle(world: World) -> object:
    return Learner.open(world.folder / "nowhere", world.folder / "state")


def damaged_state(world: World) -> object:
    learner = world.learner()
    learner.learn(world.digits.task("01", (4, 5)))
    (world.folder / "state" / "HEAD").write_bytes(b"{}")
    return learner.predict(world.digits.of(1, 0, 1))


def another_process(world: World) -> object:
    with StateLock(world.folder / "state"):
        return world.learner().learn(world.digits.task("01", (4, 5)))


def no_task(world: World) -> object:
    return Task.open(world.file("01.npz"))


def exchanged_names(world: World) -> object:
    learner = world.learner()
    learner.learn(world.digits.task("01", (4, 5)))
    images, labels = world.digits.arrays((4, 5), 40, 80)
    return learner.learn(Task.from_arrays("02", images, 1 - labels, [NAMES[4], NAMES[5]]))


def steps_too_long(world: World) -> object:
    return world.learner(few_shot=0, train="centers", learning_rate=1e30).learn(
        world.digits.task("01", (4, 5))
    )


def no_place(world: World) -> object:
    learner = open_learner(world.bundle, Path("/proc/state"))
    return learner.learn(world.digits.task("01", (4, 5)))


def no_fleet_file(world: World) -> object:
    return fleet.inspect(world.file("kitchen.cskc"))


def no_setting(_: World) -> object:
    return TrainingConfig(epochs=-1)


def no_training_package(world: World) -> object:
    world.monkeypatch.setattr(runtime_module, "installed_runtimes", dict)
    return build_digits_bundle(world.folder / "out", backend="ort-training")


CAUSES: dict[type[CskError], Callable[[World], object]] = {
    errors.ModelError: no_model,
    errors.UnsupportedOpError: no_rule,
    errors.BundleError: no_bundle,
    errors.StateError: damaged_state,
    errors.StateLockedError: another_process,
    errors.TaskError: no_task,
    errors.ContradictionError: exchanged_names,
    errors.DivergedError: steps_too_long,
    errors.StorageError: no_place,
    errors.FleetError: no_fleet_file,
    errors.ConfigError: no_setting,
    errors.RuntimeMissingError: no_training_package,
}


def kinds(of: type[CskError]) -> Iterator[type[CskError]]:
    for kind in of.__subclasses__():
        if kind.__module__ == errors_module.__name__:
            yield kind
            yield from kinds(kind)


def test_none_is_left_out() -> None:
    assert set(CAUSES) == set(kinds(CskError))


@pytest.mark.parametrize("kind", CAUSES, ids=lambda kind: kind.__name__)
def test_it_is_caught(
    kind: type[CskError], tmp_path: Path, digits_bundle: Path, digits: Digits, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path, digits_bundle, digits, monkeypatch)
    try:
        CAUSES[kind](world)
    except CskError as caught:
        error = caught
    else:
        pytest.fail("nothing was raised")
    assert type(error) is kind
    assert "\n" not in str(error)
