"""The tensors of one published part by name, and the sizes of the network that their shapes tell."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from berg.core.exceptions import CorruptedFileError, listing
from berg.families.dinov2_retina.features import HEAD_WIDTH, PATCH
from berg.families.dinov2_retina.readout import N_FREQUENCIES

BACKBONE = "backbone.vision_model."
MAPS, VECTORS = "conv_blocks.blocks_dict.", "cls_blocks.mlp_dict."
UPDATED = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
"""The linear layers of a block, each with an update of low rank."""
_SELECTOR, _MAPPER, _WEIGHT, _COORDINATES = "layer_selector", "retina_mapper", "voxel_outs_weight", "coord_dict"
_OF_SUBJECTS = (_SELECTOR, _MAPPER, _WEIGHT, _COORDINATES)
_WITHOUT_EFFECT = re.compile(rf"{re.escape(BACKBONE)}(mask_token|norm\.\w+|blocks\.\d+\.adaLN\..+)")
_CODE_WIDTH = 3 * 2 * N_FREQUENCIES
_CONDITION_WIDTH = 256

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Sizes:
    """What the tensors of a part say of its network.

    Attributes
    ----------
    layers
        The numbers of the blocks that are read, ascending.
    channels
        Of the convolutions behind each of them: those of the backbone, or fewer.
    hidden
        Widths inside the layer selector and the retina mapper.
    """

    width: int
    n_blocks: int
    rank: int
    n_tokens: int
    layers: tuple[int, ...]
    channels: tuple[int, ...]
    hidden: tuple[int, int]
    n_out: int
    n_vertices: int


def sizes_of(path: Path, tensors: Mapping[str, Any], subject: str) -> Sizes:
    """The sizes of a part, by the shapes of its tensors.

    Raises
    ------
    CorruptedFileError
        If a tensor that tells one is missing, or the network is none that can be computed.
    """
    _check_heads(path, tensors)

    def length(name: str, n_axes: int, axis: int) -> int:
        tensor = tensors.get(name)
        if not isinstance(tensor, Tensor) or tensor.ndim != n_axes or not tensor.numel():
            raise CorruptedFileError(
                f"{path} has no tensor of {n_axes} axes at '{name}'; it is not a part of {subject}. Get it again."
            )
        return int(tensor.shape[axis])

    layers = _numbers(tensors, rf"{re.escape(MAPS)}(\d+)\.")
    sizes = Sizes(
        width=length(f"{BACKBONE}cls_token", 3, 2),
        n_blocks=len(_numbers(tensors, rf"{re.escape(BACKBONE)}blocks\.(\d+)\.")),
        rank=length(f"{BACKBONE}blocks.0.block.attn.qkv.fc_lora.down.weight", 2, 0),
        n_tokens=length(f"{BACKBONE}pos_embed", 3, 1),
        layers=layers,
        channels=tuple(length(f"{MAPS}{layer}.block.0.0.weight", 4, 0) for layer in layers),
        hidden=(
            length(f"{_SELECTOR}.{subject}.mlp.1.weight", 2, 0),
            length(f"{_MAPPER}.{subject}.mlp.1.weight", 2, 0),
        ),
        n_out=length(f"{_WEIGHT}.{subject}.weight", 2, 1),
        n_vertices=length(f"{_WEIGHT}.{subject}.weight", 2, 0),
    )
    _check_sizes(path, sizes)
    return sizes


def _check_heads(path: Path, tensors: Mapping[str, Any]) -> None:
    others = [name for name in tensors if re.match(rf"{re.escape(MAPS)}\d+\.blocks\.", name)]
    if others:
        raise CorruptedFileError(
            f"{path} has ConvNeXt blocks ('{others[0]}'). Heads of three convolutions alone "
            f"('{MAPS}LAYER.block.0' to '.2') can be computed; take a file that has them."
        )


def _numbers(tensors: Mapping[str, Any], pattern: str) -> tuple[int, ...]:
    return tuple(sorted({int(found[1]) for name in tensors if (found := re.match(pattern, name))}))


def _check_sizes(path: Path, sizes: Sizes) -> None:
    if not sizes.layers or sizes.layers[-1] != sizes.n_blocks - 1:
        raise CorruptedFileError(
            f"{path} has {sizes.n_blocks} blocks, and heads of {listing(sizes.layers) or 'none'} (from 0). The last "
            "head must be that of the last block, which reads its class token. Get the file again."
        )
    side = math.isqrt(sizes.n_tokens - 1)
    if sizes.width % HEAD_WIDTH or side == 0 or side**2 != sizes.n_tokens - 1:
        raise CorruptedFileError(
            f"{path} has tokens of {sizes.width} numbers and positions of {sizes.n_tokens} tokens; expected are a "
            f"multiple of {HEAD_WIDTH}, and one more than a square. Get the file again."
        )


def has_effect(name: str) -> bool:
    """Whether a tensor changes a response."""
    return _WITHOUT_EFFECT.fullmatch(name) is None


def expected_shapes(sizes: Sizes, subject: str) -> Shapes:
    """The shapes of all tensors of a part, by their names in the file without ``model.``."""
    shapes = {f"{BACKBONE}{name}": shape for name, shape in _of_embedding(sizes).items()}
    for number in range(sizes.n_blocks):
        own = _of_block(sizes.width, sizes.rank)
        shapes |= {f"{BACKBONE}blocks.{number}.{name}": shape for name, shape in own.items()}
    for layer, channels in zip(sizes.layers, sizes.channels, strict=True):
        shapes |= _of_heads(sizes, layer, channels)
    for name, hidden, n_out in ((_SELECTOR, sizes.hidden[0], len(sizes.layers)), (_MAPPER, sizes.hidden[1], 2)):
        shapes |= _of_perceptron(f"{name}.{subject}.mlp.", (_CODE_WIDTH, hidden, hidden, n_out))
    shapes[f"{_WEIGHT}.{subject}.weight"] = (sizes.n_vertices, sizes.n_out)
    shapes[f"{_WEIGHT}.{subject}.bias"] = (sizes.n_vertices,)
    shapes[f"{_COORDINATES}.{subject}"] = (sizes.n_vertices, 3)
    return shapes


def _of_embedding(sizes: Sizes) -> Shapes:
    width = sizes.width
    return {
        "cls_token": (1, 1, width),
        "mask_token": (1, width),
        "pos_embed": (1, sizes.n_tokens, width),
        "patch_embed.proj.weight": (width, 3, PATCH, PATCH),
        "patch_embed.proj.bias": (width,),
        "norm.weight": (width,),
        "norm.bias": (width,),
    }


def _of_block(width: int, rank: int) -> Shapes:
    of_width = ("norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias", "ls1.gamma", "ls2.gamma")
    shapes: Shapes = {f"block.{name}": (width,) for name in of_width}
    inputs_outputs = ((width, 3 * width), (width, width), (width, 4 * width), (4 * width, width))
    for layer, (n_in, n_out) in zip(UPDATED, inputs_outputs, strict=True):
        shapes |= {
            f"block.{layer}.fc.weight": (n_out, n_in),
            f"block.{layer}.fc.bias": (n_out,),
            f"block.{layer}.fc_lora.down.weight": (rank, n_in),
            f"block.{layer}.fc_lora.up.weight": (n_out, rank),
        }
    shapes["adaLN.adaLN_modulation.0.weight"] = (6 * width, _CONDITION_WIDTH)
    return shapes


def _of_heads(sizes: Sizes, layer: int, channels: int) -> Shapes:
    place = f"{MAPS}{layer}."
    n_outs = (channels, channels, sizes.n_out)
    shapes: Shapes = {f"{place}block.{k}.0.weight": (n_out, channels, 5, 5) for k, n_out in enumerate(n_outs)}
    shapes |= {f"{place}block.{k}.1.{kind}": (channels,) for k in range(2) for kind in ("weight", "bias")}
    if channels != sizes.width:
        shapes[f"{place}reduce_block.weight"] = (channels, sizes.width, 1, 1)
    n_in = sizes.width if layer == sizes.layers[-1] else 2 * sizes.width
    return shapes | {
        f"{VECTORS}{layer}.fc1.weight": (n_in, n_in),
        f"{VECTORS}{layer}.fc1.bias": (n_in,),
        f"{VECTORS}{layer}.fc2.weight": (sizes.n_out, n_in),
        f"{VECTORS}{layer}.fc2.bias": (sizes.n_out,),
    }


def _of_perceptron(place: str, widths: tuple[int, int, int, int]) -> Shapes:
    shapes: Shapes = {}
    for k, n_in, n_out in zip((1, 3, 5), widths[:-1], widths[1:], strict=True):
        shapes |= {f"{place}{k}.weight": (n_out, n_in), f"{place}{k}.bias": (n_out,)}
    return shapes


def check_shapes(path: Path, tensors: Mapping[str, Any], sizes: Sizes, subject: str) -> None:
    """Raise CorruptedFileError unless each tensor is there with its shape, of real numbers, and no unknown one is.

    Tensors of other subjects are passed over.
    """
    expected = expected_shapes(sizes, subject)
    for name, shape in expected.items():
        value = tensors.get(name)
        if not isinstance(value, Tensor) or tuple(value.shape) != shape:
            found = "not there" if value is None else f"of shape {tuple(getattr(value, 'shape', ()))}"
            raise CorruptedFileError(f"{path}: '{name}' is {found}, expected {shape}. Get the file again.")
        if not value.is_floating_point():
            raise CorruptedFileError(f"{path}: '{name}' holds {value.dtype} numbers. Get the file again.")
    unknown = [name for name in tensors if name not in expected and not name.startswith(_OF_SUBJECTS)]
    if unknown:
        raise CorruptedFileError(
            f"{path} has tensors that this network has no use for: {listing(sorted(unknown))}. It is of another "
            "network, or damaged; get it again."
        )
