"""How long an image keeps a decoder busy, told from its structure before a decoder sees it.

Of most formats time goes with the pixels, which are bounded. These are the exceptions: a progressive JPEG paints the
whole image once for every scan, and Pillow walks segments, chunks and comments one by one in Python. Structures are
those of ITU-T T.81 (annex B), the PNG specification (5.3) and GIF89a (15 to 26).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import BinaryIO

# A flat scan paints about 2^30 pixels a second on one x86 core (libjpeg-turbo 3): some seconds at most.
_MOST_PAINTED = 1 << 31
_MOST_SEGMENTS, _MOST_CHUNKS, _MOST_BLOCKS = 1 << 16, 1 << 18, 1 << 12
_PIECE = 1 << 20
_JPEG, _PNG, _GIF = b"\xff\xd8", b"\x89PNG\r\n\x1a\n", b"GIF8"


def slow_to_open(file: BinaryIO) -> str | None:
    """What would keep Pillow busy before it knows how large an image is; None where nothing would.

    Reads from where `file` is, and leaves it there. What is damaged, or of another format, is for the decoder to say.
    """
    begin = file.tell()
    magic = file.read(8)
    check = next((check for start, check in _CHECKS.items() if magic.startswith(start)), None)
    file.seek(begin)
    try:
        return check(file) if check is not None else None
    finally:
        file.seek(begin)


def slow_to_paint(file: BinaryIO, pixels: int) -> str | None:
    """What would keep a decoder busy with a JPEG of so many pixels; None where nothing would. Leaves `file` there."""
    begin = file.tell()
    try:
        scans = _count_scans(file)
    finally:
        file.seek(begin)
    if scans * pixels > _MOST_PAINTED:
        return f"a progressive JPEG of {scans} scans, which paints {pixels} pixels in each; store it as PNG"
    return None


def _jpeg(file: BinaryIO) -> str | None:
    file.seek(2, 1)  # start of image
    for _ in range(_MOST_SEGMENTS):
        marker = file.read(2)
        if len(marker) < 2 or marker[1] == 0xDA:
            return None
        if marker[0] != 0xFF or marker[1] in (0x00, 0xFF):
            file.seek(-1, 1)  # a fill byte, or what the decoder skips
        elif not (0xD0 <= marker[1] <= 0xD9 or marker[1] == 0x01):
            length = int.from_bytes(file.read(2), "big")
            file.seek(max(length - 2, 0), 1)
    return f"a JPEG of more than {_MOST_SEGMENTS} segments"


def _count_scans(file: BinaryIO) -> int:
    """In coded data a byte FF is followed by 00, so FF DA begins a scan; a thumbnail's are counted, too."""
    file.seek(0)
    scans, last = 0, b""
    while piece := file.read(_PIECE):
        scans += (last + piece).count(b"\xff\xda")
        last = piece[-1:]
        if last != b"\xff":
            last = b""
    return scans


def _png(file: BinaryIO) -> str | None:
    file.seek(len(_PNG), 1)
    for _ in range(_MOST_CHUNKS):
        head = file.read(8)
        if len(head) < 8 or head[4:] == b"IEND":
            return None
        file.seek(int.from_bytes(head[:4], "big") + 4, 1)
    return f"a PNG of more than {_MOST_CHUNKS} chunks"


def _gif(file: BinaryIO) -> str | None:
    """Up to the first frame: extensions, each of blocks of at most 255 bytes."""
    screen = file.read(13)
    if len(screen) == 13 and screen[10] & 0x80:
        file.seek(3 << (screen[10] & 7) + 1, 1)
    blocks = 0
    while blocks <= _MOST_BLOCKS:
        kind = file.read(1)
        if kind != b"!":
            return None
        file.read(1)
        while (size := file.read(1)) not in (b"", b"\0"):
            file.seek(size[0], 1)
            blocks += 1
            if blocks > _MOST_BLOCKS:
                break
    return f"a GIF with more than {_MOST_BLOCKS} blocks in front of its first frame"


_CHECKS: dict[bytes, Callable[[BinaryIO], str | None]] = {_JPEG: _jpeg, _PNG: _png, _GIF: _gif}
