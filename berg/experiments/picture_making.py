"""What the pictures of a search may look like, and how they are made from codes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from berg.core.exceptions import InvalidParameterError, did_you_mean, listing
from berg.experiments.generators import PARAMETRISATIONS, Fourier, Generator, check_generator
from berg.experiments.units import Responder, shape_of, width_deg_of

JITTER_SHARE = 0.25
"""The most that a picture is moved, as a part of the smallest receptive field (its standard deviation)."""
PIXELS, MOST_JITTER, BLURRED_CONTRAST = 224, 8, 0.2


@dataclass(frozen=True)
class Look:
    """What pictures may look like, as it is asked for; see `berg.experiments.optimise`."""

    parametrisation: str = "fourier"
    generator: Any = None
    pixels: int | None = None
    width_deg: float | None = None
    aperture_deg: tuple[float, float, float] | None = None
    rms_contrast: float | None = None
    jitter: int | None = None
    receptive_field_deg: float | None = None

    @property
    def name(self) -> str:
        """The parametrisation, or the class of the generator."""
        return self.parametrisation if self.generator is None else type(self.generator).__name__


@dataclass(frozen=True)
class Making:
    """From codes to pictures in [0, 1], and how they are moved during the search.

    Attributes
    ----------
    mask
        Shape (height, width), 1 inside the aperture; None: all.
    rms_contrast
        Standard deviation of the pixel values of each picture, in [0, 0.5], about mid-grey; None: free.
    jitter
        Pixels that pictures are moved by at most, anew in each step.
    """

    generator: Generator
    mask: Tensor | None = None
    rms_contrast: float | None = None
    jitter: int = 0
    moves: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    def pictures(self, codes: Tensor) -> Tensor:
        """In [0, 1], shape (n, 3, height, width)."""
        made = self.generator(codes)
        if self.rms_contrast is not None:
            centred = made - made.mean((1, 2, 3), keepdim=True)
            spread = centred.std((1, 2, 3), keepdim=True).clamp(min=1e-6)
            made = (0.5 + self.rms_contrast * centred / spread).clamp(0, 1)
        return made if self.mask is None else 0.5 + (made - 0.5) * self.mask.to(made)

    def moved(self, pictures: Tensor) -> Tensor:
        """By chance, up to `jitter` pixels; the border is mirrored."""
        if not self.jitter:
            return pictures
        height, width = pictures.shape[-2:]
        top, left = self.moves.integers(0, 2 * self.jitter + 1, 2)
        wide = functional.pad(pictures, [self.jitter] * 4, mode="reflect")
        return wide[..., top : top + height, left : left + width]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        with torch.no_grad():
            height, width = self.generator(torch.zeros(1, self.generator.code_size)).shape[-2:]
        return int(height), int(width)


def making_of(look: Look, responders: Sequence[Responder], with_gradient: bool, seed: int) -> Making:
    """How pictures of this look are made for these models.

    Raises
    ------
    InvalidParameterError
        If there is no such parametrisation, or a number is out of its range.
    """
    generator = look.generator
    if generator is None:
        generator = _parametrised(responders[0], look.parametrisation, look.pixels, with_gradient)
    check_generator(generator)
    making = Making(generator, moves=np.random.default_rng([seed, 1]))
    return replace(
        making,
        mask=_mask(look, responders[0], *making.size),
        rms_contrast=_contrast(look),
        jitter=_jitter(look, responders, making.size, with_gradient),
    )


def _mask(look: Look, responder: Responder, height: int, width: int) -> Tensor | None:
    if look.aperture_deg is None:
        return None
    return _disc(look.aperture_deg, height, width, width_deg_of(responder, look.width_deg))


def _contrast(look: Look) -> float | None:
    if look.rms_contrast is None:
        return BLURRED_CONTRAST if look.parametrisation == "blurred" and look.generator is None else None
    if not 0 < look.rms_contrast <= 0.5:
        raise InvalidParameterError(
            f"rms_contrast is {look.rms_contrast:g}; it must lie between 0 and 0.5 of the range of values."
        )
    return look.rms_contrast


def _jitter(look: Look, responders: Sequence[Responder], size: tuple[int, int], with_gradient: bool) -> int:
    jitter, most = look.jitter, _most_jitter(responders, look.receptive_field_deg, size[1], look.width_deg)
    if not with_gradient and jitter:
        raise InvalidParameterError("An evolution does not move pictures. Leave jitter out, or search by gradient.")
    if jitter is None:
        return 0 if most is None or not with_gradient else min(most, MOST_JITTER)
    if jitter < 0 or (most is not None and jitter > most) or jitter >= min(size):
        raise InvalidParameterError(
            f"jitter is {jitter} pixels; it may be at most {most if most is not None else min(size) - 1}: a "
            f"larger move than {JITTER_SHARE:g} of the smallest receptive field blurs what drives it. Leave it out."
        )
    return jitter


def _parametrised(responder: Responder, parametrisation: str, pixels: int | None, with_gradient: bool) -> Generator:
    if parametrisation not in PARAMETRISATIONS:
        raise InvalidParameterError(
            f"There is no parametrisation '{parametrisation}'.{did_you_mean(parametrisation, PARAMETRISATIONS)} There "
            f"are: {listing(PARAMETRISATIONS)}. For a network of your own, generator=."
        )
    stated = (
        [int(side) if side.isdigit() else None for side in shape_of(responder.model)[2:]] if responder.labels else []
    )
    size = tuple(side or pixels or PIXELS for side in stated or (None, None))
    if pixels is not None and set(size) != {pixels}:
        raise InvalidParameterError(
            f"pixels is {pixels}; {responder.model.get_model_id()} takes {size[0]} x {size[1]}."
        )
    if not with_gradient and parametrisation == "fourier":  # fewer values, which chance can move
        few = Fourier((size[0], size[1]), most_cycles=16)
        few.start_sd = 1.0
        return few
    made: Generator = PARAMETRISATIONS[parametrisation]((size[0], size[1]))
    return made


def _disc(aperture_deg: tuple[float, float, float], height: int, width: int, width_deg: float) -> Tensor:
    """A disc whose border falls off over a tenth of its radius."""
    x, y, radius = map(float, aperture_deg)
    if not radius > 0:
        raise InvalidParameterError(f"aperture_deg is {aperture_deg}; it is x, y and a radius above 0, degrees.")
    per_deg = width / width_deg
    columns = (np.arange(width) + 0.5 - width / 2) / per_deg - x
    rows = (height / 2 - np.arange(height) - 0.5) / per_deg - y
    inside = (radius - np.hypot(columns[None], rows[:, None])) / (0.1 * radius) + 0.5
    mask = np.clip(inside, 0, 1)
    if not mask.any():
        raise InvalidParameterError(
            f"The aperture {aperture_deg} lies outside the picture, which is {width_deg:g} degrees wide."
        )
    return torch.from_numpy(mask).float()


def _most_jitter(
    responders: Sequence[Responder], receptive_field_deg: float | None, pixels: int, width_deg: float | None
) -> int | None:
    """In pixels; None if no receptive field is known."""
    known = [np.nanmin(own.labels["size_deg"][1]) for own in responders if "size_deg" in own.labels]
    sizes = [float(receptive_field_deg)] if receptive_field_deg is not None else list(map(float, known))
    if not sizes:
        return None
    return int(JITTER_SHARE * min(sizes) * pixels / width_deg_of(responders[0], width_deg))
