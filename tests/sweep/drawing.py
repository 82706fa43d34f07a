"""Networks by the number: hypothesis draws them, the same ones for the same number."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import onnx
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from kinds import KINDS, NEIGHBOURS, OFTEN, SINCE
from nodes import FIRST, LAST, Network

OLDEST, NEWEST = 11, 23


@dataclass(frozen=True)
class Drawn:
    """A network around one op of a kind."""

    kind: str
    model: onnx.ModelProto


def drawn(count: int) -> Iterator[Drawn]:
    """`count` networks, each kind in its share."""
    weights = {kind: OFTEN.get(kind, 1) for kind in KINDS}
    whole, done = sum(weights.values()), 0
    for number, (kind, weight) in enumerate(weights.items()):
        last = number == len(weights) - 1
        share = count - done if last else round(count * weight / whole)
        done += share
        yield from _of_kind(kind, share)


def _of_kind(kind: str, count: int) -> list[Drawn]:
    return [Drawn(kind, _drawn_by(kind, number)) for number in range(count)]


def _drawn_by(kind: str, number: int) -> onnx.ModelProto:
    """Of two examples by one seed the second: the first is the simplest one, and later ones resemble earlier ones."""
    found: list[onnx.ModelProto] = []

    @seed(zlib.crc32(f"{kind} {number}".encode()))
    @settings(
        max_examples=2,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def collect(data: st.DataObject) -> None:
        found.append(data.draw(_models(kind)))

    collect()
    return found[-1]


@st.composite
def _models(draw: st.DrawFn, kind: str) -> onnx.ModelProto:
    """A convolution, perhaps a neighbour, the op, perhaps a neighbour, perhaps a convolution."""
    opset = draw(st.integers(max(OLDEST, SINCE.get(kind, 0)), NEWEST))
    net = Network(draw, opset, (3, draw(st.integers(4, 8)), draw(st.integers(4, 8))))
    x = net.conv("x", FIRST)
    if net.integer(0, 2) == 0:
        x = _neighbour(net, x)
    x = KINDS[kind](net, x)
    if len(net.shape(x)) == 4 and net.integer(0, 2) == 0:
        x = _neighbour(net, x)
    if len(net.shape(x)) == 4 and net.coin():
        x = net.conv(x, LAST)
    return net.finish(x)


def _neighbour(net: Network, x: str) -> str:
    return KINDS[net.one_of(*NEIGHBOURS)](net, x)
