"""GPT-2 up to a block, of which the last token alone is wanted.

In the last block one query per sequence is enough, and one row of everything behind it: of a block's products, 2 of 12
parts stay. Blocks before it are those of transformers. Radford et al. (2019).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from berg.features.fused_layers import FusedLinear
from berg.features.linear import linear


def is_gpt2(network: nn.Module) -> bool:
    """Whether `last_states_of_gpt2` computes this network: GPT-2 of transformers with `FusedLinear` layers."""
    if type(network).__name__ != "GPT2Model" or not isinstance(found := getattr(network, "h", None), nn.ModuleList):
        return False
    attention: Any = getattr(found[-1], "attn", None)
    return isinstance(getattr(attention, "c_attn", None), FusedLinear) and not hasattr(found[-1], "crossattention")


def last_states_of_gpt2(network: Any, ids: Tensor) -> Tensor:
    """What the last block puts out at the last token, before the final norm.

    Parameters
    ----------
    network
        As `is_gpt2`.
    ids
        Shape (batch, n_tokens).

    Returns
    -------
    states
        Shape (batch, width).
    """
    x = network.wte(ids) + network.wpe(torch.arange(ids.shape[1], device=ids.device))
    for block in network.h[:-1]:
        x = block(x)
        x = x[0] if isinstance(x, tuple) else x
    return _last_of_block(network.h[-1], x)


def _last_of_block(block: Any, x: Tensor) -> Tensor:
    normed, width = block.ln_1(x), x.shape[-1]
    weight, bias = block.attn.c_attn.weight, block.attn.c_attn.bias
    query = linear(normed[:, -1].contiguous(), weight[:width], bias[:width])[:, None]
    keys, values = torch.split(linear(normed, weight[width:], bias[width:]), width, dim=-1)
    query, keys, values = (_heads(each, block.attn.num_heads) for each in (query, keys, values))
    mixed = functional.scaled_dot_product_attention(query, keys, values, scale=block.attn.scaling)
    last = x[:, -1] + block.attn.c_proj(mixed.transpose(1, 2).reshape(len(x), width))
    found: Tensor = last + block.mlp(block.ln_2(last))
    return found


def _heads(x: Tensor, n_heads: int) -> Tensor:
    """Shape (batch, n_heads, n_tokens, width of a head)."""
    return x.reshape(*x.shape[:-1], n_heads, -1).transpose(1, 2)
