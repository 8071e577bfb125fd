"""How videos are brought to the input of a network: (batch, frames, 3, height, width) to (batch, 3, frames, ...)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torchvision.transforms import functional

from berg.stimuli.video_stimuli import SIZE_CHANNEL

BILINEAR = functional.InterpolationMode.BILINEAR


@dataclass(frozen=True)
class VideoPreset:
    """How torchvision brings videos to the input of a network; both sizes are height and width."""

    resize_size: Sequence[int]
    crop_size: Sequence[int]
    interpolation: Any
    mean: Sequence[float]
    std: Sequence[float]
    antialias: bool = False


class Stated(Protocol):
    """What a transform of videos needs to know of the network."""

    @property
    def resize_size(self) -> Sequence[int]: ...
    @property
    def mean(self) -> Sequence[float]: ...
    @property
    def std(self) -> Sequence[float]: ...


class VideoPresetTransform(nn.Module):
    """The transform that torchvision publishes with the weights: resize, centre crop, scale, normalise.

    Both sides are resized, so proportions are not kept; there is no filter against aliasing. Videos of integers are
    rounded after it, as torchvision does; those in floating point stay differentiable.
    """

    def __init__(self, preset: VideoPreset) -> None:
        super().__init__()
        self.preset = preset
        self.normalise = NormaliseVideo(preset)

    def forward(self, videos: Tensor) -> Tensor:
        if are_padded(videos):
            return torch.cat([self(video) for video in unpadded(videos)])
        preset = self.preset
        frames = videos.flatten(0, 1).float()
        resized = functional.resize(frames, list(preset.resize_size), preset.interpolation, antialias=preset.antialias)
        cropped = functional.center_crop(resized, list(preset.crop_size))
        whole = cropped if videos.is_floating_point() else cropped.round()
        return channels_first(self.normalise(whole), videos)


class UncroppedVideoTransform(nn.Module):
    """Scale and normalise, then resize both sides; nothing is cropped, and nothing rounded.

    The resize has torchvision's filter against aliasing, its default for tensors.
    """

    def __init__(self, preset: Stated) -> None:
        super().__init__()
        self.size = list(preset.resize_size)
        self.normalise = NormaliseVideo(preset)

    def forward(self, videos: Tensor) -> Tensor:
        if are_padded(videos):
            return torch.cat([self(video) for video in unpadded(videos)])
        normalised = self.normalise(videos.flatten(0, 1).float())
        return channels_first(functional.resize(normalised, self.size, BILINEAR, antialias=True), videos)


def are_padded(videos: Tensor) -> bool:
    """Whether videos of several sizes are in one array, as `berg.stimuli.video_stimuli.padded` lays them."""
    return videos.shape[2] == SIZE_CHANNEL + 1


def unpadded(videos: Tensor) -> Iterator[Tensor]:
    """Each video of such an array by itself, shape (1, n_frames, 3, its height, its width)."""
    for video in videos:
        told = video[0, SIZE_CHANNEL].reshape(-1)[:4].int().tolist()
        height, width = (low + 256 * high for low, high in (told[:2], told[2:]))
        whole = video[None, :, :SIZE_CHANNEL]
        yield whole[..., :height, :width] if height and width else whole


class NormaliseVideo(nn.Module):
    """Values in [0, 255], brought to the mean and standard deviation that the network was trained on."""

    mean: Tensor
    std: Tensor

    def __init__(self, preset: Stated) -> None:
        super().__init__()
        for name, values in (("mean", preset.mean), ("std", preset.std)):
            self.register_buffer(name, 255 * torch.tensor(values).view(3, 1, 1), persistent=False)

    def forward(self, frames: Tensor) -> Tensor:
        return (frames - self.mean) / self.std


def channels_first(frames: Tensor, videos: Tensor) -> Tensor:
    """Frames one after another, shape (batch * n_frames, 3, ...), as the videos (batch, 3, n_frames, ...)."""
    return frames.reshape(*videos.shape[:2], *frames.shape[1:]).transpose(1, 2)
