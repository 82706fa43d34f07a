"""Knowledge intensity on CIFAR-100: does the premise hold, and does it say which sites to train?

    python benchmarks/intensity.py --data DIR --model cifar100-base50.onnx --out out/intensity

DIR and the json beside the model are those of benchmarks/cifar100.py. Five new tasks of ten classes, and ten of the
base classes as if they were new, go through `analyze`. Then the centers of some sets of sites are trained together,
12 steps with a fitted head that stays, to see what a site's intensity says about the gain. The result is
`results.json`, and in words on stdout; the tasks stay in the folder, for `csk-sdk analyze`.
"""

import argparse
import io
import json
import zipfile
from pathlib import Path

import numpy as np
from cifar100 import machine
from PIL import Image

from csk_artifacts_builder import BuildOptions
from csk_artifacts_builder.analysis.analyze import AnalysisOptions, analyze_model, rank_correlation
from csk_artifacts_builder.analysis.intensity import NewTask, fit_head, open_kernel_graph
from csk_artifacts_builder.describe import describe
from csk_artifacts_builder.graphs.head import split_head
from csk_artifacts_builder.graphs.models import LOSS
from csk_artifacts_builder.prepare.model import prepare
from csk_artifacts_builder.sites import find_sites
from csk_sdk import Task, TrainingConfig
from csk_sdk.data.preprocess_signals import preprocessing_of
from csk_sdk.method.optimizers import SGD

TASKS, CLASSES, STEPS = 5, 10, 12


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("out/intensity"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    facts = json.loads(arguments.model.with_suffix(".json").read_text())
    later = facts["later_classes_in_order"]
    chosen = {f"new-{n + 1}": later[n * CLASSES : (n + 1) * CLASSES] for n in range(TASKS)}
    chosen["base"] = facts["classes"][:CLASSES]
    options = BuildOptions(classes=facts["classes"], **facts["normalize"])
    found = {}
    for name, classes in chosen.items():
        path = write_task(arguments.data, classes, arguments.out / f"{name}.npz")
        found[name] = analyze_model(arguments.model, path, AnalysisOptions(options, threads=1))
    results = {
        "machine": machine(),
        "analyses": {name: analysis.to_json() for name, analysis in found.items()},
        "sets": trained_sets(arguments.model, arguments.out / "new-1.npz", options, centers(found["new-1"])),
    }
    (arguments.out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    print(summary(found, results["sets"]))


def write_task(data: Path, classes: list[str], path: Path) -> Path:
    arrays: dict[str, np.ndarray] = {"class_names": np.array(classes)}
    for prefix, split in (("", "train"), ("test_", "test")):
        images, labels = [], []
        with zipfile.ZipFile(data / f"cifar100-{split}.zip") as archive:
            for member in archive.namelist():
                label, _, file = member.partition("/")
                if file and label in classes:
                    images.append(np.asarray(Image.open(io.BytesIO(archive.read(member)))))
                    labels.append(classes.index(label))
        arrays |= {f"{prefix}images": np.stack(images), f"{prefix}labels": np.array(labels)}
    np.savez(path, **arrays)
    return path


def centers(analysis) -> dict[str, float]:
    return {one.site.name: float(one.intensity[one.center]) for one in analysis.sites}


def trained_sets(model: Path, data: Path, options: BuildOptions, intensity: dict[str, float]) -> list[dict]:
    """Gains of training the centers of every suffix, and of its three strongest and three weakest sites."""
    source = prepare(model)
    sites = find_sites(source.model, model.name)
    manifest = describe(source, split_head(source.model, model.name), sites, options)
    task = Task.open(data)
    new = NewTask(task.train, preprocessing_of(manifest), CLASSES)
    held_out = NewTask(task.test, new.preprocessing, CLASSES)
    results = []
    with open_kernel_graph(source.model, sites, manifest.head, model.name, 1) as graph:
        head = fit_head(graph, new)
        batches, tests = list(new.batches())[:STEPS], list(held_out.batches())[:STEPS]
        start = dict(graph.kernels)

        def losses() -> list[float]:
            return [
                float(np.mean([graph.run(b, head, [LOSS])[LOSS] for b in some])) for some in (batches, tests)
            ]

        before = losses()
        for begin in range(len(sites)):
            suffix = sites[begin:]
            ranked = sorted(suffix, key=lambda site: -intensity[site.name])
            sets = {"all": suffix}
            if len(suffix) > 3:
                sets |= {"three strongest": ranked[:3], "three weakest": ranked[-3:]}
            for label, chosen in sets.items():
                graph.kernels = {name: kernel.copy() for name, kernel in start.items()}
                train(graph, chosen, batches, head)
                after = losses()
                results.append(
                    {
                        "from": suffix[0].name,
                        "set": label,
                        "sites": [site.name for site in chosen],
                        "learned": before[0] - after[0],
                        "held_out": before[1] - after[1],
                    }
                )
    return results


def train(graph, sites, batches, head) -> None:
    """One step on each batch, on the centers of `sites` together, as a device takes it, without projection."""
    defaults = TrainingConfig()
    optimizer = SGD(defaults.learning_rate, momentum=defaults.momentum)
    updates = {site.name: np.empty(site.shape[:2], np.float32) for site in sites}
    for batch in batches:
        outputs = graph.run(batch, head, [site.gradient for site in sites])
        for site in sites:
            at = (slice(None), slice(None), *(size // 2 for size in site.shape[2:]))
            center = graph.kernels[site.weight][at]
            optimizer.step(
                site.name, np.ascontiguousarray(outputs[site.gradient][at]), updates[site.name], center
            )
            center -= updates[site.name]


def summary(found: dict, sets: list[dict]) -> str:
    lines = ["center's rank among the positions of its site, and intensity of the center", ""]
    names = [one.site.name for one in found["base"].sites]
    lines.append(f"{'':10}" + "".join(f"{name:>10}" for name in names))
    for task, analysis in found.items():
        lines.append(f"{task:10}" + "".join(f"{one.center_rank:>10}" for one in analysis.sites))
        lines.append(f"{'':10}" + "".join(f"{one.intensity[one.center]:>10.1e}" for one in analysis.sites))
    lines += ["", f"{'':10}{'first at':>10}{'center/mean':>13}{'depth':>8}{'lead/depth':>12}{'as new-1':>10}"]
    reference = np.array(list(centers(found["new-1"]).values()))
    for task, analysis in found.items():
        mean = np.mean([one.center_ratio for one in analysis.sites])
        same = rank_correlation(np.array(list(centers(analysis).values())), reference)
        lines.append(
            f"{task:10}{analysis.center_first:>7} / {len(names)}{mean:>12.2f}{analysis.depth_correlation:>+8.2f}"
            f"{analysis.ratio_depth_correlation:>+12.2f}{same:>+10.2f}"
        )
    lines += ["", f"{'centers trained together, from':32}{'set':18}{'loss, trained on':>18}{'held out':>12}"]
    for one in sets:
        lines.append(f"{one['from']:32}{one['set']:18}{-one['learned']:>+18.4f}{-one['held_out']:>+12.4f}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
