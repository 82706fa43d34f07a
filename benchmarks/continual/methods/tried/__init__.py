"""What was tried to learn more under projection: each class changes one thing of the defaults.

All see the features of layers, as csk-sdk's defaults do. What pays is in the product, and the others are here to
show why not: docs/decisions/0012-raising-the-method.md.
"""

from __future__ import annotations

from .all_classes import AllClasses, LatentReplay
from .channels import (
    All,
    AllFreer,
    AllStages,
    Biases,
    ByBudget,
    ByInput,
    ByNovelty,
    Half,
    LastStage,
    Random,
    Reselected,
    ThreeStages,
)
from .defaults import Defaults, Untrained
from .protection import (
    DeepFree,
    EffectiveRank,
    Energy50,
    Energy65,
    Energy90,
    Halfway,
    NullSpace,
    Scaled1,
    Scaled10,
    Scaled100,
    ShallowFree,
)
from .steps import Averaged, Contrastive, FourTimesAsLong, Mixup, Rotations, TwiceAsLong

TRIED = (
    Defaults, Untrained, Energy50, Energy65, Energy90, DeepFree, ShallowFree, EffectiveRank, NullSpace, Scaled1,
    Scaled10, Scaled100, Halfway, Half, All, AllFreer, Random, ByInput, ByNovelty, ByBudget, Reselected, LastStage,
    ThreeStages, AllStages, Biases, TwiceAsLong, FourTimesAsLong, Mixup, Rotations, Contrastive, Averaged, AllClasses,
    LatentReplay,
)  # fmt: skip
