"""The tensors of a recurrent 3-D CNN, read from its two files and checked: names, shapes, numbers.

Most layers keep their weights as they were trained, and use them standardized: see `standardized`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, unflatten

from berg.core.exceptions import CorruptedFileError
from berg.weights.pt_files import read_pt
from berg.weights.safetensors_files import read_safetensors

N_STREAMS = 4
BLOCK_GROUPS = (1, 2, 4)
"""Into how many groups the channels of a stream are divided in each block of the feedforward core."""
_EPSILON = 1e-5  # beside the variance, as the model was trained
PER_UNIT = ("readout.position.mu", "readout.feature.")
"""What names begin with whose tensors have a row per unit."""


def read_tensors(paths: Sequence[Path]) -> dict[str, Tensor]:
    """The tensors of files that belong together, by name.

    Which of the files has a tensor does not matter; one that two of them have must be the same in both.

    Raises
    ------
    CorruptedFileError
        If a file holds anything but named tensors, or two files differ.
    """
    found: dict[str, Tensor] = {}
    for path in paths:
        for name, tensor in _read_file(path).items():
            if name in found and not torch.equal(found[name], tensor):
                raise CorruptedFileError(
                    f"'{name}' of {path} is not that of {paths[0]}. They are not of one publication; get both again."
                )
            found[name] = tensor
    return found


def _read_file(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        return {name: torch.from_numpy(array) for name, array in read_safetensors(path).items()}
    content = read_pt(path)
    if not isinstance(content, dict) or not content:
        raise CorruptedFileError(f"{path} holds a {type(content).__name__}, not named tensors. Get it again.")
    for name, tensor in content.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise CorruptedFileError(f"{path} holds a {type(tensor).__name__} as {name!r:.60}, not a tensor.")
    return content


@dataclass(frozen=True)
class Layer:
    """A linear layer of all streams, its weights as they are used.

    Attributes
    ----------
    weights
        Shape (n_streams, n_outputs, n_inputs of a group, ...).
    biases
        Shape (n_streams, n_outputs); None without.
    """

    weights: Tensor
    biases: Tensor | None = None

    @property
    def n_outputs(self) -> int:
        """Of one stream."""
        return int(self.weights.shape[1])

    def of_groups(self, n_groups: int) -> Tensor:
        """Weights of 1 x 1, shape (n_streams * n_groups, n_inputs, n_outputs) of a group: ``inputs @ weights``."""
        flat = self.weights.flatten(2)
        return unflatten(flat, 1, (n_groups, -1)).flatten(0, 1).mT.contiguous()


class Tensors:
    """Tensors by name; each is checked when it is asked for.

    Parameters
    ----------
    paths
        The files, for messages.
    """

    def __init__(self, tensors: Mapping[str, Tensor], paths: Sequence[Path]) -> None:
        self.tensors, self.paths = tensors, paths

    def has(self, name: str) -> bool:
        """Whether there is such a tensor."""
        return name in self.tensors

    def get(self, name: str, shape: Sequence[int | None]) -> Tensor:
        """A tensor in float32; None in the shape is any length.

        Raises
        ------
        CorruptedFileError
            It names the files and the tensor.
        """
        tensor = self.tensors.get(name)
        if tensor is None:
            raise CorruptedFileError(f"{self._files} have no '{name}'. Get them again.")
        fits = len(shape) == tensor.ndim and all(
            wanted in (None, length) for wanted, length in zip(shape, tensor.shape, strict=True)
        )
        if not fits or not tensor.is_floating_point():
            wanted = " x ".join("any" if length is None else str(length) for length in shape) or "one number"
            raise CorruptedFileError(
                f"{self._files}: '{name}' is {str(tensor.dtype).removeprefix('torch.')} of shape "
                f"{tuple(tensor.shape)} instead of floating-point numbers ({wanted}). Get them again."
            )
        if not torch.isfinite(tensor).all():
            raise CorruptedFileError(f"{self._files}: '{name}' has NaN or infinite values. Get them again.")
        return tensor.float()

    def streams(self, name: str, shape: Sequence[int | None], n_streams: int = N_STREAMS) -> Tensor:
        """The tensors of all streams, of one shape, stacked along a new first axis."""
        first = self.get(f"{name}.0", shape)
        others = [self.get(f"{name}.{stream}", tuple(first.shape)) for stream in range(1, n_streams)]
        return torch.stack([first, *others])

    def of_a_group(self, name: str, n_outputs: int, n_groups: int) -> int:
        """How many outputs of a layer each group has; raise CorruptedFileError if they cannot be divided so."""
        if not n_groups or n_outputs % n_groups:
            raise CorruptedFileError(
                f"{self._files}: the {n_outputs} outputs of '{name}' cannot be divided into {n_groups} groups. Get "
                "them again."
            )
        return n_outputs // n_groups

    def scalar(self, name: str) -> float:
        """One number, of a tensor with no axis or with one."""
        tensor = self.tensors.get(name)
        return float(self.get(name, (1,) if tensor is not None and tensor.ndim else ()).item())

    def layer(
        self,
        name: str,
        shape: Sequence[int | None],
        *,
        gains: bool = True,
        biases: bool = True,
        standardize: bool = True,
        n_streams: int = N_STREAMS,
    ) -> Layer:
        """The layer of all streams; weights standardized if they were used so, with their gains if it has any."""
        weights = self.streams(f"{name}.weights", shape, n_streams)
        found = self._of_outputs(f"{name}.gains", weights.shape[1], n_streams) if gains else None
        if standardize:
            weights = standardized(weights, found)
        return Layer(weights, self._of_outputs(f"{name}.biases", weights.shape[1], n_streams) if biases else None)

    def _of_outputs(self, name: str, n_outputs: int, n_streams: int) -> Tensor:
        """One number per output, shape (n_streams, n_outputs); in the file they are divided into groups."""
        each = [self.get(f"{name}.{stream}", (None, None)).flatten() for stream in range(n_streams)]
        if any(len(own) != n_outputs for own in each):
            raise CorruptedFileError(
                f"{self._files}: '{name}' has {', '.join(str(len(own)) for own in each)} values for {n_outputs} "
                "outputs. Get them again."
            )
        return torch.stack(each)

    @property
    def _files(self) -> str:
        return " and ".join(map(str, self.paths))


def standardized(weights: Tensor, gains: Tensor | None, n_kept: int = 2) -> Tensor:
    """Weights as the model uses them: ``(w - mean) / sqrt(variance * n + 1e-5) * gain`` over the n inputs of an output.

    Parameters
    ----------
    weights
        Its first `n_kept` axes are streams and outputs; mean and variance are taken over all others.
    gains
        Shape of the first `n_kept` axes; None for 1.
    """
    flat = weights.double().flatten(n_kept)
    centred = flat - flat.mean(-1, keepdim=True)
    n_times_variance = centred.square().sum(-1, keepdim=True)
    scaled = centred / (n_times_variance + _EPSILON).sqrt()
    return (scaled if gains is None else scaled * gains.double()[..., None]).reshape(weights.shape).float()


def between_groups(tensors: Tensors, name: str, n_groups: int, n_channels: int) -> Tensor:
    """The weights from each group to all others, shape (n_streams, n_inputs, n_outputs): ``inputs @ weights``.

    In the file, slot j of a group is the j-th of the other groups; the weights from a group to itself are 0.
    """
    shape = (n_groups, n_groups - 1, n_channels, n_channels)  # (to, from, output, input)
    weights, gains = tensors.streams(f"{name}.weights", shape), tensors.streams(f"{name}.gains", shape[::2])
    scaled = standardized(weights.transpose(2, 3), gains, n_kept=3)  # (stream, to, output, from, input)
    whole = torch.zeros(N_STREAMS, n_groups, n_channels, n_groups, n_channels)
    for group in range(n_groups):
        others = [other for other in range(n_groups) if other != group]
        whole[:, group][:, :, others] = scaled[:, group]
    return whole.flatten(1, 2).flatten(2).mT.contiguous()


def as_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """The floating-point tensors of a file as float32 arrays, as `berg convert` writes them again."""
    tensors = _read_file(path)
    return {
        name: np.ascontiguousarray(tensor.float().numpy())
        for name, tensor in tensors.items()
        if tensor.is_floating_point()
    }
