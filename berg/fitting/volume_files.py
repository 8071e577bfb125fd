"""Volumes in NIfTI and MGH files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

VOLUMES = (".nii", ".nii.gz", ".mgh", ".mgz")


def is_compressed(path: Path) -> bool:
    """Whether the file can only be read from its beginning."""
    return path.suffix in (".gz", ".mgz")


@contextmanager
def open_volumes(path: Path) -> Iterator[Any]:
    """The image of nibabel; what is mapped of it, and all of a compressed one, can be read afterwards too."""
    import nibabel
    from nibabel.fileholders import FileHolder

    if path.suffix != ".mgh":
        # A compressed file that is read in order must not be begun anew with every block.
        yield nibabel.load(path, mmap="r", keep_file_open=is_compressed(path))
        return
    with path.open("rb") as file:  # nibabel itself would leave it open
        yield nibabel.MGHImage.from_file_map({"image": FileHolder(fileobj=file)}, mmap="r")
