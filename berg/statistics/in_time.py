r"""Accuracy along time: tests and intervals for samples that follow each other in one recording.

Neighbouring samples say nearly the same, so that n samples are worth fewer independent ones. If two series are
independent, the variance of their correlation is 1 / (effective number), with

.. math:: n_\mathrm{eff} = n \Big/ \sum_k \rho_m(k) \, \rho_p(k)

and the autocorrelations :math:`\rho` of both at all lags k (Bartlett 1935, J R Stat Soc 98:536). They are taken from
autoregressive models (Burg's method), whose order is chosen for each series by Akaike's criterion.

Arrays are as in `berg.statistics.metrics`, with samples in time, evenly spaced, on the first axis.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Literal

import numpy as np
import scipy.fft
from scipy.special import stdtr, stdtrit

from berg.core.exceptions import InvalidParameterError
from berg.statistics.array_kinds import REPEATS, STIMULI, Array, plain
from berg.statistics.groups import FEW, SamplesWarning
from berg.statistics.metrics import correlation, matrices, nan_mean, standardised_pair
from berg.statistics.resampling import TIE, Interval, PermutationTest, by_pattern, max_statistic_p
from berg.statistics.unit_blocks import (
    Floats,
    as_units,
    check_repeats,
    read_units,
    rounding,
    unit_blocks,
)
from berg.system.progress import progress_bar

_GRID = 2048  # frequencies of the whole circle, at least
_LEAST = 2.0  # effective samples: fewer are no series


def effective_samples(measured: Array, predicted: Array) -> Floats:
    """How many independent samples a correlation of two series is worth, if nothing connects them.

    Parameters
    ----------
    measured, predicted
        Shape (n_samples, ...units).

    Returns
    -------
    n_effective
        Shape (...units), from 2 to n_samples; NaN where a unit does not vary.

    Examples
    --------
    >>> steps = np.random.default_rng(0).standard_normal((2, 1000, 1))
    >>> bool(effective_samples(*steps)[0] > 900)
    True
    >>> smooth = (steps[:, 9:] + sum(steps[:, 9 - lag : -lag] for lag in range(1, 10)))  # means over 10 samples
    >>> bool(100 < effective_samples(*smooth)[0] < 200)
    True
    """
    return _per_unit(lambda m, p, tolerance: _effective(m, p, tolerance, related=False), measured, predicted)


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
    if alternative not in ("greater", "two-sided"):
        raise InvalidParameterError(f"alternative={alternative!r} is not known. Allowed: 'greater', 'two-sided'.")
    measured, predicted, tolerance, shape = matrices(measured, predicted)
    n_samples, n_units = measured.shape
    two_sided = alternative == "two-sided"
    r, p, n_effective = np.empty((3, n_units))
    maximum = np.full(n_samples - 1, -np.inf)
    with progress_bar("Shift", n_units, "units", show_progress) as advance:
        for units in unit_blocks(max(n_samples, _GRID), n_units):
            pair = read_units(measured, units), read_units(predicted, units)
            r[units], p[units], largest = _shifted(*pair, tolerance, two_sided)
            n_effective[units] = _effective(*pair, tolerance, related=False)
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
        \tanh\left(\operatorname{artanh} r \pm t_{n' - 2} \Big/ \sqrt{n' - 3}\right)

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
    if not 0 < level < 1:
        raise InvalidParameterError(f"level is {level}; it must lie between 0 and 1. Try level=0.95.")
    n_samples = 0

    def block(m: Floats, p: Floats, tolerance: tuple[float, float]) -> Floats:
        nonlocal n_samples
        n_samples = len(m)
        n_effective = _effective(m, p, tolerance, related=True)
        return np.stack([correlation(m, p, tolerance), n_effective])

    r, n_effective = _per_unit(block, measured, predicted, n_results=2)
    _warn_of_few(n_effective, n_samples, "their intervals are wide, and a guess")
    enough = np.maximum(n_effective, 3.5)
    with np.errstate(divide="ignore"):
        width = stdtrit(enough - 2, (1 + level) / 2) / np.sqrt(enough - 3)
        low, high = (np.tanh(np.arctanh(r) + side * width) for side in (-1, 1))
    return Interval(r, low, high)


def noise_effective_samples(repeats: Array) -> Floats:
    """How many independent samples the noise of repeated recordings is worth; for `chance_ceiling`.

    Parameters
    ----------
    repeats
        Shape (n_repeats, n_samples, ...units).

    Returns
    -------
    n_effective
        Shape (...units), from 2 to n_samples; NaN where repeats do not differ.
    """
    numbers = plain(repeats, (REPEATS, STIMULI))
    check_repeats(numbers, least=2)
    shape, tolerance, numbers = np.shape(numbers)[2:], rounding(numbers), as_units(numbers, 2)
    n_repeats, n_samples, n_units = numbers.shape
    found = np.empty(n_units)
    for units in unit_blocks(n_repeats * max(n_samples, _GRID), n_units):
        values = read_units(numbers, units)
        noise = np.where(np.isnan(values), 0.0, values - nan_mean(values))
        small = np.sqrt(np.square(noise).mean((0, 1))) <= tolerance * np.abs(nan_mean(nan_mean(values)))
        spectrum = np.mean([_spectrum(each) for each in noise], axis=0)
        found[units] = np.where(small, np.nan, _clipped(n_samples / _mean(spectrum**2), n_samples))
    return found.reshape(shape)


def warn_of_neighbours(measured: Array, predicted: Array, block_length: int) -> None:
    """Warn if stimuli that are taken as independent look like samples in time, judged by some of the units."""
    n_samples = measured.shape[0]
    if n_samples < 50:
        return
    units = slice(0, max(16, min(256, 10**6 // n_samples)))
    pair = read_units(measured, units), read_units(predicted, units)
    n_effective = _effective(*pair, (0.0, 0.0), related=False)
    present = n_effective[~np.isnan(n_effective)]
    ratio = n_samples / np.median(present) if present.size else 1.0
    if ratio > 2 and block_length < 3 * ratio:
        warnings.warn(
            f"Neighbouring stimuli are alike in measured and predicted responses: {n_samples:,} are worth "
            f"{n_samples / ratio:,.0f} independent ones. If they follow each other in time, take shift_test and "
            "interval_in_time; if they are near-copies, give groups=...; if each stands alone and they are only "
            "sorted, nothing is wrong.",
            SamplesWarning,
            stacklevel=3,
        )


def _per_unit(
    block: Callable[[Floats, Floats, tuple[float, float]], Floats],
    measured: Array,
    predicted: Array,
    n_results: int = 0,
) -> Floats:
    measured, predicted, tolerance, shape = matrices(measured, predicted)
    n_samples, n_units = measured.shape
    leading = (n_results,) if n_results else ()
    found = np.empty((*leading, n_units))
    for units in unit_blocks(max(n_samples, _GRID), n_units):
        found[..., units] = block(read_units(measured, units), read_units(predicted, units), tolerance)
    return found.reshape(*leading, *shape)


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
            stacklevel=3,
        )


def _effective(measured: Floats, predicted: Floats, tolerance: tuple[float, float], related: bool) -> Floats:
    """Of one block; `related`: of an interval around r, where series have something in common."""
    n_samples = np.maximum((~np.isnan(measured)).sum(axis=0), 1)
    m, p = standardised_pair(measured, predicted, tolerance)
    spectra = _spectrum(m), _spectrum(p)
    inflation = _mean(spectra[0] * spectra[1])
    if related:
        r = np.clip(np.einsum("su,su->u", m, p), -1.0, 1.0)
        together, apart = _spectrum(m + p), _spectrum(m - p)
        crossed = (spectra[0] - spectra[1]) ** 2 / 4
        with np.errstate(divide="ignore", invalid="ignore"):
            in_common = _mean((together**2 + apart**2) / 2 - crossed / (1 - r**2))
        inflation = np.fmax(inflation, in_common)
    return _clipped(n_samples / inflation, n_samples)


def _clipped(n_effective: Floats, n_samples: int | Floats) -> Floats:
    with np.errstate(invalid="ignore"):
        return np.clip(n_effective, _LEAST, n_samples)


def _spectrum(series: Floats) -> Floats:
    """The power spectrum of each unit's autoregressive model, with mean 1 over the circle; half of it.

    Shape (n_samples, n_units), of mean 0, to (n_frequencies, n_units); NaN where a unit does not vary.
    """
    n_grid = max(_GRID, 2 ** int(np.ceil(np.log2(len(series)))))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        response = scipy.fft.rfft(_autoregression(series), n_grid, axis=0)
        power = 1 / np.square(np.abs(response))
        spectrum: Floats = power / _mean(power)
    return spectrum


def _mean(half: Floats) -> Floats:
    """Over the whole circle, of what is symmetric."""
    total: Floats = (2 * half.sum(axis=0) - half[0] - half[-1]) / (2 * (len(half) - 1))
    return total


def _autoregression(series: Floats) -> Floats:
    """Filters that leave of each unit what its past does not tell, by Burg's method; shape (1 + order, n_units).

    The order is that of the smallest n log(variance) + 2 (order), up to 10 log10(n) and a fifth of the samples.
    """
    n_samples, n_units = series.shape
    largest = max(1, min(n_samples // 5, int(10 * np.log10(n_samples))))
    forward, backward = series, series
    weights = np.zeros((largest + 1, n_units))
    weights[0] = 1.0
    log_variance, least, chosen = np.zeros(n_units), np.zeros(n_units), weights.copy()
    for order in range(1, largest + 1):
        ahead, behind = forward[1:], backward[:-1]
        both = np.einsum("su,su->u", ahead, ahead) + np.einsum("su,su->u", behind, behind)
        reflection = np.clip(2 * np.einsum("su,su->u", ahead, behind) / both, -1 + 1e-9, 1 - 1e-9)
        weights[1 : order + 1] -= reflection * weights[order - 1 :: -1][:order]
        forward, backward = ahead - reflection * behind, behind - reflection * ahead
        log_variance += np.log1p(-(reflection**2))
        criterion = n_samples * log_variance + 2 * order
        better = criterion < least
        least, chosen = np.where(better, criterion, least), np.where(better, weights, chosen)
    return np.where(np.isnan(series).any(axis=0) | (series == 0).all(axis=0), np.nan, chosen)
