"""Run methods on protocols, search their learning rates, write the results page.

    python -m benchmarks.continual run --data DIR --model cifar100-base50.onnx --protocols 10x5@100 --methods all
    python -m benchmarks.continual run --data DIR --model cifar100-base50.onnx --methods ours ours-int8 --again
    python -m benchmarks.continual rates --data DIR --model cifar100-base50.onnx
    python -m benchmarks.continual page --write docs/results.md

`run` makes one JSON per protocol, method and seed below OUT/runs, each in a process of its own, and leaves out what is
there already (`--again` does it anew), so that a queue can be interrupted. `page` merges them into
docs/results/continual.json and writes page and plots from that file alone.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from .data import Pictures, cut, facts_of
from .results import describe

HERE = Path(__file__).parent
RATES = HERE / "rates.json"


def main() -> None:
    arguments = _arguments()
    {"run": run, "one": one, "rates": rates, "page": page}[arguments.command](arguments)


def run(arguments: argparse.Namespace) -> None:
    """Every run that is asked for and not there, one process each, cheapest protocol first as given."""
    from . import joint
    from .methods import METHODS
    from .product import PRODUCT

    known = [*PRODUCT, *METHODS, *joint.JOINT]
    methods = known if arguments.methods == ["all"] else arguments.methods
    if unknown := [name for name in methods if name not in known]:
        sys.exit(f"There is no method {unknown[0]}; there are {', '.join(known)}.")
    for protocol in arguments.protocols:
        for seed in arguments.seeds:
            for method in methods:
                file = _file(arguments.out, protocol, method, seed)
                if file.exists() and not arguments.again:
                    continue
                command = [
                    *(sys.executable, "-m", "benchmarks.continual", "one", "--data", str(arguments.data)),
                    *("--model", str(arguments.model), "--out", str(arguments.out), "--protocols", protocol),
                    *("--methods", method, "--seeds", str(seed)),
                ]
                if arguments.epochs:
                    command += ["--epochs", str(arguments.epochs)]
                if subprocess.run(command, check=False).returncode:
                    print(f"{protocol} {method} seed {seed} failed", file=sys.stderr, flush=True)


def one(arguments: argparse.Namespace) -> None:
    """A single run, in this process."""
    from . import joint, product

    (protocol,), (method,), (seed,) = arguments.protocols, arguments.methods, arguments.seeds
    cache = arguments.out / "cache"
    cache.mkdir(parents=True, exist_ok=True)
    facts = facts_of(arguments.model)
    stream = cut(protocol, Pictures(arguments.data, cache), facts, seed)
    if method in product.PRODUCT:
        found = product.run(
            method, stream, arguments.model, arguments.data, cache, protocol, seed, arguments.epochs
        )
    elif method in joint.JOINT:
        found = joint.run(
            method, stream, arguments.model, facts["normalize"], protocol, seed, arguments.epochs or 4
        )
    else:
        from . import torch_runs

        found = torch_runs.run_stable(
            method, stream, arguments.model, facts["normalize"], cache, protocol, seed, _rate(method),
            arguments.epochs or torch_runs.EPOCHS,
        )  # fmt: skip
    file = _file(arguments.out, protocol, method, seed)
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".part")
    partial.write_text(json.dumps(found) + "\n")
    partial.replace(file)
    print(describe(found), flush=True)


def rates(arguments: argparse.Namespace) -> None:
    """Search learning rates on the first task."""
    from .rates import search

    search(arguments.data, arguments.model, arguments.out / "cache", arguments.methods, RATES)


def page(arguments: argparse.Namespace) -> None:
    """Merge runs, then write page and plots."""
    from .page import merge, write

    merge(arguments.out / "runs", arguments.results)
    write(arguments.results, arguments.write)


def _rate(method: str) -> float | None:
    """What the search found; None for a method that was not searched."""
    known = json.loads(RATES.read_text()) if RATES.exists() else {}
    # Features of layers change nothing about how fast a network can be trained.
    found: float | None = known.get(method.removesuffix("-layers"), {}).get("chosen")
    return found


def _file(out: Path, protocol: str, method: str, seed: int) -> Path:
    return out / "runs" / protocol / f"{method}-{seed}.json"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.continual",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=("run", "one", "rates", "page"))
    parser.add_argument("--data", type=Path, help="folder with cifar100-train.zip and cifar100-test.zip")
    parser.add_argument("--model", type=Path, help="the base network; its json lies beside it")
    parser.add_argument("--out", type=Path, default=Path("out/continual"))
    parser.add_argument("--protocols", nargs="+", default=["10x5@100"])
    parser.add_argument("--methods", nargs="+", default=["all"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--epochs", type=int, help="passes over a task; 4 when left out")
    parser.add_argument("--again", action="store_true", help="do what is there already anew")
    parser.add_argument("--results", type=Path, default=Path("docs/results/continual.json"))
    parser.add_argument("--write", type=Path, default=Path("docs/results.md"))
    arguments = parser.parse_args()
    if arguments.command != "page" and (arguments.data is None or arguments.model is None):
        parser.error("--data and --model are needed.")
    return arguments


if __name__ == "__main__":
    main()
