"""Cameras of more than 8 bits: images and arrays that would be learned as black, or beyond white."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from field.attack.ground import Ground
from field.attack.promise import GUARANTEES, Tries, promise


@promise(
    GUARANTEES,
    "16-bit PNG of a 10-, 12- or 14-bit camera, and no bit_depth",
    "uint16 arrays",
    tries=200,
    least=6,
)
def cameras_of_other_depths(tries: Tries, ground: Ground, place: Path) -> None:
    """Values of 8 to 16 bits as files and arrays: refused where nobody said how many, and else the upper 8 of them."""
    from csk_sdk import Task, TaskError
    from csk_sdk.data.images import FileImages
    from sdk.test_bit_depth import write

    for number in tries:
        bits = tries.rng.choice([9, 10, 12, 14, 16])
        values = tries.numpy.integers(0, 1 << bits, (6, 5, 4)).astype(np.uint16)
        expected = (values >> (bits - 8)).astype(np.uint8)
        if number % 2:
            path = write(place / "x.png", values[0][:, :, None])
            with tries.one(f"{bits} bits in a file"):
                assert np.array_equal(FileImages([path], bit_depth=bits).read(0)[:, :, 0], expected[0])
                if values[0].max() < 4096:
                    _refused(TaskError, lambda path=path: FileImages([path]).read(0), "bit_depth")
                if bits < 16:
                    path = write(path, np.maximum(values[0], 1 << bits)[:, :, None])
                    told = FileImages([path], bit_depth=bits)
                    _refused(TaskError, lambda told=told: told.read(0), "white is")
            continue
        with tries.one(f"{bits} bits in an array"):
            given = (values, [0, 1] * 3, ["a", "b"])
            _refused(TaskError, lambda given=given: Task.from_arrays("01", *given), "uint16")
            task = Task.from_arrays("01", *given, bit_depth=bits)
            assert task.train is not None
            assert all(
                np.array_equal(task.train.images.read(one)[:, :, 0], expected[one]) for one in range(6)
            )


def _refused(kind: type[Exception], act: object, word: str) -> None:
    try:
        act()  # type: ignore[operator]
    except kind as error:
        assert word in str(error), str(error)
    else:
        raise AssertionError("it was taken")
