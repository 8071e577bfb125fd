r"""Linear regressions of many targets: least squares, ridge with a penalty per target, banded ridge.

.. math::
    y_t = X w_t + b_t + \epsilon, \qquad
    w_t = \arg\min_w \lVert y_t - X w - b_t \rVert^2 + \alpha_t \lVert w \rVert^2

Features and targets are centred first, so that the intercept :math:`b_t` is free. Penalties are chosen by
cross-validation: the one with the smallest squared error over all left-out samples. A target that is NaN at some
samples is fitted to the others alone. Targets that are missing at the same samples are solved together; each such
pattern costs decompositions of its own (ridge: one per fold and one of all), so that thousands of different patterns
take as long as thousands of fits.

Each solver comes twice: as a function of X and Y, and as one of X alone that returns a function of Y, for targets
that come in blocks. How the targets are cut into blocks changes no penalty.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import lru_cache, partial
from typing import Any

import numpy as np
import scipy.linalg
import torch
from numpy.typing import NDArray
from torch import Tensor

from berg.core.exceptions import InvalidParameterError, MissingExtraError
from berg.evaluation.groups import Groups, group_folds, group_numbers
from berg.fitting.components import slices
from berg.kernels.linear import linear

log = logging.getLogger(__name__)

Floats = NDArray[np.floating[Any]]
Folds = Sequence[NDArray[np.intp]]

N_TARGETS_BATCH = 4096
"""Targets that are computed together."""
RELATIVE_ALPHAS = np.logspace(-5, 5, 11)
"""Default penalties, in units of the mean eigenvalue of the products of X (centred, without those that are zero)."""
_N_PATTERNS_KEPT = 4
_RANK = 1e-10  # of the largest eigenvalue; what is below is rounding
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
    return _by_missing_samples(X, _prepared_least_squares, n_needed=1)


def ridge_cv(
    X: Floats, Y: Floats, alphas: Sequence[float] | None = None, folds: int | Folds = 5, **options: Any
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
    return ridge_cv_solver(X, alphas, folds, **options)(Y)


def ridge_cv_solver(
    X: Floats,
    alphas: Sequence[float] | None = None,
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
    chosen = default_alphas(X) if alphas is None else _checked_alphas(alphas)
    splits = _checked_folds(folds, len(X), groups)
    numbers = None if groups is None else group_numbers(groups, len(X))
    where = torch.device("cpu") if device.type == "mps" else device  # which has no float64
    prepare = partial(_prepared_ridge, alphas=chosen, folds=splits, groups=numbers, device=where, batch=n_targets_batch)
    return _by_missing_samples(X, prepare, n_needed=2 * len(splits), groups=numbers)


def banded_ridge_cv(
    X: Floats, Y: Floats, bands: Sequence[slice], alphas: Sequence[float] | None = None, **options: Any
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
    return banded_ridge_cv_solver(X, bands, alphas, **options)(Y)


def banded_ridge_cv_solver(
    X: Floats,
    bands: Sequence[slice],
    alphas: Sequence[float] | None = None,
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
    chosen = default_alphas(X) if alphas is None else _checked_alphas(alphas)
    splits = _checked_folds(folds, len(X), groups)
    numbers = None if groups is None else group_numbers(groups, len(X))
    settings = {"alphas": chosen, "n_iter": n_iterations, "random_state": seed, "n_targets_batch": n_targets_batch}
    prepare = partial(
        _prepared_banded_ridge, bands=bands, folds=splits, groups=numbers, device=device, settings=settings
    )
    return _by_missing_samples(X, prepare, n_needed=2 * len(splits), n_bands=len(bands), groups=numbers)


def default_alphas(X: Floats) -> NDArray[np.float64]:
    """`RELATIVE_ALPHAS` times the mean eigenvalue of the products of X."""
    centred_sum = float(np.square(X - X.mean(0)).sum())
    scaled: NDArray[np.float64] = RELATIVE_ALPHAS * max(centred_sum / min(X.shape), float(np.finfo(np.float64).tiny))
    return scaled


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


def _checked_alphas(alphas: Sequence[float]) -> NDArray[np.float64]:
    checked = np.sort(np.asarray(alphas, dtype=np.float64).ravel())
    if not len(checked) or not np.isfinite(checked).all() or checked[0] <= 0:
        raise InvalidParameterError(
            f"Penalties (alphas) are numbers above zero, got {list(alphas)}. Without a penalty: write  linear  instead."
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
        found = Regression.empty(Y.shape[1], X.shape[1], n_bands)
        for pattern, targets in _patterns(~np.isnan(Y)):
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
    centre = X.mean(0, dtype=np.float64)
    inverse = scipy.linalg.pinv(X - centre, atol=0, rtol=max(X.shape) * float(np.finfo(np.float64).eps))

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
    def of(cls, X: Tensor) -> _Decomposed:
        """From centred samples in float64."""
        is_tall = X.shape[0] >= X.shape[1]
        squares, vectors = torch.linalg.eigh(X.T @ X if is_tall else X @ X.T)
        kept = squares > _RANK * squares[-1].clamp(min=torch.finfo(squares.dtype).tiny)
        squares, vectors = squares[kept], vectors[:, kept]
        axes = vectors if is_tall else X.T @ (vectors / squares.sqrt())
        return cls(_single((X @ axes).T), _single(squares), _single(axes))


def _single(values: Tensor) -> Tensor:
    return values.float().contiguous()


@dataclass(frozen=True)
class _Fold:
    kept: Tensor
    left_out: Tensor
    decomposed: _Decomposed
    projected: Tensor  # (n_left_out, n_axes): the left-out samples on the axes of the others

    @classmethod
    def of(cls, X: Tensor, kept: NDArray[np.intp], left_out: NDArray[np.intp]) -> _Fold:
        own, others = torch.from_numpy(kept).to(X.device), torch.from_numpy(left_out).to(X.device)
        mean = X[own].mean(0)
        decomposed = _Decomposed.of(X[own] - mean)
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
    centre = X.mean(0, dtype=np.float64)
    centred = torch.from_numpy(X - centre).to(device)
    in_folds = [_Fold.of(centred, *split) for split in _splits(samples, folds, groups)]
    in_all = _Decomposed.of(centred)
    candidates = torch.from_numpy(alphas).float().to(device)

    def solve(Y: Floats) -> Regression:
        found = Regression.empty(Y.shape[1], X.shape[1])
        for targets in slices(Y.shape[1], batch):
            mean = Y[:, targets].mean(0, dtype=np.float64)
            own = torch.from_numpy(_centred_rows(Y[:, targets], mean)).to(device)
            errors = torch.stack([fold.errors(own, alphas.tolist()) for fold in in_folds]).sum(0)
            chosen = candidates[errors.argmin(0)]
            shrunk = linear(own, in_all.scores).div_(in_all.squares + chosen[:, None])
            coefficients = linear(shrunk, in_all.axes).cpu().numpy()
            found.coefficients[targets] = coefficients
            found.intercepts[targets] = mean - coefficients @ centre
            found.alphas[targets, 0] = chosen.cpu().numpy()
            found.scores[targets] = _r2(errors.amin(0), own).cpu().numpy()
        return found

    return solve


def _centred_rows(Y: Floats, mean: NDArray[np.float64]) -> NDArray[np.float32]:
    """Shape (n_targets, n_samples); in one step, which takes a tenth of the time of three."""
    rows = np.empty(Y.shape[::-1], np.float32)
    np.subtract(Y.T, mean[:, None], out=rows, casting="same_kind")
    return rows


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


def _prepared_banded_ridge(
    X: Floats,
    samples: NDArray[np.intp],
    bands: Sequence[slice],
    folds: Folds,
    groups: NDArray[np.intp] | None,
    device: torch.device,
    settings: dict[str, Any],
) -> Solver:
    centre = X.mean(0, dtype=np.float64)
    centred = (X - centre).astype(np.float32)
    parts = [np.ascontiguousarray(centred[:, band]) for band in bands]
    options = {**settings, "cv": _Splitter(_splits(samples, folds, groups)), "progress_bar": False, "local_alpha": True}
    solve_centred = _by_weights if X.shape[1] <= len(X) else _by_kernels

    def solve(Y: Floats) -> Regression:
        found = Regression.empty(Y.shape[1], X.shape[1], len(bands))
        mean = Y.mean(0, dtype=np.float64)
        with _himalaya_backend(device):
            coefficients, alphas, errors = solve_centred(parts, (Y - mean).astype(np.float32), options)
        for band, own in zip(bands, coefficients, strict=True):
            found.coefficients[:, band] = own.T
        found.intercepts[:] = mean - found.coefficients @ centre
        found.alphas[:] = alphas.T
        found.scores[:] = 1 - errors / np.square(Y - mean).mean(0)
        return found

    return solve


@dataclass(frozen=True)
class _Splitter:
    """Folds, as scikit-learn and himalaya take them."""

    pairs: list[tuple[NDArray[np.intp], NDArray[np.intp]]]

    def split(self, X: Any = None, y: Any = None, groups: Any = None) -> Iterator[tuple[Any, Any]]:
        return iter(self.pairs)

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        return len(self.pairs)


Solved = tuple[list[Floats], Floats, Floats]


def _by_weights(parts: list[Floats], Y: Floats, options: dict[str, Any]) -> Solved:
    """himalaya's solver for fewer features than samples: coefficients per band, penalties, mean squared errors."""
    from himalaya.backend import get_backend
    from himalaya.ridge import solve_group_ridge_random_search

    deltas, weights, scores = solve_group_ridge_random_search(parts, Y, return_weights=True, **options)
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


@contextmanager
def _himalaya_backend(device: torch.device) -> Iterator[None]:
    try:
        from himalaya.backend import get_backend, set_backend
    except ImportError as error:
        raise MissingExtraError('Banded ridge needs himalaya:  pip install "berg[fit]"') from error
    before = get_backend()
    set_backend("torch_cuda" if device.type == "cuda" else "torch")
    try:
        yield
    finally:
        set_backend(before)
