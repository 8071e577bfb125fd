"""Responses in memory or on disk, of which some rows and some units are read and nothing else is kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from tempfile import TemporaryFile
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from berg.core.exceptions import DatasetError, listing
from berg.system.memory import release_pages

BLOCK_BYTES = 2**25
"""Of a file that are held at once while some of it is picked out."""

_MAPPED_AROUND = 2**16  # bytes that the system maps for each one that is looked at

SAMPLE_AXES = ("stimulus", "presentation", "repetition")
Units = slice | NDArray[np.intp]
Floats = NDArray[np.float32]


def n_selected(n_units: int, units: Units) -> int:
    """How many of the units are selected."""
    return len(range(n_units)[units]) if isinstance(units, slice) else len(units)


class ResponseArray(Protocol):
    """Rows (stimuli or presentations) of responses; the units of a row are numbered in C order of `shape`."""

    @property
    def n_rows(self) -> int: ...

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the axes of units."""
        ...

    def read(self, rows: NDArray[np.intp], units: Units) -> Floats:
        """The responses, shape (len(rows), number of units), in an array of their own; `rows` ascend."""
        ...


def as_rows(array: Any, axes: Sequence[str]) -> ResponseArray:
    """An array whose axes stand in any order, as rows.

    Parameters
    ----------
    array
        A numpy array, a memory map, a dataset of h5py, an array of zarr.
    axes
        Of the array, in its order. ``stimulus`` or ``presentation`` are the rows; a ``repetition`` beside
        ``stimulus`` makes a row of each repetition of each stimulus.

    Raises
    ------
    DatasetError
        If the axes are not those of the array, or it does not hold real numbers.
    """
    if len(axes) != len(array.shape) or len(set(axes)) != len(axes):
        raise DatasetError(f"An array of shape {tuple(array.shape)} was given the axes {listing(axes)}: one name each.")
    if np.dtype(array.dtype).kind not in "biuf":
        raise DatasetError(f"Responses are {array.dtype}; they must be real numbers.")
    order = [axes.index(axis) for axis in axes if axis in SAMPLE_AXES]
    order.sort(key=lambda place: axes[place] == "repetition")
    if not order or axes[order[0]] == "repetition" or len(order) > 2:
        raise DatasetError(f"The axes {listing(axes)} must hold 'stimulus' or 'presentation' once, for the rows.")
    units = [place for place in range(len(axes)) if place not in order]
    kind = MappedRows if isinstance(array, np.ndarray) else ChunkedRows
    return kind(array, tuple(order), tuple(units))


def full_axes(axes: Sequence[str] | None, n_axes: int) -> tuple[str, ...]:
    """The axes of an array, rows included.

    Raises
    ------
    DatasetError
        If they cannot be told, or are not as many as the array has.
    """
    if axes is None and n_axes > 2:
        raise DatasetError(f"The responses have {n_axes} axes; name those of the units under 'axes': channel, time.")
    given = tuple(axes) if axes is not None else ("unit",) * (n_axes - 1)
    rows = () if set(given) & {"stimulus", "presentation"} else ("presentation",)
    if len(rows + given) != n_axes and not (n_axes == 1 and len(given) == 1):
        raise DatasetError(f"The responses have {n_axes} axes; {listing(rows + given)} are {len(rows + given)}.")
    return (rows + given)[:n_axes]


def unit_axes(axes: Sequence[str]) -> tuple[str, ...]:
    """Those that are no rows."""
    return tuple(axis for axis in axes if axis not in SAMPLE_AXES) or ("unit",)


@dataclass(frozen=True)
class _Axes:
    """An array, and which of its axes are rows and which are units."""

    array: Any
    row_axes: tuple[int, ...]
    unit_axes: tuple[int, ...]

    @property
    def n_rows(self) -> int:
        return math.prod(int(self.array.shape[axis]) for axis in self.row_axes)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(int(self.array.shape[axis]) for axis in self.unit_axes) or (1,)


class MappedRows(_Axes):
    """An array in memory, or a memory map, of which single values can be picked."""

    def read(self, rows: NDArray[np.intp], units: Units) -> Floats:
        """See `ResponseArray`."""
        array = self.array.transpose(*self.row_axes, *self.unit_axes)
        found = np.empty((len(rows), n_selected(math.prod(self.shape), units)), np.float32)
        step = self._block(found.shape[1])
        for start in range(0, len(rows), step):
            found[start : start + step] = _picked(array, len(self.row_axes), rows[start : start + step], units)
            release_pages(self.array)
        return found

    def _block(self, n_units: int) -> int:
        """Rows at once, so that what the system maps with them stays small."""
        touched: int = min(self.array.dtype.itemsize * math.prod(self.shape), _MAPPED_AROUND * n_units)
        return max(1, BLOCK_BYTES // max(1, touched))


def _picked(array: NDArray[Any], n_leading: int, rows: NDArray[np.intp], units: Units) -> Floats:
    """From an array with the axes of the rows first."""
    lengths = array.shape[:n_leading]
    if array.flags.c_contiguous or array.ndim == 2 == n_leading + 1:
        flat = np.asarray(array).reshape(math.prod(lengths), -1)  # a view
        taken = flat[:, units][rows] if isinstance(units, slice) else flat[rows[:, None], units]
        return taken.astype(np.float32, copy=False)
    places = np.arange(math.prod(array.shape[n_leading:]))[units]
    of_units = np.unravel_index(places, array.shape[n_leading:])
    of_rows = tuple(place[:, None] for place in np.unravel_index(rows, lengths))
    return np.asarray(array)[of_rows + of_units].astype(np.float32, copy=False)


class ChunkedRows(_Axes):
    """An array of h5py or zarr, which gives slices: whole chunks are read, each of them once."""

    def read(self, rows: NDArray[np.intp], units: Units) -> Floats:
        """See `ResponseArray`."""
        places = np.arange(math.prod(self.shape))[units]
        found = np.empty((len(rows), len(places)), np.float32)
        if not found.size:
            return found
        n_each = self.n_rows // self.array.shape[self.row_axes[0]]  # rows of one place along the first row axis
        box, inside = self._box(places)
        for own, first, stop in self._blocks(rows // n_each, box):
            block = np.asarray(self.array[self._slices(slice(first, stop), box)])
            ordered = block.transpose(*self.row_axes, *self.unit_axes)
            found[own] = _picked(np.ascontiguousarray(ordered), len(self.row_axes), rows[own] - first * n_each, inside)
        return found

    def _box(self, places: NDArray[np.intp]) -> tuple[list[slice], NDArray[np.intp]]:
        """The smallest box of the axes of units around these units, and where in it they are."""
        if not self.unit_axes:
            return [], places
        per_axis = np.unravel_index(places, self.shape)
        box = [slice(int(own.min()), int(own.max()) + 1) for own in per_axis]
        starts_at = [own - part.start for own, part in zip(per_axis, box, strict=True)]
        return box, np.ravel_multi_index(starts_at, [part.stop - part.start for part in box])

    def _slices(self, rows: slice, box: list[slice]) -> tuple[slice, ...]:
        slices = [slice(None)] * len(self.array.shape)
        slices[self.row_axes[0]] = rows
        for axis, part in zip(self.unit_axes, box, strict=True):
            slices[axis] = part
        return tuple(slices)

    def _blocks(self, rows: NDArray[np.intp], box: list[slice]) -> Iterator[tuple[slice, int, int]]:
        """Neighbouring rows that are read at once: which of them, and from where to where."""
        chunk = (getattr(self.array, "chunks", None) or (1,) * len(self.array.shape))[self.row_axes[0]]
        n_bytes = self.array.dtype.itemsize * math.prod(self.array.shape[axis] for axis in self.row_axes[1:])
        n_bytes *= math.prod(part.stop - part.start for part in box)
        most = max(1, BLOCK_BYTES // (n_bytes * chunk))  # chunks, along the rows
        of_row = rows // chunk
        start = 0
        while start < len(rows):
            same = np.flatnonzero(
                (np.diff(of_row[start:], prepend=of_row[start]) > 1) | (of_row[start:] >= of_row[start] + most)
            )
            stop = start + int(same[0]) if len(same) else len(rows)
            yield slice(start, stop), int(rows[start]), int(rows[stop - 1]) + 1
            start = stop


@dataclass(frozen=True)
class DerivedRows:
    """Rows made from others: as many, of the same shape; those below read them in ways of their own."""

    rows: ResponseArray

    @property
    def n_rows(self) -> int:
        """See `ResponseArray`."""
        return self.rows.n_rows

    @property
    def shape(self) -> tuple[int, ...]:
        """See `ResponseArray`."""
        return self.rows.shape


@dataclass(frozen=True)
class ReorderedRows(DerivedRows):
    """Others with their units in another order.

    Attributes
    ----------
    order
        Shape (n_units,): which unit of the others each is.
    """

    order: NDArray[np.intp]

    def read(self, rows: NDArray[np.intp], units: Units) -> Floats:
        """See `ResponseArray`."""
        return self.rows.read(rows, self.order[units])


@dataclass(frozen=True)
class MaskedRows(ReorderedRows):
    """Some units of others, along one axis; `order` says which."""

    @property
    def shape(self) -> tuple[int, ...]:
        """See `ResponseArray`."""
        return (len(self.order),)


@dataclass(frozen=True)
class ScaledRows(DerivedRows):
    """Others times a factor, and an offset added."""

    scale: float
    offset: float = 0.0

    def read(self, rows: NDArray[np.intp], units: Units) -> Floats:
        """See `ResponseArray`."""
        found = self.rows.read(rows, units)
        found *= np.float32(self.scale)
        found += np.float32(self.offset)
        return found


@dataclass(frozen=True)
class StackedRows:
    """The rows of several files, one file after another."""

    parts: tuple[ResponseArray, ...]

    @property
    def n_rows(self) -> int:
        """See `ResponseArray`."""
        return sum(part.n_rows for part in self.parts)

    @property
    def shape(self) -> tuple[int, ...]:
        """See `ResponseArray`."""
        return self.parts[0].shape

    def read(self, rows: NDArray[np.intp], units: Units) -> Floats:
        """See `ResponseArray`."""
        starts = np.cumsum([0, *(part.n_rows for part in self.parts)])
        edges = np.searchsorted(rows, starts)
        found = [
            part.read(rows[first:stop] - start, units)
            for part, start, first, stop in zip(self.parts, starts, edges, edges[1:], strict=False)
            if stop > first or part is self.parts[0]
        ]
        return found[0] if len(found) == 1 else np.concatenate(found)


class SpooledRows:
    """Rows of a file that can only be read from end to end: once, at the first look, into a temporary file.

    Parameters
    ----------
    blocks
        Gives all rows in order, in arrays of shape (n, n_units).
    """

    def __init__(self, n_rows: int, shape: tuple[int, ...], blocks: Callable[[], Iterator[NDArray[Any]]]) -> None:
        self.n_rows, self.shape, self._blocks = n_rows, shape, blocks
        self._rows: MappedRows | None = None

    def read(self, rows: NDArray[np.intp], units: Units) -> Floats:
        """See `ResponseArray`."""
        self._rows = self._rows or MappedRows(self._spooled(), (0,), (1,))
        return self._rows.read(rows, units)

    def _spooled(self) -> NDArray[Any]:
        with TemporaryFile() as file:  # nameless: gone with the map
            for block in self._blocks():
                file.write(np.ascontiguousarray(block, np.float32).data)
            file.flush()
            mapped: NDArray[Any] = np.memmap(file, np.float32, "r", shape=(self.n_rows, math.prod(self.shape)))
        return mapped
