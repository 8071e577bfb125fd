r"""Pictures to maps of local contrast in degrees of visual angle.

A receptive field that was mapped with bars knows where contrast is, in [0, 1], not which picture
it belongs to. This module gives a picture the same description: luminance, local root-mean-square
contrast, mean over the cells of a grid centred on fixation.

A pixel is a square of even luminance, seen through a blur of a fixed width in degrees. Its integrals are exact, so
that a picture whose pixels are split into more of them has the same contrast, however many they are:

.. math::
    L(x) = \sum_i L_i \int_{\text{pixel } i} G(x - x') \, dx'

with a Gaussian :math:`G` that leaves half the amplitude of gratings of 8 cycles per degree, and 6 % at 16. Then

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
import warnings
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from scipy.special import ndtr
from torch import Tensor
from torch.nn import functional

from berg.core.exceptions import StimulusWarning
from berg.core.stacklevel import users_stacklevel

ENOUGH_PIXELS_PER_DEGREE = 32.0
"""From this density on contrast depends little on the number of pixels: that of photographs and of gratings up to 2
cycles per degree by at most 1 %, of gratings of 4 by 2.5 %; what pixels hold exactly, such as checks, not at all."""

HALF_AMPLITUDE_CPD = 8.0
"""Spatial frequency of which the blur leaves half the amplitude, cycles per degree."""

BLUR_SD_DEG = math.sqrt(math.log(2) / 2) / (math.pi * HALF_AMPLITUDE_CPD)
"""Standard deviation of the Gaussian blur of the luminance, degrees (1.4 minutes of arc)."""

SQUARES_PER_DEGREE = 8.0
"""Squares in which luminance and its square are averaged, per degree."""

SAMPLES_PER_SQUARE = 3
"""Samples of the blurred luminance along each side of a square: 24 per degree, enough for what the blur leaves."""

WINDOW_SD_DEG = 0.25
"""Standard deviation of the Gaussian window under which contrast is measured, degrees."""

CELL_SIZE_DEG = 0.25
"""Width and height of the cells of the map, degrees."""

DARK_LUMINANCE = 0.01
r"""Luminance :math:`L_0` added to the local mean, as a fraction of white.

Keeps the contrast of nearly black regions, which is mostly noise of the picture, from exploding."""

CONTRAST_EPSILON = 1e-6
r""":math:`\epsilon`, squared contrast; the square root of 0 would have an infinite slope."""

ROUNDING = 1e-12
"""Squared contrast that is left of an even picture when its luminance is computed in single precision."""

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

    Warns
    -----
    StimulusWarning
        For pictures of fewer than `ENOUGH_PIXELS_PER_DEGREE`.

    Examples
    --------
    >>> grey = torch.full((1, 3, 30, 40), 128.0)
    >>> contrast = contrast_map(grey, stimulus_width_deg=10.0)
    >>> tuple(contrast.shape), contrast.max().item()
    ((1, 30, 40), 0.0)
    """
    width, height = _extent_deg(pictures.shape, stimulus_width_deg)
    _warn_of_few_pixels(pictures.shape[-1], width)
    blurred = _blurred(luminance(pictures), width, height)
    window_sd = WINDOW_SD_DEG * SQUARES_PER_DEGREE * SAMPLES_PER_SQUARE
    return _mean_over_cells(rms_contrast(blurred, window_sd, SAMPLES_PER_SQUARE), width, height)


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
    if pictures.dtype == torch.uint8:  # 256 values: looked up, several times as fast
        table = _linear(torch.arange(256, device=pictures.device) / 255)
        total = torch.zeros_like(pictures[:, 0], dtype=table.dtype)
        for weight, channel in zip(LUMINANCE_WEIGHTS, pictures.int().unbind(1), strict=True):
            total += (weight * table).index_select(0, channel.flatten()).view_as(total)
        return total
    linear = _linear(pictures / 255)
    weights = torch.tensor(LUMINANCE_WEIGHTS, dtype=linear.dtype, device=linear.device)
    return torch.einsum("nchw,c->nhw", linear, weights)


def _linear(encoded: Tensor) -> Tensor:
    """Undo the sRGB transfer curve, [0, 1] to [0, 1]."""
    # The clamp keeps the branch that is not taken finite, and so its gradient.
    curved = ((encoded.clamp(min=0.04045) + 0.055) / 1.055) ** 2.4
    return torch.where(encoded <= 0.04045, encoded / 12.92, curved)


def rms_contrast(luminance: Tensor, window_sd: float, square: int = 1) -> Tensor:
    """Measure root-mean-square contrast around every pixel, or around squares of them.

    Parameters
    ----------
    luminance
        Shape (n_stimuli, height, width), at least 0.
    window_sd
        Standard deviation of the Gaussian window, pixels; the picture is mirrored at its borders.
    square
        Side of the squares, pixels. Mean and variance are those of all pixels; only where the window may stand is
        coarser.

    Returns
    -------
    contrast
        Shape (n_stimuli, height // square, width // square), in [0, 1]; exactly 0 where luminance is even.
    """
    means = functional.avg_pool2d(luminance, square)
    within = functional.avg_pool2d((luminance - _repeated(means, square)) ** 2, square)
    # The difference of two squares needs digits: in single precision an even black area beside a white one gets a
    # contrast of 0.02, which differs between batches. Devices of Apple have no double precision.
    wide = means if means.device.type == "mps" else means.double()
    local_mean, mean_square = _blur(wide, window_sd / square), _blur(wide**2 + within, window_sd / square)
    variance = (mean_square - local_mean**2).clamp(min=0)
    squared = (variance / (local_mean + DARK_LUMINANCE) ** 2 - ROUNDING).clamp(min=0)
    contrast = (squared + CONTRAST_EPSILON).sqrt() - math.sqrt(CONTRAST_EPSILON)
    return contrast.clamp(min=0, max=1).to(luminance.dtype)


def _repeated(squares: Tensor, times: int) -> Tensor:
    return squares.repeat_interleave(times, -1).repeat_interleave(times, -2)


def _extent_deg(picture_shape: tuple[int, ...], stimulus_width_deg: float) -> tuple[float, float]:
    """Return width and height of a picture in degrees."""
    rows, columns = picture_shape[-2:]
    return float(stimulus_width_deg), float(stimulus_width_deg) * rows / columns


def _warn_of_few_pixels(n_pixels: int, width: float) -> None:
    if n_pixels < width * ENOUGH_PIXELS_PER_DEGREE:
        warnings.warn(
            f"The pictures have {n_pixels / width:.3g} pixels per degree: {n_pixels} over {width:g} degrees "
            f"(stimulus_width_deg). From {ENOUGH_PIXELS_PER_DEGREE:g} on, local contrast does not depend on their "
            "number; below, detail is missing that drives V1 (photographs have 1 to 4 % less contrast at 16 per "
            f"degree, 4 to 23 % at 4). Give pictures {math.ceil(width * ENOUGH_PIXELS_PER_DEGREE)} pixels wide or "
            "more, not enlarged ones.",
            StimulusWarning,
            stacklevel=users_stacklevel(),
        )


def _blurred(luminance: Tensor, width: float, height: float) -> Tensor:
    """Blur (n, height, width) pictures; shape (n, n_rows, n_columns) at `SAMPLES_PER_SQUARE` samples per square."""
    over_rows, over_columns = (
        torch.from_numpy(_blur_weights(n_pixels, extent)).to(luminance)
        for n_pixels, extent in zip(luminance.shape[1:], (height, width), strict=True)
    )
    return over_rows @ (luminance @ over_columns.T)


@lru_cache(maxsize=8)
def _blur_weights(n_pixels: int, extent: float) -> np.ndarray:
    """The integral of the blur around each sample over each pixel, shape (n_samples, n_pixels); rows add up to 1."""
    n_samples = SAMPLES_PER_SQUARE * max(1, round(extent * SQUARES_PER_DEGREE))
    samples = ((np.arange(n_samples) + 0.5) / n_samples - 0.5) * extent
    edges = np.linspace(-extent / 2, extent / 2, n_pixels + 1)
    weights: np.ndarray = np.diff(ndtr((edges - samples[:, None]) / BLUR_SD_DEG))
    weights /= weights.sum(1, keepdims=True)  # nothing is known beyond the border
    return weights


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
