r"""How many independent samples a correlation along time is worth.

Neighbouring samples say nearly the same, so that n samples are worth fewer independent ones. If two series are
independent, the variance of their correlation is 1 / (effective number), with

.. math:: n_\mathrm{eff} = n / \sum_k \rho_m(k) \, \rho_p(k)

and the autocorrelations :math:`\rho` of both at all lags k (Bartlett 1935, J R Stat Soc 98:536). They are taken from
autoregressive models (Burg's method), whose order is chosen for each series by Akaike's criterion.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import scipy.fft

from berg.core.stacklevel import users_stacklevel
from berg.statistics.array_kinds import REPEATS, STIMULI, Array, plain
from berg.statistics.groups import SamplesWarning
from berg.statistics.metrics import matrices, nan_mean, standardised_pair
from berg.statistics.unit_blocks import Floats, as_units, check_repeats, read_units, rounding, unit_blocks

N_FREQUENCIES = 2048  # frequencies of the whole circle, at least
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
    return per_unit(lambda m, p, tolerance: effective_number(m, p, tolerance, related=False), measured, predicted)


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
    for units in unit_blocks(n_repeats * max(n_samples, N_FREQUENCIES), n_units):
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
    n_effective = effective_number(*pair, (0.0, 0.0), related=False)
    present = n_effective[~np.isnan(n_effective)]
    ratio = n_samples / np.median(present) if present.size else 1.0
    if ratio > 2 and block_length < 3 * ratio:
        warnings.warn(
            f"Neighbouring stimuli are alike in measured and predicted responses: {n_samples:,} are worth "
            f"{n_samples / ratio:,.0f} independent ones. If they follow each other in time, take shift_test and "
            "interval_in_time; if they are near-copies, give groups=...; if each stands alone and they are only "
            "sorted, nothing is wrong.",
            SamplesWarning,
            stacklevel=users_stacklevel(),
        )


def per_unit(
    block: Callable[[Floats, Floats, tuple[float, float]], Floats],
    measured: Array,
    predicted: Array,
    n_results: int = 0,
) -> Floats:
    measured, predicted, tolerance, shape = matrices(measured, predicted)
    n_samples, n_units = measured.shape
    leading = (n_results,) if n_results else ()
    found = np.empty((*leading, n_units))
    for units in unit_blocks(max(n_samples, N_FREQUENCIES), n_units):
        found[..., units] = block(read_units(measured, units), read_units(predicted, units), tolerance)
    return found.reshape(*leading, *shape)


def effective_number(measured: Floats, predicted: Floats, tolerance: tuple[float, float], related: bool) -> Floats:
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
    n_grid = max(N_FREQUENCIES, 2 ** int(np.ceil(np.log2(len(series)))))
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
