"""What a demo comes to."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class DemoRun:
    """One device's life: accuracies in percent, wall time of training in seconds, peak memory in bytes.

    `task` and `classes` are what `csk-sdk evaluate --json` says of the two scenarios.
    """

    label: str
    task: dict[str, Any]
    classes: dict[str, Any]
    seconds: float
    peak_rss_bytes: int


@dataclass(frozen=True)
class DemoResult:
    """All runs, csk-sdk's first, and where their images are."""

    workspace: Path
    picture: Path
    runs: tuple[DemoRun, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values for `demo --json`."""
        return {
            "workspace": str(self.workspace),
            "picture": str(self.picture),
            "runs": [asdict(run) for run in self.runs],
        }
