"""From what the transformer knows at a volume to the selected parcels."""

from __future__ import annotations

from torch import Tensor, nn

from berg.features.linear import linear


class Parcels(nn.Module):
    """Knowledge of volumes -> responses of parcels: ``known @ matrix.T + offset``.

    Parameters
    ----------
    matrix
        Shape (n_parcels, width).
    offset
        Shape (n_parcels,), of one subject.
    """

    matrix: Tensor
    offset: Tensor

    def __init__(self, matrix: Tensor, offset: Tensor) -> None:
        super().__init__()
        self.register_buffer("matrix", matrix)
        self.register_buffer("offset", offset)

    def forward(self, known: Tensor) -> tuple[Tensor]:
        return (linear(known, self.matrix, self.offset),)
