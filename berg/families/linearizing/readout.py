r"""Standardize, PCA and linear regression, folded into one affine map of a network's layers.

With the scaler's mean :math:`\mu` and scale :math:`\sigma`, the PCA's components C and mean m:

.. math::
    z = C\left(\frac{f - \mu}{\sigma} - m\right) = A (f - \mu) - C m, \quad A = C / \sigma, \qquad
    r = B z + b

The features f are never laid side by side: each layer is centred and projected by its own columns of A
as it comes. Centring before the product, not after, keeps features with a large mean exact.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from berg.features.linear import linear


class Projection(nn.Module):
    """Layers of a network -> principal components, shape (batch, n_pcas, n_components).

    Parameters
    ----------
    centre
        Shape (n_features,), the mean of the scaler; the features of all layers in their order.
    matrix
        Shape (n_pcas * n_components, n_features), in the precision of the network.
    offset
        Shape (n_pcas * n_components,).
    n_pcas
        How many PCAs the rows of the matrix belong to: one, or one per repeat.
    """

    centre: Tensor
    matrix: Tensor
    offset: Tensor

    def __init__(self, centre: Tensor, matrix: Tensor, offset: Tensor, n_pcas: int) -> None:
        super().__init__()
        rounded = centre.to(matrix.dtype)
        # What the centre loses in a shorter number goes into the offset, so that nothing is lost.
        lost = rounded.float() - centre.float()
        regained = torch.stack([row.float() @ lost for row in matrix]) if bool(lost.any()) else 0
        self.register_buffer("centre", rounded)
        self.register_buffer("matrix", matrix)
        self.register_buffer("offset", offset.float() + regained)
        self.n_pcas = n_pcas

    def forward(self, layers: Sequence[Tensor]) -> Tensor:
        components = self.offset.repeat(len(layers[0]), 1)
        start = 0
        for layer in layers:
            columns = slice(start, start + layer.shape[1])
            projected = linear(layer - self.centre[columns], self.matrix[:, columns])
            components = components + projected.float()
            start = columns.stop
        return components.reshape(len(components), self.n_pcas, -1)


class Components(nn.Module):
    """Principal components as they come, shape (batch, n_components), as those of one PCA for all repeats."""

    def forward(self, components: Tensor) -> Tensor:
        return components[:, None]


class LinearReadout(nn.Module):
    """Layers of a network -> responses, one array per output.

    Parameters
    ----------
    projection
        Shared by all outputs; `Components` if features are projected before they come here.
    coefficients
        One per output, shape (n_repeats, n_units, n_components); n_repeats is 1 where the output has none. In their
        precision the regression is computed; responses are float32.
    intercepts
        One per output, shape (n_repeats, n_units).
    variance
        Of the components (of the first PCA) over the training pictures, shape (n_components,); None if it is not known.
    """

    def __init__(
        self,
        projection: nn.Module,
        coefficients: Sequence[Tensor],
        intercepts: Sequence[Tensor],
        variance: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.variance = variance
        self.projection = projection
        self.n_outputs = len(coefficients)
        for index, (coefficient, intercept) in enumerate(zip(coefficients, intercepts, strict=True)):
            self.register_buffer(f"coefficient{index}", coefficient)
            self.register_buffer(f"intercept{index}", intercept)

    def forward(self, layers: Sequence[Tensor] | Tensor) -> tuple[Tensor, ...]:
        """Shape (batch, n_repeats, n_units) each."""
        components = self.projection(layers)
        return tuple(self._regress(components, index) for index in range(self.n_outputs))

    def _regress(self, components: Tensor, index: int) -> Tensor:
        coefficient, intercept = getattr(self, f"coefficient{index}"), getattr(self, f"intercept{index}")
        if components.shape[1] == 1:  # one PCA for all repeats: one matrix product, its result in order
            flat = linear(components[:, 0].to(coefficient), coefficient.flatten(0, 1), intercept.flatten())
            return flat.reshape(len(flat), *intercept.shape).float()
        by_repeat = components.to(coefficient.dtype).transpose(0, 1)  # (n_pcas, batch, n_components)
        return torch.stack(
            [linear(*each) for each in zip(by_repeat, coefficient, intercept, strict=True)],
            dim=1,
        )
