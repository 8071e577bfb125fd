r"""Pictures to maps of local contrast in degrees of visual angle.

A receptive field that was mapped with bars knows where contrast is, in [0, 1], not which picture
it belongs to. This module gives a picture the same description: luminance, local root-mean-square
contrast, mean over the cells of a grid centred on fixation.

.. math::
    C = \min\left(1, \sqrt{\frac{\overline{L^2} - \overline{L}^2}
                                {(\overline{L} + L_0)^2} + \epsilon} - \sqrt{\epsilon}\right)

with means under a Gaussian window: the standard deviation of luminance over its mean, in windows
of a fixed size in degrees (Frazor & Geisler 2006, Vision Research 46:1585; doi
10.1016/j.visres.2005.06.038).

Every step is differentiable, so a gradient runs from the map back to the picture.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

PIXELS_PER_DEGREE = 16.0
"""Working resolution; the cost of a map depends on the degrees it spans, not on its pixels."""

WINDOW_SD_DEG = 0.25
"""Standard deviation of the Gaussian window under which contrast is measured, degrees."""

CELL_SIZE_DEG = 0.25
"""Width and height of the cells of the map, degrees."""

DARK_LUMINANCE = 0.01
r"""Luminance :math:`L_0` added to the local mean, as a fraction of white.

Keeps the contrast of nearly black regions, which is mostly noise of the picture, from exploding."""

CONTRAST_EPSILON = 1e-6
r""":math:`\epsilon`, squared contrast; the square root of 0 would have an infinite slope."""

# Rec. 709 weights of linear red, green and blue in luminance.
LUMINANCE_WEIGHTS = (0.2126, 0.7152, 0.0722)

# Beyond four standard deviations a Gaussian holds 6e-5 of its weight.
WINDOW_RADIUS_SD = 4


@dataclass(frozen=True)
class ContrastGrid:
    """The cells of a contrast map.

    Parameters
    ----------
    x_centres
        Shape (n_columns,), middles of the columns from left to right, degrees, right positive.
    y_centres
        Shape (n_rows,), middles of the rows from top to bottom, degrees, up positive.
    cell_size
        Width and height of a cell, degrees.
    """

    x_centres: Tensor
    y_centres: Tensor
    cell_size: float


def contrast_map(pictures: Tensor, stimulus_width_deg: float) -> Tensor:
    """Measure local contrast of pictures on a grid centred on fixation.

    Parameters
    ----------
    pictures
        Shape (n_stimuli, 3, height, width), sRGB values from 0 to 255, uint8 or floating point.
    stimulus_width_deg
        Width of the pictures in the visual field, degrees; the height follows from their shape.

    Returns
    -------
    contrast
        Shape (n_stimuli, n_rows, n_columns), in [0, 1], on the cells of `contrast_grid`; 0 outside
        the picture.

    Examples
    --------
    >>> grey = torch.full((1, 3, 30, 40), 128.0)
    >>> contrast = contrast_map(grey, stimulus_width_deg=10.0)
    >>> tuple(contrast.shape), contrast.max().item()
    ((1, 30, 40), 0.0)
    """
    width, height = _extent_deg(pictures.shape, stimulus_width_deg)
    resampled = _to_working_resolution(luminance(pictures), width, height)
    contrast = rms_contrast(resampled, WINDOW_SD_DEG * PIXELS_PER_DEGREE)
    return _mean_over_cells(contrast, width, height)


def contrast_grid(
    picture_shape: tuple[int, ...],
    stimulus_width_deg: float,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> ContrastGrid:
    """Lay the grid on which `contrast_map` describes pictures of one shape.

    Cells are 0.25 degrees wide and high and meet at fixation, so that the grid of a smaller
    picture is the middle of the grid of a larger one. Cells at the border reach at most one
    cell beyond the picture.

    Parameters
    ----------
    picture_shape
        Any shape that ends in (height, width), pixels.
    stimulus_width_deg
        Width of the pictures in the visual field, degrees.
    dtype, device
        Of the returned centres.

    Returns
    -------
    grid
        Centres of its columns and rows and the size of its cells, degrees.

    Examples
    --------
    >>> grid = contrast_grid((480, 640), stimulus_width_deg=1.0)
    >>> grid.x_centres.tolist()
    [-0.375, -0.125, 0.125, 0.375]
    >>> grid.y_centres.tolist()
    [0.375, 0.125, -0.125, -0.375]
    """
    width, height = _extent_deg(picture_shape, stimulus_width_deg)
    x_centres = torch.from_numpy(_cell_centres(width)).to(device, dtype)
    y_centres = torch.from_numpy(-_cell_centres(height)).to(device, dtype)
    return ContrastGrid(x_centres, y_centres, CELL_SIZE_DEG)


def luminance(pictures: Tensor) -> Tensor:
    """Convert sRGB pictures to relative luminance (IEC 61966-2-1, Rec. 709 primaries).

    Parameters
    ----------
    pictures
        Shape (n_stimuli, 3, height, width), sRGB values from 0 to 255.

    Returns
    -------
    luminance
        Shape (n_stimuli, height, width), 0 for black, 1 for white.

    Examples
    --------
    >>> white = torch.full((1, 3, 1, 1), 255.0, dtype=torch.float64)
    >>> round(luminance(white).item(), 6)
    1.0
    """
    if pictures.dtype == torch.uint8:  # 256 values: looked up, five times as fast
        table = _linear(torch.arange(256, device=pictures.device) / 255)
        red, green, blue = (weight * table for weight in LUMINANCE_WEIGHTS)
        indices = pictures.int()
        return red[indices[:, 0]] + green[indices[:, 1]] + blue[indices[:, 2]]
    linear = _linear(pictures / 255)
    weights = torch.tensor(LUMINANCE_WEIGHTS, dtype=linear.dtype, device=linear.device)
    return torch.einsum("nchw,c->nhw", linear, weights)


def _linear(encoded: Tensor) -> Tensor:
    """Undo the sRGB transfer curve, [0, 1] to [0, 1]."""
    # The clamp keeps the branch that is not taken finite, and so its gradient.
    curved = ((encoded.clamp(min=0.04045) + 0.055) / 1.055) ** 2.4
    return torch.where(encoded <= 0.04045, encoded / 12.92, curved)


def rms_contrast(luminance: Tensor, window_sd: float) -> Tensor:
    """Measure root-mean-square contrast around every pixel.

    Parameters
    ----------
    luminance
        Shape (n_stimuli, height, width), at least 0.
    window_sd
        Standard deviation of the Gaussian window, pixels; the picture is mirrored at its borders.

    Returns
    -------
    contrast
        Shape (n_stimuli, height, width), in [0, 1]; exactly 0 where luminance is even.
    """
    # The variance does not depend on an offset, but its rounding error does.
    centre = luminance.mean(dim=(-2, -1), keepdim=True)
    deviation = luminance - centre
    mean_deviation = _blur(deviation, window_sd)
    variance = (_blur(deviation**2, window_sd) - mean_deviation**2).clamp(min=0)
    local_mean = mean_deviation + centre + DARK_LUMINANCE
    contrast = (variance / local_mean**2 + CONTRAST_EPSILON).sqrt() - math.sqrt(CONTRAST_EPSILON)
    # In the dtype of the data the two roots may differ in their last digit.
    return contrast.clamp(min=0, max=1)


def _extent_deg(picture_shape: tuple[int, ...], stimulus_width_deg: float) -> tuple[float, float]:
    """Return width and height of a picture in degrees."""
    rows, columns = picture_shape[-2:]
    return float(stimulus_width_deg), float(stimulus_width_deg) * rows / columns


def _to_working_resolution(luminance: Tensor, width: float, height: float) -> Tensor:
    """Resample (n, height, width) pictures to `PIXELS_PER_DEGREE`, averaging where they shrink."""
    shape = [max(1, round(degrees * PIXELS_PER_DEGREE)) for degrees in (height, width)]
    resampled = functional.interpolate(
        luminance[:, None], size=shape, mode="bilinear", align_corners=False, antialias=True
    )
    return resampled[:, 0]


def _blur(pictures: Tensor, sd: float) -> Tensor:
    """Average (n, height, width) pictures under a Gaussian window, mirrored at the borders."""
    radius = math.ceil(WINDOW_RADIUS_SD * sd)
    offsets = torch.arange(-radius, radius + 1, dtype=pictures.dtype, device=pictures.device)
    window = torch.exp(-(offsets**2) / (2 * sd**2))
    window = window / window.sum()
    padded = _mirror(_mirror(pictures, radius, dim=-1), radius, dim=-2)[:, None]
    across = functional.conv2d(padded, window[None, None, None, :])
    return functional.conv2d(across, window[None, None, :, None])[:, 0]


def _mirror(pictures: Tensor, radius: int, dim: int) -> Tensor:
    """Continue pictures beyond their borders by reflection, however small they are."""
    # numpy reflects again and again where the window is wider than the picture; torch refuses.
    index = np.pad(np.arange(pictures.shape[dim]), radius, mode="reflect")
    return pictures.index_select(dim, torch.from_numpy(index).to(pictures.device))


def _mean_over_cells(contrast: Tensor, width: float, height: float) -> Tensor:
    """Average (n, height, width) maps over the cells of the grid, with 0 outside the picture."""
    over_rows = _cell_coverage(contrast.shape[-2], height, contrast)
    over_columns = _cell_coverage(contrast.shape[-1], width, contrast)
    return over_rows @ contrast @ over_columns.T


def _cell_coverage(n_pixels: int, extent: float, like: Tensor) -> Tensor:
    """Return which part of every cell each pixel covers, shape (n_cells, n_pixels)."""
    edges = np.linspace(-extent / 2, extent / 2, n_pixels + 1)
    centres = _cell_centres(extent)[:, None]
    right = np.minimum(edges[1:], centres + CELL_SIZE_DEG / 2)
    left = np.maximum(edges[:-1], centres - CELL_SIZE_DEG / 2)
    coverage = np.clip(right - left, 0, None) / CELL_SIZE_DEG
    return torch.from_numpy(coverage).to(like.device, like.dtype)


def _cell_centres(extent: float) -> np.ndarray:
    """Return the middles of the cells that an extent around fixation touches, degrees."""
    # Without the small number an extent of 10.000000001 degrees would get two empty cells.
    n_on_each_side = max(1, math.ceil(extent / 2 / CELL_SIZE_DEG - 1e-6))
    return (np.arange(-n_on_each_side, n_on_each_side) + 0.5) * CELL_SIZE_DEG
