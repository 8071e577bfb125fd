"""The DINOv2 retina: files in the published layout with random numbers, and its equations written once more.

The reference computes in float64 with timm's DINOv2, whose matrices have the low-rank updates added, and with PyTorch's
`interpolate(scale_factor=...)` and `grid_sample`, vertex by vertex where that is plainest.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor
from torch.nn import functional

from published import layouts

HUZE = layouts.HUZE
Joining = Literal["complement", "all"]
_V = "model.backbone.vision_model."


@dataclass(frozen=True)
class Sizes:
    """Of the network of a part; those of tests by default, `FULL` as published."""

    width: int = 128
    n_blocks: int = 4
    layers: tuple[int, ...] = (0, 1, 2, 3)
    n_out: int = 8
    hidden: int = 16
    channels: int | None = None  # of the convolutions, if they are reduced first


FULL = Sizes(1024, 24, (5, 11, 17, 23), 256, 128)
SMALLEST = Sizes(64, 2, (0, 1), 4, 8)


class Draw:
    """Random tensors, by the sizes that keep signals alive through a deep network."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def normal(self, *shape: int, sd: float = 1.0, mean: float = 0.0) -> Tensor:
        return mean + sd * torch.randn(shape, generator=self.generator)

    def matrix(self, n_out: int, *n_in: int) -> Tensor:
        return self.normal(n_out, *n_in, sd=float(np.prod(n_in)) ** -0.5)


def backbone(draw: Draw, sizes: Sizes) -> dict[str, Tensor]:
    """The tensors of DINOv2 with its updates."""
    d = sizes.width
    tensors = {
        "cls_token": draw.normal(1, 1, d), "mask_token": draw.normal(1, d), "pos_embed": draw.normal(1, 1370, d),
        "patch_embed.proj.weight": draw.matrix(d, 3, 14, 14), "patch_embed.proj.bias": draw.normal(d, sd=0.1),
        "norm.weight": draw.normal(d), "norm.bias": draw.normal(d),
    }  # fmt: skip
    for i in range(sizes.n_blocks):
        place = f"blocks.{i}.block."
        for name in ("norm1", "norm2"):
            tensors[f"{place}{name}.weight"] = draw.normal(d, sd=0.2, mean=1)
            tensors[f"{place}{name}.bias"] = draw.normal(d, sd=0.1)
        for name in ("ls1.gamma", "ls2.gamma"):
            tensors[place + name] = draw.normal(d, sd=0.2, mean=0.6)
        for name, n_in, n_out in (
            ("attn.qkv", d, 3 * d), ("attn.proj", d, d), ("mlp.fc1", d, 4 * d), ("mlp.fc2", 4 * d, d),
        ):  # fmt: skip
            tensors[f"{place}{name}.fc.weight"] = draw.matrix(n_out, n_in)
            tensors[f"{place}{name}.fc.bias"] = draw.normal(n_out, sd=0.1)
            tensors[f"{place}{name}.fc_lora.down.weight"] = draw.matrix(4, n_in)
            tensors[f"{place}{name}.fc_lora.up.weight"] = draw.normal(n_out, 4)
        tensors[f"blocks.{i}.adaLN.adaLN_modulation.0.weight"] = draw.matrix(6 * d, 256)
    return {_V + name: tensor for name, tensor in tensors.items()}


def heads(draw: Draw, sizes: Sizes) -> dict[str, Tensor]:
    """The tensors of the convolutions and of the small networks."""
    d, w = sizes.channels or sizes.width, sizes.n_out
    tensors = {}
    for layer in sizes.layers:
        place = f"model.conv_blocks.blocks_dict.{layer}."
        for k, n_out in enumerate((d, d, w)):
            tensors[f"{place}block.{k}.0.weight"] = draw.matrix(n_out, d, 5, 5)
        for k in range(2):
            tensors[f"{place}block.{k}.1.weight"] = draw.normal(d, sd=0.2, mean=1)
            tensors[f"{place}block.{k}.1.bias"] = draw.normal(d, sd=0.1)
        if sizes.channels:
            tensors[f"{place}reduce_block.weight"] = draw.matrix(d, sizes.width, 1, 1)
        c = sizes.width * (1 if layer == sizes.layers[-1] else 2)
        for name, n_out in (("fc1", c), ("fc2", w)):
            tensors[f"model.cls_blocks.mlp_dict.{layer}.{name}.weight"] = draw.matrix(n_out, c)
            tensors[f"model.cls_blocks.mlp_dict.{layer}.{name}.bias"] = draw.normal(n_out, sd=0.1)
    return tensors


def vertices(draw: Draw, sizes: Sizes, subject: str, n_vertices: int) -> dict[str, Tensor]:
    """The tensors of the vertices of a part."""
    tensors = {}
    for name, n_out in (("layer_selector", len(sizes.layers)), ("retina_mapper", 2)):
        widths = (192, sizes.hidden, sizes.hidden, n_out)
        for k, (n_in, n) in zip((1, 3, 5), pairwise(widths), strict=True):
            tensors[f"model.{name}.{subject}.mlp.{k}.weight"] = 3 * draw.matrix(n, n_in)
            tensors[f"model.{name}.{subject}.mlp.{k}.bias"] = draw.normal(n, sd=0.3)
    tensors[f"model.voxel_outs_weight.{subject}.weight"] = draw.normal(n_vertices, sizes.n_out)
    tensors[f"model.voxel_outs_weight.{subject}.bias"] = draw.normal(n_vertices, sd=0.1)
    scale = torch.tensor([40.0, 70.0, 50.0])  # three ranges, so that the largest counts
    tensors[f"coord_dict.{subject}"] = draw.normal(n_vertices, 3) * scale + torch.tensor([5.0, -20.0, 11.0])
    return tensors


def write_part(
    path: Path, subject: str, n_vertices: int, sizes: Sizes, seeds: tuple[int, int, int], ordered: bool = False
) -> None:
    """Write one part; the three seeds are those of backbone, heads and vertices."""
    makers = zip((backbone, heads), seeds, strict=False)
    tensors = {name: tensor for make, seed in makers for name, tensor in make(Draw(seed), sizes).items()}
    tensors |= vertices(Draw(seeds[2]), sizes, subject, n_vertices)
    tensors["coord_dict.subj99"] = torch.zeros(2, 3)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(OrderedDict(tensors) if ordered else tensors, path)


def write_retina(
    berg_dir: Path,
    subject: int,
    *,
    first: NDArray[np.int64],
    n_hemisphere: int = layouts.N_VERTICES,
    joining: Joining = "complement",
    sizes: Sizes = Sizes(),
    seeds: tuple[tuple[int, int, int], tuple[int, int, int]] = ((1, 2, 3), (4, 5, 6)),
    as_tensor: bool = True,
    model_id: str = HUZE,
    empty_rois: Collection[str] = ("mTL-bodies",),
) -> Path:
    """Write both parts, the metadata and the vertices of part 1 of one subject; gives the folder of the weights.

    Parameters
    ----------
    first
        The vertices of part 1, counted through both hemispheres, in the order of its rows.
    joining
        Whether part 2 has the other vertices, or all.
    seeds
        Of backbone, heads and vertices of each part.
    as_tensor
        The vertices of part 1 as a tensor, or as an array.
    """
    folder = layouts.model_folder(berg_dir, model_id)
    weights, name = folder / "encoding_models_weights", f"subj{subject:02d}"
    n_second = 2 * n_hemisphere - (len(first) if joining == "complement" else 0)
    for part, n_vertices in enumerate((len(first), n_second)):
        write_part(weights / f"{name}_part{part + 1}.pth", name, n_vertices, sizes, seeds[part], ordered=part == 1)
    indices = weights / "part1_voxel_indices.pt"
    held = torch.load(indices, weights_only=False) if indices.is_file() else {}
    torch.save({**held, name: torch.from_numpy(first) if as_tensor else first}, indices)
    rng = np.random.default_rng(subject)
    metadata = layouts.fsaverage_metadata(rng, n_hemisphere, empty_rois)
    for hemisphere in ("lh", "rh"):
        metadata["fmri"][f"{hemisphere}_fsaverage_rois"]["nsdgeneral"] = np.arange(7, n_hemisphere, 9)
    layouts.write_pickled_npy(folder / "metadata" / f"metadata_subject-{subject:02d}.npy", metadata)
    return weights


# The equations once more


def responses(berg_dir: Path, subject: int, pictures: Any, model_id: str = HUZE) -> tuple[Any, Any]:
    """What the files say of pictures (n, 3, height, width), both hemispheres, in float64."""
    folder, name = layouts.model_folder(berg_dir, model_id) / "encoding_models_weights", f"subj{subject:02d}"
    one, two = (
        part_responses(torch.load(folder / f"{name}_part{k}.pth", weights_only=True), name, pictures) for k in (1, 2)
    )
    first = np.asarray(torch.load(folder / "part1_voxel_indices.pt", weights_only=False)[name])
    metadata = np.load(folder.parent / "metadata" / f"metadata_subject-{subject:02d}.npy", allow_pickle=True).item()
    n_hemisphere = len(metadata["fmri"]["lh_ncsnr"])
    joined = np.empty((len(pictures), 2 * n_hemisphere))
    if two.shape == joined.shape:
        joined[:] = two
    else:
        joined[:, np.setdiff1d(np.arange(2 * n_hemisphere), first)] = two
    joined[:, first] = one
    return joined[:, :n_hemisphere], joined[:, n_hemisphere:]


def part_responses(state: dict[str, Tensor], subject: str, pictures: Any) -> NDArray[np.float64]:
    """The responses of the vertices of one part."""
    t = {name.removeprefix("model."): tensor.double() for name, tensor in state.items()}
    layers = sorted({int(name.split(".")[2]) for name in t if name.startswith("conv_blocks.")})
    x = torch.as_tensor(pictures, dtype=torch.float64) / 255
    if x.shape[-2:] != (224, 224):
        x = functional.interpolate(x, size=(224, 224), mode="bilinear", align_corners=False)
    for channel, (mean, sd) in enumerate(((0.485, 0.229), (0.456, 0.224), (0.406, 0.225))):
        x[:, channel] = (x[:, channel] - mean) / sd
    behind = dinov2_blocks(t, x)
    places, shares = looks(t, subject)
    total = torch.zeros(len(x), len(places), t[f"voxel_outs_weight.{subject}.weight"].shape[1], dtype=torch.float64)
    for index, layer in enumerate(layers):
        tokens = behind[layer]
        patches = tokens[:, 1:].transpose(1, 2).reshape(len(x), -1, 16, 16)
        grid = map_head(t, f"conv_blocks.blocks_dict.{layer}.", patches)
        vector = torch.cat([patches.mean((2, 3)), patches.amax((2, 3))], 1)
        if layer == layers[-1]:
            vector = tokens[:, 0]
        place = f"cls_blocks.mlp_dict.{layer}."
        hidden = functional.gelu(vector @ t[f"{place}fc1.weight"].T + t[f"{place}fc1.bias"])
        vector = hidden @ t[f"{place}fc2.weight"].T + t[f"{place}fc2.bias"]
        at = places[None, :, None].expand(len(x), -1, 1, 2)
        sampled = functional.grid_sample(grid, at, mode="bilinear", padding_mode="zeros", align_corners=False)
        total += shares[:, index, None] * (sampled[..., 0].transpose(1, 2) + vector[:, None])
    weight, bias = (t[f"voxel_outs_weight.{subject}.{kind}"] for kind in ("weight", "bias"))
    result: NDArray[np.float64] = ((total * weight).mean(-1) + bias).numpy()
    return result


def dinov2_blocks(t: dict[str, Tensor], x: Tensor) -> list[Tensor]:
    """The tokens behind each block of timm's DINOv2 with these weights."""
    v = {
        name.removeprefix("backbone.vision_model."): tensor for name, tensor in t.items() if name.startswith("backbone")
    }
    d, n_blocks = v["cls_token"].shape[-1], 1 + max(int(name.split(".")[1]) for name in v if name.startswith("blocks."))
    network = VisionTransformer(
        img_size=224, patch_size=14, embed_dim=d, depth=n_blocks, num_heads=d // 64, init_values=1.0, num_classes=0,
    ).double().eval()  # fmt: skip
    grid = v["pos_embed"][:, 1:].reshape(1, 37, 37, d).permute(0, 3, 1, 2)
    scale = (16 + 0.1) / 37
    grid = functional.interpolate(grid, scale_factor=(scale, scale), mode="bicubic", align_corners=False)
    state = {name: v[name] for name in ("cls_token", "patch_embed.proj.weight", "patch_embed.proj.bias")}
    state["pos_embed"] = torch.cat([v["pos_embed"][:, :1], grid.permute(0, 2, 3, 1).reshape(1, 256, d)], 1)
    state |= {"norm.weight": v["norm.weight"], "norm.bias": v["norm.bias"]}
    for name in v:
        if name.endswith(".fc.weight"):
            place = name.removesuffix(".fc.weight")
            update = 0.2 * v[f"{place}.fc_lora.up.weight"] @ v[f"{place}.fc_lora.down.weight"]
            state[place.replace(".block.", ".") + ".weight"] = v[name] + update
            state[place.replace(".block.", ".") + ".bias"] = v[f"{place}.fc.bias"]
        elif ".norm" in name or ".gamma" in name:
            state[name.replace(".block.", ".")] = v[name]
    network.load_state_dict(state)
    behind: list[Tensor] = []
    for block in network.blocks:
        block.register_forward_hook(lambda module, inputs, output: behind.append(output))
    with torch.no_grad():
        network.forward_features(x)
    return behind


def map_head(t: dict[str, Tensor], place: str, x: Tensor) -> Tensor:
    """Two residual convolutions and one to fewer channels, on maps with the channels in front."""
    if f"{place}reduce_block.weight" in t:
        x = functional.conv2d(x, t[f"{place}reduce_block.weight"])
    for k in range(2):
        y = functional.conv2d(x, t[f"{place}block.{k}.0.weight"], padding=2)
        centred = y - y.mean(1, keepdim=True)
        y = centred / (centred.square().mean(1, keepdim=True) + 1e-6).sqrt()
        y = y * t[f"{place}block.{k}.1.weight"][:, None, None] + t[f"{place}block.{k}.1.bias"][:, None, None]
        x = x + y * y.sigmoid()
    y = functional.conv2d(x, t[f"{place}block.2.0.weight"], padding=2)
    return y * y.sigmoid()


def looks(t: dict[str, Tensor], subject: str) -> tuple[Tensor, Tensor]:
    """Where each vertex of a part looks, and its share of each layer: one number of the code after the other."""
    p = t[f"coord_dict.{subject}"].numpy()
    q = (p - p.min(0)) * 100 / (p.max(0) - p.min(0)).max()
    code = []
    for k in range(3):
        for j in range(32):
            omega = 100 ** np.linspace(0, 1 / 32 - 1, 32)[j]
            code += [np.sin(omega * q[:, k]), np.cos(omega * q[:, k])]
    x = torch.from_numpy(np.stack(code, axis=1))
    found = []
    for name in ("retina_mapper", "layer_selector"):
        y = x
        for k in (1, 3, 5):
            y = y @ t[f"{name}.{subject}.mlp.{k}.weight"].T + t[f"{name}.{subject}.mlp.{k}.bias"]
            y = functional.gelu(y) if k < 5 else y
        found.append(y)
    return found[0].tanh() * (1 - 0.01), found[1].exp() / found[1].exp().sum(1, keepdim=True)
