r"""How well predicted responses agree with measured ones, per unit.

Arrays have stimuli on the first axis and units on all others, which come back as they are: ``(n_stimuli, n_vertices)``
gives ``(n_vertices,)``, ``(n_stimuli, n_channels, n_times)`` gives ``(n_channels, n_times)``. They may lie on disk
(memory map, HDF5, zarr); units are read in blocks, and beside input and result at most 200 MB are used.

A measured NaN is missing: its stimulus is left out for that unit. A predicted NaN where something was measured makes
the unit's result NaN, and so does a unit that does not vary, or an infinite value. Sums are taken in float64.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from berg.core.exceptions import InvalidParameterError
from berg.statistics.array_kinds import REPEATS, STIMULI, Array, plain, plain_pair, plain_repeats, read
from berg.statistics.unit_blocks import (
    Floats,
    Mask,
    as_units,
    check_paired,
    check_repeats,
    read_units,
    rounding,
    unit_blocks,
)


def pearson_r(measured: Array, predicted: Array) -> Floats:
    r"""Correlate measured and predicted responses over stimuli.

    .. math::
        r = \frac{\sum_s (m_s - \bar m)(p_s - \bar p)}
                 {\sqrt{\sum_s (m_s - \bar m)^2} \sqrt{\sum_s (p_s - \bar p)^2}}

    Blind to the mean and the scale of the prediction.

    Parameters
    ----------
    measured, predicted
        Shape (n_stimuli, ...units), in any unit.

    Returns
    -------
    r
        Shape (...units), in [-1, 1]; NaN where a unit does not vary.

    Raises
    ------
    InvalidParameterError
        The shapes differ, or there are fewer than two stimuli.

    Examples
    --------
    >>> measured = [[1.0, 1.0], [2.0, 3.0], [3.0, 2.0]]
    >>> predicted = [[2.0, 1.0], [4.0, 2.0], [6.0, 3.0]]
    >>> pearson_r(measured, predicted)
    array([1. , 0.5])
    """
    return _per_unit(correlation, measured, predicted)


def r2_score(measured: Array, predicted: Array) -> Floats:
    r"""Coefficient of determination: the part of the measured variance that the prediction explains.

    .. math:: r2 = 1 - \frac{\sum_s (m_s - p_s)^2}{\sum_s (m_s - \bar m)^2}

    Not the square of `pearson_r`, but at most that: a prediction with the wrong mean or scale is worse here, and one
    that is worse than the mean of the measured responses is negative.

    Parameters
    ----------
    measured, predicted
        Shape (n_stimuli, ...units), both in the same unit.

    Returns
    -------
    r2
        Shape (...units), at most 1; NaN where the measured responses do not vary.

    Examples
    --------
    >>> r2_score([[1.0], [2.0], [3.0]], [[2.0], [2.0], [2.0]])
    array([0.])
    """
    return _per_unit(_block_r2, measured, predicted, same_unit=True)


def noise_normalised(accuracy: Array, ceiling: Array, min_ceiling: Array = 0.3) -> Floats:
    """Accuracy as a part of what a perfect model could reach: ``accuracy / ceiling``.

    If hardly any signal was measured, both are chance, and so is their ratio; such units become NaN and are never
    "100 % explained". Nothing is cut off at 1: a ratio above it says that the ceiling was estimated too low, and
    cutting it would only hide that and bias a mean over units.

    Parameters
    ----------
    accuracy
        Shape (...units); `pearson_r` against the mean over repeats.
    ceiling
        Shape (...units), in the same measure: as it comes from `ncsnr_ceiling` or `split_half_ceiling` for
        `pearson_r`, its square for `r2_score`.
    min_ceiling
        Units with a lower ceiling than this become NaN. `chance_ceiling` says what noise alone reaches with the
        numbers of stimuli and repeats at hand (squared for `r2_score`); a number or shape (...units).

    Returns
    -------
    normalised
        Shape (...units); NaN where the ceiling is below `min_ceiling` or NaN.

    Raises
    ------
    InvalidParameterError
        A threshold that is not above 0.

    Examples
    --------
    >>> noise_normalised([0.4, 0.09, -0.01], ceiling=[0.8, 0.1, 0.0])
    array([0.5, nan, nan])
    """
    accuracy, ceiling = plain_pair(accuracy, ceiling, ())
    least = np.asarray(plain(min_ceiling), dtype=np.float64)
    if not np.all((least > 0) | (np.isnan(least) & (least.ndim > 0))):
        raise InvalidParameterError(
            f"min_ceiling is {min_ceiling}; it must be above 0, as 0 / 0 is no accuracy. "
            "Try min_ceiling=chance_ceiling(n_stimuli, n_repeats)."
        )
    top, bottom = (read(array[...]).astype(np.float64) for array in (accuracy, ceiling))
    return np.where(bottom >= least, top / np.where(bottom >= least, bottom, 1.0), np.nan)


def mean_over_repeats(repeats: Array) -> Floats:
    """Average what was measured, leaving out what is missing.

    Parameters
    ----------
    repeats
        Shape (n_repeats, n_stimuli, ...units); NaN where a stimulus has fewer repeats.

    Returns
    -------
    mean
        Shape (n_stimuli, ...units), float64; NaN where nothing was measured.
    """
    repeats = plain(repeats, (REPEATS, STIMULI))
    check_repeats(repeats, least=1)
    shape, repeats = np.shape(repeats)[1:], as_units(repeats, n_leading=2)
    mean = np.empty(np.shape(repeats)[1:])
    for units in unit_blocks(repeats.shape[0] * repeats.shape[1], repeats.shape[-1]):
        mean[:, units] = nan_mean(read_units(repeats, units))
    return mean.reshape(shape)


def over_repeats(
    measured: Array,
    predicted: Array,
    metric: Callable[[Array, Array], Floats] = pearson_r,
    against: Literal["mean", "each"] = "mean",
) -> Floats:
    """Compare predictions with repeated measurements.

    A model predicts the expected response, so that measured repeats are one sample after another of the same
    prediction. Repeats that a model predicts (the published EEG models have one readout per repeat) stand for no
    particular measured repeat, and are averaged first.

    Parameters
    ----------
    measured
        Shape (n_repeats, n_stimuli, ...units); NaN where a stimulus has fewer repeats.
    predicted
        Shape (n_stimuli, ...units), or (n_predicted_repeats, n_stimuli, ...units).
    metric
        `pearson_r` or `r2_score`.
    against
        ``"mean"``: of the measured repeats; its ceiling is `ncsnr_ceiling` or `split_half_ceiling`.
        ``"each"``: repeat by repeat, averaged then; it lies lower, and its ceiling between the bounds of
        `leave_one_repeat_out`.

    Returns
    -------
    accuracy
        Shape (...units).
    """
    measured, predicted = plain_repeats(measured, predicted)
    check_repeats(measured, least=1)
    if against not in ("mean", "each"):
        raise InvalidParameterError(f"against={against!r} is not known. Try against='mean' or against='each'.")
    shape, n_leading = measured.shape[2:], 2 if predicted.ndim == measured.ndim else 1
    measured, predicted = as_units(measured, 2), as_units(predicted, n_leading)
    result = np.empty(measured.shape[-1])
    for units in unit_blocks(measured.shape[0] * measured.shape[1], measured.shape[-1]):
        sample, prediction = read_units(measured, units), read_units(predicted, units)
        prediction = nan_mean(prediction) if n_leading == 2 else prediction
        samples = [nan_mean(sample)] if against == "mean" else sample
        result[units] = nan_mean(np.stack([metric(one, prediction) for one in samples]))
    return result.reshape(shape)


def nan_mean(array: Floats) -> Floats:
    """Mean over the first axis of what is not NaN; NaN, without a warning, where nothing is left."""
    present = ~np.isnan(array)
    count = present.sum(axis=0)
    with np.errstate(invalid="ignore"):  # infinite values of both signs
        total = np.where(present, array, 0.0).sum(axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def centred(x: Floats, present: Mask, tolerance: float) -> tuple[Floats, Floats]:
    """Subtract each unit's mean over what is present.

    Returns
    -------
    deviations
        Shape (n_stimuli, n_units), 0 where missing.
    squares
        Shape (n_units,), their sum of squares; NaN where the unit does not vary by more than rounding.
    """
    complete = bool(present.all())
    count = np.maximum(present.sum(axis=0), 1)
    mean = (x if complete else np.where(present, x, 0.0)).sum(axis=0) / count
    deviations = x - mean
    if not complete:
        deviations[~present] = 0.0
    squares = np.einsum("su,su->u", deviations, deviations)
    varies = squares > (tolerance * mean) ** 2 * count
    return deviations, np.where(varies, squares, np.nan)


def standardised_pair(measured: Floats, predicted: Floats, tolerance: tuple[float, float]) -> tuple[Floats, Floats]:
    """Both centred and of length 1 per unit, 0 where the measurement is missing: their product sums up to r."""
    present = ~np.isnan(measured)
    with np.errstate(invalid="ignore", over="ignore"):  # infinite values
        return _unit_length(measured, present, tolerance[0]), _unit_length(predicted, present, tolerance[1])


def _unit_length(x: Floats, present: Mask, tolerance: float) -> Floats:
    deviations, squares = centred(x, present, tolerance)
    deviations /= np.sqrt(squares)
    return deviations


def correlation(measured: Floats, predicted: Floats, tolerance: tuple[float, float]) -> Floats:
    """Pearson r of one block; shapes (n_stimuli, n_units) to (n_units,)."""
    m, p = standardised_pair(measured, predicted, tolerance)
    r: Floats = np.clip(np.einsum("su,su->u", m, p), -1.0, 1.0)
    return r


def _block_r2(measured: Floats, predicted: Floats, tolerance: tuple[float, float]) -> Floats:
    present = ~np.isnan(measured)
    with np.errstate(invalid="ignore", over="ignore"):
        _, squares = centred(measured, present, tolerance[0])
        residual = np.where(present, measured - predicted, 0.0)
        r2: Floats = 1 - np.einsum("su,su->u", residual, residual) / squares
    return r2


def _per_unit(block: Callable[..., Floats], measured: Array, predicted: Array, same_unit: bool = False) -> Floats:
    measured, predicted, tolerance, shape = matrices(measured, predicted, same_unit)
    result = np.empty(measured.shape[1])
    for units in unit_blocks(*measured.shape):
        result[units] = block(read_units(measured, units), read_units(predicted, units), tolerance)
    return result.reshape(shape)


def matrices(
    measured: Array, predicted: Array, same_unit: bool = False
) -> tuple[Any, Any, tuple[float, float], tuple[int, ...]]:
    """Both as (n_stimuli, n_units), what counts as rounding in each, and the shape of the units."""
    measured, predicted = plain_pair(measured, predicted, same_unit=same_unit)
    check_paired(measured, predicted)
    tolerance = rounding(measured), rounding(predicted)
    return as_units(measured), as_units(predicted), tolerance, np.shape(measured)[1:]
