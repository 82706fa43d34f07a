"""A disk that is full, read-only or broken, at every single call of one whole `csk-sdk train`, reads included."""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from field.failing_disk import Disk
from field.field_device import Device
from field.simulated_disk import read_tree


@contextmanager
def failing(device: Device, *how: Any) -> Iterator[Disk]:
    disk = Disk(device.disk, *how)
    with pytest.MonkeyPatch.context() as patch:
        disk.install(patch)
        yield disk


# Hundreds of runs of a whole train.
@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("for_good", [False, True], ids=["once", "for good"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EIO], ids=errno.errorcode.get)
def test_every_call_of_train_may_fail(
    device: Device, capsys: pytest.CaptureFixture[str], code: int, for_good: bool
) -> None:
    assert device.train().status == 0
    before = read_tree(device.disk)
    assert device.train().status == 0
    assert device.bits() == device.expected[2]
    outcomes: Counter[str] = Counter()
    for call in range(1, 10_000):
        device.put(before)
        with failing(device, call, code, for_good) as disk:
            done = device.train()
        if not disk.failed:
            break
        where = f"call {call}"
        assert done.status in (0, 1), where
        found = device.state().load().number
        # Whatever happened, what was committed is there.
        assert found in (1, 2), where
        for number in range(found + 1):
            assert device.bits(number) == device.expected[number], where
        if done.status == 1:
            outcomes["told"] += 1
            lines = [line for line in done.err.splitlines() if not line.startswith("Warning: ")]
            assert len(lines) == 1, where
            assert lines[0].startswith("Error: "), where
            assert lines[0].endswith("."), where
        else:
            # A call that nothing depends on, such as removing what is not needed any more.
            outcomes["harmless"] += 1
            assert found == 2, where
        if found == 1:
            if read_tree(device.disk) == before:
                # As if nothing had been tried.
                continue
            # With the disk mended, the same command goes on.
            assert device.train().status == 0, where
        assert device.bits() == device.expected[2], where
    assert outcomes["told"] > 10
    assert outcomes.total() == call - 1
    with capsys.disabled():
        print(
            f"\n{errno.errorcode[code]} {'from then on' if for_good else 'once'} at each of {call - 1} calls "
            f"({', '.join(f'{n} {name}' for name, n in sorted(disk.calls.items()))}): "
            f"{outcomes['told']} told in one sentence, {outcomes['harmless']} harmless, nothing lost"
        )
