"""Does anybody notice a default or a threshold that was changed in one language? python tests/contract/drift.py

Each line of the table is one change, made in a copy of the sources: in what is generated, or where a value is read,
which then holds a number of its own. The checks are those of test_contract.py; the last column is the first that fails.
"""

from __future__ import annotations

import ast
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from csk_sdk.contract.thresholds import THRESHOLDS

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
from tools.contract import drifted  # noqa: E402
from tools.contract.shared import camel as camel_of  # noqa: E402
from tools.contract.typescript import value_of  # noqa: E402

PYTHON, TYPESCRIPT = Path("sdk/csk_sdk"), Path("device_runners/js/src")
# Where thresholds live. What stays there is none: a logit of never, the smallest number, float32's rounding, and
# how large a block is, and when iterating ends; and how memory is counted and streams are told, in Python only.
WATCHED = ("method", "learning")
# Nor are the bytes of a machine's instructions, and the published numbers of a way to draw at random.
TABLES = {"tiles", "wasmTiles", "random"}
ALLOWED = {
    *(
        "calibration._NEVER",
        "calibration.NEVER",
        "covariance.TINY",
        "projection.RANK_TOLERANCE",
        "symmetric.BLOCK",
        *("symmetric._AT_ONCE", "novelty._AT_ONCE", "drift._AT_ONCE", "unknown._SMALL"),
        *("symmetric.AT_ONCE", "symmetric.LEFT"),
        *("symmetric.LOOKED_AT", "symmetric.UNITS_AT_ONCE"),
        *("matrix.SQUARE", "matrix.WORTH_COPYING", "matrix.MOST_COLUMNS", "matrix.MOST_NUMBERS"),
        *("linearMap.NEAR", "linearMap.EXACT", "linearMap.ROUNDS"),
    ),
    *(
        "memory_budget._KERNELS_IN_FLIGHT",
        "memory_budget._STATISTICS_MATRICES",
        "memory_budget._DRIFT_MATRICES",
        "memory_budget._DOMAIN_WEIGHTS",
        "memory_budget._DIFFERS",
    ),
    *("memory_budget._MIB", "prefix_cache.MEMORY_BYTES", "prefix_cache._SPARE_DISK", "stream._HELD"),
    *("forgetting._NEVER", "forgetting.NEVER"),
    # JavaScript learns no signals.
    "novelty.WIDER",
}
CONSTANTS = re.compile(r"^(?:export )?const ([A-Z_0-9]+)\b[^=\n]*= [^;]*\d[^;]*;", re.MULTILINE)
READS = re.compile(r'\b(?:number|integer)\(\s*"(\w+)",\s*"(\w+)"\s*\)')
# GROUP.name; what it looks ahead at may be a group itself.
MEMBERS = re.compile(r"\b([A-Z][A-Z_0-9]*)(?=\.(\w+))")


def stale(root: Path = ROOT) -> list[str]:
    """Generated files that are not what the contract makes of them."""
    return [f"{path} is stale: run make contract" for path in drifted(root)]


def unread(root: Path = ROOT) -> list[str]:
    """Thresholds that Python does not read in exactly one place, or TypeScript in exactly one module."""
    python = [read for text in _texts(root / PYTHON, "py") for read in READS.findall(text)]
    javascript = [set(MEMBERS.findall(text)) for text in _texts(root / TYPESCRIPT, "ts")]
    found = []
    for group, name in keys():
        if python.count((group, name)) != 1:
            found.append(f"Python reads {group}.{name} in {python.count((group, name))} places")
        if not THRESHOLDS[group].get("javascript", True):
            continue
        modules = sum((group.upper(), camel_of(name)) in members for members in javascript)
        if modules != 1:
            found.append(f"{modules} modules of TypeScript read {group}.{name}")
    return found


def _texts(folder: Path, ending: str) -> list[str]:
    return [path.read_text("utf-8") for path in folder.rglob(f"*.{ending}") if path.parent.name != "contract"]


def keys() -> Iterator[tuple[str, str]]:
    """Group and name of every threshold."""
    for group, values in THRESHOLDS.items():
        yield from ((group, name) for name in values if name not in ("source", "javascript"))


def literal(root: Path = ROOT) -> list[str]:
    """Named numbers that stand in the sources of the method and of learning, and not in the contract."""
    names = [name for name in named_numbers(root) if name.partition(".")[0] not in TABLES]
    return [f"{name} is a number of its own" for name in names if name not in ALLOWED]


def named_numbers(root: Path = ROOT) -> list[str]:
    """Those of both languages, as "module.NAME"."""
    found = []
    for room in WATCHED:
        for path in sorted((root / PYTHON / room).glob("*.py")):
            for node in ast.parse(path.read_text("utf-8")).body:
                if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
                    numbers = [one for one in ast.walk(node.value) if isinstance(one, ast.Constant)]
                    if any(type(one.value) in (int, float) for one in numbers):
                        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                        found += [f"{path.stem}.{ast.unparse(target)}" for target in targets]
        for path in sorted((root / TYPESCRIPT / room).glob("*.ts")):
            found += [f"{path.stem}.{name}" for name in CONSTANTS.findall(path.read_text("utf-8"))]
    return found


CHECKS: dict[str, Callable[[Path], list[str]]] = {
    "test_every_generated_file_is_fresh": stale,
    "test_every_threshold_is_read": unread,
    "test_no_threshold_stands_elsewhere": literal,
}


@dataclass(frozen=True)
class Change:
    """In a file of one language, `old` becomes `new`; `what` is the default or threshold that it changes there."""

    what: str
    file: Path
    old: str
    new: str

    @property
    def language(self) -> str:
        return "Python" if self.file.suffix == ".py" else "TypeScript"


FIELDS, SETTINGS = PYTHON / "contract/training_fields.py", TYPESCRIPT / "contract/settings.ts"
VALUES = TYPESCRIPT / "contract/thresholds.ts"


def _default(name: str, typed: str, old: str, new: str) -> Iterator[Change]:
    camel = camel_of(name)
    yield Change(f"{name} {old}", FIELDS, f"    {name}: {typed} = {old}\n", f"    {name}: {typed} = {new}\n")
    shown, other = (repr(int(float(one))) if one.endswith(".0") else one for one in (old, new))
    yield Change(f"{camel} {shown}", SETTINGS, f"\n  {camel}: {shown},\n", f"\n  {camel}: {other},\n")


def _threshold(group: str, name: str, python: str, javascript: str, new: str) -> Iterator[Change]:
    raw, own = THRESHOLDS[group][name]["value"], camel_of(name)
    camel, value = f"{group.upper()}.{own}", value_of(raw)
    kind = "integer" if isinstance(raw, int) else "number"
    yield Change(f"{group}.{name} {value}", PYTHON / python, f'{kind}("{group}", "{name}")', new)
    yield Change(f"{camel} {value}", VALUES, f"  {own}: {value},", f"  {own}: {new},")
    yield Change(f"{camel} where it is read", TYPESCRIPT / javascript, camel, new)


CHANGES = [
    *_default("epochs", "int", "4", "5"),
    *_default("patience", "int", "3", "4"),
    *_default("energy", "float", "0.8", "0.7"),
    *_default("learning_rate", "float", "0.01", "0.02"),
    *_default("head_learning_rate", "float", "0.005", "0.01"),
    *_default("momentum", "float", "0.9", "0.8"),
    *_default("sensitivity_batches", "int", "32", "16"),
    *_default("max_forgetting", "float", "3.0", "4.0"),
    *_default("few_shot", "int", "30", "20"),
    Change("label_check True", FIELDS, "    label_check: bool = True\n", "    label_check: bool = False\n"),
    Change("labelCheck true", SETTINGS, "\n  labelCheck: true,\n", "\n  labelCheck: false,\n"),
    Change("energy at most 1", SETTINGS, "rule: 'between 0 and 1',\n    minimum: 0,\n    maximum: 1,",
           "rule: 'between 0 and 1',\n    minimum: 0,\n    maximum: 2,"),
    Change("momentum below 1", SETTINGS, "exclusiveMaximum: 1,", "exclusiveMaximum: 2,"),
    Change("the sentence of a refusal", TYPESCRIPT / "contract/sentences.ts", "look wrong", "are wrong"),
    Change("the sentence", SETTINGS, "it must be", "it has to be"),
    *_threshold("label_check", "useful", "method/label_check.py", "method/labelCheck.ts", "0.3"),
    *_threshold("label_check", "level", "method/label_check.py", "method/labelCheck.ts", "0.05"),
    *_threshold("novelty", "unfamiliar", "method/novelty.py", "learning/acceptance.ts", "1.5"),
    *_threshold("novelty", "shrinkage", "method/novelty.py", "method/novelty.ts", "0.05"),
    *_threshold("forgetting", "width", "method/forgetting.py", "method/forgetting.ts", "1.0"),
    *_threshold("known_classes", "most", "method/known_classes.py", "method/knownClasses.ts", "10"),
    *_threshold("known_classes", "familiar", "method/known_classes.py", "method/knownClasses.ts", "2.0"),
    *_threshold("contributions", "mixtures", "method/contributions.py", "method/contributions.ts", "16"),
    *_threshold("stopping", "least_fall", "learning/stopping.py", "learning/stopping.ts", "0.02"),
    *_threshold("calibration", "highest", "method/calibration.py", "method/calibration.ts", "10"),
    *_threshold("drift", "ridge", "method/drift.py", "method/drift.ts", "0.1"),
    *_threshold("head", "weight_decay", "method/logistic.py", "method/logistic.ts", "0.1"),
    *_threshold("discriminant", "prior_images", "objectives/classification.py", "network/predicting.ts", "10"),
    *_threshold("warm_up", "most_steps", "method/optimizers.py", "method/optimizers.ts", "10"),
]  # fmt: skip


def copied(folder: Path) -> Path:
    """A copy of the sources that the checks read."""
    for path in (PYTHON, TYPESCRIPT):
        shutil.copytree(ROOT / path, folder / path, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "docs").mkdir()
    for page in ("settings.md", "state.md", "thresholds.md"):
        shutil.copy(ROOT / "docs" / page, folder / "docs")
    return folder


def notices(copy: Path, change: Change) -> dict[str, list[str]]:
    """What each check that fails says of a change, which is made in the copy and taken back."""
    path = copy / change.file
    text = path.read_text("utf-8")
    assert change.old in text, f"{change.what}: {change.file} holds no {change.old!r}"
    try:
        # All of them: a value may be read in several places of a TypeScript module.
        path.write_text(text.replace(change.old, change.new), "utf-8")
        found = {name: check(copy) for name, check in CHECKS.items()}
    finally:
        path.write_text(text, "utf-8")
    return {name: said for name, said in found.items() if said}


def main() -> int:
    """The table; 1 where a change is not noticed."""
    missed = 0
    with tempfile.TemporaryDirectory() as folder:
        copy = copied(Path(folder))
        assert not any(check(copy) for check in CHECKS.values()), "the sources are as they should be"
        print(f"{'changed':34} {'in':11} {'file':52} noticed by")
        for change in CHANGES:
            said = notices(copy, change)
            missed += not said
            by = next(iter(said), "NOBODY")
            print(f"{change.what:34} {change.language:11} {change.file.as_posix():52} {by}")
    print(f"{len(CHANGES)} changes, {missed} of them not noticed")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
