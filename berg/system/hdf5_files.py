"""Arrays in HDF5 files: nothing outside the file is opened, and the axes of MATLAB's arrays stand as in MATLAB.

HDF5 lets a file name other files, whose bytes come back as if they were its own: external links, external storage and
virtual data sets. Reading is by the steps of a path, each of which is looked at before it is taken.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from berg.core.exceptions import CorruptedFileError, MissingExtraError, UnsafeFileError
from berg.system.file_errors import check_declared_size

MATLAB = "MATLAB_class"
_NUMBERS = {"double", "single", "logical", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))}
_MOST_LINKS = 40  # soft links followed on one way, as the system does with links of files
_OWN_GROUPS = ("#refs#", "#subsystem#")  # of MATLAB, which keeps there what cells and objects point to


def open_hdf5(path: Path) -> Any:
    """The file, as h5py.File.

    Raises
    ------
    CorruptedFileError
        For a file of MATLAB's older format. What h5py raises for other damage is left as it is.
    """
    import h5py

    with path.open("rb") as file:
        if file.read(10) == b"MATLAB 5.0":
            raise CorruptedFileError(f"{path} cannot be read: it is of MATLAB's older format. Save it with -v7.3.")
    return h5py.File(path, "r")


def array_names(file: Any) -> list[str]:
    """The names of all arrays in a file, those in groups too (``a/b``); links that leave it are named, not followed.

    An array of several names is listed once.
    """
    return list(_names(file, "", set()))


def _names(group: Any, above: str, seen: set[int]) -> Iterator[str]:
    for name in group:
        if above or name not in _OWN_GROUPS:
            yield from _names_below(group, name, f"{above}{name}", seen)


def _names_below(group: Any, name: str, full: str, seen: set[int]) -> Iterator[str]:
    import h5py

    try:
        found = _member(group, name)
    except (UnsafeFileError, KeyError):  # told when it is asked for
        yield full
        return
    address = h5py.h5o.get_info(found.id).addr
    if address in seen:  # a group may hold itself
        return
    seen.add(address)
    if isinstance(found, h5py.Group) and not _matlab_class(found, "MATLAB_sparse"):
        yield from _names(found, f"{full}/", seen)
    elif not isinstance(found, h5py.Datatype):
        yield full


def has_array(file: Any, name: str) -> bool:
    """Whether there is something of this name, or a link that leaves the file."""
    try:
        return _member(file, name) is not None
    except UnsafeFileError:
        return True
    except KeyError:
        return False


def _member(group: Any, name: str) -> Any:
    """What lies at a path, reached without leaving the file.

    Raises
    ------
    UnsafeFileError
        At a link to another file.
    KeyError
    """
    import h5py

    here, steps, n_links = group.file if name.startswith("/") else group, _steps(name), 0
    while steps:
        step = steps.pop(0)
        link = here.get(step, getlink=True) if isinstance(here, h5py.Group) else None
        if link is None:
            raise KeyError(f"nothing is called '{name}'")
        if isinstance(link, h5py.ExternalLink):
            raise _leaves(group, name, f"an external link to {link.filename}")
        if isinstance(link, h5py.SoftLink):
            n_links += 1
            if n_links > _MOST_LINKS:
                raise KeyError(f"'{name}' is a link that leads back to itself")
            here, steps = here.file if link.path.startswith("/") else here, _steps(link.path) + steps
        else:
            here = here[step]
    return here


def _steps(name: str) -> list[str]:
    return [step for step in name.split("/") if step not in ("", ".")]


def _leaves(found: Any, name: str, feature: str) -> UnsafeFileError:
    return UnsafeFileError(
        f"{found.file.filename}: '{name}' is {feature}. Files that read other files are refused; nothing was opened. "
        "Copy the values into one file:  h5py.File('new.h5', 'w')['name'] = old['name'][:]"
    )


def hdf5_array(file: Any, name: str) -> Any:
    """An array of numbers or texts, none of it read; of MATLAB with the axes as in MATLAB.

    Returns
    -------
    array
        A dataset of h5py, or a `ReversedArray`; both have ``shape``, ``dtype``, ``chunks`` and give slices.

    Raises
    ------
    UnsafeFileError
        If the values lie in another file.
    MissingExtraError
        If they are compressed by a filter that is not installed.
    CorruptedFileError
        If there are none, or more than the file can hold.
    """
    import h5py

    dataset = _member(file, name)
    path = Path(file.filename)
    if isinstance(dataset, h5py.Group) and _matlab_class(dataset, "MATLAB_sparse"):
        raise CorruptedFileError(f"{path}: '{name}' is a sparse matrix of MATLAB. Save full({name}) instead.")
    if not isinstance(dataset, h5py.Dataset):
        raise KeyError(f"'{name}' is no array")
    _check_stored_here(dataset, name)
    if dataset.shape is None:
        raise CorruptedFileError(f"{path}: '{name}' is empty.")
    _check_filters(dataset, path, name)
    check_declared_size(path, dataset.nbytes, min(dataset.id.get_storage_size(), path.stat().st_size), f"'{name}'")
    return _as_in_matlab(dataset, path, name) if MATLAB in dataset.attrs else dataset


def _check_stored_here(dataset: Any, name: str) -> None:
    """Raise UnsafeFileError if values lie in other files."""
    if dataset.external:
        raise _leaves(dataset, name, f"kept in external storage ({dataset.external[0][0]})")
    if dataset.is_virtual:
        raise _leaves(dataset, name, "a virtual data set, put together from others")


def _check_filters(dataset: Any, path: Path, name: str) -> None:
    from h5py import h5z

    properties = dataset.id.get_create_plist()
    for index in range(properties.get_nfilters()):
        code, _, _, label = properties.get_filter(index)
        if not h5z.filter_avail(code) and not _plugin_has(code):
            raise MissingExtraError(
                f"{path}: '{name}' is compressed by the HDF5 filter {code} ({label.decode('utf-8', 'replace')}), which "
                "is not installed. Type:  pip install hdf5plugin"
            )


def _plugin_has(code: int) -> bool:
    """Whether the filter is there once the package of filters is imported, if there is one."""
    from h5py import h5z

    try:
        import hdf5plugin  # type: ignore[import-not-found, unused-ignore] # noqa: F401
    except ImportError:
        return False
    return bool(h5z.filter_avail(code))


def _matlab_class(found: Any, attribute: str = MATLAB) -> str:
    given = found.attrs.get(attribute, "")
    return given.decode("ascii", "replace") if isinstance(given, bytes) else str(given)


def _as_in_matlab(dataset: Any, path: Path, name: str) -> Any:
    kind = _matlab_class(dataset)
    if dataset.attrs.get("MATLAB_empty", 0):  # its values would be its shape
        raise CorruptedFileError(f"{path}: '{name}' is empty.")
    if kind not in _NUMBERS | {"char", "cell"}:
        raise CorruptedFileError(
            f"{path}: '{name}' is an object of MATLAB ({kind}), which only MATLAB can read. Save numbers, or texts as "
            f"a cell array:  {name} = cellstr({name})"
        )
    return ReversedArray(dataset)


class ReversedArray:
    """An array of MATLAB -v7.3, whose axes HDF5 keeps in reverse, with the axes as in MATLAB.

    Parameters
    ----------
    array
        A dataset of h5py.
    """

    def __init__(self, array: Any) -> None:
        self.array = array
        self.shape: tuple[int, ...] = tuple(array.shape[::-1])
        self.dtype, self.ndim, self.nbytes = array.dtype, len(self.shape), array.nbytes
        self.chunks = array.chunks and tuple(array.chunks[::-1])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, places: Any) -> NDArray[Any]:
        """What `numpy.transpose` of the whole array would give at these indices."""
        given = places if isinstance(places, tuple) else (places,)
        if Ellipsis in given:
            at = given.index(Ellipsis)
            given = (*given[:at], *(slice(None),) * (self.ndim + 1 - len(given)), *given[at + 1 :])
        given += (slice(None),) * (self.ndim - len(given))
        return np.asarray(self.array[given[::-1]]).T


def hdf5_values(file: Any, name: str) -> NDArray[Any]:
    """All values of an array; of MATLAB also texts and cells of texts, and vectors without their axis of length 1."""
    array = hdf5_array(file, name)
    if not isinstance(array, ReversedArray):
        return np.asarray(array[()])
    kind = _matlab_class(array.array)
    if kind == "char":
        return np.array(_texts(array))
    values = _cells(file, array) if kind == "cell" else array[...]
    return values.ravel() if values.ndim == 2 and 1 in values.shape else values


def _texts(array: ReversedArray) -> list[str]:
    """The rows of a matrix of letters, which MATLAB fills up with blanks."""
    rows = np.atleast_2d(array[...])
    return ["".join(map(chr, row.ravel().tolist())).rstrip(" ") for row in rows]


def _cells(file: Any, array: ReversedArray) -> NDArray[Any]:
    cells = [_cell(file, reference) for reference in array[...].ravel().tolist()]
    return np.array(cells).reshape(array.shape)


def _cell(file: Any, reference: Any) -> Any:
    """One text or number of a cell array, which lies elsewhere in the same file."""
    dataset = file[reference]
    if dataset.attrs.get("MATLAB_empty", 0):
        return ""
    _check_stored_here(dataset, "a cell")
    check_declared_size(Path(file.filename), dataset.nbytes, dataset.id.get_storage_size(), "a cell")
    values = ReversedArray(dataset)
    if _matlab_class(dataset) == "char":
        return "".join(_texts(values))
    if dataset.size != 1 or _matlab_class(dataset) not in _NUMBERS:
        raise ValueError("a cell holds neither a text nor a number")
    return values[...].ravel()[0]


def check_all_inside(path: Path) -> None:
    """Raise if any array of a file lies in another, or says to hold more than the file can.

    Raises
    ------
    UnsafeFileError, MissingExtraError, CorruptedFileError
    """
    import h5py

    with open_hdf5(path) as file:
        for name in array_names(file):
            found = _member(file, name) if has_array(file, name) else None
            if isinstance(found, h5py.Dataset):
                _check_stored_here(found, name)
            if isinstance(found, h5py.Dataset) and found.shape is not None:
                hdf5_array(file, name)
