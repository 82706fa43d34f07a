"""What the app is built and tested with: a bundle of the digits 0 to 3, the next one, and images of 4 to 7 to teach.

python tools/prepare.py OUT
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from csk_sdk.demo import digits

PICTURES, SIZE = 30, 96


def main(out: Path) -> None:
    """Write `bundle/`, `next/` that follows it, and `pictures/<class>/*.png` into `out`."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    data = digits.load()
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder) / "base"
        digits.write_folders(data, base, Path(folder) / "tasks")
        digits.build_bundle(out / "bundle", base_data=base)
        digits.build_bundle(out / "next", base_data=base, upgrade_from=out / "bundle", trainable="all")
    # As a person would have them: larger than the network's, each a file.
    for digit, name in enumerate(digits.NAMES):
        chosen = (
            data.test_images[data.test_labels == digit]
            if digit < 4
            else data.train_images[data.train_labels == digit]
        )
        for number, pixels in enumerate(np.asarray(chosen, np.uint8)[:PICTURES]):
            path = out / "pictures" / name / f"{name}-{number:02d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).resize((SIZE, SIZE), Image.Resampling.BICUBIC).save(path)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
