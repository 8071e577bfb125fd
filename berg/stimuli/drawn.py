r"""Stimuli that are drawn: gratings, checks, discs and bars, in degrees of visual angle.

A picture is a pattern, in [-1, 1], seen through an aperture, in [0, 1], on grey. Contrast is that of luminance, as on a
display that was calibrated:

.. math:: L = L_0 (1 + c \, a \, m)

with the pattern m, the aperture a, the contrast c, and the luminance :math:`L_0` of the grey 128 (0.216 of white in
sRGB). The values of the picture are those that sRGB has for L, rounded to integers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from berg.core.exceptions import InvalidParameterError

Floats = NDArray[np.floating[Any]]
GREY = 128
GREY_LUMINANCE = ((GREY / 255 + 0.055) / 1.055) ** 2.4
MOST_PIXELS = 4096


@dataclass(frozen=True)
class Screen:
    """A square that is seen at fixation.

    Attributes
    ----------
    width_deg
        Width and height, degrees of visual angle.
    pixels
        Along each side.

    Examples
    --------
    >>> screen = Screen(width_deg=4, pixels=64)
    >>> screen.picture(screen.grating(orientation_deg=90, cycles_per_deg=1), screen.disc(0, 0, 2)).shape
    (3, 64, 64)
    """

    width_deg: float
    pixels: int

    def __post_init__(self) -> None:
        if not 0 < self.width_deg <= 180 or not 2 <= self.pixels <= MOST_PIXELS:
            raise InvalidParameterError(
                f"A screen of {self.width_deg:g} degrees and {self.pixels} pixels cannot be. Give a width between "
                f"0 and 180 degrees, and 2 to {MOST_PIXELS:,} pixels."
            )

    @property
    def pixels_per_deg(self) -> float:
        """How fine it is."""
        return self.pixels / self.width_deg

    @property
    def centres(self) -> Floats:
        """The middles of the columns from left to right, degrees; those of the rows are their negatives."""
        return (np.arange(self.pixels) + 0.5) / self.pixels_per_deg - self.width_deg / 2

    def grating(self, orientation_deg: float, cycles_per_deg: float, phase_deg: float = 0.0) -> Floats:
        """A sinusoidal grating, shape (pixels, pixels).

        Parameters
        ----------
        orientation_deg
            Of the stripes, anticlockwise from horizontal: 90 is vertical.
        cycles_per_deg
            Below half of the pixels per degree, above which it would be another grating.
        phase_deg
            At fixation; 0 is bright there.
        """
        if not 0 < cycles_per_deg <= self.pixels_per_deg / 2:
            raise InvalidParameterError(
                f"Gratings of {cycles_per_deg:g} cycles per degree cannot be drawn with {self.pixels_per_deg:.3g} "
                f"pixels per degree, which show up to {self.pixels_per_deg / 2:.3g}. Give more pixels, or a lower "
                "frequency."
            )
        across = self._across(orientation_deg)
        return np.asarray(np.cos(2 * np.pi * cycles_per_deg * across + np.deg2rad(phase_deg)))

    def checks(self, check_deg: float = 0.25, is_inverted: bool = False) -> Floats:
        """A checkerboard of black and white, shape (pixels, pixels); a corner of four checks lies at fixation."""
        if check_deg * self.pixels_per_deg < 1:
            raise InvalidParameterError(
                f"Checks of {check_deg:g} degrees are smaller than a pixel ({1 / self.pixels_per_deg:.2g} degrees). "
                "Give larger ones, or more pixels."
            )
        parity = np.floor(self.centres / check_deg).astype(int) % 2
        board = 1.0 - 2.0 * (parity[:, None] ^ parity[None])
        return np.asarray(-board if is_inverted else board)

    def noise(self, rng: np.random.Generator, grain_deg: float = 0.125) -> Floats:
        """Squares that are black or white by chance, shape (pixels, pixels)."""
        side = max(1, round(grain_deg * self.pixels_per_deg))
        n = -(-self.pixels // side)
        coarse = rng.choice([-1.0, 1.0], (n, n))
        return np.asarray(coarse.repeat(side, 0).repeat(side, 1)[: self.pixels, : self.pixels])

    def disc(self, x_deg: float, y_deg: float, radius_deg: float) -> Floats:
        """The aperture of a disc, soft over a pixel at its border, shape (pixels, pixels)."""
        distance = np.hypot(self.centres[None] - x_deg, -self.centres[:, None] - y_deg)
        return np.asarray(np.clip((radius_deg - distance) * self.pixels_per_deg + 0.5, 0, 1))

    def square(self, x_deg: float, y_deg: float, side_deg: float) -> Floats:
        """The aperture of a square, shape (pixels, pixels); pixels that it covers in part have that part."""
        columns = self._covered(self.centres, x_deg, side_deg)
        return np.asarray(self._covered(-self.centres, y_deg, side_deg)[:, None] * columns[None])

    def bar(self, orientation_deg: float, position_deg: float, width_deg: float) -> Floats:
        """The aperture of a bar as long as the screen, shape (pixels, pixels).

        Parameters
        ----------
        orientation_deg
            Of its long side, anticlockwise from horizontal: 90 is vertical.
        position_deg
            Of its middle from fixation: of a vertical bar to the right, of a horizontal one upwards.
        """
        return self._covered(self._across(orientation_deg), position_deg, width_deg)

    def picture(self, pattern: Floats, aperture: Floats | None = None, contrast: float = 1.0) -> NDArray[np.uint8]:
        """A picture as models take it, shape (3, pixels, pixels)."""
        if not 0 <= contrast <= 1:
            raise InvalidParameterError(f"The contrast is {contrast:g}; it must lie between 0 and 1.")
        modulation = pattern if aperture is None else pattern * aperture
        values = encoded(GREY_LUMINANCE * (1 + contrast * modulation))
        return np.repeat(values[None], 3, axis=0)

    def blank(self) -> NDArray[np.uint8]:
        """Grey, shape (3, pixels, pixels)."""
        return np.full((3, self.pixels, self.pixels), GREY, np.uint8)

    def _across(self, orientation_deg: float) -> Floats:
        """The distance from fixation across stripes: upwards of horizontal ones, to the right of all others."""
        angle = np.deg2rad(orientation_deg % 180 or 180)
        return np.asarray(np.sin(angle) * self.centres[None] + np.cos(angle) * self.centres[:, None])

    def _covered(self, centres: Floats, middle: float, width: float) -> Floats:
        """The part of each pixel that an interval covers."""
        half = 0.5 / self.pixels_per_deg
        right = np.minimum(centres + half, middle + width / 2)
        left = np.maximum(centres - half, middle - width / 2)
        return np.asarray(np.clip((right - left) / (2 * half), 0, 1))


def encoded(luminance: Any) -> NDArray[np.uint8]:
    """The values that sRGB has for luminances, of which 1 is white (IEC 61966-2-1).

    Examples
    --------
    >>> encoded(np.array([0.0, GREY_LUMINANCE, 1.0])).tolist()
    [0, 128, 255]
    """
    linear = np.clip(np.asarray(luminance, np.float64), 0, 1)
    curved = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * np.maximum(linear, 0.0031308) ** (1 / 2.4) - 0.055)
    return np.asarray((255 * curved).round().astype(np.uint8))


def coarse(picture: NDArray[Any], n_cells: int) -> Floats:
    """Means over the cells of a grid, shape (..., n_cells, n_cells), of arrays (..., pixels, pixels)."""
    n_pixels = picture.shape[-1]
    edges = np.arange(n_cells + 1) * n_pixels / n_cells
    pixels = np.arange(n_pixels)
    covered = np.clip(np.minimum(pixels + 1, edges[1:, None]) - np.maximum(pixels, edges[:-1, None]), 0, None)
    weights = covered / covered.sum(1, keepdims=True)
    return np.asarray(np.einsum("ay,...yx,bx->...ab", weights, picture, weights, optimize=True))
