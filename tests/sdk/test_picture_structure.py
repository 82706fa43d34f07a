"""Images that would keep a decoder busy are told by their structure; ordinary ones pass. All here are harmless."""

from __future__ import annotations

import io
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import csk_sdk.data.picture_structure as structure
from csk_sdk.data.images import FileImages
from csk_sdk.data.picture_structure import slow_to_open, slow_to_paint
from csk_sdk.errors import TaskError


def saved(kind: str, size: int = 32, **options: object) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind, **options)
    return stream.getvalue()


def problem(data: bytes, pixels: int = 1024) -> str | None:
    """From the middle of a stream, which both leave where it was."""
    file = io.BytesIO(b"before" + data)
    file.seek(6)
    found = slow_to_open(file) or (slow_to_paint(file, pixels) if data[:2] == b"\xff\xd8" else None)
    assert file.tell() == 6
    return found


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("JPEG", {"progressive": True, "quality": 100, "comment": b"\xff\xda" * 10}),
        ("JPEG", {"exif": b"Exif\0\0" + b"\xff" * 60_000}),
        ("PNG", {}),
        ("GIF", {"comment": b"x" * 10_000}),
        ("WEBP", {}),
        ("BMP", {}),
    ],
)
def test_ordinary_pictures_pass(kind: str, options: dict[str, object]) -> None:
    assert problem(saved(kind, **options)) is None
    # As large as an image may be: a camera's progressive JPEG has about ten scans.
    assert problem(saved(kind, **options), 64 << 20) is None


def test_each_scan_of_a_jpeg_paints_the_picture() -> None:
    data = saved("JPEG", progressive=True)
    begin, end = data.rindex(b"\xff\xda"), len(data) - 2
    many = data[:end] + data[begin:end] * 300 + data[end:]
    scans = many.count(b"\xff\xda")
    assert scans > 300
    assert problem(many) is None  # of 32x32 pixels: nothing
    assert problem(many, 64 << 20) == (
        f"a progressive JPEG of {scans} scans, which paints {64 << 20} pixels in each; store it as PNG"
    )


def test_a_scan_that_begins_between_two_pieces_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    data = saved("JPEG", progressive=True)
    for piece in (1, 2, 3, 7):
        monkeypatch.setattr(structure, "_PIECE", piece)
        assert structure._count_scans(io.BytesIO(data)) == data.count(b"\xff\xda")


def chunk(name: bytes, content: bytes) -> bytes:
    return len(content).to_bytes(4, "big") + name + content + zlib.crc32(name + content).to_bytes(4, "big")


@pytest.mark.parametrize(
    ("kind", "limit", "make", "told"),
    [
        ("JPEG", "_MOST_SEGMENTS", lambda data, n: data[:2] + b"\xff\xfe\0\x02" * n + data[2:], "segments"),
        ("JPEG", "_MOST_SEGMENTS", lambda data, n: data[:2] + b"\xff" * n + data[2:], "segments"),
        ("PNG", "_MOST_CHUNKS", lambda data, n: data[:33] + chunk(b"teXt", b"") * n + data[33:], "chunks"),
        ("GIF", "_MOST_BLOCKS", lambda data, n: _with_comment(data, n), "blocks"),
    ],
    ids=["segments", "fill-bytes", "chunks", "blocks"],
)
def test_what_pillow_walks_in_python_is_bounded(
    monkeypatch: pytest.MonkeyPatch, kind: str, limit: str, make: object, told: str
) -> None:
    monkeypatch.setattr(structure, limit, 200)
    data = saved(kind)
    assert problem(make(data, 20)) is None  # type: ignore[operator]
    found = problem(make(data, 300))  # type: ignore[operator]
    assert found is not None
    assert f"more than 200 {told}" in found


def _with_comment(data: bytes, blocks: int) -> bytes:
    table = 13 + (3 << (data[10] & 7) + 1 if data[10] & 0x80 else 0)
    return data[:table] + b"!\xfe" + b"\x01x" * blocks + b"\0" + data[table:]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF"])
def test_what_is_damaged_is_for_the_decoder_to_say(kind: str) -> None:
    data = saved(kind)
    for length in (0, 1, 5, 12, 20, len(data) // 2):
        assert problem(data[:length]) is None
    noise = np.random.default_rng(1).bytes(5000)
    assert problem(data[:8] + noise) is None


def test_a_picture_that_takes_too_long_is_refused_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, limit, told in (("a.jpg", "_MOST_PAINTED", "scans"), ("b.png", "_MOST_CHUNKS", "chunks")):
        path = tmp_path / name
        path.write_bytes(saved("JPEG", progressive=True) if name == "a.jpg" else saved("PNG"))
        assert FileImages([path]).read(0).shape == (32, 32, 3)
        monkeypatch.setattr(structure, limit, 2)
        with pytest.raises(TaskError, match=rf"{name} cannot be decoded .*{told}"):
            FileImages([path]).read(0)
        monkeypatch.undo()
