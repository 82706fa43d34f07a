"""Every method of the benchmark by its name; each module holds one family."""

from __future__ import annotations

from .csko import ABLATIONS
from .ewc import EWC
from .finetune import (
    BiasOnly,
    FineTuning,
    GentleFineTuning,
    GentleLastStage,
    HeadOnly,
    LastStage,
    LayersFineTuning,
)
from .gpm import GPM
from .lwf import LwF
from .method import Method
from .nscl import AdamNSCL
from .prototypes import FeCAM, FeTrIL
from .replay import Replay
from .softmax import OneSoftmax
from .sparse import SparseUpdate
from .tried import TRIED

METHODS: dict[str, type[Method]] = {
    one.name: one
    for one in (
        FineTuning, LayersFineTuning, GentleFineTuning, OneSoftmax, LastStage, GentleLastStage, HeadOnly, BiasOnly,
        SparseUpdate, EWC, LwF, GPM, AdamNSCL, Replay, FeCAM, FeTrIL, *ABLATIONS, *TRIED,
    )
}  # fmt: skip
