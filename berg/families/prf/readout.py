r"""Population receptive fields with compressive spatial summation (CSS).

A voxel adds up the contrast inside a Gaussian window of the visual field and compresses the sum
(Kay, Winawer, Mezer & Wandell 2013, J Neurophysiol 110:481):

.. math::
    d_v = \sum_i c_i w_{iv}, \qquad
    r_v = a_v \left[ (d_v + \epsilon)^{n_v} - \epsilon^{n_v} \right]

with contrast :math:`c_i` of grid cell i in [0, 1], the Gaussian's integral :math:`w_{iv}` over that
cell, exponent :math:`n_v` and amplitude :math:`a_v`. The published model has :math:`\epsilon = 0`,
where the slope at zero drive is infinite; the small constant makes it finite and leaves the
response to a blank screen at exactly 0.

The moving bars of the fit and the pictures that are encoded go through the same functions.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

DRIVE_EPSILON = 1e-4
"""Added to the drive, which lies in [0, 1], before the exponent is taken."""


def gaussian_interval_weights(centres: Tensor, width: float, mean: Tensor, sd: Tensor) -> Tensor:
    r"""Integrate one-dimensional Gaussians over adjoining intervals.

    .. math::
        w_{iv} = \tfrac12 \left[ \mathrm{erf}\frac{c_i + \Delta/2 - \mu_v}{\sqrt2 \sigma_v}
                               - \mathrm{erf}\frac{c_i - \Delta/2 - \mu_v}{\sqrt2 \sigma_v} \right]

    Parameters
    ----------
    centres
        Shape (n_intervals,), middles of the intervals, degrees of visual angle.
    width
        Width of every interval, degrees.
    mean, sd
        Shape (n_voxels,), degrees; `sd` above 0.

    Returns
    -------
    weights
        Shape (n_intervals, n_voxels), at least 0; a column adds up to 1 over the whole line.

    Examples
    --------
    >>> three = torch.tensor([-2.0, 0.0, 2.0])
    >>> weights = gaussian_interval_weights(three, 2.0, torch.zeros(1), torch.ones(1))
    >>> [round(weight, 4) for weight in weights[:, 0].tolist()]
    [0.1573, 0.6827, 0.1573]
    """
    to_edge = centres[:, None] - mean  # (n_intervals, n_voxels)
    scale = 1 / (math.sqrt(2) * sd)
    upper = torch.erf((to_edge + width / 2) * scale)
    lower = torch.erf((to_edge - width / 2) * scale)
    # Far from the centre both are 1 and may differ by a rounding error of either sign.
    return ((upper - lower) / 2).clamp(min=0)


def gaussian_cell_weights(
    x_centres: Tensor,
    y_centres: Tensor,
    cell_size: float | tuple[float, float],
    x: Tensor,
    y: Tensor,
    size: Tensor,
) -> Tensor:
    """Integrate two-dimensional round Gaussians over the cells of a grid.

    The integral over a cell is exact, not the density at its middle, so that a receptive field
    smaller than a cell keeps its place and its weight.

    Parameters
    ----------
    x_centres
        Shape (n_columns,), middles of the grid's columns, degrees, right positive.
    y_centres
        Shape (n_rows,), middles of the grid's rows, degrees, up positive.
    cell_size
        Width and height of a cell, degrees; one number for square cells.
    x, y
        Shape (n_voxels,), centre of each receptive field, degrees.
    size
        Shape (n_voxels,), standard deviation of each Gaussian, degrees, above 0.

    Returns
    -------
    weights
        Shape (n_rows * n_columns, n_voxels), rows of the grid one after another (the order of
        ``contrast.flatten(-2)``); a column adds up to 1 over the whole plane.

    Examples
    --------
    >>> centre = torch.tensor([0.0])
    >>> gaussian_cell_weights(centre, centre, 100.0, centre, centre, torch.ones(1)).item()
    1.0
    """
    width, height = cell_size if isinstance(cell_size, tuple) else (cell_size, cell_size)
    over_columns = gaussian_interval_weights(x_centres, width, x, size)
    over_rows = gaussian_interval_weights(y_centres, height, y, size)
    return (over_rows[:, None, :] * over_columns[None, :, :]).flatten(0, 1)


def css_response(drive: Tensor, exponent: Tensor, amplitude: Tensor | float = 1.0) -> Tensor:
    """Compress the drive of each voxel and scale it to its response.

    Parameters
    ----------
    drive
        Shape (..., n_voxels), contrast summed within the receptive field, in [0, 1].
    exponent
        Shape (n_voxels,), above 0; below 1 is compressive.
    amplitude
        Shape (n_voxels,), response to full contrast over the whole visual field, in the unit of
        the recording.

    Returns
    -------
    responses
        Shape (..., n_voxels), steady state, relative to a blank screen, in the unit of `amplitude`.

    Examples
    --------
    >>> drive = torch.tensor([0.0, 0.25, 1.0], dtype=torch.float64)[:, None]
    >>> responses = css_response(drive, torch.tensor([0.5]), torch.tensor([2.0]))
    >>> [round(response, 3) for response in responses[:, 0].tolist()]
    [0.0, 0.98, 1.98]
    """
    compressed = (drive + DRIVE_EPSILON) ** exponent - DRIVE_EPSILON**exponent
    return amplitude * compressed


def predict_responses(contrast: Tensor, weights: Tensor, exponent: Tensor, amplitude: Tensor | float = 1.0) -> Tensor:
    """Predict responses to maps of contrast: one matrix product and the compression.

    Parameters
    ----------
    contrast
        Shape (n_stimuli, n_rows, n_columns), in [0, 1].
    weights
        Shape (n_rows * n_columns, n_voxels), from `gaussian_cell_weights` on the same grid.
    exponent, amplitude
        Shape (n_voxels,), as for `css_response`.

    Returns
    -------
    responses
        Shape (n_stimuli, n_voxels), in the unit of `amplitude`.
    """
    return css_response(_product(contrast.flatten(1), weights), exponent, amplitude)


def _product(rows: Tensor, weights: Tensor) -> Tensor:
    """``rows @ weights``, to the same bits whatever else is in the batch.

    Libraries sum a row in another order if the rows of a product are no multiple of 4 (1.3e-6 of the largest response
    on a CPU), so rows of zeros are added.
    """
    return (torch.nn.functional.pad(rows, (0, 0, 0, -len(rows) % 4)) @ weights)[: len(rows)]


def effective_size(size: Tensor, exponent: Tensor) -> Tensor:
    r"""Return the size of the receptive field that a small stimulus would measure.

    A Gaussian to the power n is a Gaussian of standard deviation :math:`\sigma / \sqrt{n}`
    (Kay et al. 2013 report this as the size), so two voxels of one `size` differ in extent by their exponents.

    Parameters
    ----------
    size
        Shape (n_voxels,), standard deviation of the Gaussian before compression, degrees.
    exponent
        Shape (n_voxels,), above 0.

    Returns
    -------
    size
        Shape (n_voxels,), degrees.

    Examples
    --------
    >>> effective_size(torch.tensor([1.0]), torch.tensor([0.25])).item()
    2.0
    """
    return size / exponent.sqrt()
