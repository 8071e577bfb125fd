"""Arrays of other packages as plain numbers: what they carry beside the numbers is honoured or refused, never dropped.

Masked values become NaN (numpy.ma, netCDF4), tensors of PyTorch come to the processor, frames of pandas and arrays of
xarray are brought into the same order by their labels. What lies on disk stays there (memory map, HDF5, zarr).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from berg.core.exceptions import InvalidParameterError, listing

if TYPE_CHECKING:
    import pandas as pd

Array = Any  # what has a shape and can be sliced

STIMULI = ("stimulus", "presentation")
REPEATS = ("repetition", "repeat", "subject")
_UNDECODED = ("_FillValue", "missing_value")
_DECIMALS = 1e-6  # relative: labels that are times or positions, written with other roundings, are the same


@dataclass(frozen=True)
class Labelled:
    """An array, and what it says of its axes.

    Attributes
    ----------
    values
        Plain, or something that gives plain arrays in slices.
    dims
        The names of its axes; None if they have none.
    labels
        By axis, those along it; None if there are none.
    coordinates
        By name, other labels along one axis: (axis, labels).
    unit
        Of the values; "" where it is not said.
    masked
        True where a value does not count; None if all do.
    """

    values: Array
    dims: tuple[str, ...] | None = None
    labels: tuple[pd.Index[Any] | None, ...] = ()
    coordinates: dict[str, tuple[int, NDArray[Any]]] | None = None
    unit: str = ""
    masked: NDArray[np.bool_] | None = None

    def ordered(self, axes: Sequence[int]) -> Labelled:
        """The same with its axes in another order."""
        if tuple(axes) == tuple(range(len(axes))):
            return self
        return replace(
            self,
            values=self.values.transpose(*axes) if _is_lazy(self.values) else np.asarray(self.values).transpose(axes),
            dims=self.dims and tuple(self.dims[axis] for axis in axes),
            labels=tuple(self.labels[axis] for axis in axes) if self.labels else (),
            coordinates={name: (axes.index(axis), own) for name, (axis, own) in (self.coordinates or {}).items()},
        )

    def taken(self, axis: int, places: NDArray[np.intp]) -> Labelled:
        """The same with the entries along an axis in another order."""
        key = (slice(None),) * axis + (places,)
        coordinates = {
            name: (own_axis, own[places] if own_axis == axis else own)
            for name, (own_axis, own) in (self.coordinates or {}).items()
        }
        return replace(self, values=self.values[key], coordinates=coordinates)


def plain(array: Array, leading: Sequence[Sequence[str]] = ()) -> Array:
    """The numbers of an array of any package, masked ones NaN.

    Parameters
    ----------
    leading
        Names of the axes that must come first, such as ``[STIMULI]``; an array with named axes is put in this order.

    Raises
    ------
    InvalidParameterError
        If it does not hold real numbers, or cannot be told to.
    """
    return _led(labelled(array), leading).values


def plain_pair(
    measured: Array, predicted: Array, leading: Sequence[Sequence[str]] = (STIMULI,), same_unit: bool = False
) -> tuple[Array, Array]:
    """Measured and predicted responses as plain numbers in the same order, as their labels say.

    What is masked in the prediction is left out of the measurement too: it was masked on purpose, unlike a NaN.

    Raises
    ------
    InvalidParameterError
        If their axes, labels or (for `same_unit`) units contradict each other.
    """
    one, other = _led(labelled(measured), leading), _led(labelled(predicted), leading)
    other = _aligned(one, other)
    if same_unit and one.unit and other.unit and one.unit != other.unit:
        raise InvalidParameterError(
            f"Measured responses are in '{one.unit}', predicted ones in '{other.unit}'. Bring both to one unit, or "
            "compare with pearson_r, which is blind to it."
        )
    if other.masked is not None and one.values.shape == other.values.shape:
        return np.where(other.masked, np.nan, read(one.values)), other.values
    return one.values, other.values


def plain_repeats(measured: Array, predicted: Array) -> tuple[Array, Array]:
    """As `plain_pair`, of measured repeats (repeats, stimuli, units) and predictions with or without repeats."""
    one, other = _led(labelled(measured), (REPEATS, STIMULI)), labelled(predicted)
    has_repeats = other.dims is not None and bool(set(REPEATS) & set(other.dims))
    other = _led(other, (REPEATS, STIMULI) if has_repeats else (STIMULI,))
    n_leading = other.values.ndim - one.values.ndim + 1
    other = _aligned(one, other, (1, max(n_leading, 0)))
    if other.masked is not None and n_leading in (0, 1):
        masked = other.masked.all(axis=0) if n_leading else other.masked
        return np.where(masked, np.nan, read(one.values)), other.values
    return one.values, other.values


def read(array: Array) -> NDArray[Any]:
    """All of an array, or of a slice that was read from a file, as numbers; masked ones are NaN."""
    if isinstance(array, np.ma.MaskedArray):
        return _filled(array)
    try:
        return np.asarray(array)
    except (TypeError, ValueError, RuntimeError) as error:
        raise _refusal(array, f" ({error})") from error


def labelled(array: Array) -> Labelled:
    """An array of any package with what it says of its axes.

    Raises
    ------
    InvalidParameterError
        As in `plain`.
    """
    found = _opened(array)
    _check_numbers(found.values, array)
    return found


def _opened(array: Array) -> Labelled:
    kinds = {"xarray": _from_xarray, "pandas": _from_pandas, "torch": _from_torch}
    for package, convert in kinds.items():
        module = sys.modules.get(package)  # what is not imported cannot have made the array
        if module is not None and (found := convert(module, array)) is not None:
            return found
    if isinstance(array, np.ma.MaskedArray):
        mask = np.ma.getmaskarray(array)
        return Labelled(_filled(array), masked=mask if mask.any() else None)
    unit = getattr(array, "unit", getattr(array, "units", ""))
    numbers = getattr(array, "magnitude", getattr(array, "value", None))  # pint, astropy
    if isinstance(numbers, (np.ndarray, np.number)) and not callable(unit) and str(unit):
        return Labelled(np.asarray(numbers), unit=str(unit))
    if _is_lazy(array):
        return Labelled(array)
    return Labelled(_as_numpy(array))


def _as_numpy(array: Array) -> NDArray[Any]:
    if isinstance(array, np.memmap):
        return array  # of which pages that were read can be given back
    if isinstance(array, np.ndarray):
        return np.asarray(array)
    if isinstance(array, (list, tuple)) and any(isinstance(item, np.ma.MaskedArray) for item in array):
        return _filled(np.ma.stack([np.ma.asarray(item) for item in array]))
    if isinstance(array, (list, tuple)) and any(_opened_elsewhere(item) for item in array):
        return np.stack([read(labelled(item).values) for item in array])
    return read(array)


def _opened_elsewhere(item: Any) -> bool:
    return type(item).__module__.partition(".")[0] in ("xarray", "pandas", "torch")


def _is_lazy(array: Array) -> bool:
    """Whether it can be sliced as it is, and need not be in memory."""
    return not isinstance(array, np.ndarray) and all(hasattr(array, name) for name in ("shape", "dtype", "__getitem__"))


def _filled(array: np.ma.MaskedArray[Any, Any]) -> NDArray[Any]:
    """NaN where masked."""
    if not np.ma.is_masked(array):
        return np.asarray(array.data)
    if array.dtype.kind not in "biuf":
        raise _refusal(array)
    kept: Any = array if array.dtype.kind == "f" else array.astype(np.float64)
    return np.asarray(kept.filled(np.nan))


def _check_numbers(values: Array, given: Array) -> None:
    if hasattr(values, "toarray") and hasattr(values, "nnz"):
        raise _refusal(given, ", a sparse matrix. Give its toarray()")
    try:
        dtype = np.dtype(values.dtype)
    except TypeError as error:
        raise _refusal(given) from error
    if dtype.kind not in "biuf":
        raise _refusal(given, f" of {dtype}")


def _refusal(array: Array, what: str = "") -> InvalidParameterError:
    name = f"{type(array).__module__}.{type(array).__name__}"
    return InvalidParameterError(
        f"An array of {name}{what} was given. Responses must be real numbers, in an array of numpy, xarray, pandas or "
        "PyTorch, or on disk (memory map, HDF5, zarr). Try numpy.asarray(array, dtype='float32')."
    )


# Packages


def _from_xarray(xr: Any, array: Array) -> Labelled | None:
    if isinstance(array, (xr.Dataset, getattr(xr, "DataTree", xr.Dataset))):
        names = listing(getattr(array, "data_vars", {}))
        raise InvalidParameterError(f"A whole xarray.{type(array).__name__} was given; give one variable: {names}.")
    if not isinstance(array, (xr.DataArray, xr.Variable)):
        return None
    if undecoded := [name for name in _UNDECODED if name in array.attrs]:
        raise InvalidParameterError(
            f"An array of xarray says {undecoded[0]}={array.attrs[undecoded[0]]} in its attributes, and that value was "
            "not replaced. Open the file with mask_and_scale=True, or call xarray.decode_cf(dataset)."
        )
    is_array = isinstance(array, xr.DataArray)
    dims = tuple(map(str, array.dims))
    variable = array.variable if is_array else array
    unit = str(array.attrs.get("units", array.attrs.get("unit", "")))
    return Labelled(
        variable if not isinstance(variable.data, np.ndarray) else variable.values,
        dims,
        tuple(array.indexes.get(dim) for dim in array.dims) if is_array else (None,) * len(dims),
        {
            str(name): (dims.index(str(own.dims[0])), own.values)
            for name, own in (array.coords.items() if is_array else ())
            if own.ndim == 1 and name not in array.indexes
        },
        unit,
    )


def _from_pandas(pd: Any, array: Array) -> Labelled | None:
    if not isinstance(array, (pd.DataFrame, pd.Series, pd.Index)):
        return None
    if isinstance(array, pd.Index):
        return Labelled(array.to_numpy())
    kinds = set(array.dtypes) if isinstance(array, pd.DataFrame) else {array.dtype}
    if wrong := [kind for kind in kinds if not pd.api.types.is_numeric_dtype(kind) or "complex" in str(kind)]:
        raise _refusal(array, f" with values of {wrong[0]}")
    missing = any(pd.api.types.is_extension_array_dtype(kind) for kind in kinds)
    values = array.to_numpy(np.float64, na_value=np.nan) if missing else array.to_numpy()
    axes = [array.index, array.columns] if isinstance(array, pd.DataFrame) else [array.index]
    return Labelled(values, None, tuple(axes))


def _from_torch(torch: Any, array: Array) -> Labelled | None:
    if not isinstance(array, torch.Tensor):
        return None
    kept = array.detach().cpu().resolve_conj().resolve_neg()
    if kept.layout != torch.strided or kept.is_complex():
        raise _refusal(array, f" ({kept.dtype}, {kept.layout})")
    return Labelled((kept.float() if kept.dtype == torch.bfloat16 else kept).numpy())


# Order


def _led(array: Labelled, leading: Sequence[Sequence[str]]) -> Labelled:
    """With the axes of these names first, where it has names."""
    if array.dims is None:
        return array
    first = [array.dims.index(name) for names in leading for name in names if name in array.dims]
    if first and len(first) != len(leading):
        wanted = listing("/".join(names) for names in leading)
        raise InvalidParameterError(
            f"An array of xarray has the axes {listing(array.dims)}; this takes {wanted} first, then units. Rename "
            "with  array.rename({'old': 'new'}), or give array.values with its axes in that order."
        )
    return array.ordered([*first, *(axis for axis in range(len(array.dims)) if axis not in first)])


def _aligned(one: Labelled, other: Labelled, n_apart: tuple[int, int] = (0, 0)) -> Labelled:
    """The other with the axes and labels of the first, but for so many leading axes of each."""
    own, theirs = n_apart
    if one.dims is not None and other.dims is not None and one.dims[own:] != other.dims[theirs:]:
        if set(one.dims[own:]) != set(other.dims[theirs:]):
            raise InvalidParameterError(
                f"Measured responses have the axes {listing(one.dims)}, predicted ones {listing(other.dims)}. Both "
                "need the same; rename them with  array.rename({'old': 'new'})."
            )
        other = other.ordered([*range(theirs), *(other.dims.index(dim) for dim in one.dims[own:])])
    if len(one.labels) - own == len(other.labels) - theirs:
        for axis, labels in enumerate(zip(one.labels[own:], other.labels[theirs:], strict=True)):
            places = _order(*labels, _name(one, axis + own))
            other = other if places is None else other.taken(axis + theirs, places)
    _check_coordinates(one, other, theirs - own)
    return other


def _name(array: Labelled, axis: int) -> str:
    return f"along '{array.dims[axis]}'" if array.dims else ("of rows", "of columns")[min(axis, 1)]


def _order(one: Any, other: Any, name: str) -> NDArray[np.intp] | None:
    """Where the labels of the first are among the others'; None if both are the same, or not comparable."""
    if one is None or other is None or len(one) != len(other) or _same(one, other):
        return None
    if one.is_unique and other.is_unique:
        places: NDArray[np.intp] = other.get_indexer(one)
        if (places >= 0).all():
            return places
    if _is_numbering(one) != _is_numbering(other) and (one.dtype.kind == "O" or other.dtype.kind == "O"):
        return None  # one has no labels, but numbers that pandas gave
    raise InvalidParameterError(
        f"Labels {name} differ: measured responses have {listing(one, 3)}, predicted ones {listing(other, 3)}. Bring "
        "both to the same labels; if they only differ in spelling, give the values alone (numpy.asarray)."
    )


def _same(one: Any, other: Any) -> bool:
    if one.dtype.kind in "iuf" and other.dtype.kind in "iuf":
        return bool(np.allclose(one.to_numpy(), other.to_numpy(), rtol=_DECIMALS, atol=1e-12, equal_nan=True))
    return bool(one.equals(other))


def _is_numbering(labels: Any) -> bool:
    return type(labels).__name__ == "RangeIndex" and labels.start == 0 and labels.step == 1


def _check_coordinates(one: Labelled, other: Labelled, shift: int) -> None:
    """Raise if labels of the same name differ, such as the names of stimuli beside their numbers."""
    for name, (axis, own) in (one.coordinates or {}).items():
        given = (other.coordinates or {}).get(name)
        if given is None or given[0] != axis + shift or len(given[1]) != len(own):
            continue
        theirs = given[1]
        numbers = own.dtype.kind in "iuf" and theirs.dtype.kind in "iuf"
        if not (np.allclose(own, theirs, _DECIMALS, equal_nan=True) if numbers else np.array_equal(own, theirs)):
            raise InvalidParameterError(
                f"'{name}' {_name(one, axis)} differs: measured responses have {listing(own, 3)}, predicted ones "
                f"{listing(theirs, 3)}. Bring both to the same order, or drop it:  array.drop_vars('{name}')."
            )
