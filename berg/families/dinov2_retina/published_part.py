"""One part of the weights of a subject, as published: a flat dict of tensors, whose sizes say what the network is.

Low-rank updates and layer scales go into the matrices that they belong to: ``fc(x) + 0.2 * up(down(x))`` is one linear
layer, and so is a linear layer whose outputs are scaled. The modulation of the blocks (``adaLN``) has no effect, since
its condition is zero, and neither have the last norm and the mask token; they are looked for and not read.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from berg.core.exceptions import CorruptedFileError
from berg.families.dinov2_retina.features import GRID, TrunkWeights
from berg.families.dinov2_retina.readout import Looks, looks_of
from berg.families.dinov2_retina.tensor_shapes import (
    BACKBONE,
    MAPS,
    UPDATED,
    VECTORS,
    Sizes,
    check_shapes,
    expected_shapes,
    has_effect,
    sizes_of,
)
from berg.weights.pt_files import check_tensors, read_pt

LORA_SCALE = 0.2
POSITION_SHIFT = 0.1
"""Added to the side of the grid before the scale of the positional interpolation is computed, as in DINOv2's code."""
_PREFIX = "model."


@dataclass(frozen=True)
class PublishedPart:
    """The tensors of one part, mapped, with the names of the file without ``model.``; names and shapes were checked."""

    path: Path
    subject: str
    sizes: Sizes
    tensors: Mapping[str, Tensor]

    @property
    def n_vertices(self) -> int:
        """How many vertices the part has."""
        return self.sizes.n_vertices

    def checked(self) -> PublishedPart:
        """The same part, every value of which was looked at.

        Raises
        ------
        CorruptedFileError
            If the file is damaged, or has values that are not finite.
        """
        check_tensors(self.path)
        for name in expected_shapes(self.sizes, self.subject):
            if has_effect(name) and not _is_finite(self.tensors[name]):
                raise CorruptedFileError(f"{self.path}: '{name}' has NaN or infinite values. Get the file again.")
        coordinates = self.tensors[f"coord_dict.{self.subject}"]
        if not bool((coordinates.amax(0) > coordinates.amin(0)).any()):
            raise CorruptedFileError(
                f"{self.path}: all vertices of 'coord_dict.{self.subject}' lie at one place. Get the file again."
            )
        return self

    def trunk(self) -> TrunkWeights:
        """The networks, with all updates in their matrices."""
        backbone, heads = dict(self._backbone()), dict(self._heads())
        return TrunkWeights(self.sizes.layers, hash_of(backbone), hash_of(heads), lambda: backbone, lambda: heads)

    def looks(self, rows: Tensor) -> Looks:
        """What some of the vertices look at."""
        selector, mapper = (
            [
                (
                    self._float(f"{name}.{self.subject}.mlp.{k}.weight"),
                    self._float(f"{name}.{self.subject}.mlp.{k}.bias"),
                )
                for k in (1, 3, 5)
            ]
            for name in ("layer_selector", "retina_mapper")
        )
        return looks_of(self.tensors[f"coord_dict.{self.subject}"], rows, selector, mapper)

    def readout(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Weights, shape (n_rows, W), and offsets of some of the vertices."""
        name = f"voxel_outs_weight.{self.subject}"
        return self.tensors[f"{name}.weight"][rows].float(), self.tensors[f"{name}.bias"][rows].float()

    def _float(self, name: str) -> Tensor:
        return self.tensors[name].float()

    def _backbone(self) -> Iterator[tuple[str, Tensor]]:
        """The tensors of `berg.families.dinov2_retina.features.Backbone`."""
        yield "patch.weight", self._float(f"{BACKBONE}patch_embed.proj.weight").flatten(1)
        yield "patch.bias", self._float(f"{BACKBONE}patch_embed.proj.bias")
        yield "tokens", token_codes(self._float(f"{BACKBONE}pos_embed"), self._float(f"{BACKBONE}cls_token"))
        for number in range(max(self.sizes.layers) + 1):
            for name, tensor in self._block(f"{BACKBONE}blocks.{number}.block."):
                yield f"blocks.{number}.{name}", tensor

    def _block(self, place: str) -> Iterator[tuple[str, Tensor]]:
        for kind in ("weight", "bias"):
            yield f"norm1.{kind}", self._float(f"{place}norm1.{kind}")
            yield f"norm2.{kind}", self._float(f"{place}norm2.{kind}")
        scales = {"attn.proj": f"{place}ls1.gamma", "mlp.fc2": f"{place}ls2.gamma"}
        for layer in UPDATED:
            down, up = (self._float(f"{place}{layer}.fc_lora.{side}.weight") for side in ("down", "up"))
            weight = torch.addmm(self._float(f"{place}{layer}.fc.weight"), up, down, alpha=LORA_SCALE)
            bias = self._float(f"{place}{layer}.fc.bias")
            if layer in scales:
                scale = self._float(scales[layer])
                weight, bias = scale[:, None] * weight, scale * bias
            short = layer.partition(".")[2]
            yield f"{short}.weight", weight
            yield f"{short}.bias", bias

    def _heads(self) -> Iterator[tuple[str, Tensor]]:
        """The tensors of `berg.families.dinov2_retina.features.Trunk`."""
        for layer in self.sizes.layers:
            place = f"{MAPS}{layer}."
            for k in range(3):
                yield f"head.{layer}.conv{k}.weight", self._float(f"{place}block.{k}.0.weight")
            for k in range(2):
                for kind in ("weight", "bias"):
                    yield f"head.{layer}.norm{k}.{kind}", self._float(f"{place}block.{k}.1.{kind}")
            if f"{place}reduce_block.weight" in self.tensors:
                yield f"head.{layer}.reduce.weight", self._float(f"{place}reduce_block.weight").flatten(1)
            for name in ("fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"):
                yield f"head.{layer}.{name}", self._float(f"{VECTORS}{layer}.{name}")


def token_codes(positions: Tensor, class_token: Tensor) -> Tensor:
    """What is added to each token, shape (257, D); the class token in the first.

    The published network resizes the grid of positions by the scale factor (16 + 0.1) / side, not to the size 16, which
    takes it at other places.

    Parameters
    ----------
    positions
        Shape (1, 1 + side * side, D), that of the class token in front.
    class_token
        Shape (1, 1, D).
    """
    side = math.isqrt(positions.shape[1] - 1)
    grid = positions[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
    factor = (GRID + POSITION_SHIFT) / side
    resized = functional.interpolate(grid, scale_factor=(factor, factor), mode="bicubic", align_corners=False)
    return torch.cat([(class_token + positions[:, :1])[0], resized[0].flatten(1).T])


def hash_of(tensors: Mapping[str, Tensor]) -> str:
    """Sha256 of the names and the values of tensors."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.contiguous().numpy().data)
    return digest.hexdigest()


def _is_finite(tensor: Tensor) -> bool:
    """Without an array of truth values; the least and the largest are NaN if any value is."""
    least, largest = tensor.aminmax()
    return bool(torch.isfinite(least) and torch.isfinite(largest))


def read_part(path: Path, subject: str) -> PublishedPart:
    """The part in a published file, its tensors mapped; their values are looked at by `PublishedPart.checked`.

    Parameters
    ----------
    subject
        As in the names of the tensors, such as ``subj01``.

    Raises
    ------
    CorruptedFileError
        It names the tensor that is missing, unknown, or has a wrong shape.
    """
    content = read_pt(path, mapped=True)
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise CorruptedFileError(
            f"{path} holds no dict of tensors by name; it is not a part of this model. Get it again."
        )
    in_model = {name.removeprefix(_PREFIX): value for name, value in content.items() if name.startswith(_PREFIX)}
    tensors = in_model | {name: value for name, value in content.items() if not name.startswith(_PREFIX)}
    sizes = sizes_of(path, tensors, subject)
    check_shapes(path, tensors, sizes, subject)
    return PublishedPart(path, subject, sizes, tensors)
