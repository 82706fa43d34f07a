"""How the features of a new bundle follow from those of an old one, fitted on the base images.

Ridge regression on standardised features with an intercept. What it is for are classes that neither fit has seen, so
the ridge is chosen, and what the map leaves is measured, on classes that are held out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from csk_sdk.bundle.folder import Bundle
from csk_sdk.contract.manifest import EXACT, UpgradeFrom
from csk_sdk.data.labels import Labels
from csk_sdk.data.pixel_cache import PixelCache
from csk_sdk.data.tasks import Split
from csk_sdk.errors import BundleError, ConfigError
from csk_sdk.method.feature_map import FeatureMap
from csk_sdk.network.finite import first_not_finite
from csk_sdk.network.knowledge import FeatureExtractor

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
_BATCH = 64
# Of features of both bundles that are fitted to.
_SAMPLE_BYTES = 256 << 20
_FOLDS = 5
# Of the number of images.
_RIDGES = tuple(10.0**power for power in np.arange(-5.0, 1.1, 0.5))
# Two features are the same where they differ by less of their deviation: what is folded and fused otherwise rounds
# otherwise.
_SAME = 1e-3
_UNVARIED = 1e-12


@dataclass(frozen=True, eq=False)
class Fit:
    """`target = source @ weight.T + offset`; `unexplained` `(f, f)` is the covariance of what it leaves of classes
    that it has not seen.

    `explained` is the share of the targets' variance, each feature counting alike, that it tells of these.
    """

    weight: Float64
    offset: Float64
    unexplained: Float64
    explained: float


def measure_upgrade(
    old: Bundle, new: Bundle, split: Split, on_progress: Callable[[int, int], None]
) -> tuple[FeatureMap, UpgradeFrom]:
    """The map from `old` to `new` over the base images `split`, and what the manifest says of it.

    Raises ConfigError where the two bundles do not decide about the same kind of thing, TaskError for images that no
    network can be shown, BundleError where the network computes what is no number.
    """
    require_alike(old, new)
    step = -(-len(split) * 4 * (old.manifest.head.features + new.manifest.head.features) // _SAMPLE_BYTES)
    sources, targets = (_features(one, split, step, on_progress) for one in (old, new))
    columns = _columns(sources, targets)
    kept = int((columns >= 0).sum())

    def about(explained: float) -> UpgradeFrom:
        features = old.manifest.head.features
        return UpgradeFrom(old.id, old.manifest.model, features, len(sources), kept, round(explained, 4))

    empty, nothing = np.zeros((0, 0), np.float32), np.zeros(0, np.float32)
    if np.array_equal(columns, np.arange(old.manifest.head.features)):
        return FeatureMap(columns, empty, nothing, empty, empty, nothing), about(1.0)
    groups = _groups(split.labels[::step])
    back = fit(targets, sources, groups)
    _pin(back, _columns(targets, sources))
    backward, back_offset = back.weight.astype(np.float32), back.offset.astype(np.float32)
    if kept == len(columns):
        return FeatureMap(columns, empty, nothing, empty, backward, back_offset), about(1.0)
    found = fit(sources, targets, groups)
    _pin(found, columns)
    forward = FeatureMap(
        columns,
        found.weight.astype(np.float32),
        found.offset.astype(np.float32),
        _root(found.unexplained).astype(np.float32),
        backward,
        back_offset,
    )
    return forward, about(found.explained)


def bundle_to_upgrade(folder: Path | None, base_data: Path | None) -> Bundle | None:
    """The bundle that devices have now, opened; None where none is named.

    Raises ConfigError without base data, BundleError where it cannot be opened.
    """
    if folder is None:
        return None
    if base_data is None:
        raise ConfigError(
            "--upgrade-from needs --base-data: how the old bundle's features become this one's is measured on images "
            "of the base classes."
        )
    return Bundle.open(folder)


def require_alike(old: Bundle, new: Bundle) -> None:
    """Raise ConfigError where what was learned on the one means nothing to the other."""
    for what, one, other in (
        ("loss", old.manifest.loss, new.manifest.loss),
        ("kind of input", old.manifest.input.noun, new.manifest.input.noun),
    ):
        if one != other:
            raise ConfigError(
                f"--upgrade-from {old.folder} has the {what} {one}, and this bundle {other}: nothing that was learned "
                "on the one can be carried over to the other."
            )


def fit(sources: Float32, targets: Float32, groups: NDArray[np.int64]) -> Fit:
    """Ridge regression of `targets` `(n, g)` on `sources` `(n, f)`; `groups` `(n,)` are held out in turn."""
    x, x_mean, x_scale = _standardised(sources)
    y, y_mean, y_scale = _standardised(targets)
    folds = [groups == group for group in np.unique(groups)]
    parts = [(x[fold].T @ x[fold], x[fold].T @ y[fold], y[fold].T @ y[fold]) for fold in folds]
    xx, xy = sum(part[0] for part in parts), sum(part[1] for part in parts)
    errors = np.zeros(len(_RIDGES))
    solvers = []
    for own_xx, own_xy, own_yy in parts:
        solve = _solver(xx - own_xx, xy - own_xy)
        solvers.append(solve)
        for place, ridge in enumerate(_RIDGES):
            b = solve(ridge * len(x))
            errors[place] += np.trace(own_yy) - 2 * np.vdot(b, own_xy) + np.vdot(b, own_xx @ b)
    ridge = _RIDGES[int(errors.argmin())] * len(x)
    left = np.zeros((y.shape[1],) * 2)
    for solve, (own_xx, own_xy, own_yy) in zip(solvers, parts, strict=True):
        b = solve(ridge)
        cross = b.T @ own_xy
        left += own_yy - cross - cross.T + b.T @ own_xx @ b
    left /= len(x)
    b = _solver(xx, xy)(ridge)
    weight = (b * y_scale).T / x_scale
    varied = y_scale > 0
    explained = 1.0 - float(np.diag(left)[varied].mean()) if varied.any() else 1.0
    return Fit(weight, y_mean - weight @ x_mean, left * np.outer(y_scale, y_scale), explained)


def _solver(xx: Float64, xy: Float64) -> Callable[[float], Float64]:
    """`ridge -> (xx + ridge I)^-1 xy`, of one decomposition."""
    values, vectors = np.linalg.eigh(xx)
    turned = vectors.T @ xy

    def solve(ridge: float) -> Float64:
        found: Float64 = vectors @ (turned / (np.maximum(values, 0.0) + ridge)[:, None])
        return found

    return solve


def _standardised(features: Float32) -> tuple[Float64, Float64, Float64]:
    """Deviations from the mean in units of the deviation, and both `(f,)`; that is 1 of what never varies."""
    wide = features.astype(np.float64)
    mean = wide.mean(axis=0)
    wide -= mean
    scale = np.sqrt((wide**2).mean(axis=0))
    scale[scale <= _UNVARIED * (1.0 + np.abs(mean))] = 0.0
    safe = np.where(scale > 0, scale, 1.0)
    return np.where(scale > 0, wide / safe, 0.0), mean, safe


def _columns(sources: Float32, targets: Float32) -> NDArray[np.int64]:
    """Which source each target is, -1 where none; of several, the one in its own place."""
    x = _standardised(sources)[0]
    y, _, y_scale = _standardised(targets)
    found = (y.T @ x).argmax(axis=1)
    both = min(x.shape[1], y.shape[1])
    same_place = _is_same(sources[:, :both], targets[:, :both], y_scale[:both])
    found[:both] = np.where(same_place, np.arange(both), found[:both])
    matches = _is_same(sources[:, found], targets, y_scale)
    return np.where(matches, found, -1).astype(np.int64)


def _is_same(one: Float32, other: Float32, scale: Float64) -> NDArray[np.bool_]:
    apart = np.sqrt(((one.astype(np.float64) - other) ** 2).mean(axis=0))
    same: NDArray[np.bool_] = apart <= _SAME * scale
    return same


def _pin(found: Fit, columns: NDArray[np.int64]) -> None:
    """Features that are what they were are carried as they are."""
    rows = np.flatnonzero(columns >= 0)
    found.weight[rows] = 0.0
    found.weight[rows, columns[rows]] = 1.0
    found.offset[rows] = 0.0
    found.unexplained[rows], found.unexplained[:, rows] = 0.0, 0.0


def _root(covariance: Float64) -> Float64:
    """Rows `r` with `r.T @ r = covariance`; directions that are rounding are left out."""
    values, vectors = np.linalg.eigh(covariance)
    kept = values > 1e-7 * max(float(values[-1]), 0.0)
    root: Float64 = np.sqrt(values[kept])[:, None] * vectors[:, kept].T
    return root


def _groups(labels: Labels) -> NDArray[np.int64]:
    """Which images are held out together: whole classes, or where these are too few (or tables) every fifth image."""
    if labels.ndim == 1 and len(np.unique(labels)) >= 2 * _FOLDS:
        return (labels % _FOLDS).astype(np.int64)
    return np.arange(len(labels)) % _FOLDS


def _features(bundle: Bundle, split: Split, step: int, on_progress: Callable[[int, int], None]) -> Float32:
    """Of every `step`-th image, under the bundle's untouched network in float32."""
    exact = bundle.view(precision=EXACT) if EXACT in bundle.precisions else bundle
    extract = FeatureExtractor(exact, bundle.checkpoint())
    order = np.arange(0, len(split), step)
    found: list[Float32] = []
    for images, _ in PixelCache(split, bundle.preprocessing, 0).batches(_BATCH, order):
        found.append(extract(bundle.preprocessing.normalize(images)))
        if first_not_finite(found[-1]) is not None:
            raise BundleError(
                f"{bundle.folder} computes numbers that are not finite for images of the base data."
            )
        on_progress(sum(map(len, found)), len(order))
    return np.concatenate(found)
