"""Activations divided by powers of two, where they grow beyond what float16 and squares in float32 hold.

Dividing by a power of two changes no mantissa. Most layers of a convolutional network give `f(x / 2^e) = f(x) / 2^e`,
and a layer of constant weights gives whatever its weights are scaled to, so that each layer's activations have an
exponent of their own, and the classifier's weight takes the last one back: the logits are the same bits, until numbers
become smaller than float32 has. Which exponents these are: exponents.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from csk_artifacts_builder.emit import Emitter
from csk_artifacts_builder.prepare.exponents import (
    ADDED,
    MOVED,
    constant_of,
    exponents_of,
    factor_place,
    is_homogeneous,
)

# Numbers of a constant that are smaller, compared with its largest, may be lost.
_NEGLIGIBLE = 2.0**-48
_TINY = float(np.finfo(np.float32).tiny)


def level(model: ir.Model, largest: Mapping[str, float]) -> tuple[str, ...]:
    """Divide activations as above, in place; the names of all values that are smaller now, () where none needs to be.

    `largest` holds the largest absolute number that was seen of each value, by name.
    """
    border: set[ir.Value] = set()
    while True:
        exponents = exponents_of(model, largest, border)
        changes = [change for node in model.graph for change in _changes(node, exponents)]
        kept = {change.value for change in changes if not change.is_exact}
        if not kept:
            break
        border |= kept
    emit = Emitter(model.graph)
    for change in changes:
        change.write(emit)
    return tuple(str(value.name) for value, exponent in exponents.items() if exponent)


@dataclass(frozen=True)
class _Change:
    """A constant of a node that is multiplied by `2^shift`, so that `value` has its exponent.

    Of what is added or compared with, numbers up to the smallest normal one stand for 0, as a pool's padding writes it.
    """

    node: ir.Node
    place: int
    shift: int
    value: ir.Value
    nothing: float = _TINY

    @property
    def _constant(self) -> NDArray[np.float32]:
        array = constant_of(self.node, self.place)
        assert array is not None
        return array

    @property
    def _scaled(self) -> NDArray[np.float32]:
        array = self._constant
        kept = np.abs(array) <= self.nothing
        with np.errstate(over="ignore", under="ignore"):
            return np.where(kept, array, np.ldexp(array, self.shift)).astype(array.dtype)

    @property
    def is_exact(self) -> bool:
        """Whether float32 holds all that matters of it, without denormal numbers, which some CPUs round to 0."""
        finite = np.isfinite(self._constant)
        size, scaled = np.abs(self._constant[finite]), np.abs(self._scaled[finite])
        lost = (scaled < _TINY) & (size > max(self.nothing, _NEGLIGIBLE * size.max(initial=0.0)))
        return bool(np.isfinite(scaled).all()) and not lost.any()

    def write(self, emit: Emitter) -> None:
        """Into the constant itself where only this node reads it, else into a copy."""
        value = self.node.inputs[self.place]
        assert value is not None
        maker, scaled = value.producer(), self._scaled
        if maker is not None and maker.op_type == "ConstantOfShape":
            maker.attributes["value"] = ir.AttrTensor("value", ir.tensor(scaled))
        elif maker is None and len(value.uses()) == 1 and not value.is_graph_output():
            value.const_value = ir.tensor(scaled, name=value.name)
        else:
            name = f"{value.name}.{self.node.outputs[0].name}.{self.place}"
            self.node.replace_input_with(self.place, emit.initializer(scaled, name))


def _changes(node: ir.Node, exponents: Mapping[ir.Value, int]) -> Iterator[_Change]:
    """What has to be done to a node's constants."""
    y = node.outputs[0]
    b = exponents.get(y, 0)
    place = factor_place(node)
    if place is not None:
        x = node.inputs[1 - place]
        assert x is not None
        a = exponents.get(x, 0)
        shift = b - a if node.op_type == "Div" else a - b
        if shift:
            yield _Change(node, place, shift, y if b else x, nothing=0.0)
        places: Sequence[int] = range(2, len(node.inputs))
    elif is_homogeneous(node):
        places = range(len(node.inputs)) if node.op_type in ADDED else MOVED.get(node.op_type, ())
    else:
        places = ()
    if b:
        yield from (_Change(node, one, -b, y) for one in places if constant_of(node, one) is not None)
