"""Layers of a torchvision network as features.

Models that ask for the same network, nodes, transform, precision and device share one in memory.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import torch
import torchvision
from PIL import Image
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torchvision.transforms import functional

from berg.core.exceptions import CorruptedFileError, InvalidParameterError, MissingFileError, did_you_mean
from berg.features.fused_layers import with_fused_layers

Transform = Callable[[Tensor], Tensor]


class NetworkFeatures(nn.Module):
    """Pictures with values in [0, 255] -> a list of layers, each of shape (batch, n_features), in node order."""

    def __init__(self, network: nn.Module, nodes: Sequence[str], transform: Transform, dtype: torch.dtype) -> None:
        super().__init__()
        self.network = with_fused_layers(network.to(dtype), nodes)
        self.transform = transform
        self.dtype = dtype
        self._layers: dict[str, Tensor] = {}
        self.nodes = list(nodes)
        modules = dict(self.network.named_modules())
        for node in self.nodes:
            if node not in modules:
                raise InvalidParameterError(f"The network has no module '{node}'.{did_you_mean(node, modules)}")
            modules[node].register_forward_hook(self._keep(node))

    def _keep(self, node: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def hook(module: nn.Module, inputs: Any, output: Tensor) -> None:
            self._layers[node] = output.flatten(1)

        return hook

    def forward(self, pictures: Tensor) -> list[Tensor]:
        try:
            self.network(self.transform(pictures).to(self.dtype))
            return [self._layers[node] for node in self.nodes]
        finally:
            self._layers.clear()


_in_memory: WeakValueDictionary[tuple[object, ...], NetworkFeatures] = WeakValueDictionary()


def network_features(
    name: str, weights: str, nodes: str | list[str], transform: str, precision: str, device: torch.device
) -> NetworkFeatures:
    """The layers of a pretrained torchvision network, shared between models that ask for the same.

    Parameters
    ----------
    name, weights
        As torchvision calls them, such as ``vit_b_32`` and ``IMAGENET1K_V1``.
    nodes
        Names of modules whose outputs are the features; ``layer_{0..11}`` stands for twelve names.
    transform
        ``preset`` or ``as_trained``; see `preset_transform` and `as_trained_transform`.
    precision
        ``float32``, ``bfloat16`` or ``float16``: the type of the network's weights and activations.

    Raises
    ------
    MissingFileError
        Where the network's weights are not on this machine; nothing is downloaded here.
    """
    listed = [node for item in ([nodes] if isinstance(nodes, str) else nodes) for node in expand(item)]
    key = (name, weights, tuple(listed), transform, precision, str(device))
    features = _in_memory.get(key)
    if features is None:
        network, preset = read_network(name, weights)
        made = TRANSFORMS[transform](preset)
        features = NetworkFeatures(network, listed, made, getattr(torch, precision))
        features = features.to(device).eval().requires_grad_(False)
        _in_memory[key] = features
    return features


def read_network(name: str, weights: str) -> tuple[nn.Module, Any]:
    """A torchvision network with its pretrained weights, and the preset transform of those weights."""
    entry = _weights_entry(name, weights)
    path = weights_file(entry.url)
    if not path.is_file():
        raise MissingFileError(
            f"The ImageNet weights of {name} ({weights}) are not on this machine: torchvision looks for {path}. "
            f"Get them from {entry.url} and put them there, or set TORCH_HOME to where they are."
        )
    with torch.device("meta"), _NoFirstWeights():
        network = torchvision.models.get_model(name)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        network.load_state_dict(state, assign=True)
    except (RuntimeError, OSError, EOFError, KeyError, TypeError, ValueError, pickle.UnpicklingError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CorruptedFileError(
            f"{path} does not hold the weights of {name}: {reason} Delete it and get it again."
        ) from error
    return network, entry.transforms()


class _NoFirstWeights(TorchFunctionMode):
    """Networks made under it do not draw the random weights that are replaced at once."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(function, "__module__", None) == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return function(*args, **(kwargs or {}))


def weights_file(url: str) -> Path:
    """Where torchvision keeps the file of a url."""
    return Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[-1]


def weights_url(name: str, weights: str) -> str:
    """Where torchvision's publisher has the weights of a network."""
    url: str = _weights_entry(name, weights).url
    return url


def published_hash(url: str) -> str:
    """The first digits of the sha256 of a file, which torchvision writes into its name.

    >>> published_hash("https://download.pytorch.org/models/vit_b_32-d86f8d99.pth")
    'd86f8d99'
    """
    return url.rpartition("-")[2].partition(".")[0]


def _weights_entry(name: str, weights: str) -> Any:
    names = torchvision.models.list_models()
    if name not in names:
        raise InvalidParameterError(f"torchvision has no network '{name}'.{did_you_mean(name, names)}")
    entries = torchvision.models.get_model_weights(name)
    if weights not in entries.__members__:
        allowed = ", ".join(entries.__members__)
        raise InvalidParameterError(f"{name} has no weights '{weights}'. Weights: {allowed}")
    return entries[weights]


def expand(pattern: str) -> list[str]:
    """The names that a pattern stands for.

    >>> expand("layer_{0..2}.out")
    ['layer_0.out', 'layer_1.out', 'layer_2.out']
    """
    found = re.search(r"\{(\d+)\.\.(\d+)\}", pattern)
    if found is None:
        return [pattern]
    numbers = range(int(found[1]), int(found[2]) + 1)
    return [pattern[: found.start()] + str(number) + pattern[found.end() :] for number in numbers]


def preset_transform(preset: Any) -> Transform:
    """torchvision's own transform of the weights: resize, centre crop, scale, normalise.

    It resizes uint8 pictures and rounds there, as users of the weights do. Pictures in floating point
    stay differentiable and are not rounded.
    """

    def transform(pictures: Tensor) -> Tensor:
        as_float = pictures if pictures.is_floating_point() else pictures.float()
        resized = functional.resize(as_float, preset.resize_size, preset.interpolation, antialias=preset.antialias)
        cropped = functional.center_crop(resized, preset.crop_size)
        return _normalised(cropped if pictures.is_floating_point() else cropped.round(), preset)

    return transform


def _normalised(pictures: Tensor, preset: Any) -> Tensor:
    """Pictures with values in [0, 255], brought to the mean and standard deviation that the network was trained on."""
    mean, std = (pictures.new_tensor(values).view(3, 1, 1) * 255 for values in (preset.mean, preset.std))
    return (pictures - mean).div_(std)


def as_trained_transform(preset: Any) -> Transform:
    """What the published training scripts did: centre square, PIL's bicubic resize to the network's input size.

    Pictures in floating point go through PyTorch's bicubic, antialiased resize, which is differentiable
    and differs from PIL's by its rounding.
    """
    size = preset.crop_size[0]

    def transform(pictures: Tensor) -> Tensor:
        square = functional.center_crop(pictures, [min(pictures.shape[-2:])] * 2)
        if square.is_floating_point():
            bicubic = functional.InterpolationMode.BICUBIC
            resized = functional.resize(square, [size, size], bicubic, antialias=True).clamp(0, 255)
        else:
            by_pil = np.stack([_resize_by_pil(picture, size) for picture in square.cpu().numpy()])
            resized = torch.from_numpy(by_pil).to(pictures.device).float()
        return _normalised(resized, preset)

    return transform


def _resize_by_pil(picture: np.ndarray, size: int) -> np.ndarray:
    resized = Image.fromarray(picture.transpose(1, 2, 0)).resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(resized).transpose(2, 0, 1)


TRANSFORMS: dict[str, Callable[[Any], Transform]] = {
    "preset": preset_transform,
    "as_trained": as_trained_transform,
}
