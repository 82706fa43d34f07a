"""A video for a browser's camera: each image sharp for three frames, then blurred for one.

python test/video.py OUT.y4m IMAGE...
"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image, ImageFilter

WIDTH, HEIGHT, RATE, SHARP, BLUR = 320, 240, 10, 3, 8


def main(out: Path, images: list[Path]) -> None:
    """Write YUV4MPEG2 of all images, in their order."""
    with out.open("wb") as file:
        file.write(f"YUV4MPEG2 W{WIDTH} H{HEIGHT} F{RATE}:1 Ip A1:1 C420\n".encode())
        for path in images:
            with Image.open(path) as image:
                # With the edges of the network's own pixels, as a printed digit has edges.
                small = image.convert("L").resize((8, 8), Image.Resampling.BOX)
            frame = Image.new("L", (WIDTH, HEIGHT))
            frame.paste(small.resize((HEIGHT, HEIGHT), Image.Resampling.NEAREST), ((WIDTH - HEIGHT) // 2, 0))
            blurred = frame.filter(ImageFilter.GaussianBlur(BLUR))
            for one in [frame] * SHARP + [blurred]:
                file.write(b"FRAME\n" + one.tobytes() + bytes([128]) * (WIDTH * HEIGHT // 2))


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(path) for path in sys.argv[2:]])
