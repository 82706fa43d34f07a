"""Fine-tuning without any protection, of everything or of a part."""

from __future__ import annotations

from torch import nn

from .method import Method


class FineTuning(Method):
    """All weights and biases."""

    name, title = "finetune", "full fine-tuning"


class LayersFineTuning(FineTuning):
    """Given the features that csk-sdk's heads decide by, too."""

    name, title, layers = "finetune-layers", "full fine-tuning, features of layers", True


class GentleFineTuning(FineTuning):
    """The same at less than a third of the rate that learns the first task best: less learned, less forgotten."""

    name, title, rate = "finetune-gentle", "full fine-tuning, rate 0.0003", 0.0003


class LastStage(Method):
    """Weights and biases of the last stage: the convolutions that see or make the smallest map."""

    name, title = "last-stage", "last stage"

    def parameters(self) -> list[nn.Parameter]:
        return [parameter for conv in last_stage(self) for parameter in conv.parameters()]


class GentleLastStage(LastStage):
    """The same at a tenth of the rate that learns the first task best."""

    name, title, rate = "last-stage-gentle", "last stage, rate 0.001", 0.001


class HeadOnly(Method):
    """Nothing but each task's head."""

    name, title, frozen = "head-only", "head only", True


class BiasOnly(Method):
    """All biases of convolutions: TinyTL without its lite residual modules, which the deployed network lacks."""

    name, title = "bias-only", "bias only (TinyTL)"
    source = "Cai et al., NeurIPS 2020, arXiv 2007.11622"

    def parameters(self) -> list[nn.Parameter]:
        return [conv.bias for conv in self.network.convolutions.values() if conv.bias is not None]


def last_stage(method: Method) -> list[nn.Conv2d]:
    """The convolutions with the most output channels."""
    convolutions = list(method.network.convolutions.values())
    widest = max(conv.out_channels for conv in convolutions)
    return [conv for conv in convolutions if conv.out_channels == widest]
