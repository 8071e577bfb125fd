"""Means over the units of each region."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from berg.core.exceptions import InvalidParameterError, listing
from berg.responses.labelled import Labelled, outputs_of
from berg.responses.regions import BETWEEN, ROI

ACCURACIES = ("r", "correlation", "correlation_nsdcore", "held_out_r", "correlation_nsdsynthetic")
"""Names of a Pearson correlation on data that the fit has not seen; the first that is there counts."""
CEILING = "noise_ceiling"
CeilingUnit = Literal["r", "r2", "percent"]
_SIDES = ("L_", "R_")  # before the names of areas of one hemisphere
_AT_ONCE = 64  # stimuli in memory at once

Membership = dict[str, NDArray[np.bool_]]


@dataclass(frozen=True)
class RegionMeans:
    """Per region: responses to each stimulus, units, and how well they are predicted.

    Attributes
    ----------
    responses
        Shape (n_stimuli, n_regions); NaN where no unit of a region has a response.
    n_units
        Shape (n_regions,).
    accuracy, ceiling
        Shape (n_regions,), Pearson correlations; None if the labels do not have them. The ceiling is None too if its
        unit is unknown, and `ceiling_is_unknown` is true then.
    """

    names: list[str]
    responses: NDArray[np.float64]
    n_units: NDArray[np.intp]
    accuracy: NDArray[np.float64] | None
    ceiling: NDArray[np.float64] | None
    ceiling_is_unknown: bool


def region_means(labelled: Labelled, ceiling_unit: CeilingUnit | None = None) -> RegionMeans:
    """Means over the units of each region, of all outputs together (both hemispheres).

    Regions come in the order in which the units name them. A unit in several regions counts in each; L_V1 and R_V1 are
    left out beside V1, which is both.

    Parameters
    ----------
    ceiling_unit
        What the label ``noise_ceiling`` is in, if its attribute ``units`` does not say so: a correlation, its square,
        or its square in per cent (NSD).

    Raises
    ------
    InvalidParameterError
        If no unit has a region, or the responses have other axes than stimuli and units.
    """
    arrays = {name: _with_regions(name, array) for name, array in outputs_of(labelled).items()}
    members = {name: membership(array[ROI].values) for name, array in arrays.items()}
    every = dict.fromkeys(region for own in members.values() for region in own)
    names = [name for name in every if not (name.startswith(_SIDES) and name[2:] in every)]
    if not names:
        raise InvalidParameterError("No unit of these responses is in a region, so there are no bars to draw.")
    sums = [_sums(array, members[name], names) for name, array in arrays.items()]
    total, count = (np.sum(parts, axis=0) for parts in zip(*sums, strict=True))
    n_units = np.sum([[own[name].sum() if name in own else 0 for name in names] for own in members.values()], axis=0)
    unit = ceiling_unit or _ceiling_unit(arrays)
    ceiling = None if unit is None else _label_means(arrays, members, names, CEILING, unit)
    accuracy_name = next((name for name in ACCURACIES if all(name in array.coords for array in arrays.values())), None)
    accuracy = None if accuracy_name is None else _label_means(arrays, members, names, accuracy_name)
    is_unknown = unit is None and all(CEILING in array.coords for array in arrays.values())
    with np.errstate(invalid="ignore", divide="ignore"):
        return RegionMeans(names, total / count, n_units, accuracy, ceiling, is_unknown)


def membership(texts: Sequence[Any] | NDArray[Any]) -> Membership:
    """Which units each region has, from texts such as ``V1v;early``; in the order in which they are named.

    >>> {name: own.tolist() for name, own in membership(["V2", "V1;early", ""]).items()}
    {'V2': [True, False, False], 'V1': [False, True, False], 'early': [False, True, False]}
    """
    fixed = np.asarray(texts).astype(object).astype(str)  # texts of a store have no fixed width, and no way to one
    labels, first, which = np.unique(fixed, return_index=True, return_inverse=True)
    parts = [[part.strip() for part in label.split(BETWEEN) if part.strip()] for label in labels]
    names = dict.fromkeys(name for place in np.argsort(first) for name in parts[place])
    return {name: np.isin(which, [place for place, own in enumerate(parts) if name in own]) for name in names}


def has_regions(outputs: Mapping[str, xr.DataArray]) -> bool:
    """Whether the units of every output say which regions they are in, and some are in one."""
    if not all(ROI in array.coords and array[ROI].ndim == 1 for array in outputs.values()):
        return False
    return any(str(text).strip() for array in outputs.values() for text in set(array[ROI].values.tolist()))


def _with_regions(name: str, array: xr.DataArray) -> xr.DataArray:
    if ROI not in array.coords or array[ROI].ndim != 1:
        raise InvalidParameterError(
            f"The units of '{name}' have no regions (coordinate roi). Its labels: {listing(map(str, array.coords))}."
        )
    axis = array[ROI].dims[0]
    repetitions = [other for other in array.dims if other == "repetition"]
    if set(array.dims) - set(repetitions) != {"stimulus", axis}:
        raise InvalidParameterError(
            f"Bars are of one response per stimulus and unit; '{name}' has the axes {tuple(map(str, array.dims))}. "
            "Select or average first, such as labelled.sel(time=slice(0.1, 0.2)).mean('time')."
        )
    return array.transpose("stimulus", axis, *repetitions)


def _sums(array: xr.DataArray, members: Membership, names: list[str]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Sums and numbers of responses that are not NaN, each of shape (n_stimuli, n_regions)."""
    outside = np.zeros(array.shape[1], bool)
    matrix = np.stack([members.get(name, outside) for name in names], axis=1).astype(np.float64)
    total, count = np.empty((2, len(array), len(names)))
    for start in range(0, len(array), _AT_ONCE):
        rows = array.isel(stimulus=slice(start, start + _AT_ONCE)).values.astype(np.float64)
        rows = rows.reshape(*rows.shape[:2], -1).mean(axis=2)  # over repetitions
        is_there = np.isfinite(rows)
        total[start : start + _AT_ONCE] = np.where(is_there, rows, 0) @ matrix
        count[start : start + _AT_ONCE] = is_there.astype(np.float64) @ matrix
    return total, count


def _ceiling_unit(arrays: Mapping[str, xr.DataArray]) -> CeilingUnit | None:
    units = {array[CEILING].attrs.get("units") for array in arrays.values() if CEILING in array.coords}
    return "r" if units == {"r"} else None


def _label_means(
    arrays: Mapping[str, xr.DataArray], members: Mapping[str, Membership], names: list[str], label: str, unit: str = "r"
) -> NDArray[np.float64] | None:
    if not all(label in array.coords and array[label].ndim == 1 for array in arrays.values()):
        return None
    means = []
    for name in names:
        of = {key: own[name] for key, own in members.items() if name in own}
        values = np.concatenate([_as_r(arrays[key][label].values[units], unit) for key, units in of.items()])
        means.append(np.nanmean(values) if np.isfinite(values).any() else np.nan)
    return np.array(means)


def _as_r(values: NDArray[Any], unit: str) -> NDArray[np.float64]:
    plain = values.astype(np.float64)
    if unit == "r":
        return plain
    with np.errstate(invalid="ignore"):
        return np.sqrt(plain / (100 if unit == "percent" else 1))
