"""Small Paddle networks as paddle2onnx writes them, with Paddle's own outputs: `python make_paddle.py`.

Made with paddlepaddle 2.6.2, paddle2onnx 1.3.1 and NumPy 1.26 on Python 3.11. The tests need none of them: they read
the files.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import paddle
from paddle import nn
from paddle.nn import functional as F

HERE = Path(__file__).parent


class Mobile(nn.Layer):
    """Batch norm apart, HardSwish, squeeze-excite, linear interpolation, a head behind a computed Reshape."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.stem_norm = nn.Conv2D(3, 8, 3, 2, 1, bias_attr=False), nn.BatchNorm2D(8)
        self.wide, self.wide_norm = nn.Conv2D(8, 16, 1, bias_attr=False), nn.BatchNorm2D(16)
        self.depth = nn.Conv2D(16, 16, 3, 1, 1, groups=16, bias_attr=False)
        self.depth_norm = nn.BatchNorm2D(16)
        self.squeeze, self.excite = nn.Conv2D(16, 4, 1), nn.Conv2D(4, 16, 1)
        self.narrow, self.narrow_norm = nn.Conv2D(16, 8, 1, bias_attr=False), nn.BatchNorm2D(8)
        self.last, self.head = nn.Conv2D(8, 12, 3, 2, 1), nn.Linear(12, 5)

    def forward(self, x):
        shortcut = F.hardswish(self.stem_norm(self.stem(x)))
        y = F.hardswish(self.wide_norm(self.wide(shortcut)))
        y = F.hardswish(self.depth_norm(self.depth(y)))
        gate = F.relu(self.squeeze(F.adaptive_avg_pool2d(y, 1)))
        y = y * F.hardsigmoid(self.excite(gate), slope=0.2)
        y = self.narrow_norm(self.narrow(y)) + shortcut
        y = F.relu6(self.last(F.interpolate(y, scale_factor=2, mode="bilinear")))
        y = F.adaptive_avg_pool2d(y, 1)
        return F.softmax(self.head(paddle.reshape(y, [y.shape[0], -1])))


class Squeeze(nn.Layer):
    """SqueezeNet's fire module and head: 1x1 convolution, Relu, global mean, Squeeze."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.pool = nn.Conv2D(3, 8, 3, 2), nn.MaxPool2D(3, 2)
        self.reduce, self.one, self.three = (
            nn.Conv2D(8, 4, 1),
            nn.Conv2D(4, 8, 1),
            nn.Conv2D(4, 8, 3, padding=1),
        )
        self.drop, self.last = nn.Dropout(0.5, mode="downscale_in_infer"), nn.Conv2D(16, 5, 1)

    def forward(self, x):
        x = F.relu(self.reduce(self.pool(F.relu(self.stem(x)))))
        x = paddle.concat([F.relu(self.one(x)), F.relu(self.three(x))], axis=1)
        x = F.adaptive_avg_pool2d(F.relu(self.last(self.drop(x))), 1)
        return paddle.squeeze(x, axis=[2, 3])


def main() -> None:
    paddle.seed(0)
    rng = np.random.default_rng(0)
    for name, network in (("mobile", Mobile()), ("squeeze", Squeeze())):
        for layer in network.sublayers():
            if isinstance(layer, nn.BatchNorm2D):
                shape = layer._mean.shape
                layer._mean.set_value(rng.normal(0, 0.2, shape).astype(np.float32))
                layer._variance.set_value(rng.uniform(0.6, 1.6, shape).astype(np.float32))
        network.eval()
        x = rng.normal(size=(2, 3, 32, 32)).astype(np.float32)
        path = HERE / f"paddle-{name}.onnx"
        np.savez(path.with_suffix(".npz"), x=x, y=network(paddle.to_tensor(x)).numpy())
        spec = [paddle.static.InputSpec([-1, 3, 32, 32], "float32", "x")]
        paddle.onnx.export(
            network, str(path.with_suffix("")), spec, opset_version=13, enable_onnx_checker=False
        )


if __name__ == "__main__":
    main()
