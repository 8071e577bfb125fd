"""The convolutional core that all subjects share: pictures -> 26 x 26 maps of its channels.

Eight blocks, each a convolution without bias, batch normalisation with the statistics of the training, and ReLU; mean
pooling after every second one. The normalisation is folded into the convolution:

    y = gamma (w * x - mean) / sqrt(var + eps) + beta = (s w) * x + (beta - s mean),   s = gamma / sqrt(var + eps)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from torchvision.transforms import functional as pictures_functional

INPUT_SIZE = 224  # pixels, height and width
MAP_SIZE = 26  # of the last maps
KERNELS = (5, 5, 3, 3, 3, 3, 3, 3)
PADDING = (1, 2, 1, 1, 1, 1, 1, 1)  # of the first block less than half of its kernel: 224 pixels become 222
POOLED = {1: 2, 3: 2, 5: 2, 7: 1}  # after which block, and by which step, neighbouring 2 x 2 values are averaged
EPSILON = 1e-5
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet

Folded = tuple[NDArray[np.float32], NDArray[np.float32]]
"""Weight, shape (n_out, n_in, height, width), and bias, shape (n_out,), of a convolution."""


def fold(
    weight: NDArray[Any], gamma: NDArray[Any], beta: NDArray[Any], mean: NDArray[Any], variance: NDArray[Any]
) -> Folded:
    """A convolution with the batch normalisation that follows it.

    >>> one = np.ones(1)
    >>> weight, bias = fold(np.ones((1, 1, 1, 1)), 2 * one, 3 * one, 4 * one, one - EPSILON)
    >>> weight.item(), bias.item()
    (2.0, -5.0)
    """
    scale = gamma.astype(np.float64) / np.sqrt(variance.astype(np.float64) + EPSILON)
    folded = weight.astype(np.float64) * scale[:, None, None, None]
    return folded.astype(np.float32), (beta - scale * mean).astype(np.float32)


class Core(nn.Module):
    """Pictures with values in [0, 255] -> maps, shape (batch, 26 * 26, n_channels).

    Parameters
    ----------
    blocks
        The eight convolutions, batch normalisation folded in.
    dtype
        Of weights and activations.
    """

    def __init__(self, blocks: Sequence[Folded], dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.transform = CentreSquare()
        self.dtype = dtype
        self.n_channels = len(blocks[-1][1])
        for index, (weight, bias) in enumerate(blocks):
            kernel = torch.from_numpy(weight).to(dtype).contiguous(memory_format=torch.channels_last)
            self.register_buffer(f"weight{index}", kernel)
            self.register_buffer(f"bias{index}", torch.from_numpy(bias).to(dtype))

    def forward(self, pictures: Tensor) -> Tensor:
        maps = self.transform(pictures).to(self.dtype).contiguous(memory_format=torch.channels_last)
        for index, padding in enumerate(PADDING):
            weight, bias = getattr(self, f"weight{index}"), getattr(self, f"bias{index}")
            maps = functional.relu(functional.conv2d(maps, weight, bias, padding=padding), inplace=True)
            if index in POOLED:
                maps = functional.avg_pool2d(maps, 2, POOLED[index])
        by_pixel: Tensor = maps.permute(0, 2, 3, 1).flatten(1, 2)
        return by_pixel


class CentreSquare(nn.Module):
    """The centre square of pictures, by PIL's bilinear resize to the core's size, and ImageNet's mean and deviation.

    Pictures in floating point go through PyTorch's bilinear, antialiased resize, which is differentiable and differs
    from PIL's by its rounding.
    """

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name, values in (("mean", MEAN), ("std", STD)):
            self.register_buffer(name, 255 * torch.tensor(values).view(3, 1, 1), persistent=False)

    def forward(self, pictures: Tensor) -> Tensor:
        square = pictures_functional.center_crop(pictures, [min(pictures.shape[-2:])] * 2)
        if square.is_floating_point():
            bilinear = pictures_functional.InterpolationMode.BILINEAR
            resized = pictures_functional.resize(square, [INPUT_SIZE, INPUT_SIZE], bilinear, antialias=True)
        else:
            by_pil = np.stack([_by_pil(picture) for picture in square.cpu().numpy()])
            resized = torch.from_numpy(by_pil).to(pictures.device).float()
        normalised: Tensor = (resized - self.mean) / self.std
        return normalised


def _by_pil(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    size = (INPUT_SIZE, INPUT_SIZE)
    resized = Image.fromarray(picture.transpose(1, 2, 0)).resize(size, Image.Resampling.BILINEAR)
    return np.asarray(resized).transpose(2, 0, 1)
