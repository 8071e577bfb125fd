"""Lists of names and numbers in files: presentations, splits, labels of units, masks."""

from __future__ import annotations

import csv
import gzip
import json
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from berg.core.exceptions import (
    CorruptedFileError,
    DatasetError,
    MissingExtraError,
    MissingFileError,
    did_you_mean,
    listing,
)
from berg.core.regular_file import check_regular_file
from berg.features.arrays import HDF5
from berg.fitting.volume_files import VOLUMES, open_volumes

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
    if not path.exists():
        raise MissingFileError(f"There is no file {path}.")
    reader = next((read for ending, read in _READERS.items() if path.name.lower().endswith(ending)), None)
    if reader is None and path.is_dir():
        reader = _stored
    if reader is None:
        raise DatasetError(f"{path} cannot be read as a list. Known are {listing(_READERS, 30)} and zarr.")
    with reading(path):
        found = reader(path, key)
    return found if isinstance(found, dict) else _plain(found)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """What goes wrong with a file is an error of ours that names it."""
    check_regular_file(path)
    try:
        yield
    except (DatasetError, MissingFileError, CorruptedFileError):
        raise
    except ImportError as error:
        raise MissingExtraError(
            f'{path.name} needs {error.name or error}, which is not installed. Type:  pip install "berg[export]"'
        ) from error
    except (OSError, ValueError, KeyError, TypeError, EOFError, RuntimeError) as error:
        raise CorruptedFileError(f"{path} cannot be read: {error}.") from error
    except Exception as error:  # nibabel and the XML and zip readers have errors of their own, without a common parent
        if type(error).__module__.partition(".")[0] in ("nibabel", "xml", "zipfile", "zlib"):
            raise CorruptedFileError(f"{path} cannot be read: {error}.") from error
        raise


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


def array_keys(group: Any) -> list[str]:
    """The names of all arrays in an HDF5 file or zarr group, those in groups too (``a/b``)."""
    found = []
    for name in group:
        below = group[name]
        found += [name] if hasattr(below, "shape") else [f"{name}/{key}" for key in array_keys(below)]
    return found


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
    return np.load(path, allow_pickle=False)


def _npz(path: Path, key: str | None) -> Any:
    with np.load(path, allow_pickle=False) as arrays:
        return arrays[chosen_key(path, list(arrays), key)]


def _hdf5(path: Path, key: str | None) -> Any:
    import h5py

    with h5py.File(path, "r") as file:
        return file[chosen_key(path, array_keys(file), key)][()]


def _stored(path: Path, key: str | None) -> Any:
    import zarr

    opened: Any = zarr.open(path, mode="r")
    return opened[...] if isinstance(opened, zarr.Array) else opened[chosen_key(path, array_keys(opened), key)][...]


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
    with open_volumes(path) as image:
        return np.squeeze(np.asarray(image.dataobj))


def _gifti(path: Path, key: str | None) -> Any:
    import nibabel

    image = nibabel.load(path)
    values = image.darrays[0].data
    names = {own.key: getattr(own, "label", "") for own in image.labeltable.labels}  # one without text has none
    if len(image.darrays) != 1:
        raise DatasetError(f"{path} holds {len(image.darrays)} arrays; a list of labels has one.")
    return np.array([names.get(int(value), "") for value in values]) if len(names) > 1 else values


def _annotation(path: Path, key: str | None) -> Any:
    from nibabel import freesurfer

    labels, _, names = freesurfer.read_annot(path)
    known = np.array([*_plain(names), ""])
    return known[labels]  # -1, of no region, is the last


def _events(path: Path, key: str | None) -> Any:
    import mne

    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # of pandas, in mne
        epochs = mne.read_epochs(path, preload=False, verbose="error")
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
