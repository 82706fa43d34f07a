"""Does a bundle compute the right thing on *this* device, with *its* ONNX Runtime?

An independent witness: the loss is computed here in float64 from the graph's logits, and every gradient that
the training model gives is compared with central differences of that loss. So nothing of the gradient code,
of the builder or of the optimised graph is believed. Of an int8 bundle only the difference along the gradient can be
measured, more coarsely: it finds a wrong sign, scale or layout, not an error of a tenth.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from timeit import repeat
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csk_sdk.bundle.folder import Bundle
from csk_sdk.contract.manifest import (
    BINARY_CROSS_ENTROPY,
    CROSS_ENTROPY,
    EVAL_MODEL,
    MEMORY_MODEL,
    MSE,
    PORTABLE,
    PREFIX_MODEL,
    TRAINING_MODEL,
)
from csk_sdk.device.probe import like_data
from csk_sdk.errors import BundleError
from csk_sdk.formats.wording import plural
from csk_sdk.method.selection import channel_count
from csk_sdk.runtime.sessions import Graph
from csk_sdk.workspace.folder import workspace_of

Feeds = dict[str, NDArray[Any]]

_IMAGES = 4
_DIRECTIONS = 8
# Steps of a difference, relative to the parameter's norm, until one agrees: small ones drown in float32
# rounding where a gradient is small, large ones cross ReLU kinks. A wrong gradient agrees at no step, on no batch.
# The last moves centers by as much as they differ: where weights are one number, rounding hides anything less.
_STEPS = (0.01, 0.03, 0.003, 0.1, 0.3, 0.001, 1.0, 10.0)
# Along the gradient itself, where a difference is largest, right gradients come out below 0.005, and means that are
# divided wrongly in the last row and column of a 16x16 image at 0.03. In random directions kinks hide more: a right
# gradient of ShuffleNetV2 is off by 0.015 there.
_ALONG, _ACROSS = 0.01, 0.05
# int8 rounds, and a difference sees the steps: only that along the gradient itself, over more images, stands out.
_INT8_IMAGES = 32
_INT8_TOLERANCE = 0.3
# An int8 gradient is rounded to its batch's largest element.
_INT8_SAME = 0.05
# Features between prefix and suffix: float16, or uint8.
_STORED, _INT8_STORED = 0.01, 0.2
_ATTEMPTS = 3
# Points of one image each that are looked at where no step agreed: fewer activations, so fewer kinks.
_POINTS = 12
# A loss that changes by less, relative to itself, over ten times the parameter's norm, does not change in float32.
_NOTHING, _FAR = 2 * float(np.finfo(np.float32).eps), 10.0
# Up to so many times what is zero, a gradient is told along itself alone, by the farthest steps, and no better than
# this: the rest is rounding.
_FAINT, _FAR_STEPS, _FAINT_ALONG = 200.0, _STEPS[-2:], 0.1
_NEGATIVE, _SAME = 1e-5, 1e-3
# Logits, or weights, that differ by less of their size are one number but for rounding.
_ALIKE = 1e-6
_TIMED_STEPS = 5


@dataclass(frozen=True)
class Result:
    """One check: `detail` holds the numbers it was decided on; `value` is the main one."""

    name: str
    passed: bool
    detail: str
    value: float


def check_bundle(bundle: Path | str, threads: int = 1, trust: Path | None = None) -> list[Result]:
    """Check the portable graphs of a bundle as it was built; `trust` is the key that must have signed it.

    Without one, that of the csk.toml here, or beside the bundle, where there is one.
    Raises BundleError where it cannot be opened, or was built without them.
    """
    opened = workspace_of(Path(bundle), trust=trust).open_bundle()
    if PORTABLE not in opened.manifest.backends:
        raise BundleError(
            f"{bundle} has no portable training graph to check: build it with --backend portable or both."
        )
    return list(_Check(opened, threads).results())


class _Check:
    def __init__(self, bundle: Bundle, threads: int) -> None:
        self.manifest = bundle.manifest
        self._loss = _LOSSES[bundle.manifest.loss]
        self._int8 = bundle.manifest.precision == "int8"
        self._centers = {site.delta for site in self.manifest.sites}
        checkpoint = bundle.checkpoint()
        # A difference asks for logits alone, two to three times as often as for gradients: it computes nothing else.
        self.training = bundle.view(partial=True).graph(TRAINING_MODEL, checkpoint, threads)
        self.eval, self.memory = (
            bundle.graph(name, checkpoint, threads) for name in (EVAL_MODEL, MEMORY_MODEL)
        )
        self._pieces: tuple[Graph, Graph] | None = None
        # Where it is set, `training` goes on from its features.
        self._prefix: Graph | None = None
        if bundle.manifest.prefix:
            suffix = bundle.view(from_prefix=True, partial=True).graph(TRAINING_MODEL, checkpoint, threads)
            self._pieces = bundle.graph(PREFIX_MODEL, checkpoint, threads), suffix
        self._rng = np.random.default_rng(0)
        # int8 knows the range of the data, and a network may be one of pixels only: of a power, or a logarithm.
        self._like_data = self._int8 or not self._takes_noise(checkpoint)
        self._parameters = self._random_point(checkpoint)
        # What a step is relative to: the parameter's norm, or so much where that is next to nothing.
        self._sizes = {name: max(norm(value), 1e-2) for name, value in self._parameters.items()}
        for name, value in self._telling_head().items():
            self._parameters[name], self._sizes[name] = value, norm(value) or 1e-2

    def results(self) -> Iterator[Result]:
        """All checks, in order."""
        for images in (1, self.manifest.batch_size):
            yield self._runs(images)
        yield self._same_logits()
        yield self._batch_is_the_mean()
        yield from self._gradients()
        yield from self._moments()
        if self._pieces is not None:
            yield self._in_two_pieces(*self._pieces)
        yield self._time()

    def _takes_noise(self, checkpoint: Feeds) -> bool:
        """Whether the network has an answer to numbers that no pixel has."""
        head, shape = self.manifest.head, (_IMAGES, *self.manifest.input.shape)
        feeds: Feeds = {
            "image": np.random.default_rng(0).normal(size=shape).astype(np.float32),
            head.weight: checkpoint["head/base/weight"],
            head.bias: checkpoint["head/base/bias"],
        }
        for site in self.manifest.sites:
            feeds[site.indices] = np.zeros(0, np.int64)
            feeds[site.delta] = np.zeros((site.rows, 0), np.float32)
        return bool(np.isfinite(self.eval.run(feeds, ["logits"])["logits"]).all())

    def _random_point(self, checkpoint: Feeds) -> Feeds:
        """The base's head, random channels, and center changes of a tenth of the centers' spread (or 1: see below)."""
        head = self.manifest.head
        feeds = {head.weight: checkpoint["head/base/weight"], head.bias: checkpoint["head/base/bias"]}
        for site in self.manifest.sites:
            count = channel_count(site.columns, self.manifest.channel_ratio)
            feeds[site.indices] = np.sort(self._rng.choice(site.columns, count, replace=False))
            spread = 0.1 * spread_of(checkpoint[f"center/{site.name}"])
            feeds[site.delta] = (spread * self._rng.normal(size=(site.rows, count))).astype(np.float32)
        return feeds

    def _telling_head(self) -> Feeds:
        """A head in the base's place where that tells no class from another; else nothing.

        Of such a head every gradient is zero but for rounding, and proves nothing of the graph. So it is where all
        kernels of a network hold one number, as in the models that come with onnx. The drawn one's logits are about 1.
        """
        batch = self._batch(_IMAGES)
        outputs = self.eval.run({"image": batch["image"], **self._parameters})
        logits, features = outputs["logits"].astype(np.float64), outputs["features"].astype(np.float64)
        if len(self.manifest.classes) < 2 or np.ptp(logits, axis=1).max() > _ALIKE * np.abs(logits).max():
            return {}
        size = float(np.sqrt((features**2).sum(axis=1).mean())) or 1.0
        weight = self._rng.normal(size=(logits.shape[1], features.shape[1])) / size
        head = self.manifest.head
        return {
            head.weight: weight.astype(np.float32),
            head.bias: np.zeros_like(self._parameters[head.bias]),
        }

    def _batch(self, images: int) -> Feeds:
        noise = self._rng.normal(size=(images, *self.manifest.input.shape))
        # Where it can be, more contrast than images have tells small gradients from rounding.
        made = like_data(self.manifest, noise) if self._like_data else noise.astype(np.float32)
        image = self._prefix.run({"image": made})["prefix"] if self._prefix is not None else made
        return {"image": image, "label": self._label(images)}

    def _label(self, images: int) -> NDArray[Any]:
        classes = len(self.manifest.classes)
        if self.manifest.loss == CROSS_ENTROPY:
            return self._rng.integers(classes, size=images, dtype=np.int64)
        if self.manifest.loss == BINARY_CROSS_ENTROPY:
            return self._rng.integers(2, size=(images, classes)).astype(np.float32)
        return self._rng.normal(size=(images, classes)).astype(np.float32)

    def _runs(self, images: int) -> Result:
        batch = self._batch(images)
        outputs = self.training.run({**batch, **self._parameters})
        bad = [name for name, value in outputs.items() if not np.isfinite(value).all()]
        expected = self._loss(outputs["logits"], batch["label"])
        error = abs(float(outputs["loss"]) - expected) / max(1.0, abs(expected))
        detail = f"{', '.join(bad)} not finite" if bad else f"loss {expected:.4f}, relative error {error:.1e}"
        return Result(f"training step, batch {images}", not bad and error <= _SAME, detail, error)

    def _same_logits(self) -> Result:
        batch = self._batch(_IMAGES)
        trained = self.training.run({**batch, **self._parameters}, ["logits"])["logits"]
        evaluated = self.eval.run({"image": batch["image"], **self._parameters}, ["logits"])["logits"]
        error = relative(evaluated, trained)
        return Result("eval logits = training logits", error <= _SAME, f"relative error {error:.1e}", error)

    def _batch_is_the_mean(self) -> Result:
        """The gradient of a batch is the mean of its images' gradients."""
        batch = self._batch(2)
        whole = self._step(batch)
        halves = [self._step({name: value[i : i + 1] for name, value in batch.items()}) for i in (0, 1)]
        error = max(
            self._apart(parameter, (halves[0][name] + halves[1][name]) / 2, whole, name)
            for parameter, name in self._gradient_names().items()
        )
        same = _INT8_SAME if self._int8 else _SAME
        return Result("gradient of a batch = mean", error <= same, f"relative error {error:.1e}", error)

    def _in_two_pieces(self, prefix: Graph, suffix: Graph) -> Result:
        """Cut in front of the first site, with features stored in between: the same gradients but for rounding.

        A unit that rounding switches on or off changes a gradient by some percent, so of each gradient the best of some
        batches counts, and then of single images, which have fewer units. A wrong cut is wrong for all of them. Of deep
        networks without trained weights so many switch that no image has the same gradients: there the logits must
        agree, and the suffix's gradients be the slopes of its own loss.
        """
        limit = _INT8_STORED if self._int8 else _STORED
        gradients = self._gradient_names()
        best = dict.fromkeys(gradients, np.inf)
        apart = 0.0
        for images in (*[_IMAGES] * _ATTEMPTS, *[1] * _POINTS):
            batch = self._batch(images)
            whole = self._step(batch)
            stored = prefix.run({"image": batch["image"]})["prefix"]
            cut = suffix.run({**batch, "image": stored, **self._parameters})
            apart = max(apart, relative(cut["logits"], whole["logits"]))
            for parameter, name in gradients.items():
                best[parameter] = min(best[parameter], self._apart(parameter, cut[name], whole, name))
            if max(best.values()) <= limit:
                break
        error = float(max(best.values()))
        name, said = "suffix of prefix = whole", f"relative error {error:.1e}"
        if error <= limit or self._int8 or apart > limit:
            return Result(name, error <= limit, said, error)
        alone = copy(self)
        alone.training, alone._prefix = suffix, prefix
        wrong = [one for one in alone._gradients() if not one.passed]
        detail = (
            f"{wrong[0].name}: {wrong[0].detail}"
            if wrong
            else f"logits {apart:.1e}, and its own gradients are right"
        )
        return Result(name, not wrong, f"{said} by units that rounding switches; {detail}", error)

    def _gradients(self) -> Iterator[Result]:
        batches = [self._batch(_INT8_IMAGES if self._int8 else _IMAGES) for _ in range(_ATTEMPTS)]
        outputs = [self._step(batch) for batch in batches]
        for parameter, name in self._gradient_names().items():
            found: list[Result] = []
            faint = False
            for batch, output in zip(batches, outputs, strict=True):
                gradient = output[name].astype(np.float64)
                directions = self._directions(gradient)
                given = np.array([np.sum(gradient * direction) for direction in directions])
                faint = norm(gradient) <= _FAINT * self._resolution(parameter, float(output["loss"]))
                asked, steps = (directions[:1], _FAR_STEPS) if faint else (directions, _STEPS)
                for step in steps:
                    if not (found and found[-1].passed):
                        found.append(self._compare(batch, parameter, asked, given, step))
            if not found[-1].passed:
                found += self._nothing(parameter, batches[0], outputs[0])
            if not found[-1].passed and not self._int8 and not faint:
                found += self._where_smooth(parameter, name)
            yield found[-1] if found[-1].passed else min(found, key=lambda result: result.value)

    def _apart(self, parameter: str, got: NDArray[np.float64], whole: Feeds, name: str) -> float:
        """How far a gradient is from that of the whole graph, relative to it; 0 where no step could tell them apart."""
        if norm(got - whole[name]) <= self._resolution(parameter, float(whole["loss"])):
            return 0.0
        return float(relative(got, whole[name]))

    def _resolution(self, parameter: str, loss: float) -> float:
        """A gradient of a smaller norm is zero: not even a far step along it changes the loss in float32."""
        return _NOTHING * max(1.0, abs(loss)) / (2 * _FAR * self._sizes[parameter])

    def _nothing(self, parameter: str, batch: Feeds, outputs: Feeds) -> Iterator[Result]:
        """A gradient that is zero but for rounding, where the loss does not change either, however far one goes.

        So it is where a network tells nothing apart: with constant weights all of its outputs are one number.
        """
        gradient = outputs[self._gradient_names()[parameter]].astype(np.float64)
        loss = float(outputs["loss"])
        if np.linalg.norm(gradient) > self._resolution(parameter, loss):
            return
        changes = []
        for direction in self._directions(gradient):
            for relative_step in (1.0, _FAR):
                _, (low, high) = self._losses(batch, parameter, direction, relative_step, (-1.0, 1.0))
                changes.append(abs(high - low))
        if max(changes) <= _NOTHING * max(1.0, abs(loss)):
            detail = f"zero but for rounding: the loss changes by {max(changes):.1e} at most"
            yield Result(f"gradient of {parameter}", True, detail, max(changes))

    def _where_smooth(self, parameter: str, name: str) -> Iterator[Result]:
        """The gradient at points of one image, in directions without a kink, until one agrees.

        On both sides of a point the loss has one slope, unless a kink lies within the step: then a difference is the
        slope of neither side, and proves nothing. So for each direction the step is taken whose two slopes are most
        alike, which does not look at the gradient; where they are not alike at any step, the direction is left out.
        """
        for _ in range(_POINTS):
            batch = self._batch(1)
            gradient = self._step(batch)[name].astype(np.float64)
            directions = self._directions(gradient)
            given = np.array([np.sum(gradient * direction) for direction in directions])
            _, (here,) = self._losses(batch, parameter, directions[0], 0.0, (0.0,))
            slopes = [self._slopes(batch, parameter, directions[0], here)]
            if has_kink(slopes[0]):
                continue
            slopes += [self._slopes(batch, parameter, one, here) for one in directions[1:]]
            result = judged(parameter, given, np.array(slopes))
            if result is not None:
                yield result
                if result.passed:
                    return

    def _compare(
        self,
        batch: Feeds,
        parameter: str,
        directions: list[NDArray[np.float64]],
        given: NDArray[Any],
        step: float,
    ) -> Result:
        name = f"gradient of {parameter}"
        first = self._difference(batch, parameter, directions[0], step)
        # Along the gradient itself a slope is far larger, so it is judged alone. Where it is wrong, the others are not
        # asked: they cost eight times as much.
        along = float(abs(first - given[0]) / max(abs(given[0]), 1e-12))
        said = f"along the gradient {along:.1e}"
        if self._int8 and parameter in self._centers:
            return Result(name, along <= _INT8_TOLERANCE, said, along)
        if len(directions) == 1:
            return Result(name, along <= _FAINT_ALONG, f"{said}, which float32 hardly tells", along)
        if along > _ALONG:
            return Result(name, False, said, along)
        others = directions[1:]
        measured = np.array([self._difference(batch, parameter, direction, step) for direction in others])
        across, cosine = relative(given[1:], measured), _cosine(given[1:], measured)
        detail = f"cosine {cosine:.5f}, relative error {across:.1e}, {said}"
        return Result(name, across <= _ACROSS, detail, max(along, across))

    def _directions(self, gradient: NDArray[np.float64]) -> list[NDArray[np.float64]]:
        """The gradient's own direction, then random signs; all of length 1."""
        length = norm(gradient)
        signs = self._rng.choice([-1.0, 1.0], size=(_DIRECTIONS, *gradient.shape)) / np.sqrt(gradient.size)
        return [gradient / length if length else signs[0], *signs]

    def _difference(
        self, batch: Feeds, parameter: str, direction: NDArray[np.float64], relative_step: float
    ) -> float:
        """The central difference."""
        step, losses = self._losses(batch, parameter, direction, relative_step, (-1.0, 1.0))
        return (losses[1] - losses[0]) / (2 * step)

    def _slopes(
        self, batch: Feeds, parameter: str, direction: NDArray[np.float64], here: float
    ) -> list[tuple[float, float]]:
        """The slopes of the loss in front of the point, where it is `here`, and behind it, over each of the steps."""
        found = []
        for relative_step in _STEPS:
            step, (low, high) = self._losses(batch, parameter, direction, relative_step, (-1.0, 1.0))
            found.append(((here - low) / step, (high - here) / step))
        return found

    def _losses(
        self,
        batch: Feeds,
        parameter: str,
        direction: NDArray[np.float64],
        relative_step: float,
        places: tuple[float, ...],
    ) -> tuple[float, list[float]]:
        """The step, and the loss so many steps along `direction`."""
        value = self._parameters[parameter].astype(np.float64)
        step = relative_step * self._sizes[parameter]
        losses = []
        for place in places:
            moved = (value + place * step * direction).astype(np.float32)
            feeds = {**batch, **self._parameters, parameter: moved}
            losses.append(self._loss(self.training.run(feeds, ["logits"])["logits"], batch["label"]))
        return step, losses

    def _moments(self) -> Iterator[Result]:
        """K = sum of x_c^T x_c is finite, symmetric, positive semidefinite; features are the eval model's."""
        images = {"image": self._batch(_IMAGES)["image"]}
        deltas = {
            name: self._parameters[name]
            for site in self.manifest.sites
            for name in (site.delta, site.indices)
        }
        outputs = self.memory.run({**images, **deltas})
        features = self.eval.run({**images, **self._parameters}, ["features"])["features"]
        error = relative(outputs["features"], features)
        yield Result("memory features = eval features", error <= _SAME, f"relative error {error:.1e}", error)
        for site in self.manifest.sites:
            moment = outputs[site.moment].astype(np.float64)
            if not np.isfinite(moment).all():
                yield Result(f"moment of {site.name}", False, "not finite", float("nan"))
                continue
            values = np.linalg.eigvalsh((moment + moment.swapaxes(1, 2)) / 2)
            largest = max(float(values.max()), 1e-12)
            lowest = float(values.min()) / largest
            skew = float(np.abs(moment - moment.swapaxes(1, 2)).max()) / largest
            passed = lowest >= -_NEGATIVE and skew <= _NEGATIVE
            detail = f"smallest over largest eigenvalue {lowest:.1e}, asymmetry {skew:.1e}"
            yield Result(f"moment of {site.name}", passed, detail, lowest)

    def _time(self) -> Result:
        feeds = {**self._batch(self.manifest.batch_size), **self._parameters}
        seconds = median(repeat(lambda: self.training.run(feeds), number=1, repeat=_TIMED_STEPS))
        detail = f"{1e3 * seconds:.1f} ms for {plural(self.manifest.batch_size, 'image')} (median of {_TIMED_STEPS})"
        return Result("time of a training step", True, detail, seconds)

    def _gradient_names(self) -> dict[str, str]:
        """Name of each trained input -> name of its gradient."""
        head = self.manifest.head
        sites = {site.delta: site.gradient for site in self.manifest.sites}
        return {**sites, head.weight: head.weight_gradient, head.bias: head.bias_gradient}

    def _step(self, batch: Feeds) -> Feeds:
        return self.training.run({**batch, **self._parameters})


def cross_entropy(logits: NDArray[Any], labels: NDArray[Any]) -> float:
    """Mean softmax cross-entropy in float64; logits `(n, classes)`, labels `(n,)`."""
    z = logits.astype(np.float64)
    z -= z.max(axis=1, keepdims=True)
    return float(np.mean(np.log(np.exp(z).sum(axis=1)) - z[np.arange(len(z)), labels]))


def binary_cross_entropy(logits: NDArray[Any], labels: NDArray[Any]) -> float:
    """Mean of `log(1 + exp(z)) - z y` in float64; logits and labels `(n, classes)`."""
    z = logits.astype(np.float64)
    return float(np.mean(np.logaddexp(0.0, z) - z * labels))


def mean_squared_error(logits: NDArray[Any], labels: NDArray[Any]) -> float:
    """In float64; logits and labels `(n, targets)`."""
    return float(np.mean((logits.astype(np.float64) - labels) ** 2))


_LOSSES = {
    CROSS_ENTROPY: cross_entropy,
    BINARY_CROSS_ENTROPY: binary_cross_entropy,
    MSE: mean_squared_error,
}


def spread_of(center: NDArray[Any]) -> float:
    """How far centers lie apart; their size where they are one number, and 1 where they are 0.

    Unmoved, channels without weights, as pruning leaves them, are exactly at the kink of a Relu.
    """
    values = center.astype(np.float64)
    size, spread = float(np.sqrt((values**2).mean())), float(values.std())
    return spread if spread > _ALIKE * size else size or 1.0


def norm(value: NDArray[Any]) -> float:
    """The Euclidean norm, in float64."""
    return float(np.linalg.norm(value.astype(np.float64)))


def relative(value: NDArray[Any], truth: NDArray[Any]) -> float:
    """`||value - truth|| / ||truth||`, in float64."""
    value, truth = value.astype(np.float64), truth.astype(np.float64)
    return float(np.linalg.norm(value - truth) / max(float(np.linalg.norm(truth)), 1e-12))


def _cosine(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    return float(a @ b / max(float(np.linalg.norm(a) * np.linalg.norm(b)), 1e-12))


def smoothest(slopes: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Of slopes `(k, steps, 2)`, where both sides are most alike: their mean, and how far apart they are."""
    apart = np.abs(slopes[..., 0] - slopes[..., 1])
    every, step = np.arange(len(slopes)), apart.argmin(axis=1)
    return slopes.mean(axis=-1)[every, step], apart[every, step]


def has_kink(slopes: NDArray[np.float64] | list[tuple[float, float]]) -> bool:
    """Whether the gradient's own direction, with slopes `(steps, 2)`, has one at every step."""
    (measured,), (apart,) = smoothest(np.asarray(slopes)[None])
    return bool(apart > _ALONG * abs(measured))


def judged(parameter: str, given: NDArray[np.float64], slopes: NDArray[np.float64]) -> Result | None:
    """Whether the gradient's slopes `given` `(k,)`, its own direction first, are those that were measured.

    `slopes` `(k, steps, 2)` are those on both sides of the point. None where kinks hide the gradient's own direction,
    or half of the others.
    """
    measured, apart = smoothest(slopes)
    length = float(np.linalg.norm(measured[1:])) / max(1, len(measured) - 1) ** 0.5
    smooth = apart[1:] <= _ACROSS * length
    if has_kink(slopes[0]) or 2 * smooth.sum() < len(smooth):
        return None
    along = float(abs(measured[0] - given[0]) / max(abs(given[0]), 1e-12))
    across = relative(given[1:][smooth], measured[1:][smooth])
    detail = (
        f"without a kink in {smooth.sum()} of {len(smooth)} directions, relative error {across:.1e}, "
        f"along the gradient {along:.1e}"
    )
    return Result(
        f"gradient of {parameter}", along <= _ALONG and across <= _ACROSS, detail, max(along, across)
    )
