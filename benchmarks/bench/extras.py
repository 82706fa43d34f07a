"""What `make bench` measures besides the steps: growth, start, counts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench import startup


def all_of(pythons: Mapping[str, Path], root: Path) -> tuple[dict[str, str], dict[str, Any]]:
    """Sections of the page, and their numbers."""
    started = startup.measure(pythons["csk"], root)
    return {"start": startup.page(started)}, {"start": started}
