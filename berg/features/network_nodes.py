"""The layers of a network, with their shapes: what a card can name as nodes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from berg.features.pretrained_network import make_network
from berg.features.tokens import n_prefix_tokens
from berg.features.video_transforms import VideoPreset

_N_FRAMES = 16  # of a video: enough for each network of torchvision
_NOT_ON_META = (NotImplementedError, RuntimeError, TypeError, ValueError)


@dataclass(frozen=True)
class Node:
    """A module that puts out one tensor.

    Attributes
    ----------
    shape
        Of what it puts out for one picture.
    n_features
        Their number.
    poolings
        What of its tokens can be read besides all: ``cls``, ``mean``.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    n_features: int
    poolings: tuple[str, ...]


def network_nodes(extractor: str, weights: str = "") -> list[Node]:
    """The nodes of a network in the order of computation; its weights are not needed, and no number is computed.

    Raises
    ------
    InvalidParameterError, MissingFileError, MissingExtraError
        As `berg.features.pretrained_network.read_pretrained`.
    """
    network, preset = make_network(extractor, weights)
    network.eval()
    crop = list(preset.crop_size)
    size = (1, 3, *([_N_FRAMES] if isinstance(preset, VideoPreset) else []), crop[0], crop[-1])
    try:
        found = _outputs(network.to("meta"), torch.empty(size, device="meta"))
    except _NOT_ON_META:  # networks that look at values, such as buffers that they index with
        network, _ = make_network(extractor, weights)
        network = _on_cpu(network)
        found = _outputs(network.eval(), torch.zeros(size))
    n_in_front = n_prefix_tokens(network)
    return [_node(name, kind, shape, n_in_front) for name, (kind, shape) in found.items()]


def _on_cpu(network: nn.Module) -> nn.Module:
    on_meta = any(parameter.is_meta for parameter in network.parameters())
    return network.to_empty(device="cpu") if on_meta else network


def _node(name: str, kind: str, shape: tuple[int, ...], n_in_front: int | None) -> Node:
    poolings: list[str] = []
    if len(shape) == 2 and n_in_front is not None and shape[0] > max(n_in_front, 1):
        poolings = ["cls", "mean"] if n_in_front else ["mean"]
    elif len(shape) == 3:
        poolings = ["mean"]
    return Node(name, kind, shape, int(torch.Size(shape).numel()), tuple(poolings))


def _outputs(network: nn.Module, picture: Tensor) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Kind and shape of what each module puts out, if it is one tensor of one picture."""
    found: dict[str, tuple[str, tuple[int, ...]]] = {}

    def keep(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.ndim > 1 and output.shape[0] == 1:
                found.pop(name, None)  # of a module that runs several times the last output counts
                found[name] = (type(module).__name__, tuple(output.shape[1:]))

        return hook

    hooks = [module.register_forward_hook(keep(name)) for name, module in network.named_modules() if name]
    try:
        with torch.no_grad():
            network(picture)
    finally:
        for hook in hooks:
            hook.remove()
    return found
