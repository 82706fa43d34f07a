"""Image or signal files by their suffix: which they are, and the source that reads them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from csk_sdk.data.images import PICTURE_SUFFIXES, FileImages
from csk_sdk.data.signals import SIGNAL_SUFFIXES, FileSignals
from csk_sdk.errors import TaskError

SUFFIXES = PICTURE_SUFFIXES | SIGNAL_SUFFIXES
READ = "png, jpg, bmp, webp, gif, tif; wav, npy"


def open_files(
    paths: Sequence[Path | str], root: Path | None = None, bit_depth: int | None = None
) -> FileImages | FileSignals:
    """A source of files that are all images, or all signals; `root` as in `Files`, `bit_depth` as in `FileImages`.

    What has none of the signals' suffixes is an image. Raises TaskError for a mixture.
    """
    kinds: dict[bool, Path] = {}
    for path in map(Path, paths):
        kinds.setdefault(path.suffix.lower() in SIGNAL_SUFFIXES, path)
    if len(kinds) == 2:
        raise TaskError(
            f"{kinds[True]} is a signal and {kinds[False]} is an image, and one model takes only one of them: "
            "keep them apart."
        )
    return FileSignals(paths, root) if True in kinds else FileImages(paths, root, bit_depth)
