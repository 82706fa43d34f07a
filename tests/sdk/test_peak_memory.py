"""What a run costs, by what each system tells of it."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from csk_sdk import TaskError
from csk_sdk.runtime.peak_memory import available_bytes, in_memory, peak_rss_bytes, resident_bytes

STATUS = "Name:\tpython\nVmPeak:\t  900 kB\nVmHWM:\t  300 kB\nVmRSS:\t  200 kB\n"
MEMINFO = "MemTotal:  8000 kB\nMemFree:   10 kB\nMemAvailable:   5000 kB\nSwapFree:  1000 kB\n"


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What the kernel's files say; where nothing is put in, there is no such file."""
    files: dict[str, str] = {}

    def read_text(path: Path, *_: Any, **__: Any) -> str:
        if str(path) not in files:
            raise FileNotFoundError(2, "No such file or directory", str(path))
        return files[str(path)]

    monkeypatch.setattr(Path, "read_text", read_text)
    return files


def test_linux_tells_it_of_the_process_itself(told: dict[str, str]) -> None:
    told["/proc/self/status"] = STATUS
    assert (peak_rss_bytes(), resident_bytes()) == (300 * 1024, 200 * 1024)


@pytest.mark.parametrize(("platform", "unit"), [("linux", 1024), ("darwin", 1), ("freebsd14", 1024)])
def test_other_systems_count_the_peak_in_units_of_their_own(
    told: dict[str, str], monkeypatch: pytest.MonkeyPatch, platform: str, unit: int
) -> None:
    told["/proc/self/status"] = "Name:\tpython\n"
    usage = SimpleNamespace(RUSAGE_SELF=0, getrusage=lambda who: SimpleNamespace(ru_maxrss=5000))
    monkeypatch.setitem(sys.modules, "resource", usage)
    monkeypatch.setattr(sys, "platform", platform)
    assert peak_rss_bytes() == resident_bytes() == 5000 * unit


def test_where_nothing_is_told_it_is_nothing(told: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "resource", None)
    assert (peak_rss_bytes(), resident_bytes(), available_bytes()) == (0, 0, None)


def test_what_there_is_to_be_had_is_with_swap(told: dict[str, str]) -> None:
    told["/proc/meminfo"] = MEMINFO
    assert available_bytes() == 6000 * 1024
    told["/proc/meminfo"] = MEMINFO.replace("MemAvailable", "MemOld")
    assert available_bytes() is None


def test_running_out_of_it_is_a_sentence() -> None:
    with (
        pytest.raises(TaskError, match=r"^This device ran out of memory\. Try a smaller batch_size"),
        in_memory(),
    ):
        raise MemoryError
