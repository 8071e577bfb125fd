"""GNet, the convolutional network of the feature-weighted receptive field models (St-Yves et al. 2023).

Its parameters carry the names that the published weights have, so that `load_state_dict` is strict.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.transforms.functional import resize

INPUT_SIZE = 227  # pixels, height and width
TRUNK_WIDTH = 64  # channels that each later layer gives to the readout
N_CHANNELS = 256  # of each of the three groups of feature maps
MAP_SIZES = (27, 25, 13)  # height and width of each group


class TrunkBlock(nn.Module):
    """ReLU(conv3x3(batchnorm(x))); the dropout between the two is off when encoding."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(n_in)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.conv1(self.bn1(x)), inplace=True)


class PreFilter(nn.Module):
    """The first two convolutions, shaped like AlexNet's."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(
            nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU(inplace=True), nn.MaxPool2d(3, stride=2)
        )
        self.conv2 = nn.Sequential(nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(inplace=True))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        first = self.conv1(x)
        return first, self.conv2(first)


class Trunk(nn.Module):
    """The layers above the pre-filter."""

    def __init__(self) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(192)
        self.conv3 = nn.Conv2d(192, 128, 3)
        self.conv4a = TrunkBlock(128, 128)
        self.conv4b = TrunkBlock(128, 128)
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        self.conv5a = TrunkBlock(128, 128)
        self.conv5b = TrunkBlock(128, 128)
        self.conv6a = TrunkBlock(128, 128)
        self.conv6b = TrunkBlock(128, TRUNK_WIDTH)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        conv3 = functional.relu(self.conv3(self.bn1(x)), inplace=True)
        conv4a = self.conv4a(conv3)
        conv4b = self.conv4b(conv4a)
        conv5a = self.conv5a(self.pool(conv4b))
        conv5b = self.conv5b(conv5a)
        conv6a = self.conv6a(conv5b)
        conv6b = self.conv6b(conv6a)
        w = TRUNK_WIDTH
        return (
            torch.cat([conv3, conv4a[:, :w], conv4b[:, :w]], dim=1),
            torch.cat([conv5a[:, :w], conv5b[:, :w], conv6a[:, :w], conv6b], dim=1),
        )


class GNet(nn.Module):
    """Pictures -> three groups of feature maps, (batch, 256, 27, 27), (..., 25, 25), (..., 13, 13).

    Source: St-Yves, Allen, Wu, Kay & Naselaris (2023), Brain-optimized deep neural network models of
    human visual areas learn non-hierarchical representations, Nat Commun 14:3329.
    """

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mu", torch.zeros(1, 3, INPUT_SIZE, INPUT_SIZE))
        self.pre = PreFilter()
        self.enc = Trunk()

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
