"""What a fit has done already, kept in its work folder so that an interrupted fit goes on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from berg.weights.safetensors_files import read_safetensors, write_safetensors

Tensors = Mapping[str, NDArray[Any]]


def kept(path: Path, compute: Callable[[], Tensors]) -> Tensors:
    """The tensors of a file, which are computed and written if it is not there.

    Examples
    --------
    >>> import numpy as np
    >>> folder = getfixture("tmp_path")
    >>> [float(kept(folder / "squares.safetensors", lambda: {"x": np.square([number])})["x"][0]) for number in (2, 3)]
    [4.0, 4.0]
    """
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_safetensors(path, compute())
    return read_safetensors(path)
