r"""Linear regressions of many targets: least squares, ridge with a penalty per target, banded ridge.

.. math::
    y_t = X w_t + b_t + \epsilon, \qquad
    w_t = \arg\min_w \lVert y_t - X w - b_t \rVert^2 + \alpha_t \lVert w \rVert^2

Features and targets are centred first, so that the intercept :math:`b_t` is free. Penalties are chosen by
cross-validation: the one with the smallest squared error over all left-out samples. A target that is NaN at some
samples is fitted to the others alone. Targets that are missing at the same samples are solved together; each such
pattern costs decompositions of its own (ridge: one per fold and one of all), so that thousands of different patterns
take as long as thousands of fits.

Features may be in very different units, and targets in any (teslas: 1e-15): what is solved is scaled by powers of two,
which rounds nothing, and decomposed so that the smallest penalty is told from rounding.

Each solver comes twice: as a function of X and Y, and as one of X alone that returns a function of Y, for targets
that come in blocks. How the targets are cut into blocks changes no penalty.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from berg.core.exceptions import InvalidParameterError, MissingExtraError, listing
from berg.features.linear import linear
from berg.fitting.graded_svd import GradedQR
from berg.fitting.principal_components import slices
from berg.statistics.groups import Groups, group_folds, group_numbers

log = logging.getLogger(__name__)

Floats = NDArray[np.floating[Any]]
Folds = Sequence[NDArray[np.intp]]

N_TARGETS_BATCH = 4096
"""Targets that are computed together."""
RELATIVE_ALPHAS = np.logspace(-5, 5, 11)
"""Default penalties, in units of the mean eigenvalue of the products of X (centred, without those that are zero)."""
_N_PATTERNS_KEPT = 4
_NEGLIGIBLE = 1e-6  # of the smallest penalty: an eigenvalue as small changes no weight by more
_ENOUGH = 1e-3  # of the root of the smallest penalty: what himalaya's singular values may be off
_SINGLE, _DOUBLE = np.finfo(np.float32), np.finfo(np.float64)
_SEEN = 1e6 * float(_DOUBLE.eps)  # of the largest eigenvalue: smaller ones are not right to 1e-6
_SAFE = 2.0**40  # squares of targets between its inverse and itself can be summed up in float32
_CPU = torch.device("cpu")


@dataclass(frozen=True)
class Regression:
    """Regressions of some targets.

    Attributes
    ----------
    coefficients
        Shape (n_targets, n_features). Zero for a target that has too few samples.
    intercepts
        Shape (n_targets,).
    alphas
        Shape (n_targets, n_bands): the penalties, of ridge with one band; NaN where there was none.
    scores
        Shape (n_targets,): r2 over left-out samples, at those penalties; NaN where nothing was left out.
    """

    coefficients: NDArray[np.float32]
    intercepts: NDArray[np.float32]
    alphas: NDArray[np.float32]
    scores: NDArray[np.float32]

    @classmethod
    def empty(cls, n_targets: int, n_features: int, n_bands: int = 1) -> Regression:
        """What a target without samples has."""
        zeros, nan = np.zeros((n_targets, n_features), np.float32), np.float32(np.nan)
        return cls(zeros, zeros[:, 0].copy(), np.full((n_targets, n_bands), nan), np.full(n_targets, nan))

    def predict(self, X: Floats) -> Floats:
        """Shape (n_samples, n_targets)."""
        predicted: Floats = X @ self.coefficients.T + self.intercepts
        return predicted


Solver = Callable[[Floats], Regression]


class PenaltyGridWarning(UserWarning):
    """Penalties were chosen at an edge of those that were tried: better ones may lie beyond."""


def least_squares(X: Floats, Y: Floats) -> Regression:
    """Ordinary least squares, as scikit-learn's `LinearRegression`: of all solutions the shortest.

    Parameters
    ----------
    X
        Shape (n_samples, n_features).
    Y
        Shape (n_samples, n_targets); NaN where missing.

    Examples
    --------
    >>> X = np.array([[0.0], [1.0], [2.0]])
    >>> least_squares(X, 2 * X + 1).coefficients
    array([[2.]], dtype=float32)
    """
    return least_squares_solver(X)(Y)


def least_squares_solver(X: Floats) -> Solver:
    """`least_squares` for targets that come in blocks; X is decomposed once."""
    return _by_missing_samples(_checked_features(X), _prepared_least_squares, n_needed=1)


def ridge_cv(
    X: Floats, Y: Floats, alphas: Sequence[float] | Floats | None = None, folds: int | Folds = 5, **options: Any
) -> Regression:
    """Ridge regression with a penalty for each target, chosen by cross-validation.

    Parameters
    ----------
    X
        Shape (n_samples, n_features). Where there are more features than samples, give their scores on all their
        principal components, which has the same solutions.
    Y
        Shape (n_samples, n_targets); NaN where missing.
    alphas
        Penalties to choose from; None: `RELATIVE_ALPHAS` times the mean eigenvalue of the products of X.
    folds
        How many (see `split_folds`), or the left-out samples of each.
    **options
        As in `ridge_cv_solver`.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> X = rng.standard_normal((50, 3))
    >>> found = ridge_cv(X, X[:, :1] + rng.standard_normal((50, 1)), alphas=[0.1, 1, 10])
    >>> found.alphas
    array([[1.]], dtype=float32)
    """
    alphas = default_alphas(X) if alphas is None else alphas
    found = ridge_cv_solver(X, alphas, folds, **options)(Y)
    warn_of_edges(found.alphas, alphas)
    return found


def ridge_cv_solver(
    X: Floats,
    alphas: Sequence[float] | Floats | None = None,
    folds: int | Folds = 5,
    *,
    groups: Groups | None = None,
    device: torch.device = _CPU,
    n_targets_batch: int = N_TARGETS_BATCH,
) -> Solver:
    """`ridge_cv` for targets that come in blocks; X is decomposed once per fold.

    Parameters
    ----------
    groups
        A label per sample: those of one, such as near-copies, are in one fold.
    device
        Where to compute.
    n_targets_batch
        How many targets are computed together; does not change the result.
    """
    X = _checked_features(X)
    chosen = default_alphas(X) if alphas is None else checked_alphas(alphas)
    splits = _checked_folds(folds, len(X), groups)
    numbers = None if groups is None else group_numbers(groups, len(X))
    where = torch.device("cpu") if device.type == "mps" else device  # which has no float64
    prepare = partial(_prepared_ridge, alphas=chosen, folds=splits, groups=numbers, device=where, batch=n_targets_batch)
    return _by_missing_samples(X, prepare, n_needed=2 * len(splits), groups=numbers)


def banded_ridge_cv(
    X: Floats, Y: Floats, bands: Sequence[slice], alphas: Sequence[float] | Floats | None = None, **options: Any
) -> Regression:
    r"""Ridge regression with a penalty for each target and band of features, by himalaya's random search.

    .. math::
        w_t = \arg\min_w \lVert y_t - \sum_b X_b w_b - b_t \rVert^2 + \sum_b \alpha_{tb} \lVert w_b \rVert^2

    Candidates are :math:`\alpha_{tb} = \alpha_t / \gamma_b`, with shares :math:`\gamma` that sum to one, drawn from
    Dirichlet distributions (Dupré la Tour et al. 2022, NeuroImage 264:119728).

    Parameters
    ----------
    bands
        The columns of each band.
    alphas
        As in `ridge_cv`.
    **options
        As in `banded_ridge_cv_solver`.
    """
    alphas = default_alphas(X) if alphas is None else alphas
    found = banded_ridge_cv_solver(X, bands, alphas, **options)(Y)
    warn_of_edges(found.alphas, alphas)
    return found


def banded_ridge_cv_solver(
    X: Floats,
    bands: Sequence[slice],
    alphas: Sequence[float] | Floats | None = None,
    folds: int | Folds = 5,
    *,
    groups: Groups | None = None,
    n_iterations: int = 100,
    seed: int = 0,
    device: torch.device = _CPU,
    n_targets_batch: int = N_TARGETS_BATCH,
) -> Solver:
    """`banded_ridge_cv` for targets that come in blocks.

    Parameters
    ----------
    groups
        As in `ridge_cv_solver`.
    n_iterations
        How many shares are tried; each costs a decomposition per fold.
    seed
        Of the shares.
    """
    X = _checked_features(X)
    chosen = default_alphas(X) if alphas is None else checked_alphas(alphas)
    splits = _checked_folds(folds, len(X), groups)
    numbers = None if groups is None else group_numbers(groups, len(X))
    settings = {"alphas": chosen, "n_iter": n_iterations, "random_state": seed, "n_targets_batch": n_targets_batch}
    prepare = partial(
        _prepared_banded_ridge, bands=bands, folds=splits, groups=numbers, device=device, settings=settings
    )
    return _by_missing_samples(X, prepare, n_needed=2 * len(splits), n_bands=len(bands), groups=numbers)


def default_alphas(X: Floats) -> NDArray[np.float64]:
    """`RELATIVE_ALPHAS` times the mean eigenvalue of the products of X; times 1 if no feature varies."""
    centred, _ = _centred(_checked_features(X))
    mean = float(np.vdot(centred, centred)) / min(X.shape)
    return checked_alphas(RELATIVE_ALPHAS * (mean or 1.0))


def warn_of_edges(chosen: Floats, alphas: Sequence[float] | Floats, of: str = "targets") -> tuple[float, float]:
    """Warn if penalties lie at an edge of the grid that they were chosen from.

    Parameters
    ----------
    chosen
        Shape (n_targets, n_bands), as in `Regression`; NaN where there was none.
    alphas
        The grid; one penalty alone has no edges.
    of
        What the targets are called.

    Returns
    -------
    smallest, largest
        The share of the targets at either edge.

    Warns
    -----
    PenaltyGridWarning
        With these shares.
    """
    grid = np.sort(np.asarray(alphas, dtype=np.float64).ravel())
    # Of shares that sum to one: 1 / alpha = the sum of 1 / alpha_b.
    own = 1 / (1 / np.asarray(chosen, dtype=np.float64)).sum(axis=1)
    own = own[~np.isnan(own)]
    if len(grid) < 2 or not len(own):
        return 0.0, 0.0
    smallest, largest = (float(np.isclose(own, edge, rtol=1e-3).mean()) for edge in grid[[0, -1]])
    if smallest or largest:
        warnings.warn(
            f"Chosen penalties lie at the edge of the grid for {smallest + largest:.1%} of the {len(own):,} {of}: "
            f"{smallest:.1%} at the smallest ({grid[0]:.3g}), {largest:.1%} at the largest ({grid[-1]:.3g}; usual for "
            f"{of} that the features do not predict). Better ones may lie beyond. Give more of them in alphas, such as "
            f"np.logspace({np.log10(grid[0]) - 3 * (smallest > 0):.0f}, {np.log10(grid[-1]) + 3 * (largest > 0):.0f}, "
            "20), or standardize the features.",
            PenaltyGridWarning,
            stacklevel=3,
        )
    return smallest, largest


def split_folds(n_samples: int, n_folds: int, seed: int | None = 0, groups: Groups | None = None) -> Folds:
    """The left-out samples of each fold.

    Parameters
    ----------
    seed
        Samples are shuffled; None: neighbours stay together, as samples in time must.
    groups
        A label per sample: those of one, such as near-copies, are in one fold.

    Examples
    --------
    >>> split_folds(5, 2, seed=None)
    [array([0, 1, 2]), array([3, 4])]
    """
    if groups is not None:
        return group_folds(group_numbers(groups, n_samples), n_folds, seed)
    order = np.arange(n_samples) if seed is None else np.random.default_rng(seed).permutation(n_samples)
    return [np.sort(part) for part in np.array_split(order, n_folds)]


def checked_alphas(alphas: Sequence[float] | Floats) -> NDArray[np.float64]:
    """The penalties in ascending order. Raise InvalidParameterError if there is none, or one that cannot be."""
    checked = np.sort(np.asarray(alphas, dtype=np.float64).ravel())
    if not len(checked) or not np.isfinite(checked).all() or checked[0] <= 0:
        raise InvalidParameterError(
            f"Penalties (alphas) are numbers above zero, got {list(alphas)}. Without a penalty: write  linear  instead."
        )
    if checked[0] < _SINGLE.tiny or checked[-1] > _SINGLE.max:
        raise InvalidParameterError(
            f"Penalties (alphas) from {checked[0]:.3g} to {checked[-1]:.3g} are beyond what float32 holds "
            f"({_SINGLE.tiny:.0e} to {_SINGLE.max:.0e}). Bring the features to other units, such as by standardizing."
        )
    return checked


def _checked_folds(folds: int | Folds, n_samples: int, groups: Groups | None) -> Folds:
    if not isinstance(folds, int):
        return folds
    if groups is not None:
        return split_folds(n_samples, folds, groups=groups)
    if not 2 <= folds <= n_samples // 2:
        raise InvalidParameterError(
            f"{folds} folds of {n_samples:,} samples; a fold needs two samples, and there must be two folds. "
            f"Choose 2 to {max(2, n_samples // 2):,}."
        )
    return split_folds(n_samples, folds)


# Features and targets


def _checked_features(X: Floats) -> Floats:
    X = np.asanyarray(X)
    if isinstance(X, np.ma.MaskedArray) or X.ndim != 2 or not X.size or X.dtype.kind not in "biuf":
        raise InvalidParameterError(
            f"Features are a {type(X).__name__} of shape {X.shape} and dtype {X.dtype}; they must be a plain array of "
            "real numbers, shape (n_samples, n_features), with at least one of each. Leave out what is masked."
        )
    is_finite = np.isfinite(X)
    if not is_finite.all():
        samples, features = np.flatnonzero(~is_finite.all(axis=1)), np.flatnonzero(~is_finite.all(axis=0))
        raise InvalidParameterError(
            f"{len(features):,} of {X.shape[1]:,} features are NaN or infinite at some samples (features "
            f"{listing(features, 5)}; samples {listing(samples, 5)}). Leave those features or samples out."
        )
    return X


def _checked_targets(Y: Floats, n_samples: int) -> tuple[Floats, NDArray[np.bool_]]:
    """The targets, and where they are there; what is masked counts as missing."""
    Y = np.ma.filled(Y.astype(np.float64), np.nan) if isinstance(Y, np.ma.MaskedArray) else np.asarray(Y)
    if Y.ndim != 2 or len(Y) != n_samples or Y.dtype.kind not in "biuf":
        raise InvalidParameterError(
            f"Targets have shape {Y.shape} and dtype {Y.dtype}; they must be real numbers of shape ({n_samples:,}, "
            "n_targets), one row per sample of the features. Of one target, write  Y[:, None]."
        )
    is_there = np.isfinite(Y)
    if not is_there.all() and (n_infinite := int(np.isinf(Y).sum())):
        targets = np.flatnonzero(np.isinf(Y).any(axis=0))
        raise InvalidParameterError(
            f"{n_infinite:,} values of the targets are infinite (targets {listing(targets, 5)}). Write NaN for what is "
            "missing."
        )
    return Y, is_there


def _centred(X: Floats) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The features less their means, in float64, and the means; zero where only rounding varies."""
    centre = X.mean(0, dtype=np.float64)
    centred: NDArray[np.float64] = X - centre
    eps = float(_DOUBLE.eps)
    largest = np.maximum(centred.max(0), -centred.min(0))
    centred[:, largest <= len(X) * eps * np.abs(centre)] = 0  # as scikit-learn has it
    return centred, centre


def _power_of_two(values: Any) -> Any:
    """The power of two below each value; 1 for zero."""
    return np.exp2(np.floor(np.log2(np.where(np.asarray(values) > 0, values, 1.0))))


def _scaled_features(X: Floats) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Centred features with 1 to 2 as the largest, their means, and what they were divided by."""
    centred, centre = _centred(X)
    scale = float(_power_of_two(max(centred.max(), -centred.min())))
    centred /= scale
    return centred, centre, scale


def _centred_targets(
    Y: Floats, safe: float = _SAFE
) -> tuple[NDArray[np.float32], NDArray[np.float64], NDArray[np.float64]]:
    """Targets less their means, shape (n_targets, n_samples), the means, and what they were divided by.

    Only targets beyond `safe` or its inverse are divided. One step takes a tenth of the time of three.
    """
    mean = Y.mean(0, dtype=np.float64)
    spread = np.maximum(Y.max(0) - mean, mean - Y.min(0))
    scale = np.where((spread > safe) | (spread < 1 / safe), _power_of_two(spread), 1.0)
    rows = np.empty(Y.shape[::-1], np.float32)
    if (scale == 1).all():
        np.subtract(Y.T, mean[:, None], out=rows, casting="same_kind")
    else:
        np.divide(Y.T - mean[:, None], scale[:, None], out=rows, casting="same_kind")
    rows[spread <= len(Y) * float(_DOUBLE.eps) * np.abs(mean)] = 0
    return rows, mean, scale


# Missing samples


def _by_missing_samples(
    X: Floats,
    prepare: Callable[[Floats, NDArray[np.intp]], Solver],
    n_needed: int,
    n_bands: int = 1,
    groups: NDArray[np.intp] | None = None,
) -> Solver:
    """Solve the targets that are there at the same samples together."""

    @lru_cache(maxsize=_N_PATTERNS_KEPT)
    def prepared(pattern: bytes) -> Solver:
        samples = np.flatnonzero(np.unpackbits(np.frombuffer(pattern, np.uint8), count=len(X)))
        return prepare(X if len(samples) == len(X) else X[samples], samples)

    def solve(Y: Floats) -> Regression:
        Y, all_there = _checked_targets(Y, len(X))
        found = Regression.empty(Y.shape[1], X.shape[1], n_bands)
        for pattern, targets in _patterns(all_there):
            is_there = np.unpackbits(np.frombuffer(pattern, np.uint8), count=len(X)).astype(bool)
            if is_there.sum() < n_needed:
                log.warning("%d targets have fewer than %d samples and are not fitted", len(targets), n_needed)
                continue
            is_all = is_there.all() and len(targets) == Y.shape[1]
            part = prepared(pattern)(Y if is_all else Y[np.ix_(is_there, targets)])
            for field in fields(Regression):
                getattr(found, field.name)[targets] = getattr(part, field.name)
            if groups is not None and len(np.unique(groups[is_there])) < 2:
                found.scores[targets] = np.nan  # no independent sample was left out
        return found

    return solve


def _patterns(is_there: NDArray[np.bool_]) -> Iterator[tuple[bytes, NDArray[np.intp]]]:
    """The different columns, packed into bytes, and where each of them is."""
    packed = np.ascontiguousarray(np.packbits(is_there, axis=0).T)  # (n_targets, n_bytes)
    if (packed == packed[:1]).all():
        yield packed[0].tobytes(), np.arange(len(packed))
        return
    patterns, number = np.unique(packed, axis=0, return_inverse=True)
    for index, pattern in enumerate(patterns):
        yield pattern.tobytes(), np.flatnonzero(number.ravel() == index)


# Least squares


def _prepared_least_squares(X: Floats, samples: NDArray[np.intp]) -> Solver:
    centred, centre, scale = _scaled_features(X)
    inverse = GradedQR.of(centred).inverse() / scale

    def solve(Y: Floats) -> Regression:
        found = Regression.empty(Y.shape[1], X.shape[1])
        for targets in slices(Y.shape[1], N_TARGETS_BATCH):
            own = Y[:, targets].astype(np.float64)
            mean = own.mean(0)
            coefficients = (own - mean).T @ inverse.T
            found.coefficients[targets] = coefficients
            found.intercepts[targets] = mean - coefficients @ centre
        return found

    return solve


# Ridge


@dataclass(frozen=True)
class _Decomposed:
    """Some samples of X in the basis of their own principal axes, ready for float32.

    With X = U S V' (centred), the coefficients are V (S² + alpha)⁻¹ (U S)' y.
    """

    scores: Tensor  # (n_axes, n_samples): (U S)'
    squares: Tensor  # (n_axes,): S²
    axes: Tensor  # (n_features, n_axes): V

    @classmethod
    def of(cls, X: Tensor, least: float) -> _Decomposed:
        """From centred samples in float64; `least` is the smallest penalty."""
        return cls._by_products(X, least) or cls._by_graded_svd(X)

    @classmethod
    def _by_products(cls, X: Tensor, least: float) -> _Decomposed | None:
        """By the eigenvectors of the smaller products; None if axes that count are lost in their rounding."""
        is_tall = X.shape[0] >= X.shape[1]
        squares, vectors = torch.linalg.eigh(X.T @ X if is_tall else X @ X.T)
        images = (X if is_tall else X.T) @ vectors
        n_lost = min(int((squares <= _SEEN * squares[-1]).sum()), len(squares) - 1)
        if n_lost and torch.linalg.vector_norm(images[:, :n_lost], dim=0).max() ** 2 > _NEGLIGIBLE * least:
            return None
        squares, vectors, images = squares[n_lost:], vectors[:, n_lost:], images[:, n_lost:]
        if is_tall:
            return cls(_single(images.T), _squares(squares), _single(vectors))
        singular = squares.clamp(min=float(_SINGLE.tiny)).sqrt()
        return cls(_single((vectors * singular).T), _squares(squares), _single(images / singular))

    @classmethod
    def _by_graded_svd(cls, X: Tensor) -> _Decomposed:
        """Slower by far, and right for features of very different sizes."""
        found = (torch.from_numpy(part).to(X.device) for part in GradedQR.of(X.cpu().numpy()).svd())
        left, singular, axes = found
        return cls(_single((left * singular).T), _squares(singular.square()), _single(axes))


def _squares(values: Tensor) -> Tensor:
    at_least: Tensor = values.clamp(min=float(_SINGLE.tiny))
    return at_least.float()


def _single(values: Tensor) -> Tensor:
    return values.float().contiguous()


@dataclass(frozen=True)
class _Fold:
    kept: Tensor
    left_out: Tensor
    decomposed: _Decomposed
    projected: Tensor  # (n_left_out, n_axes): the left-out samples on the axes of the others

    @classmethod
    def of(cls, X: Tensor, least: float, kept: NDArray[np.intp], left_out: NDArray[np.intp]) -> _Fold:
        own, others = torch.from_numpy(kept).to(X.device), torch.from_numpy(left_out).to(X.device)
        mean = X[own].mean(0)
        decomposed = _Decomposed.of(X[own] - mean, least)
        return cls(own, others, decomposed, _single((X[others] - mean) @ decomposed.axes.double()))

    def errors(self, targets: Tensor, alphas: Sequence[float]) -> Tensor:
        """The squared errors over the left-out samples, shape (n_alphas, n_targets)."""
        kept = targets.index_select(1, self.kept)
        mean = kept.mean(1, keepdim=True)
        measured = targets.index_select(1, self.left_out).sub_(mean)
        on_axes = linear(kept.sub_(mean), self.decomposed.scores)
        # Not the targets are divided, of which there are more.
        predictions = (linear(on_axes, self.projected / (self.decomposed.squares + alpha)) for alpha in alphas)
        return torch.stack([torch.linalg.vector_norm(each.sub_(measured), dim=1).square() for each in predictions])


def _prepared_ridge(
    X: Floats,
    samples: NDArray[np.intp],
    alphas: NDArray[np.float64],
    folds: Folds,
    groups: NDArray[np.intp] | None,
    device: torch.device,
    batch: int,
) -> Solver:
    scaled, centre, scale = _scaled_features(X)
    centred, relative = torch.from_numpy(scaled).to(device), alphas / scale**2
    in_folds = [_Fold.of(centred, relative[0], *split) for split in _splits(samples, folds, groups)]
    in_all = _Decomposed.of(centred, relative[0])
    candidates = torch.from_numpy(np.clip(relative, _SINGLE.tiny, _SINGLE.max)).float().to(device)

    def solve(Y: Floats) -> Regression:
        found = Regression.empty(Y.shape[1], X.shape[1])
        for targets in slices(Y.shape[1], batch):
            rows, mean, size = _centred_targets(Y[:, targets])
            own = torch.from_numpy(rows).to(device)
            errors = torch.stack([fold.errors(own, candidates.tolist()) for fold in in_folds]).sum(0)
            chosen = _largest_of_the_best(errors)
            shrunk = linear(own, in_all.scores).div_(in_all.squares + candidates[chosen][:, None])
            coefficients = linear(shrunk, in_all.axes).cpu().numpy()
            coefficients *= (size / scale)[:, None]
            found.coefficients[targets] = coefficients
            found.intercepts[targets] = mean - coefficients @ centre
            found.alphas[targets, 0] = alphas[chosen.cpu().numpy()]
            found.scores[targets] = _r2(errors.amin(0), own).cpu().numpy()
        return found

    return solve


def _largest_of_the_best(errors: Tensor) -> Tensor:
    """The index of the smallest error in each column; of several, of the largest penalty."""
    return len(errors) - 1 - errors.flip(0).argmin(0)


def _splits(
    samples: NDArray[np.intp], folds: Folds, groups: NDArray[np.intp] | None
) -> list[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Where the kept and the left-out samples of each fold are among those that are there."""
    left_out = [np.isin(samples, fold) for fold in folds]
    usable = [each for each in left_out if each.any() and not each.all()]
    if not usable:  # all that is there is in one fold
        own = None if groups is None else groups[samples]
        n_folds = len(folds) if own is None else min(len(folds), len(np.unique(own)))
        if n_folds < 2:
            log.warning("targets were measured in one group of stimuli: their penalty is chosen within it")
            own, n_folds = None, len(folds)
        usable = [np.isin(np.arange(len(samples)), fold) for fold in split_folds(len(samples), n_folds, None, own)]
    return [(np.flatnonzero(~each), np.flatnonzero(each)) for each in usable]


def _r2(errors: Tensor, targets: Tensor) -> Tensor:
    """1 - error / variance, of centred targets; NaN where they do not vary."""
    variances: Tensor = torch.linalg.vector_norm(targets, dim=1).square()
    return 1 - errors / variances


# Banded ridge

Solved = tuple[list[Floats], Floats, Floats]


def _prepared_banded_ridge(
    X: Floats,
    samples: NDArray[np.intp],
    bands: Sequence[slice],
    folds: Folds,
    groups: NDArray[np.intp] | None,
    device: torch.device,
    settings: dict[str, Any],
) -> Solver:
    centred, centre, scale = _scaled_features(X)
    alphas = settings["alphas"] / scale**2
    options = {**settings, "cv": _Splitter(_splits(samples, folds, groups)), "progress_bar": False, "local_alpha": True}
    form, dtype = _banded_form(centred, alphas[0], settings["alphas"][0])
    solve_centred = partial(form, options={**options, "alphas": alphas})
    parts = [centred[:, band].astype(dtype, order="C") for band in bands]

    def solve(Y: Floats) -> Regression:
        found = Regression.empty(Y.shape[1], X.shape[1], len(bands))
        rows, mean, size = _centred_targets(Y, safe=1.0)  # himalaya tells scores apart that differ by 1e-7
        with _himalaya_backend(device):
            coefficients, chosen, errors = solve_centred(parts, rows.T.astype(dtype))
        for band, own in zip(bands, coefficients, strict=True):
            found.coefficients[:, band] = own.T * (size / scale)[:, None]
        found.intercepts[:] = mean - found.coefficients @ centre
        found.alphas[:] = chosen.T * scale**2
        with np.errstate(invalid="ignore", divide="ignore"):  # of targets that do not vary
            found.scores[:] = 1 - errors / np.square(rows).mean(1, dtype=np.float64)
        return found

    return solve


def _banded_form(centred: NDArray[np.float64], least: float, stated: float) -> tuple[Callable[..., Solved], Any]:
    """The fastest of himalaya's solvers, and the precision, that tell the smallest penalty from rounding."""
    size, needed = float(np.linalg.norm(centred)), _ENOUGH * np.sqrt(least)
    is_tall = len(centred) >= centred.shape[1]
    if is_tall and _SINGLE.eps * size <= needed:
        return _by_weights, np.float32
    if not is_tall and _DOUBLE.eps * size**2 <= needed * np.sqrt(least):  # kernels are squares
        return _by_kernels, np.float64
    if _DOUBLE.eps * size <= needed:
        return _by_weights, np.float64
    raise InvalidParameterError(
        f"The smallest penalty ({stated:.3g}) is lost in the rounding of the largest features. Standardize the "
        "features, or give larger alphas."
    )


@dataclass(frozen=True)
class _Splitter:
    """Folds, as scikit-learn and himalaya take them."""

    pairs: list[tuple[NDArray[np.intp], NDArray[np.intp]]]

    def split(self, X: Any = None, y: Any = None, groups: Any = None) -> Iterator[tuple[Any, Any]]:
        return iter(self.pairs)

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        return len(self.pairs)


def _by_weights(parts: list[Floats], Y: Floats, options: dict[str, Any]) -> Solved:
    """By himalaya's singular values, fast for fewer features than samples: coefficients, penalties, squared errors."""
    from himalaya.backend import get_backend
    from himalaya.ridge import solve_group_ridge_random_search

    options = {**options, "return_weights": True, "warn": False}
    deltas, weights, scores = solve_group_ridge_random_search(parts, Y, **options)
    weights, deltas, scores = (get_backend().to_numpy(each) for each in (weights, deltas, scores))
    ends = np.cumsum([part.shape[1] for part in parts])[:-1]
    return np.split(weights, ends), np.exp(-deltas), -scores.max(0)


def _by_kernels(parts: list[Floats], Y: Floats, options: dict[str, Any]) -> Solved:
    """As `_by_weights`, for more features than samples."""
    from himalaya.backend import get_backend
    from himalaya.kernel_ridge import solve_multiple_kernel_ridge_random_search

    kernels = np.stack([part @ part.T for part in parts])
    solved = solve_multiple_kernel_ridge_random_search(kernels, Y, return_weights="dual", **options)
    deltas, duals, scores = (get_backend().to_numpy(each) for each in solved)
    weights = [part.T @ duals * np.exp(delta) for part, delta in zip(parts, deltas, strict=True)]
    return weights, np.exp(-deltas), -scores.max(0)


def check_himalaya() -> None:
    """Raise MissingExtraError if banded ridge cannot be solved."""
    try:
        import himalaya.backend  # noqa: F401
    except ImportError as error:
        raise MissingExtraError('Banded ridge needs himalaya:  pip install "berg[fit]"') from error


@contextmanager
def _himalaya_backend(device: torch.device) -> Iterator[None]:
    check_himalaya()
    from himalaya.backend import get_backend, set_backend

    before = get_backend()
    set_backend("torch_cuda" if device.type == "cuda" else "torch")
    try:
        yield
    finally:
        set_backend(before)
