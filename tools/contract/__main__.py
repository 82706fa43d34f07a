"""Write them all, in their languages' styles."""

from __future__ import annotations

import subprocess
import sys

from tools.contract import CONTRACT, JAVASCRIPT, ROOT, generated


def main() -> None:
    """Write them all, in their languages' styles."""
    for path, text in generated().items():
        (ROOT / path).parent.mkdir(exist_ok=True)
        (ROOT / path).write_text(text, encoding="utf-8")
    subprocess.run([sys.executable, "-m", "ruff", "format", "--quiet", str(ROOT / CONTRACT)], check=True)
    subprocess.run(["npx", "biome", "check", "--write", "src/contract"], cwd=ROOT / JAVASCRIPT, check=True)


if __name__ == "__main__":
    main()
