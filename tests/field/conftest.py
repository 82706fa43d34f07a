"""What the tests of the field share."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from conftest import Digits
from field.field_device import SETTINGS, Device


@pytest.fixture(scope="session")
def spent(tmp_path_factory: pytest.TempPathFactory, digits_bundle: Path, digits: Digits) -> Device:
    """Both tasks are learned, undisturbed."""
    device = Device(tmp_path_factory.mktemp("power"))
    (device.folder / "bundle").symlink_to(digits_bundle)
    (device.folder / "csk.toml").write_text(SETTINGS)
    device.disk.mkdir()
    for name, chosen in (("01", (4, 5)), ("02", (6, 7))):
        digits.save(digits.task(name, chosen, train=14, test=5), device.folder / "tasks")
    for number in range(3):
        device.expected[number] = device.bits()
        if number < 2:
            assert device.train().status == 0
    return device


@pytest.fixture
def device(spent: Device, tmp_path: Path) -> Device:
    """One's own, nothing learned."""
    shutil.copytree(spent.folder, tmp_path / "device", symlinks=True)
    mine = Device(tmp_path / "device", spent.expected)
    mine.put({})
    return mine
