"""What was merged is given out whole, or not at all: also where it changes, or cannot be read, in the middle."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conftest import Digits, open_learner
from csk_sdk import FleetError, fleet
from csk_sdk.fleet import giving
from csk_sdk.fleet.giving import MergedFile


@pytest.fixture(scope="module")
def merged(tmp_path_factory: pytest.TempPathFactory, digits_bundle: Path, digits: Digits) -> Path:
    folder = tmp_path_factory.mktemp("merged")
    learner = open_learner(digits_bundle, folder / "state", few_shot=10**6)
    learner.learn(digits.task("01", (4, 5)))
    fleet.export(learner, folder / "own.cskc")
    fleet.merge([folder / "own.cskc"], folder / "merged.cskc")
    return folder / "merged.cskc"


def reading(monkeypatch: pytest.MonkeyPatch, do: Callable[[int], object]) -> None:
    """Each time that the file is read, `do` is told which time it is, and what it says is what is read."""
    times = 0
    real = giving.read_file

    def read_file(path: Path, most: int) -> Any:
        nonlocal times
        content, times = real(path, most), times + 1
        do(times)
        return content

    monkeypatch.setattr(giving, "read_file", read_file)


def test_it_is_read_again_where_it_was_replaced_meanwhile(
    merged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, content = tmp_path / "merged.cskc", merged.read_bytes()
    place.write_bytes(content)

    def replaced(time: int) -> None:
        if time < 3:
            (tmp_path / "next").write_bytes(content)
            (tmp_path / "next").replace(place)

    reading(monkeypatch, replaced)
    assert MergedFile(place, None).read() == content


def test_what_changes_all_the_time_is_not_given_out(
    merged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, content = tmp_path / "merged.cskc", merged.read_bytes()
    place.write_bytes(content)

    def replaced(time: int) -> None:
        (tmp_path / "next").write_bytes(content)
        (tmp_path / "next").replace(place)

    reading(monkeypatch, replaced)
    with pytest.raises(FleetError, match="changes while it is read: write it with `csk-sdk fleet merge`"):
        MergedFile(place, None).read()


@pytest.mark.parametrize(
    ("error", "reason"),
    [(OSError(5, "Input/output error"), "Input/output error"), (ValueError("too large"), "too large")],
)
def test_what_cannot_be_read_is_a_sentence(
    merged: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str
) -> None:
    def failing(_: int) -> None:
        raise error

    reading(monkeypatch, failing)
    with pytest.raises(FleetError, match=rf"merged\.cskc cannot be read \({reason}\)\.$"):
        MergedFile(merged, None).read()


def test_before_anything_was_merged(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        MergedFile(tmp_path / "merged.cskc", None).read()


def test_what_a_device_says_itself_is_not_for_all(merged: Path) -> None:
    with pytest.raises(FleetError, match="has what single devices say, which is not for all"):
        MergedFile(merged.with_name("own.cskc"), None).read()


def test_a_contribution_that_is_lost_is_left_out_and_told(
    digits_bundle: Path, digits: Digits, tmp_path: Path
) -> None:
    learner = open_learner(digits_bundle, tmp_path / "state", few_shot=10**6)
    learner.learn(digits.task("01", (4, 5)))
    file = learner.tasks[0].contributions["four"]
    (tmp_path / "state" / "ledger" / f"{file}.safetensors").unlink()
    report = fleet.export(learner, tmp_path / "own.cskc")
    assert sorted(report.classes) == ["five"]
    (said,) = report.left_out
    assert "four" in said
