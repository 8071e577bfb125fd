"""GNet, the convolutional network of the feature-weighted receptive field models (St-Yves et al. 2023).

Its parameters carry the names that the published weights have, so that `load_state_dict` is strict.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.transforms.functional import resize

INPUT_SIZE = 227  # pixels, height and width
WIDTH = 64  # channels of the first convolution as published; all others are multiples of it
MAP_SIZES = (27, 25, 13)  # height and width of each group of feature maps
# Of the pixels of the maps, in pixels of the picture: the middle of the first, and the step to the next.
_MAP_GRIDS = ((7.5, 8), (15.5, 8), (15.5, 16))


def n_channels(width: int) -> int:
    """How many feature maps each of the three groups has."""
    return 4 * width


def pixel_centres(group: int) -> Tensor:
    """Where the pixels of a group's maps look, along x or y: shape (size,), in fractions of the picture's side."""
    first, step = _MAP_GRIDS[group]
    return (first + step * torch.arange(MAP_SIZES[group], dtype=torch.float64)) / INPUT_SIZE


class TrunkBlock(nn.Module):
    """ReLU(conv3x3(dropout(batchnorm(x)))); the dropout is off when encoding."""

    def __init__(self, n_in: int, n_out: int, dropout: float) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 3, padding=1)
        self.dropout = nn.Dropout(dropout)
        self.bn1 = nn.BatchNorm2d(n_in)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.conv1(self.dropout(self.bn1(x))), inplace=True)


class PreFilter(nn.Module):
    """The first two convolutions, shaped like AlexNet's."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(
            nn.Conv2d(3, width, 11, stride=4, padding=2), nn.ReLU(inplace=True), nn.MaxPool2d(3, stride=2)
        )
        self.conv2 = nn.Sequential(nn.Conv2d(width, 3 * width, 5, padding=2), nn.ReLU(inplace=True))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        first = self.conv1(x)
        return first, self.conv2(first)


class Trunk(nn.Module):
    """The layers above the pre-filter."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.width = width
        self.dropout = nn.Dropout(dropout)
        inner = 2 * width
        self.bn1 = nn.BatchNorm2d(3 * width)
        self.conv3 = nn.Conv2d(3 * width, inner, 3)
        self.conv4a = TrunkBlock(inner, inner, dropout)
        self.conv4b = TrunkBlock(inner, inner, dropout)
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        self.conv5a = TrunkBlock(inner, inner, dropout)
        self.conv5b = TrunkBlock(inner, inner, dropout)
        self.conv6a = TrunkBlock(inner, inner, dropout)
        self.conv6b = TrunkBlock(inner, width, dropout)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        conv3 = functional.relu(self.conv3(self.dropout(self.bn1(x))), inplace=True)
        conv4a = self.conv4a(conv3)
        conv4b = self.conv4b(conv4a)
        conv5a = self.conv5a(self.pool(conv4b))
        conv5b = self.conv5b(conv5a)
        conv6a = self.conv6a(conv5b)
        conv6b = self.conv6b(conv6a)
        w = self.width
        return (
            torch.cat([conv3, conv4a[:, :w], conv4b[:, :w]], dim=1),
            torch.cat([conv5a[:, :w], conv5b[:, :w], conv6a[:, :w], conv6b], dim=1),
        )


class GNet(nn.Module):
    """Pictures -> three groups of feature maps, (batch, 256, 27, 27), (..., 25, 25), (..., 13, 13).

    Source: St-Yves, Allen, Wu, Kay & Naselaris (2023), Brain-optimized deep neural network models of
    human visual areas learn non-hierarchical representations, Nat Commun 14:3329.

    Parameters
    ----------
    width
        Channels of the first convolution; a group has four times as many feature maps.
    dropout
        The share of values that training sets to zero before each convolution of the trunk.
    """

    def __init__(self, width: int = WIDTH, dropout: float = 0.0) -> None:
        super().__init__()
        self.register_buffer("mu", torch.zeros(1, 3, INPUT_SIZE, INPUT_SIZE))
        self.pre = PreFilter(width)
        self.enc = Trunk(width, dropout)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Feature maps of pictures of shape (batch, 3, height, width) with values in [0, 255].

        uint8 pictures are resized as uint8, which rounds to whole grey levels, as in the published
        package; pictures in floating point stay differentiable and are not rounded.
        """
        pixels = resize(images, [INPUT_SIZE, INPUT_SIZE], antialias=True)
        pixels = pixels.to(self.mu.dtype) / 255 - self.mu
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        first, second = self.pre(pixels)
        third, fourth = self.enc(second)
        return torch.cat([first, second], dim=1), third, fourth
