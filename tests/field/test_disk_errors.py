"""A disk that is full, read-only or broken, at the calls of one whole `csk-sdk train`, reads included.

Of reads that come from the same lines of csk-sdk, one after the other, the first stands for all; where blocks are kept,
those reads are tried that come from other lines than without. Of a disk that breaks for good, which ends a train soon,
it is a third of these. A disk is not read-only at one call alone: what follows one refused write is what follows on a
full disk, and the sentences are those of a disk that stays read-only.
"""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from csk_sdk.state import blocks
from field.failing_disk import WRITING, Disk
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
@pytest.mark.parametrize(
    ("code", "block_classes", "for_good"),
    [
        pytest.param(errno.ENOSPC, 128, False, id="ENOSPC-once"),
        pytest.param(errno.ENOSPC, 128, True, id="ENOSPC-for good"),
        pytest.param(errno.EROFS, 128, True, id="EROFS-for good"),
        pytest.param(errno.EIO, 128, False, id="EIO-once"),
        pytest.param(errno.EIO, 128, True, id="EIO-for good"),
        pytest.param(errno.ENOSPC, 2, False, id="ENOSPC with blocks-once"),
        pytest.param(errno.ENOSPC, 2, True, id="ENOSPC with blocks-for good"),
        pytest.param(errno.EIO, 2, False, id="EIO with blocks-once"),
        pytest.param(errno.EIO, 2, True, id="EIO with blocks-for good"),
    ],
)
def test_every_call_of_train_may_fail(
    device: Device,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    code: int,
    block_classes: int,
    for_good: bool,
) -> None:
    tried: set[tuple[str, ...]] = set()
    if block_classes < blocks.BLOCK_CLASSES:
        assert device.train().status == 0
        with failing(device, 10_000, code, for_good) as plain:
            assert device.train().status == 0
        tried = set(plain.places)
        device.put({})
        monkeypatch.setattr(blocks, "BLOCK_CLASSES", block_classes)
    assert device.train().status == 0
    before = read_tree(device.disk)
    with failing(device, 10_000, code, for_good) as whole:
        assert device.train().status == 0
    assert device.bits() == device.expected[2]
    calls = [
        call
        for call, place in enumerate(whole.places, 1)
        if place[0] in WRITING or place not in tried.union(whole.places[: call - 1])
    ]
    if for_good and code == errno.EIO:
        calls = calls[::3]
    outcomes: Counter[str] = Counter()
    for call in calls:
        device.put(before)
        with failing(device, call, code, for_good) as disk:
            done = device.train()
        where = f"call {call}"
        assert disk.failed, where
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
    assert outcomes.total() == len(calls)
    with capsys.disabled():
        print(
            f"\n{errno.errorcode[code]} {'from then on' if for_good else 'once'} at {len(calls)} of "
            f"{whole.calls.total()} calls ({', '.join(f'{n} {name}' for name, n in sorted(whole.calls.items()))}): "
            f"{outcomes['told']} told in one sentence, {outcomes['harmless']} harmless, nothing lost"
        )
