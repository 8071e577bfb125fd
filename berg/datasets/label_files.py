"""Lists of names and numbers in files: presentations, splits, labels of units, masks."""

from __future__ import annotations

import csv
import gzip
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from berg.core.exceptions import (
    DatasetError,
    did_you_mean,
    listing,
)
from berg.datasets.epoch_files import open_epochs
from berg.datasets.grayordinates import UNLABELLED, header_of, is_cifti, values_of_map
from berg.datasets.surface_files import open_surface
from berg.datasets.volume_files import VOLUMES, open_volumes, read_volume
from berg.stimuli.arrays import HDF5, array_keys, npz_names, open_npy, open_npz, open_zarr, zarr_array
from berg.system.file_errors import check_readable, reading
from berg.system.hdf5_files import has_array, hdf5_values, open_hdf5
from berg.system.memory import size_words

Labels = NDArray[Any] | dict[str, Any]
Reader = TypeVar("Reader", bound=Callable[..., Any])


def read_labels(path: Path, key: str | None = None, *, as_text: bool = False) -> Labels:
    """The numbers or names in a file.

    Parameters
    ----------
    path
        ``.npy``, ``.npz``, HDF5, zarr; ``.tsv``, ``.csv`` (with a head line; also ``.gz``), ``.txt`` (one a line),
        ``.json``; NIfTI or MGH; GIFTI (labels, shapes), CIFTI (labels, maps) and FreeSurfer's ``.annot``;
        ``-epo.fif`` (events).
    key
        The array in a file of several, the column, the map, or the key (``a.b`` for b in a).
    as_text
        Leave what stands in a text file as it is written: ``1.10`` and ``007`` are names then. Else texts become
        numbers as in `numbers_or_names`.

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
    reader = reader_of(path, _READERS, _stored, "a list")
    with reading(path):
        found = reader(path, key)
        if isinstance(found, list):
            return _text_array(path, found) if as_text else numbers_or_names(found, _text_array(path, found))
    return found if isinstance(found, dict) else _plain(found)


def reader_of(path: Path, readers: Mapping[str, Reader], of_folder: Reader, what: str) -> Reader:
    """What reads a file, by the ending of its name; `of_folder` reads folders of zarr with any name.

    Raises
    ------
    MissingFileError
        If there is no such file.
    DatasetError
        For an ending that is not among those of `readers`; `what` says what the file is wanted as.
    """
    check_readable(path)
    reader = next((read for ending, read in readers.items() if path.name.lower().endswith(ending)), None)
    if reader is None and path.is_dir():
        reader = of_folder
    if reader is None:
        raise DatasetError(f"{path} cannot be read as {what}. Known are {listing(readers, 30)} and zarr.")
    return reader


def chosen_key(path: Path, keys: list[str], key: str | None) -> str:
    """The key that was asked for, or the only one.

    Raises
    ------
    DatasetError
        If there are several, or it is not there.
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


def _table(path: Path, key: str | None) -> list[str]:
    rows = csv.reader(_text_lines(path), delimiter="\t" if ".tsv" in path.suffixes else ",", strict=True)
    head = next(rows, None)
    if not head:
        raise DatasetError(f"{path} is empty; its first line must name the columns.")
    name = chosen_key(path, head, key)
    if head.count(name) > 1:
        raise DatasetError(f"{path} has {head.count(name)} columns called '{name}'. Give each a name of its own.")
    return _column(path, rows, head.index(name), len(head))


def _column(path: Path, rows: Any, place: int, n_columns: int) -> list[str]:
    found: list[str] = []
    blank = None  # where empty lines began; after the last row they say nothing
    for row in rows:
        if not row:
            blank = blank or rows.line_num
        elif blank or len(row) != n_columns:
            number, n_values = (blank, 0) if blank else (rows.line_num, len(row))
            raise DatasetError(f"{path}, line {number}: {n_values} values for {n_columns} columns.")
        else:
            found.append(row[place])
    return found


def _text_lines(path: Path) -> Iterator[str]:
    """The lines of a text file with their ends; a mark of the order of bytes at its beginning is left out."""
    opened: Any = gzip.open if path.suffix == ".gz" else open
    most = max(_MOST_UNPACKED, _MOST_RATIO * path.stat().st_size)
    n_read = 0
    with opened(path, "rt", encoding="utf-8-sig", newline="") as file:
        while line := file.readline(_MOST_UNPACKED):
            n_read += len(line)
            if n_read > most:
                raise DatasetError(
                    f"{path} unpacks to more than {size_words(most)}, which no list of labels does. Save it unpacked "
                    "if it is meant so."
                )
            if "\0" in line:
                raise DatasetError(f"{path} holds a null character, which no text has. Save it as UTF-8 text.")
            yield line


def _lines(path: Path, key: str | None) -> list[str]:
    text = "".join(_text_lines(path))
    return [line for line in re.split("\r\n|\n|\r", text) if line.strip()]  # splitlines would cut at U+2028, too


def _text_array(path: Path, texts: list[str]) -> NDArray[Any]:
    """Texts as an array, each place of which is as long as the longest."""
    longest = max(map(len, texts), default=0)
    if 4 * longest * len(texts) > _MOST_ARRAY_BYTES:
        raise DatasetError(f"{path} holds a text of {longest:,} characters. Is it the right file, or column?")
    return np.array(texts, str)


_MOST_UNPACKED, _MOST_RATIO = 2**23, 50  # characters of a packed file: so many, or so many times its size
_MOST_ARRAY_BYTES = 2**30

_WHOLE = re.compile("-?(0|[1-9][0-9]{0,17})")  # as a number is written; int() takes 1_0, ²x10 as full-width, too
_NUMBER = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]{1,3})?")
_LEADING_ZERO = re.compile("[-+]?0[0-9]")  # 007 is a name: as a number it would lose its zeros
_LONG = re.compile("[-+]?[0-9]{17,}")  # as a number it would lose its last digits
MISSING = ("", "n/a", "nan", "NaN")


def numbers_or_names(texts: Sequence[str], names: NDArray[Any] | None = None) -> NDArray[Any]:
    """Numbers if all texts are numbers, missing ones (empty, ``n/a``, ``nan``) among them as NaN; else the texts.

    Numbers are written as people write them, in digits 0 to 9, with a point and an exponent; ``1_0``, ``007`` and
    ``inf`` are names. Two texts that differ never become one number: of ``1.10`` and ``1.1``, both stay texts.

    >>> numbers_or_names(["1", "2"]), numbers_or_names(["0.5", "n/a"]), numbers_or_names(["1", "Oz"])
    (array([1, 2]), array([0.5, nan]), array(['1', 'Oz'], dtype='<U2'))
    >>> numbers_or_names(["1.10", "1.1"])
    array(['1.10', '1.1'], dtype='<U4')
    """
    as_they_stand = np.array(texts, str) if names is None else names
    different = set(texts)
    if all(map(_WHOLE.fullmatch, different)) and "-0" not in different:
        return np.array([int(text) for text in texts], np.int64)
    if not all(map(_is_number, different)):
        return as_they_stand
    values = {text: np.nan if text.strip() in MISSING else float(text) for text in different}
    present = [value for value in values.values() if not np.isnan(value)]
    are_one = len(set(present)) < len(present) or any(map(np.isinf, present))
    return as_they_stand if are_one else np.array([values[text] for text in texts], float)


def _is_number(text: str) -> bool:
    own = text.strip(" \t")
    is_number = _NUMBER.fullmatch(own) is not None and not _LEADING_ZERO.match(own) and not _LONG.fullmatch(own)
    return is_number or own in MISSING


def whole_numbers_or_names(labels: Any) -> NDArray[Any]:
    """Labels as names: whole numbers as they are, if all are written so, and everything else as its text.

    >>> whole_numbers_or_names(np.array(["1", "10"])), whole_numbers_or_names(np.array(["1.10", "2"]))
    (array([ 1, 10]), array(['1.10', '2'], dtype='<U4'))
    """
    found = np.asarray(labels)
    if found.dtype.kind == "U" and found.size and all(map(_WHOLE.fullmatch, texts := np.unique(found).tolist())):
        return found if "-0" in texts else found.astype(np.int64)
    return found


def _json(path: Path, key: str | None) -> Any:
    text = "".join(_text_lines(path))
    found = _at_key(path, json.loads(text, object_pairs_hook=partial(_without_doubles, path)), key)
    if not isinstance(found, list) or not any(isinstance(item, str) for item in found):
        return found if isinstance(found, dict) else np.asarray(found)
    if not all(isinstance(item, (str, int, float)) and not isinstance(item, bool) for item in found):
        raise DatasetError(f"{path} holds a list of names with true, false, null or lists in it. Put names in quotes.")
    as_written: list[str] = _at_key(path, json.loads(text, parse_float=str, parse_int=str, parse_constant=str), key)
    return as_written  # among names, 1.10 is no number


def _at_key(path: Path, found: Any, key: str | None) -> Any:
    for step in (key or "").split(".") if key else ():
        keys = list(found) if isinstance(found, dict) else []
        found = found[chosen_key(path, keys, step)]
    return found


def _without_doubles(path: Path, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise DatasetError(f"{path}: the key '{twice}' stands twice. Give each a name of its own.")
    return found


def _volume(path: Path, key: str | None) -> Any:
    return _map(path, key) if is_cifti(path) else np.squeeze(read_volume(path))


def _map(path: Path, key: str | None) -> Any:
    """A map of a CIFTI file: one value, or the name of its label, for each grayordinate."""
    with open_volumes(path) as image:
        header = header_of(path, image)
        if not header.names:
            raise DatasetError(f"{path} is a series; a list of labels is a map (.dscalar.nii, .dlabel.nii).")
        name = chosen_key(path, header.names, key)
        if header.names.count(name) > 1:
            raise DatasetError(f"{path} has {header.names.count(name)} maps '{name}'. Give each a name of its own.")
        return values_of_map(path, header, image.dataobj, header.names.index(name))


def _gifti(path: Path, key: str | None) -> Any:
    image = open_surface(path)
    if len(image.darrays) != 1:
        raise DatasetError(f"{path} holds {len(image.darrays)} arrays; a list of labels has one.")
    values = image.darrays[0].data
    names = {own.key: getattr(own, "label", "") for own in image.labeltable.labels}  # one without text has none
    if len(names) < 2:
        return values
    if values.dtype.kind == "f" and not np.array_equal(values, np.round(values)):
        raise DatasetError(f"{path} has a table of labels, and values that are not whole numbers.")
    texts = [names.get(int(value), "") for value in values]
    return np.array(["" if text == UNLABELLED else text for text in texts])


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
    return [names[code] for code in epochs.events[:, 2]]


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
    """One label per unit; of a map of regions to units (or to marks), the names of all regions of a unit.

    >>> per_unit({"V1": [0, 1], "early": [1]}, 3)
    array(['V1', 'V1;early', ''], dtype='<U8')
    """
    if not isinstance(labels, dict):
        return labels
    names: list[list[str]] = [[] for _ in range(n_units)]
    for name, members in labels.items():
        if ";" in str(name):
            raise DatasetError(f"Region '{name}' has a semicolon, which divides the regions of a unit. Rename it.")
        for unit in np.unique(_members(name, members, n_units, first)):
            if not 0 <= unit < n_units:
                raise DatasetError(f"Region '{name}' names unit {unit + first:,}; there are {n_units:,} units.")
            names[unit].append(str(name))
    return np.array([";".join(own) for own in names])


def _members(name: str, members: Any, n_units: int, first: int) -> NDArray[np.intp]:
    """The units of a region, as indices."""
    try:
        given = np.ravel(np.asarray(members))
    except ValueError:  # lists of different lengths
        given = np.asarray(members, object)
    if not given.size:
        return np.empty(0, np.intp)
    if given.dtype.kind == "b" and len(given) == n_units:
        return np.flatnonzero(given)
    only_marks = given.dtype.kind in "iu" and len(given) > 2 and set(given.tolist()) <= {0, 1}
    if given.dtype.kind not in "iu" or only_marks:
        raise DatasetError(
            f"Region '{name}' holds {listing(given, 5)}. Allowed are the numbers of its units, or true or false for "
            f"each of the {n_units:,} units."
        )
    return given.astype(np.intp) - first
