"""Damaged, foreign and missing bundles and states: one clear sentence, and the state as it was, to the byte."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from conftest import build_digits_bundle, open_learner
from csk_sdk import BundleError, StateError
from learner.used_device import BUNDLE_FILES, Device, refused, tree


@pytest.mark.parametrize("name", BUNDLE_FILES)
@pytest.mark.parametrize("damage", ["a byte", "shorter", "longer", "gone"])
def test_a_damaged_bundle_is_not_opened(device: Device, name: str, damage: str) -> None:
    path = device.bundle / name
    data = path.read_bytes()
    if damage == "gone":
        path.unlink()
    elif damage == "a byte":
        middle = len(data) // 2
        path.write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])
    else:
        path.write_bytes(data[:-1] if damage == "shorter" else data + b"\n")
    if name != "manifest.json":
        words = [
            "is missing" if damage == "gone" else "is not the file that was built",
            name,
            "Copy the bundle again",
        ]
        refused(device, BundleError, words, device.learner)
    elif damage == "gone":
        refused(device, BundleError, ["There is no bundle in", "csk-sdk build-artifacts"], device.learner)
    else:
        before = tree(device.state)
        with pytest.raises(BundleError):
            device.learner()
        assert tree(device.state) == before


def test_every_kind_of_damage_to_a_manifest_is_an_error_that_we_raise(device: Device) -> None:
    path = device.bundle / "manifest.json"
    data = path.read_bytes()
    rng = np.random.default_rng(0)
    for position in rng.choice(len(data), 200, replace=False):
        for replacement in (data[position] ^ 1, ord("0"), ord("]"), 255):
            if replacement == data[position]:
                continue
            path.write_bytes(data[:position] + bytes([replacement]) + data[position + 1 :])
            with pytest.raises(BundleError):
                device.learner()


def test_a_newer_bundle(device: Device) -> None:
    path = device.bundle / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema_version": 4}))
    refused(device, BundleError, ["has schema 4", "reads up to 3", "update csk-sdk"], device.learner)


def test_a_folder_that_is_no_bundle(device: Device) -> None:
    shutil.rmtree(device.bundle)
    refused(device, BundleError, ["There is no bundle in", "build-artifacts"], device.learner)
    device.bundle.mkdir()
    (device.bundle / "manifest.json").write_text('{"name": "something else"}')
    refused(device, BundleError, ["has no schema_version", "not a csk-sdk bundle"], device.learner)


def test_the_state_of_another_bundle(device: Device, tmp_path: Path) -> None:
    other = build_digits_bundle(tmp_path / "other")
    words = ["belongs to another bundle", "start a new state folder"]
    refused(device, StateError, words, lambda: open_learner(other, device.state))


@pytest.mark.parametrize(
    ("name", "way_back"),
    [
        ("HEAD", "csk-sdk rollback --to 01"),
        ("generations/000001.safetensors", "csk-sdk rollback --to base"),
        ("generations/000001.json", "csk-sdk rollback --to base"),
        ("state.json", "start a new state folder"),
    ],
)
def test_a_damaged_state_says_the_way_back(device: Device, name: str, way_back: str) -> None:
    path = device.state / name
    path.write_bytes(path.read_bytes()[:-9])
    task = device.named("03")
    refused(device, StateError, [path.name, way_back], lambda: device.learner().learn(task))
    if name != "state.json":
        device.learner().rollback(way_back.split()[-1])
        assert device.learner().learn(task).generation == 2
