r"""A readout factorised into space and features (Klindt, Ecker, Euler & Bethge 2017, NeurIPS), one for each subject.

.. math::
    s_v = \frac{S_v}{\lVert S_v \rVert_2 + 10^{-6}}, \qquad r_v = \sum_c F_{vc} \sum_i s_{vi}\, x_{ic} + b_v

for vertex v, channel c, pixel i of the maps x.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

SMALL = 1e-6
TOGETHER = 4
_BYTES_AT_ONCE = {"cpu": 2**23, "cuda": 2**28}
"""Of what is pooled over space, for some vertices: on a processor little enough for its cache."""


class FactorisedReadout(nn.Module):
    """Maps, shape (batch, n_pixels, n_channels) -> responses of one subject, shape (batch, n_vertices).

    Parameters
    ----------
    spatial
        Shape (n_vertices, n_pixels), not normalised; can lie in a file.
    features
        Shape (n_vertices, n_channels); can lie in a file.
    bias
        Shape (n_vertices,).
    dtype
        Of the pooling over space. The sum over channels is in float32.
    """

    spatial: Tensor
    features: Tensor
    bias: Tensor
    scale: Tensor

    def __init__(self, spatial: Tensor, features: Tensor, bias: Tensor, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        scale = 1 / (torch.linalg.vector_norm(spatial, dim=1) + SMALL)
        if dtype is not torch.float32:  # in half precision numbers must not be too small
            spatial, scale = (spatial * scale[:, None]).to(dtype), torch.ones_like(scale)
        for name, tensor in (("spatial", spatial), ("features", features), ("bias", bias), ("scale", scale)):
            self.register_buffer(name, tensor)

    def forward(self, maps: Tensor) -> Tensor:
        blocks = (self._blocks(own, maps) for own in (self.spatial, self.features))
        parts = (
            _pooled(spatial, maps).float().mul(features).sum(-1)  # (batch, some vertices)
            for spatial, features in zip(*blocks, strict=True)
        )
        return torch.cat([*parts], dim=1) * self.scale + self.bias

    def _blocks(self, of_vertices: Tensor, maps: Tensor) -> Sequence[Tensor]:
        """Vertices whose pooled features, shape (batch, n, n_channels), are computed together."""
        most = _BYTES_AT_ONCE.get(maps.device.type, 2**26)
        return torch.split(of_vertices, max(1, most // (4 * len(maps) * maps.shape[2])))


def _pooled(spatial: Tensor, maps: Tensor) -> Tensor:
    """Maps pooled over space, shape (batch, n_vertices, n_channels).

    Of whole fours of vertices: of one alone libraries sum in another order, and its last bits would depend on which
    others are selected.
    """
    n = len(spatial)
    whole = functional.pad(spatial, (0, 0, 0, -n % TOGETHER))
    return torch.matmul(whole, maps.to(spatial.dtype))[:, :n]


class Readouts(nn.Module):
    """The readouts of several subjects, side by side: shape (batch, n_subjects, n_vertices)."""

    def __init__(self, readouts: Sequence[FactorisedReadout]) -> None:
        super().__init__()
        self.readouts = nn.ModuleList(readouts)

    def forward(self, maps: Tensor) -> tuple[Tensor]:
        return (torch.stack([readout(maps) for readout in self.readouts], dim=1),)
