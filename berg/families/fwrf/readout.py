r"""Feature-weighted receptive fields (St-Yves & Naselaris 2018), with a receptive field per layer group.

.. math::
    g_{vk} = \mathrm{softmax}(\mathrm{rf}_{vk}), \quad s(x) = \log(1 + |x|) \tanh(x), \quad
    \phi_{vkc} = \sum_i g_{vki}\, s(f_{kci}), \quad r_v = \sum_{kc} w_{vkc}\, s(\phi_{vkc}) + b_v

for voxel v, group k of feature maps, channel c, pixel i.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from berg.features.compiling import compile_once

# Pooled features of so many voxels are computed together: few enough for the processor's cache, or, where the
# rest is compiled into one pass over them, many enough for the matrix product.
_VOXELS_AT_ONCE, _VOXELS_AT_ONCE_COMPILED = 256, 2048


class FeatureWeightedReceptiveField(nn.Module):
    """Feature maps -> responses.

    Parameters
    ----------
    receptive_fields
        One per group of feature maps: logits over the pixels, shape (n_voxels, height, width).
    weights
        Shape (n_voxels, n_channels), over the channels of all groups.
    bias
        Shape (n_voxels,).
    dtype
        Of the matrix products. The arithmetic behind them stays in float32, which costs little: in bfloat16
        it would cost accuracy.
    compiled
        Compile the arithmetic around the matrix products for this machine.
    """

    bias: Tensor

    def __init__(
        self,
        receptive_fields: Sequence[Tensor],
        weights: Tensor,
        bias: Tensor,
        dtype: torch.dtype = torch.float32,
        compiled: bool = False,
    ) -> None:
        super().__init__()
        self.compiled = compiled
        self.saturate = compile_once(saturate) if compiled else saturate
        self.weighted_sum = compile_once(weighted_sum) if compiled else weighted_sum
        self.voxels_at_once = _VOXELS_AT_ONCE_COMPILED if compiled else _VOXELS_AT_ONCE
        self.n_voxels = len(bias)
        n_channels = weights.shape[1] // len(receptive_fields)
        for group, logits in enumerate(receptive_fields):
            pooling = torch.softmax(logits.flatten(1).float(), dim=1)  # (n_voxels, n_pixels)
            self.register_buffer(f"pooling{group}", pooling.to(dtype))
            own = weights[:, group * n_channels : (group + 1) * n_channels]
            self.register_buffer(f"weights{group}", own.float().contiguous())
        self.register_buffer("bias", bias.float())

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Responses, shape (batch, n_voxels), to feature maps of shape (batch, channels, height, width)."""
        responses = self.bias.repeat(len(maps[0]), 1)
        for group, feature_map in enumerate(maps):
            pooling, weights = getattr(self, f"pooling{group}"), getattr(self, f"weights{group}")
            by_pixel = self.saturate(feature_map.permute(0, 2, 3, 1).flatten(1, 2))  # (batch, pixels, channels)
            responses = responses + self._pooled(by_pixel, pooling, weights)
        return responses

    def _pooled(self, by_pixel: Tensor, pooling: Tensor, weights: Tensor) -> Tensor:
        blocks = zip(torch.split(pooling, self.voxels_at_once), torch.split(weights, self.voxels_at_once), strict=True)
        in_half = by_pixel.is_cuda and by_pixel.dtype == torch.float16 and not self.compiled
        summed = weighted_sum_in_half if in_half and not torch.is_grad_enabled() else self.weighted_sum
        return torch.cat([summed(block @ by_pixel, own) for block, own in blocks], dim=1)


def saturate(x: Tensor) -> Tensor:
    """log(1 + |x|) tanh(x)"""
    # In float32 on the CPU log1p and tanh take 7 ns a number, log and sigmoid 1 ns; the difference is below 2e-7.
    return torch.log(x.abs() + 1) * (2 * torch.sigmoid(2 * x) - 1)


def weighted_sum(pooled: Tensor, weights: Tensor) -> Tensor:
    """Responses, shape (batch, n_voxels), of pooled features (batch, n_voxels, n_channels)."""
    return (saturate(pooled.to(weights.dtype)) * weights).sum(-1)


def weighted_sum_in_half(pooled: Tensor, weights: Tensor) -> Tensor:
    """As `weighted_sum`, for a GPU and float16: a third of the traffic with its memory, which is what limits it.

    Each step rounds to 10 bits, as the matrix product before it did; the sum is in float32.
    """
    saturated = pooled.abs().log1p_().mul_(pooled.tanh_())
    return saturated.mul_(weights.to(pooled.dtype)).sum(-1, dtype=torch.float32)
