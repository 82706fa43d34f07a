"""The commands `conformance`, `digits`, `arm64`, `states`, `table` and `matrix` (docs/conformance.md)."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from csk_sdk.runtime.providers import find_providers
from platforms.arm64 import check_arm64, on_emulated
from platforms.arm64_root import CPUS, Arm64
from platforms.conformance import (
    SKIPPED,
    conforms,
    read_digest,
    report,
    run_conformance,
    write_report,
)
from platforms.digits import add_to_result, here, learn
from platforms.matrix import failures, page, read_runtimes
from platforms.table import POINTS, digits_agree, print_table, read_results
from platforms.travel import Finding, begin, check_states

if TYPE_CHECKING:
    from argparse import ArgumentParser, _SubParsersAction


def add_conformance(commands: _SubParsersAction[ArgumentParser]) -> None:
    """Add the six commands; each sets `run`."""
    vectors = commands.add_parser("conformance", help="run the conformance vectors on this device")
    vectors.add_argument("vectors", type=Path, help="tests/conformance/vectors")
    vectors.add_argument("--out", type=Path, help="write the result file here")
    vectors.add_argument("--platform", default="", help="what to call this platform; its machine by default")
    vectors.add_argument(
        "--unsupported", action="append", default=[], metavar="FEATURE", help="skip cases that need this"
    )
    vectors.add_argument(
        "--provider",
        action="append",
        metavar="NAME",
        help="compute features, moments and predictions with this: openvino, ...",
    )
    vectors.set_defaults(run=_conformance)
    digits = commands.add_parser("digits", help="learn the digits tasks, and add that to a result file")
    digits.add_argument("workspace", type=Path, help="what tests/conformance/digits.py made")
    digits.add_argument("result", type=Path)
    digits.set_defaults(run=_digits)
    arm64 = commands.add_parser("arm64", help="vectors and digits on emulated ARM64 CPUs (Debian only)")
    arm64.add_argument("vectors", type=Path)
    arm64.add_argument("workspace", type=Path, help="what tests/conformance/digits.py made")
    arm64.add_argument("--cache", type=Path, required=True, help="where the ARM64 root is, or is to be")
    arm64.add_argument("--results", type=Path, required=True, help="folder for the result files")
    arm64.set_defaults(run=_arm64)
    states = commands.add_parser("states", help="open and continue the states that other platforms wrote")
    states.add_argument("workspace", type=Path, help="what tests/conformance/digits.py made")
    states.add_argument("--cache", type=Path, help="an ARM64 root, to continue them on an emulated CPU too")
    states.set_defaults(run=_states)
    table = commands.add_parser("table", help="print several result files as one table")
    table.add_argument("vectors", type=Path)
    table.add_argument("results", type=Path, nargs="+")
    table.set_defaults(run=_table)
    matrix = commands.add_parser("matrix", help="several result files as one page, graph by graph")
    matrix.add_argument("vectors", type=Path)
    matrix.add_argument("results", type=Path, nargs="+")
    matrix.add_argument("--runtimes", type=Path, required=True, help="tests/conformance/runtimes.txt")
    matrix.add_argument("--write", type=Path, help="write the page here")
    matrix.set_defaults(run=_matrix)


def _conformance(options: argparse.Namespace) -> int:
    unsupported = frozenset(options.unsupported)
    providers = find_providers(options.provider, "--provider")
    results = run_conformance(options.vectors, unsupported, providers)
    for result in results:
        print(f"{result.status:7}  {result.name}{f': {result.reason}' if result.reason else ''}")
    if options.out is not None:
        write_report(options.out, report(options.vectors, results, options.platform, unsupported, providers))
    passed = conforms(results)
    executed = sum(result.status != SKIPPED for result in results)
    print(f"{executed} of {len(results)} cases executed: {'conforms' if passed else 'does NOT conform'}")
    return 0 if passed else 1


def _digits(options: argparse.Namespace) -> int:
    state = options.workspace / "states" / "conformance"
    shutil.rmtree(state, ignore_errors=True)
    learned = learn(here, options.workspace, state)
    begin(options.workspace)
    add_to_result(options.result, learned)
    print(f"digits: {learned.accuracy:.1f} % after {learned.seconds:.1f} s")
    return 0


def _arm64(options: argparse.Namespace) -> int:
    arm = Arm64.prepare(options.cache)
    findings = check_arm64(arm, options.vectors, options.workspace, options.results)
    return _show(findings)


def _states(options: argparse.Namespace) -> int:
    elsewhere = {}
    if options.cache is not None:
        arm, cpu = Arm64.prepare(options.cache), CPUS[0]
        elsewhere = {cpu.name: on_emulated(arm, cpu)}
    return _show(check_states(options.workspace, elsewhere))


def _show(findings: Sequence[Finding]) -> int:
    names, whats = (
        max(map(len, texts)) for texts in zip(*((f.platform, f.what) for f in findings), strict=True)
    )
    for one in findings:
        mark = "ok  " if one.passed else "FAIL"
        print(f"{mark}  {one.platform:{names}}  {one.what:{whats}}  {one.detail}")
    return 0 if all(finding.passed for finding in findings) else 1


def _table(options: argparse.Namespace) -> int:
    results = read_results(options.results, read_digest(options.vectors))
    print_table(results, Console())
    agree = digits_agree(results)
    if not agree:
        print(f"The digits' accuracies are more than {POINTS:g} point apart.")
    return 0 if agree and all(result["passed"] for result in results) else 1


def _matrix(options: argparse.Namespace) -> int:
    results = read_results(options.results, read_digest(options.vectors))
    text = page(results, read_runtimes(options.runtimes))
    print(text)
    failed = failures(results)
    for line in failed:
        print(f"FAIL  {line}")
    if options.write is not None:
        options.write.write_text(text, encoding="utf-8")
    return 1 if failed or not all(result["passed"] for result in results) else 0
