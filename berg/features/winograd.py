r"""Convolutions of 5 x 5 by Winograd's algorithm: a quarter to a sixth of the multiplications, for processors.

With tiles d of 8 x 8 pixels that overlap by 4, and a kernel g, 4 x 4 outputs are (Lavin and Gray 2016, equation 8)

.. math::
    Y = A^T \left[ (G g G^T) \odot (B^T d B) \right] A

summed over the channels, which makes one matrix product for each of the 64 places: 4 products per output in place of
25. In float32 its rounding is that of other orders of summation (largest difference 4e-5 of the outputs' standard
deviation with 512 channels, of a direct convolution 2e-5).
"""

from __future__ import annotations

from fractions import Fraction
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional

from berg.features.linear import fast_linear

KERNEL = 5
OUTPUTS = 4
TILE = OUTPUTS + KERNEL - 1
_POINTS = [Fraction(point) for point in (0, 1, -1, 2, -2, Fraction(1, 2), Fraction(-1, 2))]
"""Where the polynomials are evaluated, beside infinity: small numbers and their inverses round the least."""


class WinogradConvolution(nn.Module):
    """A convolution of 5 x 5 with zeros around, without offset, of maps whose sides are multiples of 4.

    Parameters
    ----------
    weight
        Shape (n_out, n_in, 5, 5), float32; kept in 2.56 times the memory.
    """

    places: Tensor  # (64, n_out, n_in)

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        kernels, _, _ = _matrices()
        n_out, n_in = weight.shape[:2]
        spread = torch.kron(kernels, kernels).float() @ weight.flatten(2).permute(2, 0, 1).reshape(KERNEL**2, -1)
        self.register_buffer("places", spread.reshape(TILE**2, n_out, n_in))

    def forward(self, maps: Tensor) -> Tensor:
        """Maps of shape (batch, height, width, channels) -> maps with n_out channels."""
        batch, height, width, n_in = maps.shape
        rows, columns = height // OUTPUTS, width // OUTPUTS
        _, tiles, outputs = _matrices()
        padding = KERNEL // 2
        padded = functional.pad(maps, (0, 0, padding, padding, padding, padding))
        # (8, 8, batch, rows, columns, channels)
        windows = padded.unfold(1, TILE, OUTPUTS).unfold(2, TILE, OUTPUTS).permute(4, 5, 0, 1, 2, 3)
        spread = (torch.kron(tiles, tiles).float() @ windows.reshape(TILE**2, -1)).reshape(TILE**2, -1, n_in)
        products = torch.stack([fast_linear(place, matrix) for place, matrix in zip(spread, self.places, strict=True)])
        gathered = torch.kron(outputs, outputs).float() @ products.reshape(TILE**2, -1)
        by_place = gathered.reshape(OUTPUTS, OUTPUTS, batch, rows, columns, -1)
        return by_place.permute(2, 3, 0, 4, 1, 5).reshape(batch, height, width, -1)


@cache
def _matrices() -> tuple[Tensor, Tensor, Tensor]:
    """G (8 x 5), B^T (8 x 8) and A^T (4 x 8), by Toom and Cook, in float64."""
    others = [[other for other in _POINTS if other != point] for point in _POINTS]
    kernels = [
        [point**power / _product(point, rest) for power in range(KERNEL)]
        for point, rest in zip(_POINTS, others, strict=True)
    ]
    kernels.append([Fraction(int(power == KERNEL - 1)) for power in range(KERNEL)])
    tiles = [[*_polynomial(rest), Fraction(0)] for rest in others] + [_polynomial(_POINTS)]
    outputs = [[*(point**power for point in _POINTS), Fraction(int(power == OUTPUTS - 1))] for power in range(OUTPUTS)]
    return _tensor(kernels), _tensor(tiles), _tensor(outputs)


def _product(point: Fraction, others: list[Fraction]) -> Fraction:
    product = Fraction(1)
    for other in others:
        product *= point - other
    return product


def _polynomial(roots: list[Fraction]) -> list[Fraction]:
    """The coefficients, lowest power first, of the product of (x - root)."""
    coefficients = [Fraction(1)]
    for root in roots:
        shifted = [Fraction(0), *coefficients]
        coefficients = [up - root * low for up, low in zip(shifted, [*coefficients, Fraction(0)], strict=True)]
    return coefficients


def _tensor(rows: list[list[Fraction]]) -> Tensor:
    return torch.tensor([[float(value) for value in row] for row in rows], dtype=torch.float64)
