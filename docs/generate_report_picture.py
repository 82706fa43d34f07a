"""Write docs/images/report.png, the beginning of a real report: python docs/generate_report_picture.py WORKSPACE

WORKSPACE is a device's, such as out/demo/workspace after `make demo`. Needs Chromium.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

PICTURE = Path(__file__).parent / "images" / "report.png"
SIZE = 1100, 1130
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--hide-scrollbars",
)  # fmt: skip


def main() -> None:
    """Report, photograph, shrink."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or sys.exit("Install Chromium.")
    with tempfile.TemporaryDirectory() as folder:
        html, shot = Path(folder) / "report.html", Path(folder) / "report.png"
        subprocess.run(
            [sys.executable, "-m", "csk_sdk", "report", "--workspace", sys.argv[1], "--out", str(html)],
            check=True,
        )
        subprocess.run(
            [browser, *FLAGS, f"--user-data-dir={folder}/profile", f"--window-size={SIZE[0]},{SIZE[1]}",
             f"--screenshot={shot}", html.as_uri()],
            check=True, capture_output=True, timeout=120,
        )  # fmt: skip
        Image.open(shot).convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE).save(PICTURE, optimize=True)
    print(f"wrote {PICTURE}, {PICTURE.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
