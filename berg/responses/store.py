"""Responses on disk, written block by block: a zarr store that can be gone on with after any interruption.

A store is a folder in zarr format 3 that xarray opens. Each array of responses has its labels beside it, as
`label_responses` makes them, and ``status``, one number per stimulus: 0 missing, 1 encoded, 2 damaged (a
stimulus that could not be read; its row is NaN).

A block of stimuli is one chunk of each array. ``status`` is also the ledger: its chunk of a block is written
when the responses of the block are on the disk. Chunks appear whole under their name or not at all, so
a block is done exactly when its status says so.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import xarray as xr
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, ZstdCodec
from zarr.errors import ZarrUserWarning

from berg.core.exceptions import (
    BERGError,
    CorruptedFileError,
    InvalidParameterError,
    MissingFileError,
    StorageError,
    StoreIncompleteError,
    StoreMismatchError,
)
from berg.responses.labelled import Labelled, with_texts
from berg.responses.regions import index_regions

Compression = Literal["none", "zstd", "lz4"]
Identity = Mapping[str, Any]
STATUS = "status"
MISSING, ENCODED, DAMAGED = 0, 1, 2
_IDENTITY = "berg_store"
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_PARTIAL = "*.partial"  # what zarr calls a chunk that it has not renamed yet


class IncompleteStoreWarning(UserWarning):
    """Responses that are not all there yet."""


@dataclass(frozen=True)
class _Array:
    """One array of responses in a store."""

    responses: zarr.Array[Any]
    status: zarr.Array[Any]
    folder: Path


class ResponseStore:
    """A store that blocks are written to; made by `create` or `reopen`, and held alone (`berg.responses.lock`).

    Attributes
    ----------
    identity
        What the store is of. Whoever goes on with it must bring the same (`check_same`).
    block_size
        Stimuli per block; the last block may have fewer.

    Parameters
    ----------
    alone
        False: others write blocks of their own at the same time, and what they have not finished is left to them.
        Then the store is looked at once more before each block is written: it could have been begun anew.
    """

    def __init__(self, path: Path, *, alone: bool = True) -> None:
        self.path, self.alone = path, alone
        self.identity = read_identity(path)
        self.block_size: int = self.identity["block_size"]
        with _typed_errors(path):
            root = zarr.open_group(path, mode="r+", use_consolidated=False)
            self._arrays = [_open_array(root, path, place) for place in self.identity["arrays"]]
            for left_over in path.rglob(_PARTIAL) if alone else ():
                left_over.unlink()

    @classmethod
    def create(
        cls,
        path: Path,
        labelled: Mapping[str, Labelled],
        identity: Identity,
        block_size: int,
        compression: Compression = "none",
    ) -> ResponseStore:
        """A new store, with labels and without responses; it has its name when it is whole.

        Parameters
        ----------
        labelled
            Name -> responses with labels, of which the values are not looked at. The name "" stands for the
            root of the store.
        identity
            Texts and numbers, nested as one likes.
        """
        new = path.with_name(f".{path.name}.new")
        shutil.rmtree(new, ignore_errors=True)  # left by a process that was killed
        places = {}
        with _typed_errors(path):
            zarr.open_group(new, mode="w")
            for name, dataset in _datasets(labelled):
                places[name] = _write_labels(new, name, dataset, block_size, compression)
            stored = {
                **identity,
                "block_size": block_size,
                "arrays": [f"{name}/{array}" for name, array in places.items()],
            }
            zarr.open_group(new, mode="r+").update_attributes({_IDENTITY: stored})
            _consolidate(new)
            new.rename(path)
            _flush(path.parent)
        return cls(path)

    @property
    def n_stimuli(self) -> int:
        """How many stimuli the store is for."""
        return int(self._arrays[0].responses.shape[0])

    @property
    def n_bytes(self) -> int:
        """What all responses take on the disk without compression."""
        return sum(array.responses.cdata_shape[0] * _chunk_bytes(array.responses) for array in self._arrays)

    def stored_bytes(self) -> int:
        """What the responses that are there take on the disk."""
        folders = (array.folder / array.responses.name.split("/")[-1] / "c" for array in self._arrays)
        return sum(chunk.stat().st_size for folder in folders for chunk in folder.rglob("*") if chunk.is_file())

    def block(self, index: int) -> slice:
        """The stimuli of a block."""
        return slice(index * self.block_size, min((index + 1) * self.block_size, self.n_stimuli))

    def status(self) -> NDArray[np.uint8]:
        """Shape (n_stimuli,): what is known of each stimulus, in all arrays."""
        found = np.array([np.asarray(array.status[:]) for array in self._arrays], np.uint8)
        return np.where((found == MISSING).any(axis=0), MISSING, found.max(axis=0)).astype(np.uint8)

    def missing_blocks(self) -> list[int]:
        """The blocks to be done, in order."""
        return [int(block) for block in np.unique(np.flatnonzero(self.status() == MISSING) // self.block_size)]

    def write(self, index: int, responses: Sequence[NDArray[np.float32]], status: NDArray[np.uint8]) -> None:
        """Write a block: first all responses, and when they are on the disk, that it is done.

        Parameters
        ----------
        responses
            One array per array of the store, shape (stimuli of the block, ...).
        status
            Shape (stimuli of the block,).
        """
        if not self.alone:
            check_same(self.path, read_identity(self.path), self.identity)
        with _typed_errors(self.path):
            for array, values in zip(self._arrays, responses, strict=True):
                array.responses[self.block(index)] = values
                _flush_chunk(array.folder / array.responses.name.split("/")[-1], array.responses, index)
            for array in self._arrays:
                array.status[self.block(index)] = status
                _flush_chunk(array.folder / STATUS, array.status, index)


def open_responses(path: str | Path, incomplete: Literal["raise", "warn"] = "raise") -> Labelled:
    """The responses in a store, read from the disk when they are looked at.

    Parameters
    ----------
    incomplete
        What happens where stimuli are missing: their rows are NaN, and their ``status`` is 0.

    Returns
    -------
    labelled
        A Dataset, or a DataTree for several outputs or several models; as `label_responses` makes them, and with
        the coordinate ``status``.

    Raises
    ------
    StoreIncompleteError
        It says how many stimuli are missing.
    MissingFileError, StoreMismatchError
        Where there is nothing, or something else.
    """
    store = Path(path)
    identity = read_identity(store)
    labelled = _open_labelled(store, [place.rpartition("/")[0] for place in identity["arrays"]])
    n_missing = _n_missing(labelled)
    if n_missing:
        words = (
            f"{store} lacks {n_missing:,} of {_first(labelled).sizes['stimulus']:,} stimuli. "
            "To go on where it was, make the call that began it once more (the same models, stimuli and options)."
        )
        if incomplete == "raise":
            raise StoreIncompleteError(f'{words} To look at what is there: open_responses(..., incomplete="warn").')
        warnings.warn(words, IncompleteStoreWarning, stacklevel=2)
    return labelled


def _open_labelled(store: Path, groups: list[str]) -> Labelled:
    if groups == [""]:
        dataset: xr.Dataset = xr.open_zarr(store, chunks=None)
        dataset.attrs.pop(_IDENTITY)
        return index_regions(dataset)
    # In their order: xarray's open_datatree sorts by name, from_dict by depth.
    first_level = {group.split("/")[0]: xr.Dataset() for group in groups}
    datasets = {group: index_regions(xr.open_zarr(store, group=group, chunks=None)) for group in groups}
    return xr.DataTree.from_dict(first_level | datasets)


def count_missing(path: Path) -> int:
    """How many stimuli of a store are not encoded yet."""
    identity = read_identity(path)
    return _n_missing(_open_labelled(path, [place.rpartition("/")[0] for place in identity["arrays"]]))


def read_names(path: Path) -> list[Any]:
    """The names of the stimuli of a store."""
    place = read_identity(path)["arrays"][0].rpartition("/")[0]
    with xr.open_zarr(path, group=place or None, chunks=None) as dataset:
        names: list[Any] = dataset["stimulus"].values.tolist()
    return names


def read_identity(path: Path) -> dict[str, Any]:
    """What a store is of, and how it is laid out."""
    if not path.exists():
        raise MissingFileError(f"There is no store {path}.")
    attributes = _root_attributes(path)
    if _IDENTITY not in attributes:
        raise StoreMismatchError(f"{path} is something else than a store of responses. Give another path.")
    identity: dict[str, Any] = attributes[_IDENTITY]
    return identity


def check_same(path: Path, found: Identity, wanted: Identity) -> None:
    """Raise StoreMismatchError, with each difference, unless a store is of what is wanted.

    Only what both say is compared, so that a store can say more.
    """
    there, here = _flat(found), _flat(wanted)
    known = {key.split(".")[0] for key in here}
    differences = [
        f"{key}: {_shown(there.get(key))} there, {_shown(here.get(key))} here"
        for key in dict.fromkeys([*here, *(key for key in there if key.split(".")[0] in known)])
        if there.get(key) != here.get(key)
    ]
    if differences:
        raise StoreMismatchError(
            f"{path} holds responses of something else ({'; '.join(differences)}). Give what it was begun with, "
            "another path, or overwrite=True (--overwrite) to begin anew."
        )


def remove_store(path: Path) -> None:
    """Remove a store; anything else is refused."""
    read_identity(path)
    gone = path.with_name(f".{path.name}.new")
    shutil.rmtree(gone, ignore_errors=True)
    path.rename(gone)  # at once: half a store under the name would be taken for a whole one
    shutil.rmtree(gone)


def _datasets(labelled: Mapping[str, Labelled]) -> Iterator[tuple[str, xr.Dataset]]:
    """The place of each array in the store, and its Dataset."""
    for name, found in labelled.items():
        if isinstance(found, xr.Dataset):
            yield name, found
        else:
            yield from (("/".join(filter(None, (name, node.name))), node.to_dataset()) for node in found.leaves)


def _write_labels(root: Path, place: str, dataset: xr.Dataset, block_size: int, compression: Compression) -> str:
    """Write labels and the frame of the responses; gives the name of the array."""
    ((name, array),) = dataset.data_vars.items()
    labels = with_texts(dataset.drop_vars(str(name)))
    n_stimuli = array.sizes["stimulus"]
    flags = {"flag_values": [MISSING, ENCODED, DAMAGED], "flag_meanings": "missing encoded damaged"}
    labels.coords[STATUS] = ("stimulus", np.zeros(n_stimuli, np.uint8), flags)
    encoding = {STATUS: {"chunks": (block_size,), "compressors": None, "write_empty_chunks": False}}
    labels.to_zarr(root, group=place or None, mode="a", zarr_format=3, consolidated=False, encoding=encoding)
    zarr.open_group(root, path=place, mode="r+").create_array(
        str(name),
        shape=array.shape,
        chunks=(block_size, *(max(1, length) for length in array.shape[1:])),
        dtype="float32",
        compressors=_codec(compression),
        fill_value=np.nan,
        dimension_names=[str(axis) for axis in array.dims],
        attributes={str(key): _plain(value) for key, value in array.attrs.items()},
    )
    return str(name)


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value


def _codec(compression: Compression) -> Any:
    codecs: dict[str, Any] = {
        "none": None,
        "zstd": ZstdCodec(level=3),
        "lz4": BloscCodec(cname="lz4", clevel=5, shuffle="shuffle"),
    }
    if compression not in codecs:
        raise InvalidParameterError(f"compression is '{compression}'. Allowed: {', '.join(get_args(Compression))}.")
    return codecs[compression]


def _consolidate(root: Path) -> None:
    with warnings.catch_warnings():  # zarr 3 warns that its specification does not have it yet; xarray reads it
        warnings.simplefilter("ignore", ZarrUserWarning)
        zarr.consolidate_metadata(str(root), zarr_format=3)


def _open_array(root: zarr.Group, path: Path, place: str) -> _Array:
    group, _, name = place.rpartition("/")
    responses, status = root[f"{group}/{name}".strip("/")], root[f"{group}/{STATUS}".strip("/")]
    if not isinstance(responses, zarr.Array) or not isinstance(status, zarr.Array):
        raise CorruptedFileError(f"{path} has no responses at '{place}'. Begin anew with overwrite=True (--overwrite).")
    return _Array(responses, status, path / group.strip("/"))


def _root_attributes(path: Path) -> dict[str, Any]:
    """Those in ``zarr.json``, or none."""
    try:
        found = json.loads((path / "zarr.json").read_text(encoding="utf-8"))["attributes"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return found if isinstance(found, dict) else {}


def _chunk_bytes(array: zarr.Array[Any]) -> int:
    return int(np.prod(array.chunks)) * array.dtype.itemsize


def _flush_chunk(folder: Path, array: zarr.Array[Any], index: int) -> None:
    """Bring the chunk of a block to the disk, and its name; one of fill values alone is not written."""
    chunk = folder / array.metadata.encode_chunk_key((index,) + (0,) * (array.ndim - 1))
    if chunk.exists():
        _flush(chunk)
    for parent in chunk.parents:
        if parent.exists():
            _flush(parent)
        if parent == folder:
            return


def _flush(path: Path) -> None:
    if os.name != "posix":  # Windows flushes names by itself, and files only through a writer
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _typed_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if isinstance(error, BERGError):
            raise
        if error.errno in _FULL:
            what = (
                "Make room on that disk (or raise your quota), and make the same call again: it goes on where it was."
            )
        else:
            what = f"Look at its owner and rights with:  ls -ld {path.parent}"
        raise StorageError(f"{path} cannot be written: {error.strerror or error}. {what}") from error


def _first(labelled: Labelled) -> xr.Dataset:
    return labelled if isinstance(labelled, xr.Dataset) else labelled.leaves[0].to_dataset()


def _n_missing(labelled: Labelled) -> int:
    datasets: Iterable[xr.Dataset] = (
        [labelled] if isinstance(labelled, xr.Dataset) else (node.to_dataset() for node in labelled.leaves)
    )
    return int(np.any([dataset[STATUS].values == MISSING for dataset in datasets], axis=0).sum())


def _flat(nested: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in nested.items():
        found |= _flat(value, f"{above}{key}.") if isinstance(value, Mapping) else {f"{above}{key}": value}
    return found


def _shown(value: Any) -> str:
    return "nothing" if value is None else f"{value:,}" if isinstance(value, int) else f"{value!s:.80}"
