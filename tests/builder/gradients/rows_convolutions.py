"""Rows of convolutions."""

from __future__ import annotations

import re

from gradient_row import Row

GROUPED = "slices a grouped ConvTranspose's weight by output channels"


def convolution(
    case: str, size: str, weight: tuple[int, ...], attributes: str = "", bias: bool = False, fault: str = ""
) -> Row:
    channels = weight[1] * int((re.findall(r"group=(\d+)", attributes) or ["1"])[0])
    dims = ",".join("?" for _ in weight[2:])
    tensors: dict[str, tuple[int, ...]] = {"w": weight} | ({"b": weight[:1]} if bias else {})
    names = ", ".join(["x", *tensors])
    y = f"float[N,{weight[0]},{dims}] y"
    text = f"(float[N,{channels},{size}] x) => ({y}) {{ y = Conv {attributes} ({names}) }}"
    return Row("Conv", case, text, tensors, reference_fault=fault)


def transposed(case: str, size: str, weight: tuple[int, ...], attributes: str, fault: str = "") -> Row:
    dims = ",".join("?" for _ in weight[2:])
    channels = weight[1] * int((re.findall(r"group=(\d+)", attributes) or ["1"])[0])
    text = f"(float[N,{weight[0]},{size}] x) => (float[N,{channels},{dims}] y)"
    call = f"{{ y = ConvTranspose <{attributes}> (x, w, b) }}"
    return Row(
        "ConvTranspose", case, f"{text} {call}", {"w": weight, "b": (channels,)}, reference_fault=fault
    )


ROWS = [
    convolution("plain 3x3", "5,5", (4, 3, 3, 3), "<pads=[1,1,1,1]>", bias=True),
    convolution("no padding", "5,6", (4, 3, 3, 3)),
    convolution("stride 2 odd size", "7,7", (4, 3, 3, 3), "<strides=[2,2], pads=[1,1,1,1]>"),
    convolution("stride 2 even size", "6,6", (4, 3, 3, 3), "<strides=[2,2], pads=[1,1,1,1]>"),
    convolution("stride 2 last rows unseen", "8,8", (4, 3, 3, 3), "<strides=[2,2]>"),
    convolution("stride 3", "8,8", (4, 3, 3, 3), "<strides=[3,3], pads=[1,1,1,1]>"),
    convolution("stride 3 last rows unseen", "10,11", (4, 3, 3, 3), "<strides=[3,3], pads=[0,1,0,1]>"),
    convolution("stride 3 5x5", "11,11", (3, 2, 5, 5), "<strides=[3,3], pads=[2,2,2,2]>"),
    convolution("dilation 2", "7,7", (4, 3, 3, 3), "<dilations=[2,2], pads=[2,2,2,2]>"),
    convolution(
        "dilation 2 stride 2", "9,9", (4, 3, 3, 3), "<dilations=[2,2], strides=[2,2], pads=[2,2,2,2]>"
    ),
    convolution("asymmetric pads", "6,6", (4, 3, 3, 3), "<pads=[0,1,2,1]>"),
    convolution("asymmetric pads stride 2", "6,7", (4, 3, 3, 3), "<strides=[2,2], pads=[0,0,1,1]>"),
    convolution("padding wider than the kernel", "4,4", (4, 3, 3, 3), "<pads=[3,4,4,3]>"),
    convolution(
        "padding wider than the kernel stride 2", "5,5", (4, 3, 3, 3), "<strides=[2,2], pads=[4,3,3,4]>"
    ),
    convolution("1x1 with padding", "4,4", (4, 3, 1, 1), "<pads=[1,2,1,0]>"),
    convolution("groups", "5,5", (4, 2, 3, 3), "<pads=[1,1,1,1], group=2>", fault=GROUPED),
    convolution(
        "groups stride 2", "6,7", (4, 2, 3, 3), "<pads=[1,1,1,1], strides=[2,2], group=2>", fault=GROUPED
    ),
    convolution("depthwise", "5,5", (4, 1, 3, 3), "<pads=[1,1,1,1], group=4>"),
    convolution("depthwise twice as wide", "5,5", (6, 1, 3, 3), "<pads=[1,1,1,1], group=3>", fault=GROUPED),
    convolution("depthwise stride 2", "6,6", (4, 1, 3, 3), "<pads=[1,1,1,1], strides=[2,2], group=4>"),
    convolution(
        "depthwise dilation 2 padded wide", "5,5", (3, 1, 3, 3), "<pads=[4,4,5,5], dilations=[2,2], group=3>"
    ),
    convolution("1x1", "4,5", (4, 3, 1, 1)),
    convolution("1x1 stride 2 even", "6,6", (4, 3, 1, 1), "<strides=[2,2]>"),
    convolution("1x1 stride 2 odd", "5,7", (4, 3, 1, 1), "<strides=[2,2]>"),
    convolution("5x5 stride 2", "9,8", (3, 2, 5, 5), "<strides=[2,2], pads=[2,2,2,2]>"),
    convolution("7x7 stride 2, as in ResNet", "9,9", (2, 3, 7, 7), "<strides=[2,2], pads=[3,3,3,3]>"),
    convolution("2x2 stride 2", "6,7", (4, 3, 2, 2), "<strides=[2,2]>"),
    convolution("2x2 stride 1", "5,5", (4, 3, 2, 2), "<pads=[0,0,1,1]>"),
    convolution("4x4 stride 2", "8,9", (2, 3, 4, 4), "<strides=[2,2], pads=[1,1,1,1]>"),
    convolution("4x4 stride 4, as a patch embedding", "8,8", (2, 3, 4, 4), "<strides=[4,4]>"),
    convolution("2x2 smaller than stride 3", "8,9", (4, 3, 2, 2), "<strides=[3,3]>"),
    convolution("1x1 smaller than stride 3", "8,7", (4, 3, 1, 1), "<strides=[3,3], pads=[1,0,1,0]>"),
    convolution(
        "1x3 smaller than stride 2 in one axis", "6,6", (4, 3, 1, 3), "<strides=[2,2], pads=[0,1,0,1]>"
    ),
    convolution("1-d", "9", (4, 3, 3), "<pads=[1,1]>"),
    convolution("1-d stride 2", "9", (4, 3, 3), "<pads=[1,0], strides=[2]>"),
    convolution("1-d groups dilation", "9", (4, 2, 3), "<pads=[2,2], dilations=[2], group=2>", fault=GROUPED),
    convolution("3-d", "4,4,3", (2, 2, 3, 3, 3), "<pads=[1,1,1,1,1,1]>"),
    convolution("non-square kernel", "5,6", (4, 3, 1, 3), "<pads=[0,1,0,1]>"),
    convolution("non-square strides", "7,8", (4, 3, 3, 3), "<strides=[1,2], pads=[1,1,1,1]>"),
    convolution("non-square kernel and strides", "9,8", (4, 3, 5, 3), "<strides=[3,2], pads=[2,1,1,0]>"),
    convolution("mixed dilations", "8,8", (4, 3, 3, 3), "<dilations=[1,2], pads=[1,2,1,2]>"),
    transposed("2x2 stride 2", "3,4", (3, 2, 2, 2), "strides=[2,2]"),
    transposed(
        "3x3 stride 2, output padding",
        "3,4",
        (3, 2, 3, 3),
        "strides=[2,2], pads=[1,1,1,1], output_padding=[1,1]",
    ),
    transposed("asymmetric, dilated", "5,4", (3, 2, 3, 2), "dilations=[2,3], pads=[1,0,2,1]"),
    transposed("groups", "4,4", (4, 3, 3, 3), "group=2, strides=[2,1], pads=[1,1,1,1]", GROUPED),
    transposed("depthwise", "4,4", (3, 1, 4, 4), "group=3, strides=[2,2], pads=[1,1,1,1]"),
    transposed("1-d", "5", (3, 2, 3), "strides=[2]"),
]
