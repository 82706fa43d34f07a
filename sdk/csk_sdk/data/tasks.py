"""Tasks: the images or signals and classes that are learned together, from a folder, an npz file, or arrays.

    NAME/train/<class>/*.png|jpg|jpeg|bmp|webp    optional: NAME/test/<class>/...
    NAME/train/<class>/*.wav|npy                  the same for signals
    NAME/train/metadata.csv                       optional: NAME/test/metadata.csv; see csk_sdk.data.metadata
    NAME.npz with images, labels, class_names     optional: test_images, test_labels
    NAME.npz with signals, labels, class_names    optional: test_signals, test_labels

Opening a task checks everything but the files of a folder, which are decoded when they are needed
(`csk_sdk.data.pixel_cache.PixelCache.verify` decodes them all).
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csk_sdk.data.bit_depth import images_of_eight_bits, require_bit_depth
from csk_sdk.data.files import open_files
from csk_sdk.data.folders import Unread, files_by_class, is_folder
from csk_sdk.data.images import ArrayImages
from csk_sdk.data.labels import Labels, check_labels, require_learnable
from csk_sdk.data.metadata import METADATA, absent_said, read_metadata
from csk_sdk.data.npz import load_arrays
from csk_sdk.data.signals import ArraySignals
from csk_sdk.data.source import Source, Subset, as_task_error
from csk_sdk.errors import TaskError
from csk_sdk.formats.given import array_of, names_of, path_of, text_of
from csk_sdk.formats.places import TASK, mistaken

# What an npz file calls its images or signals, and the source that reads them.
_KINDS: dict[str, type[ArrayImages] | type[ArraySignals]] = {"images": ArrayImages, "signals": ArraySignals}
# What class_names may be called where labels are numbers.
_TARGETS = "target_names"
_SHARED = ("labels", "class_names", _TARGETS, "test_labels")


@dataclass(frozen=True, eq=False)
class Split:
    """Images or signals and their labels: int64 `(n,)`, indices into the task's classes, or a float32 table.

    A table is `(n, classes)`: csk_sdk.data.labels.
    """

    images: Source
    labels: Labels

    def __len__(self) -> int:
        """Return the number of images or signals."""
        return len(self.labels)

    def among(self, names: Sequence[str], known: Collection[str]) -> tuple[Split, tuple[str, ...]]:
        """What of it is about `known` classes, of those that its labels index, `names`; and these classes."""
        columns = [index for index, name in enumerate(names) if name in known]
        kept = tuple(names[index] for index in columns)
        if self.labels.ndim == 2:
            return Split(self.images, self.labels[:, columns]), kept
        rows = np.flatnonzero(np.isin(self.labels, columns))
        return Split(Subset(self.images, rows), np.searchsorted(columns, self.labels[rows])), kept


@dataclass(frozen=True, eq=False)
class Task:
    """What is learned in one go: made by one of its class methods. Immutable: threads may share it.

    - `name`: what it is called in the state
    - `classes`: the names of what the labels are about: for a table of numbers, of its columns
    - `train`, `test`: images or signals with their labels; without `train` it can only be evaluated on
    - `unread`: sentences about files in its folders that were not read
    - `skipped`: what was left out because it could not be read
    """

    name: str
    classes: tuple[str, ...]
    train: Split | None
    test: Split | None
    unread: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()

    @classmethod
    def open(cls, path: Path | str, bit_depth: int | None = None) -> Task:
        """Open a task folder or an npz file.

        bit_depth: how many bits of 16-bit values count, 8 to 16: 12 for a camera whose white is 4095. Where it is None
        all 16 do, and images that are dark by that are refused (`csk_sdk.data.bit_depth`).
        Raises TaskError when it is neither, or no good, and ConfigError for another bit depth.
        """
        path = path_of(path, "task", TaskError)
        require_bit_depth(bit_depth)
        with as_task_error(path):
            return cls._open(path, bit_depth)

    @classmethod
    def _open(cls, path: Path, bit_depth: int | None) -> Task:
        if path.is_dir():
            return cls.from_folder(path, bit_depth)
        if not path.exists():
            raise TaskError(
                f"There is no task at {path}: give the path of a task's folder or of its .npz file."
            )
        if path.suffix.lower() != ".npz":
            raise TaskError(
                f"{path} is no task: a task is a folder with train/<class>/ in it, or an .npz file."
            )
        return cls.from_npz(path, bit_depth)

    @classmethod
    def from_folder(cls, path: Path | str, bit_depth: int | None = None) -> Task:
        """Open `NAME/train/<class>/*.png|jpg|jpeg|bmp|webp`, or `*.wav|npy` (optional `NAME/test/...`).

        Classes and files come in the order of their names; hidden files are ignored, and what has other
        suffixes is told of in `unread`.
        With test/ alone it is a task for evaluation. With a `metadata.csv` in train/ (and in test/), files and
        labels are those that it lists: `csk_sdk.data.metadata`. `bit_depth` is that of `open`.
        Raises TaskError when it holds no image or signal or both kinds, a class is empty, train/ has one class
        only, or test/ has a class that train/ lacks.
        """
        path = path_of(path, "task", TaskError)
        require_bit_depth(bit_depth)
        with as_task_error(path):
            return cls._from_folder(path, bit_depth)

    @classmethod
    def _from_folder(cls, path: Path, bit_depth: int | None) -> Task:
        folders = {split: path / split for split in ("train", "test") if is_folder(path / split)}
        if not folders:
            if not path.is_dir():
                raise TaskError(f"There is no folder {path}: give the path of a task's folder.")
            if (said := mistaken(path, TASK)) is not None:
                raise TaskError(said)
            raise TaskError(f"{path} has no train/ folder: put its images into {path / 'train'}/<class>/.")
        if any((folder / METADATA).exists() for folder in folders.values()):
            return cls._from_tables(path, folders, bit_depth)
        unread = {split: Unread() for split in folders}
        files = {split: files_by_class(folder, unread[split]) for split, folder in folders.items()}
        classes = tuple(files.get("train") or files["test"])
        known = set(classes)
        unknown = [name for name in files.get("test", ()) if name not in known]
        if unknown:
            raise TaskError(
                f"{path / 'test' / unknown[0]} is a class that {path / 'train'} does not have: "
                "add training images of it, or remove it from test/."
            )
        splits = {split: _folder_split(folders[split], files[split], classes, bit_depth) for split in folders}
        task = cls._checked(path.resolve().name, classes, splits.get("train"), splits.get("test"))
        return replace(task, unread=sum((unread[one].sentences(folders[one]) for one in folders), ()))

    @classmethod
    def _from_tables(cls, path: Path, folders: dict[str, Path], bit_depth: int | None) -> Task:
        gone: dict[str, list[Path]] = {split: [] for split in folders}
        tables = {split: read_metadata(folder, gone[split]) for split, folder in folders.items()}
        names = next(iter(tables.values()))[0]
        splits = {
            split: table_split(folders[split], table, names, bit_depth) for split, table in tables.items()
        }
        name = path.resolve().name
        if "train" in splits:
            require_learnable(splits["train"].labels, names, f"Task '{name}': ")
        task = cls._checked(name, names, splits.get("train"), splits.get("test"))
        return replace(
            task, unread=tuple(absent_said(folders[one], paths) for one, paths in gone.items() if paths)
        )

    @classmethod
    def from_npz(cls, path: Path | str, bit_depth: int | None = None) -> Task:
        """Open an npz file: `images` uint8 RGB `(n, h, w, c)`, `labels` int `(n,)`, `class_names` str `(k,)`.

        Or, for `images`, `signals` int16 or float `(n, length, c)`. Or labels `(n, k)`, numbers: 0 and 1 under
        `class_names`, any under `target_names`; for one target also `(n,)`. Optional `test_images` or `test_signals`,
        and `test_labels`. Its arrays are loaded into memory. With a `bit_depth`, that of `open`, images may be uint16.
        Raises TaskError when it is no npz file, lacks an array, or `from_arrays` or `from_signals` refuses one.
        """
        path = path_of(path, "task", TaskError)
        arrays = load_arrays(path, (*_SHARED, *_KINDS, *(f"test_{kind}" for kind in _KINDS)))
        if _TARGETS in arrays:
            arrays = _as_tables(arrays, path)
        kind = "signals" if "signals" in arrays else "images"
        missing = [name for name in (kind, "labels", "class_names") if name not in arrays]
        if missing:
            raise TaskError(
                f"{path} lacks {' and '.join(missing)}: an npz task holds the arrays {kind}, labels and "
                f"class_names (and test_{kind}, test_labels if it is to be evaluated)."
                + (" Signals are called signals." if kind in missing else "")
            )
        if kind == "signals" and "images" in arrays:
            raise TaskError(
                f"{path} holds both images and signals: make two tasks of it, one for each model."
            )
        names = arrays["class_names"]
        if names.ndim != 1 or names.dtype.kind != "U":
            raise TaskError(
                f"{path}: class_names is {names.dtype} of shape {names.shape}, and must be a list of strings."
            )
        return cls._from_arrays(kind, path.stem, arrays, names.tolist(), f"{path}: ", bit_depth)

    @classmethod
    def from_arrays(
        cls,
        name: str,
        images: NDArray[Any],
        labels: NDArray[Any] | Sequence[Any],
        class_names: Sequence[str],
        test_images: NDArray[Any] | None = None,
        test_labels: NDArray[Any] | Sequence[Any] | None = None,
        bit_depth: int | None = None,
    ) -> Task:
        """Make a task of arrays in memory.

        images: uint8 RGB `(n, h, w, c)`, or `(n, h, w)` if gray; not copied, so leave them as they are. OpenCV gives
        BGR: `images[..., ::-1]`. Also uint16, with the `bit_depth` of `open`. labels: ints `(n,)`, indices into
        `class_names`; or a table `(n, len(class_names))` of 0 and 1, or of numbers, where the names are those of
        targets (for one target floats `(n,)`, too). The test arrays are of the same form, and come together or not at
        all. Raises TaskError for another dtype or shape, for a label out of range, and for a class without
        training images.
        """
        given = {"images": images, "labels": labels, "test_images": test_images, "test_labels": test_labels}
        return cls._from_given("images", name, given, class_names, bit_depth)

    @classmethod
    def from_signals(
        cls,
        name: str,
        signals: NDArray[Any],
        labels: NDArray[Any] | Sequence[Any],
        class_names: Sequence[str],
        test_signals: NDArray[Any] | None = None,
        test_labels: NDArray[Any] | Sequence[Any] | None = None,
    ) -> Task:
        """`from_arrays` for signals: int16 or float `(n, length, c)`, or `(n, length)` for one channel; not copied.

        int16 is scaled to -1 to 1, floats are taken as they are. Raises TaskError as `from_arrays` does.
        """
        given = {
            "signals": signals,
            "labels": labels,
            "test_signals": test_signals,
            "test_labels": test_labels,
        }
        return cls._from_given("signals", name, given, class_names)

    @classmethod
    def _from_given(
        cls,
        kind: str,
        name: str,
        given: dict[str, Any],
        class_names: Sequence[str],
        bit_depth: int | None = None,
    ) -> Task:
        arrays = {
            key: array_of(value, f"Task '{name}': {key}") for key, value in given.items() if value is not None
        }
        text_of(name, "name", TaskError)
        for needed in (kind, "labels"):
            if needed not in arrays:
                raise TaskError(f"Task '{name}': {needed} is None, and must be an array.")
        names = names_of(class_names, f"Task '{name}': class_names", TaskError)
        return cls._from_arrays(kind, name, arrays, names, f"Task '{name}': ", bit_depth)

    @classmethod
    def _from_arrays(
        cls,
        kind: str,
        name: str,
        arrays: dict[str, NDArray[Any]],
        classes: list[str],
        where: str,
        bit_depth: int | None,
    ) -> Task:
        if kind == "images":
            arrays = images_of_eight_bits(arrays, bit_depth, where)
        duplicates = sorted(one for one, count in Counter(classes).items() if count > 1)
        if not classes or "" in classes or duplicates:
            problem = (
                f"names '{duplicates[0]}' twice" if duplicates else "is empty or has an empty name in it"
            )
            raise TaskError(f"{where}class_names {problem}: give each class a name of its own.")
        train = _array_split(kind, arrays, classes, where)
        require_learnable(train.labels, classes, where, train.images.noun)
        test = None
        optional = (f"test_{kind}", "test_labels")
        if present := [key for key in optional if key in arrays]:
            if len(present) == 1:
                raise TaskError(
                    f"{where}{present[0]} is there alone: give {' and '.join(optional)} together."
                )
            test = _array_split(kind, arrays, classes, where, "test_")
        return cls._checked(name, tuple(classes), train, test)

    @classmethod
    def _checked(cls, name: str, classes: tuple[str, ...], train: Split | None, test: Split | None) -> Task:
        task = cls(name, classes, train, test)
        if train is not None:
            task.require_trainable()
        return task

    def require_trainable(self) -> None:
        """Raise TaskError unless there is training data."""
        if self.train is None:
            nouns = f"{self.test.images.noun if self.test else 'image'}s"
            raise TaskError(
                f"Task '{self.name}' has no training {nouns}, only test {nouns}: "
                "it can be evaluated; to learn it, add a train/ folder."
            )

    def fingerprint(self) -> str:
        """Return a sha256 over class names, labels, and the name, size and content of each
        image or signal.

        Hexadecimal; the same wherever the task lies, and another as soon as a class, a label or an image
        changes. Reads one image at a time. Raises TaskError when an image cannot be read.
        """
        digest = hashlib.sha256()
        for line in self._fingerprint_lines():
            digest.update(
                json.dumps(line).encode() + b"\n"
            )  # quoted, so that no two lists give the same bytes
        return digest.hexdigest()

    def _fingerprint_lines(self) -> Iterator[list[Any]]:
        yield ["classes", *self.classes]
        for name, split in (("train", self.train), ("test", self.test)):
            if split is not None:
                for i, label in enumerate(split.labels):
                    yield [name, label.tolist(), split.images.identity(i)]


def _folder_split(
    folder: Path, files: dict[str, list[Path]], classes: tuple[str, ...], bit_depth: int | None
) -> Split:
    paths = [path for found in files.values() for path in found]
    label = {name: index for index, name in enumerate(classes)}
    labels = [label[name] for name, found in files.items() for _ in found]
    return Split(open_files(paths, folder, bit_depth), np.asarray(labels, np.int64))


def _array_split(
    kind: str, arrays: dict[str, NDArray[Any]], classes: list[str], where: str, prefix: str = ""
) -> Split:
    source = _KINDS[kind](arrays[f"{prefix}{kind}"], f"{where}{prefix}{kind}")
    name = f"{where}{prefix}labels"
    return Split(source, check_labels(arrays[f"{prefix}labels"], classes, len(source), name, source.noun))


def table_split(
    folder: Path,
    table: tuple[tuple[str, ...], list[Path], Labels],
    names: Sequence[str],
    bit_depth: int | None = None,
) -> Split:
    """What `read_metadata` read in `folder`, its columns in the order of `names`; `bit_depth` is that of `Task.open`.

    Raises TaskError where its columns are not those names.
    """
    found, paths, labels = table
    if set(found) != set(names):
        odd = sorted(set(found) ^ set(names))[0]
        # What a builder calls outputs that nobody has named.
        numbered = tuple(names) == tuple(str(number) for number in range(len(names)))
        named = " Name what the model tells when the bundle is built: --classes." if numbered else ""
        raise TaskError(
            f"{folder / METADATA} {'has' if odd in found else 'lacks'} a column '{odd}', and its columns must be "
            f"{', '.join(names)}.{named}"
        )
    return Split(open_files(paths, folder, bit_depth), labels[:, [found.index(name) for name in names]])


def _as_tables(arrays: dict[str, NDArray[Any]], path: Path) -> dict[str, NDArray[Any]]:
    """An npz file's arrays with `target_names`: its labels are numbers, one for each, and never indices."""
    if "class_names" in arrays:
        raise TaskError(f"{path} has class_names and target_names: keep the one that its labels are about.")
    renamed = {("class_names" if key == _TARGETS else key): array for key, array in arrays.items()}
    for key in ("labels", "test_labels"):
        array = renamed.get(key)
        if array is not None and array.ndim == 1 and array.dtype.kind in "biuf":
            renamed[key] = array[:, None]
    return renamed
