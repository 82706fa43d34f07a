"""How far back gradients reach, where an op on the way has no rule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from csk_artifacts_builder.graphs.choice import AUTO
from csk_artifacts_builder.graphs.models import training_model
from csk_artifacts_builder.options import BuildOptions
from csk_artifacts_builder.prepare.model import SourceModel
from csk_sdk.contract.manifest import Manifest, Site
from csk_sdk.errors import UnsupportedOpError

_REMEDY = ". Train only later layers"


def sites_behind(
    source: SourceModel,
    possible: list[Site],
    options: BuildOptions,
    described: Manifest,
    error: UnsupportedOpError,
) -> tuple[SourceModel, list[Site]]:
    """With `--trainable auto`, the sites behind the last op that has no gradient rule, and the source with a note.

    Raises UnsupportedOpError: `error` where another choice was asked for, and another one where no site lies behind.
    """
    low, high = 1, len(possible)
    while low < high:
        middle = (low + high) // 2
        if _is_differentiable(source, possible[middle:], described):
            high = middle
        else:
            low = middle + 1
    reached = possible[low:]
    reason = str(error).split(_REMEDY)[0]
    if not reached:
        raise UnsupportedOpError(
            f"{reason}, and no convolution that could be trained lies behind it: of this network none can."
        )
    if options.trainable != AUTO:
        raise error
    said = f"{reason}: --trainable auto trains what lies behind it, from node '{reached[0].node}' on."
    return replace(source, notes=(*source.notes, said)), reached


def _is_differentiable(source: SourceModel, sites: Sequence[Site], manifest: Manifest) -> bool:
    try:
        training_model(source.model, sites, manifest.head, source.path.name, manifest.loss)
    except UnsupportedOpError:
        return False
    return True
