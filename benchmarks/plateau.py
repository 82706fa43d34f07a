"""What does stopping at a plateau save, and cost? python benchmarks/plateau.py --workspace out/cifar100/workspace

The workspace is one that benchmarks/cifar100.py made. Tasks are drawn as in benchmarks/few_shot.py: ten of the later
classes of CIFAR-100, or five of the digits that the demo's network does not know. Each is learned with far more epochs
than it needs, and with `patience` of several sizes (0: all epochs). Mean over the draws: epochs that were trained, and
accuracy on test images, told the task, and over all classes.
"""

import json
import tempfile
from pathlib import Path

import few_shot
import numpy as np

from csk_sdk import Learner, Task, TrainingConfig

PICTURES = 50


def main() -> None:
    parser = few_shot.options(__doc__, draws=4)
    parser.add_argument("--patience", type=int, nargs="+", default=[0, 1, 2, 3, 5])
    parser.add_argument("--epochs", type=int, default=30)
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for family in arguments.family:
            found: dict[int, list[tuple[float, float, float]]] = {one: [] for one in arguments.patience}
            for draw in range(arguments.draws):
                bundle, task, base = few_shot.drawn(family, arguments, Path(folder), PICTURES, draw)
                for patience, values in found.items():
                    values.append(learned(bundle, task, base, patience, arguments.epochs))
                    print(json.dumps([family, draw, patience, *values[-1]]), flush=True)
            for patience, values in found.items():
                epochs, told, everything = np.mean(values, axis=0)
                rows.append(f"| {family} | {patience} | {epochs:.1f} | {told:.2f} | {everything:.2f} |")
    print(f"| task | patience | epochs of {arguments.epochs} | told | all classes |\n|---|---|---|---|---|")
    print("\n".join(rows))


def learned(bundle: Path, task: Task, base: Task, patience: int, epochs: int) -> tuple[float, float, float]:
    """Epochs trained, accuracy of the task when it is told, and over all classes on images of task and base."""
    with tempfile.TemporaryDirectory() as state:
        config = TrainingConfig(threads=1, train="centers", epochs=epochs, patience=patience)
        learner = Learner.open(bundle, state, config)
        return learner.learn(task).epochs, *few_shot.scored(learner, task, base)


if __name__ == "__main__":
    main()
