"""Rows of activations and of softmax."""

from __future__ import annotations

import numpy as np
from gradient_row import Row, of, unary

ROWS = [
    unary("Relu", "both signs", away=(0.0,)),
    unary("LeakyRelu", "default slope", away=(0.0,)),
    unary("LeakyRelu", "slope 0.3", "<alpha=0.3>", away=(0.0,)),
    Row(
        "Clip",
        "both ends, as Relu6",
        "(float[N,3,4] x) => (float[N,3,4] y) { y = Clip(x, low, high) }",
        {"low": np.array(0.0), "high": np.array(6.0)},
        away=(0.0, 6.0),
        low=-4,
        high=10,
    ),
    Row(
        "Clip",
        "lower end only",
        "(float[N,3,4] x) => (float[N,3,4] y) { y = Clip(x, low) }",
        {"low": np.array(-0.5)},
        away=(-0.5,),
    ),
    Row(
        "Clip",
        "upper end only",
        "(float[N,3,4] x) => (float[N,3,4] y) { y = Clip(x, , high) }",
        {"high": np.array(0.5)},
        away=(0.5,),
    ),
    unary("Clip", "no ends"),
    unary("Sigmoid", "smooth"),
    unary("Tanh", "smooth"),
    unary("HardSigmoid", "default", away=(-2.5, 2.5), low=-4, high=4),
    unary("HardSigmoid", "own slope", "<alpha=0.5, beta=0.3>", away=(-0.6, 1.4)),
    unary("HardSwish", "all three pieces", away=(-3.0, 3.0), low=-5, high=5),
    unary("Identity", "plain"),
    unary("Dropout", "inference form"),
    unary("Elu", "default", away=(0.0,)),
    unary("Elu", "alpha 0.7", "<alpha=0.7>", away=(0.0,)),
    unary("Selu", "default", away=(0.0,)),
    unary("Selu", "own alpha and gamma", "<alpha=1.2, gamma=0.8>", away=(0.0,)),
    unary("Celu", "default", away=(0.0,)),
    unary("Celu", "alpha 0.7", "<alpha=0.7>", away=(0.0,)),
    unary("Softplus", "both signs"),
    unary("Softplus", "large values", low=-30, high=30),
    unary("Softsign", "both signs", away=(0.0,)),
    unary("Erf", "both signs"),
    of("PRelu", "slope for each channel", "N,3,4,5 -> N,3,4,5", "(x, s)", s=(3, 1, 1)),
    of("PRelu", "one slope", "N,3,4 -> N,3,4", "(x, s)", s=(1,)),
    of("PRelu", "computed slope", "N,3,4; 3,1 -> N,3,4", "(x, x2)"),
    unary("Softmax", "last axis"),
    unary("Softmax", "channels", "<axis=1>"),
    unary("Softmax", "negative axis", "<axis=-2>"),
    unary("LogSoftmax", "last axis"),
    unary("LogSoftmax", "channels", "<axis=1>"),
]
