"""The supply-chain page names everything that is asked for, and its SBOM is one."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    path = REPOSITORY / "docs" / "generate_supply_chain.py"
    spec = importlib.util.spec_from_file_location("generate_supply_chain", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_the_page_lists_what_every_extra_asks_for(generator: ModuleType) -> None:
    sections = re.split(r"^## ", generator.PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    by_title = {section.split("\n", 1)[0]: section for section in sections}
    for extra in generator.EXTRAS:
        section = by_title[f"csk-sdk[{extra}]" if extra else "csk-sdk"]
        listed = {
            line.split("|")[1].strip().lower() for line in section.splitlines() if line.startswith("| ")
        }
        for requirement in generator.declared(extra):
            if requirement.name != "csk-sdk":
                assert requirement.name.lower() in listed, f"{extra}: run make sbom"


def test_every_package_that_is_listed_is_installed_and_has_a_licence(generator: ModuleType) -> None:
    document = generator.sbom()
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.5")
    names = {component["name"].lower() for component in document["components"]}
    assert names >= {"numpy", "pillow", "safetensors", "onnxruntime", "cryptography", "onnx"}
    for component in document["components"]:
        assert component["version"]
        assert component["licenses"][0]["license"]["name"] not in ("", "None")
        assert (
            component["purl"]
            == f"pkg:pypi/{re.sub(r'[-_.]+', '-', component['name']).lower()}@{component['version']}"
        )
