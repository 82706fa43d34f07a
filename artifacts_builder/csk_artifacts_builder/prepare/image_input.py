"""The input of a model: one, of images or signals, and of a size that a device can have."""

from __future__ import annotations

import math
from collections.abc import Sequence

import onnx_ir as ir

from csk_artifacts_builder.model_kinds import CLASSIFIERS_ONLY, kind_of
from csk_artifacts_builder.prepare.channel_axis import adds_its_batch, is_channels_last, require_known_layout
from csk_sdk.contract.thresholds import integer
from csk_sdk.errors import ConfigError, ModelError

# Manifests of larger ones are refused: csk_sdk/bundle/manifest_checks.py.
_MOST_NUMBERS = integer("limits", "input_numbers")


def image_input(model: ir.Model, where: str, given: Sequence[int] | None) -> ir.Value:
    """The one input, of the size that the file or `given` says.

    Raises ModelError for a model that takes anything but images or signals of one size, ConfigError for a size that
    does not fit it.
    """
    inputs = list(model.graph.inputs)
    if len(inputs) != 1:
        _refuse_kind(model, where)
        names = ", ".join(f"'{value.name}'" for value in inputs)
        raise ModelError(f"{where} has {len(inputs)} inputs ({names}); a classifier has one input.")
    image = inputs[0]
    if image.dtype != ir.DataType.FLOAT:
        raise ModelError(
            f"{where} takes {image.dtype} input '{image.name}'; export it with float32 or uint8 input."
        )
    if image.shape is None or len(image.shape) not in (3, 4):
        raise ModelError(
            f"{where}: input '{image.name}' is neither (batch, channels, height, width) nor (batch, channels, length)."
        )
    if adds_its_batch(image):
        raise ModelError(
            f"{where}: input '{image.name}' {image.shape} has no batch dimension: its sizes are those of one image. "
            f"Export the model for a batch of images, such as [1,{','.join(map(str, image.shape))}]."
        )
    picture = len(image.shape) == 4
    require_known_layout(image, where)
    if given is not None:
        _set_size(model, image, given, where)
    if not all(isinstance(dim, int) for dim in image.shape[1:]):
        _refuse_kind(model, where)
        what, size = ("height or width", "224x224") if picture else ("length", "16000")
        raise ModelError(
            f"{where}: input '{image.name}' has dynamic {what} {image.shape}. Say what it is to be on the device with "
            f"--input-size, such as --input-size {size}; only the batch may be dynamic."
        )
    if not picture and is_channels_last(image):
        raise ModelError(
            f"{where}: input '{image.name}' has its channels last in {image.shape}. Export it in "
            "(batch, channels, length) order."
        )
    _require_device_size(image, given, where)
    return image


def _require_device_size(image: ir.Value, given: Sequence[int] | None, where: str) -> None:
    """Raise where no device opens a bundle of that size: before anything of it is in memory."""
    assert image.shape is not None
    if math.prod(int(str(dim)) for dim in image.shape[1:]) <= _MOST_NUMBERS:
        return
    most = f"more than the {_MOST_NUMBERS:,} numbers that an input of a bundle may have"
    if given is not None:
        raise ConfigError(
            f"--input-size is {'x'.join(map(str, given))}: {most}. Give the size that the model was trained for."
        )
    raise ModelError(f"{where}: input '{image.name}' is {image.shape}, {most}. Export it for a smaller one.")


def _refuse_kind(model: ir.Model, where: str) -> None:
    """What else would be asked of its user is of no use for a model that is no classifier."""
    kind = kind_of(model)
    if kind is not None:
        raise ModelError(f"{where} is {kind}. {CLASSIFIERS_ONLY}")


def _set_size(model: ir.Model, image: ir.Value, given: Sequence[int], where: str) -> None:
    """Write the size that the file leaves open, in place.

    Raises ConfigError for one of another rank, or another one than the file's.
    """
    assert image.shape is not None
    asked = "x".join(map(str, given))
    axes = (
        list(range(1, len(image.shape) - 1)) if is_channels_last(image) else list(range(2, len(image.shape)))
    )
    if len(given) != len(axes) or min(given) < 1:
        what = "HEIGHTxWIDTH, such as 224x224" if len(axes) == 2 else "one number of samples"
        raise ConfigError(f"--input-size is {asked}; for {where} it must be {what}.")
    sizes = list(image.shape)
    for axis, size in zip(axes, given, strict=True):
        if isinstance(sizes[axis], int) and sizes[axis] != size:
            raise ConfigError(f"--input-size is {asked}, but {where} takes {image.shape}: leave it out.")
        sizes[axis] = size
    image.shape = ir.Shape(sizes)
    # What the file says of sizes behind it was open, too.
    for value in (*model.graph.outputs, *(value for node in model.graph for value in node.outputs)):
        value.shape = None
