"""The conformance vectors on this machine: every case computed, compared and reported as docs/conformance.md says."""

from __future__ import annotations

import json
import math
import platform
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csk_sdk.errors import CskError
from csk_sdk.formats.opening import LARGEST_TEXT, read_file
from csk_sdk.runtime.providers import provider_names, short
from csk_sdk.runtime.sessions import ON_CPU, Provider, load_onnxruntime
from csk_sdk.state.tensorfile import decode
from platforms.cases import KINDS, PROVIDERS, Tensors

FORMAT = 1
INDEX = "index.json"
PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"


class ConformanceError(CskError):
    """The vectors cannot be read, or are of another format."""


@dataclass(frozen=True)
class Deviation:
    """How far one output is from what it should be, and how far it may be; both in the case's own measure."""

    output: str
    measure: str
    deviation: float
    tolerance: float

    @property
    def allowed(self) -> bool:
        """Whether it is near enough; NaN never is."""
        return self.deviation <= self.tolerance


@dataclass(frozen=True)
class CaseResult:
    """One case: `status` is "passed", "failed" or "skipped"; `reason` says why it did not pass."""

    name: str
    kind: str
    precision: str
    status: str
    seconds: float = 0.0
    reason: str = ""
    deviations: tuple[Deviation, ...] = field(default=())


def run_conformance(
    vectors: Path, unsupported: frozenset[str] = frozenset(), providers: tuple[Provider, ...] = ON_CPU
) -> list[CaseResult]:
    """Run every case of a folder of vectors; those that need what is `unsupported` are skipped.

    On `providers` features, second moments and predictions; training is on the CPU.
    Raises ConformanceError where there are none, or they are of another format.
    """
    index = _read(vectors / INDEX)
    return [run_case(vectors, name, unsupported, providers) for name in index["cases"]]


def report(
    vectors: Path,
    results: list[CaseResult],
    label: str,
    unsupported: frozenset[str],
    providers: tuple[Provider, ...] = ON_CPU,
) -> dict[str, Any]:
    """The result file (docs/conformance.md)."""
    ort = load_onnxruntime()
    on = "" if providers == ON_CPU else f", {', '.join(map(short, provider_names(providers)))}"
    return {
        "format": FORMAT,
        "platform": label or platform.machine(),
        "runner": "python",
        "runtime": f"onnxruntime {ort.__version__}{on}",
        "machine": f"{platform.system()} {platform.machine()}, "
        f"Python {platform.python_version()}, NumPy {np.__version__}",
        "vectors": read_digest(vectors),
        "unsupported": sorted(unsupported),
        "passed": conforms(results),
        "cases": [asdict(result) for result in results],
    }


def read_digest(vectors: Path) -> str:
    """What a result names its vectors by."""
    return str(_read(vectors / INDEX)["digest"])


def write_report(path: Path, result: Mapping[str, Any]) -> None:
    """As JSON, in which a number that is not finite is null."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(_finite(result), indent=1, allow_nan=False) + "\n", encoding="utf-8")


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def conforms(results: list[CaseResult]) -> bool:
    """Nothing failed, and something was executed: a runner that supports nothing does not conform."""
    executed = [result for result in results if result.status != SKIPPED]
    return bool(executed) and all(result.status == PASSED for result in executed)


def deviation(measure: str, got: NDArray[Any], expected: NDArray[Any]) -> float:
    """How far `got` is from `expected`; infinite where the shape is another, or a number is not finite.

    "equal" counts elements that differ; "absolute" is the largest difference; "relative" that over the largest
    expected element (1 where all are zero); "cosine" is 1 - the cosine of the angle between the two.
    """
    if got.shape != expected.shape or not np.isfinite(got).all():
        return float("inf")
    one, other = got.astype(np.float64), expected.astype(np.float64)
    if measure == "equal":
        return float(np.count_nonzero(one != other))
    largest = float(np.abs(one - other).max(initial=0.0))
    if measure == "absolute":
        return largest
    if measure == "relative":
        return largest / (float(np.abs(other).max(initial=0.0)) or 1.0)
    if measure == "cosine":
        norms = float(np.linalg.norm(one) * np.linalg.norm(other))
        return 1.0 - float(np.sum(one * other)) / norms if norms else float("inf")
    raise ConformanceError(f"The vectors compare by '{measure}', which this runner does not know: update it.")


def run_case(
    vectors: Path, name: str, unsupported: frozenset[str], providers: tuple[Provider, ...] = ON_CPU
) -> CaseResult:
    """One case by its name. Raises ConformanceError where it cannot be read."""
    case = _read(vectors / "cases" / f"{name}.json")
    lacking = unsupported.intersection((case["kind"], case["precision"], *case["needs"]))
    described = {"name": name, "kind": case["kind"], "precision": case["precision"]}
    if lacking:
        return CaseResult(**described, status=SKIPPED, reason=f"needs {', '.join(sorted(lacking))}")
    tensors, _ = decode(vectors / "cases" / f"{name}.safetensors")
    begun = time.perf_counter()
    try:
        got = KINDS[case["kind"]](
            {**case["settings"], PROVIDERS: providers},
            _below("in/", tensors),
            vectors / "bundles" / case["bundle"],
        )
        found = _compared(case, got, _below("out/", tensors))
    except Exception as error:  # whatever it is, it belongs into the report, beside the other cases
        reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        return CaseResult(**described, status=FAILED, reason=reason)
    wrong = [
        f"{one.output} off by {one.deviation:.2g}, {one.tolerance:g} allowed"
        for one in found
        if not one.allowed
    ]
    return CaseResult(
        **described,
        status=FAILED if wrong or not found else PASSED,
        seconds=round(time.perf_counter() - begun, 3),
        reason="; ".join(wrong) if found else "the case expects nothing",
        deviations=found,
    )


def _compared(case: Mapping[str, Any], got: Tensors, expected: Tensors) -> tuple[Deviation, ...]:
    return tuple(
        Deviation(
            output["name"],
            output["measure"],
            deviation(output["measure"], got[output["name"]], expected[output["name"]]),
            output["tolerance"],
        )
        for output in case["outputs"]
    )


def _below(prefix: str, tensors: Tensors) -> Tensors:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _read(path: Path) -> dict[str, Any]:
    try:
        raw: dict[str, Any] = json.loads(read_file(path, LARGEST_TEXT))
    except (OSError, ValueError) as error:
        raise ConformanceError(f"There are no conformance vectors in {path.parent} ({error}).") from None
    if raw.get("format") != FORMAT:
        raise ConformanceError(
            f"{path} has format {raw.get('format')}, and this runner reads {FORMAT}: "
            "take vectors and runner from one version."
        )
    return raw
