"""Ridge regression with a penalty for each target and band of features, by himalaya's random search."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from berg.core.exceptions import InvalidParameterError, MissingExtraError
from berg.fitting.folds import Folds, checked_folds, splits_of_samples
from berg.fitting.linear_solvers import CPU, N_TARGETS_BATCH
from berg.fitting.penalties import checked_alphas, default_alphas, warn_of_edges
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

_SINGLE, _DOUBLE = np.finfo(np.float32), np.finfo(np.float64)


Solved = tuple[list[Floats], Floats, Floats]
_ENOUGH = 1e-3  # of the root of the smallest penalty: what himalaya's singular values may be off


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
    device: torch.device = CPU,
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
    X = checked_features(X)
    chosen = default_alphas(X) if alphas is None else checked_alphas(alphas)
    splits = checked_folds(folds, len(X), groups)
    numbers = None if groups is None else group_numbers(groups, len(X))
    settings = {"alphas": chosen, "n_iter": n_iterations, "random_state": seed, "n_targets_batch": n_targets_batch}
    prepare = partial(
        _prepared_banded_ridge, bands=bands, folds=splits, groups=numbers, device=device, settings=settings
    )
    return by_missing_samples(X, prepare, n_needed=2 * len(splits), n_bands=len(bands), groups=numbers)


def _prepared_banded_ridge(
    X: Floats,
    samples: NDArray[np.intp],
    bands: Sequence[slice],
    folds: Folds,
    groups: NDArray[np.intp] | None,
    device: torch.device,
    settings: dict[str, Any],
) -> Solver:
    centred, centre, scale = scaled_features(X)
    alphas = settings["alphas"] / scale**2
    splitter = _Splitter(splits_of_samples(samples, folds, groups))
    options = {**settings, "cv": splitter, "progress_bar": False, "local_alpha": True}
    form, dtype = _banded_form(centred, alphas[0], settings["alphas"][0])
    solve_centred = partial(form, options={**options, "alphas": alphas})
    parts = [centred[:, band].astype(dtype, order="C") for band in bands]

    def solve(Y: Floats) -> Regression:
        found = Regression.empty(Y.shape[1], X.shape[1], len(bands))
        rows, mean, size = centred_targets(Y, safe=1.0)  # himalaya tells scores apart that differ by 1e-7
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
