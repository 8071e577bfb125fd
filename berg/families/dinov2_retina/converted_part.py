"""One part of the weights of a subject, as `berg convert` writes it: what loading would compute of the published one.

``backbone/...`` and ``heads/...`` are the networks with all updates in their matrices, ``layers`` the numbers of the
blocks that are read, ``backbone_sha256`` and ``heads_sha256`` what tells whether two of them are the same;
``look.layers`` and ``look.places`` what each vertex looks at, ``readout.weight`` and ``readout.bias`` its regression.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from berg.core.exceptions import CorruptedFileError
from berg.families.dinov2_retina.features import TrunkWeights
from berg.families.dinov2_retina.published_part import PublishedPart
from berg.families.dinov2_retina.readout import Looks
from berg.weights.safetensors_files import read_rows, read_safetensors

_PER_VERTEX = ("look.layers", "look.places", "readout.weight", "readout.bias")
_OF_ALL = ("layers", "backbone_sha256", "heads_sha256")


@dataclass(frozen=True)
class ConvertedPart:
    """The arrays of one part, mapped; rows of vertices are read when they are asked for."""

    path: Path
    arrays: dict[str, NDArray[Any]]

    @property
    def n_vertices(self) -> int:
        """How many vertices the part has."""
        return len(self.arrays["readout.bias"])

    def checked(self) -> ConvertedPart:
        """The part as it is: its values were looked at when it was made."""
        return self

    def trunk(self) -> TrunkWeights:
        """The networks; mapped, and not read as long as others with the same hash are in memory."""
        backbone, heads = (self.arrays[f"{half}_sha256"].tobytes().hex() for half in ("backbone", "heads"))
        layers = tuple(map(int, self.arrays["layers"]))
        return TrunkWeights(layers, backbone, heads, lambda: self._half("backbone/"), lambda: self._half("heads/"))

    def looks(self, rows: Tensor) -> Looks:
        """What some of the vertices look at."""
        return Looks(self._rows("look.layers", rows), self._rows("look.places", rows))

    def readout(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Weights, shape (n_rows, W), and offsets of some of the vertices."""
        return self._rows("readout.weight", rows), self._rows("readout.bias", rows)

    def _half(self, prefix: str) -> dict[str, Tensor]:
        return {
            name.removeprefix(prefix): torch.from_numpy(array)
            for name, array in self.arrays.items()
            if name.startswith(prefix)
        }

    def _rows(self, name: str, rows: Tensor) -> Tensor:
        read = read_rows(self.path, name, rows.numpy())
        if not np.isfinite(read).all():
            raise CorruptedFileError(
                f"{self.path}: '{name}' has NaN or infinite values. Make it anew with berg convert."
            )
        return torch.from_numpy(read)


def read_converted(path: Path) -> ConvertedPart:
    """The part in a converted file.

    Raises
    ------
    CorruptedFileError
        If the file is not whole, or has not what a part has.
    """
    arrays = read_safetensors(path, mapped=True)
    missing = [name for name in (*_PER_VERTEX, *_OF_ALL) if name not in arrays]
    if missing or len({len(arrays[name]) for name in _PER_VERTEX}) > 1:
        raise CorruptedFileError(
            f"{path} is no converted part of this model (missing: {missing[0] if missing else 'rows of vertices'}). "
            "Remove it, and make it anew with:  berg convert"
        )
    return ConvertedPart(path, arrays)


def converted_arrays(part: PublishedPart) -> dict[str, NDArray[Any]]:
    """The arrays of the converted form of a published part."""
    trunk, rows = part.trunk(), torch.arange(part.n_vertices)
    looks, (weight, bias) = part.looks(rows), part.readout(rows)
    of_vertices = dict(zip(_PER_VERTEX, (looks.layers, looks.places, weight, bias), strict=True))
    halves = (("backbone/", trunk.backbone()), ("heads/", trunk.heads()))
    tensors = {prefix + name: tensor for prefix, half in halves for name, tensor in half.items()}
    return {name: tensor.numpy() for name, tensor in (tensors | of_vertices).items()} | {
        "layers": np.array(trunk.layers),
        "backbone_sha256": _bytes_of(trunk.backbone_hash),
        "heads_sha256": _bytes_of(trunk.heads_hash),
    }


def _bytes_of(digest: str) -> NDArray[np.uint8]:
    return np.frombuffer(bytes.fromhex(digest), np.uint8)
