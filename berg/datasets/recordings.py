"""Responses of one output, read when they are asked for: a row per presentation, in blocks of a bounded size."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from berg.core.exceptions import DatasetError, listing
from berg.datasets.response_arrays import BLOCK_BYTES, Floats, ResponseArray, Units, n_selected
from berg.datasets.splits import Indices

Coordinates = dict[str, tuple[str, NDArray[Any]]]
ALL = slice(None)


@dataclass(frozen=True)
class OutputData:
    """Responses of one output, such as a hemisphere; nothing is read before it is asked for.

    The units are numbered in C order of the axes: unit ``channel * n_times + time`` of ``("channel", "time")``.

    Attributes
    ----------
    rows
        One row per presentation.
    axes
        Of the units, such as ``("vertex",)`` or ``("channel", "time")``.
    unit
        Of the values, such as ``z-scored beta``.
    presentations
        Shape (n_rows,), which stimulus each row is the response to.
    coordinates
        By name, the axis and its labels: ``{"channel": ("channel", array(["Oz", ...]))}``.
    attributes
        Other facts from the file, such as the affine of a volume.
    """

    rows: ResponseArray
    axes: tuple[str, ...]
    unit: str
    presentations: Indices
    coordinates: Coordinates = field(default_factory=dict)
    attributes: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.axes) != len(self.shape):
            raise DatasetError(f"Responses with the axes {listing(self.axes)} have units of shape {self.shape}.")
        if self.rows.n_rows != len(self.presentations):
            raise DatasetError(
                f"The responses have {self.rows.n_rows:,} rows for {len(self.presentations):,} presentations. There "
                "must be one row per presentation, or, without 'presentations', per stimulus."
            )
        _check_coordinates(self.coordinates, dict(zip(self.axes, self.shape, strict=True)))

    @property
    def shape(self) -> tuple[int, ...]:
        """The lengths of the axes."""
        return self.rows.shape

    @property
    def n_units(self) -> int:
        """The product of the lengths."""
        return math.prod(self.shape)

    def mean(self, stimuli: ArrayLike, units: Units = ALL) -> Floats:
        """The mean response to each of these stimuli, over its presentations.

        Parameters
        ----------
        stimuli
            Indices, shape (n_stimuli,).
        units
            A slice, or indices.

        Returns
        -------
        responses
            Shape (n_stimuli, n_units). Missing values (NaN) do not count; where nothing is left there is NaN.
        """
        wanted = np.asarray(stimuli, np.intp)
        sums = np.zeros((len(wanted), n_selected(self.n_units, units)), np.float32)
        counts = np.zeros(len(wanted), np.float32)
        missing: Floats | None = None
        for places, _, values in self._read(wanted, units):
            absent = np.isnan(values)
            if absent.any():
                missing = np.zeros_like(sums) if missing is None else missing
                values[absent] = 0
                _add_rows(missing, places, absent)
            np.add.at(counts, places, 1)
            _add_rows(sums, places, values)
        with np.errstate(invalid="ignore"):  # 0 / 0 where nothing is left
            sums /= counts[:, None] if missing is None else counts[:, None] - missing
        return sums

    def repeats(self, stimuli: ArrayLike, units: Units = ALL) -> Floats:
        """The response to each presentation, in the order in which they were shown; stimuli and units as in `mean`.

        Returns
        -------
        responses
            Shape (n_repeats, n_stimuli, n_units); n_repeats is that of the stimulus that was shown most often, and
            there is NaN where another has fewer.
        """
        wanted = np.asarray(stimuli, np.intp)
        most = 1 + int(_rows_of(self.presentations, wanted)[2].max(initial=-1))
        found = np.full((most, len(wanted), n_selected(self.n_units, units)), np.nan, np.float32)
        for places, ranks, values in self._read(wanted, units):
            found[ranks, places] = values
        return found

    def _read(self, wanted: Indices, units: Units) -> Iterator[tuple[Indices, Indices, Floats]]:
        """Rows in the order of the file, some at a time.

        Yields the index of each row's stimulus in `wanted`, the number of the repeat, and the responses.
        """
        rows, places, ranks = _rows_of(self.presentations, wanted)
        step = max(1, BLOCK_BYTES // (4 * max(1, n_selected(self.n_units, units))))
        for start in range(0, len(rows), step):
            block = slice(start, start + step)
            same, copies = np.unique(rows[block], return_inverse=True)
            values = self.rows.read(same, units)
            yield places[block], ranks[block], values if len(same) == len(copies) else values[copies]


def _rows_of(presentations: Indices, wanted: Indices) -> tuple[Indices, Indices, Indices]:
    """Ascending rows of the wanted stimuli, the index of each in `wanted`, and the number of its repeat, from 0."""
    order = np.argsort(presentations, kind="stable")
    ascending = presentations[order]
    first, last = (np.searchsorted(ascending, wanted, side) for side in ("left", "right"))
    n_each = last - first
    ranks = np.arange(n_each.sum()) - np.repeat(np.cumsum(n_each) - n_each, n_each)
    places = np.repeat(np.arange(len(wanted)), n_each)
    rows = order[np.repeat(first, n_each) + ranks]
    by_row = np.argsort(rows, kind="stable")
    return rows[by_row], places[by_row], ranks[by_row]


def _add_rows(sums: Floats, places: Indices, rows: NDArray[Any]) -> None:
    """Add each row at its index, which may be the same for several; quicker than `numpy.add.at` for long rows."""
    for place, row in zip(places, rows, strict=True):
        sums[place] += row


def _check_coordinates(coordinates: Coordinates, lengths: Mapping[str, int]) -> None:
    for name, (axis, labels) in coordinates.items():
        if axis not in lengths:
            raise DatasetError(f"Coordinate '{name}' is along '{axis}'; the axes of the units are {listing(lengths)}.")
        if np.shape(labels) != (lengths[axis],):
            raise DatasetError(
                f"Coordinate '{name}' has shape {np.shape(labels)}; axis '{axis}' has {lengths[axis]:,} positions."
            )


def order_of_rows(order: Indices | None, axes: Sequence[str], shape: Sequence[int], n_stimuli: int) -> Indices:
    """Which stimulus each row is the response to.

    Raises
    ------
    DatasetError
        If there are not as many rows as stimuli or presentations.
    """
    n_repetitions = shape[axes.index("repetition")] if "repetition" in axes else 1
    row_axis = next(axis for axis in axes if axis in ("stimulus", "presentation"))
    n_rows = shape[axes.index(row_axis)]
    if order is not None and row_axis == "stimulus" and n_rows == len(order) == n_stimuli:
        _check_in_order(order)
    rows = np.arange(n_stimuli) if order is None or (row_axis == "stimulus" and n_rows == n_stimuli) else order
    if n_rows != len(rows):
        raise DatasetError(
            f"The responses have {n_rows:,} rows; there are {n_stimuli:,} stimuli"
            + (f" and {len(order):,} presentations" if order is not None else "")
            + ". Rows must be as many as presentations, or without these as stimuli."
        )
    return np.repeat(rows, n_repetitions)


def _check_in_order(order: Indices) -> None:
    """Raise DatasetError if a row per stimulus and a list of presentations of the same length contradict each other."""
    places = np.flatnonzero(order != np.arange(len(order)))
    if len(places):
        raise DatasetError(
            f"The axis 'stimulus' says that row {places[0]:,} is the response to stimulus {places[0]:,}, and "
            f"'presentations' that it is the one to stimulus {order[places[0]]:,}. Call the axis 'presentation' if its "
            "rows are in the order of the presentations, else leave 'presentations' out."
        )
