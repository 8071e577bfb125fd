"""Which row of which part each vertex has.

Part 1 has the vertices that ``part1_voxel_indices.pt`` lists. Part 2 has, told by its number of vertices, either all of
the surface, of which those of part 1 are replaced, or all others, ascending.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from berg.core.exceptions import CorruptedFileError, listing
from berg.weights.pt_files import read_pt

Indices = NDArray[np.intp]


@dataclass(frozen=True)
class Joined:
    """For each vertex of the surface, left hemisphere first, its part (0 or 1) and its row there."""

    part: Indices
    row: Indices


def join_parts(n_all: int, first: Indices, n_second: int, path: Path) -> Joined:
    """Where each vertex lies.

    Parameters
    ----------
    n_all
        Vertices of the surface.
    first
        The vertices of part 1, in the order of its rows.
    n_second
        Vertices of part 2.
    path
        Of part 2, for the error.

    Raises
    ------
    CorruptedFileError
        If part 2 has neither all vertices nor those that part 1 has not.

    Examples
    --------
    >>> joined = join_parts(5, np.array([3, 0]), 3, Path("part2.pth"))
    >>> joined.part.tolist(), joined.row.tolist()
    ([0, 1, 1, 0, 1], [1, 0, 1, 0, 2])
    """
    part = np.ones(n_all, np.intp)
    part[first] = 0
    if n_second not in (n_all, n_all - len(first)):
        raise CorruptedFileError(
            f"{path} has {n_second:,} vertices beside {len(first):,} of part 1; expected are all {n_all:,}, or the "
            f"{n_all - len(first):,} that part 1 has not. The files are not of one publication; get them again."
        )
    row = np.arange(n_all) if n_second == n_all else np.cumsum(part) - 1
    row[first] = np.arange(len(first))
    return Joined(part, row)


def read_first_vertices(path: Path, subject: str, n_all: int, n_first: int) -> Indices:
    """The vertices of part 1 of a subject, in the order of its rows.

    Parameters
    ----------
    n_first
        How many vertices part 1 has.

    Raises
    ------
    CorruptedFileError
        If the file has no such list, or one that is not of vertices, each once.
    """
    content = read_pt(path)
    if not isinstance(content, dict) or subject not in content:
        held = listing(map(str, content)) if isinstance(content, dict) else type(content).__name__
        raise CorruptedFileError(f"{path} has no vertices of {subject}; it has {held}. Get it again.")
    found = content[subject]
    indices = found.numpy() if isinstance(found, torch.Tensor) else np.asarray(found)
    if indices.ndim != 1 or indices.dtype.kind not in "iu" or len(np.unique(indices)) != len(indices):
        raise CorruptedFileError(
            f"{path}: '{subject}' is no list of whole numbers, each once (shape {indices.shape}, {indices.dtype}). "
            "Get it again."
        )
    if len(indices) != n_first or (n_first and not (indices.min() >= 0 and indices.max() < n_all)):
        raise CorruptedFileError(
            f"{path}: '{subject}' names {len(indices):,} vertices for {n_first:,} of part 1, or some outside the "
            f"{n_all:,} of the surface. The files are not of one publication; get them again."
        )
    return indices.astype(np.intp)
