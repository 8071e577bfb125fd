r"""Maps and vectors of four blocks -> the responses of vertices, each of which looks at one place.

Vertex v looks at the place :math:`m_v` of the picture, and weights the blocks l by :math:`a_{vl}`. Both are functions
of where it lies on the cortex, and of no picture (`looks_of`). With W channels,

.. math::
    y_v = b_v + \frac1W \sum_{w=1}^W \omega_{vw} \sum_l a_{vl} \left[\tilde g_l(m_v) + \tilde c_l\right]_w

where :math:`\tilde g_l(m_v)` is bilinear between the four nearest places of the 16 x 16, with zeros outside. (Yang, Gee
and Shi 2023; the mean over the channels, not the sum, is that of the published network.)

A vertex thus reads 4 places of each block and the vector of each, by fixed weights. Vertices between the same four
places are neighbours in memory, and their products with what they read are one matrix product: nothing of the size
pictures x vertices x channels is ever made.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from berg.families.dinov2_retina.features import GRID, Glance
from berg.features.linear import fast_linear

SIGMA = 0.01
"""How far from the border of the picture the outermost places stay, in halves of its side."""
N_FREQUENCIES = 32
LARGEST_ANGLE = 100.0
BLOCK = 2**13
"""Vertices at once."""
PADDED = GRID + 2
"""Places along each side, with one of zeros on either."""
CORNERS = (0, 1, PADDED, PADDED + 1)


@dataclass(frozen=True)
class Looks:
    """What vertices look at.

    Attributes
    ----------
    layers
        Shape (n_vertices, n_layers), the weight of each block; they sum to 1.
    places
        Shape (n_vertices, 2), horizontal and vertical, from -1 to 1.
    """

    layers: Tensor
    places: Tensor


def looks_of(
    coordinates: Tensor,
    rows: Tensor,
    selector: Sequence[tuple[Tensor, Tensor]],
    mapper: Sequence[tuple[Tensor, Tensor]],
) -> Looks:
    """What some vertices look at, by where they lie on the cortex, computed in float64.

    Parameters
    ----------
    coordinates
        Shape (n_all, 3), of all vertices of a part: their least and their range count.
    rows
        Which vertices, shape (n_vertices,).
    selector, mapper
        Weights and biases of three linear layers, with GELU between them.
    """
    least = coordinates.double().amin(0)
    largest_range = (coordinates.double().amax(0) - least).max()
    layers, places = [], []
    for block in torch.split(rows, BLOCK):
        code = positional_code((coordinates[block].double() - least) / largest_range)
        layers.append(_perceptron(code, selector).softmax(1).float())
        places.append((_perceptron(code, mapper).tanh() * (1 - SIGMA)).float())
    return Looks(torch.cat(layers), torch.cat(places))


def positional_code(fractions: Tensor) -> Tensor:
    """Shape (n, 3), from 0 to 1 -> (n, 192): of each coordinate sine and cosine at 32 frequencies."""
    exponents = torch.linspace(0, 1 / N_FREQUENCIES - 1, N_FREQUENCIES, dtype=torch.float64)
    angles = LARGEST_ANGLE * fractions[..., None] * LARGEST_ANGLE**exponents  # (n, 3, 32)
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)


def _perceptron(x: Tensor, layers: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    *hidden, last = [(weight.double(), bias.double()) for weight, bias in layers]
    for weight, bias in hidden:
        x = fast_linear(x, weight, bias, gelu=True)
    return fast_linear(x, *last)


class RetinaReadout(nn.Module):
    """What one part looks at -> the responses of its vertices, shape (batch, n_vertices), float32.

    They come in the order in which they lie in memory: the response of vertex v is in column ``places[v]``.

    Parameters
    ----------
    looks
        Of the vertices.
    weight, bias
        Shapes (n_vertices, W) and (n_vertices,); the products are computed in the precision of the weight.
    """

    weight: Tensor
    bias: Tensor
    shares: Tensor
    places: Tensor

    def __init__(self, looks: Looks, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        cells, within = _cells(looks.places)
        order = cells.argsort(stable=True)
        self.register_buffer("weight", weight[order])
        self.register_buffer("bias", bias[order].float())
        self.register_buffer("shares", _shares(looks.layers, within)[order].T.contiguous() / max(weight.shape[1], 1))
        self.register_buffer("places", order.argsort())
        self.blocks = list(_blocks(cells[order]))

    def forward(self, glance: Glance) -> Tensor:
        maps = functional.pad(glance.maps, (0, 0, 1, 1, 1, 1)).flatten(2, 3)  # (batch, layers, 18 * 18, W)
        vectors = glance.vectors[:, :, None]
        found = [self.bias.new_empty(len(maps), 0)]
        for cell, vertices in self.blocks:
            corners = [maps[:, :, cell + corner, None] for corner in CORNERS]
            read = torch.cat([*corners, vectors], dim=2).flatten(1, 2)  # (batch, layers * 5, W)
            products = fast_linear(read.to(self.weight), self.weight[vertices])  # (batch, layers * 5, n_vertices)
            found.append((products.float() * self.shares[:, vertices]).sum(1) + self.bias[vertices])
        return torch.cat(found, dim=1)


def _cells(places: Tensor) -> tuple[Tensor, Tensor]:
    """The four places that each vertex looks between, and where it is between them.

    Returns
    -------
    cells
        Shape (n_vertices,): the upper left one, its index in the map of 18 x 18.
    within
        Shape (n_vertices, 2), from 0 to 1.
    """
    along = ((places.double() + 1) * GRID - 1) / 2  # -0.5 is the border, 0 the middle of the first place
    first = along.floor()
    column, row = (first + 1).long().unbind(1)
    return row * PADDED + column, along - first


def _shares(layers: Tensor, within: Tensor) -> Tensor:
    """How much of each corner and of the vector of each block a vertex reads, shape (n_vertices, layers * 5)."""
    x, y = within.unbind(1)
    corners = torch.stack([(1 - x) * (1 - y), x * (1 - y), (1 - x) * y, x * y, torch.ones_like(x)], dim=1)
    return (layers.double()[:, :, None] * corners[:, None]).flatten(1).float()


def _blocks(cells: Tensor) -> Iterator[tuple[int, slice]]:
    """Neighbouring vertices of one cell, at most `BLOCK` at a time: the cell, and which they are; cells ascend."""
    values, starts, counts = np.unique(cells.numpy(), return_index=True, return_counts=True)
    for cell, start, count in zip(values.tolist(), starts.tolist(), counts.tolist(), strict=True):
        for first in range(start, start + count, BLOCK):
            yield cell, slice(first, min(first + BLOCK, start + count))


class JoinedReadout(nn.Module):
    """What each part looks at -> the responses of the outputs.

    Parameters
    ----------
    parts
        The readouts of the parts that have selected vertices.
    columns
        For each output, which of the vertices of all parts, side by side, are its own.
    """

    def __init__(self, parts: Sequence[RetinaReadout], columns: Sequence[Tensor]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)
        self.n_outputs = len(columns)
        sizes = [0, *(len(part.places) for part in parts)]
        places = torch.cat([part.places + sum(sizes[: index + 1]) for index, part in enumerate(parts)])
        for index, own in enumerate(columns):
            self.register_buffer(f"columns{index}", places[own])

    def forward(self, glances: Sequence[Glance]) -> tuple[Tensor, ...]:
        responses = torch.cat([part(glance) for part, glance in zip(self.parts, glances, strict=True)], dim=1)
        return tuple(responses[:, getattr(self, f"columns{index}")] for index in range(self.n_outputs))
