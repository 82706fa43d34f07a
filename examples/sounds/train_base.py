"""Train the sounds' base network: a small 1-d CNN that knows four of the eight kinds of sound.

    python examples/sounds/train_base.py [--out DIR]

writes `sounds-base4.onnx` and `sounds-base4.json`. It needs torch, onnx and onnxruntime; using its output does not.
The four new kinds, and the clips that it is tested on, are never trained on.
"""

from __future__ import annotations

import argparse
import json
import os
import warnings
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import nn

from sounds import BASE, LENGTH, RATE, arrays

EPOCHS = 12
PER_CLASS = 500
BATCH_SIZE = 50
SEED = 0


def unit(c_in: int, c_out: int, kernel: int, stride: int) -> nn.Sequential:
    """Convolution, batch norm, ReLU."""
    convolution = nn.Conv1d(c_in, c_out, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm1d(c_out), nn.ReLU())


def network(classes: int) -> nn.Sequential:
    """2048 samples to 16 positions of 64 channels, their mean, a linear classifier."""
    return nn.Sequential(
        unit(1, 16, 9, 4),
        nn.MaxPool1d(2),
        unit(16, 32, 5, 2),
        unit(32, 32, 3, 2),
        unit(32, 64, 3, 2),
        unit(64, 64, 3, 2),
        unit(64, 64, 3, 1),
        nn.AdaptiveAvgPool1d(1),
        nn.Flatten(),
        nn.Linear(64, classes),
    )


def normalized(clips: np.ndarray, std: float) -> torch.Tensor:
    """int16 clips `(n, LENGTH)` to the network's input `(n, 1, LENGTH)`: full scale 1, over std."""
    return torch.from_numpy((clips / 32768 / std).astype(np.float32)[:, None])


def train(clips: np.ndarray, labels: np.ndarray, std: float) -> nn.Module:
    torch.manual_seed(SEED)
    rng = np.random.default_rng(SEED)
    net = network(len(BASE))
    steps = EPOCHS * (len(clips) // BATCH_SIZE)
    optimizer = torch.optim.AdamW(net.parameters(), weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    x, y = normalized(clips, std), torch.from_numpy(labels)
    for _ in range(EPOCHS):
        for batch in rng.permutation(len(clips)).reshape(-1, BATCH_SIZE):
            loss = nn.functional.cross_entropy(net(x[batch]), y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return net.eval()


def export(net: nn.Module, path: Path) -> None:
    """Write the network with its batch norms unfolded, as files from the field have them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the dynamo exporter folds batch norm away
        torch.onnx.export(
            net,
            (torch.zeros(1, 1, LENGTH),),
            path,
            dynamo=False,
            opset_version=17,
            training=torch.onnx.TrainingMode.PRESERVE,
            do_constant_folding=False,
            input_names=["signal"],
            output_names=["logits"],
            dynamic_axes={"signal": {0: "N"}, "logits": {0: "N"}},
        )
    model = onnx.load(path)
    model.doc_string = ""
    for node in model.graph.node:  # stack traces with this machine's paths, if the exporter left any
        node.doc_string = ""
        del node.metadata_props[:]
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def check(net: nn.Module, path: Path, x: torch.Tensor) -> None:
    """Fail unless the file says what torch says, keeps its batch norms and names no Python source."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read when onnxruntime is imported
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"signal": x.numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(logits, net(x).numpy(), rtol=1e-3, atol=1e-3)
    model = onnx.load(path)
    norms = [node for node in model.graph.node if node.op_type == "BatchNormalization"]
    assert len(norms) == sum(isinstance(module, nn.BatchNorm1d) for module in net.modules())
    del model.graph.initializer[:]
    assert b".py" not in model.SerializeToString(), f"{path.name} holds a path to Python source"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder for both files")
    out = parser.parse_args().out
    torch.use_deterministic_algorithms(True)

    clips, labels = arrays(BASE, PER_CLASS, seed=0)
    std = round(float((clips / 32768).std()), 4)
    net = train(clips, labels, std)
    test_clips, test_labels = arrays(BASE, 100, seed=3)
    x = normalized(test_clips, std)
    with torch.no_grad():
        top1 = 100 * float((net(x).argmax(1).numpy() == test_labels).mean())
    path = out / "sounds-base4.onnx"
    export(net, path)
    check(net, path, x)
    description = {
        "classes": list(BASE),
        "normalize": {"mean": [0.0], "std": [std]},
        "sample_rate": RATE,
        "test_top1_percent": round(top1, 2),
        "trained": f"{len(clips)} clips of examples/sounds/sounds.py, {EPOCHS} epochs, seed {SEED}, by "
        f"examples/sounds/train_base.py with torch {torch.__version__}",
    }
    path.with_suffix(".json").write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
    n_parameters = sum(parameter.numel() for parameter in net.parameters())
    print(f"{n_parameters} parameters, {path.stat().st_size} bytes, test accuracy {top1:.2f} % of {len(x)}")


if __name__ == "__main__":
    main()
