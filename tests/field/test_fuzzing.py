"""The fuzz targets with hypothesis, for seconds; and every input that fuzzing ever found, for good."""

from __future__ import annotations

import base64
import time
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from csk_sdk.contract.manifest import sealed
from csk_sdk.errors import BundleError
from csk_sdk.state.sealing import seal
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
@pytest.mark.parametrize("name", fuzz_targets.STATE_FILES)
def test_every_value_of_a_state_may_be_any_other(name: str) -> None:
    """A record's checksum fits, so that its values are read: a whole number that no float holds, for one."""
    for changed in fuzz_targets.each_value_changed(fuzz_targets.good_record(name)):
        try:
            content = seal(changed)
        except (ValueError, TypeError):
            continue  # no JSON, or no text
        fuzz_targets.read_state({name: content})


def test_every_value_of_a_manifest_may_be_any_other() -> None:
    for changed in fuzz_targets.each_value_changed(fuzz_targets.good_manifest()):
        try:
            text = sealed(changed)
        except (ValueError, TypeError):
            continue
        with suppress(BundleError):
            fuzz_targets.read_manifest(text)


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
