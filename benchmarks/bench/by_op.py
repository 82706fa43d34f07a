"""Where the time of csk-sdk's step goes, by op, as ONNX Runtime's profiler tells it.

    python -m bench.by_op CASE FOLDER PRECISION      prints JSON: milliseconds of a step by op

The graph alone: selection, optimizer and projection are not in it.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from bench import data
from bench.cases import CHANNEL_RATIO, Case
from csk_sdk.bundle.folder import Bundle
from csk_sdk.contract.manifest import LABEL, TRAINING_MODEL
from csk_sdk.method.selection import channel_count
from csk_sdk.runtime import sessions as runtime

WARM, STEPS = 2, 8


def measure(case: Case, folder: Path, precision: str) -> dict[str, float]:
    """Mean milliseconds of a step by op type."""
    bundle = Bundle.open(folder / precision)
    feeds = _feeds(bundle, case, folder)
    plain = runtime.session_options
    with tempfile.TemporaryDirectory() as scratch:

        def profiled(*arguments: Any, **named: Any) -> Any:
            options = plain(*arguments, **named)
            options.enable_profiling = True
            options.profile_file_prefix = str(Path(scratch) / "profile")
            return options

        runtime.session_options = profiled
        try:
            graph = bundle.graph(TRAINING_MODEL, bundle.checkpoint(), 1)
        finally:
            runtime.session_options = plain
        for _ in range(WARM + STEPS):
            graph.run(feeds)
        events = json.loads(Path(graph._session.end_profiling()).read_text())
    runs: dict[str, list[float]] = {}
    ops: dict[str, str] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            runs.setdefault(event["name"], []).append(event["dur"] / 1e3)
            ops[event["name"]] = event["args"]["op_name"]
    total: Counter[str] = Counter()
    for name, durations in runs.items():
        # The mean, because other processes take the core from long ops and short ones alike, in proportion.
        settled = durations[len(durations) * WARM // (WARM + STEPS) :]
        total[ops[name]] += sum(settled) / STEPS
    return dict(total.most_common())


def _feeds(bundle: Bundle, case: Case, folder: Path) -> dict[str, Any]:
    images, labels = data.batch(case, folder)
    manifest, start, rng = bundle.manifest, bundle.checkpoint(), np.random.default_rng(0)
    feeds: dict[str, Any] = {
        "image": images, LABEL: labels,
        manifest.head.weight: start["head/base/weight"], manifest.head.bias: start["head/base/bias"],
    }  # fmt: skip
    for site in manifest.sites:
        count = channel_count(site.columns, CHANNEL_RATIO)
        feeds[site.indices] = np.sort(rng.choice(site.columns, count, replace=False))
        feeds[site.delta] = np.zeros((site.rows, count), np.float32)
    return feeds


def main() -> None:
    print(json.dumps(measure(Case.from_json(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])))


if __name__ == "__main__":
    main()
