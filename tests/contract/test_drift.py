"""What is made of the contract is what the contract says (tools/contract.py)."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[2]


def generator() -> ModuleType:
    """tools/contract.py."""
    spec = importlib.util.spec_from_file_location("contract_generator", ROOT / "tools" / "contract.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_generated_file_is_fresh() -> None:
    assert generator().drifted(ROOT) == [], "run: make contract"
