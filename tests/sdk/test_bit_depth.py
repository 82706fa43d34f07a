"""Images of more than 8 bits: what counts, in files and arrays, and what is refused."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cli.conftest import csk_sdk
from conftest import Digits
from csk_sdk import ConfigError, Learner, Task, TaskError
from csk_sdk.bundle.folder import Bundle
from csk_sdk.data.images import FileImages
from csk_sdk.data.pixel_cache import PixelCache
from csk_sdk.workspace.folder import Workspace
from field.test_hostile_tasks import png

RNG = np.random.default_rng(0)
KINDS = {"gray": (0, 1), "color": (2, 3), "gray and alpha": (4, 2), "color and alpha": (6, 4)}


def write(path: Path, values: np.ndarray, kind: int = 0) -> Path:
    """A PNG file of 16 bits, every row filtered by the one above it where there is one."""
    height, width = values.shape[:2]
    rows = values.reshape(height, -1).astype(">u2").view(np.uint8).reshape(height, -1)
    up = np.diff(rows.astype(np.int16), axis=0).astype(np.uint8)
    filtered = b"\0" + rows[0].tobytes() + b"".join(b"\2" + row.tobytes() for row in up)
    path.write_bytes(png(width, height, kind=kind, depth=16, data=filtered))
    return path


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("kind", KINDS)
def test_the_upper_eight_of_the_bits_that_count(kind: str, bits: int, tmp_path: Path) -> None:
    number, channels = KINDS[kind]
    values = RNG.integers(0, 1 << bits, (6, 4, channels)).astype(np.uint16)
    path = write(tmp_path / "x.png", values, number)
    colors = 3 if channels > 2 else 1
    expected = np.floor(values[:, :, :colors] * (256 / (1 << bits)))
    np.testing.assert_array_equal(FileImages([path], bit_depth=bits).read(0), expected)
    if bits == 16:
        np.testing.assert_array_equal(FileImages([path]).read(0), expected)


@pytest.mark.parametrize("kind", ["gray", "color"])
def test_upright_as_any_other(kind: str, tmp_path: Path) -> None:
    number, channels = KINDS[kind]
    values = RNG.integers(0, 1 << 12, (6, 4, channels)).astype(np.uint16)
    path = write(tmp_path / "x.png", values, number)
    exif = Image.Exif()
    exif[0x0112] = 6
    content = exif.tobytes().removeprefix(b"Exif\0\0")
    chunk = len(content).to_bytes(4, "big") + b"eXIf" + content
    chunk += zlib.crc32(chunk[4:]).to_bytes(4, "big")
    whole = path.read_bytes()
    path.write_bytes(whole[:33] + chunk + whole[33:])  # behind the header
    read = FileImages([path], bit_depth=12).read(0)
    np.testing.assert_array_equal(read, np.rot90(values >> 4, -1))


@pytest.mark.parametrize("kind", KINDS)
def test_twelve_bits_that_nobody_told_of_are_refused_and_not_learned_as_black(
    kind: str, tmp_path: Path
) -> None:
    number, channels = KINDS[kind]
    path = write(tmp_path / "x.png", np.full((2, 2, channels), 4095), number)
    with pytest.raises(TaskError, match=r"x\.png has 16 bits a value.*above 4095.*Set bit_depth .*csk\.toml"):
        FileImages([path]).read(0)
    assert FileImages([path], bit_depth=16).read(0).max() == 15
    write(path, np.full((2, 2, channels), 4096), number)
    assert FileImages([path]).read(0).max() == 16


def test_values_beyond_the_bit_depth_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "x.png", np.array([[4095, 4096]]))
    with pytest.raises(TaskError, match=r"a value of 4096, and with bit_depth = 12 white is 4095"):
        FileImages([path], bit_depth=12).read(0)


def test_eight_bits_are_eight_whatever_the_bit_depth(tmp_path: Path) -> None:
    gray = RNG.integers(0, 256, (5, 4), np.uint8)
    Image.fromarray(gray).save(tmp_path / "x.png")
    np.testing.assert_array_equal(FileImages([tmp_path / "x.png"], bit_depth=12).read(0)[:, :, 0], gray)


@pytest.mark.parametrize("bits", [7, 17, 12.0, True, "12"])
def test_no_bit_depth(bits: object, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a whole number from 8 to 16"):
        FileImages([tmp_path / "x.png"], bit_depth=bits)  # type: ignore[arg-type]
    if not isinstance(bits, str):
        (tmp_path / "csk.toml").write_text(f"[data]\nbit_depth = {str(bits).lower()}\n")
        with pytest.raises(ConfigError, match=r"csk\.toml sets bit_depth to"):
            Workspace.open(tmp_path)


def deep_task(folder: Path, digits: Digits, bits: int, count: int = 12) -> Path:
    for digit, name in ((4, "four"), (5, "five")):
        (folder / "train" / name).mkdir(parents=True)
        for i, picture in enumerate(digits.of(digit, 0, count)):
            write(folder / "train" / name / f"{i}.png", picture.astype(np.uint16) << (bits - 8))
    return folder


def test_fourteen_bits_are_noticed_before_anything_is_learned(
    learner: Learner, tmp_path: Path, digits: Digits
) -> None:
    folder = deep_task(tmp_path / "01", digits, 14)
    task = Task.from_folder(folder)
    assert task.train is not None
    task.train.images.read(0)  # one alone may be dark
    with pytest.raises(TaskError, match="All images of 16 bits a value are dark"):
        learner.learn(task)
    assert learner.tasks == ()
    told = Task.open(folder, bit_depth=14)
    assert told.train is not None
    PixelCache(told.train, learner.bundle.preprocessing).verify()
    assert told.fingerprint() != task.fingerprint()


def test_fourteen_bits_are_asked_about_where_sixteen_were_learned(
    digits_bundle: Path, tmp_path: Path, digits: Digits
) -> None:
    """No setting was needed to learn; what is tested or predicted then would be black, without a word."""
    deep_task(tmp_path / "tasks" / "01", digits, 16)
    options = ("--workspace", str(tmp_path), "--bundle", str(digits_bundle))
    assert csk_sdk("train", "--task", "next", *options).status == 0
    dark = deep_task(tmp_path / "dark", digits, 14) / "train"
    question = "data of 10, 12 or 14 bits? Set bit_depth to the camera's own under [data] in csk.toml"

    for extra in ((), ("--json",)):
        predicted = csk_sdk("predict", str(dark / "four"), *extra, *options)
        assert predicted.status == 0
        assert question in " ".join(predicted.err.split())
    one = csk_sdk("predict", str(dark / "four" / "0.png"), *options)
    assert question in " ".join(one.err.split())
    bright = tmp_path / "tasks" / "01" / "train" / "four" / "0.png"
    assert csk_sdk("predict", str(bright), str(dark / "four" / "0.png"), *options).err == ""

    dark.rename(tmp_path / "tasks" / "01" / "test")
    tested = csk_sdk("evaluate", *options)
    assert tested.status == 1
    assert question in " ".join(tested.err.split())
    (tmp_path / "csk.toml").write_text("[data]\nbit_depth = 16\n")
    assert csk_sdk("evaluate", *options).status == 0
    assert csk_sdk("predict", str(tmp_path / "tasks" / "01" / "test" / "four"), *options).err == ""


def test_intensity_is_not_measured_on_black(digits_bundle: Path, tmp_path: Path, digits: Digits) -> None:
    folder = deep_task(tmp_path / "01", digits, 14)
    split = Task.from_folder(folder).train
    assert split is not None
    pixels = PixelCache(split, Bundle.open(digits_bundle).preprocessing)
    with pytest.raises(TaskError, match="All images of 16 bits a value are dark"):
        list(pixels.batches(4, np.arange(6)))


def test_a_workspace_learns_and_predicts_twelve_bits_as_it_does_eight(
    digits_bundle: Path, tmp_path: Path, digits: Digits
) -> None:
    deep_task(tmp_path / "deep" / "tasks" / "01", digits, 12)
    deep_task(tmp_path / "plain" / "tasks" / "01", digits, 16)
    (tmp_path / "deep" / "csk.toml").write_text("[data]\nbit_depth = 12\n")
    answers = []
    for name in ("deep", "plain"):
        options = ("--workspace", str(tmp_path / name), "--bundle", str(digits_bundle))
        assert csk_sdk("train", "--task", "next", *options).status == 0
        one = tmp_path / name / "tasks" / "01" / "train" / "four" / "0.png"
        answers.append(csk_sdk("predict", str(one), "--json", *options).out.replace(name, ""))
    assert answers[0] == answers[1]
    assert '"four"' in answers[0]
    refused = csk_sdk("predict", str(tmp_path / "deep/tasks/01/train/four/0.png"), *options)
    assert refused.status == 1
    assert "data of 10, 12 or 14 bits?" in " ".join(refused.err.split())


def test_arrays_of_twelve_bits(tmp_path: Path, digits: Digits, learner: Learner) -> None:
    images, labels = digits.arrays((4, 5), 0, 8)
    deep = images.astype(np.uint16) << 4
    names = ["four", "five"]
    np.savez(
        tmp_path / "01.npz",
        images=deep,
        labels=labels,
        class_names=names,
        test_images=deep,
        test_labels=labels,
    )
    for task in (
        Task.open(tmp_path / "01.npz", bit_depth=12),
        Task.from_arrays("01", deep, labels, names, deep, labels, bit_depth=12),
    ):
        for split in (task.train, task.test):
            assert split is not None
            np.testing.assert_array_equal(split.images.read(3)[:, :, 0], images[3])
    for refused in (
        lambda: Task.open(tmp_path / "01.npz"),
        lambda: Task.from_arrays("01", deep, labels, names),
    ):
        with pytest.raises(TaskError, match=r"images is uint16, .* set bit_depth"):
            refused()
    with pytest.raises(TaskError, match=r"images has a value of .*, and with bit_depth = 8 white is 255"):
        Task.from_arrays("01", deep, labels, names, bit_depth=8)
    for images_ in (deep[:, :, :, None], list(deep)):
        with pytest.raises(TaskError, match=r"uint16 and must be uint8: hand over the upper 8 of the bits"):
            learner.predict(images_)
