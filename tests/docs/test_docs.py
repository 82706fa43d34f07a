"""The documentation is true: links lead somewhere, examples run, commands and modules exist."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from conftest import NAMES, REPOSITORY, Digits, build_digits_bundle
from csk_artifacts_builder.gradients import registered_ops
from csk_sdk.bundle.folder import Bundle
from csk_sdk.contract.manifest import EVAL_MODEL, MEMORY_MODEL, TRAINING_MODEL

PAGES = sorted(
    [*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/**/*.md"), *REPOSITORY.glob("examples/**/*.md")]
)
PACKAGES = ("sdk/csk_sdk", "artifacts_builder/csk_artifacts_builder", "device_runners/csk_device_runners")
BUILDER_TESTS = REPOSITORY / "tests" / "builder"
CODE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
TESTED = re.compile(r"<!-- tested: ([\w-]+) -->\n```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(REPOSITORY).as_posix())


def prose(page: Path) -> str:
    return CODE.sub("", page.read_text(encoding="utf-8"))


def between(page: Path, begin: str, end: str) -> str:
    text = page.read_text(encoding="utf-8")
    assert text.count(f"<!-- {begin} -->") == text.count(f"<!-- {end} -->") == 1, f"{page}: {begin}"
    return text.split(f"<!-- {begin} -->")[1].split(f"<!-- {end} -->")[0]


# --- links


@pages
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for target in re.findall(r"\[[^\]]*\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"https?://", target):
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        if not found.exists() or (anchor and anchor not in anchors(found)):
            broken.append(target)
    assert broken == []


def anchors(page: Path) -> set[str]:
    """The ids that GitHub gives to a page's headings."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


# --- commands


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_cli", REPOSITORY / "docs" / "generate_cli.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_the_command_line_page_is_fresh() -> None:
    generate = generator()
    assert generate.PAGE.read_text(encoding="utf-8") == generate.page(), "run: python docs/generate_cli.py"


def commands_in(page: Path) -> list[str]:
    """Every `csk-sdk ...`, `make ...` and `python ...` of a page, in shell blocks and in running text."""
    blocks = [
        code for _, language, code in CODE.findall(page.read_text(encoding="utf-8")) if language == "sh"
    ]
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    inline = re.findall(r"`([^`\n]+(?:\n[^`\n]+)?)`", prose(page))
    return [line for line in lines + inline if re.match(r"(csk-sdk|make|python) ", line)]


@pages
def test_commands_exist(page: Path) -> None:
    generate = generator()
    options = {
        name: {option for one in generate.parameters(command) if one.is_option for option in one.names}
        for name, command in generate.commands().items()
    }
    for line in commands_in(page):
        program, *words = shlex.split(line, comments=True)
        if program == "csk-sdk" and words[0][0].isalpha():
            # A command, or one of a group.
            name = " ".join(words[: 2 if words[0] == "fleet" and words[1:] else 1])
            assert name in options or name == "fleet", line
            if name == "fleet":
                continue
            given = {word.partition("=")[0] for word in words[1:] if word.startswith("--")}
            assert given <= options[name] | {"--help"}, line
        elif program == "make":
            targets = re.findall(r"^([\w-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
            assert {word for word in words if "=" not in word} <= set(targets), line
        elif program == "python" and words[0] == "-m":
            assert importlib.util.find_spec(words[1]) is not None, line
        elif program == "python":
            assert (REPOSITORY / words[0]).is_file(), line


# --- code


def programs_of(page: str) -> dict[str, str]:
    """The page's programs: blocks of one name are one program."""
    programs: dict[str, str] = {}
    for name, code in TESTED.findall((REPOSITORY / page).read_text(encoding="utf-8")):
        programs[name] = programs.get(name, "") + code + "\n"
    return programs


def run_python(code: str, folder: Path) -> str:
    script = folder / "example.py"
    script.write_text(code, encoding="utf-8")
    search = os.pathsep.join(
        filter(
            None, [*(str(BUILDER_TESTS / part) for part in ("", "gradients")), os.environ.get("PYTHONPATH")]
        )
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": search}
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pages
def test_no_marked_block_is_overlooked(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert len(TESTED.findall(text)) == text.count("<!-- tested:")


def test_every_marked_block_has_a_test() -> None:
    marked = {page.relative_to(REPOSITORY).as_posix(): set(programs_of(str(page))) for page in PAGES}
    assert {page: names for page, names in marked.items() if names} == {
        "README.md": {"embed"},
        "docs/embedding.md": {"embed"},
        # The second one is run by tests/ort_training, where its package is.
        "docs/bundle.md": {"drive", "ort-training"},
        "docs/tutorial.md": {"tutorial"},
        "docs/adding-an-op.md": {"thresholded-relu-rule", "thresholded-relu-row"},
    }


def test_the_readme_is_run(tmp_path: Path, digits_bundle: Path, digits: Digits) -> None:
    (tmp_path / "bundle").symlink_to(digits_bundle)
    for digit in (4, 5):
        folder = tmp_path / "tasks" / "01-birds" / "train" / NAMES[digit]
        folder.mkdir(parents=True)
        for index, pixels in enumerate(digits.of(digit, 0, 20)):
            Image.fromarray(pixels).save(folder / f"{index}.png")
    np.save(tmp_path / "images.npy", digits.of(4, 100, 108)[..., None])
    given = "import numpy as np\nimages = np.load('images.npy')\n"
    output = run_python(given + programs_of("README.md")["embed"] + "print(*labels)\n", tmp_path)
    assert output.split().count("four") >= 7
    assert (tmp_path / "updated.onnx").is_file()


def test_the_readme_is_short_and_begins_with_python() -> None:
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    assert len(text.split()) <= 900
    assert text[: text.index("```python")].count("\n") < 40


def test_the_readme_says_what_was_measured() -> None:
    """Its numbers of whole runs are those of the pages that it names."""
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    results = (REPOSITORY / "docs/results.md").read_text(encoding="utf-8")
    steps = (REPOSITORY / "docs/benchmarks.md").read_text(encoding="utf-8")
    # Of today's graphs, and of the large table's.
    ratio, _ = re.findall(
        r"^\*\*ResNet-18, 32x32, batch 16\*\*.*?^\| torch eager, all weights \|(?:[^|]*\|){3} ([\d.]+) \|",
        steps,
        re.MULTILINE | re.DOTALL,
    )
    assert f"an int8 step is {float(ratio):.1f} times as fast as torch's full fine-tuning" in text
    stream = results[results.index("## Ten tasks of five classes, 100 images a class") :]
    for name, title in (
        ("**csk-sdk, centers**", "csk-sdk, centers"),
        ("**csk-sdk, frozen backbone**", "csk-sdk, frozen backbone"),
        ("Adam-NSCL", "Adam-NSCL"),
    ):
        task, everything = re.findall(rf"^\| {title} \| ([\d.]+) ±", stream, re.MULTILINE)[:2]
        (row,) = re.findall(rf"^\| {re.escape(name)} \| (.*) \|$", text, re.MULTILINE)
        assert row.replace("*", "").split(" | ") == [f"{task} %", f"{everything} %"]


@pytest.mark.slow
def test_embedding(tmp_path: Path, digits_bundle: Path, digits: Digits) -> None:
    (tmp_path / "bundle").symlink_to(digits_bundle)
    images, labels = digits.arrays((4, 5), 0, 20)
    np.savez(
        tmp_path / "new-classes.npz",
        images=images[..., None],
        labels=labels,
        class_names=np.array(NAMES[4:6]),
    )
    pictures, ids = digits.arrays((8, 9), 0, 16)
    np.savez(tmp_path / "camera.npz", images=pictures[..., None], labels=ids)
    camera = (
        "def camera():\n"
        "    found = np.load('camera.npz')\n"
        "    order = np.random.default_rng(0).permutation(32)\n"
        "    for start in range(0, 32, 8):\n"
        "        index = order[start:start + 8]\n"
        "        yield found['images'][index], found['labels'][index]\n\n"
    )
    code = programs_of("docs/embedding.md")["embed"].replace(
        "with learner.stream", camera + "with learner.stream"
    )
    output = run_python(code + "print(*learner.classes)\n", tmp_path)
    assert output.startswith("learned four, five in ")
    assert output.splitlines()[-1].split() == [NAMES[digit] for digit in (0, 1, 2, 3, 4, 5, 8, 9)]
    assert (tmp_path / "updated.onnx").is_file()


def test_embedding_is_the_example() -> None:
    example = (REPOSITORY / "examples" / "embed.py").read_text(encoding="utf-8")
    body = example.split("def main(bundle: str, data: str) -> None:\n")[1].split('\n\n\nif __name__ == "')[0]
    dedented = "\n".join(line.removeprefix("    ") for line in body.splitlines())
    assert dedented in programs_of("docs/embedding.md")["embed"]


@pytest.mark.parametrize("trained", ["digits_bundle", "kernels_bundle"])
def test_driving_the_graphs(tmp_path: Path, request: pytest.FixtureRequest, trained: str) -> None:
    (tmp_path / "bundle").symlink_to(request.getfixturevalue(trained))
    blocked = "import sys\nsys.modules.update(csk_sdk=None, onnx=None, safetensors=None)\n"
    output = run_python(blocked + programs_of("docs/bundle.md")["drive"], tmp_path)
    *steps, folded = output.splitlines()
    losses = [float(line.split()[1]) for line in steps]
    assert losses[-1] < 0.7 * losses[0]
    assert float(folded.split()[-1]) < 1e-4


# Around the page's program: what its sessions are opened with, and one step of theirs.
WATCHED = """
import sys
sys.modules.update(csk_sdk=None, onnx=None, safetensors=None)
import onnxruntime
asked = []
class Watched(onnxruntime.InferenceSession):
    def __init__(self, path, options, **given):
        wide = options.get_session_config_entry("session.x64quantprecision")
        asked.append([path, wide, *given["disabled_optimizers"]])
        super().__init__(path, options, **given)
onnxruntime.InferenceSession = Watched
"""
STEP = """
zeros = {name: np.zeros_like(value) for name, value in learned.items() if name in deltas}
head_only = {**learned, **zeros}
names = [output.name for output in training.get_outputs()]
found = training.run(names, {"image": images, "label": labels, **selected, **head_only})
outputs = {"out." + name: value for name, value in zip(names, found)}
np.savez("step.npz", image=images, label=labels, **selected, **head_only, **outputs)
json.dump(asked, open("asked.json", "w"))
"""


@pytest.mark.parametrize("precision", ["exact", "int8"])
def test_the_sessions_of_the_page_are_those_of_the_sdk(
    tmp_path: Path, base_data: Path, precision: str
) -> None:
    """Where sums saturate, too: `make test-saturating` runs this on such a CPU."""
    build_digits_bundle(tmp_path / "bundle", base_data=base_data, precision=precision)
    run_python(WATCHED + programs_of("docs/bundle.md")["drive"] + STEP, tmp_path)
    asked = json.loads((tmp_path / "asked.json").read_text())
    assert {Path(path).name for path, *_ in asked} == {TRAINING_MODEL, EVAL_MODEL, MEMORY_MODEL}
    for _, *one in asked:
        assert one == ["1", "WhereDummyDq", "CommonSubexpressionElimination"]
    with np.load(tmp_path / "step.npz") as step:
        given = {name: step[name] for name in step.files if not name.startswith("out.")}
        theirs = {name.removeprefix("out."): step[name] for name in step.files if name.startswith("out.")}
    bundle = Bundle.open(tmp_path / "bundle")
    ours = bundle.graph(TRAINING_MODEL, bundle.checkpoint(), 1).run(given)
    assert set(ours) == set(theirs)
    for name, value in ours.items():
        largest = max(float(np.abs(value).max()), 1e-30)
        assert float(np.abs(theirs[name] - value).max()) < 1e-5 * largest, name


def test_the_page_leaves_nothing_in_a_home(tmp_path: Path, digits_bundle: Path) -> None:
    (tmp_path / "bundle").symlink_to(digits_bundle)
    home = "import os\nos.environ.pop('ORT_DISABLE_TELEMETRY', None)\n"
    home += "os.environ.update(HOME=os.getcwd() + '/home', XDG_CACHE_HOME=os.getcwd() + '/home/cache')\n"
    (tmp_path / "home").mkdir()
    run_python(home + programs_of("docs/bundle.md")["drive"], tmp_path)
    assert list((tmp_path / "home").rglob("*")) == []


@pytest.mark.slow
def test_adding_an_op(tmp_path: Path) -> None:
    """In a process of its own: the rule must not stay registered."""
    programs = programs_of("docs/adding-an-op.md")
    script = (
        "from csk_artifacts_builder.gradients import activations\n"
        f"exec({programs['thresholded-relu-rule']!r}, vars(activations))\n"
        "import gradient_check, rows_activations\n"
        f"(row,) = eval({'(' + programs['thresholded-relu-row'].strip() + ')'!r}, vars(rows_activations))\n"
        "gradient_check.check(row)\n"
        "print('agrees')\n"
    )
    assert run_python(script, tmp_path) == "agrees\n"


# --- lists that can be incomplete


def test_every_op_with_a_rule_is_listed() -> None:
    listed = re.findall(r"\w+", between(REPOSITORY / "docs" / "requirements.md", "ops", "end of ops"))
    assert listed == sorted(registered_ops())


def test_the_architecture_page_lists_every_module() -> None:
    page = REPOSITORY / "docs" / "architecture.md"
    listed, folder = [], ""
    for name in re.findall(r"^\| `([^`]+)` \|", between(page, "modules", "end of modules"), re.MULTILINE):
        if name.endswith("/"):
            folder = name
        else:
            listed.append(folder + name)
    there = [
        path.relative_to(REPOSITORY).as_posix()
        for package in PACKAGES
        for path in (REPOSITORY / package).rglob("*.py")
        if not path.name.startswith("__")
    ]
    assert sorted(listed) == sorted(there), "docs/architecture.md: one line for each module"
    assert len(listed) == len(set(listed))


def test_the_bundle_page_lists_every_field_of_the_manifest(digits_bundle: Path) -> None:
    text = (REPOSITORY / "docs" / "bundle.md").read_text(encoding="utf-8")
    manifest = json.loads((digits_bundle / "manifest.json").read_text(encoding="utf-8"))
    fields = {
        *manifest,
        *manifest["head"],
        *manifest["sites"][0],
        *manifest["preprocessing"],
        *manifest["files"],
    }
    assert {name for name in fields if f"`{name}`" not in text} == set()


def test_the_decisions_have_a_list() -> None:
    folder = REPOSITORY / "docs" / "decisions"
    rows = re.findall(
        r"^\| \[(\d{4})\]\(([^)]+)\) \| (.*) \|$", (folder / "README.md").read_text(), re.MULTILINE
    )
    titles = {path.name: path.read_text(encoding="utf-8").split("\n")[0] for path in folder.glob("0*.md")}
    assert {name: f"# {number}: {title}" for number, name, title in rows} == titles


SOURCES = sorted(
    path
    for folder in ("sdk", "artifacts_builder", "device_runners", "tests", "benchmarks", "examples")
    for suffix in ("py", "ts", "js")
    for path in (REPOSITORY / folder).rglob(f"*.{suffix}")
    if not {"node_modules", "out", "dist", "build"}.intersection(path.relative_to(REPOSITORY).parts)
)


def test_what_comments_cite_is_there() -> None:
    """Pages of docs/ by their path and heading, and no document that is not part of the repository."""
    missing = []
    for path in SOURCES:
        text = path.read_text(encoding="utf-8")
        for name, anchor in re.findall(r"\bdocs/((?:[\w-]+/)*[\w-]+\.md)(?:#([\w-]+))?", text):
            page = REPOSITORY / "docs" / name
            if not page.is_file() or (anchor and anchor not in anchors(page)):
                missing.append((path.name, name, anchor))
        missing += [(path.name, found, "") for found in re.findall(r"DESIGN\s+\d[\d.]*", text)]
    assert missing == []


PROGRAM = re.compile(
    r"<!-- tested: tutorial -->\n```python\n(?P<python>.*?)^```$|^```sh\n(?P<shell>.*?)^```$"
    r"|<!-- printed -->\n```\n(?P<printed>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


def form(line: str) -> str:
    """A line of output without what differs from run to run: numbers, and the width of columns."""
    return re.sub(r"[\d.]+", "#", re.sub(r"[\s─]+", " ", line)).strip()


@pytest.mark.slow
def test_the_tutorial_from_its_first_block_to_its_last(tmp_path: Path) -> None:
    """Its shell and Python blocks in their order, in one folder; what it says is printed, is printed before."""
    text = (REPOSITORY / "docs" / "tutorial.md").read_text(encoding="utf-8")
    assert text.count("```") == 2 * (len(PROGRAM.findall(text)) + 1), "a block that nothing looks at"
    output, shell_folder, run = "", tmp_path, []
    for block in PROGRAM.finditer(text):
        if block["python"]:
            output += run_python(block["python"], tmp_path)
        elif block["printed"]:
            printed = {form(line) for line in output.splitlines()}
            assert [one for one in block["printed"].splitlines() if form(one) not in printed] == [], output
        for line in (block["shell"] or "").replace("\\\n", " ").splitlines():
            program, *words = shlex.split(line, comments=True)
            if program == "cd":
                shell_folder = shell_folder / words[0]
            elif program == "csk-sdk":
                run.append(words[0])
                output += run_cli(words, shell_folder)
            else:
                assert (program, words[0]) == ("pip", "install"), line
    assert run == ["build-artifacts", "doctor", "tasks", "train", "predict", "export", "rollback", "report"]
    assert all((tmp_path / "device" / name).is_file() for name in ("updated.onnx", "report.html"))


def run_cli(arguments: list[str], folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "csk_sdk", *arguments],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "120"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr
