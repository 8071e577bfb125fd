r"""Whether an accuracy is above chance, and how far it may be from the truth: permutations and bootstrap over stimuli.

Both take stimuli as exchangeable: independent pictures are, near-copies and successive frames of one recording are
not. Near-copies are given as `groups`, which are then moved and drawn as a whole; for samples in time there are
`berg.statistics.in_time.shift_test` and `interval_in_time`, or `block_length` for stretches of one length.

Arrays are as in `berg.statistics.metrics`: stimuli first, then units; a measured NaN is missing for its unit alone.
All random numbers come from `seed` and are the same for all units, which is what the maximum statistic needs; results
do not depend on the blocks of units or on the number of threads.
"""

from __future__ import annotations

import itertools
import math
import os
import warnings
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri, stdtrit

from berg.core.exceptions import InvalidParameterError
from berg.statistics.array_kinds import Array, plain, read
from berg.statistics.groups import (
    FEW,
    Groups,
    SamplesWarning,
    group_numbers,
    orders_of_groups,
    signs,
    sums_over_groups,
)
from berg.statistics.metrics import centred, matrices, standardised_pair
from berg.statistics.unit_blocks import CACHE_BYTES, Floats, Mask, read_units, unit_blocks
from berg.system.progress import progress_bar

T = TypeVar("T")
Seed = int | np.random.Generator
Indices = NDArray[np.intp]

TIE = 1e-12
"""Correlations that differ by less are the same number, rounded."""


@dataclass(frozen=True)
class PermutationTest:
    """Pearson r and how often chance does as well.

    Attributes
    ----------
    r
        Shape (...units).
    p
        Shape (...units), of each unit by itself; not corrected. NaN where r is.
    p_family
        Shape (...units), corrected for all units of the test by the maximum statistic.
    null_maximum
        Shape (n_permutations,), the largest statistic of all units in each permutation. Two tests with the same seed,
        stimuli and number of permutations (two hemispheres, say) are corrected together by
        ``max_statistic_p(r, np.maximum(left.null_maximum, right.null_maximum))``.
    """

    r: Floats
    p: Floats
    p_family: Floats
    null_maximum: Floats

    @property
    def p_false_discovery(self) -> Floats:
        """Shape (...units), `p` corrected by `benjamini_hochberg`."""
        return benjamini_hochberg(self.p)


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


def permutation_test(
    measured: Array,
    predicted: Array,
    n_permutations: int = 1000,
    *,
    alternative: Literal["greater", "two-sided"] = "greater",
    block_length: int = 1,
    groups: Groups | None = None,
    seed: Seed = 0,
    n_threads: int | None = None,
    show_progress: bool | None = None,
) -> PermutationTest:
    r"""Test whether predictions go with the measured responses better than predictions for other stimuli would.

    Under the null hypothesis any stimulus could have evoked any response. The predictions are given to the stimuli in
    another order m times, the same order for all units, and

    .. math:: p = \frac{b + 1}{m + 1}

    with b orders whose r is at least the observed one (Phipson & Smyth 2010, Stat Appl Genet Mol Biol 9:39): never 0,
    and a valid test at every m. Where there are at most `n_permutations` orders in all, each is taken once and the
    test is exact. Missing stimuli of a unit are taken out of each order.

    Parameters
    ----------
    measured, predicted
        Shape (n_stimuli, ...units).
    n_permutations
        The least p is 1 / (n_permutations + 1).
    alternative
        ``"greater"``: predictions go with the responses. ``"two-sided"``: or against them; then \|r\| counts.
    block_length
        Stimuli in a row that are moved together; 1 for independent stimuli.
    groups
        Shape (n_stimuli,), a label for each: near-copies have the same. Groups of one size change their places as a
        whole. Groups that differ in size, also as some of their stimuli are missing, change the sign of what they
        add to r (Hemerik, Goeman & Finos 2020, J R Stat Soc B 82:841), which holds for many groups, and for few if
        responses are symmetric about their mean.
    seed
        Of the orders.
    n_threads
        None: as many as the process has cores.
    show_progress
        None: a bar where standard error is a terminal.

    Returns
    -------
    test
        With p values of shape (...units). Beside input and result, memory takes 8 bytes per permutation and stimulus,
        and per thread about 20 MB and 8 bytes per permutation and unit of a block (515 stimuli and 1,000
        permutations: 30 MB a thread).

    Raises
    ------
    InvalidParameterError
        The shapes differ, there is no permutation, or fewer than two blocks or groups; or both are given.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> signal = rng.standard_normal((50, 1))
    >>> measured = signal + rng.standard_normal((50, 1))
    >>> test = permutation_test(measured, signal, 999)
    >>> test.p
    array([0.001])
    """
    _check_choice("alternative", alternative, ("greater", "two-sided"))
    measured, predicted, tolerance, shape = matrices(measured, predicted)
    n_stimuli, n_units = measured.shape
    exchange = _exchange(n_stimuli, n_permutations, block_length, groups, seed)
    if groups is None:
        _warn_of_neighbours(measured, predicted, block_length)
    r, p, maximum = np.empty(n_units), np.empty(n_units), np.full(exchange.n, -np.inf)

    def block(units: slice) -> tuple[slice, Floats]:
        pair = read_units(measured, units), read_units(predicted, units)
        r[units], p[units], block_maximum = _permute(*pair, exchange, tolerance, alternative == "two-sided")
        return units, block_maximum

    with progress_bar("Permute", n_units, "units", show_progress) as advance:
        for units, block_maximum in _threaded(block, unit_blocks(n_stimuli, n_units, CACHE_BYTES), n_threads):
            np.maximum(maximum, block_maximum, out=maximum)
            advance(units.stop - units.start)
    statistic = np.abs(r) if alternative == "two-sided" else r
    p_family = max_statistic_p(statistic, maximum).reshape(shape)
    return PermutationTest(r.reshape(shape), p.reshape(shape), p_family, maximum)


def max_statistic_p(statistic: Array, null_maximum: Floats) -> Floats:
    r"""P values that hold for a whole family of units: the probability of any false positive is at most p.

    .. math:: p_u = \frac{\#\{k : \max_v T_v^{(k)} \ge T_u\} + 1}{m + 1}

    (Nichols & Holmes 2002, Hum Brain Mapp 15:1).

    Parameters
    ----------
    statistic
        Shape (...units), the observed one: r, or \|r\| for a two-sided test.
    null_maximum
        Shape (n_permutations,), of the largest of all units.

    Returns
    -------
    p
        Shape (...units); NaN where the statistic is.
    """
    observed = read(plain(statistic)[...]).astype(np.float64)
    ordered = np.sort(read(plain(null_maximum)[...]))
    reached = len(ordered) - np.searchsorted(ordered, observed - TIE, side="left")
    return np.where(np.isnan(observed), np.nan, (reached + 1) / (len(ordered) + 1))


def benjamini_hochberg(p: Array) -> Floats:
    r"""P values adjusted so that those below q hold a part of at most q false discoveries.

    .. math:: \tilde p_{(i)} = \min_{j \ge i} \min\left(1, \frac{n}{j} p_{(j)}\right)

    (Benjamini & Hochberg 1995, J R Stat Soc B 57:289), for units that are independent or positively dependent.

    Parameters
    ----------
    p
        Shape (...units), all tests of the family; NaN is no test.

    Returns
    -------
    adjusted
        Shape (...units), NaN where `p` is.

    Raises
    ------
    InvalidParameterError
        A p value below 0 or above 1.

    Examples
    --------
    >>> benjamini_hochberg([0.01, 0.04, 0.03, float("nan")])
    array([0.03, 0.04, 0.04,  nan])
    """
    p = read(plain(p)[...]).astype(np.float64)
    tested = p[~np.isnan(p)]
    if np.any((tested < 0) | (tested > 1)):
        raise InvalidParameterError(
            f"P values lie between {tested.min()} and {tested.max()}; they must be probabilities, from 0 to 1. "
            "Try permutation_test(measured, predicted).p."
        )
    order = np.argsort(tested)
    scaled = tested[order] * len(tested) / np.arange(1, len(tested) + 1)
    adjusted = np.full(p.shape, np.nan)
    values = np.empty(len(tested))
    values[order] = np.minimum(np.minimum.accumulate(scaled[::-1])[::-1], 1.0)
    adjusted[~np.isnan(p)] = values
    return adjusted


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
    _check_choice("metric", metric, METRICS)
    _check_choice("method", method, ("percentile", "bca"))
    _check_level(level)
    measured, predicted, tolerance, shape = matrices(measured, predicted, same_unit=metric == "r2")
    n_stimuli, n_units = measured.shape
    numbers = _numbers(groups, n_stimuli, block_length)
    if groups is None:
        _warn_of_neighbours(measured, predicted, block_length)
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


@dataclass(frozen=True)
class _Exchange:
    """What is done to the predictions, each time the same for all units.

    Attributes
    ----------
    orders
        Shape (n, n_stimuli); None where groups differ in size.
    signs
        Shape (n, n_groups), where there are groups.
    groups
        Shape (n_stimuli,), their numbers.
    """

    orders: Indices | None
    signs: Floats | None = None
    groups: Indices | None = None

    @property
    def n(self) -> int:
        """How often."""
        return len(self.orders if self.orders is not None else self.signs)  # type: ignore[arg-type]

    def null(self, m: Floats, p: Floats, kept: Mask) -> Floats:
        """Correlations of units that have the stimuli `kept`, each time; shape (n, n_units)."""
        if self.groups is not None and self.signs is not None and not self._keeps_whole_groups(kept):
            (terms,) = sums_over_groups([(m * p).T], self.groups)
            return self.signs @ terms.T
        if self.orders is None:
            raise AssertionError("groups of different sizes are never kept whole")
        if kept.all():
            return _null_of_orders(m, p, self.orders)
        return _null_of_orders(m[kept], p[kept], _without(self.orders, kept))

    def _keeps_whole_groups(self, kept: Mask) -> bool:
        if self.orders is None or self.groups is None:
            return False
        n_kept = np.bincount(self.groups, kept)
        return bool(((n_kept == 0) | (n_kept == n_kept.max())).all() and n_kept.max() == np.bincount(self.groups)[0])


def _exchange(n_stimuli: int, n: int, block_length: int, groups: Groups | None, seed: Seed) -> _Exchange:
    numbers = _numbers(groups, n_stimuli, block_length)
    if numbers is None:
        return _Exchange(permuted_orders(n_stimuli, n, block_length, seed))
    sizes = np.bincount(numbers)
    orders = permuted_orders(len(sizes), n, 1, seed)
    if (sizes != sizes[0]).any():
        return _Exchange(None, signs(len(sizes), n, seed), numbers)
    random_signs = np.random.default_rng(seed).choice((-1.0, 1.0), (len(orders), len(sizes)))
    return _Exchange(orders_of_groups(numbers, orders), random_signs, numbers)


def _numbers(groups: Groups | None, n_stimuli: int, block_length: int) -> Indices | None:
    """Those of the groups; None where each stimulus stands alone."""
    if groups is None:
        return None
    if block_length != 1:
        raise InvalidParameterError(f"Both groups and block_length={block_length} were given; take one of them.")
    numbers = group_numbers(groups, n_stimuli)
    n_groups = int(numbers.max()) + 1
    if n_groups < 2:
        raise InvalidParameterError(
            f"All {n_stimuli:,} stimuli are in one group: there is one independent sample, which no test and no "
            "interval can be had from. Measure stimuli of other groups too."
        )
    if n_groups < FEW:
        warnings.warn(
            f"{n_stimuli:,} stimuli are in {n_groups} groups, fewer than {FEW}: tests and intervals rest on as few "
            "independent samples.",
            SamplesWarning,
            stacklevel=4,
        )
    return None if n_groups == n_stimuli else numbers


def _warn_of_neighbours(measured: Array, predicted: Array, block_length: int) -> None:
    from berg.statistics.in_time import warn_of_neighbours

    warn_of_neighbours(measured, predicted, block_length)


def permuted_orders(n_stimuli: int, n_permutations: int, block_length: int = 1, seed: Seed = 0) -> Indices:
    """Orders of stimuli other than the given one: all there are, or that many random ones.

    Returns
    -------
    orders
        Shape (n_permutations or fewer, n_stimuli), places from 0. Random ones may repeat, and may be the given one.
    """
    blocks = _stretches(n_stimuli, block_length)
    if n_permutations < 1 or len(blocks) < 2:
        raise InvalidParameterError(
            f"{n_permutations} permutations of {n_stimuli} stimuli in blocks of {block_length}: at least one "
            "permutation and two blocks are needed. Try n_permutations=1000, block_length=1."
        )
    if len(blocks) <= 20 and math.factorial(len(blocks)) - 1 <= n_permutations:
        places: Iterable[Iterable[int]] = list(itertools.permutations(range(len(blocks))))[1:]
    else:
        rng = np.random.default_rng(seed)
        places = rng.permuted(np.tile(np.arange(len(blocks)), (n_permutations, 1)), axis=1)
        if block_length == 1:
            return np.asarray(places, dtype=np.intp)
    return np.array([np.concatenate([blocks[i] for i in order]) for order in places], dtype=np.intp)


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


def _stretches(n_stimuli: int, block_length: int) -> list[Indices]:
    """Neighbouring stimuli that are moved together; the last stretch may be shorter."""
    if block_length < 1:
        raise InvalidParameterError(f"block_length is {block_length}; it must be at least 1. Try block_length=1.")
    return [np.arange(start, min(start + block_length, n_stimuli)) for start in range(0, n_stimuli, block_length)]


def _threaded(function: Callable[[slice], T], blocks: Iterable[slice], n_threads: int | None) -> Iterable[T]:
    """Results in the order of the blocks; NumPy lets go of Python's lock in what takes long here."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with ThreadPoolExecutor(n_threads or cores) as pool:
        yield from pool.map(function, blocks)


def _permute(
    measured: Floats, predicted: Floats, exchange: _Exchange, tolerance: tuple[float, float], two_sided: bool
) -> tuple[Floats, Floats, Floats]:
    """R, p, and the largest null statistic in each order, of one block of units."""
    m, p = standardised_pair(measured, predicted, tolerance)
    observed = np.clip(np.einsum("su,su->u", m, p), -1.0, 1.0)
    null = np.empty((exchange.n, m.shape[1]))
    for kept, units in by_pattern(~np.isnan(measured)):
        null[:, units] = exchange.null(m[:, units], p[:, units], kept)
    null[:, np.isnan(observed)] = np.nan  # also where nothing at all was measured
    statistic = np.abs(observed) if two_sided else observed
    null = np.abs(null, out=null) if two_sided else null
    reached = (null >= statistic - TIE).sum(axis=0)
    p_values = np.where(np.isnan(observed), np.nan, (reached + 1) / (exchange.n + 1))
    largest = np.where(np.isnan(null), -np.inf, null).max(axis=1)
    return observed, p_values, largest


def by_pattern(present: Mask) -> Iterable[tuple[Mask, Indices | slice]]:
    """Units that miss the same stimuli, together: which stimuli they have, and which units they are."""
    if present.all():
        return [(present[:, 0], slice(None))]
    patterns, which = np.unique(present, axis=1, return_inverse=True)
    return [(patterns[:, i], np.flatnonzero(which == i)) for i in range(patterns.shape[1])]


def _null_of_orders(m: Floats, p: Floats, orders: Indices) -> Floats:
    """Correlations in all orders; shape (n_orders, n_units)."""
    p, moved = np.ascontiguousarray(p), np.empty(m.shape)
    r = np.empty((len(orders), m.shape[1]))
    for i, order in enumerate(orders):
        np.take(p, order, axis=0, out=moved, mode="clip")
        np.einsum("su,su->u", moved, m, out=r[i])
    return r


def _without(orders: Indices, kept: Mask) -> Indices:
    """The same orders, of the stimuli that are kept, counted anew."""
    place = np.cumsum(kept) - 1
    own: Indices = place[orders[kept[orders]]].reshape(len(orders), -1)
    return own


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


def _check_choice(name: str, given: str, allowed: Iterable[str]) -> None:
    if given not in allowed:
        raise InvalidParameterError(f"{name}={given!r} is not known. Allowed: {', '.join(map(repr, allowed))}.")


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise InvalidParameterError(f"level is {level}; it must lie between 0 and 1. Try level=0.95.")
