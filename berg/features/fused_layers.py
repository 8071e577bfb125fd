"""Layers of a transformer with the same weights and the same results, computed faster on the CPU.

`with_fused_layers` exchanges a network's linear layers, linear layers with a GELU behind them, and
self-attention by ones that use `berg.features.linear`. Weights are shared, not copied.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TypeGuard

from torch import Tensor, nn
from torch.nn import functional

from berg.features.linear import linear


class FusedLinear(nn.Module):
    """A linear layer, followed by a GELU if asked for."""

    def __init__(self, weight: Tensor, bias: Tensor | None, gelu: bool = False) -> None:
        super().__init__()
        self.weight = weight
        self.bias = bias
        self.gelu = gelu

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias, self.gelu)


class SelfAttention(nn.Module):
    """`torch.nn.MultiheadAttention` without masks, for a query that is also key and value."""

    def __init__(self, attention: nn.MultiheadAttention) -> None:
        super().__init__()
        self.incoming = FusedLinear(attention.in_proj_weight, attention.in_proj_bias)
        self.outgoing = FusedLinear(attention.out_proj.weight, attention.out_proj.bias)
        self.n_heads = attention.num_heads

    def forward(self, query: Tensor, key: Tensor, value: Tensor, need_weights: bool = False) -> tuple[Tensor, None]:
        """As called by torchvision's encoder blocks; shapes (batch, tokens, width)."""
        if need_weights or query is not key or query is not value:
            raise NotImplementedError("only self-attention without its weights")
        batch, tokens, width = query.shape
        parts = self.incoming(query).view(batch, tokens, 3, self.n_heads, width // self.n_heads)
        queries, keys, values = parts.permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(queries, keys, values)
        return self.outgoing(mixed.transpose(1, 2).reshape(batch, tokens, width)), None


def with_fused_layers(network: nn.Module, nodes: Collection[str] = ()) -> nn.Module:
    """The network, its layers exchanged in place; for evaluation only.

    Parameters
    ----------
    nodes
        Names of modules whose outputs are read: they keep their names and what they put out.
    """
    _exchange(network, "", nodes)
    return network


def _exchange(parent: nn.Module, place: str, nodes: Collection[str]) -> None:
    children = list(parent.named_children())
    behind: list[tuple[str, nn.Module | None]] = [*children[1:], ("", None)]
    for (name, child), (next_name, next_child) in zip(children, behind, strict=False):
        inner = place + name
        if type(child) is nn.Linear:
            in_sequence = isinstance(parent, nn.Sequential) and _is_exact_gelu(next_child)
            gelu = in_sequence and not {inner, place + next_name} & set(nodes)
            setattr(parent, name, FusedLinear(child.weight, child.bias, gelu))
            if gelu:
                setattr(parent, next_name, nn.Identity())
        elif _is_plain_self_attention(child) and not any(node.startswith(f"{inner}.") for node in nodes):
            setattr(parent, name, SelfAttention(child))
        else:
            _exchange(child, f"{inner}.", nodes)


def _is_exact_gelu(module: nn.Module | None) -> bool:
    return type(module) is nn.GELU and module.approximate == "none"


def _is_plain_self_attention(module: nn.Module) -> TypeGuard[nn.MultiheadAttention]:
    """Whether `SelfAttention` can stand in for it."""
    return (
        type(module) is nn.MultiheadAttention
        and module.batch_first
        and module._qkv_same_embed_dim
        and module.bias_k is None
        and not module.add_zero_attn
    )
