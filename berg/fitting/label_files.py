"""Lists of names and numbers in files: presentations, splits, labels of units, masks."""

from __future__ import annotations

import csv
import gzip
import json
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from berg.core.exceptions import DatasetError, did_you_mean, listing
from berg.core.file_errors import check_readable, reading
from berg.core.hdf5_files import has_array, hdf5_values, open_hdf5
from berg.features.arrays import HDF5, array_keys, npz_names, open_npy, open_npz, open_zarr, zarr_array
from berg.fitting.epoch_files import open_epochs
from berg.fitting.surface_files import open_surface
from berg.fitting.volume_files import VOLUMES, read_volume

Labels = NDArray[Any] | dict[str, Any]


def read_labels(path: Path, key: str | None = None) -> Labels:
    """The numbers or names in a file.

    Parameters
    ----------
    path
        ``.npy``, ``.npz``, HDF5, zarr; ``.tsv``, ``.csv`` (with a head line; also ``.gz``), ``.txt`` (one a line),
        ``.json``; NIfTI or MGH; GIFTI (labels, shapes) and FreeSurfer's ``.annot``; ``-epo.fif`` (events).
    key
        The array in a file of several, the column, or the key (``a.b`` for b in a).

    Returns
    -------
    labels
        An array, or the map that stands in a JSON file.

    Raises
    ------
    MissingFileError, CorruptedFileError, MissingExtraError
    DatasetError
        For a key that is not there, with those that are.
    """
    check_readable(path)
    reader = next((read for ending, read in _READERS.items() if path.name.lower().endswith(ending)), None)
    if reader is None and path.is_dir():
        reader = _stored
    if reader is None:
        raise DatasetError(f"{path} cannot be read as a list. Known are {listing(_READERS, 30)} and zarr.")
    with reading(path):
        found = reader(path, key)
    return found if isinstance(found, dict) else _plain(found)


def chosen_key(path: Path, keys: list[str], key: str | None) -> str:
    """The key that was asked for, or the only one.

    Raises
    ------
    DatasetError
        Where there are several, or it is not there.
    """
    if key is None and len(keys) == 1:
        return keys[0]
    if key is None:
        raise DatasetError(f"{path} holds {listing(keys) or 'nothing'}; say which with  {path.name}::KEY")
    if key not in keys:
        raise DatasetError(f"{path} has no '{key}'.{did_you_mean(key, keys)} It holds {listing(keys) or 'nothing'}.")
    return key


def _plain(found: Any) -> NDArray[Any]:
    """Bytes and objects as text."""
    array = np.asarray(found)
    if array.dtype.kind == "S":
        return np.char.decode(array, "utf-8")
    if array.dtype.kind in "OT":
        items = [item.decode("utf-8") if isinstance(item, bytes) else item for item in array.ravel().tolist()]
        return np.array([str(item) for item in items]).reshape(array.shape)
    return array


def _npy(path: Path, key: str | None) -> Any:
    return np.array(open_npy(path))


def _npz(path: Path, key: str | None) -> Any:
    return np.array(open_npz(path, chosen_key(path, npz_names(path), key)))


def _hdf5(path: Path, key: str | None) -> Any:
    with open_hdf5(path) as file:
        return hdf5_values(file, hdf5_key(path, file, key))


def hdf5_key(path: Path, file: Any, key: str | None) -> str:
    """As `chosen_key`; of a file in which one array may have several names."""
    return key if key is not None and has_array(file, key) else chosen_key(path, array_keys(file), key)


def _stored(path: Path, key: str | None) -> Any:
    opened = open_zarr(path)
    if hasattr(opened, "shape"):
        return opened[...]
    return zarr_array(opened, chosen_key(path, array_keys(opened), key), path)[...]


def _table(path: Path, key: str | None) -> Any:
    opened: Any = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8-sig", newline="") as file:
        rows = list(csv.reader(file, delimiter="\t" if ".tsv" in path.suffixes else ","))
    if not rows:
        raise DatasetError(f"{path} is empty; its first line must name the columns.")
    column = rows[0].index(chosen_key(path, rows[0], key))
    if any(len(row) != len(rows[0]) for row in rows[1:]):
        number = next(number for number, row in enumerate(rows[1:], 2) if len(row) != len(rows[0]))
        raise DatasetError(f"{path}, line {number}: {len(rows[number - 1])} values for {len(rows[0])} columns.")
    return numbers_or_names([row[column] for row in rows[1:]])


def _lines(path: Path, key: str | None) -> Any:
    return numbers_or_names([line.strip() for line in path.read_text("utf-8").splitlines() if line.strip()])


def numbers_or_names(texts: list[str]) -> NDArray[Any]:
    """Numbers where all texts are numbers, empty ones or ``n/a`` among them as NaN; else the texts.

    >>> numbers_or_names(["1", "2"]), numbers_or_names(["0.5", "n/a"]), numbers_or_names(["1", "Oz"])
    (array([1, 2]), array([0.5, nan]), array(['1', 'Oz'], dtype='<U2'))
    """
    if any(_LEADING_ZERO.match(text) for text in texts):
        return np.array(texts)
    readings: tuple[Callable[[str], float], ...] = (int, lambda text: np.nan if text in ("", "n/a") else float(text))
    for as_number in readings:
        with suppress(ValueError):
            return np.array([as_number(text) for text in texts])
    return np.array(texts)


_LEADING_ZERO = re.compile("-?0[0-9]")  # 007 is a name: as a number it would lose its zeros


def _json(path: Path, key: str | None) -> Any:
    found = json.loads(path.read_text("utf-8"))
    for step in (key or "").split(".") if key else ():
        keys = [str(name) for name in found] if isinstance(found, dict) else []
        found = found[chosen_key(path, keys, step)]
    return found if isinstance(found, dict) else np.asarray(found)


def _volume(path: Path, key: str | None) -> Any:
    return np.squeeze(read_volume(path))


def _gifti(path: Path, key: str | None) -> Any:
    image = open_surface(path)
    if len(image.darrays) != 1:
        raise DatasetError(f"{path} holds {len(image.darrays)} arrays; a list of labels has one.")
    values = image.darrays[0].data
    names = {own.key: getattr(own, "label", "") for own in image.labeltable.labels}  # one without text has none
    return np.array([names.get(int(value), "") for value in values]) if len(names) > 1 else values


def _annotation(path: Path, key: str | None) -> Any:
    from nibabel import freesurfer

    _check_colour_table(path)
    labels, _, names = freesurfer.read_annot(path)
    known = np.array([*_plain(names), ""])
    return known[labels]  # -1, of no region, is the last


def _check_colour_table(path: Path) -> None:
    """Raise ValueError if the table of regions says to be longer than its file, which would be waited for."""
    with path.open("rb") as file:
        n_vertices = _big_endian(file)
        file.seek(max(0, 8 * n_vertices), 1)
        if not _big_endian(file):
            return
        n_regions = _big_endian(file)  # or minus the version, then their number
        n_regions = _big_endian(file) if n_regions < 0 else n_regions
    if n_vertices < 0 or n_regions > path.stat().st_size:
        raise ValueError(f"it says that it is of {n_vertices:,} vertices and {n_regions:,} regions")


def _big_endian(file: IO[bytes]) -> int:
    return int.from_bytes(file.read(4), "big", signed=True)


def _events(path: Path, key: str | None) -> Any:
    epochs = open_epochs(path)
    if key is not None:
        columns = [] if epochs.metadata is None else list(epochs.metadata)
        return epochs.metadata[chosen_key(path, columns, key)].to_numpy()
    names = {code: name for name, code in epochs.event_id.items()}
    return numbers_or_names([names[code] for code in epochs.events[:, 2]])


_READERS: dict[str, Callable[[Path, str | None], Any]] = {
    ".npy": _npy,
    ".npz": _npz,
    **dict.fromkeys(HDF5, _hdf5),
    **dict.fromkeys((".tsv", ".csv", ".tsv.gz", ".csv.gz"), _table),
    ".txt": _lines,
    ".json": _json,
    **dict.fromkeys(VOLUMES, _volume),
    ".gii": _gifti,
    ".annot": _annotation,
    ".fif": _events,
}


def per_unit(labels: Labels, n_units: int, first: int = 0) -> NDArray[Any]:
    """One label per unit; of a map of regions to units, the names of all regions of a unit.

    >>> per_unit({"V1": [0, 1], "early": [1]}, 3)
    array(['V1', 'V1;early', ''], dtype='<U8')
    """
    if not isinstance(labels, dict):
        return labels
    names: list[list[str]] = [[] for _ in range(n_units)]
    for name, members in labels.items():
        for unit in np.asarray(members, np.intp).ravel() - first if len(members) else ():
            if not 0 <= unit < n_units:
                raise DatasetError(f"Region '{name}' names unit {unit + first:,}; there are {n_units:,} units.")
            names[unit].append(str(name))
    return np.array([";".join(own) for own in names])
