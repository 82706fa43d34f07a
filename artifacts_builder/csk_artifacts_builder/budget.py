"""`--memory-budget`: which sites leave the predicted peak of learning within it."""

from __future__ import annotations

from collections.abc import Sequence

from csk_artifacts_builder.graphs import training_model
from csk_artifacts_builder.head import SplitHead
from csk_artifacts_builder.memory import PEAK, predict_memory
from csk_artifacts_builder.options import BuildOptions
from csk_artifacts_builder.prepare import SourceModel
from csk_sdk.errors import ConfigError, ModelError
from csk_sdk.manifest import Head, Site


class Budget:
    """The budget of a build, in bytes."""

    def __init__(self, allowed: int, source: SourceModel, head: SplitHead, options: BuildOptions) -> None:
        self._allowed, self._source, self._head, self._options = allowed, source, head, options

    def holds(self, sites: Sequence[Site]) -> bool:
        """Whether training `sites` stays within the budget."""
        return self._peak(sites) <= self._allowed

    def too_small(self, last: Site) -> ConfigError:
        """The sentence for a budget that not even the last site fits into."""
        needed = -(-self._peak([last]) // 2**20)
        return ConfigError(
            f"--memory-budget is {self._allowed / 2**20:.1f} MiB, but {self._source.path.name} needs {needed} MiB to "
            f"train its last site '{last.name}' alone, in batches of {self._options.batch_size}. Pass "
            f"--memory-budget {needed}MiB or more, a smaller --batch-size, or a smaller network."
        )

    def _peak(self, sites: Sequence[Site]) -> int:
        where, options = self._source.path.name, self._options
        classes, features = self._head.weight.shape
        head = Head(features=features)
        training = training_model(self._source.model, sites, head, where, options.loss)
        predicted = predict_memory(training, sites, features, classes, options.batch_size)
        if not predicted:
            raise ModelError(
                f"{where} has tensors of unknown size, so its memory cannot be predicted. Build it without "
                "--memory-budget, and measure."
            )
        return predicted[PEAK]
