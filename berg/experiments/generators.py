r"""From codes to pictures: what a search for pictures moves.

A generator is anything with a `code_size` that turns codes, of which independent standard normal numbers are
typical, into pictures in [0, 1]: a network (a GAN, a diffusion model of few steps), or the parametrisations here. If
the pictures can be differentiated by the codes, the gradient is followed; else codes evolve.

`Fourier` is the parametrisation of Olah, Mordvintsev & Schubert (2017, Distill 2:e7; doi 10.23915/distill.00007):
a spectrum whose amplitudes fall as 1/f, in colours that natural pictures do not correlate, so that a step of the search
is a step on a natural picture.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from berg.core.exceptions import InvalidParameterError

_COLOURS = ((0.26, 0.09, 0.02), (0.27, 0.00, -0.05), (0.27, -0.09, 0.03))
"""A root of the covariance of red, green and blue over ImageNet, as published with the method."""


@runtime_checkable
class Generator(Protocol):
    """From codes to pictures."""

    code_size: int

    def __call__(self, codes: Tensor, /) -> Tensor:
        """Pictures in [0, 1], shape (n, 3, height, width), of codes of shape (n, code_size)."""


class Pixels:
    """Every pixel by itself: a code is the logit of its value.

    Parameters
    ----------
    size
        Height and width.
    blur_pixels
        Standard deviation of a Gaussian that the gradient is blurred with on its way to the codes; 0 is none (as for
        the most exciting inputs of Walker et al. 2019, Nat Neurosci 22:2060).

    Examples
    --------
    >>> Pixels((2, 2))(torch.zeros(1, 12)).unique().tolist()
    [0.5]
    """

    start_sd = 0.1

    def __init__(self, size: tuple[int, int], blur_pixels: float = 0.0) -> None:
        self.size, self.blur_pixels = size, blur_pixels
        self.code_size = 3 * size[0] * size[1]

    def __call__(self, codes: Tensor, /) -> Tensor:
        logits = codes.reshape(-1, 3, *self.size)
        if self.blur_pixels and logits.requires_grad:
            logits.register_hook(lambda slope: _blurred(slope, self.blur_pixels))  # type: ignore[no-untyped-call]
        return logits.sigmoid()


class Fourier:
    """Spectra that fall as 1/f, in colours that are not correlated.

    Parameters
    ----------
    size
        Height and width.
    most_cycles
        The highest frequency, in cycles per picture; None: all.

    Examples
    --------
    >>> few = Fourier((32, 32), most_cycles=2)
    >>> few.code_size, few(torch.zeros(1, few.code_size)).shape
    (54, torch.Size([1, 3, 32, 32]))
    """

    start_sd = 0.1

    def __init__(self, size: tuple[int, int], most_cycles: float | None = None) -> None:
        self.size = height, width = size
        vertical, horizontal = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
        frequency = np.hypot(vertical, horizontal)
        cycles = np.hypot(vertical * height, horizontal * width)
        kept = np.ones_like(cycles, bool) if most_cycles is None else cycles <= most_cycles
        scale = np.where(kept, 1 / np.maximum(frequency, 1 / max(size)), 0.0)
        whole = np.fft.irfft2(scale**2, size).flat[0] * height * width  # the sum over both halves of the spectrum
        self._places = torch.from_numpy(np.flatnonzero(kept))
        self._scale = torch.from_numpy(scale.ravel()[kept.ravel()] * np.sqrt(height * width / (2 * whole))).float()
        mixed = torch.tensor(_COLOURS)
        self._colours = mixed / mixed.norm(dim=0).max()
        self.code_size = 3 * 2 * len(self._places)

    def __call__(self, codes: Tensor, /) -> Tensor:
        height, width = self.size
        scale, places, colours = (part.to(codes.device) for part in (self._scale, self._places, self._colours))
        real, imaginary = (codes.reshape(len(codes), 3, 2, -1) * scale).unbind(2)
        spectrum = torch.zeros(len(codes), 3, height * (width // 2 + 1), dtype=torch.complex64, device=codes.device)
        spectrum = spectrum.index_copy(2, places, torch.complex(real.float(), imaginary.float()))
        spectrum = spectrum.reshape(len(codes), 3, height, -1)
        logits = torch.fft.irfft2(spectrum, s=(height, width), norm="ortho")
        return torch.einsum("rc,nchw->nrhw", colours, logits).sigmoid()


PARAMETRISATIONS: dict[str, Callable[[tuple[int, int]], Any]] = {
    "fourier": Fourier,
    "pixel": Pixels,
    "blurred": lambda size: Pixels(size, blur_pixels=max(1.0, max(size) / 100)),
}


def check_generator(generator: Any) -> Generator:
    """Raise InvalidParameterError unless it makes colour pictures in [0, 1] of codes."""
    size = getattr(generator, "code_size", None)
    if not callable(generator) or not isinstance(size, int) or size < 1:
        raise InvalidParameterError(
            f"generator is {type(generator).__name__}; it must be a function from codes, shape (n, code_size), to "
            "pictures, with the number of values of a code as its attribute code_size."
        )
    with torch.no_grad():
        made = generator(torch.zeros(2, size))
    if not isinstance(made, Tensor) or made.ndim != 4 or made.shape[:2] != (2, 3):
        shape = tuple(made.shape) if hasattr(made, "shape") else type(made).__name__
        raise InvalidParameterError(
            f"The generator makes {shape} of 2 codes; it must make a tensor of pictures, (2, 3, height, width)."
        )
    if not torch.isfinite(made).all() or made.min() < -1e-4 or made.max() > 1 + 1e-4:
        raise InvalidParameterError(
            f"The generator's values lie between {made.min():.3g} and {made.max():.3g}; they must lie in [0, 1]. Of a "
            "network with values in [-1, 1]:  (pictures + 1) / 2"
        )
    known: Generator = generator
    return known


def start_codes(generator: Generator, n: int, seed: int, device: torch.device | str, sd: float | None = None) -> Tensor:
    """Normal codes to begin with, shape (n, code_size); each is the same, however many there are."""
    spread = getattr(generator, "start_sd", 1.0) if sd is None else sd
    rows = [np.random.default_rng([seed, row]).standard_normal(generator.code_size) for row in range(n)]
    return torch.from_numpy(spread * np.stack(rows)).to(device, torch.float32)


def _blurred(slope: Tensor, sd: float) -> Tensor:
    radius = int(np.ceil(3 * sd))
    kernel = torch.exp(-(torch.arange(-radius, radius + 1, device=slope.device) ** 2) / (2 * sd**2)).to(slope)
    kernel = (kernel / kernel.sum()).expand(3, 1, -1)
    across = functional.conv2d(slope, kernel[:, :, None], padding=(0, radius), groups=3)
    return functional.conv2d(across, kernel[..., None], padding=(radius, 0), groups=3)
