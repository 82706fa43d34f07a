"""How often the label check refuses: true labels, shuffled labels, many tasks and few images.

    python benchmarks/label_check.py --workspace out/cifar100/workspace

The workspace is one that benchmarks/cifar100.py made: its later fifty classes are cut into tasks of 10, 5 and 2, at
random, `--draws` times. Digits and sounds are those of the examples. Each row is one kind of task; labels are true, or
the same labels in a random order. Nothing is trained: the check comes before training. `--pairs` asks for every pair
of the later classes instead, with 200 images each and true labels.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import numpy as np

from csk_sdk import Inbox, Learner, Task
from csk_sdk.method.label_check import class_evidence

EXAMPLES = Path(__file__).parents[1] / "examples"
sys.path.insert(0, str(EXAMPLES / "sounds"))
# As many images as the check sees by default: 32 batches of 16.
SEEN = 512
ROOM = 200


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--bundle", type=Path, help="another than the workspace's bundle-exact")
    parser.add_argument("--draws", type=int, default=200, help="tasks drawn of each kind")
    parser.add_argument("--pairs", action="store_true", help="every pair of the later classes")
    arguments = parser.parse_args()
    bundle = arguments.bundle or arguments.workspace / "bundle-exact"
    if arguments.pairs:
        print(pairs(arguments.workspace, bundle))
        return
    rows = []
    for name, features in families(arguments.workspace, bundle):
        for classes in [size for size in (10, 5, 2) if size <= len(features)]:
            for pictures in (5, 10, 50, SEEN // classes):
                rows.append(row(name, features, classes, pictures, arguments.draws))
                print(json.dumps(rows[-1]), flush=True)
    print(table(rows))


def families(workspace: Path, bundle: Path) -> Iterator[tuple[str, list[np.ndarray]]]:
    """Features of the classes to draw tasks from, one array a class."""
    yield "CIFAR-100", [features for _, features in later_classes(workspace, bundle)]
    with tempfile.TemporaryDirectory() as folder:
        yield "digits", digits(Path(folder))
        yield "sounds", sounds(Path(folder))


def later_classes(workspace: Path, bundle: Path) -> list[tuple[str, np.ndarray]]:
    """Names and features."""
    learner, tasks = open_learner(bundle), Inbox(workspace / "tasks")
    opened = [tasks.open(name) for name in tasks.names() if name != "base"]
    return [found for task in opened for found in zip(task.classes, by_class(learner, task), strict=True)]


def pairs(workspace: Path, bundle: Path) -> str:
    """What the check says of every pair, in a sentence."""
    found = []
    for (one, left), (other, right) in combinations(later_classes(workspace, bundle), 2):
        labels = np.repeat(np.arange(2), [len(left), len(right)])
        evidence = class_evidence(np.concatenate([left, right]), labels, 2)
        found.append((evidence.accuracy, f"{one} and {other}", evidence.refuted))
    accuracy, hardest, _ = min(found)
    refused = sum(refuted for *_, refuted in found)
    return f"{refused} of {len(found)} pairs refused; the hardest, {hardest}, reached {100 * accuracy:.0f} %"


def by_class(learner: Learner, task: Task) -> list[np.ndarray]:
    found = []
    for label in range(len(task.classes)):
        chosen = np.flatnonzero(task.train.labels == label)[:ROOM]
        pictures = [task.train.images.read(int(index)) for index in chosen]
        found.append(learner.predictor().features(pictures))
    return found


def open_learner(bundle: Path) -> Learner:
    return Learner.open(bundle, tempfile.mkdtemp())


def build(model: Path, out: Path) -> Learner:
    from csk_artifacts_builder import BuildOptions, build_artifacts

    facts = json.loads(model.with_suffix(".json").read_text())
    rate = {"sample_rate": facts["sample_rate"]} if "sample_rate" in facts else {}
    options = BuildOptions(classes=facts["classes"], **facts["normalize"], **rate, flip=False)
    build_artifacts(model, out, options)
    return open_learner(out)


def digits(folder: Path) -> list[np.ndarray]:
    from sklearn.datasets import load_digits

    learner, loaded = build(EXAMPLES / "digits" / "digits-base4.onnx", folder / "digits"), load_digits()
    images = np.round(loaded.images * 255 / 16).astype(np.uint8)
    return [learner.predictor().features(images[loaded.target == digit][:ROOM]) for digit in range(4, 10)]


def sounds(folder: Path) -> list[np.ndarray]:
    import sounds as made

    learner = build(EXAMPLES / "sounds" / "sounds-base4.onnx", folder / "sounds-bundle")
    made.write_folder(folder / "sounds-new" / "train", made.NEW, ROOM, seed=2)
    return by_class(learner, Task.from_folder(folder / "sounds-new"))


def row(name: str, features: list[np.ndarray], classes: int, pictures: int, draws: int) -> dict:
    rng = np.random.default_rng(0)
    found: dict[str, list] = {"true": [], "shuffled": []}
    for _ in range(draws):
        chosen = rng.choice(len(features), classes, replace=False)
        parts = [features[c][rng.permutation(len(features[c]))[:pictures]] for c in chosen]
        x, labels = np.concatenate(parts), np.repeat(np.arange(classes), [len(part) for part in parts])
        found["true"].append(class_evidence(x, labels, classes))
        found["shuffled"].append(class_evidence(x, rng.permutation(labels), classes))
    accuracy = {
        kind: [100 * evidence.accuracy for evidence in evidences] for kind, evidences in found.items()
    }
    return {
        "family": name,
        "classes": classes,
        "pictures": pictures,
        "true": round(float(np.mean(accuracy["true"])), 1),
        "lowest": round(float(np.min(accuracy["true"])), 1),
        "shuffled": round(float(np.mean(accuracy["shuffled"])), 1),
        **{
            f"refused_{kind}": round(100 * float(np.mean([e.refuted for e in evidences])), 1)
            for kind, evidences in found.items()
        },
    }


def table(rows: list[dict]) -> str:
    lines = [
        "| task | images a class | accuracy, true labels (lowest) | shuffled | refused, true | refused, shuffled |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r['family']}, {r['classes']} classes | {r['pictures']} | {r['true']} ({r['lowest']}) | {r['shuffled']} "
        f"| {r['refused_true']} % | {r['refused_shuffled']} % |"
        for r in rows
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
