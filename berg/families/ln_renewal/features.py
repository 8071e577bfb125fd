r"""Sound to its level in decibels, the intensity that an ear without frequency tuning follows.

.. math::
    L_t = 10 \log_{10} \left( \frac{\overline{p^2}_t - \overline{p}_t^2}{p_0^2} + 10^{L_0 / 10} \right)

with sound pressure :math:`p` in pascals, :math:`p_0` = 20 micropascals, and means under a Hann window that
ends at the end of bin t. The variance, rather than the mean square, leaves out a constant offset and what is
slower than the window. Insect receptors integrate the energy of a sound (Gollisch, Schütze, Benda & Herz
2002, J Neurosci 22:10434).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

REFERENCE_PA = 20e-6
"""Sound pressure of 0 dB SPL, pascals (root mean square)."""


def sound_level_above_floor(pressure: Tensor, window: Tensor, samples_per_bin: int, floor_db: float) -> Tensor:
    """Measure the level of sounds in bins, from what was heard up to the end of each bin.

    Parameters
    ----------
    pressure
        Shape (n_stimuli, n_samples), pascals; silence is assumed before.
    window
        Shape (n_window,), weights that add up to 1, the last one on the latest sample.
    samples_per_bin
        At most n_window.
    floor_db
        Level below which sounds are not told apart, dB SPL.

    Returns
    -------
    level
        Shape (n_stimuli, n_samples // samples_per_bin), decibels above the floor, at least 0.

    Examples
    --------
    >>> tone = torch.sin(2 * torch.pi * 2500 * torch.arange(2000) / 20000)[None]  # amplitude 1 Pa: 91 dB SPL
    >>> round(sound_level_above_floor(tone, hann_window(80), 10, floor_db=35.0)[0, -1].item())
    56
    """
    n_bins = pressure.shape[-1] // samples_per_bin
    heard = functional.pad(pressure[:, : n_bins * samples_per_bin], (len(window) - samples_per_bin, 0))
    power = _local_variance(heard, window, samples_per_bin) / REFERENCE_PA**2
    return 10 * torch.log10(power / 10 ** (floor_db / 10) + 1)


def hann_window(n_samples: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """A Hann window without zeros at its ends that adds up to 1, shape (n_samples,).

    >>> [round(weight, 4) for weight in hann_window(3).tolist()]
    [0.25, 0.5, 0.25]
    """
    inside = torch.hann_window(n_samples + 2, periodic=False, dtype=dtype)[1:-1]
    return inside / inside.sum()


def _local_variance(heard: Tensor, window: Tensor, stride: int) -> Tensor:
    """Variance under the window, one value per stride; shape (n_stimuli, n_bins)."""
    both = torch.stack([heard, heard**2], dim=1)  # (n_stimuli, 2, n_samples)
    means = functional.conv1d(both, window.to(heard).expand(2, 1, -1), stride=stride, groups=2)
    return (means[:, 1] - means[:, 0] ** 2).clamp(min=0)
