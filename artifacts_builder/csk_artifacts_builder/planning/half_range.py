"""Whether float16 holds what a device would keep of an image between epochs."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from csk_artifacts_builder.graphs.prefix import Cut, prefix_model
from csk_artifacts_builder.measure.running import PREPARED, open_graph, run_all
from csk_artifacts_builder.prepare.exponents import LARGEST
from csk_artifacts_builder.prepare.model import SourceModel
from csk_sdk.errors import ModelError


def beyond_half(source: SourceModel, cut: Cut, images: NDArray[np.float32]) -> str:
    """A sentence where features at the cut lie beyond float16 for these images; "" where they do not.

    And where nothing runs, which is said when the model is compared with its source.
    """
    try:
        graph = open_graph(ir.to_proto(prefix_model(source.model, cut)).SerializeToString(), PREPARED)
        found = run_all(graph, images, PREPARED)
    except ModelError:
        return ""
    largest = max(float(np.abs(one).max()) for one in found)
    if not largest > LARGEST:
        return ""
    return (
        f"what the layers in front of the first trained one compute reaches {largest:.1e}, near or beyond float16, in "
        "which it would be kept between epochs: nothing is, whatever --prefix-cache says."
    )
