"""Layers of a pretrained network as features.

The card names a network as ``PROVIDER/NETWORK``: ``torchvision/vit_b_32``,
``efficientnet_lite_pytorch/efficientnet-lite0``, ``timm/convnext_tiny``, ``transformers/facebook/dinov2-base``,
``open_clip/ViT-B-32``.
Models that ask for the same network, nodes, transform, precision and device share one in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from types import ModuleType
from typing import Any, Protocol
from weakref import WeakValueDictionary

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import functional

from berg.core.exceptions import InvalidParameterError, did_you_mean, listing
from berg.core.file_names import expand
from berg.features.fused_layers import with_channels_last, with_fused_layers
from berg.features.precision import dtype_of
from berg.features.tokens import pooled, split_node
from berg.features.video_transforms import UncroppedVideoTransform, VideoPreset, VideoPresetTransform


def _torchvision() -> ModuleType:
    from berg.features import torchvision_network

    return torchvision_network


def _efficientnet_lite() -> ModuleType:
    from berg.features import efficientnet_network

    return efficientnet_network


def _timm() -> ModuleType:
    from berg.features import timm_network

    return timm_network


def _transformers() -> ModuleType:
    from berg.features import transformers_network

    return transformers_network


def _open_clip() -> ModuleType:
    from berg.features import open_clip_network

    return open_clip_network


PROVIDERS: dict[str, Callable[[], ModuleType]] = {
    "torchvision": _torchvision,
    "efficientnet_lite_pytorch": _efficientnet_lite,
    "timm": _timm,
    "transformers": _transformers,
    "open_clip": _open_clip,
}
"""Functions that import a module with `read_network`, `make_network` and `network_file`, by the first half of an
extractor's name."""


class Preset(Protocol):
    """How pictures are brought to the input of a network, as torchvision states it for its weights."""

    @property
    def resize_size(self) -> Sequence[int]: ...
    @property
    def crop_size(self) -> Sequence[int]: ...
    @property
    def interpolation(self) -> Any: ...
    @property
    def antialias(self) -> bool: ...
    @property
    def mean(self) -> Sequence[float]: ...
    @property
    def std(self) -> Sequence[float]: ...


class NetworkFeatures(nn.Module):
    """Pictures with values in [0, 255] -> a list of layers, each of shape (batch, n_features), in node order."""

    def __init__(
        self, network: nn.Module, nodes: Sequence[str], transform: nn.Module, dtype: torch.dtype, compiled: bool = False
    ) -> None:
        super().__init__()
        self.network = with_fused_layers(network.to(dtype), [split_node(node)[0] for node in nodes])
        self.transform = transform
        self.dtype = dtype
        self._layers: dict[str, Tensor] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}  # of each layer before it was laid flat
        self.nodes = list(nodes)
        modules = dict(self.network.named_modules())
        for node in self.nodes:
            name, pooling = split_node(node)
            if name not in modules:
                raise InvalidParameterError(f"The network has no module '{name}'.{did_you_mean(name, modules)}")
            modules[name].register_forward_hook(self._keep(node, name, pooling))
        self._layers_of: Callable[[Tensor], list[Tensor]] = torch.compile(self._compute) if compiled else self._compute

    def _keep(self, node: str, name: str, pooling: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if not isinstance(output, Tensor):
                raise InvalidParameterError(
                    f"The module '{name}' puts out {type(output).__name__}, not one tensor. Name another node, such as "
                    "the one that it is part of."
                )
            self._layers[node] = layer = pooled(output, pooling, self.network, name)
            self.shapes[node] = tuple(output.shape[1:]) if pooling == "all" else tuple(layer.shape[1:])

        return hook

    def forward(self, pictures: Tensor) -> list[Tensor]:
        try:
            return self._layers_of(pictures)
        finally:
            self._layers.clear()

    def _compute(self, pictures: Tensor) -> list[Tensor]:
        self.network(self.transform(pictures).to(self.dtype))
        return [self._layers[node] for node in self.nodes]


_in_memory: WeakValueDictionary[tuple[object, ...], NetworkFeatures] = WeakValueDictionary()


def network_features(
    extractor: str,
    weights: str,
    nodes: str | list[str],
    transform: str,
    precision: str,
    device: torch.device,
    compiled: bool = False,
) -> NetworkFeatures:
    """The layers of a pretrained network, shared between models that ask for the same.

    Parameters
    ----------
    extractor, weights
        A network and its weights: ``torchvision/NAME`` as torchvision calls them, such as ``torchvision/vit_b_32``
        and ``IMAGENET1K_V1``; or one of another provider, see `PROVIDERS` and `berg.features.stated_weights`.
    nodes
        Names of modules whose outputs are the features; ``layer_{0..11}`` stands for twelve names, and ``:cls`` and
        ``:mean`` behind a name for a part of its tokens, see `berg.features.tokens`.
    transform
        ``preset``, ``as_trained``, ``squash`` or ``centre_square``; see `PresetTransform`, `AsTrainedTransform` and
        `ResizedTransform`. Of videos ``preset`` or ``uncropped``; see `berg.features.video_transforms`.
    precision
        See `berg.features.precision`; not ``auto``.
    compiled
        Compile network and transform for this machine.

    Raises
    ------
    InvalidParameterError, MissingFileError, MissingExtraError
        As `read_pretrained`.
    """
    listed = [node for item in ([nodes] if isinstance(nodes, str) else nodes) for node in expand(item)]
    key = (extractor, weights, tuple(listed), transform, precision, str(device), compiled)
    features = _in_memory.get(key)
    if features is None:
        network, preset = read_pretrained(extractor, weights)
        made = TRANSFORMS[transform](preset)
        features = NetworkFeatures(network, listed, made, dtype_of(precision), compiled)
        features = features.to(device).eval().requires_grad_(False)
        if device.type == "cpu":
            with_channels_last(features.network)
        _in_memory[key] = features
    return features


def read_pretrained(extractor: str, weights: str) -> tuple[nn.Module, Preset]:
    """A network with its pretrained weights, and how pictures are brought to its input.

    Parameters
    ----------
    extractor
        Such as ``torchvision/vit_b_32``.
    weights
        Such as ``IMAGENET1K_V1``.

    Raises
    ------
    InvalidParameterError
        For a network or weights that do not exist.
    MissingFileError
        If the weights are not on this machine; nothing is downloaded here.
    MissingExtraError
        If the package that the network comes with is not installed.
    """
    provider, name = _provider(extractor)
    network: tuple[nn.Module, Preset] = provider.read_network(name, weights)
    return network


def make_network(extractor: str, weights: str = "") -> tuple[nn.Module, Preset]:
    """A network whose weights are random or none, and how pictures are brought to its input: to look at its layers.

    Raises
    ------
    InvalidParameterError, MissingFileError, MissingExtraError
        As `read_pretrained`; of transformers, if its configuration is not on this machine.
    """
    provider, name = _provider(extractor)
    network: tuple[nn.Module, Preset] = provider.make_network(name, weights)
    return network


def network_file(extractor: str, weights: str) -> tuple[str, str, str] | None:
    """Url, path on this machine and first digits of the sha256 of a network's weights.

    None for those that come with a package that is installed, and need no download.
    """
    provider, name = _provider(extractor)
    file: tuple[str, str, str] | None = provider.network_file(name, weights)
    return file


def _provider(extractor: str) -> tuple[Any, str]:
    """The module that knows a network, and the network's name there."""
    provider, _, name = extractor.partition("/")
    if provider not in PROVIDERS or not name:
        raise InvalidParameterError(
            f"features.extractor is '{extractor}'; write PROVIDER/NETWORK.{did_you_mean(provider, PROVIDERS)} "
            f"Providers: {listing(PROVIDERS)}. For example torchvision/vit_b_32"
        )
    return PROVIDERS[provider](), name


class PresetTransform(nn.Module):
    """The network's own transform, as torchvision computes it: resize, centre crop, scale, normalise.

    It resizes uint8 pictures and rounds there, as users of the weights do (and keeps what bicubic
    interpolation overshoots within 0 to 255). Pictures in floating point
    stay differentiable and are not rounded.
    """

    def __init__(self, preset: Preset) -> None:
        super().__init__()
        self.preset = preset
        self.normalise = Normalise(preset)

    def forward(self, pictures: Tensor) -> Tensor:
        preset = self.preset
        as_float = pictures if pictures.is_floating_point() else pictures.float()
        resized = functional.resize(
            as_float, list(preset.resize_size), preset.interpolation, antialias=preset.antialias
        )
        cropped = functional.center_crop(resized, list(preset.crop_size))
        normalised: Tensor = self.normalise(cropped if pictures.is_floating_point() else cropped.round().clamp(0, 255))
        return normalised


class Normalise(nn.Module):
    """Pictures with values in [0, 255], brought to the mean and standard deviation that the network was trained on."""

    mean: Tensor
    std: Tensor

    def __init__(self, preset: Preset) -> None:
        super().__init__()
        # On the device from the start: a constant that is copied there for each batch makes the GPU wait.
        for name, values in (("mean", preset.mean), ("std", preset.std)):
            self.register_buffer(name, torch.tensor(values).view(3, 1, 1) * 255, persistent=False)

    def forward(self, pictures: Tensor) -> Tensor:
        return (pictures - self.mean).div_(self.std)


class AsTrainedTransform(nn.Module):
    """What the published training scripts did: centre square, PIL's bicubic resize to the network's input size.

    Pictures in floating point go through PyTorch's bicubic, antialiased resize, which is differentiable
    and differs from PIL's by its rounding.
    """

    def __init__(self, preset: Preset) -> None:
        super().__init__()
        self.size = preset.crop_size[0]
        self.normalise = Normalise(preset)

    def forward(self, pictures: Tensor) -> Tensor:
        square = functional.center_crop(pictures, [min(pictures.shape[-2:])] * 2)
        if square.is_floating_point():
            bicubic = functional.InterpolationMode.BICUBIC
            resized = functional.resize(square, [self.size, self.size], bicubic, antialias=True).clamp(0, 255)
        else:
            by_pil = np.stack([_resize_by_pil(picture, self.size) for picture in square.cpu().numpy()])
            resized = torch.from_numpy(by_pil).to(pictures.device).float()
        normalised: Tensor = self.normalise(resized)
        return normalised


def _resize_by_pil(picture: np.ndarray, size: int) -> np.ndarray:
    resized = Image.fromarray(picture.transpose(1, 2, 0)).resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(resized).transpose(2, 0, 1)


class ResizedTransform(nn.Module):
    """torchvision's resize of pictures in files, by PIL, to the network's input size, and its centre crop.

    Pictures in floating point go through PyTorch's bilinear, antialiased resize, which is differentiable and differs
    from PIL's by its rounding.

    Parameters
    ----------
    squash
        Bring both sides to the size, whatever the proportions were; else the shorter one.
    """

    def __init__(self, preset: Preset, squash: bool) -> None:
        super().__init__()
        size = preset.crop_size[0]
        self.size = [size, size] if squash else [size]
        self.crop = [size, size]
        self.normalise = Normalise(preset)

    def forward(self, pictures: Tensor) -> Tensor:
        if pictures.is_floating_point():
            bilinear = functional.InterpolationMode.BILINEAR
            resized = functional.resize(pictures, self.size, bilinear, antialias=True)
        else:
            by_pil = np.stack([self._by_pil(picture) for picture in pictures.cpu().numpy()])
            resized = torch.from_numpy(by_pil).to(pictures.device).float()
        normalised: Tensor = self.normalise(functional.center_crop(resized, self.crop))
        return normalised

    def _by_pil(self, picture: np.ndarray) -> np.ndarray:
        resized = functional.resize(Image.fromarray(picture.transpose(1, 2, 0)), self.size)
        return np.asarray(resized).transpose(2, 0, 1)


def preset_transform(preset: Preset) -> nn.Module:
    """The transform that a network's publisher states, of pictures or of videos."""
    return VideoPresetTransform(preset) if isinstance(preset, VideoPreset) else PresetTransform(preset)


TRANSFORMS: dict[str, Callable[[Preset], nn.Module]] = {
    "uncropped": UncroppedVideoTransform,  # of videos
    "preset": preset_transform,
    "as_trained": AsTrainedTransform,
    "squash": partial(ResizedTransform, squash=True),
    "centre_square": partial(ResizedTransform, squash=False),
}
