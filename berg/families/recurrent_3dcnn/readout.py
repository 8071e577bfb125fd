"""From maps of features to the activity of neurons."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn, unflatten
from torch.nn import functional as F

N_CORNERS = 4


class NeuronReadout(nn.Module):
    """Each neuron reads the maps at one place: ``exp(weights . map(place) + bias)``.

    Parameters
    ----------
    places
        Where on the maps, shape (n_units, 2): x and y in [-1, 1], the edges of the maps.
    weights
        Shape (n_units, n_channels).
    biases
        Shape (n_units,).
    size
        Height and width of the maps.
    """

    corners: Tensor
    shares: Tensor
    weights: Tensor
    biases: Tensor

    def __init__(self, places: Tensor, weights: Tensor, biases: Tensor, size: tuple[int, int]) -> None:
        super().__init__()
        corners, shares = bilinear_corners(places, size)
        self.register_buffer("corners", corners)
        self.register_buffer("shares", shares)
        self.register_buffer("weights", weights)
        self.register_buffer("biases", biases)

    def forward(self, maps: Iterable[Tensor]) -> tuple[Tensor]:
        """Activity of one film, shape (n_frames, n_units), or of several, (n_films, n_frames, n_units)."""
        activity = torch.cat([self.read(piece) for piece in maps], 1)
        return (activity[0] if getattr(maps, "n_films", len(activity)) is None else activity,)

    def read(self, maps: Tensor) -> Tensor:
        """Activity, shape (n_films, n_frames, n_units), from maps (n_films, n_frames, n_positions, n_channels)."""
        if not len(self.weights):
            return maps.new_zeros(*maps.shape[:2], 0)
        linear = [(self._at_places(frame) * self.weights).sum(-1) for frame in maps.flatten(0, 1)]
        return unflatten((torch.stack(linear) + self.biases).exp(), 0, maps.shape[:2])

    def _at_places(self, positions: Tensor) -> Tensor:
        """The features at the place of each neuron, shape (n_units, n_channels)."""
        return F.embedding_bag(self.corners, positions, per_sample_weights=self.shares, mode="sum")


def bilinear_corners(places: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """The four positions around each place, and the share of each; beyond the edge, that of the edge.

    Returns
    -------
    corners, shares
        Shape (n_places, 4); positions are counted row by row.

    >>> bilinear_corners(torch.tensor([[0.0, -1.0]]), (2, 2))
    (tensor([[0, 1, 2, 3]]), tensor([[0.5000, 0.5000, 0.0000, 0.0000]]))
    """
    height, width = size
    lengths = torch.tensor([width, height], dtype=places.dtype)
    at = (((places + 1) * lengths - 1) / 2).clamp(min=torch.zeros(2), max=lengths - 1)
    low = at.floor()
    part = at - low
    x0, y0 = low.long().unbind(-1)
    x1, y1 = (x0 + 1).clamp(max=width - 1), (y0 + 1).clamp(max=height - 1)
    corners = torch.stack([y0 * width + x0, y0 * width + x1, y1 * width + x0, y1 * width + x1], -1)
    px, py = part.unbind(-1)
    shares = torch.stack([(1 - px) * (1 - py), px * (1 - py), (1 - px) * py, px * py], -1)
    return corners, shares
