"""Labels that are tables: from arrays, from npz files, and from a metadata.csv."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from csk_sdk import Task, TaskError
from csk_sdk.data.metadata import read_metadata

IMAGES = np.arange(4 * 5 * 6, dtype=np.uint8).reshape(4, 5, 6)
TABLE = np.array([[0, 1], [1, 1], [0, 0], [1, 0]])


def write(folder: Path, text: str, pictures: tuple[str, ...] = ("a.png", "in/b.png", "c.png")) -> Path:
    for name in pictures:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(IMAGES[0]).save(folder / name)
    (folder / "metadata.csv").write_text(text, encoding="utf-8")
    return folder


GOOD = "file_name,cat,dog\na.png,1,0\n\nin/b.png, 0 ,1\nc.png,1,1\n"


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64, np.float64])
def test_a_table_of_any_numbers_becomes_float32(dtype: type) -> None:
    task = Task.from_arrays("t", IMAGES, TABLE.astype(dtype), ["cat", "dog"], IMAGES[:2], TABLE[:2])
    assert task.train is not None
    assert task.test is not None
    assert task.train.labels.dtype == task.test.labels.dtype == np.float32
    assert task.train.labels.tolist() == TABLE.tolist()
    assert task.test.labels.tolist() == TABLE[:2].tolist()


def test_one_target_may_be_a_plain_list_of_floats() -> None:
    task = Task.from_arrays("t", IMAGES, [0.5, -1.0, 2.0, 3.0], ["angle"])
    assert task.train is not None
    assert task.train.labels.tolist() == [[0.5], [-1.0], [2.0], [3.0]]


def test_numbers_that_float32_cannot_tell_apart_are_said() -> None:
    with pytest.raises(
        TaskError, match=r"'angle' goes from 1000000000\.0 to 1000000001\.0, which float32 cannot tell apart"
    ):
        Task.from_arrays("t", IMAGES, 1e9 + np.array([0.0, 0.5, 1.0, 0.2]), ["angle"])


@pytest.mark.parametrize("labels", [np.array([3, 1, 2, 2]), np.array([[3.0], [1], [2], [2]])])
def test_an_npz_file_may_name_targets(tmp_path: Path, labels: np.ndarray) -> None:
    path = tmp_path / "t.npz"
    np.savez(path, images=IMAGES, labels=labels, target_names=np.array(["count"]))
    task = Task.from_npz(path)
    assert task.classes == ("count",)
    assert task.train is not None
    assert task.train.labels.tolist() == [[3.0], [1.0], [2.0], [2.0]]
    np.savez(
        path, images=IMAGES, labels=labels, target_names=np.array(["count"]), class_names=np.array(["a"])
    )
    with pytest.raises(TaskError, match="has class_names and target_names: keep the one"):
        Task.from_npz(path)


def test_a_folder_with_a_metadata_file(tmp_path: Path) -> None:
    write(tmp_path / "t" / "train", GOOD)
    write(tmp_path / "t" / "test", "\ufeffdog,file_name,cat\n0.5,a.png,1\n")
    task = Task.from_folder(tmp_path / "t")
    assert (task.name, task.classes) == ("t", ("cat", "dog"))
    assert task.train is not None
    assert task.test is not None
    assert task.train.labels.tolist() == [[1, 0], [0, 1], [1, 1]]
    assert task.train.images.identity(1).startswith("in/b.png")
    assert task.test.labels.tolist() == [[1, 0.5]]
    assert task.test.labels.dtype == np.float32


def test_the_fingerprint_changes_with_a_label_of_the_table() -> None:
    changed = TABLE.copy()
    changed[2, 1] = 1
    prints = {Task.from_arrays("t", IMAGES, labels, ["a", "b"]).fingerprint() for labels in (TABLE, changed)}
    assert len(prints) == 2


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (TABLE[:3], "Task 't': labels has 3 entries for 4 images: give one for each."),
        (
            np.where(TABLE == 1, np.nan, 0.5),
            "Task 't': labels[0, 1] ('dog') is nan, and a label must be a finite number: correct it",
        ),
        (TABLE * 1e300, "Task 't': labels[0, 1] ('dog') is 1e+300, and a label must be a finite number"),
        (
            TABLE * [1, 0],
            "Task 't': the label 'dog' is 0 for every image, so nothing can be learned of it. Add images where",
        ),
        (TABLE.astype(str), "Task 't': labels is <U21 of shape (4, 2), and must be one integer per image"),
        (TABLE[:, :1], "labels is int64 of shape (4, 1), and must be one integer per image, an index"),
    ],
)
def test_bad_tables_are_refused(labels: np.ndarray, message: str) -> None:
    with pytest.raises(TaskError) as caught:
        Task.from_arrays("t", IMAGES, labels, ["cat", "dog"])
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "",
            "metadata.csv must begin with a line of column names, file_name and one for each class or target",
        ),
        ("file_name\na.png\n", "metadata.csv must begin with a line of column names"),
        ("name,cat\na.png,1\n", "metadata.csv must begin with a line of column names"),
        ("file_name,cat,cat\na.png,1,0\n", "metadata.csv: each column needs a name of its own."),
        ("file_name,cat,\na.png,1,0\n", "metadata.csv: each column needs a name of its own."),
        ("file_name,cat\n", "metadata.csv lists no image: write one line for each."),
        ("file_name,cat\na.png,1\nc.png\n", "metadata.csv, line 3 has 1 cell, and there are 2 columns."),
        (
            "file_name,cat\na.png,1\nc.png,1\na.png,0\n",
            "metadata.csv, line 4: 'a.png' is in line 2, too, with other labels: keep the line that is right.",
        ),
        ("file_name,cat\na.png,yes\n", "metadata.csv, line 2: 'cat' is 'yes', and must be a number"),
        ("file_name,cat\na.png,\n", "metadata.csv, line 2: 'cat' is '', and must be a number"),
        ("file_name,cat\na.png,1e99\n", "metadata.csv, line 2: 'cat' is '1e99', and must be a number"),
        ("file_name,cat\nin,1\n", "line 2: 'in' is no image and no signal"),
        (
            "file_name,cat\na.txt,1\n",
            "line 2: 'a.txt' is no image and no signal (png, jpg, bmp, webp, gif, tif; wav, npy).",
        ),
        ("file_name,cat\n../a.png,1\n", "line 2: file_name '../a.png' must be a path inside"),
        ("file_name,cat\na.png,1\nc.png,1\n", "Task 't': the label 'cat' is 1 for every image"),
    ],
)
def test_bad_metadata_is_refused(tmp_path: Path, text: str, message: str) -> None:
    write(tmp_path / "t" / "train", text)
    with pytest.raises(TaskError) as caught:
        Task.from_folder(tmp_path / "t")
    assert message in str(caught.value)


def test_train_and_test_must_have_the_same_columns(tmp_path: Path) -> None:
    write(tmp_path / "t" / "train", GOOD)
    write(tmp_path / "t" / "test", "file_name,cat,bird\na.png,1,0\n")
    with pytest.raises(
        TaskError, match=r"test/metadata.csv has a column 'bird', and its columns must be cat, dog"
    ):
        Task.from_folder(tmp_path / "t")
    write(tmp_path / "t" / "test", "file_name,cat\na.png,1\n")
    with pytest.raises(TaskError, match=r"test/metadata.csv lacks a column 'dog'"):
        Task.from_folder(tmp_path / "t")
    (tmp_path / "t" / "test" / "metadata.csv").unlink()
    with pytest.raises(TaskError, match=r"test/metadata.csv cannot be read \(No such file"):
        Task.from_folder(tmp_path / "t")
    (tmp_path / "t" / "test" / "metadata.csv").write_bytes(b"file_name,cat\n\xff,1\n")
    with pytest.raises(TaskError, match=r"write it as CSV, in UTF-8"):
        Task.from_folder(tmp_path / "t")


def test_files_that_are_listed_and_not_there_are_all_told(tmp_path: Path) -> None:
    folder = tmp_path / "t" / "train"
    write(folder, GOOD + "".join(f"gone-{number}.png,{number % 2},0\n" for number in range(5)))
    task = Task.from_folder(tmp_path / "t")
    said = f"{folder / 'metadata.csv'}: 5 files that it lists are not there: gone-0.png, gone-1.png, gone-2.png, ...."
    assert task.unread == (said,)
    assert task.train is not None
    assert len(task.train) == 8
    with pytest.raises(TaskError) as caught:  # as base data is read
        read_metadata(folder)
    named = (
        "gone-0.png, gone-1.png, gone-2.png, gone-3.png, gone-4.png. Correct the names, or remove the lines."
    )
    assert named in str(caught.value)
