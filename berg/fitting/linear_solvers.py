r"""Linear regressions of many targets: least squares, and ridge with a penalty per target.

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
that come in blocks. How the targets are cut into blocks changes no penalty. Ridge with a penalty for each band of
features is in `berg.fitting.banded_ridge`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from berg.features.linear import linear
from berg.fitting.folds import Folds, checked_folds, splits_of_samples
from berg.fitting.graded_svd import GradedQR
from berg.fitting.penalties import checked_alphas, default_alphas, warn_of_edges
from berg.fitting.principal_components import slices
from berg.fitting.regression import (
    Floats,
    Regression,
    Solver,
    by_missing_samples,
    centred_targets,
    checked_features,
    scaled_features,
)
from berg.statistics.groups import Groups, group_numbers

N_TARGETS_BATCH = 4096
"""Targets that are computed together."""
_NEGLIGIBLE = 1e-6  # of the smallest penalty: an eigenvalue as small changes no weight by more
_SINGLE, _DOUBLE = np.finfo(np.float32), np.finfo(np.float64)
_SEEN = 1e6 * float(_DOUBLE.eps)  # of the largest eigenvalue: smaller ones are not right to 1e-6
CPU = torch.device("cpu")


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
    return by_missing_samples(checked_features(X), _prepared_least_squares, n_needed=1)


def ridge_cv(
    X: Floats, Y: Floats, alphas: Sequence[float] | Floats | None = None, folds: int | Folds = 5, **options: Any
) -> Regression:
    """Ridge regression with a penalty for each target, chosen by cross-validation.

    Parameters
    ----------
    X
        Shape (n_samples, n_features). If there are more features than samples, give their scores on all their
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
    device: torch.device = CPU,
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
    X = checked_features(X)
    chosen = default_alphas(X) if alphas is None else checked_alphas(alphas)
    splits = checked_folds(folds, len(X), groups)
    numbers = None if groups is None else group_numbers(groups, len(X))
    where = torch.device("cpu") if device.type == "mps" else device  # which has no float64
    prepare = partial(_prepared_ridge, alphas=chosen, folds=splits, groups=numbers, device=where, batch=n_targets_batch)
    return by_missing_samples(X, prepare, n_needed=2 * len(splits), groups=numbers)


def _prepared_least_squares(X: Floats, samples: NDArray[np.intp]) -> Solver:
    centred, centre, scale = scaled_features(X)
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
        # Divide the axes, not the targets: there are fewer of them.
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
    scaled, centre, scale = scaled_features(X)
    centred, relative = torch.from_numpy(scaled).to(device), alphas / scale**2
    in_folds = [_Fold.of(centred, relative[0], *split) for split in splits_of_samples(samples, folds, groups)]
    in_all = _Decomposed.of(centred, relative[0])
    candidates = torch.from_numpy(np.clip(relative, _SINGLE.tiny, _SINGLE.max)).float().to(device)

    def solve(Y: Floats) -> Regression:
        found = Regression.empty(Y.shape[1], X.shape[1])
        for targets in slices(Y.shape[1], batch):
            rows, mean, size = centred_targets(Y[:, targets])
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


def _r2(errors: Tensor, targets: Tensor) -> Tensor:
    """1 - error / variance, of centred targets; NaN where they do not vary."""
    variances: Tensor = torch.linalg.vector_norm(targets, dim=1).square()
    return 1 - errors / variances
