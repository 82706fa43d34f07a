"""Optimizers over named float32 parameters, as update directions rather than as updates.

An optimizer here never touches a parameter: it writes the update `U`, to be *subtracted*, so that the caller
can project it first (`csk_sdk.method.projection.project`). Momentum and Adam rescale directions, so a projection
before them would leak (CsKO, arXiv 2406.08830, "sparse orthogonal gradient projection").

    optimizer.step(name, gradient, update)
    project(update, basis)
    delta -= update

Nothing is allocated after the first step of each parameter. Another optimizer is another class here, registered under
its name, which is a choice of the setting `optimizer` in `contract/settings.json`, with its constants.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from csk_sdk.contract.settings import SETTINGS
from csk_sdk.contract.thresholds import integer
from csk_sdk.errors import ConfigError, StateError

Float32 = NDArray[np.float32]


class Optimizer(ABC):
    """What optimizers share: settings, state per parameter, and its way into a checkpoint.

    `learning_rate` may be set before any step (a schedule); `multipliers` scales it per parameter name, 1 for
    a name that it lacks. Neither is in the checkpoint: they come from the configuration and the schedule.
    Raises ConfigError for a setting out of range.
    """

    _slots: ClassVar[tuple[str, ...]] = ()
    # Its own, of the contract.
    constants: ClassVar[Mapping[str, float]] = {}

    @classmethod
    def of(cls, learning_rate: float, momentum: float, weight_decay: float) -> Self:
        """One with these settings, of which it takes those that it knows."""
        return cls(learning_rate, weight_decay=weight_decay)

    def __init__(
        self,
        learning_rate: float,
        weight_decay: float = 0.0,
        multipliers: Mapping[str, float] | None = None,
    ) -> None:
        _require("learning_rate", learning_rate, 0.0 <= learning_rate < math.inf, "0 or more")
        _require("weight_decay", weight_decay, 0.0 <= weight_decay < math.inf, "0 or more")
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.multipliers: dict[str, float] = dict(multipliers or {})
        self._state: dict[str, dict[str, Float32]] = {}
        self._steps: dict[str, int] = {}
        # One buffer for all parameters, as large as the largest: they are stepped one after another.
        self._buffer: Float32 = np.empty(0, np.float32)

    def step(self, name: str, gradient: Float32, out: Float32, parameter: Float32 | None = None) -> None:
        """Write into `out` the update of parameter `name`, to be subtracted from it.

        `gradient` and `out` are float32 of the parameter's shape, and may be the same array. `parameter` is
        its present value: needed with a weight decay, else ignored.
        """
        if self.weight_decay and parameter is None:
            raise ValueError(f"weight_decay needs the value of {name!r}: pass parameter=")
        state = self._state.get(name)
        if state is None:
            state = {slot: np.zeros(gradient.shape, np.float32) for slot in self._slots}
            self._state[name] = state
            self._steps[name] = 0
        for value in state.values():
            if value.shape != gradient.shape:
                raise ValueError(f"gradient of {name!r} is {gradient.shape}, its state {value.shape}")
        self._steps[name] += 1
        rate = self.learning_rate * self.multipliers.get(name, 1.0)
        self._update(state, self._steps[name], rate, gradient, out, parameter)

    @abstractmethod
    def _update(
        self,
        state: dict[str, Float32],
        count: int,
        rate: float,
        gradient: Float32,
        out: Float32,
        parameter: Float32 | None,
    ) -> None:
        """Advance `state` and write the update of step `count` (from 1) into `out`."""

    def tensors(self) -> dict[str, NDArray[Any]]:
        """The state for a checkpoint: `SLOT/NAME` float32 and `steps/NAME` int64 `(1,)`.

        The arrays are the live ones, not copies: save them before the next step.
        """
        saved: dict[str, NDArray[Any]] = {}
        for name, state in self._state.items():
            saved.update({f"{slot}/{name}": value for slot, value in state.items()})
            saved[f"steps/{name}"] = np.array([self._steps[name]], np.int64)
        return saved

    def load(self, tensors: Mapping[str, NDArray[Any]]) -> None:
        """Replace the state by what `tensors` returned: the next steps are as if uninterrupted, to the bit.

        Raises StateError when it was saved by another kind of optimizer, or is incomplete.
        """
        steps: dict[str, int] = {}
        state: dict[str, dict[str, Float32]] = {}
        for key, value in tensors.items():
            slot, _, name = key.partition("/")
            if slot == "steps":
                steps[name] = int(value[0])
            state.setdefault(name, {})
            if slot != "steps":
                state[name][slot] = np.array(value, np.float32)
        for name, slots in state.items():
            if name not in steps or set(slots) != set(self._slots):
                raise StateError(
                    f"the progress checkpoint's optimizer state of {name!r} does not fit "
                    f"{type(self).__name__}: resume with the optimizer it was started with, "
                    "or start the task again."
                )
        self._state, self._steps = state, steps

    def _betas(self, given: tuple[float, float] | None) -> tuple[float, float]:
        """Decay rates of running means: those given, or the contract's. Raises ConfigError out of range."""
        betas = given or (self.constants["beta1"], self.constants["beta2"])
        for beta in betas:
            _require("betas", beta, 0.0 <= beta < 1.0, "at least 0 and below 1")
        return betas

    def _scratch(self, like: Float32) -> Float32:
        if self._buffer.size < like.size:
            self._buffer = np.empty(like.size, np.float32)
        return self._buffer[: like.size].reshape(like.shape)


OPTIMIZERS: dict[str, type[Optimizer]] = {}
Kind = TypeVar("Kind", bound=type[Optimizer])


def _registered(name: str) -> Callable[[Kind], Kind]:
    """Make a class the optimizer `name`, with the constants that the contract has for it."""

    def register(kind: Kind) -> Kind:
        assert name not in OPTIMIZERS, f"two optimizers are called {name}"
        kind.constants = SETTINGS["optimizer"].constants[name]
        OPTIMIZERS[name] = kind
        return kind

    return register


def optimizer_of(name: str, learning_rate: float, momentum: float, weight_decay: float) -> Optimizer:
    """The optimizer of that name with these settings. Raises ConfigError for one that nobody registered."""
    if name not in OPTIMIZERS:
        raise ConfigError(f"optimizer is {name!r}; it must be {' or '.join(OPTIMIZERS)}.")
    return OPTIMIZERS[name].of(learning_rate, momentum, weight_decay)


@_registered("sgd")
class SGD(Optimizer):
    """Stochastic gradient descent with heavy-ball momentum, in torch's form (Sutskever et al., 2013).

    `d = g + weight_decay * p`, `b <- momentum * b + d`, `U = learning_rate * b`.
    """

    def __init__(
        self,
        learning_rate: float,
        momentum: float = SETTINGS["momentum"].default,
        weight_decay: float = 0.0,
        multipliers: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(learning_rate, weight_decay, multipliers)
        _require("momentum", momentum, 0.0 <= momentum < 1.0, "at least 0 and below 1")
        self.momentum = momentum

    @classmethod
    def of(cls, learning_rate: float, momentum: float, weight_decay: float) -> Self:
        """One with these settings."""
        return cls(learning_rate, momentum, weight_decay)

    _slots = ("momentum",)

    def _update(
        self,
        state: dict[str, Float32],
        count: int,
        rate: float,
        gradient: Float32,
        out: Float32,
        parameter: Float32 | None,
    ) -> None:
        buffer = state["momentum"]
        np.multiply(buffer, self.momentum, out=buffer)
        np.add(buffer, gradient, out=buffer)
        if self.weight_decay and parameter is not None:
            scratch = self._scratch(gradient)
            np.multiply(parameter, self.weight_decay, out=scratch)
            np.add(buffer, scratch, out=buffer)
        np.multiply(buffer, rate, out=out)


@_registered("adamw")
class AdamW(Optimizer):
    """Adam (Kingma & Ba, arXiv 1412.6980), weight decay decoupled (Loshchilov & Hutter, arXiv 1711.05101).

    `m <- b1 m + (1-b1) g`, `v <- b2 v + (1-b2) g^2`,
    `U = learning_rate * (m / (1-b1^t) / (sqrt(v / (1-b2^t)) + eps) + weight_decay * p)`.
    """

    def __init__(
        self,
        learning_rate: float,
        betas: tuple[float, float] | None = None,
        eps: float | None = None,
        weight_decay: float = 0.0,
        multipliers: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(learning_rate, weight_decay, multipliers)
        eps = self.constants["epsilon"] if eps is None else eps
        _require("eps", eps, 0.0 < eps < math.inf, "above 0")
        self.betas = self._betas(betas)
        self.eps = eps

    _slots = ("first", "second")

    def _update(
        self,
        state: dict[str, Float32],
        count: int,
        rate: float,
        gradient: Float32,
        out: Float32,
        parameter: Float32 | None,
    ) -> None:
        first, second = state["first"], state["second"]
        beta1, beta2 = self.betas
        scratch = self._scratch(gradient)
        np.multiply(gradient, 1.0 - beta1, out=scratch)
        np.multiply(first, beta1, out=first)
        np.add(first, scratch, out=first)
        np.multiply(gradient, gradient, out=scratch)
        np.multiply(scratch, 1.0 - beta2, out=scratch)
        np.multiply(second, beta2, out=second)
        np.add(second, scratch, out=second)

        np.sqrt(second, out=scratch)
        np.multiply(scratch, 1.0 / math.sqrt(1.0 - beta2**count), out=scratch)
        np.add(scratch, self.eps, out=scratch)
        np.divide(first, scratch, out=out)
        np.multiply(out, rate / (1.0 - beta1**count), out=out)
        if self.weight_decay and parameter is not None:
            np.multiply(parameter, rate * self.weight_decay, out=scratch)
            np.add(out, scratch, out=out)


@_registered("lion")
class Lion(Optimizer):
    """Evolved sign momentum (Chen et al., 2023, arXiv 2302.06675, algorithm 2): one running mean, where Adam keeps two.

    `U = learning_rate * (sign(b1 m + (1-b1) g) + weight_decay * p)`, then `m <- b2 m + (1-b2) g`. Every element moves
    by the learning rate, so that rate is to be a third to a tenth of AdamW's, and the weight decay as much larger.
    """

    def __init__(
        self,
        learning_rate: float,
        betas: tuple[float, float] | None = None,
        weight_decay: float = 0.0,
        multipliers: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(learning_rate, weight_decay, multipliers)
        self.betas = self._betas(betas)

    _slots = ("mean",)

    def _update(
        self,
        state: dict[str, Float32],
        count: int,
        rate: float,
        gradient: Float32,
        out: Float32,
        parameter: Float32 | None,
    ) -> None:
        mean, (beta1, beta2) = state["mean"], self.betas
        scratch = self._scratch(gradient)
        # Of the same sign as b1 m + (1-b1) g, without a second buffer.
        np.multiply(mean, beta1 / (1.0 - beta1), out=scratch)
        np.add(scratch, gradient, out=scratch)
        np.sign(scratch, out=scratch)
        # What is left of the gradient is its distance from the mean.
        np.subtract(gradient, mean, out=out)
        np.multiply(out, 1.0 - beta2, out=out)
        np.add(mean, out, out=mean)
        np.multiply(scratch, rate, out=out)
        if self.weight_decay and parameter is not None:
            np.multiply(parameter, rate * self.weight_decay, out=scratch)
            np.add(out, scratch, out=out)


def cosine(step: int, total: int, warmup: int = 0) -> float:
    """Factor of the learning rate at `step` (from 0) of `total`, in 0..1.

    It rises linearly over the first `warmup` steps to 1, then falls along half a cosine to 0 at `total`
    (Loshchilov & Hutter, arXiv 1608.03983, without restarts). Raises ConfigError for a negative `warmup`
    or a `total` below 1.
    """
    _require("total", total, total >= 1, "1 or more")
    _require("warmup", warmup, warmup >= 0, "0 or more")
    if step < warmup:
        return (step + 1) / warmup
    if step >= total:
        return 0.0
    return 0.5 * (1.0 + math.cos(math.pi * (step - warmup) / (total - warmup)))


def warm_up_steps(per_epoch: int) -> int:
    """Over how many steps the learning rate rises, of `per_epoch` in an epoch."""
    return min(per_epoch // 2, integer("warm_up", "most_steps"))


def _require(name: str, value: float, allowed: bool, bounds: str) -> None:
    if not allowed:
        raise ConfigError(f"{name} is {value}, but it must be {bounds}.")
