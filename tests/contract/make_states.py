"""Edits of a state's record and of a progress checkpoint's facts, and what both languages say of each.

python tests/contract/make_states.py writes states.json, as make_manifests.py writes manifests.json: `record` and
`progress`, each with a good `value` and its `edits`. The sentences are Python's; `jsonschema` judges them in
test_states.py, and TypeScript is held to them by stateSchemas.test.ts.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from make_manifests import Edit, edited, edits_of

from csk_sdk import TrainingConfig
from csk_sdk.formats.schema import load_schema, violation

HERE = Path(__file__).parent
OF_TASK = load_schema("record")["properties"]["tasks"]["items"]["properties"]
TASK = {
    **{name: raw["default"] for name, raw in OF_TASK.items() if "default" in raw},
    **{"name": "birds", "classes": ["owl", "jay"], "epochs": 4, "images": 60, "seconds": 2.5, "loss": 0.25},
    **{"peak_rss_bytes": 1 << 27, "config": TrainingConfig().to_json(), "protected": {"site": "3/8"}},
    **{
        "notes": ["something"],
        "contributions": {"owl": "0" * 64},
        "carried": {"jay": ""},
        "temperature": 1.5,
    },
    **{"shared": ["owl"], "fleet": "0" * 64},
    **{"expected": {"classes": {"owl": {"task": 0.9}}}, "weather": {"of a newer one": [1, 2.5]}},
}
GOOD: dict[str, Any] = {
    "record": {
        **{"number": 2, "parent": 0, "created": "2026-01-01T00:00:00+00:00", "tasks": [TASK, TASK]},
        **{
            "sha256": "0" * 64,
            "size": 4096,
            "min_writer": 1,
            "blocks": ["0" * 64],
            "colour": "of a newer one",
        },
    },
    "progress": {
        **{"task": "birds", "fingerprint": "0" * 64, "generation": 1, "config": TrainingConfig().to_json()},
        **{"backend": "portable", "version": "0.1.0", "step": 12, "loss": 3.5, "seconds": 1.25},
        **{"profile": "fast", "micro_batch": None, "plateau": {"best": -1.0, "stale": 0}, "colour": 1},
        "default_train": "auto",
    },
}


def recorded(name: str) -> dict[str, Any]:
    """A good value, and what is said of each edit of it."""
    value, schema = GOOD[name], load_schema(name)
    edits: list[Edit] = [*edits_of(value, schema, ()), *(_carried(name))]
    return {
        "value": value,
        "edits": [{**edit, "refused": violation(edited(value, edit), schema)} for edit in edits],
    }


def _carried(name: str) -> list[Edit]:
    """What nobody knows is allowed, whatever it is."""
    places: list[list[Any]] = [["unheard"], *([["tasks", 1, "unheard"]] if name == "record" else [])]
    return [{"path": place, "value": value} for place in places for value in (None, 1.5, "x", [], {"y": [1]})]


def main() -> None:
    found = {name: recorded(name) for name in GOOD}
    (HERE / "states.json").write_text(json.dumps(found, indent=1) + "\n")
    print({name: len(one["edits"]) for name, one in found.items()})


if __name__ == "__main__":
    main()
