r"""Representational dissimilarities: how far apart the patterns of responses to two stimuli are.

Dissimilarities of n stimuli are a vector of all pairs in the order (0, 1), (0, 2), ..., (n - 2, n - 1), as in
`scipy.spatial.distance.squareform`, which turns it into a matrix and back. Sums are taken in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from berg.core.exceptions import InvalidParameterError, listing
from berg.statistics.options import check_choice
from berg.statistics.unit_blocks import Floats

Measure = Literal["correlation", "cosine", "euclidean"]
MEASURES: tuple[Measure, ...] = ("correlation", "cosine", "euclidean")
Blocks = Callable[[], Iterable[tuple[slice, Floats]]]
_BLOCK = 2**22  # numbers of the largest array of a block
_ROUNDING = 1e-12  # of a pattern's length: what is shorter after its mean is taken off is rounding


def dissimilarities(patterns: Any, measure: Measure = "correlation") -> Floats:
    r"""All pairs of patterns.

    .. math::
        d^{correlation}_{ij} = 1 - r(x_i, x_j), \qquad
        d^{cosine}_{ij} = 1 - \frac{x_i \cdot x_j}{\lVert x_i \rVert \lVert x_j \rVert}, \qquad
        d^{euclidean}_{ij} = \frac{\lVert x_i - x_j \rVert^2}{P}

    The last is the *squared* Euclidean distance over the number of units P, as rsatoolbox has it.

    Parameters
    ----------
    patterns
        Shape (n_stimuli, n_units).

    Returns
    -------
    dissimilarities
        Shape (n_stimuli (n_stimuli - 1) / 2,).

    Raises
    ------
    InvalidParameterError
        Fewer than two stimuli; values that are not finite; a pattern that does not vary over units ("correlation") or
        is zero ("cosine"), from which there is no such distance.

    Examples
    --------
    >>> dissimilarities([[1.0, 2.0, 3.0], [2.0, 4.0, 6.0], [3.0, 2.0, 1.0]]).round(6)
    array([0., 2., 2.])
    """
    rows = np.asarray(patterns, np.float64)
    if rows.ndim != 2:
        raise InvalidParameterError(f"Patterns have shape {rows.shape}; they must be (stimuli, units).")
    return dissimilarities_of_blocks(lambda: [(slice(0, len(rows)), rows)], len(rows), rows.shape[1], measure)


def dissimilarities_of_blocks(blocks: Blocks, n_stimuli: int, n_units: int, measure: Measure = "correlation") -> Floats:
    """`dissimilarities` of patterns that are read in blocks of stimuli, as they may be larger than the memory.

    Parameters
    ----------
    blocks
        Gives (stimuli, patterns) block by block whenever it is called.
    """
    check_choice("measure", measure, MEASURES)
    _check_size(n_stimuli, n_units, measure)
    centre = _mean_pattern(blocks, n_stimuli, n_units) if measure == "euclidean" else 0.0
    products = inner_products(blocks, n_stimuli, lambda rows, where: _prepared(rows, where.start, measure, centre))
    return _from_products(products, measure, n_units)


def dissimilarities_in_time(patterns: Any, measure: Measure = "correlation") -> Floats:
    """`dissimilarities` at each moment.

    Parameters
    ----------
    patterns
        Shape (n_stimuli, n_channels, n_times).

    Returns
    -------
    dissimilarities
        Shape (n_times, n_pairs).
    """
    array = np.asarray(patterns, np.float64)
    if array.ndim != 3:
        raise InvalidParameterError(f"Patterns have shape {array.shape}; they must be (stimuli, channels, times).")
    check_choice("measure", measure, MEASURES)
    n_stimuli, n_channels, n_times = array.shape
    _check_size(n_stimuli, n_channels, measure)
    rows = np.moveaxis(check_finite(array.reshape(n_stimuli, -1)).reshape(array.shape), -1, 0)
    found = np.empty((n_times, n_stimuli * (n_stimuli - 1) // 2))
    step = max(1, _BLOCK // n_stimuli**2)
    for start in range(0, n_times, step):
        block = rows[start : start + step]
        centre = block.mean(1, keepdims=True) if measure == "euclidean" else 0.0
        ready = _prepared(block, 0, measure, centre)
        found[start : start + step] = _from_products(ready @ ready.transpose(0, 2, 1), measure, n_channels)
    return found


def crossnobis(repeats: Any, precision: NDArray[Any] | None = None) -> Floats:
    r"""Cross-validated squared Mahalanobis distances: 0 on average if two stimuli have the same pattern, noise or not.

    .. math::
        d_{ij} = \frac{1}{P} \frac{1}{R (R - 1)} \sum_{a \ne b} (x_{ia} - x_{ja})^T \Sigma^{-1} (x_{ib} - x_{jb})

    over pairs of different repeats a, b (Walther et al. 2016, NeuroImage 137:188), which is what leaving out one repeat
    after the other gives. They may be negative.

    Parameters
    ----------
    repeats
        Shape (n_repeats, n_stimuli, n_units).
    precision
        The inverse of the covariance of the noise over units, shape (n_units, n_units), as `noise_precision` estimates
        it; None: all units have the same noise, independent of each other.

    Raises
    ------
    InvalidParameterError
        Fewer than two repeats or stimuli; values that are not finite; a precision of another shape.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> noise = rng.standard_normal((4, 30, 50))  # and no difference between stimuli
    >>> bool(abs(crossnobis(noise).mean()) < 0.05)
    True
    """
    repeats = checked_repeats(repeats)
    n_repeats, n_stimuli, n_units = repeats.shape
    weighted = repeats if precision is None else repeats @ _checked_precision(precision, n_units)
    products = repeats.sum(0) @ weighted.sum(0).T - np.einsum("rik,rjk->ij", repeats, weighted, optimize=True)
    products /= n_repeats * (n_repeats - 1)
    i, j = np.triu_indices(n_stimuli, 1)
    own = np.diag(products)
    found: Floats = (own[i] + own[j] - products[i, j] - products[j, i]) / n_units
    return found


def noise_precision(repeats: Any) -> Floats:
    """The inverse covariance of the noise over units, from deviations of repeats from their mean.

    The covariance is shrunk towards a multiple of the identity so far that the expected error is smallest (Ledoit &
    Wolf 2004, J Multivar Anal 88:365).

    Parameters
    ----------
    repeats
        Shape (n_repeats, n_stimuli, n_units).

    Returns
    -------
    precision
        Shape (n_units, n_units).
    """
    repeats = checked_repeats(repeats)
    n_repeats, _, n_units = repeats.shape
    noise = (repeats - repeats.mean(0)).reshape(-1, n_units)
    covariance = noise.T @ noise / len(noise)
    target = np.trace(covariance) / n_units
    distance = ((covariance - target * np.eye(n_units)) ** 2).sum()
    spread = ((noise**2).T @ (noise**2)).sum() / len(noise) ** 2 - (covariance**2).sum() / len(noise)
    if target <= 0:
        raise InvalidParameterError("All repeats are the same: there is no noise. Leave precision out.")
    part = min(max(spread / distance, 0.0), 1.0) if distance > 0 else 1.0
    shrunk = (1 - part) * covariance + part * target * np.eye(n_units)
    precision: Floats = np.linalg.inv(shrunk * n_repeats / (n_repeats - 1))
    return precision


def inner_products(blocks: Blocks, n_stimuli: int, prepared: Callable[[Floats, slice], Floats]) -> Floats:
    """The products of all patterns with each other, shape (n_stimuli, n_stimuli).

    Parameters
    ----------
    prepared
        What is done to the patterns of a block first.
    """
    products = np.empty((n_stimuli, n_stimuli))
    for one, rows in blocks():
        first = prepared(check_finite(rows, one.start), one)
        for other, more in blocks():
            if other.start < one.start:
                continue
            second = first if other == one else prepared(check_finite(more, other.start), other)
            products[one, other] = first @ second.T
            products[other, one] = products[one, other].T
    return products


def check_finite(rows: Floats, start: int = 0) -> Floats:
    """The patterns as they are; raise InvalidParameterError if a value is not finite."""
    if not np.isfinite(rows).all():
        stimuli, units = (np.flatnonzero(~np.isfinite(rows).all(axis=axis)) for axis in (1, 0))
        raise InvalidParameterError(
            f"Responses to {len(stimuli):,} stimuli (numbers {listing(map(str, start + stimuli), 5)}) are NaN or "
            f"infinite at {len(units):,} units (numbers {listing(map(str, units), 5)}); patterns need all of them. "
            "Leave those units or stimuli out:  responses.isel(...)"
        )
    return rows


def checked_repeats(repeats: Any) -> Floats:
    """Repeats as numbers (n_repeats, n_stimuli, n_units), at least two of each of the first, all finite."""
    array = np.asarray(repeats, np.float64)
    if array.ndim != 3 or array.shape[0] < 2 or array.shape[1] < 2 or not array.shape[2]:
        raise InvalidParameterError(
            f"Repeats have shape {array.shape}; this takes (repeats, stimuli, units), at least two of the first two. "
            "If stimuli come first: numpy.swapaxes(array, 0, 1)."
        )
    for repeat in array:
        check_finite(repeat)
    return array


def _mean_pattern(blocks: Blocks, n_stimuli: int, n_units: int) -> Floats:
    total = np.zeros(n_units)
    for _, rows in blocks():
        total += rows.sum(0)
    return np.asarray(total / n_stimuli)


def _check_size(n_stimuli: int, n_units: int, measure: Measure) -> None:
    least_units = 2 if measure == "correlation" else 1
    if n_stimuli < 2 or n_units < least_units:
        raise InvalidParameterError(
            f"{n_stimuli} stimuli and {n_units} units; '{measure}' needs at least 2 stimuli and {least_units} units."
        )


def _prepared(rows: Floats, start: int, measure: Measure, centre: Any) -> Floats:
    """Patterns of length one, their mean taken off for correlations; the common pattern taken off for distances."""
    if measure == "euclidean":
        return np.asarray(rows - centre)  # fewer digits are lost, and no difference changes
    before = np.linalg.norm(rows, axis=-1)
    rows = rows - rows.mean(-1, keepdims=True) if measure == "correlation" else rows
    length = np.linalg.norm(rows, axis=-1)
    if (flat := np.argwhere(length <= _ROUNDING * before)).size:
        what = "is the same at all units" if measure == "correlation" else "is zero at all units"
        when = f" at time number {flat[0, 0]}" if rows.ndim == 3 else ""
        raise InvalidParameterError(
            f"The response to stimulus {start + flat[0, -1]} {what}{when} ({len(flat):,} such patterns): it has no "
            f"{measure} with others. Leave those stimuli out, or take measure='euclidean'."
        )
    unit: Floats = rows / length[..., None]
    return unit


def _from_products(products: Floats, measure: Measure, n_units: int) -> Floats:
    """From products of shape (..., n_stimuli, n_stimuli)."""
    i, j = np.triu_indices(products.shape[-1], 1)
    if measure != "euclidean":
        return np.asarray(1 - np.clip(products[..., i, j], -1.0, 1.0))
    squares = np.einsum("...ii->...i", products)
    return np.asarray(np.maximum(squares[..., i] + squares[..., j] - 2 * products[..., i, j], 0.0) / n_units)


def _checked_precision(precision: NDArray[Any], n_units: int) -> Floats:
    array = np.asarray(precision, np.float64)
    if array.shape != (n_units, n_units) or not np.isfinite(array).all():
        raise InvalidParameterError(
            f"The precision has shape {array.shape}; it must be finite numbers of shape ({n_units}, {n_units}), as "
            "noise_precision(repeats) gives it."
        )
    return array
