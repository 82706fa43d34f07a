"""Tasks from real image files, npz files and arrays; what is wrong with them; the inbox."""

import re
import shutil
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from csk_sdk.contract.manifest import InputSpec, PreprocessingSpec
from csk_sdk.data.images import ArrayImages, FileImages
from csk_sdk.data.inbox import Inbox
from csk_sdk.data.pixel_cache import PixelCache
from csk_sdk.data.preprocess import PicturePreprocessing
from csk_sdk.data.tasks import Split, Task
from csk_sdk.errors import TaskError


def pixels(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def write(path, image=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = pixels(5, 4, 3, seed=len(str(path))) if image is None else image
    Image.fromarray(image).save(path)
    return path


@pytest.fixture
def folder(tmp_path):
    """Two classes, four training images in four formats, two test images."""
    task = tmp_path / "01-pets"
    for name in ("train/dog/b.JPG", "train/dog/a.png", "train/cat/2.bmp", "train/cat/1.webp"):
        write(task / name)
    for name in ("test/dog/x.png", "test/cat/y.png"):
        write(task / name)
    return task


@pytest.fixture
def arrays():
    return {
        "images": pixels(6, 5, 4, 3),
        "labels": np.array([0, 1, 2, 0, 1, 2]),
        "class_names": np.array(["cat", "ant", "bee"]),
    }


def save_npz(path, arrays):
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **arrays)
    return path


def read_all(split):
    return [split.images.read(i) for i in range(len(split))]


class TestFolder:
    def test_classes_and_pictures_come_in_name_order(self, folder):
        write(folder / "train/.cache/1.png")
        write(folder / "train/dog/.hidden.png")
        (folder / "train/dog/Thumbs.db").write_bytes(b"x")
        (folder / "train/readme.txt").write_text("pets")
        task = Task.from_folder(folder)
        assert (task.name, task.classes) == ("01-pets", ("cat", "dog"))
        names = [task.train.images.name(i) for i in range(len(task.train))]
        expected = ["cat/1.webp", "cat/2.bmp", "dog/a.png", "dog/b.JPG"]
        assert names == [str(folder / "train" / name) for name in expected]
        assert task.train.labels.dtype == np.int64
        assert task.train.labels.tolist() == [0, 0, 1, 1]
        assert task.test.labels.tolist() == [0, 1]

    def test_test_labels_index_the_training_classes(self, folder):
        shutil.rmtree(folder / "test/cat")
        assert Task.from_folder(folder).test.labels.tolist() == [1]

    def test_without_train_it_is_for_evaluation_only(self, folder):
        shutil.rmtree(folder / "train")
        task = Task.from_folder(folder)
        assert task.train is None
        assert task.classes == ("cat", "dog")
        with pytest.raises(TaskError, match="Task '01-pets' has no training images, only test images"):
            task.require_trainable()

    def test_one_class_is_enough_to_be_evaluated(self, folder):
        shutil.rmtree(folder / "train")
        shutil.rmtree(folder / "test/dog")
        assert Task.from_folder(folder).classes == ("cat",)

    def test_the_name_does_not_depend_on_how_the_path_is_written(self, folder, monkeypatch):
        monkeypatch.chdir(folder)
        assert Task.from_folder(".").name == "01-pets"

    @pytest.mark.parametrize(
        ("files", "folders", "message"),
        [
            ([], [], "{task} has no train/ folder: put its images into {task}/train/<class>/."),
            (["cat/1.png"], [], "{task} has no train/ folder: put its images into {task}/train/<class>/."),
            (["train/1.png"], [], "{task}/train has no class folders: put the task's images into"),
            (
                ["train/cat/1.png"],
                ["train/dog"],
                "{task}/train/dog holds no image and no signal (png, jpg, bmp, webp, gif, tif; wav, npy): put some",
            ),
            (
                ["train/cat/1.png", "train/dog/1.png", "test/emu/1.png"],
                [],
                "{task}/test/emu is a class that {task}/train does not have: add training images of it, or",
            ),
            (["train/cat/1.png", "train/dog/1.png"], ["test"], "{task}/test has no class folders"),
        ],
    )
    def test_a_folder_that_is_no_task(self, tmp_path, files, folders, message):
        task = tmp_path / "x"
        task.mkdir()
        for name in files:
            write(task / name)
        for name in folders:
            (task / name).mkdir(parents=True)
        with pytest.raises(TaskError) as caught:
            Task.from_folder(task)
        assert message.format(task=task) in str(caught.value)


class TestFiles:
    def test_lossless_files_come_back_as_they_were(self, tmp_path):
        color, gray = pixels(5, 4, 3), pixels(5, 4)
        source = FileImages([write(tmp_path / "c.png", color), str(write(tmp_path / "g.png", gray))])
        np.testing.assert_array_equal(source.read(0), color)
        np.testing.assert_array_equal(source.read(1), gray[:, :, None])
        assert len(source) == 2

    def test_jpeg_is_what_pillow_decodes(self, tmp_path):
        path = write(tmp_path / "a.jpg", pixels(40, 30, 3))
        with Image.open(path) as image:
            np.testing.assert_array_equal(FileImages([path]).read(0), np.asarray(image.convert("RGB")))

    def test_a_camera_held_upright_gives_an_upright_picture(self, tmp_path):
        stored = pixels(5, 4, 3)
        exif = Image.Exif()
        exif[0x0112] = 6  # turn a quarter clockwise to see it upright
        Image.fromarray(stored).save(tmp_path / "a.png", exif=exif)
        np.testing.assert_array_equal(FileImages([tmp_path / "a.png"]).read(0), np.rot90(stored, -1))

    def test_alpha_palettes_and_deep_gray(self, tmp_path):
        rgba = pixels(5, 4, 4)
        paths = [write(tmp_path / "rgba.png", rgba)]
        np.testing.assert_array_equal(FileImages(paths).read(0), rgba[:, :, :3])

        palette = Image.fromarray(pixels(5, 4, 3)).quantize(8)
        palette.save(tmp_path / "p.png", transparency=bytes([0, 128] * 4))
        np.testing.assert_array_equal(
            FileImages([tmp_path / "p.png"]).read(0), np.asarray(palette.convert("RGB"))
        )

        deep = np.array([[0, 255, 256, 65535]], np.uint16)
        write(tmp_path / "deep.png", deep)
        assert FileImages([tmp_path / "deep.png"]).read(0).ravel().tolist() == [0, 0, 1, 255]

        bits = Image.fromarray(pixels(5, 4) > 127)
        bits.save(tmp_path / "bits.png")
        np.testing.assert_array_equal(
            FileImages([tmp_path / "bits.png"]).read(0)[:, :, 0], np.asarray(bits) * np.uint8(255)
        )

    @pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "webp"])
    @pytest.mark.parametrize("keep", [0.0, 0.02, 0.5, 0.9])
    def test_truncated_files(self, tmp_path, suffix, keep):
        path = write(tmp_path / f"3.{suffix}", pixels(60, 60, 3))
        content = path.read_bytes()
        path.write_bytes(content[: int(keep * len(content))])
        with pytest.raises(TaskError) as caught:
            FileImages([path]).read(0)
        message = (
            re.escape(str(path)) + r" cannot be decoded \(.+\): remove or replace it, then run the command"
        )
        assert re.match(message, str(caught.value))

    def test_damaged_png_data(self, tmp_path):
        path = write(tmp_path / "3.png", pixels(60, 60, 3))
        content = bytearray(path.read_bytes())
        content[200:4000] = bytes(3800)
        path.write_bytes(content)
        with pytest.raises(TaskError, match=r"3\.png cannot be decoded"):
            FileImages([path]).read(0)

    def test_not_a_picture_another_format_and_not_there(self, tmp_path):
        (tmp_path / "text.png").write_text("hello")
        Image.fromarray(pixels(5, 4, 3)).save(tmp_path / "ppm.png", format="PPM")
        source = FileImages([tmp_path / name for name in ("text.png", "ppm.png", "gone.png")])
        for i in range(2):
            with pytest.raises(TaskError) as caught:
                source.read(i)
            assert str(caught.value) == (
                f"{source.name(i)} cannot be decoded (not a PNG, JPEG, BMP, WebP, GIF or TIFF image): "
                "remove or replace it, then run the command again."
            )
        for read in (source.read, source.identity):
            with pytest.raises(TaskError, match=r"gone.png cannot be read \(No such file or directory\)"):
                read(2)

    @pytest.mark.parametrize("side", [8500, 10000, 14000])
    def test_decompression_bombs_are_refused_before_they_are_decoded(self, tmp_path, side):
        # Below, between and above Pillow's own two limits (it warns from 89 million pixels on, then raises).
        path = write(tmp_path / "bomb.png")
        header = bytearray(path.read_bytes())
        header[16:24] = struct.pack(">II", side, side)  # the PNG only says that it is so large
        header[29:33] = struct.pack(">I", zlib.crc32(header[12:29]))
        path.write_bytes(header)
        with pytest.raises(
            TaskError, match=r"bomb.png cannot be decoded \(.*pixels.*\): remove or replace it"
        ):
            FileImages([tmp_path / "bomb.png"]).read(0)


class TestArrays:
    def test_npz(self, tmp_path, arrays):
        test = {"test_images": pixels(2, 5, 4, 3, seed=1), "test_labels": np.array([2, 0], np.uint8)}
        task = Task.from_npz(save_npz(tmp_path / "02-zoo.npz", {**arrays, **test, "note": np.zeros(3)}))
        assert (task.name, task.classes) == ("02-zoo", ("cat", "ant", "bee"))
        np.testing.assert_array_equal(read_all(task.train), arrays["images"])
        assert task.train.labels.tolist() == [0, 1, 2, 0, 1, 2]
        assert task.test.labels.tolist() == [2, 0]
        assert task.test.labels.dtype == np.int64
        assert task.train.images.name(3) == f"{tmp_path}/02-zoo.npz: images[3]"

    def test_arrays_are_not_copied_and_gray_ones_need_no_channel_axis(self):
        gray = pixels(4, 5, 6)
        task = Task.from_arrays("g", gray, [0, 1, 1, 0], ["a", "b"])
        assert task.test is None
        assert np.shares_memory(task.train.images.read(2), gray)
        assert task.train.images.read(2).shape == (5, 6, 1)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            (
                {"images": np.array([0, np.nan, np.nan, 1]).reshape(4, 1, 1, 1)},
                "images has 2 NaN values, and images must be uint8 (0 to 255)",
            ),
            ({"images": np.zeros((6, 5, 4, 3), np.float32)}, "images is float32, and images must be uint8"),
            ({"images": np.zeros((6, 5, 4, 3), np.int64)}, "images is int64, and images must be uint8"),
            (
                {"images": np.zeros((6, 5), np.uint8)},
                "images has shape (6, 5), and images must be (n, height",
            ),
            ({"images": np.zeros((0, 5, 4, 3), np.uint8)}, "images holds no image (shape (0, 5, 4, 3))"),
            ({"images": np.zeros((6, 0, 4, 3), np.uint8)}, "there is no pixel in its images."),
            (
                {"labels": np.array([0, 1, 2, 0, 3, 7])},
                "labels[4] is 3, and with 3 class_names a label must be 0 to 2.",
            ),
            ({"labels": np.array([0, -1, 2, 0, 3, 7])}, "labels[1] is -1, and with 3 class_names"),
            ({"labels": np.array([0, 1, 2])}, "labels has 3 entries for 6 images: give one for each."),
            ({"labels": np.zeros(6)}, "labels is float64 of shape (6,), and must be one integer per image"),
            ({"labels": np.zeros((6, 1), int)}, "labels is int64 of shape (6, 1), and must be one integer"),
            (
                {"labels": np.array([0, 0, 2, 0, 2, 2])},
                "class 'ant' has no image: no label is 1. Add images of it, or remove it",
            ),
            (
                {"class_names": np.array(["a", "b", "a"])},
                "class_names names 'a' twice: give each class a name",
            ),
            ({"class_names": np.array(["a", "", "c"])}, "class_names is empty or has an empty name in it"),
            (
                {"test_images": pixels(2, 5, 4, 3)},
                "test_images is there alone: give test_images and test_labels",
            ),
            ({"test_labels": np.zeros(2, int)}, "test_labels is there alone"),
            (
                {"test_images": pixels(2, 5, 4, 3), "test_labels": np.array([0, 3])},
                "test_labels[1] is 3, and with 3 class_names",
            ),
            (
                {"test_images": np.zeros((2, 5, 4, 3)), "test_labels": np.array([0, 1])},
                "test_images is float64, and images must be uint8",
            ),
        ],
    )
    def test_arrays_that_are_no_task(self, tmp_path, arrays, changes, message):
        wrong = {**arrays, **changes}
        path = save_npz(tmp_path / "x.npz", wrong)
        for make, where in (
            (lambda: Task.from_arrays("x", **wrong), "Task 'x'"),
            (lambda: Task.from_npz(path), "x"),
        ):
            with pytest.raises(TaskError) as caught:
                make()
            assert message in str(caught.value)
            assert where in str(caught.value)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            (
                {"labels": None},
                "x.npz lacks labels: an npz task holds the arrays images, labels and class_names",
            ),
            ({"labels": None, "class_names": None}, "x.npz lacks labels and class_names:"),
            (
                {"class_names": np.arange(3)},
                "x.npz: class_names is int64 of shape (3,), and must be a list of",
            ),
            (
                {"class_names": np.array(["a", "b", "c"], object)},
                "x.npz cannot be read (Object arrays cannot be loaded: save",
            ),
        ],
    )
    def test_npz_files_that_are_no_task(self, tmp_path, arrays, changes, message):
        wrong = {key: value for key, value in {**arrays, **changes}.items() if value is not None}
        with pytest.raises(TaskError) as caught:
            Task.from_npz(save_npz(tmp_path / "x.npz", wrong))
        assert message in str(caught.value)

    def test_damaged_npz_files(self, tmp_path, arrays):
        path = save_npz(tmp_path / "x.npz", arrays)
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
        with pytest.raises(TaskError, match=r"x\.npz is not an npz file: write it again with numpy\.savez\."):
            Task.from_npz(path)
        flipped = bytearray(content)
        flipped[300] ^= 0xFF
        path.write_bytes(flipped)
        with pytest.raises(TaskError, match=r"x.npz cannot be read \(Bad CRC-32"):
            Task.from_npz(path)
        with pytest.raises(TaskError, match=r"gone.npz cannot be read \(No such file or directory\)"):
            Task.from_npz(tmp_path / "gone.npz")


class TestOpen:
    def test_folder_or_npz(self, tmp_path, folder, arrays):
        assert Task.open(folder).name == "01-pets"
        assert Task.open(str(save_npz(tmp_path / "02.npz", arrays))).name == "02"

    def test_neither(self, tmp_path):
        with pytest.raises(
            TaskError, match=r"There is no task at .*gone: give the path of a task's folder or"
        ):
            Task.open(tmp_path / "gone")
        with pytest.raises(
            TaskError, match=r"a\.png is no task: a task is a folder with train/<class>/ in it, or"
        ):
            Task.open(write(tmp_path / "a.png"))


class TestFingerprint:
    def test_the_same_elsewhere(self, tmp_path, folder, monkeypatch):
        fingerprint = Task.from_folder(folder).fingerprint()
        assert re.fullmatch("[0-9a-f]{64}", fingerprint)
        shutil.copytree(folder, tmp_path / "elsewhere/01-pets")
        assert Task.from_folder(tmp_path / "elsewhere/01-pets").fingerprint() == fingerprint
        monkeypatch.chdir(tmp_path)
        assert Task.from_folder("01-pets").fingerprint() == fingerprint

    @pytest.mark.parametrize(
        "change",
        [
            lambda task: write(task / "train/cat/3.png"),
            lambda task: (task / "train/cat/2.bmp").unlink(),
            lambda task: write(task / "train/cat/2.bmp", pixels(5, 4, 3, seed=99)),
            lambda task: write(task / "test/cat/y.png", pixels(5, 4, 3, seed=99)),
            lambda task: (task / "train/cat/2.bmp").rename(task / "train/cat/3.bmp"),
            lambda task: (task / "train/cat/2.bmp").rename(task / "train/dog/2.bmp"),
            lambda task: (task / "train/dog").rename(task / "train/emu") and shutil.rmtree(task / "test"),
            lambda task: shutil.rmtree(task / "test"),
        ],
    )
    def test_another_after_any_change(self, folder, change):
        before = Task.from_folder(folder).fingerprint()
        change(folder)
        assert Task.from_folder(folder).fingerprint() != before

    def test_arrays(self, tmp_path, arrays):
        def fingerprint(**changes):
            return Task.from_arrays("x", **{**arrays, **changes}).fingerprint()

        original = fingerprint()
        assert Task.from_npz(save_npz(tmp_path / "y.npz", arrays)).fingerprint() == original
        changed = arrays["images"].copy()
        changed[4, 3, 2, 1] ^= 1
        assert len({
            original,
            fingerprint(images=changed),
            fingerprint(images=arrays["images"].reshape(6, 4, 5, 3)),
            fingerprint(labels=np.array([0, 1, 2, 0, 2, 1])),
            fingerprint(class_names=["cat", "ant", "wasp"]),
        }) == 5  # fmt: skip


class CountingImages(ArrayImages):
    def __init__(self, images):
        super().__init__(images)
        self.reads = []

    def read(self, index):
        self.reads.append(index)
        return super().read(index)


class TestPixelCache:
    size = 6 * 8 * 3

    def cache(self, images, resize="bilinear", **budget):
        spec = PreprocessingSpec((0.5,) * 3, (0.25,) * 3, resize=resize)
        split = Split(images, np.zeros(len(images), np.int64))
        return PixelCache(split, PicturePreprocessing(spec, InputSpec("image", 3, (6, 8))), **budget)

    def test_batches_are_the_resized_pictures(self):
        images = pixels(5, 12, 20, 3)
        batch = self.cache(ArrayImages(images)).batch(np.array([4, 0, 4]))
        assert batch.dtype == np.uint8
        for row, index in enumerate((4, 0, 4)):
            expected = Image.fromarray(images[index]).resize((8, 6), Image.Resampling.BILINEAR)
            np.testing.assert_array_equal(batch[row], np.asarray(expected))

    def test_a_batch_may_be_written_to(self):
        images = pixels(2, 6, 8, 3)
        before = images.copy()
        cache = self.cache(ArrayImages(images))
        cache.batch([0, 1])[:] = 0
        np.testing.assert_array_equal(cache.batch([0, 1]), before)

    def test_an_empty_batch(self):
        assert self.cache(ArrayImages(pixels(2, 12, 20, 3))).batch([]).shape == (0, 6, 8, 3)

    @pytest.mark.parametrize("kept", [0, 2, 5])
    def test_keeps_what_the_budget_allows_and_reads_the_rest_again(self, kept):
        source = CountingImages(pixels(5, 12, 20, 3))
        cache = self.cache(source, budget_bytes=kept * self.size + self.size // 2)
        first = cache.batch(range(5))
        assert cache.kept_bytes == kept * self.size
        source.reads.clear()
        np.testing.assert_array_equal(cache.batch(range(5)), first)
        assert source.reads == list(range(kept, 5))

    def test_verify_finds_the_bad_picture_before_anything_is_learned(self, folder):
        bad = folder / "train/dog/b.JPG"
        bad.write_bytes(bad.read_bytes()[:300])
        with pytest.raises(TaskError, match=r"train/dog/b.JPG cannot be decoded \("):
            self.cache(Task.from_folder(folder).train.images).verify()

    def test_verify_finds_a_picture_of_another_size_where_nothing_resizes(self, folder):
        with pytest.raises(TaskError, match=r"cat/1.webp is 4x5 pixels .* and the model takes 8x6"):
            self.cache(Task.from_folder(folder).train.images, resize="none").verify()

    def test_verify_reads_each_picture_once_and_keeps_it(self):
        source = CountingImages(pixels(5, 12, 20, 3))
        cache = self.cache(source)
        cache.verify()
        cache.batch(range(5))
        assert source.reads == list(range(5))
        assert len(cache) == 5


class TestInbox:
    @pytest.fixture
    def inbox(self, tmp_path, arrays):
        for name in ("10-c/train/a/1.png", "10-c/train/b/1.png", "2-b/test/a/1.png", ".git/x.png"):
            write(tmp_path / name)
        save_npz(tmp_path / "1-a.npz", arrays)
        save_npz(tmp_path / ".hidden.npz", arrays)
        (tmp_path / "notes.txt").write_text("x")
        return Inbox(tmp_path)

    def test_names_in_plain_string_order(self, inbox):
        assert inbox.names() == ["1-a", "10-c", "2-b"]

    def test_open(self, inbox):
        assert [inbox.open(name).name for name in inbox.names()] == inbox.names()
        assert inbox.open("10-c").classes == ("a", "b")

    def test_an_unknown_name_lists_the_others(self, inbox):
        with pytest.raises(TaskError) as caught:
            inbox.open("../1-a")
        assert str(caught.value) == f"There is no task '../1-a' in {inbox.folder}: it has 1-a, 10-c, 2-b."

    def test_no_folder_is_an_empty_inbox(self, tmp_path):
        inbox = Inbox(tmp_path / "tasks")
        assert inbox.names() == []
        with pytest.raises(TaskError, match=r"There is no task 'x' in .*tasks: there is no such folder."):
            inbox.open("x")

    def test_one_name_for_two_tasks(self, inbox, arrays):
        save_npz(inbox.folder / "10-c.npz", arrays)
        with pytest.raises(TaskError) as caught:
            inbox.names()
        assert str(caught.value) == (
            f"{inbox.folder} holds both 10-c/ and 10-c.npz, and a task's name must be its own: "
            "rename or remove one of them."
        )

    def test_a_folder_that_is_a_file(self, tmp_path):
        (tmp_path / "tasks").write_text("x")
        with pytest.raises(TaskError, match="tasks is a file, not a folder of tasks: give a folder"):
            Inbox(tmp_path / "tasks").names()
