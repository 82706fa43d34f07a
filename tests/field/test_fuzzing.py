"""The fuzz targets with hypothesis, for seconds; and every input that fuzzing ever found, for good."""

from __future__ import annotations

import base64
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from field import fuzz_targets

# Inputs that once broke a reader: (target, input, what it was).
FOUND: list[tuple[str, bytes, str]] = [
    (
        "picture",
        base64.b64decode(
            "Qk2GBAAAAAA2AAAAAAAoAAAABQC8AAEAAAABABgAAQAAAAAAAAAAAAAAUAAA6AAAAAAOAAAAAADEBAAAAAAHAAAAALW1tbW1tbW1tbW1tbW1"
            "tbW1tbW1tbW1tbW1tbW1tbW1tbW1tbW1tbW1tbW1tbW1tbW1tbW1tbW1tbW1tbW1tbW1tbW1tbW1tbW1tbW1tbW1tbW1tbW1tbW1tQAAAA4A"
            "AMQOAAAA"
        ),
        "a run-length encoded BMP of 12 million pixels: 24 s in Pillow's Python",
    ),
    (
        "state",
        bytes([4, 1, 3, 0, *range(2, 17)]),
        "scores of generation infinity, with a checksum that fits: OverflowError",
    ),
]


@pytest.mark.parametrize("name", fuzz_targets.TARGETS)
def test_seeds_pass(name: str) -> None:
    for seed in fuzz_targets.seeds(name):
        fuzz_targets.TARGETS[name](seed)


@pytest.mark.parametrize("name", fuzz_targets.TARGETS)
def test_any_bytes(name: str) -> None:
    @settings(max_examples=60, deadline=None, database=None, derandomize=True)
    @given(st.binary(max_size=400))
    def check(data: bytes) -> None:
        fuzz_targets.TARGETS[name](data)

    check()


@pytest.mark.slow
@pytest.mark.parametrize("name", fuzz_targets.TARGETS)
def test_any_change_of_a_good_input(name: str) -> None:
    seeds = fuzz_targets.seeds(name)

    @settings(max_examples=100, deadline=None, database=None, derandomize=True)
    @given(st.sampled_from(seeds), st.data())
    def check(seed: bytes, data: st.DataObject) -> None:
        changed = bytearray(seed)
        for _ in range(data.draw(st.integers(1, 4))):
            changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
        fuzz_targets.TARGETS[name](bytes(changed[: data.draw(st.integers(0, len(changed)))]))

    check()


@pytest.mark.parametrize(("name", "data", "what"), FOUND)
def test_what_fuzzing_found(name: str, data: bytes, what: str) -> None:
    begun = time.process_time()
    fuzz_targets.TARGETS[name](data)
    assert time.process_time() - begun < 2.0, what
