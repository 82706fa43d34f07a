"""The rooms of docs/architecture.md: few modules in a root, no circles between modules, and none between rooms."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterable, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
PYTHON = {
    "csk_sdk": REPOSITORY / "sdk",
    "csk_artifacts_builder": REPOSITORY / "artifacts_builder",
    "csk_device_runners": REPOSITORY / "device_runners",
}
TYPESCRIPT = REPOSITORY / "device_runners/js/src"
MOST = 10

Graph = dict[str, set[str]]


def python_imports(package: str) -> Graph:
    """By module, the modules of the package that it imports anywhere: inside functions and for types, too."""
    root = PYTHON[package]
    files = {module_name(path.relative_to(root)): path for path in (root / package).rglob("*.py")}
    return {name: set(_imported(ast.parse(path.read_text("utf-8")), files)) for name, path in files.items()}


def module_name(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imported(tree: ast.AST, known: Iterable[str]) -> Iterable[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                if inner in known or node.module in known:
                    yield inner if inner in known else node.module


def typescript_imports() -> Graph:
    graph: Graph = {}
    for path in TYPESCRIPT.rglob("*.ts"):
        found = re.findall(r"(?:import|export)\b[^;]*?from '(\.[^']+)'", path.read_text("utf-8"))
        targets = (os.path.normpath(path.parent / name).replace(".js", ".ts") for name in found)
        graph[path.relative_to(TYPESCRIPT).as_posix()] = {os.path.relpath(one, TYPESCRIPT) for one in targets}
    return graph


def rooms(graph: Graph, room_of: Mapping[str, str]) -> Graph:
    """The same between rooms: what lies in a root is a room of its own."""
    found: Graph = {}
    for one, others in graph.items():
        found.setdefault(room_of[one], set()).update(room_of[other] for other in others)
    return {room: others - {room} for room, others in found.items()}


def circle(graph: Graph) -> list[str]:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


@pytest.mark.parametrize("package", PYTHON)
def test_no_modules_import_each_other_in_a_circle(package: str) -> None:
    graph = python_imports(package)
    assert sum(map(len, graph.values())) >= 5, "the imports are read"
    assert not circle(graph)


@pytest.mark.parametrize("package", ["csk_sdk", "csk_artifacts_builder"])
def test_no_rooms_import_each_other_in_a_circle(package: str) -> None:
    graph = python_imports(package)
    inside = {name.rpartition(".")[0] for name in graph if name.count(".") > 1}
    # The package itself names what is public, which is on top of everything.
    room_of = {
        name: name if name in inside else name.rpartition(".")[0] if name.count(".") > 1 else name
        for name in graph
    }
    assert not circle(rooms(graph, room_of))


def test_no_typescript_modules_import_each_other_in_a_circle() -> None:
    graph = typescript_imports()
    assert sum(map(len, graph.values())) > 100, "the imports are read"
    assert set().union(*graph.values()) <= graph.keys()
    assert not circle(graph)


@pytest.mark.parametrize("package", PYTHON)
def test_a_package_s_root_holds_few_modules(package: str) -> None:
    assert len(list((PYTHON[package] / package).glob("*.py"))) <= MOST


def test_the_typescript_root_holds_few_modules() -> None:
    assert len(list(TYPESCRIPT.glob("*.ts"))) <= MOST


@pytest.mark.parametrize("package", PYTHON)
def test_what_is_installed_needs_nothing_of_the_tests(package: str) -> None:
    tests = {path.stem for path in (REPOSITORY / "tests").iterdir()} | {"pytest", "hypothesis"}
    for path in (PYTHON[package] / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert not tests & {name.split(".")[0] for name in names}, path
