"""What the base model knows, measured on the workstation: its second moments and class statistics."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csk_sdk.bundle.folder import Bundle
from csk_sdk.contract.manifest import CROSS_ENTROPY, Manifest
from csk_sdk.data.files import SUFFIXES, open_files
from csk_sdk.data.labels import Labels
from csk_sdk.data.metadata import FILE_NAME, METADATA, read_metadata
from csk_sdk.data.pixel_cache import PixelCache
from csk_sdk.data.tasks import Split, table_split
from csk_sdk.errors import ModelError, TaskError
from csk_sdk.method.calibration import calibrated
from csk_sdk.method.heads import ClassStatistics, Shrunk
from csk_sdk.method.left_out import JudgedImages
from csk_sdk.method.unknown import measured
from csk_sdk.network.finite import first_not_finite
from csk_sdk.network.knowledge import Batch, FeatureSample, measure_knowledge
from csk_sdk.objectives import objective_of
from csk_sdk.objectives.classification import PRIOR_PICTURES

_BATCH = 64
# Scores that differ by less of their size are one number.
_ROUNDING = 1e-6
# Margins of images that the network was never trained on, over those of base images, which it mostly was: measured,
# docs/decisions/0029-unknown.md.
_UNSEEN = 0.95
# Of features that the temperature is measured on.
_SAMPLE_BYTES = 128 << 20


@dataclass(frozen=True)
class BaseKnowledge:
    """Tensors for the checkpoint, and the source model's accuracy (or other metric) on the base data in percent.

    `exchanged` are sentences on names of classes that look exchanged. `is_blind` says that to the model all classes
    are equally likely, on every image.
    """

    tensors: dict[str, NDArray[Any]]
    images: int
    accuracy: float
    exchanged: tuple[str, ...] = ()
    is_blind: bool = False


def base_split(
    folder: Path, classes: tuple[str, ...], loss: str = CROSS_ENTROPY, bit_depth: int | None = None
) -> Split:
    """The images or signals of `folder/<class>/`, or of `folder/metadata.csv`, labelled by the model's class order.

    A folder with train/ in it is taken for a task's: then those of `folder/train`.
    `bit_depth` is that of `Task.open`.

    Raises TaskError for a missing folder, a folder that is no class, a class without any, a mixture of both, or labels
    that are not those of the loss.
    """
    require_base_folder(folder)
    if "train" not in classes and (folder / "train").is_dir() and not (folder / METADATA).exists():
        folder = folder / "train"  # a task's folder: its train/ holds the classes
    objective = objective_of(loss)
    if (folder / METADATA).exists():
        split = table_split(folder, read_metadata(folder), classes, bit_depth)
        objective.require_split(split, str(folder), classes)
        return split
    if objective.tabular:
        raise TaskError(
            f"{folder} has no {METADATA}, and with --loss {loss} the labels are in it: one line for each image, with "
            f"{FILE_NAME} and a number for each of {', '.join(classes[:3])}{', ...' if len(classes) > 3 else ''}."
        )
    folders = {path.name: path for path in sorted(folder.iterdir()) if path.is_dir() and path.name[0] != "."}
    foreign = sorted(set(folders) - set(classes))
    if foreign:
        raise TaskError(
            f"{folder} has a folder '{foreign[0]}', which is not one of the model's {len(classes)} classes "
            f"({', '.join(classes[:3])}, ...). Pass the class names in label order with --classes."
        )
    paths: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        found = (
            sorted(p for p in folders[name].iterdir() if p.suffix.lower() in SUFFIXES)
            if name in folders
            else []
        )
        if not found:
            raise TaskError(f"{folder} has no images of class '{name}'. Put some into {folder / name}.")
        paths += found
        labels += [label] * len(found)
    return Split(open_files(paths, bit_depth=bit_depth), np.array(labels, np.int64))


def require_base_folder(folder: Path) -> None:
    """Raise TaskError where there is no such folder."""
    if not folder.is_dir():
        raise TaskError(
            f"There is no folder {folder}. --base-data needs one sub-folder of images per base class."
        )


def measure_base(
    bundle: Bundle, split: Split, tensors: dict[str, NDArray[Any]], on_progress: Callable[[int, int], None]
) -> BaseKnowledge:
    """Second moments K per site, class statistics, temperature, and a sketch of known images over `split`.

    docs/method.md#setting.

    All through the bundle's own graphs. `tensors` is the checkpoint so far. `on_progress(done, total)` counts images.
    Raises TaskError for an image for which the network computes NaN or infinity.
    """
    pixels = PixelCache(split, bundle.preprocessing, 0)
    weight, bias = tensors["head/base/weight"], tensors["head/base/bias"]
    logits: list[NDArray[np.float32]] = []
    sample = FeatureSample(bundle.manifest.head.features, _SAMPLE_BYTES)
    # Images come class by class, so of many every so-manieth is kept.
    step = -(-len(split) // sample.room)

    def batches() -> Iterator[Batch]:
        done = 0
        for images, labels in pixels.batches(_BATCH):
            yield bundle.preprocessing.normalize(images), labels
            done += len(labels)
            on_progress(done, len(split))

    def keep(features: NDArray[np.float32], labels: Labels) -> None:
        row = first_not_finite(features)
        if row is not None:
            which = split.images.name(_BATCH * len(logits) + row)
            raise TaskError(
                f"For {which} the network computes numbers that are not finite (NaN or infinity): check it, --mean and "
                "--std, or leave it out."
            )
        start = -_BATCH * len(logits) % step
        sample.add(features[start::step], labels[start::step])
        logits.append(features @ weight.T + bias)
        known.append(bundle.objective.statistics(known.pop(), features, labels, classes))

    classes = bundle.manifest.classes
    known = [ClassStatistics.empty(bundle.manifest.head.features)]
    moments = measure_knowledge(bundle, tensors, batches(), keep)
    statistics = known.pop()
    sketch = None
    if statistics.classes:
        statistics = calibrated(statistics, *sample.arrays(), classes, PRIOR_PICTURES)
        images = JudgedImages.of(statistics, *sample.arrays(), classes, Shrunk.of(statistics, PRIOR_PICTURES))
        sketch = None if images is None else measured(None, statistics, images, _UNSEEN)
    scores = np.concatenate(logits)
    measure = bundle.objective.measure(scores, classes, split.labels, classes)
    with np.errstate(over="ignore"):  # said in a sentence below
        found: dict[str, NDArray[Any]] = {name: moment.astype(np.float32) for name, moment in moments.items()}
    found.update(statistics.tensors())
    if sketch is not None:
        found.update(sketch.tensors())
    _require_finite(found, bundle.manifest)
    exchanged: tuple[str, ...] = ()
    if bundle.manifest.loss == CROSS_ENTROPY:
        exchanged = exchanged_names(scores.argmax(axis=1), split.labels, classes)
    return BaseKnowledge(found, len(split), measure.score, exchanged, is_blind(scores))


def _require_finite(moments: Mapping[str, NDArray[Any]], manifest: Manifest) -> None:
    """No device opens a checkpoint with infinity in it."""
    for site in manifest.sites:
        if not np.isfinite(moments[f"moment/{site.name}"]).all():
            raise ModelError(
                f"{manifest.model}: what convolution '{site.node}' reads is so large that sums of its squares overflow "
                "float32, so it cannot learn. Check that the weights are trained ones, and --mean and --std."
            )


def is_blind(scores: NDArray[np.float32]) -> bool:
    """Whether scores `(images, classes)` are the same for all classes but for rounding, on every image."""
    size = np.abs(scores).max(axis=1)
    return scores.shape[1] > 1 and bool((np.ptp(scores, axis=1) <= _ROUNDING * size).all())


def exchanged_names(
    predicted: NDArray[np.int64], labels: NDArray[np.int64], classes: Sequence[str]
) -> tuple[str, ...]:
    """One sentence for each ring of classes whose images are mostly taken for the next one's in it.

    `predicted` and `labels` are `(n,)`. A network that confuses two classes takes both for one of them; one that takes
    each for the other knows them apart, under exchanged names.
    """
    takes: dict[int, tuple[int, float]] = {}
    for label in range(len(classes)):
        of_class = predicted[labels == label]
        counts = np.bincount(of_class, minlength=len(classes))
        most = int(counts.argmax())
        if most != label and 2 * counts[most] > len(of_class):
            takes[label] = most, 100 * counts[most] / len(of_class)
    said: list[str] = []
    seen: set[int] = set()
    for first in takes:
        ring = [first]
        while ring[-1] in takes and (following := takes[ring[-1]][0]) not in ring:
            ring.append(following)
        if ring[-1] in takes and takes[ring[-1]][0] == first and not seen & set(ring):
            seen |= set(ring)
            found = "; ".join(
                f"{takes[label][1]:.0f} % of '{classes[label]}' are taken for '{classes[takes[label][0]]}'"
                for label in ring
            )
            said.append(
                f"the names of {len(ring)} classes look exchanged in the base data: {found}. Check the order of "
                "--classes, and the folders' names."
            )
    return tuple(said)
