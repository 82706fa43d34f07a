"""Write `csk_sdk/contract` as TypeScript, for runtimes that cannot import JSON: python tools/contract.py

`tests/contract/test_manifests.py` fails where a file is not what this writes.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

HERE = Path(__file__).parents[1]
SCHEMAS = Path(__file__).parents[3] / "sdk" / "csk_sdk" / "contract"


def generated() -> dict[Path, str]:
    """Each file's text, before it is formatted."""
    return {
        HERE / "src" / "contract" / f"{path.name.split('.')[0]}Schema.ts": _module(path)
        for path in sorted(SCHEMAS.glob("*.schema.json"))
    }


def content_of(text: str) -> object:
    """What a generated module holds: its formatting aside, which is the formatter's."""
    return json.loads(text[text.index("JSON.parse(`") + len("JSON.parse(`") : text.index("`) as")])


def _module(path: Path) -> str:
    name = path.name.split(".")[0].upper()
    text = json.dumps(json.loads(path.read_text()), indent=1).replace("\\", "\\\\").replace("`", "\\`")
    assert "${" not in text
    return (
        f"/** Generated from csk_sdk/contract/{path.name} by tools/contract.py: change it there. */\n\n"
        "import type { Schema } from '../formats/schema.js';\n\n"
        f"export const {name}_SCHEMA = JSON.parse(`{text}`) as Schema;\n"
    )


if __name__ == "__main__":
    for path, text in generated().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    subprocess.run(["npx", "biome", "check", "--write", "src/contract"], cwd=HERE, check=True)
