"""How long a picture keeps a decoder busy, told from its structure before a decoder sees it.

Of most formats time goes with the pixels, which are bounded. These are the exceptions: a progressive JPEG paints the
whole picture once for every scan, and Pillow walks segments, chunks and comments one by one in Python. Structures are
those of ITU-T T.81 (annex B), the PNG specification (5.3) and GIF89a (15 to 26).
"""

from __future__ import annotations

from typing import BinaryIO

# A flat scan paints about 2^30 pixels a second on one x86 core (libjpeg-turbo 3): some seconds at most.
_MOST_PAINTED = 1 << 31
_MOST_SEGMENTS, _MOST_CHUNKS, _MOST_BLOCKS = 1 << 16, 1 << 18, 1 << 12
_PIECE = 1 << 20
_PNG_SIGNATURE = 8


def slow_structure(file: BinaryIO, kind: str, pixels: int) -> str | None:
    """What would take a decoder too long in a picture of `kind` ("JPEG", "PNG", "GIF") and so many pixels; or None.

    Reads `file` from its beginning, and leaves it there. What is damaged is for the decoder to say.
    """
    check = {"JPEG": _jpeg, "PNG": _png, "GIF": _gif}.get(kind)
    if check is None:
        return None
    file.seek(0)
    try:
        return check(file, pixels)
    finally:
        file.seek(0)


def _jpeg(file: BinaryIO, pixels: int) -> str | None:
    segments = 0
    file.read(2)  # start of image
    while segments <= _MOST_SEGMENTS:
        marker = file.read(2)
        if len(marker) < 2 or marker[1] == 0xDA:
            break
        if marker[0] != 0xFF or marker[1] in (0x00, 0xFF):
            file.seek(-1, 1)  # a fill byte, or what the decoder skips
        elif not (0xD0 <= marker[1] <= 0xD9 or marker[1] == 0x01):
            length = int.from_bytes(file.read(2), "big")
            file.seek(max(length - 2, 0), 1)
        segments += 1
    if segments > _MOST_SEGMENTS:
        return f"a JPEG of more than {_MOST_SEGMENTS} segments"
    scans = _count_scans(file)
    if scans * pixels > _MOST_PAINTED:
        return f"a progressive JPEG of {scans} scans, which paints {pixels} pixels in each"
    return None


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


def _png(file: BinaryIO, pixels: int) -> str | None:
    file.seek(_PNG_SIGNATURE)
    for _ in range(_MOST_CHUNKS):
        head = file.read(8)
        if len(head) < 8 or head[4:] == b"IEND":
            return None
        file.seek(int.from_bytes(head[:4], "big") + 4, 1)
    return f"a PNG of more than {_MOST_CHUNKS} chunks"


def _gif(file: BinaryIO, pixels: int) -> str | None:
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
