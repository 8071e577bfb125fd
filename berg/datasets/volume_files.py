"""Volumes in NIfTI and MGH files, and the grayordinates of CIFTI-2, which is NIfTI-2 with a header of its own."""

from __future__ import annotations

import gzip
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from berg.core.exceptions import CorruptedFileError, DatasetError
from berg.datasets.grayordinates import check_declared, is_cifti
from berg.system.memory import size_words

VOLUMES = (".nii", ".nii.gz", ".mgh", ".mgz")
CIFTI = (".dscalar.nii", ".dtseries.nii", ".dlabel.nii")
_DEFLATE = 1032  # times smaller, at most


def is_compressed(path: Path) -> bool:
    """Whether the file can only be read from its beginning."""
    return path.suffix.lower() in (".gz", ".mgz")


@contextmanager
def open_volumes(path: Path) -> Iterator[Any]:
    """The image of nibabel; what is mapped of it can be read afterwards too, a compressed one by `inflated`.

    Raises
    ------
    CorruptedFileError
        If its header says that it holds more than the file can.
    DatasetError
        If its values are colours or complex numbers, or it is a compressed file of CIFTI.
    """
    import nibabel
    from nibabel.fileholders import FileHolder

    if path.suffix.lower() != ".mgh":
        if is_cifti(path):
            check_declared(path)
        image = nibabel.load(path, mmap="r")
        _check_values(path, image)
        yield image
        return
    with path.open("rb") as file:  # nibabel itself would leave it open
        image = nibabel.MGHImage.from_file_map({"image": FileHolder(fileobj=file)}, mmap="r")
        _check_values(path, image)
        yield image


def _check_values(path: Path, image: Any) -> None:
    dtype, shape = np.dtype(image.get_data_dtype()), tuple(int(length) for length in image.shape)
    if dtype.kind not in "biuf":
        kind = "complex numbers" if dtype.kind == "c" else "colours" if dtype.names else f"values of the kind {dtype}"
        raise DatasetError(f"{path} holds {kind}. Save one real number per voxel, such as the magnitude.")
    if not shape or min(shape) < 1:
        raise CorruptedFileError(f"{path} has the shape {shape}, in which there is no value.")
    n_bytes, n_there = dtype.itemsize * math.prod(shape), path.stat().st_size
    most = _DEFLATE * n_there if is_compressed(path) else n_there
    if getattr(image.dataobj, "offset", 0) + n_bytes > most:
        raise CorruptedFileError(
            f"{path} is cut off or damaged: its header says that {shape} values follow, {size_words(n_bytes)}; the "
            f"file has {size_words(n_there)}. Copy it again."
        )


@contextmanager
def inflated(path: Path, image: Any) -> Iterator[Any]:
    """A compressed image, from its beginning; at the end the file is read to its checksum.

    Raises EOFError, OSError or zlib.error if it is cut off, or its bytes are not those that were written.
    """
    from nibabel.fileholders import FileHolder

    with gzip.open(path) as file:
        yield type(image).from_file_map({"image": FileHolder(fileobj=file)}, mmap=False)
        while file.read(2**20):
            pass


def read_volume(path: Path) -> NDArray[Any]:
    """All values of an image."""
    with open_volumes(path) as image:
        if not is_compressed(path):
            return np.asarray(image.dataobj)
        with inflated(path, image) as opened:
            return np.asarray(opened.dataobj)
