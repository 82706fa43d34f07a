"""Write what is made of `csk_sdk/contract`: python -m tools.contract (make contract)

Settings and thresholds are written once, in `settings.json` and `thresholds.json`, and the shapes of files in
`*.schema.json`. Python reads them. Made of them are the fields of `TrainingConfig` (so that editors and mypy know
them), TypeScript's `src/contract` (for runtimes that cannot import JSON) and pages of `docs/`;
`tests/contract/test_contract.py` fails where a file is not what this writes.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from tools.contract.pages import settings_page, state_page, thresholds_page
from tools.contract.python import python_fields
from tools.contract.shared import camel
from tools.contract.typescript import schema_module, sentences_module, settings_module, thresholds_module

ROOT = Path(__file__).parents[2]
CONTRACT = Path("sdk") / "csk_sdk" / "contract"
JAVASCRIPT = Path("device_runners") / "js"
SCHEMAS = ("fleet", "fleet_device", "manifest", "progress", "record", "statement")


def generated(root: Path = ROOT) -> dict[Path, str]:
    """Each file's text by its path below `root`, in its language's style but for the lines' length."""
    contract = root / CONTRACT
    settings, thresholds, sentences = (
        json.loads((contract / f"{name}.json").read_text(encoding="utf-8"))
        for name in ("settings", "thresholds", "sentences")
    )
    there = JAVASCRIPT / "src" / "contract"
    return {
        CONTRACT / "training_fields.py": python_fields(settings),
        there / "settings.ts": settings_module(settings),
        there / "sentences.ts": sentences_module(sentences),
        there / "thresholds.ts": thresholds_module(thresholds),
        Path("docs") / "settings.md": settings_page(settings),
        Path("docs") / "thresholds.md": thresholds_page(thresholds),
        Path("docs") / "state.md": state_page(
            (root / "docs" / "state.md").read_text(encoding="utf-8"),
            json.loads((contract / "record.schema.json").read_text(encoding="utf-8")),
        ),
        **{
            there / f"{camel(name)}Schema.ts": schema_module(contract / f"{name}.schema.json")
            for name in SCHEMAS
        },
    }


def drifted(root: Path = ROOT) -> list[str]:
    """The files below `root` that are not what the contract makes of them, and those that are of no contract."""
    made = generated(root)
    there = {
        path.relative_to(root)
        for path in (*(root / JAVASCRIPT / "src" / "contract").iterdir(), *(root / path for path in made))
    }
    return sorted(
        str(path)
        for path in there
        if path not in made
        or not (root / path).exists()
        or essence((root / path).read_text(encoding="utf-8")) != essence(made[path])
    )


def essence(text: str) -> str:
    """A text without what a formatter may do to it: white space, commas behind the last of several, brackets' lines."""
    return re.sub(r",(?=[}\])])", "", re.sub(r"\s+", "", text))
