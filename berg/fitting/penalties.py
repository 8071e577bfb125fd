"""Penalties of ridge regression: what to choose from, and whether it was enough to choose from."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from berg.core.exceptions import InvalidParameterError
from berg.core.stacklevel import users_stacklevel
from berg.fitting.regression import Floats, centred_features, checked_features

_SINGLE = np.finfo(np.float32)
RELATIVE_ALPHAS = np.logspace(-5, 5, 11)
"""Default penalties, in units of the mean eigenvalue of the products of X (centred, without those that are zero)."""


class PenaltyGridWarning(UserWarning):
    """Penalties were chosen at an edge of those that were tried: better ones may lie beyond."""


def default_alphas(X: Floats) -> NDArray[np.float64]:
    """`RELATIVE_ALPHAS` times the mean eigenvalue of the products of X; times 1 if no feature varies."""
    centred, _ = centred_features(checked_features(X))
    mean = float(np.vdot(centred, centred)) / min(X.shape)
    return checked_alphas(RELATIVE_ALPHAS * (mean or 1.0))


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
            stacklevel=users_stacklevel(),
        )
    return smallest, largest
