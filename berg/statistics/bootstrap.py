r"""How far an accuracy may be from the truth: bootstrap over stimuli.

Stimuli are taken as independent; near-copies are given as `groups`, which are then drawn as a whole; for samples in
time there is `berg.statistics.in_time.interval_in_time`, or `block_length` for stretches of one length.

Arrays are as in `berg.statistics.metrics`: stimuli first, then units; a measured NaN is missing for its unit alone.
All random numbers come from `seed` and are the same for all units; results do not depend on the blocks of units.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import ndtr, ndtri, stdtrit

from berg.core.exceptions import InvalidParameterError
from berg.statistics.array_kinds import Array
from berg.statistics.autocorrelation import warn_of_neighbours
from berg.statistics.groups import Groups, Indices, Seed, independent_groups, sums_over_groups
from berg.statistics.metrics import centred, matrices
from berg.statistics.options import check_choice, check_level
from berg.statistics.p_values import TIE
from berg.statistics.unit_blocks import Floats, read_units, unit_blocks
from berg.system.progress import progress_bar


@dataclass(frozen=True)
class Interval:
    """An estimate and its confidence interval.

    Attributes
    ----------
    estimate, low, high
        Shape (...units); NaN where the metric is.
    """

    estimate: Floats
    low: Floats
    high: Floats


def bootstrap_interval(
    measured: Array,
    predicted: Array,
    metric: Literal["r", "r2"] = "r",
    *,
    level: float = 0.95,
    method: Literal["percentile", "bca"] = "bca",
    n_resamples: int = 1000,
    block_length: int = 1,
    groups: Groups | None = None,
    seed: Seed = 0,
    show_progress: bool | None = None,
) -> Interval:
    """Confidence interval of an accuracy, over draws of stimuli like these.

    Stimuli are drawn with replacement, as many as there are and the same for all units, and the metric is computed
    again. The model stays as it is: the interval says nothing about another training set or another subject.

    Parameters
    ----------
    measured, predicted
        Shape (n_stimuli, ...units).
    metric
        ``"r"``: `pearson_r`; ``"r2"``: `r2_score`.
    level
        Part of such intervals that hold the true value.
    method
        ``"percentile"``: between quantiles of the resamples. ``"bca"``: of quantiles corrected for bias and skewness
        (Efron 1987, J Am Stat Assoc 82:171), with the jackknife over stimuli.
    n_resamples
        Some 1,000 for an interval of 95 %.
    block_length
        Stimuli in a row that are drawn together (circular block bootstrap); 1 for independent stimuli. Along time give
        one, above all for r2, which `interval_in_time` does not know: at least 3 n over `effective_samples`. Below 100
        effective samples even these intervals are too narrow (docs/evaluation.md has the coverage).
    groups
        Shape (n_stimuli,), a label for each: near-copies have the same. Groups are drawn as a whole, and levels widened
        as Student's t is wider than the normal distribution (Hesterberg 2015, Am Stat 69:371).
    seed
        Of the draws.

    Returns
    -------
    interval
        Each of shape (...units). Beside input and result, memory takes 20 bytes per resample and stimulus and at most
        300 MB.

    Raises
    ------
    InvalidParameterError
        The shapes differ, or an option is none of those above.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> signal = rng.standard_normal((200, 1))
    >>> interval = bootstrap_interval(signal + rng.standard_normal((200, 1)), signal)
    >>> bool(interval.low[0] < 2**-0.5 < interval.high[0])
    True
    """
    check_choice("metric", metric, METRICS)
    check_choice("method", method, ("percentile", "bca"))
    check_level(level)
    measured, predicted, tolerance, shape = matrices(measured, predicted, same_unit=metric == "r2")
    n_stimuli, n_units = measured.shape
    numbers = independent_groups(groups, n_stimuli, block_length)
    if groups is None:
        warn_of_neighbours(measured, predicted, block_length)
    n_drawn = n_stimuli if numbers is None else int(numbers.max()) + 1
    draws = resampled_counts(n_drawn, n_resamples, block_length, seed)
    result = np.empty((3, n_units))
    rows = max(n_resamples, n_stimuli)
    with progress_bar("Bootstrap", n_units, "units", show_progress) as advance:
        for units in unit_blocks(rows, n_units):
            pair = read_units(measured, units), read_units(predicted, units)
            result[:, units] = _interval(*pair, draws, METRICS[metric], tolerance, level, method == "bca", numbers)
            advance(units.stop - units.start)
    return Interval(*(x.reshape(shape) for x in result))


def resampled_counts(n_stimuli: int, n_resamples: int, block_length: int = 1, seed: Seed = 0) -> Floats:
    """How often each stimulus is drawn in each resample; shape (n_resamples, n_stimuli), rows add up to n_stimuli."""
    if n_resamples < 1 or not 1 <= block_length <= n_stimuli:
        raise InvalidParameterError(
            f"{n_resamples} resamples of {n_stimuli} stimuli in blocks of {block_length}: at least one resample and "
            "blocks of 1 to as many as there are stimuli are needed. Try n_resamples=1000, block_length=1."
        )
    n_blocks = -(-n_stimuli // block_length)
    starts = np.random.default_rng(seed).integers(0, n_stimuli, (n_resamples, n_blocks))
    drawn = (starts[..., None] + np.arange(block_length)).reshape(n_resamples, -1)[:, :n_stimuli] % n_stimuli
    drawn += n_stimuli * np.arange(n_resamples)[:, None]
    counts = np.bincount(drawn.ravel(), minlength=n_resamples * n_stimuli)
    return counts.reshape(n_resamples, n_stimuli).astype(np.float64)


Statistic = Callable[..., Floats]


def _r_of_sums(w: Floats, m: Floats, p: Floats, mm: Floats, pp: Floats, mp: Floats) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        variance_m, variance_p = mm / w - (m / w) ** 2, pp / w - (p / w) ** 2
        r = (mp / w - m / w * (p / w)) / np.sqrt(_not_rounding(variance_m) * _not_rounding(variance_p))
    return np.clip(r, -1.0, 1.0)


def _r2_of_sums(w: Floats, m: Floats, p: Floats, mm: Floats, pp: Floats, mp: Floats) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        return 1 - (mm - 2 * mp + pp) / (w * _not_rounding(mm / w - (m / w) ** 2))


def _not_rounding(variance: Floats) -> Floats:
    """NaN where a resample does not vary, as when it drew one stimulus only; the whole sample's variance is 1."""
    return np.where(variance > TIE, variance, np.nan)


METRICS: dict[str, Statistic] = {"r": _r_of_sums, "r2": _r2_of_sums}


def _interval(
    measured: Floats,
    predicted: Floats,
    draws: Floats,
    statistic: Statistic,
    tolerance: tuple[float, float],
    level: float,
    bca: bool,
    groups: Indices | None,
) -> tuple[Floats, Floats, Floats]:
    terms = _terms(measured, predicted, statistic is _r_of_sums, tolerance)
    terms = terms if groups is None else sums_over_groups(terms, groups)
    sums = [term.sum(axis=1) for term in terms]
    estimate = statistic(*sums)
    resampled = np.sort(statistic(*(term @ draws.T for term in terms)), axis=1)  # (n_units, n_resamples), NaN last
    tails = np.array([(1 - level) / 2, (1 + level) / 2])
    tails = tails if groups is None else _widened(tails, draws.shape[1])
    levels = np.broadcast_to(tails, (len(estimate), 2))
    if bca:
        left_out = statistic(*(total[:, None] - term for total, term in zip(sums, terms, strict=True)))
        levels = _corrected_levels(tails, estimate, resampled, np.where(terms[0] > 0, left_out, np.nan))
    low, high = (_quantile(resampled, levels[:, side]) for side in (0, 1))
    return estimate, np.where(np.isnan(estimate), np.nan, low), np.where(np.isnan(estimate), np.nan, high)


def _widened(tails: Floats, n_groups: int) -> Floats:
    """Levels of the percentiles of so few groups, which lie too close together otherwise (Hesterberg 2015)."""
    levels: Floats = ndtr(np.sqrt(n_groups / (n_groups - 1)) * stdtrit(n_groups - 1, tails))
    return levels


def _terms(measured: Floats, predicted: Floats, scale_prediction: bool, tolerance: tuple[float, float]) -> list[Floats]:
    """What a metric is made of when added up over stimuli; each (n_units, n_stimuli), 0 where missing.

    In units in which the measured responses have mean 0 and variance 1, so that no digits are lost.
    """
    present = ~np.isnan(measured)
    with np.errstate(invalid="ignore", over="ignore"):
        m, squares = centred(measured, present, tolerance[0])
        if scale_prediction:
            p, squares_p = centred(predicted, present, tolerance[1])
        else:
            p, squares_p = m - np.where(present, measured - predicted, 0.0), squares
        count = present.sum(axis=0)
        m, p = (m / np.sqrt(squares / count)).T, (p / np.sqrt(squares_p / count)).T
    return [np.ascontiguousarray(term) for term in (present.T.astype(np.float64), m, p, m * m, p * p, m * p)]


def _corrected_levels(tails: Floats, estimate: Floats, resampled: Floats, left_out: Floats) -> Floats:
    """Levels of the bias-corrected and accelerated interval (Efron 1987); shape (n_units, 2)."""
    count = np.maximum((~np.isnan(resampled)).sum(axis=1), 1)
    below = (resampled < estimate[:, None]).sum(axis=1) + (resampled <= estimate[:, None]).sum(axis=1)
    bias = ndtri(np.clip(below / (2 * count), 0.5 / count, 1 - 0.5 / count))[:, None]
    present = ~np.isnan(left_out)
    mean = np.where(present, left_out, 0.0).sum(axis=1) / np.maximum(present.sum(axis=1), 1)
    change = np.where(present, mean[:, None] - left_out, 0.0)
    spread = (change**2).sum(axis=1) ** 1.5
    acceleration = ((change**3).sum(axis=1) / np.where(spread > 0, 6 * spread, 1.0))[:, None]
    z = bias + ndtri(tails)
    corrected: Floats = ndtr(bias + z / (1 - acceleration * z))
    return corrected


def _quantile(ordered: Floats, levels: Floats) -> Floats:
    """Quantiles of ordered rows, a level for each, between neighbours; NaN at the end of a row does not count."""
    count = (~np.isnan(ordered)).sum(axis=1)
    place = levels * np.maximum(count - 1, 0)
    below = np.floor(np.nan_to_num(place)).astype(np.intp)
    above = np.minimum(below + 1, np.maximum(count - 1, 0))
    rows = np.arange(len(ordered))
    low, high = ordered[rows, below], ordered[rows, above]
    quantile: Floats = low + (place - below) * (high - low)
    return quantile
