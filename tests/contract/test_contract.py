"""Nothing drifts: what is made of the contract is what it says, and no value stands anywhere else (drift.py)."""

from __future__ import annotations

from pathlib import Path

import drift
import pytest


def test_every_generated_file_is_fresh() -> None:
    assert drift.stale() == []


def test_every_threshold_is_read() -> None:
    assert drift.unread() == []


def test_no_threshold_stands_elsewhere() -> None:
    assert drift.literal() == []
    assert set(drift.named_numbers()) >= drift.ALLOWED, "what is allowed is there"


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return drift.copied(tmp_path_factory.mktemp("sources"))


@pytest.mark.slow
@pytest.mark.parametrize("change", drift.CHANGES, ids=lambda change: f"{change.language} {change.what}")
def test_a_change_in_one_language_is_noticed(copy: Path, change: drift.Change) -> None:
    assert drift.notices(copy, change)


def test_sources_and_their_reasons() -> None:
    for group, values in drift.THRESHOLDS.items():
        page = drift.ROOT / "docs" / "decisions" / f"{values['source']}.md"
        assert page.exists() or group == "limits"
        assert all(one["description"].endswith(".") for one in values.values() if isinstance(one, dict))
