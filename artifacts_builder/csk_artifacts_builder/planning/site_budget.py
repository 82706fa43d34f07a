"""`--memory-budget`: which sites leave the predicted peak of learning within it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from csk_artifacts_builder.graphs.head import SplitHead
from csk_artifacts_builder.graphs.layer_features import LAST
from csk_artifacts_builder.graphs.models import training_model
from csk_artifacts_builder.int8.mixed import Mixed
from csk_artifacts_builder.int8.quantize import quantize, unmeasured
from csk_artifacts_builder.measure.memory import PEAK, predict_memory
from csk_artifacts_builder.options import BuildOptions
from csk_artifacts_builder.prepare.model import SourceModel
from csk_artifacts_builder.sites import KERNELS
from csk_sdk.contract.manifest import INT8, Head, Manifest, Site
from csk_sdk.errors import ConfigError, ModelError


class Budget:
    """The budget of a build, in bytes."""

    def __init__(self, allowed: int, source: SourceModel, head: SplitHead, options: BuildOptions) -> None:
        self._allowed, self._source, self._head, self._options = allowed, source, head, options
        self._in_float = {frozenset[str]()}

    def holds(self, sites: Sequence[Site]) -> bool:
        """Whether training `sites` stays within the budget, whichever of the counted ways int8 is mixed in."""
        return self._parts(sites)[PEAK] <= self._allowed

    def is_kept(self, manifest: Manifest, mixed: Mixed) -> bool:
        """Whether what was built stays within it, or is mixed in a way that was counted already."""
        return mixed.calibration.in_float in self._in_float or manifest.memory[PEAK] <= self._allowed

    def count(self, mixed: Mixed) -> None:
        """From now on, sites must also fit where what stayed in float32 here does."""
        self._in_float.add(mixed.calibration.in_float)

    def too_small(self, last: Site) -> ConfigError:
        """The sentence for a budget that not even the last site fits into, or not even the features."""
        parts, options = self._parts([last]), self._options
        needed = -(-parts[PEAK] // 2**20)
        allowed = f"--memory-budget is {self._allowed / 2**20:.1f} MiB"
        what = f"{allowed}, but {self._source.path.name} needs {needed} MiB to "
        enough = f"Pass --memory-budget {needed}MiB or more"
        if parts[PEAK] == parts["runtime"] + parts["head"] and options.features != LAST:
            features = self._head.weight.shape[1]
            return ConfigError(f"{what}fit a head on {features:,} features. {enough}, or --features {LAST}.")
        size = f"at {'x'.join(map(str, options.input_size))}, " if options.input_size else ""
        if options.sites == KERNELS and parts["moments"] > parts["activations"] + parts["learning"]:
            return ConfigError(
                f"{what}learn a task with the whole kernel of its last site '{last.name}' alone, most of it for second "
                f"moments. {enough}, or --sites center."
            )
        smaller = "a smaller --batch-size or --input-size" if size else "a smaller --batch-size"
        return ConfigError(
            f"{what}train its last site '{last.name}' alone, {size}in batches of {options.batch_size}. {enough}, "
            f"{smaller}, or a smaller network."
        )

    def _parts(self, sites: Sequence[Site]) -> dict[str, int]:
        ways = self._in_float if self._options.precision == INT8 else {frozenset[str]()}
        return max((self._parts_of(sites, way) for way in ways), key=lambda parts: parts[PEAK])

    def _parts_of(self, sites: Sequence[Site], in_float: frozenset[str]) -> dict[str, int]:
        where, options = self._source.path.name, self._options
        classes, features = self._head.weight.shape
        head = Head(features=features)
        training = training_model(self._source.model, sites, head, where, options.loss)
        int8 = options.precision == INT8
        if int8:
            made_up = replace(unmeasured(training, head.weight), in_float=in_float)
            quantize(training, made_up, head.weight)
        predicted = predict_memory(training, sites, features, classes, options.batch_size, int8)
        if not predicted:
            raise ModelError(
                f"{where} has tensors of unknown size, so its memory cannot be predicted. Build it without "
                "--memory-budget, and measure."
            )
        return predicted
