"""These tests need NVFlare, whose environment is its own: `make test-engine`."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from conftest import Digits

# Without NVFlare, whose packages they import, there is nothing to collect.
collect_ignore_glob = [] if importlib.util.find_spec("nvflare") else ["test_*.py"]

if TYPE_CHECKING:
    from engine.provisioned import Fleet


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
