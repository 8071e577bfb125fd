"""From delayed features to responses: one regression per unit."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from berg.features.linear import linear


class LinearUnits(nn.Module):
    """``x @ coefficients.T + intercepts`` for each output.

    Parameters
    ----------
    coefficients, intercepts
        Shapes (n_units, n_columns), (n_units,), one of each per output.
    """

    def __init__(self, coefficients: Sequence[Tensor], intercepts: Sequence[Tensor]) -> None:
        super().__init__()
        self.n_outputs = len(coefficients)
        for number, (coefficient, intercept) in enumerate(zip(coefficients, intercepts, strict=True)):
            self.register_buffer(f"coefficients_{number}", coefficient)
            self.register_buffer(f"intercepts_{number}", intercept)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(
            linear(x, getattr(self, f"coefficients_{number}"), getattr(self, f"intercepts_{number}"))
            for number in range(self.n_outputs)
        )
