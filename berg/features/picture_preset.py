"""How pictures are brought to the input of a network, as its publisher states it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torchvision.transforms.functional import InterpolationMode

from berg.core.exceptions import InvalidParameterError


@dataclass(frozen=True)
class PicturePreset:
    """Resize, crop the centre, scale to [0, 1], normalise.

    Attributes
    ----------
    resize_size
        Pixels of the shorter side, or height and width.
    crop_size
        Height and width of what is kept.
    mean, std
        Of each channel, of values in [0, 1].
    """

    resize_size: tuple[int, ...]
    crop_size: tuple[int, int]
    interpolation: InterpolationMode
    mean: tuple[float, ...]
    std: tuple[float, ...]
    antialias: bool = True


def interpolation_mode(name: str, network: str) -> InterpolationMode:
    """The way to resize of this name.

    Raises
    ------
    InvalidParameterError
        If it is not one that pictures in arrays can be resized with.
    """
    known = {mode.value: mode for mode in (InterpolationMode.BILINEAR, InterpolationMode.BICUBIC)}
    if name not in known:
        raise InvalidParameterError(
            f"{network} resizes pictures by '{name}'; computed are {', '.join(known)}. Take another network."
        )
    return known[name]


def three(values: object, network: str) -> tuple[float, ...]:
    """Means or deviations of three channels; one number stands for all.

    Raises
    ------
    InvalidParameterError
        If they are of another number of channels.
    """
    listed: list[Any] = list(values) if isinstance(values, list | tuple) else [values] * 3
    if len(listed) != 3:
        raise InvalidParameterError(f"{network} takes pictures with {len(listed)} channels; supported are 3 (RGB).")
    return tuple(float(value) for value in listed)
