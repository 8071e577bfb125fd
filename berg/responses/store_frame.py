"""A store of responses without its responses: groups, labels, chunks, codecs, and how they get to the disk."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import xarray as xr
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec
from zarr.errors import ZarrUserWarning

from berg.core.exceptions import InvalidParameterError
from berg.responses.blocks import CHECKSUMS, DAMAGED, ENCODED, MISSING, STATUS, create_ledger
from berg.responses.labelled import Labelled, with_texts
from berg.system.durable_file import flush

Compression = Literal["none", "zstd", "lz4"]
Identity = Mapping[str, Any]
IDENTITY = "berg_store"  # the attribute of the root group


def write_frame(
    path: Path, labelled: Mapping[str, Labelled], identity: Identity, block_size: int, compression: Compression
) -> Path:
    """Write a store without responses beside the path.

    Returns
    -------
    new
        The folder; it is the store of the path as soon as it has that name.
    """
    new = path.with_name(f".{path.name}.new")
    shutil.rmtree(new, ignore_errors=True)  # left by a process that was killed
    zarr.open_group(new, mode="w")
    datasets = list(_datasets(labelled))
    arrays = [f"{group}/{_write_labels(new, group, dataset, block_size, compression)}" for group, dataset in datasets]
    stored = {**identity, "block_size": block_size, "arrays": arrays, CHECKSUMS: "crc32c"}
    zarr.open_group(new, mode="r+").update_attributes({IDENTITY: stored})
    _consolidate(new)
    create_ledger(new, stored, datasets[0][1].sizes["stimulus"])
    return new


def _datasets(labelled: Mapping[str, Labelled]) -> Iterator[tuple[str, xr.Dataset]]:
    """The group of each array in the store, and its Dataset."""
    for name, outputs in labelled.items():
        if isinstance(outputs, xr.Dataset):
            yield name, outputs
        else:
            yield from (("/".join(filter(None, (name, node.name))), node.to_dataset()) for node in outputs.leaves)


def _write_labels(root: Path, group: str, dataset: xr.Dataset, block_size: int, compression: Compression) -> str:
    """Write the labels of a group, and the empty array of its responses. Returns the name of the array."""
    ((name, array),) = dataset.data_vars.items()
    labels = with_texts(dataset.drop_vars(str(name)))
    n_stimuli = array.sizes["stimulus"]
    flags = {"flag_values": [MISSING, ENCODED, DAMAGED], "flag_meanings": "missing encoded damaged"}
    labels.coords[STATUS] = ("stimulus", np.zeros(n_stimuli, np.uint8), flags)
    encoding: dict[Any, dict[str, Any]] = {
        label: {"compressors": (ZstdCodec(), Crc32cCodec())} for label in labels.variables
    }
    encoding[STATUS] = {"chunks": (block_size,), "compressors": _checked(), "write_empty_chunks": False}
    labels.to_zarr(root, group=group or None, mode="a", zarr_format=3, consolidated=False, encoding=encoding)
    zarr.open_group(root, path=group, mode="r+").create_array(
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
    codecs: dict[str, tuple[Any, ...]] = {
        "none": _checked(),
        "zstd": _checked(ZstdCodec(level=3)),
        "lz4": _checked(BloscCodec(cname="lz4", clevel=5, shuffle="shuffle")),
    }
    if compression not in codecs:
        raise InvalidParameterError(f"compression is '{compression}'. Allowed: {', '.join(get_args(Compression))}.")
    return codecs[compression]


def _checked(*codecs: Any) -> tuple[Any, ...]:
    """Codecs, and after them a checksum at the end of the chunk."""
    return (*codecs, Crc32cCodec())


def _consolidate(root: Path) -> None:
    with warnings.catch_warnings():  # zarr 3 warns that it is not in its specification yet; xarray reads it
        warnings.simplefilter("ignore", ZarrUserWarning)
        zarr.consolidate_metadata(str(root), zarr_format=3)


def remove(path: Path) -> None:
    """Remove a file, or a folder that has the name of one."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def flush_chunk(chunk: Path, folder: Path) -> None:
    """Wait until a chunk and its name are on the disk."""
    if chunk.exists():  # one of nothing but fill values is not written
        flush(chunk)
    for parent in chunk.parents:
        if parent.exists():
            flush(parent)
        if parent == folder:
            return
