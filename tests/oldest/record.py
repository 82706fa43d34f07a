"""What the newest ONNX Runtime computes, for replay.py to compare with on the oldest: `make test-oldest`.

    python tests/oldest/record.py out/oldest

rules/      the gradient graph of every row of tests/builder/gradients/, and layer norms of rows with a large mean
networks/   a bundle of every network of tests/builder/networks.py and every pool of pool_rows.py, built for all sites,
            and of some of them in int8
digits/     the digits bundle, three tasks, and what learning them gave
Beside each graph NAME.onnx lies NAME.npz with its inputs (in/...) and outputs (out/...).
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

TESTS = Path(__file__).parents[1]
sys.path[:0] = [
    str(TESTS),
    str(TESTS / "builder"),
    str(TESTS / "builder" / "gradients"),
    str(Path(__file__).parent),
]

import gradient_check as rules  # noqa: E402
import networks  # noqa: E402
import pool_rows  # noqa: E402
import test_layer_norm  # noqa: E402
from gradient_row import Row  # noqa: E402
from onnx_text import model  # noqa: E402
from PIL import Image  # noqa: E402
from replay import GRAPHS, INT8, TASKS, lived, random_feeds  # noqa: E402
from sklearn.datasets import load_digits  # noqa: E402
from small_network import Network  # noqa: E402
from test_gradient_rows import ROWS  # noqa: E402

from conftest import Digits, build_digits_bundle, write_pictures  # noqa: E402
from csk_artifacts_builder import BuildOptions, build_artifacts  # noqa: E402
from csk_sdk import Bundle  # noqa: E402
from csk_sdk.runtime.sessions import Graph  # noqa: E402

Arrays = dict[str, NDArray[Any]]


def main(out: Path) -> None:
    shutil.rmtree(out, ignore_errors=True)
    for folder in ("rules", "networks", "digits"):
        (out / folder).mkdir(parents=True)
    for row in ROWS:
        record_rule(row, out / "rules" / f"{str(row).replace('/', '_')}.onnx")
    for network in {
        value.name: value for value in vars(networks).values() if isinstance(value, Network)
    }.values():
        record_network(network.proto(), out / "networks" / network.name)
    for pool in pool_rows.ROWS:
        record_network(pool.proto(), out / "networks" / str(pool).replace(" ", "-"))
    for network in (networks.RESNET, networks.MOBILENET):
        record_int8(network, out / "networks" / f"{network.name}{INT8}")
    for mean in (3.3, 1e4, -1e5):
        record_norm(mean, out / "rules" / f"norm of mean {mean:g}.onnx")
    record_digits(out / "digits")
    print(f"recorded {len(ROWS)} rules and {len(list((out / 'networks').iterdir()))} networks in {out}")


def keep(path: Path, feeds: Arrays, outputs: Arrays) -> None:
    named = {f"in/{name}": array for name, array in feeds.items()}
    np.savez(path, **named, **{f"out/{name}": array for name, array in outputs.items()})


def record_rule(row: Row, path: Path) -> None:
    rng = np.random.default_rng(sum(map(ord, str(row))))
    forward = model(row.text, **{name: rules.tensor(rng, spec) for name, spec in row.tensors.items()})
    feeds = {value.name: rules.smooth(rng, rules.dims_of(value), row) for value in forward.graph.input}
    y = next(iter(rules.run_ort(forward, feeds).values()))
    feeds["g"] = rng.normal(size=y.shape).astype(np.float32)
    onnx.save(rules.gradient_model(forward), path)
    keep(path.with_suffix(".npz"), feeds, Graph(path, 1).run(feeds))


def record_norm(mean: float, path: Path) -> None:
    feeds = {"x": test_layer_norm.rows(mean)}
    onnx.save(test_layer_norm.centered(), path)
    keep(path.with_suffix(".npz"), feeds, Graph(path, 1).run(feeds))


def record_int8(network: Network, folder: Path) -> None:
    """The same in int8, calibrated on noise."""
    rng = np.random.default_rng(0)
    channels, *size = network.image
    for index in range(16 * network.classes):
        place = folder / "base" / str(index % network.classes)
        place.mkdir(parents=True, exist_ok=True)
        noise = rng.integers(0, 256, (*size, channels)).astype(np.uint8)
        Image.fromarray(noise).save(place / f"{index}.png")
    record_network(network.proto(), folder, base_data=folder / "base", precision="int8")


def record_network(proto: onnx.ModelProto, folder: Path, **options: Any) -> None:
    folder.mkdir(exist_ok=True)
    onnx.save(proto, folder / "model.onnx")
    build_artifacts(folder / "model.onnx", folder / "bundle", BuildOptions(trainable="all", **options))
    bundle = Bundle.open(folder / "bundle")
    feeds = random_feeds(bundle)
    for name in GRAPHS:
        graph = Graph(bundle.path(name), 1)
        mine = {key: feeds[key] for key in graph_inputs(bundle, name) if key in feeds}
        keep(folder / name.replace(".onnx", ".npz"), mine, graph.run(mine))


def graph_inputs(bundle: Bundle, name: str) -> list[str]:
    return [value.name for value in onnx.load(bundle.path(name), load_external_data=False).graph.input]


def record_digits(folder: Path) -> None:
    loaded = load_digits()
    digits = Digits(np.round(loaded.images * 255 / 16).astype(np.uint8), loaded.target.astype(np.int64))
    write_pictures(folder / "base", digits, (0, 1, 2, 3), 0, 40)
    build_digits_bundle(folder / "bundle", base_data=folder / "base")
    for name, chosen in TASKS.items():
        digits.save(digits.task(name, chosen), folder / "tasks")
    (folder / "expected.json").write_text(json.dumps(lived(folder, folder / "state")))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
