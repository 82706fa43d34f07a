"""Embedding csk-sdk in an application: learn from arrays, predict, export. Run: python examples/embed.py BUNDLE DATA"""

import sys

import numpy as np

from csk_sdk import Learner, Task, TrainingConfig


def main(bundle: str, data: str) -> None:
    arrays = np.load(data)  # images: uint8 RGB (n, h, w, c); labels: (n,) indices into class_names
    learner = Learner.open(bundle, state="state", config=TrainingConfig(epochs=4))
    task = Task.from_arrays("01-new", arrays["images"], arrays["labels"], arrays["class_names"].tolist())

    report = learner.learn(task)
    print(f"learned {', '.join(report.classes)} in {report.seconds:.1f} s, final loss {report.loss:.3f}")

    labels, probabilities, _ = learner.predict(arrays["images"][:4])
    for label, probability in zip(labels, probabilities.max(axis=1), strict=True):
        print(f"  {label}: {probability:.0%}")

    learner.export("updated.onnx")  # an ordinary inference model, for any ONNX runtime


if __name__ == "__main__":
    main(*sys.argv[1:3])
