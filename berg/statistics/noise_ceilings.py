r"""How well a perfect model could do, given the noise of the measurement.

A measured response is taken as the sum of a signal, which depends on the stimulus, and of noise, which is independent
from repeat to repeat: :math:`x_{sk} = \mu_s + \varepsilon_{sk}` with variances :math:`\sigma_S^2` over stimuli and
:math:`\sigma_N^2` over repeats. The mean over :math:`n` repeats then has the reliability

.. math:: \rho_n = \frac{\sigma_S^2}{\sigma_S^2 + \sigma_N^2 / n},

and a model that predicts :math:`\mu_s` exactly reaches r = :math:`\sqrt{\rho_n}` and r2 = :math:`\rho_n` against that
mean. **Ceilings here are in units of Pearson r**, :math:`\sqrt{\rho}`; square them for r2 and for explained variance
(the published noise ceiling of NSD, in per cent, is 100 times the square).

Arrays have the axes (repeats, stimuli, units), where units may be several axes, and NaN where a stimulus has fewer
repeats than others; the order of repeats plays no part. Units are read in blocks, and beside input and result at most
200 MB are used. A unit that does not vary at all, or has an infinite value, has the ceiling NaN; one without any
signal 0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import fdtri

from berg.core.exceptions import InvalidParameterError
from berg.statistics.array_kinds import REPEATS, STIMULI, Array, plain, read
from berg.statistics.metrics import correlation, nan_mean
from berg.statistics.unit_blocks import (
    CACHE_BYTES,
    Floats,
    Mask,
    as_units,
    check_repeats,
    read_units,
    rounding,
    unit_blocks,
)
from berg.system.progress import progress_bar


@dataclass(frozen=True)
class VarianceComponents:
    """Signal and noise of each unit.

    Attributes
    ----------
    signal
        Shape (...units), variance of the expected response over stimuli, in the squared unit of the responses. Free of
        bias, and so below 0 by chance where there is none.
    noise
        Shape (...units), variance of single repeats around it.
    inverse_repeats
        Shape (...units), mean over stimuli of 1 / (number of repeats).
    """

    signal: Floats
    noise: Floats
    inverse_repeats: Floats


@dataclass(frozen=True)
class CeilingBounds:
    """Between what a perfect model is expected.

    Attributes
    ----------
    lower, upper
        Shape (...units), or (n_subjects, ...units); in units of Pearson r.
    """

    lower: Floats
    upper: Floats


def variance_components(repeats: Array) -> VarianceComponents:
    r"""Split the variance of repeated measurements into signal and noise, by one-way analysis of variance.

    .. math::
        \hat\sigma_N^2 = \frac{\sum_s \sum_k (x_{sk} - \bar x_s)^2}{\sum_s (n_s - 1)}, \qquad
        \hat\sigma_S^2 = \operatorname{var}_s(\bar x_s) - \hat\sigma_N^2 \, \overline{1 / n_s}

    with :math:`n_s` repeats of stimulus s and the variance over stimuli divided by (their number - 1). Both are
    unbiased, whatever the distributions, as long as noise is independent and its variance the same for all stimuli.

    Parameters
    ----------
    repeats
        Shape (n_repeats, n_stimuli, ...units).

    Returns
    -------
    components
        NaN where a unit has fewer than two stimuli, or no stimulus with two repeats.

    Raises
    ------
    InvalidParameterError
        Fewer than two repeats or stimuli.

    Examples
    --------
    >>> components = variance_components([[[1.0], [4.0]], [[3.0], [6.0]]])
    >>> components.signal, components.noise
    (array([3.5]), array([2.]))
    """
    repeats = _repeats(repeats, 2)
    return VarianceComponents(*_per_unit(_components, repeats, 3))


def ncsnr(repeats: Array) -> Floats:
    r"""Noise-ceiling signal-to-noise ratio: :math:`\hat\sigma_S / \hat\sigma_N` of `variance_components`.

    Allen et al. 2022 (Nat Neurosci 25:116, Methods, "Noise ceiling estimation"), who z-score each session, so that
    there :math:`\hat\sigma_S^2 = 1 - \hat\sigma_N^2`. Here it is estimated, and responses may be in any unit.

    Returns
    -------
    ncsnr
        Shape (...units), at least 0; infinite where repeats do not differ.
    """
    return _ratio(variance_components(repeats))


def ceiling_from_ncsnr(ncsnr: Array, n_averaged: Array = 1) -> Floats:
    r"""Noise ceiling of responses that are averaged over repeats, from a published ncsnr.

    .. math:: \sqrt{\frac{\mathrm{ncsnr}^2}{\mathrm{ncsnr}^2 + \overline{1 / n_s}}}

    Parameters
    ----------
    ncsnr
        Shape (...units); also what the metadata of NSD models carry.
    n_averaged
        How many repeats each response is the mean of: a number for all stimuli, or shape (n_stimuli,).

    Returns
    -------
    ceiling
        Shape (...units), in units of Pearson r.

    Raises
    ------
    InvalidParameterError
        Numbers of repeats that are not above 0, or a negative ncsnr.

    Examples
    --------
    >>> ceiling_from_ncsnr([0.0, 0.5, 1.0], n_averaged=3).round(3)
    array([0.   , 0.655, 0.866])
    """
    counts, ratio = (read(plain(array)[...]).astype(np.float64) for array in (n_averaged, ncsnr))
    if not np.all(counts > 0) or np.any(ratio < 0):
        raise InvalidParameterError(
            "A signal-to-noise ratio is at least 0 and a number of averaged repeats above 0; "
            f"given: a least ratio of {np.min(ratio)} and a least number of {np.min(counts)}. "
            "Leave out stimuli that were not measured."
        )
    return _ceiling(ratio, np.asarray(np.mean(1 / counts)))


def ncsnr_ceiling(repeats: Array, n_averaged: Array | None = None) -> Floats:
    """Noise ceiling of the mean over repeats, from signal and noise variance: `ncsnr`, then `ceiling_from_ncsnr`.

    Parameters
    ----------
    repeats
        Shape (n_repeats, n_stimuli, ...units).
    n_averaged
        As in `ceiling_from_ncsnr`; None: as many as each stimulus has here.

    Returns
    -------
    ceiling
        Shape (...units), in [0, 1], in units of Pearson r.
    """
    parts = variance_components(repeats)
    ratio = _ratio(parts)
    return _ceiling(ratio, parts.inverse_repeats) if n_averaged is None else ceiling_from_ncsnr(ratio, n_averaged)


def split_half_ceiling(
    repeats: Array,
    n_splits: int = 100,
    *,
    seed: int | np.random.Generator = 0,
    show_progress: bool | None = None,
) -> Floats:
    r"""Noise ceiling of the mean over repeats, from the correlation of halves of the repeats.

    In each split the repeats of every stimulus are divided at random into two equal halves (of an odd number, one is
    left out), and the means of the halves correlated over stimuli. The mean correlation of the splits is stepped up
    from half to all repeats (Spearman 1910, Brown 1910):

    .. math::
        \hat\rho = \frac{k \bar r}{1 + (k - 1) \bar r}, \qquad
        k = \overline{1 / h_s} \,/\, \overline{1 / n_s}, \qquad \text{ceiling} = \sqrt{\hat\rho}

    with :math:`n_s` repeats of stimulus s and :math:`h_s` in each half: k = 2 for even and equal numbers. Stimuli with
    a single repeat take no part in the correlation.

    Parameters
    ----------
    repeats
        Shape (n_repeats, n_stimuli, ...units).
    n_splits
        Number of random splits; the same for all units.
    seed
        Of the splits.

    Returns
    -------
    ceiling
        Shape (...units), in [0, 1], in units of Pearson r; 0 where halves do not correlate above 0, NaN where a half
        does not vary.

    Raises
    ------
    InvalidParameterError
        Fewer than two repeats or stimuli, or no split.
    """
    repeats = _repeats(repeats, 2)
    _check_splits(n_splits)
    keys = np.random.default_rng(seed).random((n_splits, *np.shape(repeats)[:2]))
    n_units = int(np.prod(np.shape(repeats)[2:]))
    with progress_bar("Split halves", n_units, "units", show_progress) as advance:

        def block(values: Floats, tolerance: float) -> tuple[Floats]:
            ceiling = _split_half(values, keys, tolerance)
            advance(values.shape[-1])
            return (ceiling,)

        return _per_unit(block, repeats, 1)[0]


def leave_one_repeat_out(repeats: Array) -> CeilingBounds:
    """Bounds of the noise ceiling for single repeats: each repeat correlated with the mean of the others, or of all.

    The lower bound predicts a repeat from the mean of the others, which is itself noisy; the upper from the mean over
    all repeats, of which it is a part (Nili et al. 2014, PLoS Comput Biol 10:e1003553, there over subjects). Both are
    averaged over repeats. They bound ``over_repeats(..., against="each")``; the ceiling against the mean over repeats
    is higher.

    Parameters
    ----------
    repeats
        Shape (n_repeats, n_stimuli, ...units).

    Returns
    -------
    bounds
        Each of shape (...units), in units of Pearson r, below 0 by chance where there is no signal.
    """
    repeats = _repeats(repeats, 2)
    return CeilingBounds(*_per_unit(_averaged_bounds, repeats, 2))


def across_subjects(responses: Array) -> CeilingBounds:
    """How well each subject's responses are predicted by those of the others, and by the mean of all.

    Takes for granted that all subjects saw the same stimuli and that a unit is the same place in each of them (a
    vertex of fsaverage, a channel). What is peculiar to a subject counts as noise here, so that a model fitted to that
    subject can exceed even the upper value where subjects differ.

    Parameters
    ----------
    responses
        Shape (n_subjects, n_stimuli, ...units); each already averaged over repeats, and in comparable units (z-scored):
        a subject with larger amplitudes weighs more in the mean. NaN where a subject did not see a stimulus.

    Returns
    -------
    bounds
        Each of shape (n_subjects, ...units), in units of Pearson r. ``lower``: against the mean of the other subjects;
        ``upper``: against the mean of all.
    """
    responses = _repeats(responses, 2, "subjects")
    n_subjects = len(responses)
    bounds = np.stack(_per_unit(_flat_bounds, responses, 2 * n_subjects))
    return CeilingBounds(bounds[:n_subjects], bounds[n_subjects:])


def chance_ceiling(n_stimuli: Array, n_repeats: float, level: float = 0.05) -> Any:
    r"""The ceiling that a unit without any signal exceeds with a probability of `level`.

    .. math:: \sqrt{1 - 1 / F_{1 - \alpha}}

    with the quantile of the F distribution with :math:`S - 1` and :math:`S (n - 1)` degrees of freedom. Exact for
    `ncsnr_ceiling` with equal numbers of repeats and normal noise; for `split_half_ceiling` and unequal numbers (take
    their harmonic mean) a good approximation. Made for the threshold of `noise_normalised`.

    Parameters
    ----------
    n_stimuli, n_repeats
        From which the ceiling was estimated. What counts are independent stimuli: of near-copies, the number of groups;
        of samples in time, `noise_effective_samples`, which may be of shape (...units).
    level
        Above 0 and below 1.

    Returns
    -------
    ceiling
        A number, or shape (...units) where `n_stimuli` has it; NaN where that is.

    Raises
    ------
    InvalidParameterError
        Fewer than two stimuli, not more than one repeat, or a level that is no probability.

    Examples
    --------
    >>> round(chance_ceiling(515, 3), 3)
    0.342
    """
    counts = read(plain(n_stimuli)[...]).astype(np.float64)
    if not np.all((counts >= 2) | np.isnan(counts)) or n_repeats <= 1 or not 0 < level < 1:
        raise InvalidParameterError(
            f"{np.nanmin(counts):g} stimuli, {n_repeats} repeats, level {level}: at least 2 stimuli, more than 1 "
            "repeat and a level between 0 and 1 are needed. Try chance_ceiling(515, 3, level=0.05)."
        )
    quantile = fdtri(counts - 1, counts * (n_repeats - 1), 1 - level)
    ceiling = np.sqrt(np.maximum(0.0, 1 - 1 / quantile))
    return ceiling if counts.ndim else float(ceiling)


def _repeats(repeats: Array, least: int, what: str = "repeats") -> Array:
    """Plain numbers with the axes (repeats, stimuli, units); raise unless there are enough."""
    numbers = plain(repeats, (REPEATS, STIMULI))
    check_repeats(numbers, least, what)
    return numbers


def _per_unit(block: Callable[[Floats, float], tuple[Floats, ...]], repeats: Array, n_results: int) -> list[Floats]:
    """Several values per unit, each of shape (...units), from blocks of shape (n_repeats, n_stimuli, n_units)."""
    shape, tolerance = repeats.shape[2:], rounding(repeats)
    repeats = as_units(repeats, n_leading=2)
    results = np.empty((n_results, repeats.shape[-1]))
    for units in unit_blocks(repeats.shape[0] * repeats.shape[1], repeats.shape[-1], CACHE_BYTES):
        values = read_units(repeats, units)
        infinite = np.isinf(values).any(axis=(0, 1))
        results[:, units] = block(np.where(infinite, np.nan, values) if infinite.any() else values, tolerance)
    return [result.reshape(shape) for result in results]


def _components(values: Floats, tolerance: float) -> tuple[Floats, Floats, Floats]:
    counts = (~np.isnan(values)).sum(axis=0)  # (n_stimuli, n_units)
    means = nan_mean(values)
    level = nan_mean(means)
    noise_sum = np.nansum((values - means) ** 2, axis=(0, 1))
    freedom, n_stimuli = np.maximum(counts - 1, 0).sum(axis=0), (counts > 0).sum(axis=0)
    noise = noise_sum / np.where(freedom > 0, freedom, np.nan)
    between = np.nansum((means - level) ** 2, axis=0) / np.where(n_stimuli > 1, n_stimuli - 1, np.nan)
    inverse = nan_mean(np.where(counts > 0, 1 / np.maximum(counts, 1), np.nan))
    rounded = np.maximum(noise, between) <= (tolerance * np.abs(level)) ** 2
    noise, between = np.where(rounded, 0.0, noise), np.where(rounded, 0.0, between)
    return between - noise * inverse, noise, inverse


def _ratio(parts: VarianceComponents) -> Floats:
    """Signal to noise; NaN where there is neither."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.sqrt(np.maximum(parts.signal, 0.0) / parts.noise)


def _ceiling(ratio: Floats, inverse_repeats: Floats) -> Floats:
    with np.errstate(divide="ignore"):
        return 1 / np.sqrt(1 + inverse_repeats / ratio**2)


def _check_splits(n_splits: int) -> None:
    if n_splits < 1:
        raise InvalidParameterError(f"n_splits is {n_splits}; at least one split is needed. Try n_splits=100.")


def _split_half(values: Floats, keys: Floats, tolerance: float) -> Floats:
    present = _narrowed(~np.isnan(values))
    counts = present.sum(axis=0)  # (n_stimuli, n_units or 1)
    half = counts // 2
    filled = np.where(np.isnan(values), 0.0, values)
    r = nan_mean(np.stack([_half_correlation(filled, key, present, half, tolerance) for key in keys]))
    k = _mean_inverse(half) / _mean_inverse(counts)
    stepped_up = k * r / (1 + (k - 1) * r)
    return np.sqrt(np.maximum(np.where(r > 0, stepped_up, r), 0.0))


def _narrowed(present: Mask) -> Mask:
    """One unit's worth of what is present, if that is the same for all."""
    same = bool((present == present[..., :1]).all())
    return present[..., :1] if same else present


def _half_correlation(filled: Floats, key: Floats, present: Mask, half: NDArray[np.int_], tolerance: float) -> Floats:
    order = np.argsort(np.where(present, key[..., None], np.inf), axis=0)
    rank = np.argsort(order, axis=0)  # position of each repeat in the random order, missing ones last
    first, second = (
        _weighted_sum((chosen & (half > 0)) / np.maximum(half, 1), filled)
        for chosen in (rank < half, (rank >= half) & (rank < 2 * half))
    )
    compared = np.where(half > 0, first, np.nan)
    return correlation(compared, second, (tolerance, tolerance))


def _weighted_sum(weights: Floats, filled: Floats) -> Floats:
    """Over repeats; weights (n_repeats, n_stimuli, n_units or 1)."""
    same = weights.shape[-1] == 1
    total: Floats = np.einsum("rs,rsu->su", weights[..., 0], filled) if same else (weights * filled).sum(axis=0)
    return total


def _mean_inverse(counts: NDArray[np.int_]) -> Floats:
    return nan_mean(np.where(counts > 0, 1 / np.maximum(counts, 1), np.nan))


def _averaged_bounds(values: Floats, tolerance: float) -> tuple[Floats, Floats]:
    lower, upper = _bounds(values, tolerance)
    return nan_mean(np.stack(lower)), nan_mean(np.stack(upper))


def _flat_bounds(values: Floats, tolerance: float) -> tuple[Floats, ...]:
    lower, upper = _bounds(values, tolerance)
    return (*lower, *upper)


def _bounds(values: Floats, tolerance: float) -> tuple[list[Floats], list[Floats]]:
    """Each repeat against the others and against all; of each repeat (n_units,)."""
    counts, mean = (~np.isnan(values)).sum(axis=0), nan_mean(values)
    compared = np.where(counts > 1, values, np.nan)
    others = (nan_mean(np.delete(values, i, axis=0)) for i in range(len(values)))
    lower = [correlation(one, rest, (tolerance, tolerance)) for one, rest in zip(compared, others, strict=True)]
    upper = [correlation(one, mean, (tolerance, tolerance)) for one in compared]
    return lower, upper
