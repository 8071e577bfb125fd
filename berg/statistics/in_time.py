r"""Accuracy along time: tests and intervals for samples that follow each other in one recording.

Both count by the effective number of samples of `berg.statistics.autocorrelation`. Arrays are as in
`berg.statistics.metrics`, with samples in time, evenly spaced, on the first axis.
"""

from __future__ import annotations

import warnings
from typing import Literal

import numpy as np
import scipy.fft
from scipy.special import stdtr, stdtrit

from berg.core.stacklevel import users_stacklevel
from berg.statistics.array_kinds import Array
from berg.statistics.autocorrelation import N_FREQUENCIES, effective_number, per_unit
from berg.statistics.bootstrap import Interval
from berg.statistics.groups import FEW, SamplesWarning
from berg.statistics.metrics import correlation, matrices, standardised_pair
from berg.statistics.options import check_choice, check_level
from berg.statistics.p_values import TIE, PermutationTest, max_statistic_p
from berg.statistics.unit_blocks import Floats, by_pattern, read_units, unit_blocks
from berg.system.progress import progress_bar


def shift_test(
    measured: Array,
    predicted: Array,
    *,
    alternative: Literal["greater", "two-sided"] = "greater",
    show_progress: bool | None = None,
) -> PermutationTest:
    r"""Test whether predictions go with the measured responses better than the same predictions at other times.

    The predictions are shifted against the responses by 1 to n - 1 samples, what leaves at the end coming back at the
    beginning; p is the part of all n shifts whose r is at least the observed one. A shift leaves each series
    as smooth as it is, so that nothing need be known of how long they are correlated. The least p is 1 / n.

    A unit of fewer than 20 effective samples has too few shifts that differ. Its p is at least that of a t test with as
    many samples, and a `SamplesWarning` tells.

    Parameters
    ----------
    measured, predicted
        Shape (n_samples, ...units). Missing samples of a unit are left out, and the others shifted.
    alternative
        As in `permutation_test`.

    Returns
    -------
    test
        With a `null_maximum` of shape (n_samples - 1,).

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> signal = np.convolve(rng.standard_normal(509), np.ones(10), "valid")[:, None]
    >>> shift_test(signal + rng.standard_normal((500, 1)), signal).p
    array([0.002])
    """
    check_choice("alternative", alternative, ("greater", "two-sided"))
    measured, predicted, tolerance, shape = matrices(measured, predicted)
    n_samples, n_units = measured.shape
    two_sided = alternative == "two-sided"
    r, p, n_effective = np.empty((3, n_units))
    maximum = np.full(n_samples - 1, -np.inf)
    with progress_bar("Shift", n_units, "units", show_progress) as advance:
        for units in unit_blocks(max(n_samples, N_FREQUENCIES), n_units):
            pair = read_units(measured, units), read_units(predicted, units)
            r[units], p[units], largest = _shifted(*pair, tolerance, two_sided)
            n_effective[units] = effective_number(*pair, tolerance, related=False)
            np.maximum(maximum, largest, out=maximum)
            advance(units.stop - units.start)
    p_family = max_statistic_p(np.abs(r) if two_sided else r, maximum)
    few = n_effective < FEW
    safe = np.where(few, _t_test(r, n_effective, two_sided), 0.0)
    _warn_of_few(n_effective, n_samples, "their p values are those of a t test where that is larger")
    p, p_family = np.fmax(p, safe) + 0 * r, np.fmax(p_family, safe) + 0 * r
    return PermutationTest(r.reshape(shape), p.reshape(shape), p_family.reshape(shape), maximum)


def interval_in_time(measured: Array, predicted: Array, level: float = 0.95) -> Interval:
    r"""Confidence interval of r over samples in time, by Fisher's z with the effective number of samples.

    .. math::
        \tanh\left(\operatorname{artanh} r \pm t_{n' - 2} / \sqrt{n' - 3}\right)

    The effective number n' takes into account what measured and predicted responses have in common: with u and v their
    sum and difference (both in units of their standard deviation), which do not correlate at the same time,

    .. math::
        \frac{n}{n'} = \sum_k \frac{\rho_u(k)^2 + \rho_v(k)^2}{2} - \rho_{uv}(k)^2

    for normal series (Bartlett 1946, J R Stat Soc Suppl 8:27); it is taken for no larger than `effective_samples`. A
    `SamplesWarning` tells where it is below 20.

    Parameters
    ----------
    measured, predicted
        Shape (n_samples, ...units).
    level
        Part of such intervals that hold the true value.

    Returns
    -------
    interval
        Each of shape (...units).
    """
    check_level(level)
    n_samples = 0

    def block(m: Floats, p: Floats, tolerance: tuple[float, float]) -> Floats:
        nonlocal n_samples
        n_samples = len(m)
        n_effective = effective_number(m, p, tolerance, related=True)
        return np.stack([correlation(m, p, tolerance), n_effective])

    r, n_effective = per_unit(block, measured, predicted, n_results=2)
    _warn_of_few(n_effective, n_samples, "their intervals are wide, and a guess")
    enough = np.maximum(n_effective, 3.5)
    with np.errstate(divide="ignore"):
        width = stdtrit(enough - 2, (1 + level) / 2) / np.sqrt(enough - 3)
        low, high = (np.tanh(np.arctanh(r) + side * width) for side in (-1, 1))
    return Interval(r, low, high)


def _shifted(m: Floats, p: Floats, tolerance: tuple[float, float], two_sided: bool) -> tuple[Floats, Floats, Floats]:
    """R, p, and the largest null statistic at each shift, of one block of units."""
    present = ~np.isnan(m)
    m, p = standardised_pair(m, p, tolerance)
    r = np.clip(np.einsum("su,su->u", m, p), -1.0, 1.0)
    p_values, largest = np.full(len(r), np.nan), np.full(len(m) - 1, -np.inf)
    observed = np.abs(r) if two_sided else r
    for kept, units in by_pattern(present):
        n_kept = int(kept.sum())
        if n_kept < 2:
            continue
        null = _at_all_shifts(m[kept][:, units], p[kept][:, units])
        null = np.abs(null) if two_sided else null
        reached = (null >= observed[units] - TIE).sum(axis=0)
        p_values[units] = (reached + 1) / n_kept
        shifts = np.clip(np.round(np.arange(1, len(m)) * n_kept / len(m)).astype(int), 1, n_kept - 1)
        own = np.where(np.isnan(null), -np.inf, null).max(axis=1, initial=-np.inf)
        np.maximum(largest, own[shifts - 1], out=largest)
    return r, np.where(np.isnan(r), np.nan, p_values), largest


def _at_all_shifts(m: Floats, p: Floats) -> Floats:
    """Their products summed at the shifts 1 to n - 1; shape (n - 1, n_units)."""
    product = scipy.fft.rfft(m, axis=0).conj() * scipy.fft.rfft(p, axis=0)
    found: Floats = scipy.fft.irfft(product, len(m), axis=0)[1:]
    return found


def _t_test(r: Floats, n_effective: Floats, two_sided: bool) -> Floats:
    freedom = np.maximum(n_effective - 2, 0.1)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = r * np.sqrt(freedom / (1 - r**2))
        p: Floats = 2 * stdtr(freedom, -np.abs(t)) if two_sided else stdtr(freedom, -t)
    return np.nan_to_num(p, nan=0.0)


def _warn_of_few(n_effective: Floats, n_samples: int, what: str) -> None:
    few = n_effective[n_effective < FEW]
    if few.size:
        warnings.warn(
            f"{few.size:,} of {n_effective.size:,} units have fewer than {FEW} effective samples in time (the least "
            f"{few.min():.1f} of {n_samples:,} samples): {what}. Record longer, or more stimuli.",
            SamplesWarning,
            stacklevel=users_stacklevel(),
        )
