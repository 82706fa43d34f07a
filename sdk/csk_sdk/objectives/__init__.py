"""What each loss means for labels, heads, predictions and measures: one `Objective` per loss."""

from csk_sdk.errors import BundleError
from csk_sdk.objectives.classification import Classification
from csk_sdk.objectives.multi_label import MultiLabel
from csk_sdk.objectives.objective import Measure, Objective, Prediction, Targets
from csk_sdk.objectives.regression import Regression

OBJECTIVES: dict[str, Objective] = {one.loss: one for one in (Classification(), MultiLabel(), Regression())}


def objective_of(loss: str) -> Objective:
    """The objective of a manifest's `loss`. Raises BundleError for one that this csk-sdk does not know."""
    if loss not in OBJECTIVES:
        raise BundleError(
            f"The bundle was built with loss '{loss}', and this csk-sdk knows {', '.join(OBJECTIVES)}: update csk-sdk "
            "on this device."
        )
    return OBJECTIVES[loss]


__all__ = ["OBJECTIVES", "Measure", "Objective", "Prediction", "Targets", "objective_of"]
