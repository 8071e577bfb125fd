"""Which tokens of a layer are read: ``blocks.11:cls``, ``blocks.11:mean``, and ``blocks.11`` for all of it."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from berg.core.exceptions import InvalidParameterError, did_you_mean

POOLINGS = ("all", "cls", "mean")
_HUGGING_FACE = {  # tokens in front of those of the patches, by model type; registers are added
    **dict.fromkeys(("beit", "clip_vision_model", "data2vec-vision", "dinov2", "dinov3_vit", "vit", "vit_msn"), 1),
    **dict.fromkeys(("dinov2_with_registers",), 1),
    "deit": 2,
    **dict.fromkeys(("ijepa", "siglip_vision_model"), 0),
}


def split_node(node: str) -> tuple[str, str]:
    """The name of a module, and what of its tokens is read.

    Raises
    ------
    InvalidParameterError
        If it is none of `POOLINGS`.

    Examples
    --------
    >>> split_node("blocks.11:cls"), split_node("blocks.11")
    (('blocks.11', 'cls'), ('blocks.11', 'all'))
    """
    module, _, pooling = node.partition(":")
    if pooling and pooling not in POOLINGS:
        raise InvalidParameterError(
            f"The node '{node}' asks for the tokens '{pooling}'.{did_you_mean(pooling, POOLINGS)} "
            f"Write one of  {'  '.join(f'{module}:{each}' for each in POOLINGS)}"
        )
    return module, pooling or "all"


def n_prefix_tokens(network: nn.Module) -> int | None:
    """How many tokens stand in front of those of the patches, the class token first; None if that is not known."""
    found: Any = network
    if hasattr(found, "num_prefix_tokens"):  # timm
        return int(found.num_prefix_tokens) if getattr(found, "cls_token", None) is not None else _without_cls(found)
    if hasattr(found, "class_token") or hasattr(found, "class_embedding"):  # torchvision, OpenCLIP
        return 1
    configuration = getattr(found, "config", None)
    in_front = _HUGGING_FACE.get(getattr(configuration, "model_type", ""))
    if in_front is None:
        return None
    return in_front + int(getattr(configuration, "num_register_tokens", 0) or 0)


def _without_cls(network: Any) -> int | None:
    """Of timm's networks without a class token: registers alone cannot be told from one, so they are not known."""
    return 0 if int(network.num_prefix_tokens) == 0 else None


def pooled(output: Tensor, pooling: str, network: nn.Module, node: str) -> Tensor:
    """Features of shape (batch, n_features) of a layer's output.

    Parameters
    ----------
    output
        Shape (batch, ...): of tokens (batch, tokens, width), of maps (batch, channels, height, width).
    pooling
        ``all``: every value. ``cls``: the class token. ``mean``: the mean over patches or pixels.

    Raises
    ------
    InvalidParameterError
        If the layer has no such tokens.
    """
    if pooling == "all":
        return output.flatten(1)
    n_in_front = n_prefix_tokens(network)
    if pooling == "mean" and output.ndim == 4:
        channels_last = str(getattr(network, "output_fmt", "NCHW")) == "NHWC"
        return output.mean((1, 2) if channels_last else (2, 3))
    if output.ndim != 3 or n_in_front is None or output.shape[1] <= n_in_front or (pooling == "cls" and not n_in_front):
        raise InvalidParameterError(
            f"The node '{node}:{pooling}' cannot be read: '{node}' puts out {tuple(output.shape[1:])} per picture"
            f"{'' if n_in_front else ', and the network has no class token that is known'}. "
            f"Write '{node}' for all of it."
        )
    return output[:, 0] if pooling == "cls" else output[:, n_in_front:].mean(1)
