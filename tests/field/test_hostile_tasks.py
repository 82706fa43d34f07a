"""Tasks made to harm: archives that explode, links that lead out, images that are bombs or none."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import time
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from csk_sdk import Inbox, Task, TaskError
from csk_sdk.data.images import MAX_PIXELS, FileImages


def npy(array: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


def npy_header(shape: object, dtype: str = "|u1", data: bytes = b"") -> bytes:
    """An npy file whose header says what it likes."""
    text = f"{{'descr': {dtype!r}, 'fortran_order': False, 'shape': {shape}}}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data


def archive(path: Path, **members: bytes) -> Path:
    good = {
        "images": npy(np.zeros((4, 5, 5, 3), np.uint8)),
        "labels": npy(np.array([0, 1, 0, 1])),
        "class_names": npy(np.array(["a", "b"])),
    }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in {**good, **members}.items():
            file.writestr(f"{name}.npy", data)
    return path


def bomb(size: int) -> Callable[[Path], None]:
    """An archive whose images are `size` bytes of zeros, 1000 times as many as the file has."""

    def act(path: Path) -> None:
        side = int((size / 3) ** 0.5)
        with zipfile.ZipFile(archive(path), "a", zipfile.ZIP_DEFLATED) as file:
            # The second entry of a name is the one that counts.
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                member = file.open("images.npy", "w", force_zip64=True)
            with member:
                member.write(npy_header((1, side, side, 3)))
                for _ in range(side):
                    member.write(bytes(3 * side))

    return act


def claims(size: int) -> Callable[[Path], None]:
    """An archive whose directory says that its images are `size` bytes long."""

    def act(path: Path) -> None:
        data = bytearray(archive(path).read_bytes())
        with zipfile.ZipFile(path) as file:
            start = file.start_dir
        data[start + 24 : start + 28] = struct.pack("<I", size)
        path.write_bytes(data)

    return act


def packed(method: int) -> Callable[[Path], None]:
    """A good archive whose images are packed by another method than NumPy's."""

    def act(path: Path) -> None:
        archive(path)
        images = npy(np.zeros((4, 5, 5, 3), np.uint8))
        # The second entry of a name is the one that counts.
        with warnings.catch_warnings(), zipfile.ZipFile(path, "a") as file:
            warnings.simplefilter("ignore")
            file.writestr("images.npy", images, method)

    return act


def members(count: int, name_length: int = 10) -> Callable[[Path], None]:
    """A good archive with that many more members, each of no byte."""

    def act(path: Path) -> None:
        with zipfile.ZipFile(archive(path), "a") as file:
            for index in range(count):
                file.writestr(f"{index:0{name_length}d}", b"")

    return act


def long_header(path: Path) -> None:
    """An array whose header says that it is a gigabyte long, and is 100 MB of blanks, packed to 100 kB."""
    head = b"\x93NUMPY\x02\x00" + struct.pack("<I", 1 << 30)
    archive(path, images=head + b" " * (100 << 20), padding=os.urandom(1 << 20))


def pictures(data: bytes) -> Callable[[Path], object]:
    return lambda path: archive(path, images=data)


NPZ: dict[str, tuple[Callable[[Path], object], str]] = {
    "a bomb": (bomb(300 << 20), "which no images do: it is damaged, or a decompression bomb."),
    "a size of 4 GB claimed": (
        claims(0xFFFFFFF0),
        "claims to hold 4.3 GB, and an npz task may hold 4.3 GB|which no",
    ),
    "a size smaller than the truth": (claims(300), "Bad CRC-32|needs 300 bytes"),
    "huge dims": (
        pictures(npy_header((1 << 20, 1 << 20, 1 << 10, 3))),
        "has 0): write it again with numpy.savez.",
    ),
    "negative dims": (pictures(npy_header((-1, 5, 5, 3), data=b"x" * 75)), "cannot be read"),
    "dims beyond 64 bits": (pictures(npy_header((1 << 40, 1 << 40, 3, 3))), "cannot be read"),
    "zero times huge": (pictures(npy_header((0, 1 << 62, 1 << 62, 3))), "cannot be read|holds no image"),
    "dims that are code": (pictures(npy_header("__import__('os').abort()")), "cannot be read"),
    "dims nested deep": (pictures(npy_header("(" * 3000 + ")" * 3000)), "cannot be read"),
    "a header of 60,000 bytes": (pictures(npy_header("(" + "1, " * 20_000 + ")")), "cannot be read"),
    "more data than the shape": (
        pictures(npy_header((1, 5, 5, 3), data=b"x" * 100)),
        "needs 75 bytes and has 100",
    ),
    "a dtype of a terabyte": (pictures(npy_header((1,), dtype="|S1099511627776")), "cannot be read"),
    "a pickle": (
        pictures(npy_header((1,), dtype="|O", data=b"cos\nabort\n(tR.")),
        "Object arrays cannot be loaded",
    ),
    "an unknown version": (pictures(b"\x93NUMPY\x09\x00" + b"\x00" * 50), "cannot be read"),
    "packed by bzip2": (
        packed(zipfile.ZIP_BZIP2),
        "images is compressed by the method bzip2, and NumPy writes none",
    ),
    "packed by lzma": (
        packed(zipfile.ZIP_LZMA),
        "images is compressed by the method lzma, and NumPy writes none",
    ),
    "many members": (members(1_000), "lists more than 1000 arrays, and a task has seven at most"),
    "a directory of megabytes": (members(999, 2_000), "lists more than 1000 arrays"),
    "a header of a gigabyte": (long_header, "a header of 1073741824 bytes, and NumPy reads 10000 at most"),
    "no npy at all": (pictures(b"<html>"), "cannot be read"),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", NPZ)
def test_a_hostile_archive_is_refused(tmp_path: Path, case: str) -> None:
    make, text = NPZ[case]
    path = tmp_path / "01.npz"
    make(path)
    with pytest.raises(TaskError) as caught:
        Task.open(path)
    assert any(part in str(caught.value) for part in text.split("|")), str(caught.value)
    assert len(str(caught.value)) < 1000
    assert "\n" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize(
    "make", [bomb(300 << 20), long_header, members(100_000)], ids=["bomb", "header", "members"]
)
def test_a_bomb_costs_no_memory(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "01.npz")
    assert (tmp_path / "01.npz").stat().st_size < 16 << 20
    code = (
        "import resource, sys\n"
        "from csk_sdk import Task, TaskError\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try: Task.open(sys.argv[1])\n"
        "except TaskError: print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "01.npz"], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 20 << 10  # KiB


def test_names_in_an_archive_lead_nowhere(tmp_path: Path) -> None:
    inbox = tmp_path / "tasks"
    inbox.mkdir()
    path = archive(inbox / "01.npz", **{"../../escaped": npy(np.zeros(3)), "/etc/evil": npy(np.zeros(3))})
    assert Inbox(inbox).open("01").classes == ("a", "b")
    assert [found.name for found in tmp_path.rglob("*")] == ["tasks", path.name]


# Folders


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / "01/train" / name).mkdir(parents=True)
        for index in range(2):
            pixels = rng.integers(0, 256, (5, 5, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "01/train" / name / f"{index}.png")
    outside = tmp_path / "outside"
    outside.mkdir()
    Image.fromarray(np.zeros((5, 5, 3), np.uint8)).save(outside / "private.png")
    return tmp_path / "01"


LINKS: dict[str, tuple[str, str]] = {
    "an image": ("train/a/x.png", "../../../outside/private.png"),
    "an image by its whole path": ("train/a/x.png", "{outside}/private.png"),
    "a class": ("train/c", "{outside}"),
    "all of train": ("train", "{outside}"),
    "all of test": ("test", "{outside}"),
    "a device": ("train/a/x.png", "/dev/zero"),
}


@pytest.mark.parametrize("case", LINKS)
def test_a_link_that_leads_out_is_refused(folder: Path, case: str) -> None:
    name, target = LINKS[case]
    if name == "train":
        (folder / "train").rename(folder.parent / "outside/train")
    (folder / name).symlink_to(target.format(outside=folder.parent / "outside"))
    with pytest.raises(TaskError) as caught:
        Task.open(folder)
    assert str(caught.value) == (
        f"{folder / name} is a link that leads out of {folder}: put the file or folder itself there."
    )


def test_a_link_inside_the_task_is_fine(folder: Path) -> None:
    (folder / "train/b/again.png").symlink_to("../a/0.png")
    task = Task.open(folder)
    assert task.train is not None
    assert len(task.train) == 5


def test_a_link_to_nothing_and_one_to_itself(folder: Path) -> None:
    (folder / "train/a/x.png").symlink_to("nothing.png")
    task = Task.open(folder)
    assert task.train is not None
    with pytest.raises(TaskError, match=r"x\.png cannot be read \(No such file or directory\)"):
        task.fingerprint()
    (folder / "train/a/x.png").unlink()
    (folder / "train/a/x.png").symlink_to("x.png")
    with pytest.raises(TaskError, match=r"x\.png|symbolic links"):
        Task.open(folder).fingerprint()


def test_a_pipe_does_not_make_it_wait(folder: Path) -> None:
    os.mkfifo(folder / "train/a/x.png")
    with pytest.raises(TaskError, match=r"x\.png is neither a file nor a folder: remove it\."):
        Task.open(folder)
    with pytest.raises(TaskError, match=r"x\.png cannot be decoded \(not an ordinary file\)"):
        FileImages([folder / "train/a/x.png"]).read(0)
    (folder / "pipe").mkdir()
    (folder / "train/a/x.png").rename(folder / "pipe/x")
    (folder / "train/a/x.png").symlink_to("../../pipe/x")
    with pytest.raises(TaskError, match=r"x\.png is neither a file nor a folder: remove it\."):
        Task.open(folder)
    with pytest.raises(TaskError, match=r"x\.png cannot be decoded \(not an ordinary file\)"):
        FileImages([folder / "train/a/x.png"]).identity(0)
    os.mkfifo(folder.parent / "02.npz")
    with pytest.raises(TaskError, match=r"02\.npz is no ordinary file: put the npz file itself there\."):
        Task.open(folder.parent / "02.npz")


# Images


def png(
    width: int, height: int, kind: int = 2, depth: int = 8, data: bytes = b"", extra: bytes = b""
) -> bytes:
    def chunk(name: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        )

    begin = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + begin + extra + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def run_length_bmp(width: int, height: int) -> bytes:
    """200 bytes that say they are many pixels; every end of a line is filled up with zeros."""
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, 0, 0, 0, 0, 0)
    palette, data = bytes(1024), b"\0\0" * 40
    begin = 14 + len(info) + len(palette)
    return b"BM" + struct.pack("<IHHI", begin + len(data), 0, 0, begin) + info + palette + data


def tiff(compression: str | None = None, mode: str = "RGB") -> bytes:
    out = io.BytesIO()
    Image.new(mode, (8, 8)).save(out, "TIFF", compression=compression)
    return out.getvalue()


def text_bomb() -> bytes:
    content = b"comment\0\0" + zlib.compress(bytes(200 << 20), 9)
    chunk = struct.pack(">I", len(content)) + b"zTXt" + content
    return chunk + struct.pack(">I", zlib.crc32(b"zTXt" + content))


PICTURES: dict[str, tuple[Callable[[], bytes], str]] = {
    "a billion pixels": (lambda: png(40_000, 40_000), r"40000x40000 pixels|exceeds limit"),
    "just above the limit": (
        lambda: png(MAX_PIXELS // 8192 + 1, 8192),
        "8193x8192 pixels, more than 67108864",
    ),
    "2^31 pixels wide": (lambda: png((1 << 31) - 1, (1 << 31) - 1), "pixels|exceeds|cannot be decoded"),
    "no pixels": (lambda: png(0, 0), "cannot be decoded"),
    "fewer data than pixels": (lambda: png(100, 100, data=b"x" * 50), "cannot be decoded"),
    "a text of 200 MB in it": (lambda: png(5, 5, data=bytes(80), extra=text_bomb()), "cannot be decoded"),
    "a BMP that takes minutes": (
        lambda: run_length_bmp(12_000_000, 5),
        "a run-length encoded BMP; store it as PNG",
    ),
    "PostScript, which runs programs": (
        lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n",
        "not a PNG, JPEG, BMP, WebP, GIF or TIFF image",
    ),
    "an SVG with a link": (
        lambda: b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
        "not a PNG, JPEG, BMP, WebP, GIF or TIFF image",
    ),
    "a TIFF of zeros called PNG": (
        lambda: b"II*\0" + bytes(100),
        "not a PNG, JPEG, BMP, WebP, GIF or TIFF image|cannot",
    ),
    "a compressed TIFF": (lambda: tiff("tiff_lzw"), "a compressed TIFF; store it as PNG"),
    "a TIFF of floats": (lambda: tiff(mode="F"), "pixels that are not integers; store it as PNG"),
    "a GIF of a billion pixels": (
        lambda: b"GIF89a" + struct.pack("<HH", 65535, 65535) + bytes(3),
        "65535x65535|cannot",
    ),
}


@pytest.mark.parametrize("case", PICTURES)
@pytest.mark.filterwarnings("default")
def test_a_hostile_picture_is_refused(tmp_path: Path, case: str) -> None:
    make, text = PICTURES[case]
    path = tmp_path / "x.png"
    path.write_bytes(make())
    begun = time.monotonic()
    with pytest.raises(TaskError) as caught:
        FileImages([path]).read(0)
    assert any(part in str(caught.value) for part in text.split("|")), str(caught.value)
    assert str(caught.value).endswith("remove or replace it, then run the command again.")
    assert time.monotonic() - begun < 20
