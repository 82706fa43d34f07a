"""A network of any width and size, for what depends on these alone."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
from onnx_text import model

PAD = "kernel_shape=[3,3], pads=[1,1,1,1]"


def stack(path: Path, channels: tuple[int, ...], size: int) -> Path:
    """3x3 convolutions with ReLU, then mean and head; `channels` from the image's 3 on."""
    rng = np.random.default_rng(0)
    nodes, tensors, x = "", {"h": rng.normal(0, 0.1, (4, channels[-1])), "hb": np.zeros(4)}, "x"
    for index, (c_in, c_out) in enumerate(pairwise(channels)):
        tensors[f"w{index}"] = rng.normal(0, (2 / (9 * c_in)) ** 0.5, (c_out, c_in, 3, 3))
        nodes += f"[conv{index}] c{index} = Conv<{PAD}>({x}, w{index}) \n r{index} = Relu(c{index}) \n"
        x = f"r{index}"
    text = (
        f"(float[N,3,{size},{size}] x) => (float[N,4] y) {{ {nodes} p = GlobalAveragePool({x}) \n "
        "f = Flatten(p) \n [head] y = Gemm<transB=1>(f, h, hb) }"
    )
    onnx.save(model(text, 17, **tensors), path)
    return path
