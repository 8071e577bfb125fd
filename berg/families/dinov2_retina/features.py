r"""Pictures -> the maps and the vectors that a retina looks at: DINOv2, and for some of its blocks two heads.

With the patch tokens of block l as a map :math:`g_l` of 16 x 16 places and D channels, and its class token:

.. math::
    x &\leftarrow x + \mathrm{SiLU}(\mathrm{LN}(W_k * x)), \; k = 1, 2, \qquad
    \tilde g_l = \mathrm{SiLU}(W_3 * x), \quad x = g_l \\
    c_l &= \left[\mathrm{mean}(g_l); \max(g_l)\right] \text{ or, of the last block, its class token}, \qquad
    \tilde c_l = V_2 \, \mathrm{GELU}(V_1 c_l)

Convolutions are of 5 x 5 with zeros around and without offsets, LN is over the channels of each place, and nothing is
normalised behind the blocks. DINOv2: Oquab et al. (2023); the heads: Yang, Gee and Shi (2023).

Networks with the same tensors lie in memory once, whichever subjects and parts they came with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn
from torch.nn import functional

from berg.features.linear import fast_linear
from berg.features.precision import dtype_of
from berg.features.winograd import WinogradConvolution

SIDE = 224
PATCH = 14
GRID = SIDE // PATCH
HEAD_WIDTH = 64
EPSILON = 1e-6  # of all normalisations
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

Tensors = Mapping[str, Tensor]
Layer = tuple[Tensor, Tensor]
"""Of one block: patches (batch, 16, 16, D), and the class token (batch, D)."""


@dataclass(frozen=True)
class Glance:
    """What the vertices of one part read, for a batch of pictures.

    Attributes
    ----------
    maps
        Shape (batch, layers, 16, 16, W).
    vectors
        Shape (batch, layers, W).
    """

    maps: Tensor
    vectors: Tensor


class Squash(nn.Module):
    """Pictures with values in [0, 255] -> 224 x 224, normalised; both sides resized bilinearly, without antialias."""

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name, values in (("mean", MEAN), ("std", STD)):
            self.register_buffer(name, torch.tensor(values).view(3, 1, 1), persistent=False)

    def forward(self, pictures: Tensor) -> Tensor:
        scaled = pictures.float() / 255
        if scaled.shape[-2:] != (SIDE, SIDE):
            scaled = functional.interpolate(scaled, (SIDE, SIDE), mode="bilinear", align_corners=False)
        return (scaled - self.mean) / self.std


class Affine(nn.Module):
    """A linear layer with the tensors ``weight`` and ``bias`` under a name."""

    weight: Tensor
    bias: Tensor

    def __init__(self, tensors: Tensors, name: str) -> None:
        super().__init__()
        self.register_buffer("weight", tensors[f"{name}.weight"])
        self.register_buffer("bias", tensors[f"{name}.bias"])

    def forward(self, x: Tensor, gelu: bool = False) -> Tensor:
        return fast_linear(x, self.weight, self.bias, gelu)


class Norm(Affine):
    """A normalisation over the last axis."""

    def forward(self, x: Tensor, gelu: bool = False) -> Tensor:
        return functional.layer_norm(x, x.shape[-1:], self.weight, self.bias, EPSILON)


class Block(nn.Module):
    """A transformer block with the norms in front; layer scales and low-rank updates are in its matrices."""

    def __init__(self, tensors: Tensors, prefix: str) -> None:
        super().__init__()
        self.norm1, self.norm2 = Norm(tensors, f"{prefix}.norm1"), Norm(tensors, f"{prefix}.norm2")
        self.qkv, self.proj, self.fc1, self.fc2 = (
            Affine(tensors, f"{prefix}.{name}") for name in ("qkv", "proj", "fc1", "fc2")
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self._attention(self.norm1(x))
        hidden = self.fc1(self.norm2(x), gelu=True)
        updated: Tensor = x + self.fc2(hidden)
        return updated

    def _attention(self, x: Tensor) -> Tensor:
        batch, n_tokens, width = x.shape
        parts = self.qkv(x).view(batch, n_tokens, 3, -1, HEAD_WIDTH)
        queries, keys, values = parts.permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(queries, keys, values)
        gathered: Tensor = self.proj(mixed.transpose(1, 2).reshape(batch, n_tokens, width))
        return gathered


class Backbone(nn.Module):
    """Normalised pictures -> the tokens behind some of the blocks; those above the last of them are left out.

    Parameters
    ----------
    tensors
        ``patch.weight`` (D, 3 * 14 * 14), ``patch.bias``, ``tokens`` (257, D): the code of each place, with the
        class token in the first; and under ``blocks.{number}`` the weights and biases of ``norm1``, ``qkv``, ``proj``,
        ``norm2``, ``fc1`` and ``fc2``.
    layers
        The numbers of the blocks.
    """

    tokens: Tensor

    def __init__(self, tensors: Tensors, layers: Sequence[int]) -> None:
        super().__init__()
        self.patch = Affine(tensors, "patch")
        self.register_buffer("tokens", tensors["tokens"])
        self.blocks = nn.ModuleList(Block(tensors, f"blocks.{number}") for number in range(max(layers) + 1))
        self.layers = tuple(layers)

    def forward(self, pictures: Tensor) -> list[Layer]:
        x = self._embedded(pictures.to(self.tokens.dtype))
        behind: dict[int, Tensor] = {}
        for number, block in enumerate(self.blocks):
            x = block(x)
            if number in self.layers:
                behind[number] = x
        return [(_as_map(behind[number][:, 1:]), behind[number][:, 0]) for number in self.layers]

    def _embedded(self, pictures: Tensor) -> Tensor:
        batch = len(pictures)
        tiles = pictures.reshape(batch, 3, GRID, PATCH, GRID, PATCH).permute(0, 2, 4, 1, 3, 5)
        patches = self.patch(tiles.reshape(batch, GRID**2, -1))
        first = self.tokens[:1].expand(batch, 1, -1)
        return torch.cat([first, patches + self.tokens[1:]], dim=1)


def _as_map(patches: Tensor) -> Tensor:
    return patches.reshape(len(patches), GRID, GRID, -1)


class MapHead(nn.Module):
    """The patches of a block, shape (batch, 16, 16, D) -> a map, shape (batch, 16, 16, W).

    Parameters
    ----------
    tensors
        ``conv{0..2}.weight``, ``norm{0,1}.weight`` and ``.bias``, and ``reduce.weight`` (D', D) if the channels are
        reduced first, all under ``prefix``.
    make_convolution
        A 5 x 5 kernel -> a module on maps whose channels are last.
    """

    reduce: Tensor | None

    def __init__(self, tensors: Tensors, prefix: str, make_convolution: Callable[[Tensor], nn.Module]) -> None:
        super().__init__()
        first, second, self.last = (make_convolution(tensors[f"{prefix}.conv{k}.weight"]) for k in range(3))
        self.convolutions = nn.ModuleList([first, second])
        self.norms = nn.ModuleList(Norm(tensors, f"{prefix}.norm{k}") for k in range(2))
        self.register_buffer("reduce", tensors.get(f"{prefix}.reduce.weight"))

    def forward(self, x: Tensor) -> Tensor:
        if self.reduce is not None:
            x = fast_linear(x, self.reduce)
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = x + functional.silu(norm(convolution(x)))
        return functional.silu(self.last(x))


class DirectConvolution(nn.Module):
    """A convolution of 5 x 5 with zeros around, of maps whose channels are last."""

    weight: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight.contiguous(memory_format=torch.channels_last))

    def forward(self, maps: Tensor) -> Tensor:
        return functional.conv2d(maps.permute(0, 3, 1, 2), self.weight, padding="same").permute(0, 2, 3, 1)


class VectorHead(nn.Module):
    """The patches and the class token of a block -> a vector, shape (batch, W); its width tells what it reads."""

    def __init__(self, tensors: Tensors, prefix: str) -> None:
        super().__init__()
        self.fc1, self.fc2 = Affine(tensors, f"{prefix}.fc1"), Affine(tensors, f"{prefix}.fc2")

    def forward(self, layer: Layer) -> Tensor:
        patches, token = layer
        if self.fc1.weight.shape[1] == 2 * patches.shape[-1]:
            flat = patches.flatten(1, 2)
            token = torch.cat([flat.mean(1), flat.amax(1)], dim=1)
        vector: Tensor = self.fc2(self.fc1(token.contiguous(), gelu=True))
        return vector


class Trunk(nn.Module):
    """A backbone, which others may share, and the heads of one part."""

    def __init__(self, backbone: Backbone, tensors: Tensors, make_convolution: Callable[[Tensor], nn.Module]) -> None:
        super().__init__()
        self.backbone = backbone
        names = [f"head.{number}" for number in backbone.layers]
        self.map_heads = nn.ModuleList(MapHead(tensors, name, make_convolution) for name in names)
        self.vector_heads = nn.ModuleList(VectorHead(tensors, name) for name in names)

    def forward(self, layers: Sequence[Layer]) -> Glance:
        maps = [head(patches) for head, (patches, _) in zip(self.map_heads, layers, strict=True)]
        vectors = [head(layer) for head, layer in zip(self.vector_heads, layers, strict=True)]
        return Glance(torch.stack(maps, dim=1), torch.stack(vectors, dim=1))


class RetinaFeatures(nn.Module):
    """Pictures with values in [0, 255] -> what each part of the retina looks at, in the order of the parts.

    A backbone that several parts share is computed once, and so is a trunk.
    """

    def __init__(self, trunks: Sequence[Trunk]) -> None:
        super().__init__()
        self.transform = Squash()
        self.trunks = nn.ModuleList(trunks)
        self.backbones = nn.ModuleList(trunk.backbone for trunk in trunks)

    def forward(self, pictures: Tensor) -> list[Glance]:
        squashed = self.transform(pictures)
        layers: dict[nn.Module, list[Layer]] = {}
        glances: dict[nn.Module, Glance] = {}
        for trunk, backbone in zip(self.trunks, self.backbones, strict=True):
            if backbone not in layers:
                layers[backbone] = backbone(squashed)
            if trunk not in glances:
                glances[trunk] = trunk(layers[backbone])
        return [glances[trunk] for trunk in self.trunks]


@dataclass(frozen=True)
class TrunkWeights:
    """The tensors of a trunk, read when they are asked for, and what tells whether two of them are the same.

    Attributes
    ----------
    layers
        The blocks that are read.
    backbone_hash, heads_hash
        Sha256 of the tensors.
    """

    layers: tuple[int, ...]
    backbone_hash: str
    heads_hash: str
    backbone: Callable[[], Tensors]
    heads: Callable[[], Tensors]


_Module = TypeVar("_Module", bound=nn.Module)
_backbones: WeakValueDictionary[tuple[object, ...], Backbone] = WeakValueDictionary()
_trunks: WeakValueDictionary[tuple[object, ...], Trunk] = WeakValueDictionary()
_features: WeakValueDictionary[tuple[object, ...], RetinaFeatures] = WeakValueDictionary()


def retina_features(parts: Sequence[TrunkWeights], precision: str, device: torch.device) -> RetinaFeatures:
    """The networks of some parts; backbones, heads and the whole are shared with models that have the same tensors.

    Parameters
    ----------
    precision
        See `berg.features.precision`; not ``auto``.
    """
    trunks = [_trunk(part, precision, device) for part in parts]
    key = tuple(map(id, trunks))  # they live as long as the features that have this key
    return _shared(_features, key, lambda: RetinaFeatures(trunks).to(device))


def _trunk(weights: TrunkWeights, precision: str, device: torch.device) -> Trunk:
    dtype = dtype_of(precision)
    by_winograd = device.type == "cpu" and dtype == torch.float32
    make_convolution = WinogradConvolution if by_winograd else DirectConvolution
    key = (weights.backbone_hash, weights.layers, precision, str(device))

    def on_device(tensors: Tensors) -> dict[str, Tensor]:
        return {name: tensor.to(device, dtype) for name, tensor in tensors.items()}

    backbone = _shared(_backbones, key, lambda: Backbone(on_device(weights.backbone()), weights.layers))
    return _shared(
        _trunks, (weights.heads_hash, *key), lambda: Trunk(backbone, on_device(weights.heads()), make_convolution)
    )


def _shared(
    in_memory: WeakValueDictionary[tuple[object, ...], _Module], key: tuple[object, ...], make: Callable[[], _Module]
) -> _Module:
    """The module that is in memory, or a new one."""
    module = in_memory.get(key)
    if module is None:
        module = make().eval().requires_grad_(False)
        in_memory[key] = module
    return module
