"""Images or signals with a table of labels: a folder with a `metadata.csv` beside them.

    file_name,cat,dog          file_name,angle
    0001.png,1,0               0001.png,-12.5
    kitchen/7.jpg,1,1          0002.png,30

The form is that of Hugging Face's ImageFolder (huggingface.co/docs/datasets/image_dataset): `file_name` is a path
inside the folder, every other column a class (1 where the image has it, else 0) or a target (a number).
"""

from __future__ import annotations

import csv
import io
import stat
from array import array
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from csk_sdk.data.files import READ, SUFFIXES
from csk_sdk.errors import TaskError
from csk_sdk.formats.opening import LARGEST_TEXT, read_file
from csk_sdk.formats.wording import plural

METADATA = "metadata.csv"
FILE_NAME = "file_name"


def read_metadata(
    folder: Path, absent: list[Path] | None = None
) -> tuple[tuple[str, ...], list[Path], NDArray[np.float32]]:
    """The names of the columns, the files in the file's order, and their labels `(n, columns)` float32.

    Files that are not there are put into `absent` and returned all the same, to be treated as those that cannot be
    decoded; where that is None, they are refused, all of them in one sentence.
    Raises TaskError, naming the line, for a file that cannot be read, a name that can be none of an image, or a cell
    that is no finite number.
    """
    path = folder / METADATA
    rows = _rows(path, folder.parent)
    header = [cell.strip() for cell in next(rows, (0, []))[1]]
    if FILE_NAME not in header or len(header) < 2:
        raise TaskError(
            f"{path} must begin with a line of column names, {FILE_NAME} and one for each class or target, with "
            f"commas between them, such as {FILE_NAME},cat,dog."
        )
    names = tuple(name for name in header if name != FILE_NAME)
    if "" in names or len(set(header)) < len(header):
        raise TaskError(f"{path}: each column needs a name of its own.")
    place = header.index(FILE_NAME)
    paths, numbers = [], array("f")
    listed: dict[str, tuple[int, list[str]]] = {}
    for line, row in rows:
        where = f"{path}, line {line}"
        if len(row) != len(header):
            raise TaskError(f"{where} has {plural(len(row), 'cell')}, and there are {len(header)} columns.")
        file_name = row[place].strip()
        first, before = listed.setdefault(file_name, (line, row))
        if before != row:
            raise TaskError(
                f"{where}: '{file_name}' is in line {first}, too, with other labels: keep the line that is right."
            )
        paths.append(_picture(folder, file_name, where))
        cells = [cell for column, cell in enumerate(row) if column != place]
        numbers.extend(float(_number(cell, name, where)) for cell, name in zip(cells, names, strict=True))
    gone = [picture for picture in paths if not picture.is_file()]
    if gone and absent is None:
        raise TaskError(absent_said(folder, gone, most=20) + " Correct the names, or remove the lines.")
    (absent if absent is not None else []).extend(gone)
    if not paths:
        raise TaskError(f"{path} lists no image: write one line for each.")
    return names, paths, np.array(numbers, np.float32).reshape(len(paths), len(names))


def absent_said(folder: Path, gone: list[Path], most: int = 3) -> str:
    """Files that are listed and not there, the first of them by name."""
    named = ", ".join(str(path.relative_to(folder)) for path in gone[:most]) + (
        ", ..." if len(gone) > most else ""
    )
    listed = "file that it lists is" if len(gone) == 1 else "files that it lists are"
    return f"{folder / METADATA}: {len(gone)} {listed} not there: {named}."


def _rows(path: Path, task: Path) -> Iterator[tuple[int, list[str]]]:
    """The lines that are not empty, with their numbers; `path` must be a file in the folder `task`."""
    try:
        content = read_file(path, LARGEST_TEXT, task)
        # Spreadsheets write a byte order mark.
        reader = csv.reader(io.TextIOWrapper(io.BytesIO(content), encoding="utf-8-sig", newline=""))
        for row in reader:
            if row:
                yield reader.line_num, row
    except (OSError, ValueError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise TaskError(f"{path} cannot be read ({reason}): write it as CSV, in UTF-8.") from None


def _picture(folder: Path, name: str, where: str) -> Path:
    if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
        raise TaskError(f"{where}: {FILE_NAME} '{name}' must be a path inside {folder}.")
    try:
        return _inside(folder, name, where)
    except (
        OSError,
        ValueError,
        RuntimeError,
    ) as error:  # links in a circle are a RuntimeError until Python 3.13
        reason = getattr(error, "strerror", None) or str(error)
        shown = name if len(name) <= 80 else name[:80] + "..."
        raise TaskError(f"{where}: '{shown}' cannot be the name of an image ({reason}).") from None


def _inside(folder: Path, name: str, where: str) -> Path:
    path = folder / name
    if path.suffix.lower() not in SUFFIXES:
        raise TaskError(f"{where}: '{name}' is no image and no signal ({READ}).")
    try:
        there = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return path
    if not path.resolve().is_relative_to(folder.parent.resolve()):
        raise TaskError(
            f"{where}: {path} is a link that leads out of {folder.parent}: put the file itself there."
        )
    if not stat.S_ISREG(there.st_mode):
        raise TaskError(f"{where}: {path} is no file. Correct the name, or remove the line.")
    return path


def _number(cell: str, name: str, where: str) -> np.float32:
    try:
        with np.errstate(over="ignore"):
            value = np.float32(cell)
    except ValueError:
        value = np.float32("nan")
    if not np.isfinite(value):
        raise TaskError(
            f"{where}: '{name}' is '{cell.strip()}', and must be a number (for a class: 1 where the image has "
            "it, else 0)."
        )
    return value
