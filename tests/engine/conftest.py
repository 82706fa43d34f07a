"""These tests need NVFlare, whose environment is its own: `make test-engine`."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from conftest import Digits

if TYPE_CHECKING:
    from engine.provisioned import Fleet


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if importlib.util.find_spec("nvflare") is not None:
        return
    skip = pytest.mark.skip(reason="NVFlare is not installed: run `make test-engine`")
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(skip)


@pytest.fixture
def ours(tmp_path: Path, digits_bundle: Path, digits: Digits) -> Iterator[Fleet]:
    """Three devices that have learned, and the server; nothing runs."""
    from engine.provisioned import Fleet

    found = Fleet.made(tmp_path, digits_bundle, digits)
    try:
        yield found
    finally:
        for name in list(found.running):
            found.kill(name)
