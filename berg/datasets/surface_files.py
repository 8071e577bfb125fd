"""Values of vertices in GIFTI files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from berg.core.exceptions import DatasetError, UnsafeFileError, listing

_NODES = 2002  # the intent of an array that says to which vertices the others belong


def open_surface(path: Path) -> Any:
    """The image of nibabel; data that lie in other files are refused.

    Raises
    ------
    UnsafeFileError
        If the values lie in another file.
    DatasetError
        If it has no arrays, or of some vertices only.
    """
    from nibabel import gifti

    try:  # of bytes, nibabel knows no folder in which other files could be
        image = gifti.GiftiImage.from_bytes(path.read_bytes())
    except (NotImplementedError, gifti.parse_gifti_fast.GiftiParseError) as error:
        if "ExternalFile" not in str(error):
            raise
        raise UnsafeFileError(
            f"{path} has its values in another file (ExternalFileBinary). Files that read other files are refused; "
            "nothing was opened. Write it with the encoding GZipBase64Binary."
        ) from error
    if not image.darrays or any(array.data is None for array in image.darrays):
        raise DatasetError(f"{path} has an array without values, or none at all.")
    if any(array.intent == _NODES for array in image.darrays):
        raise DatasetError(f"{path} is of some vertices only (NODE_INDEX). Write a value for every vertex.")
    return image


def surface_rows(path: Path, image: Any) -> NDArray[Any]:
    """Shape (n, n_vertices): the arrays of the file, or the columns of its only one."""
    arrays = [np.asarray(own.data) for own in image.darrays]
    if len(arrays) == 1 and arrays[0].ndim == 2:
        return arrays[0].T
    lengths = {own.shape for own in arrays}
    if len(lengths) != 1 or any(own.ndim != 1 for own in arrays):
        raise DatasetError(f"{path} holds {len(arrays)} arrays of the shapes {listing(lengths)}; rows are all alike.")
    return np.stack(arrays)


def structure_of(image: Any) -> str | None:
    """The part of the brain that the vertices are of, such as ``CortexLeft``; None if the file does not say.

    Raises ValueError if its arrays are of several.
    """
    metas = [image.meta, *(array.meta for array in image.darrays)]
    named = {str(meta["AnatomicalStructurePrimary"]) for meta in metas if "AnatomicalStructurePrimary" in (meta or {})}
    if len(named) > 1:
        raise ValueError(f"its arrays are of {listing(sorted(named))}")
    return named.pop() if named else None
