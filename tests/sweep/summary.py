"""What deviates on which runtime, and what the builder refuses: the end of `make sweep`.

    python tests/sweep/summary.py out/sweep 1.17.0 1.32.0 web

Exits 1 where an output of a graph that was built is off by more than it may be, unless KNOWN names it, where the
builder broke, or where next to nothing was run.
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Network = Mapping[str, Any]
_SHOWN = 40
# Of all networks that are drawn so many must have been built and run on every runtime.
_LEAST = 0.75
_LARGE = 1000


@dataclass(frozen=True)
class Known:
    """Deviations that are not mended: where, of what, and why."""

    runtimes: tuple[str, ...]
    concerns: Callable[[Network], bool]
    why: str


# In a large sweep each of these must still be seen.
KNOWN: tuple[Known, ...] = ()


def main(out: Path, runtimes: Sequence[str]) -> int:
    networks = {one["name"]: one for one in json.loads((out / "networks.json").read_text())}
    results = {name: json.loads((out / f"{name}.json").read_text()) for name in runtimes}
    failed = _failures(networks, results)
    unknown = [one for one in failed if one[2] is None]
    seen = {known for _, _, known in failed}
    stale = [one.why for one in KNOWN if one.why not in seen] if len(networks) >= _LARGE else []
    _print_refused(networks.values())
    for name, where, known in failed[:_SHOWN]:
        network = networks[name]
        print(f"\n{name}, opset {network['opset']}{f': known: {known}' if known else ''}")
        print(f"    {' -> '.join(node[:110] for node in network['nodes'])}")
        for runtime, what in where.items():
            print(f"    {runtime}: {what}")
    if len(failed) > _SHOWN:
        print(f"\nand {len(failed) - _SHOWN} more")
    broken = [one for one in networks.values() if one["status"] == "broken"]
    for one in broken:
        print(f"BROKEN  {one['name']}: {one['reason']}")
    run = {name: len(result["cases"]) for name, result in results.items()}
    print()
    for name, result in results.items():
        off = sum(name in where for _, where, _ in failed)
        print(f"{name} ({result['runtime']}): {run[name]} networks run, {off} deviate")
    print(
        f"{len(networks)} networks, {len(unknown)} of them deviate, {len(failed) - len(unknown)} as is known"
    )
    enough = all(count >= _LEAST * len(networks) for count in run.values())
    if not enough:
        print("Too few networks could be built to say much.")
    for why in stale:
        print(f"Not seen any more, take it off KNOWN: {why}")
    return 1 if unknown or broken or stale or not enough else 0


def _failures(
    networks: Mapping[str, Network], results: Mapping[str, Any]
) -> list[tuple[str, dict[str, str], str | None]]:
    """By network: on which runtimes what is off, and why that is known, if it is on all of them."""
    found: dict[str, dict[str, str]] = {}
    for runtime, result in results.items():
        for case in result["cases"]:
            if case["status"] == "failed":
                found.setdefault(case["name"], {})[runtime] = _what(case)
    failures = []
    for name, where in sorted(found.items()):
        reasons = [_known(networks[name], runtime) for runtime in where]
        failures.append((name, where, None if None in reasons else reasons[0]))
    return failures


def _known(network: Network, runtime: str) -> str | None:
    return next((one.why for one in KNOWN if runtime in one.runtimes and one.concerns(network)), None)


def _what(case: Mapping[str, Any]) -> str:
    if not case["deviations"]:
        return str(case["reason"])[:300]
    texts = [
        f"{output} off by {'inf' if off is None else f'{off:.1e}'} ({tolerance:.0e} allowed)"
        for output, off, tolerance in case["deviations"]
    ]
    return "; ".join(texts[:4]) + (f"; and {len(texts) - 4} more" if len(texts) > 4 else "")


def _print_refused(networks: Any) -> None:
    """Each sentence once, with names and numbers left out."""
    counts: Counter[str] = Counter()
    for one in networks:
        if one["status"] in ("refused", "unsteady"):
            sentence = re.sub(
                r"[\w-]+\.onnx|\(node '\w+'\)|\d+", "*", one["reason"] or "the reference is on a kink"
            )
            counts[sentence[:150]] += 1
    if counts:
        print("Not built, and why:")
    for sentence, count in counts.most_common():
        print(f"{count:5}  {sentence}")


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
