"""The digits workspace of the conformance run, made by the script that makes it."""

import importlib.util
from pathlib import Path

from platforms.digits import TASKS

REPOSITORY = Path(__file__).parents[2]


def digits_workspace(folder: Path) -> Path:
    path = REPOSITORY / "tests" / "conformance" / "digits.py"
    spec = importlib.util.spec_from_file_location("conformance_digits", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.main(folder)
    assert tuple(module.TASKS) == TASKS
    return folder
