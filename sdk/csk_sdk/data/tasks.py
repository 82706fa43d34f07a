"""Tasks: the pictures and classes that are learned together, from a folder, an npz file, or arrays.

    NAME/train/<class>/*.png|jpg|jpeg|bmp|webp    optional: NAME/test/<class>/...
    NAME.npz with images, labels, class_names     optional: test_images, test_labels

Opening a task checks everything but the pictures of a folder, which are decoded when they are needed
(`csk_sdk.data.pixel_cache.PixelCache.verify` decodes them all).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csk_sdk.data.images import PICTURE_SUFFIXES, ArrayImages, FileImages, ImageSource
from csk_sdk.data.npz import load_arrays
from csk_sdk.errors import TaskError

_REQUIRED = ("images", "labels", "class_names")
_OPTIONAL = ("test_images", "test_labels")


@dataclass(frozen=True, eq=False)
class Split:
    """Pictures and their labels: int64 `(n,)`, indices into the task's classes."""

    images: ImageSource
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        """Return the number of pictures."""
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class Task:
    """What is learned in one go. Without `train` it can only be evaluated on."""

    name: str
    classes: tuple[str, ...]
    train: Split | None
    test: Split | None

    @classmethod
    def open(cls, path: Path | str) -> Task:
        """Open a task folder or an npz file. Raises TaskError when it is neither, or no good."""
        path = Path(path)
        if path.is_dir():
            return cls.from_folder(path)
        if not path.exists():
            raise TaskError(
                f"There is no task at {path}: give the path of a task's folder or of its .npz file."
            )
        if path.suffix.lower() != ".npz":
            raise TaskError(
                f"{path} is no task: a task is a folder with train/<class>/ in it, or an .npz file."
            )
        return cls.from_npz(path)

    @classmethod
    def from_folder(cls, path: Path | str) -> Task:
        """Open `NAME/train/<class>/*.png|jpg|jpeg|bmp|webp` (optional `NAME/test/...`).

        Classes and pictures come in the order of their names; hidden files and other suffixes are ignored.
        With test/ alone it is a task for evaluation.
        Raises TaskError when it holds no picture, a class is empty, train/ has one class only, or test/ has a
        class that train/ lacks.
        """
        path = Path(path)
        folders = {split: path / split for split in ("train", "test") if (path / split).is_dir()}
        if not folders:
            raise TaskError(f"{path} has no train/ folder: put its pictures into {path / 'train'}/<class>/.")
        files = {split: _pictures_by_class(folder) for split, folder in folders.items()}
        classes = tuple(files.get("train") or files["test"])
        known = set(classes)
        unknown = [name for name in files.get("test", ()) if name not in known]
        if unknown:
            raise TaskError(
                f"{path / 'test' / unknown[0]} is a class that {path / 'train'} does not have: "
                "add training pictures of it, or remove it from test/."
            )
        splits = {split: _folder_split(folders[split], files[split], classes) for split in folders}
        return cls._checked(path.resolve().name, classes, splits.get("train"), splits.get("test"))

    @classmethod
    def from_npz(cls, path: Path | str) -> Task:
        """Open an npz file: `images` uint8 `(n, h, w, c)`, `labels` int `(n,)`, `class_names` str `(k,)`.

        Optional `test_images` and `test_labels`. Its arrays are loaded into memory.
        Raises TaskError when it is no npz file, lacks an array, or `from_arrays` refuses one.
        """
        path = Path(path)
        arrays = load_arrays(path, (*_REQUIRED, *_OPTIONAL))
        missing = [name for name in _REQUIRED if name not in arrays]
        if missing:
            raise TaskError(
                f"{path} lacks {' and '.join(missing)}: an npz task holds the arrays images, labels and "
                "class_names (and test_images, test_labels if it is to be evaluated)."
            )
        names = arrays["class_names"]
        if names.ndim != 1 or names.dtype.kind != "U":
            raise TaskError(
                f"{path}: class_names is {names.dtype} of shape {names.shape}, and must be a list of strings."
            )
        return cls._from_arrays(path.stem, arrays, names.tolist(), f"{path}: ")

    @classmethod
    def from_arrays(
        cls,
        name: str,
        images: NDArray[Any],
        labels: NDArray[Any] | Sequence[int],
        class_names: Sequence[str],
        test_images: NDArray[Any] | None = None,
        test_labels: NDArray[Any] | Sequence[int] | None = None,
    ) -> Task:
        """Make a task of arrays in memory.

        images: uint8 `(n, h, w, c)`, or `(n, h, w)` if gray; not copied. labels: ints `(n,)`, indices into
        `class_names`. The test arrays are of the same form, and come together or not at all.
        Raises TaskError for another dtype or shape, for a label out of range, for a class without training
        pictures, and for fewer than two classes.
        """
        given = {"images": images, "labels": labels, "test_images": test_images, "test_labels": test_labels}
        arrays = {key: np.asarray(value) for key, value in given.items() if value is not None}
        return cls._from_arrays(name, arrays, [str(one) for one in class_names], f"Task '{name}': ")

    @classmethod
    def _from_arrays(cls, name: str, arrays: dict[str, NDArray[Any]], classes: list[str], where: str) -> Task:
        duplicates = sorted(one for one, count in Counter(classes).items() if count > 1)
        if not classes or "" in classes or duplicates:
            problem = (
                f"names '{duplicates[0]}' twice" if duplicates else "is empty or has an empty name in it"
            )
            raise TaskError(f"{where}class_names {problem}: give each class a name of its own.")
        train = _array_split(arrays["images"], arrays["labels"], classes, where, "")
        empty = np.flatnonzero(np.bincount(train.labels, minlength=len(classes)) == 0)
        if empty.size:
            raise TaskError(
                f"{where}class '{classes[empty[0]]}' has no picture: no label is {empty[0]}. "
                "Add pictures of it, or remove it from class_names."
            )
        test = None
        if present := [key for key in _OPTIONAL if key in arrays]:
            if len(present) == 1:
                raise TaskError(
                    f"{where}{present[0]} is there alone: give test_images and test_labels together."
                )
            test = _array_split(arrays["test_images"], arrays["test_labels"], classes, where, "test_")
        return cls._checked(name, tuple(classes), train, test)

    @classmethod
    def _checked(cls, name: str, classes: tuple[str, ...], train: Split | None, test: Split | None) -> Task:
        task = cls(name, classes, train, test)
        if train is not None:
            task.require_trainable()
        return task

    def require_trainable(self) -> None:
        """Raise TaskError unless there are training pictures of at least two classes."""
        if self.train is None:
            raise TaskError(
                f"Task '{self.name}' has no training pictures, only test pictures: "
                "it can be evaluated; to learn it, add a train/ folder."
            )
        if len(self.classes) < 2:
            remedy = (
                "put its other classes beside it under train/"
                if isinstance(self.train.images, FileImages)
                else "add pictures of its other classes to the same arrays"
            )
            raise TaskError(
                f"Task '{self.name}' has one class only ('{self.classes[0]}'); a task needs at least two "
                f"classes to tell apart, {remedy}."
            )

    def fingerprint(self) -> str:
        """Return a sha256 over class names, labels, and each picture's name, size and content.

        Hexadecimal; the same wherever the task lies, and another as soon as a class, a label or a picture
        changes. Reads one picture at a time. Raises TaskError when a picture cannot be read.
        """
        digest = hashlib.sha256()
        for line in self._fingerprint_lines():
            digest.update(
                json.dumps(line).encode() + b"\n"
            )  # quoted, so that no two lists give the same bytes
        return digest.hexdigest()

    def _fingerprint_lines(self) -> Iterator[list[str | int]]:
        yield ["classes", *self.classes]
        for name, split in (("train", self.train), ("test", self.test)):
            if split is not None:
                for i, label in enumerate(split.labels):
                    yield [name, int(label), split.images.identity(i)]


def _visible(folder: Path, root: Path) -> list[Path]:
    """What is in `folder`, by name, without what is hidden; all of it is inside `root`, also where it is a link.

    A task that came from outside must not reach what else is on the device, or wait for a pipe or a device file.
    """
    try:
        with os.scandir(folder) as entries:
            found = sorted((one for one in entries if not one.name.startswith(".")), key=lambda one: one.name)
        for one in found:
            path = Path(one.path)
            if one.is_symlink():
                _require_inside(path, root)
            if not (one.is_file() or one.is_dir()) and path.exists():
                raise TaskError(f"{path} is neither a file nor a folder: remove it.")
    except OSError as error:
        raise TaskError(f"{folder} cannot be read ({error.strerror}): check its permissions.") from None
    return [Path(one.path) for one in found]


def _require_inside(path: Path, root: Path) -> None:
    if path.exists() and not path.resolve().is_relative_to(root.resolve()):
        raise TaskError(f"{path} is a link that leads out of {root}: put the file or folder itself there.")


def _pictures_by_class(folder: Path) -> dict[str, list[Path]]:
    """Class name -> its pictures, for `NAME/train` or `NAME/test`."""
    root = folder.parent
    _require_inside(folder, root)
    classes = {}
    for class_folder in _visible(folder, root):
        if class_folder.is_dir():
            files = [path for path in _visible(class_folder, root) if path.suffix.lower() in PICTURE_SUFFIXES]
            if not files:
                raise TaskError(
                    f"{class_folder} holds no picture (png, jpg, jpeg, bmp, webp): put pictures of "
                    f"'{class_folder.name}' into it, or remove the folder."
                )
            classes[class_folder.name] = files
    if not classes:
        raise TaskError(f"{folder} has no class folders: put the task's pictures into {folder}/<class>/.")
    return classes


def _folder_split(folder: Path, files: dict[str, list[Path]], classes: tuple[str, ...]) -> Split:
    paths = [path for pictures in files.values() for path in pictures]
    label = {name: index for index, name in enumerate(classes)}
    labels = [label[name] for name, pictures in files.items() for _ in pictures]
    return Split(FileImages(paths, root=folder), np.asarray(labels, np.int64))


def _array_split(
    images: NDArray[Any], labels: NDArray[Any], classes: list[str], where: str, prefix: str
) -> Split:
    source = ArrayImages(images, f"{where}{prefix}images")
    name = f"{where}{prefix}labels"
    if not np.issubdtype(labels.dtype, np.integer) or labels.ndim != 1:
        raise TaskError(
            f"{name} is {labels.dtype} of shape {labels.shape}, and must be one integer per picture, "
            "an index into class_names."
        )
    if len(labels) != len(source):
        raise TaskError(f"{name} has {len(labels)} entries for {len(source)} pictures: give one for each.")
    bad = np.flatnonzero((labels < 0) | (labels >= len(classes)))
    if bad.size:
        raise TaskError(
            f"{name}[{bad[0]}] is {labels[bad[0]]}, and with {len(classes)} class_names a label must be "
            f"0 to {len(classes) - 1}."
        )
    return Split(source, labels.astype(np.int64))
