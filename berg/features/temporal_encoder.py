r"""A transformer over time that several published models share, by its equations.

Attention blocks (even) and feed-forward blocks (odd) take turns, each added to what it was given:

.. math::
    x \leftarrow f(\mathrm{ScaleNorm}(x)) + s \odot x, \qquad \mathrm{ScaleNorm}(x) = g \sqrt{d}\, x / \lVert x \rVert

Attention is over all volumes of a stimulus, without a mask; queries and keys are rotated by their position (Su et al.
2024, Neurocomputing 568:127063) on their first dimensions; ScaleNorm is of Nguyen & Salazar 2019 (arXiv 1910.05895).
The published models were trained with x-transformers, whose version 1.27.20 gives the same numbers; its names of
weights change between versions, and it is not needed here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from berg.core.exceptions import CorruptedFileError, listing
from berg.features.linear import linear

_BASE = 10_000.0  # of the rotations' frequencies
_LAYER = re.compile(r"layers\.(\d+)\.")
_ATTENTION, _FEED_FORWARD = ("to_q", "to_k", "to_v", "to_out"), ("ff.0.0", "ff.2")


class TemporalEncoder(nn.Module):
    """Features of volumes -> features that know of all others, shape (n_stimuli, n_volumes, width).

    Parameters
    ----------
    layers
        Attention and feed-forward blocks in turns.
    inverse_frequencies
        Shape (n_rotated / 2,), radians per volume; 10000 ** (-2 j / n_rotated).
    gain
        Shape (1,), of the last norm.
    """

    inverse_frequencies: Tensor
    gain: Tensor

    def __init__(self, layers: list[_Block], inverse_frequencies: Tensor, gain: Tensor) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.register_buffer("inverse_frequencies", inverse_frequencies)
        self.register_buffer("gain", gain)

    def forward(self, x: Tensor) -> Tensor:
        positions = torch.arange(x.shape[1], device=x.device, dtype=torch.float32)
        angles = positions[:, None] * self.inverse_frequencies
        rotation = (angles.cos().repeat(1, 2), angles.sin().repeat(1, 2))
        for layer in self.layers:
            x = layer(x, rotation)
        return scale_norm(x, self.gain)


def scale_norm(x: Tensor, gain: Tensor) -> Tensor:
    """Vectors of one length, gain * sqrt(width), along the last axis."""
    length: Tensor = gain * x.shape[-1] ** 0.5
    return functional.normalize(x, dim=-1) * length


def rotated(x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """The first dimensions of queries or keys, (..., n_volumes, head width), turned by their positions.

    Dimension j turns with dimension j + n_rotated / 2; what is behind the first n_rotated stays.
    """
    cosine, sine = rotation
    turned, kept = x[..., : cosine.shape[-1]], x[..., cosine.shape[-1] :]
    first, second = turned.chunk(2, dim=-1)
    return torch.cat([turned * cosine + torch.cat([-second, first], -1) * sine, kept], -1)


class _Block(nn.Module):
    """What attention and feed-forward have in common: the norm before, and the sum behind."""

    gain: Tensor
    residual_scale: Tensor | None

    def __init__(self, gain: Tensor, residual_scale: Tensor | None, arrays: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.register_buffer("gain", gain)
        self.register_buffer("residual_scale", residual_scale)
        for name, array in arrays.items():
            self.register_buffer(name, array.contiguous())

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
        added = self.added(scale_norm(x, self.gain), rotation)
        return added + (x if self.residual_scale is None else x * self.residual_scale)

    def added(self, x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
        raise NotImplementedError


class _Attention(_Block):
    to_q: Tensor
    to_k: Tensor
    to_v: Tensor
    to_out: Tensor
    n_heads: int = 1

    def added(self, x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
        queries, keys, values = (
            linear(x, matrix).reshape(*x.shape[:2], self.n_heads, -1).transpose(1, 2)
            for matrix in (self.to_q, self.to_k, self.to_v)
        )
        seen = functional.scaled_dot_product_attention(rotated(queries, rotation), rotated(keys, rotation), values)
        return linear(seen.transpose(1, 2).flatten(2), self.to_out)


class _FeedForward(_Block):
    widen: Tensor
    widen_offset: Tensor
    narrow: Tensor
    narrow_offset: Tensor

    def added(self, x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
        return linear(linear(x, self.widen, self.widen_offset, gelu=True), self.narrow, self.narrow_offset)


def read_encoder(
    tensors: Mapping[str, Tensor], prefix: str, n_heads: int, path: Path, *, n_rotated: int | None = None
) -> TemporalEncoder:
    """The encoder in the weights of a published model.

    Parameters
    ----------
    tensors
        All weights of the file, float32.
    prefix
        Of the encoder's names, such as ``encoder.``.
    n_heads
        Heads of attention.
    path
        For messages.
    n_rotated
        Dimensions of each head that are rotated, if the file does not hold their frequencies; None: all.

    Raises
    ------
    CorruptedFileError
        It names the weights that are missing, of another shape, or more than the encoder has.
    """
    own = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    reader = _Reader(own, prefix, path)
    numbers = {int(found[1]) for name in own if (found := _LAYER.match(name))}
    if not numbers or numbers != set(range(len(numbers))) or len(numbers) % 2:
        raise CorruptedFileError(
            f"{path} has the blocks {listing(sorted(numbers)) or 'none'} under '{prefix}layers'; an encoder has an "
            "even number of them, counted from 0. Get the file again."
        )
    width = reader.width()
    if width % n_heads:
        raise CorruptedFileError(f"{path} has an encoder of width {width}, which {n_heads} heads do not divide.")
    head = width // n_heads
    layers = [reader.block(index, width, n_heads) for index in range(len(numbers))]
    frequencies = reader.frequencies(head, n_rotated)
    gain = reader.take("final_norm.g", (1,))
    reader.check_all_taken()
    return TemporalEncoder(layers, frequencies, gain)


class _Reader:
    """The tensors of an encoder by name, each taken once."""

    def __init__(self, tensors: dict[str, Tensor], prefix: str, path: Path) -> None:
        self.tensors, self.prefix, self.path, self.taken = tensors, prefix, path, set[str]()

    def width(self) -> int:
        """Of the features, as the first queries have it."""
        queries = self.tensors.get("layers.0.1.to_q.weight")
        if queries is None or queries.ndim != 2:
            raise CorruptedFileError(
                f"{self.path} has no matrix '{self.prefix}layers.0.1.to_q.weight'. Get the file again."
            )
        return queries.shape[1]

    def take(self, name: str, shape: tuple[int, ...]) -> Tensor:
        tensor = self.tensors.get(name)
        if tensor is None:
            raise CorruptedFileError(f"{self.path} has no '{self.prefix}{name}'. Get the file again.")
        if tuple(tensor.shape) != shape or not bool(torch.isfinite(tensor).all()):
            raise CorruptedFileError(
                f"'{self.prefix}{name}' in {self.path} has shape {tuple(tensor.shape)}"
                f"{'' if tuple(tensor.shape) != shape else ' and values that are not finite'}; finite numbers of shape "
                f"{shape} are right. Get the file again."
            )
        self.taken.add(name)
        return tensor.float()

    def block(self, index: int, width: int, n_heads: int) -> _Block:
        place = f"layers.{index}"
        gain = self.take(f"{place}.0.0.g", (1,))
        scale = f"{place}.2.residual_scale"
        residual_scale = self.take(scale, (width,)) if scale in self.tensors else None
        if index % 2 == 0:
            matrices = {name: self.take(f"{place}.1.{name}.weight", (width, width)) for name in _ATTENTION}
            attention = _Attention(gain, residual_scale, matrices)
            attention.n_heads = n_heads
            return attention
        widen, narrow = (f"{place}.1.{name}" for name in _FEED_FORWARD)
        arrays = {
            "widen": self.take(f"{widen}.weight", (4 * width, width)),
            "widen_offset": self.take(f"{widen}.bias", (4 * width,)),
            "narrow": self.take(f"{narrow}.weight", (width, 4 * width)),
            "narrow_offset": self.take(f"{narrow}.bias", (width,)),
        }
        return _FeedForward(gain, residual_scale, arrays)

    def frequencies(self, head: int, n_rotated: int | None) -> Tensor:
        """Those in the file, or by their equation."""
        name = "rotary_pos_emb.inv_freq"
        if name not in self.tensors:
            count = n_rotated or head
            return _BASE ** (-torch.arange(0, count, 2, dtype=torch.float32) / count)
        n_pairs = len(self.tensors[name]) if self.tensors[name].ndim else 0
        if not 0 < 2 * n_pairs <= head or n_rotated not in (None, 2 * n_pairs):
            raise CorruptedFileError(
                f"'{self.prefix}{name}' in {self.path} has {n_pairs} frequencies; heads of {head} dimensions have "
                f"{(n_rotated or head) // 2}. Get the file again."
            )
        return self.take(name, (n_pairs,))

    def check_all_taken(self) -> None:
        """Raise CorruptedFileError for weights that the equations do not have."""
        if others := sorted(set(self.tensors) - self.taken):
            raise CorruptedFileError(
                f"{self.path} has weights that this encoder does not have: {self.prefix}{others[0]}"
                f"{f' and {len(others) - 1} others' if len(others) > 1 else ''}. It is of another model or version."
            )
