"""CIFAR-100: a network that knows 50 classes learns five tasks of ten more, through the real command line.

    python benchmarks/cifar100.py --data DIR --model cifar100-base50.onnx --out out/cifar100

DIR holds cifar100-train.zip and cifar100-test.zip (`<class>/<name>.png`); beside the model lies a json with its
classes in label order, the later classes in their order, and the normalisation. Eight devices live the same life, all
with `--train centers`: one with the defaults else; one whose bundle was built with `--precision int8`; one that trains
all channels, and one that also protects less (energy 0.5); one with `--energy 0 --channel-ratio 1`, which is what
forgetting would have cost; and one that never touches the network and only fits heads (`--learning-rate 0`), which is
what training the centers must beat.
Two more have a bundle built with `--features last`: with the first one's settings, and with heads only. The result is
`results.json`, with versions and machine. `--lives LIFE ...` adds these to the results of an earlier run in the same
folder, whose bundles they use.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import time
import zipfile
from importlib import metadata
from pathlib import Path

TASKS, CLASSES_PER_TASK = 5, 10
LIVES = {
    "csk-sdk": [],
    "int8": [],
    "all channels": ["--channel-ratio", "1"],
    "no projection": ["--energy", "0", "--channel-ratio", "1", "--max-forgetting", "100"],
    "head only": ["--learning-rate", "0", "--epochs", "1"],
    "all channels, 0.5": ["--channel-ratio", "1", "--energy", "0.5"],
    "last": [],
    "last, head": ["--learning-rate", "0", "--epochs", "1"],
}
# How each bundle is built; a life whose name begins with a bundle's has that one, any other the exact one.
BUNDLES = {"exact": [], "int8": ["--precision", "int8"], "last": ["--features", "last"]}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("out/cifar100"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--lives", choices=LIVES, nargs="+", help="only these, on the bundles of an earlier run"
    )
    arguments = parser.parse_args()

    workspace = arguments.out / "workspace"
    if arguments.lives is None:
        prepare(arguments, workspace)
    chosen = {name: LIVES[name] for name in arguments.lives or LIVES}
    file = arguments.out / "results.json"
    for label, settings in chosen.items():
        lived = live(workspace, label, settings, arguments.threads, arguments.seed)
        known = json.loads(file.read_text())["lives"] if file.exists() else {}
        lives = {name: {**known, label: lived}[name] for name in LIVES if name in known or name == label}
        results = {"machine": machine(), "seed": arguments.seed, "threads": arguments.threads, "lives": lives}
        file.write_text(json.dumps(results, indent=1) + "\n")
    print(summary(lives))


def prepare(arguments: argparse.Namespace, workspace: Path) -> None:
    """Unpack the images, build the bundles, forget earlier results."""
    (arguments.out / "results.json").unlink(missing_ok=True)
    facts = json.loads(arguments.model.with_suffix(".json").read_text())
    lay_out(arguments.data, facts, arguments.out, workspace)
    for folder, settings in BUNDLES.items():
        built = csk_sdk(
            "build-artifacts", str(arguments.model), "--out", str(workspace / f"bundle-{folder}"), *settings,
            "--base-data", str(arguments.out / "base-data"), "--classes", str(arguments.model.with_suffix(".json")),
            "--overwrite", "--json",
        )  # fmt: skip
        print(f"bundle-{folder} built, base accuracy on its training images {built['base_accuracy']:.1f} %")


def lay_out(data: Path, facts: dict, out: Path, workspace: Path) -> None:
    """Unpack into base-data/, tasks/base/test and tasks/NN/{train,test}, as a user would have them."""
    shutil.rmtree(workspace, ignore_errors=True)
    places: dict[str, dict[str, Path]] = {"train": {}, "test": {}}
    for name in facts["classes"]:
        places["train"][name] = out / "base-data" / name
        places["test"][name] = workspace / "tasks" / "base" / "test" / name
    for position, name in enumerate(facts["later_classes_in_order"][: TASKS * CLASSES_PER_TASK]):
        task = workspace / "tasks" / f"{position // CLASSES_PER_TASK + 1:02d}"
        for split in places:
            places[split][name] = task / split / name
    for split, folders in places.items():
        with zipfile.ZipFile(data / f"cifar100-{split}.zip") as archive:
            for member in archive.namelist():
                label, _, file = member.partition("/")
                if file and label in folders:
                    folders[label].mkdir(parents=True, exist_ok=True)
                    (folders[label] / file).write_bytes(archive.read(member))


def live(workspace: Path, label: str, settings: list[str], threads: int, seed: int) -> dict:
    """Learn every task, one process each, then evaluate both scenarios."""
    state = workspace / f"state-{label.replace(',', '').replace(' ', '-')}"
    built = label.partition(",")[0]
    bundle = workspace / f"bundle-{built if built in BUNDLES else 'exact'}"
    where = ["--workspace", str(workspace), "--bundle", str(bundle), "--state", str(state)]
    reports = []
    for _ in range(TASKS):
        begun = time.monotonic()
        report = csk_sdk(
            "train",
            "--task",
            "next",
            "--train",
            "centers",
            *where,
            *settings,
            "--threads",
            str(threads),
            "--seed",
            str(seed),
            "--json",
        )
        report["wall_seconds"] = round(time.monotonic() - begun, 1)
        reports.append(report)
        print(
            f"{label}: task {report['task']}, loss {report['loss']:.3f}, {report['seconds']:.0f} s",
            flush=True,
        )
    return {
        "settings": settings,
        "tasks": reports,
        **{s: csk_sdk("evaluate", "--scenario", s, *where, "--json") for s in ("task", "class")},
    }


def csk_sdk(*arguments: str) -> dict:
    done = subprocess.run(
        [sys.executable, "-m", "csk_sdk", *arguments], stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"csk-sdk {' '.join(arguments)} failed with {done.returncode}")
    return json.loads(done.stdout)


def machine() -> dict:
    packages = ("csk-sdk", "numpy", "onnx", "onnxruntime")
    return {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in packages},
    }


def summary(lives: dict) -> str:
    lines = [f"{'':16}{'ACC':>8}{'BWT':>8}{'new':>8}{'class-incr.':>13}{'s/task':>8}{'peak MiB':>10}"]
    for label, life in lives.items():
        matrix = life["task"]["accuracy_matrix"]
        new = [matrix[i][i] for i in range(1, len(matrix))]
        seconds = [task["seconds"] for task in life["tasks"]]
        peak = max(task["peak_rss_bytes"] for task in life["tasks"]) / 2**20
        lines.append(
            f"{label:16}{life['task']['acc']:8.2f}{life['task']['bwt']:8.2f}{sum(new) / len(new):8.2f}"
            f"{life['class']['accuracy']:13.2f}{sum(seconds) / len(seconds):8.0f}{peak:10.0f}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
