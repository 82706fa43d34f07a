"""The image of docs/web-app.md, from the screenshots that `make test-app` takes.

python tools/picture.py out/screenshots ../../../docs/images/app.png
"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image

SHOTS = ("17-burst.png", "3-learned.png", "8-small-phone-dark.png")
WIDTH, HEIGHT, GAP = 300, 900, 24


def main(shots: Path, out: Path) -> None:
    """The upper part of each screenshot, side by side."""
    whole = Image.new("RGB", (len(SHOTS) * (WIDTH + GAP) - GAP, HEIGHT), "white")
    for number, name in enumerate(SHOTS):
        with Image.open(shots / name) as shot:
            small = shot.convert("RGB").resize(
                (WIDTH, round(shot.height * WIDTH / shot.width)), Image.Resampling.LANCZOS
            )
        whole.paste(small.crop((0, 0, WIDTH, min(HEIGHT, small.height))), (number * (WIDTH + GAP), 0))
    whole.quantize(128).save(out, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
