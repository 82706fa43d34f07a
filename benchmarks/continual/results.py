"""What a run leaves: accuracy matrices by scenario, and everything computed from them."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

import numpy as np

from csk_sdk.method.continual_metrics import AccuracyMatrix

# By scenario: per learned task (row), the accuracy in percent of each task known then (column).
Rows = dict[str, list[list[float]]]
# By the name of its file, what tables call a network that is none of 1.2 million parameters.
NETWORKS = {"resnet18-base10": "ResNet-18, 11.2 million parameters"}


def measures(rows: Rows, images: Sequence[int]) -> dict[str, dict[str, Any]]:
    """Per scenario the matrix, ACC, BWT, forgetting, new-task accuracy, and accuracy over all images after each task.

    `images` are the test images of each task, the base first.
    """
    found = {}
    for scenario, matrix in rows.items():
        values = AccuracyMatrix(matrix)
        new = [row[-1] for row in matrix[1:]]
        found[scenario] = {
            **{key: _rounded(value) for key, value in values.to_json().items()},
            "new": round(float(np.mean(new)), 3),
            "base": matrix[-1][0],
            "accuracy": [round(float(np.average(row, weights=images[: len(row)])), 3) for row in matrix],
        }
    return found


def forward_transfer(ahead: Sequence[float], untouched: Sequence[float]) -> float:
    """FWT: mean over tasks after the first of `ahead[j] - untouched[j]`, in points.

    A task's classes have no head before they are learned, so both are accuracies of an exact head fitted to the
    task's images: on the features just before the task, and on those of the network as it was deployed.
    """
    return round(float(np.mean(np.subtract(ahead, untouched)[1:])), 3)


def machine(packages: Sequence[str]) -> dict[str, Any]:
    """Where and with what a run was made."""
    return {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in packages},
    }


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        from csk_sdk.version import __version__

        return __version__ if name == "csk-sdk" else None


def _rounded(value: Any) -> Any:
    if isinstance(value, list):
        return [_rounded(one) for one in value]
    return round(value, 3) if isinstance(value, float) else value


def key(run: Mapping[str, Any]) -> tuple[str, str, int, str]:
    """What makes a run one of a kind."""
    return run["protocol"], run["method"], run["seed"], network_of(run)


def network_of(run: Mapping[str, Any]) -> str:
    """Which of the larger networks it is of; nothing for those of 1.2 million parameters."""
    return str(run.get("network", ""))


def describe(run: Mapping[str, Any]) -> str:
    """A few lines for the terminal."""
    took = f"{sum(run['cpu_seconds']):.0f} CPU s of learning"
    took += f", {run['whole_seconds']} s in all" if "whole_seconds" in run else ""
    lines = [f"{run['protocol']} {run['method']} seed {run['seed']} ({took})"]
    for label, one in run["scenarios"].items():
        forgetting = "" if one["bwt"] is None else f" BWT {one['bwt']:+.2f}"
        lines.append(
            f"{label}: ACC {one['acc']:.2f}{forgetting} new {one['new']:.2f} all {one['accuracy'][-1]:.2f}"
        )
    return "\n  ".join(lines)
