r"""From features of a text to responses.

.. math::
    y = B (x - \mu) + b

with the mean :math:`\mu` of the features over the training words if the model has a scaler, whose scales are within B
and b. Features are centred before the product, not after, which keeps those with a large mean exact.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from berg.features.linear import linear


class LanguageReadout(nn.Module):
    """Features, shape (batch, n_features) -> responses, a tuple with one array of shape (batch, *units).

    Parameters
    ----------
    coefficient
        Shape (n_units, n_features), float32.
    intercept
        Shape (n_units,).
    centre
        Shape (n_features,), subtracted from the features.
    units
        The lengths of the axes of the selected units; their product is n_units.
    """

    coefficient: Tensor
    intercept: Tensor
    centre: Tensor

    def __init__(self, coefficient: Tensor, intercept: Tensor, centre: Tensor, units: tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("coefficient", coefficient)
        self.register_buffer("intercept", intercept)
        self.register_buffer("centre", centre)
        self.units = units

    def forward(self, features: Tensor) -> tuple[Tensor]:
        centred = features.to(torch.float32) - self.centre
        return (linear(centred, self.coefficient, self.intercept).reshape(len(features), *self.units),)
