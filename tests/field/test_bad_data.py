"""Data as people have it: turned, gray, transparent, deep, duplicated, unbalanced, named in any script."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cli.conftest import csk_sdk
from conftest import Digits, open_learner
from csk_sdk import Learner, Task, TaskError
from csk_sdk.data.files import SUFFIXES
from csk_sdk.data.images import FileImages
from csk_sdk.data.pixel_cache import PixelCache
from csk_sdk.data.preprocess import PicturePreprocessing

RNG = np.random.default_rng(0)
COLOR = RNG.integers(0, 256, (6, 4, 3), np.uint8)


def read(path: Path) -> np.ndarray:
    return FileImages([path]).read(0)


# Images


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_photo_is_seen_upright(tmp_path: Path, orientation: int) -> None:
    # What a viewer has to do to show it upright, by the EXIF specification (tag 274).
    stored = {
        1: lambda up: up,
        2: lambda up: up[:, ::-1],
        3: lambda up: up[::-1, ::-1],
        4: lambda up: up[::-1],
        5: lambda up: up.transpose(1, 0, 2),
        6: lambda up: np.rot90(up, 1),
        7: lambda up: np.rot90(up, 2).transpose(1, 0, 2),
        8: lambda up: np.rot90(up, -1),
    }[orientation](COLOR)
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / "x.png", exif=exif)
    np.testing.assert_array_equal(read(tmp_path / "x.png"), COLOR)


def test_every_way_to_store_a_picture_gives_the_same_eight_bits(tmp_path: Path) -> None:
    gray = COLOR[:, :, 0]
    alpha = RNG.integers(0, 256, (6, 4), np.uint8)
    deep = gray.astype(np.uint16) << 8 | RNG.integers(0, 256, gray.shape).astype(np.uint16)
    stored = {
        "gray": (Image.fromarray(gray), gray[:, :, None]),
        "gray and alpha": (Image.fromarray(np.dstack([gray, alpha]), "LA"), gray[:, :, None]),
        "16-bit gray": (Image.fromarray(deep), gray[:, :, None]),
        "color": (Image.fromarray(COLOR), COLOR),
        "color and alpha": (Image.fromarray(np.dstack([COLOR, alpha]), "RGBA"), COLOR),
        "black and white": (Image.fromarray(gray > 127), np.where(gray > 127, 255, 0)[:, :, None]),
    }
    for name, (image, expected) in stored.items():
        image.save(tmp_path / "x.png")
        np.testing.assert_array_equal(read(tmp_path / "x.png"), expected, err_msg=name)


def test_sixteen_bits_of_color(tmp_path: Path) -> None:
    # Pillow cannot write such a file; other programs do. Big-endian samples, no filter.
    from field.test_hostile_tasks import png

    deep = COLOR.astype(np.uint16) << 8 | 0x7F
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in deep)
    (tmp_path / "x.png").write_bytes(png(4, 6, kind=2, depth=16, data=rows))
    np.testing.assert_array_equal(read(tmp_path / "x.png"), COLOR)


def test_channels_that_no_picture_has_are_refused(learner: Learner) -> None:
    images = np.zeros((4, 8, 8, 5), np.uint8)
    task = Task.from_arrays("x", images, [0, 1, 0, 1], ["a", "b"])
    with pytest.raises(
        TaskError, match=r"images\[0\] has 5 channels and the model takes 1: hand over images"
    ):
        learner.learn(task)


def test_gray_and_color_may_be_mixed(learner: Learner, tmp_path: Path, digits: Digits) -> None:
    for label, digit in (("a", 4), ("b", 5)):
        folder = tmp_path / "01/train" / label
        folder.mkdir(parents=True)
        for index, picture in enumerate(digits.of(digit, 0, 12)):
            image = Image.fromarray(picture)
            image.convert(["L", "RGB", "RGBA", "LA"][index % 4]).save(folder / f"{index}.png")
    learner.learn(Task.open(tmp_path / "01"))
    for digit, name in ((4, "a"), (5, "b")):
        labels = learner.predict(digits.of(digit, 100, 130)[..., None], "01").labels
        assert np.mean(labels == name) > 0.9


# Tasks


def test_duplicates_count_as_often_as_they_are_there(
    tmp_path: Path, digits_bundle: Path, digits: Digits
) -> None:
    images, labels = digits.arrays((4, 5), 0, 16)
    twice = Task.from_arrays("x", np.repeat(images, 2, 0), np.repeat(labels, 2), ["a", "b"])
    once = Task.from_arrays("x", images, labels, ["a", "b"])
    learned = {}
    for name, task in (("once", once), ("twice", twice)):
        learner = open_learner(digits_bundle, tmp_path / name, learning_rate=0.0, flip=False)
        learner.learn(task)
        learned[name] = learner.generation.tensors
    np.testing.assert_array_equal(learned["twice"]["statistics.counts"][-2:], [32, 32])
    # Means are what they were, and so an image that is there twice changes no decision.
    for name, times in (("statistics.means", 1), ("statistics.counts", 2)):
        new = slice(-2, None)
        np.testing.assert_allclose(learned["twice"][name][new], times * learned["once"][name][new], rtol=1e-6)


def test_one_picture_in_two_classes_is_learned_as_well_as_can_be(learner: Learner, digits: Digits) -> None:
    images, labels = digits.arrays((4, 5), 0, 20)
    task = Task.from_arrays("x", np.append(images, images[:1], 0), np.append(labels, 1), ["a", "b"])
    assert np.isfinite(learner.learn(task).loss)
    assert np.mean(learner.predict(digits.of(4, 100, 140)[..., None], "x").labels == "a") > 0.9


def test_one_picture_a_class(learner: Learner, digits: Digits) -> None:
    images, labels = digits.arrays((4, 5, 6), 0, 1)
    learner.learn(Task.from_arrays("x", images, labels, ["a", "b", "c"]))
    pictures, truth = digits.arrays((4, 5, 6), 100, 140)
    found = learner.predict(pictures[..., None], "x").labels
    assert np.mean(found == np.array(["a", "b", "c"])[truth]) > 0.6, "by chance it would be a third"


@pytest.mark.slow
def test_a_thousand_to_one(learner: Learner, digits: Digits) -> None:
    many = np.resize(digits.of(4, 0, 100), (1000, 8, 8))
    images = np.concatenate([many, digits.of(5, 0, 1)])
    learner.learn(Task.from_arrays("x", images, [0] * 1000 + [1], ["many", "rare"]))
    one = digits.of(5, 0, 1)[..., None]
    assert learner.predict(one, "x").labels.tolist() == ["rare"], "the only image is not drowned"
    assert learner.predict(one).labels.tolist() == ["rare"], "nor is it among all classes"
    assert np.mean(learner.predict(digits.of(4, 100, 140)[..., None], "x").labels == "many") > 0.95


NAMES = [
    "日本語",
    "العربية",
    "עברית",
    "हिन्दी",
    "ไทย",
    "Ελληνικά",
    "русский",
    "🦜",
    "a b",
    "naïve",
    "x" * 85,
    "--help",
]


def test_class_names_in_any_script(tmp_path: Path, digits_bundle: Path, digits: Digits) -> None:
    (tmp_path / "bundle").symlink_to(digits_bundle)
    (tmp_path / "csk.toml").write_text(
        "[training]\nthreads = 1\nepochs = 1\nfew_shot = 0\ntrain = 'centers'\n"
    )
    for split, begin in (("train", 0), ("test", 100)):
        for index, name in enumerate(NAMES):
            folder = tmp_path / "tasks/鳥" / split / name
            folder.mkdir(parents=True)
            for number, picture in enumerate(digits.of(index % 10, begin + 4 * index, begin + 4 * index + 4)):
                Image.fromarray(picture).save(folder / f"写真 {number}.png")
    done = csk_sdk("train", "--workspace", tmp_path, "--json")
    assert done.status == 0, done.err
    assert sorted(done.json["classes"]) == sorted(NAMES)
    picture = tmp_path / "tasks/鳥/train/日本語/写真 0.png"
    done = csk_sdk("predict", picture, "--workspace", tmp_path, "--top", "20", "--json")
    assert {choice["class"] for choice in done.json[0]["top"]} >= set(NAMES)
    done = csk_sdk("export", "--out", tmp_path / "out.onnx", "--workspace", tmp_path)
    assert done.status == 0
    import onnx

    metadata = {entry.key: entry.value for entry in onnx.load(tmp_path / "out.onnx").metadata_props}
    assert set(json.loads(metadata["classes"])) >= set(NAMES)


@pytest.mark.slow
def test_ten_thousand_class_folders(tmp_path: Path, digits_bundle: Path, digits: Digits) -> None:
    """Opened in seconds, and learned: nothing in it grows with the square of the number of classes."""
    picture = tmp_path / "image.png"
    Image.fromarray(digits.images[0]).save(picture)
    for number in range(10_000):
        folder = tmp_path / f"01/train/{number:05d}"
        folder.mkdir(parents=True)
        (folder / "0.png").hardlink_to(picture)
    task = Task.open(tmp_path / "01")
    assert task.train is not None
    assert (len(task.classes), len(task.train)) == (10_000, 10_000)
    assert task.train.labels.tolist() == list(range(10_000))
    assert len(task.fingerprint()) == 64
    open_learner(digits_bundle, tmp_path / "state").require_new("01", task.classes)


# Other formats, and what is not read


def test_formats_that_are_read(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8)
    gray = pixels[:, :, 0]
    Image.fromarray(pixels).save(tmp_path / "x.tif")
    np.testing.assert_array_equal(FileImages([tmp_path / "x.tif"]).read(0), pixels)
    deep = Image.fromarray(gray.astype(np.uint16) * 257)
    deep.save(tmp_path / "deep.tiff")
    np.testing.assert_array_equal(FileImages([tmp_path / "deep.tiff"]).read(0)[:, :, 0], gray)
    # The first of two frames.
    frames = [Image.fromarray(one) for one in (gray, 255 - gray)]
    frames[0].save(tmp_path / "x.gif", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(FileImages([tmp_path / "x.gif"]).read(0)[:, :, 0], gray)
    Image.fromarray(gray).save(tmp_path / "x.jfif", "JPEG", quality=100)
    assert np.abs(FileImages([tmp_path / "x.jfif"]).read(0)[:, :, 0].astype(int) - gray).max() < 12


def test_avif_is_read_where_pillow_can(tmp_path: Path) -> None:
    if ".avif" not in SUFFIXES:
        pytest.skip("this Pillow reads no AVIF")
    Image.new("RGB", (16, 16), (200, 10, 10)).save(tmp_path / "x.avif")
    assert np.abs(FileImages([tmp_path / "x.avif"]).read(0).astype(int) - [200, 10, 10]).max() < 12


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """5 images that are read in each class, and 75 files that are not."""
    folder = tmp_path / "tasks/01"
    for name in ("four", "five"):
        (folder / "train" / name).mkdir(parents=True)
        for index in range(5):
            Image.fromarray(np.full((8, 8), 50 * index, np.uint8)).save(folder / f"train/{name}/{index}.png")
    for index in range(75):
        (folder / f"train/four/{index:02}.{('cr2', 'psd', 'mov')[index % 3]}").write_bytes(b"x")
    for hidden in ("train/four/.DS_Store", "train/four/Thumbs.db", "train/.hidden", "notes.txt"):
        (folder / hidden).write_bytes(b"x")
    return folder


NOT_READ = (
    "75 files in {folder}/train were not read: 25 .cr2, 25 .mov, 25 .psd, such as four/00.cr2. Read are png, jpg, bmp, "
    "webp, gif, tif; wav, npy."
)


def test_what_is_not_read_is_counted_and_named(mixed: Path) -> None:
    task = Task.open(mixed)
    assert len(task.train or ()) == 10
    assert task.unread == (NOT_READ.format(folder=mixed),)
    (mixed / "train/IMG.HEIC").write_bytes(b"x")
    (mixed / "train/five/2024/may").mkdir(parents=True)
    Image.new("L", (8, 8)).save(mixed / "train/five/2024/may/x.png")
    first, second = Task.open(mixed).unread
    assert first.startswith(
        f"76 files in {mixed}/train were not read: 25 .cr2, 1 .heic, 25 .mov, 25 .psd, such as"
    )
    assert second == (
        f"Folders inside a class are not read: five/2024 in {mixed}/train. Move their files up into the class."
    )


def test_a_class_of_other_formats_only_says_so(mixed: Path) -> None:
    for path in (mixed / "train/four").glob("*.png"):
        path.unlink()
    with pytest.raises(
        TaskError, match=r"75 files in .*/train/four were not read: 25 \.cr2, 25 \.mov, 25 \.psd"
    ):
        Task.open(mixed)


@pytest.mark.slow
def test_every_command_tells_what_was_not_read(mixed: Path, digits_bundle: Path) -> None:
    workspace = mixed.parents[1]
    (workspace / "bundle").symlink_to(digits_bundle)
    text = NOT_READ.format(folder=mixed)
    at = ("--workspace", workspace)
    assert text in " ".join(csk_sdk("tasks", *at).out.split())
    (status,) = csk_sdk("tasks", "--json", *at).json
    assert status["notes"] == [text]
    learning = ("--epochs", "1", "--no-label-check", "--threads", "1", "--state")
    done = csk_sdk("train", *at, *learning, workspace / "one")
    assert f"Warning: {text}" in " ".join(done.err.split())
    done = csk_sdk("train", "--json", *at, *learning, workspace / "two")
    assert text in done.json["warnings"]
    # File names are none of what a state holds.
    assert b"cr2" not in b"".join(
        path.read_bytes() for path in (workspace / "two").rglob("*") if path.is_file()
    )
    (workspace / "csk.toml").write_text("[training]\nlabel_check = false\nthreads = 1\n")
    watching = ("watch", "--once", "--settle", "0", "--nice", "0", *at)
    done = csk_sdk(*watching, "--state", workspace / "three")
    assert text in " ".join(done.err.split())
    done = csk_sdk(*watching, "--json", "--state", workspace / "four")
    assert text in done.lines[0]["report"]["warnings"]


# Broken images


@pytest.fixture
def broken(mixed: Path, digits_bundle: Path) -> Path:
    """A workspace whose task has 3 broken images among 10, each in another way."""
    for path in (mixed / "train/four").iterdir():
        if path.suffix != ".png":
            path.unlink()
    whole = (mixed / "train/four/0.png").read_bytes()
    (mixed / "train/four/0.png").write_bytes(whole[:40])
    (mixed / "train/four/1.png").write_bytes(b"hello")
    (mixed / "train/five/4.png").write_bytes(b"")
    workspace = mixed.parents[1]
    (workspace / "bundle").symlink_to(digits_bundle)
    (workspace / "csk.toml").write_text("[training]\nlabel_check = false\nthreads = 1\nepochs = 1\n")
    return workspace


BROKEN = ("five/4.png", "four/0.png", "four/1.png")


def test_all_broken_pictures_are_listed_in_one_run(broken: Path) -> None:
    done = csk_sdk("train", "--workspace", broken)
    assert done.status == 1
    assert done.err.startswith("Error: 3 of 10 images cannot be learned: ")
    assert done.err.endswith(
        ". Remove or replace them and run the command again, or learn the others with --skip-broken.\n"
    )
    for name in BROKEN:
        assert name in done.err


def test_many_broken_pictures_are_counted(broken: Path) -> None:
    folder = broken / "tasks/01/train/four"
    for index in range(30):
        (folder / f"bad-{index}.png").write_bytes(b"x")
    done = csk_sdk("train", "--workspace", broken)
    assert "Error: 33 of 40 images cannot be learned: " in done.err
    # One reason once, however many have it.
    assert done.err.count("cannot be decoded") == 1
    assert re.search(
        r"cannot be decoded \(not a PNG, .* image\) \(32 more like it: .*/bad-\d+\.png, \.\.\.\)", done.err
    )
    assert len(done.err) < 1000


def test_a_hot_pixel_among_twelve_bits_is_one_short_sentence(tmp_path: Path, digits_bundle: Path) -> None:
    """The one that is bright is not broken, so the others are some of the task, not all."""
    values = np.full((8, 8), 3000, np.uint16)
    for index in range(20):
        values[0, 0] = 3500 + index if index else 65535
        path = tmp_path / "tasks/01/train" / ("four" if index % 2 else "five") / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(values).save(path)
    options = ("--workspace", tmp_path, "--bundle", digits_bundle)
    told = " ".join(csk_sdk("train", *options).err.split())
    assert told.startswith("Error: 19 of 20 images cannot be learned: ")
    assert told.count("bit_depth=") == told.count("has 16 bits a value") == 1
    assert "(18 more like it: " in told
    assert told.endswith(
        "Data of 10, 12 or 14 bits? Set bit_depth to the camera's own under [data] in csk.toml (bit_depth= in Python, "
        "--bit-depth where a bundle is built), or to 16 where they are meant to be this dark. Or remove or replace "
        "them and run the command again, or learn the others with --skip-broken."
    )
    assert len(told) < 1200
    (tmp_path / "csk.toml").write_text("[data]\nbit_depth = 12\n")
    told = " ".join(csk_sdk("train", *options).err.split())
    assert "0.png has a value of 65535, and with bit_depth = 12 white is 4095: set bit_depth" in told


def test_reasons_that_differ_are_each_told_once(tmp_path: Path, learner: Learner, digits: Digits) -> None:
    """Sizes that a bundle without resizing refuses differ in numbers alone."""
    task = tmp_path / "01" / "train"
    for name, digit in (("four", 4), ("five", 5)):
        (task / name).mkdir(parents=True)
        for index, image in enumerate(digits.of(digit, 0, 6)):
            Image.fromarray(image).save(task / name / f"{index}.png")
    for index in range(3):
        Image.fromarray(np.zeros((5 + index, 9), np.uint8)).save(task / "four" / f"size-{index}.png")
        (task / "five" / f"text-{index}.png").write_text("no image")
    spec = replace(learner.bundle.manifest.preprocessing, resize="none")
    preprocessing = PicturePreprocessing(spec, learner.bundle.manifest.input)
    split = Task.from_folder(tmp_path / "01").train
    assert split is not None
    with pytest.raises(TaskError) as caught:
        PixelCache(split, preprocessing).verify()
    told = str(caught.value)
    assert told.startswith("6 of 18 images cannot be learned: ")
    assert told.count("resize it, or build the bundle with --resize bilinear") == 1
    assert told.count("cannot be decoded") == 1
    assert told.count("2 more like it") == 2
    assert all(f"{kind}-{index}.png" in told for kind in ("size", "text") for index in range(3))
    assert told.endswith(
        ". Remove or replace them and run the command again, or learn the others with --skip-broken."
    )


@pytest.mark.slow
def test_what_is_broken_can_be_left_out(broken: Path) -> None:
    done = csk_sdk("train", "--workspace", broken, "--skip-broken", "--json")
    assert done.status == 0, done.err
    report = done.json
    assert (report["images"], len(report["skipped"])) == (7, 3)
    assert [any(name in said for said in report["skipped"]) for name in BROKEN] == [True] * 3
    assert "3 of 10 images could not be read and were left out." in report["warnings"]
    (task,) = Learner.open(broken / "bundle", broken / "state").tasks
    assert task.images == 7
    assert task.notes[0] == "3 of 10 images could not be read and were left out."
    # It is what learning the seven alone gives, and names no file.
    expected = {path.name: path.read_bytes() for path in (broken / "state/generations").glob("*.safetensors")}
    assert b".png" not in b"".join(
        path.read_bytes() for path in (broken / "state").rglob("*") if path.is_file()
    )
    for name in BROKEN:
        (broken / "tasks/01/train" / name).unlink()
    assert csk_sdk("train", "--workspace", broken, "--state", broken / "other").status == 0
    found = {path.name: path.read_bytes() for path in (broken / "other/generations").glob("*.safetensors")}
    assert found == expected


def test_watch_leaves_out_what_is_broken_where_it_is_told_to(broken: Path) -> None:
    watching = ("watch", "--once", "--settle", "0", "--nice", "0", "--workspace", broken)
    assert "01 is set aside. 3 of 10 images cannot be learned" in " ".join(csk_sdk(*watching).err.split())
    done = csk_sdk(*watching, "--skip-broken")
    assert "3 of 10 images could not be read and were left out." in done.err
    assert "five/4.png cannot be decoded (" in done.out.replace("\n", "")
    settings = broken / "csk.toml"
    settings.write_text(settings.read_text() + "skip_broken = true\n")
    done = csk_sdk(*watching, "--state", broken / "other", "--json")
    assert len(done.lines[0]["report"]["skipped"]) == 3


def test_a_class_of_broken_pictures_only_is_refused(broken: Path) -> None:
    for path in (broken / "tasks/01/train/four").iterdir():
        path.write_bytes(b"x")
    done = csk_sdk("train", "--workspace", broken, "--skip-broken")
    assert done.status == 1
    assert "four" in done.err
    assert "What cannot be read was left out: " in done.err
    for path in (broken / "tasks/01/train/five").iterdir():
        path.write_bytes(b"x")
    done = csk_sdk("train", "--workspace", broken, "--skip-broken")
    assert "Error: None of the 10 images can be learned. The first: " in done.err
