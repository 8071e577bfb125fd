r"""Population receptive fields from what was seen and the BOLD responses to it.

For voxel v and volume t, with the contrast :math:`c_t` on a grid of the visual field,

.. math::
    y_{tv} = b_v + \sum_k h_k \, a_v \left[(c_{t-k} \cdot w_v + \epsilon)^{n_v} - \epsilon^{n_v}
             \right] + \mathrm{noise}

where w is a Gaussian (centre, size), n the exponent of the compression (Kay et al. 2013; `readout`) and h a
haemodynamic response that adds up to 1, so that the amplitude a is the response to contrast that stays on. Candidates
all over the visual field are compared with every voxel, and the best one is refined by gradient descent; amplitude and
baseline are those of least squares. Missing responses (NaN) do not count.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from pydantic import Field
from scipy.stats import gamma
from torch import Tensor

from berg.core.card_schema import CardPart
from berg.families.prf.readout import css_response, gaussian_cell_weights, gaussian_interval_weights

BLOCK = 512
"""Voxels that are fitted together; fixed, because it may change the last bits."""
_BLOCK_CANDIDATES = 1024

Advance = Callable[[int], None]


class HaemodynamicResponse(CardPart):
    """SPM's canonical shape; its delay is chosen for the whole subject, by cross-validation."""

    delays_s: list[float] = Field(
        default=[3.5, 3.75, 4.0, 4.25, 4.5, 4.75, 5.0, 5.25, 5.5, 5.75, 6.0],
        min_length=1,
        description="mean of the first gamma, to choose from; SPM's is 6 s",
    )
    undershoot_lag_s: float = Field(default=10.0, gt=0, description="how much later the undershoot comes")
    undershoot_ratio: float = Field(default=1 / 6, ge=0)
    length_s: float = Field(default=32.0, gt=0)


class Search(CardPart):
    """Where receptive fields are looked for, and what they cost."""

    centre_margin_deg: float = Field(default=3.0, ge=1, description="how far beyond the mapped field a centre may lie")
    spacing_deg: float = Field(default=0.5, gt=0, description="of the candidates' centres")
    sizes_deg: list[float] = Field(default=[0.25, 0.35, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.5], min_length=1)
    exponents: list[float] = Field(default=[0.2, 0.5, 1.0], min_length=1)
    size_bounds_deg: tuple[float, float] = (0.2, 10.0)
    exponent_bounds: tuple[float, float] = (0.1, 1.5)
    penalty: float = Field(default=0.03, ge=0, description="fraction of variance per squared log ratio to the next two")
    typical_exponent: float = Field(default=0.5, gt=0)
    weakest_modulation: float = Field(
        default=0.05,
        gt=0,
        description="standard deviation over time at amplitude 1; below it the stimulus hardly gets there",
    )
    steps: int = Field(default=400, ge=1, description="of the refinement")
    learning_rate: float = Field(default=0.03, gt=0)


@dataclass(frozen=True)
class Apertures:
    """What was seen at each volume: maps of contrast on a grid of the visual field.

    Attributes
    ----------
    maps
        Shape (n_volumes, n_rows, n_columns), in [0, 1].
    x_centres
        Shape (n_columns,), degrees, right positive.
    y_centres
        Shape (n_rows,), degrees, up positive.
    profiles
        Where each map is a profile over y times one over x, as that of a bar as long as the screen is: shapes
        (n_volumes, n_rows) and (n_volumes, n_columns). Sums within receptive fields are then products.
    """

    maps: Tensor
    x_centres: Tensor
    y_centres: Tensor
    profiles: tuple[Tensor, Tensor] | None

    @classmethod
    def of(cls, maps: Tensor, x_centres: Tensor, y_centres: Tensor) -> Apertures:
        """With the profiles, if there are such."""
        return cls(maps, x_centres, y_centres, _profiles(maps))

    @property
    def cell_size(self) -> tuple[float, float]:
        """Width and height of a cell, degrees."""
        spacing = [(c[-1] - c[0]).abs().item() / (len(c) - 1) for c in (self.x_centres, self.y_centres)]
        return spacing[0], spacing[1]

    @property
    def field(self) -> tuple[float, float, float, float]:
        """Left, right, bottom and top of the mapped field, degrees."""
        width, height = self.cell_size
        left, right = self.x_centres.min().item(), self.x_centres.max().item()
        bottom, top = self.y_centres.min().item(), self.y_centres.max().item()
        return left - width / 2, right + width / 2, bottom - height / 2, top + height / 2

    def drive(self, x: Tensor, y: Tensor, size: Tensor) -> Tensor:
        """Contrast summed within Gaussians, shape (n_volumes, n_fields)."""
        width, height = self.cell_size
        if self.profiles is None:
            cells = gaussian_cell_weights(self.x_centres, self.y_centres, (width, height), x, y, size)
            return self.maps.flatten(1) @ cells
        over_y, over_x = self.profiles
        across = over_x @ gaussian_interval_weights(self.x_centres, width, x, size)
        return across * (over_y @ gaussian_interval_weights(self.y_centres, height, y, size))


def _profiles(maps: Tensor) -> tuple[Tensor, Tensor] | None:
    """Over y and over x, where every map is their product; one that does not vary is 1."""
    over_y, over_x, most = maps.amax(2), maps.amax(1), maps.amax((1, 2))
    scale = torch.where(most > 0, most, torch.ones_like(most))[:, None]
    even = (over_x == over_x[:, :1]).all(1, keepdim=True)  # bars as wide as the screen
    over_x, over_y = torch.where(even, over_x / scale, over_x), torch.where(even, over_y, over_y / scale)
    product = over_y[:, :, None] * over_x[:, None, :]
    return (over_y, over_x) if torch.allclose(product, maps, rtol=1e-9, atol=1e-12) else None


@dataclass(frozen=True)
class ReceptiveFields:
    """Shape of the receptive fields; each array has shape (n_fields,).

    Attributes
    ----------
    x, y, size
        Centre and standard deviation of the Gaussian, degrees.
    exponent
        Of the compression.
    """

    x: Tensor
    y: Tensor
    size: Tensor
    exponent: Tensor

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: Tensor | slice) -> ReceptiveFields:
        return ReceptiveFields(*(getattr(self, one.name)[index] for one in fields(self)))

    @classmethod
    def joined(cls, parts: Sequence[ReceptiveFields]) -> ReceptiveFields:
        """Parts one after another."""
        return cls(*(torch.cat([getattr(part, one.name) for part in parts]) for one in fields(cls)))


def haemodynamic_response(delay_s: float, interval_s: float, shape: HaemodynamicResponse) -> np.ndarray:
    """A double-gamma response sampled by volume, adding up to 1.

    SPM's canonical form (Friston et al. 1998, NeuroImage 7:30; Glover 1999, NeuroImage 9:416): a gamma density of mean
    `delay_s` less a part of a later one, dispersion 1 s. Each sample is the exact integral over one repetition time.

    Parameters
    ----------
    delay_s
        Delay of the response, seconds; SPM's default is 6.
    interval_s
        Repetition time, seconds.

    Returns
    -------
    response
        Shape (n_lags,), from lag 0.
    """
    edges = np.arange(0, shape.length_s + interval_s, interval_s)
    undershoot = gamma.cdf(edges, delay_s + shape.undershoot_lag_s)
    response = np.diff(gamma.cdf(edges, delay_s) - shape.undershoot_ratio * undershoot)
    normalised: np.ndarray = response / response.sum()
    return normalised


def convolution_matrix(response: np.ndarray, n_volumes: int) -> Tensor:
    """The matrix that turns steady-state responses into BOLD: lower triangular, shape (n_volumes, n_volumes)."""
    matrix = np.zeros((n_volumes, n_volumes))
    for lag, weight in enumerate(response[:n_volumes]):
        matrix += weight * np.eye(n_volumes, k=-lag)
    return torch.from_numpy(matrix)


def predict_time_courses(apertures: Apertures, fields: ReceptiveFields, hrf: Tensor) -> Tensor:
    """BOLD at amplitude 1 and baseline 0, shape (n_volumes, n_fields).

    Parameters
    ----------
    hrf
        Shape (n_volumes, n_volumes), from `convolution_matrix`.
    """
    return hrf @ css_response(apertures.drive(fields.x, fields.y, fields.size), fields.exponent)


def amplitude_and_baseline(time_courses: Tensor, bold: Tensor) -> tuple[Tensor, Tensor]:
    """The least-squares amplitude, below 0 where the stimulus suppresses, and the baseline of every voxel.

    Parameters
    ----------
    time_courses
        Shape (n_volumes, n_voxels), at amplitude 1.
    bold
        Shape (n_volumes, n_voxels), the unit of the recording.

    Returns
    -------
    amplitude, baseline
        Shape (n_voxels,), the unit of the recording.
    """
    known = ~bold.isnan()
    level, mean = _mean(time_courses, known), _mean(bold, known)
    centred = torch.where(known, time_courses - level, 0)
    covariance = (centred * torch.where(known, bold - mean, 0)).sum(0)
    amplitude = covariance / (centred**2).sum(0).clamp(min=1e-12)
    return amplitude, mean - amplitude * level


def candidate_fields(field: tuple[float, float, float, float], search: Search) -> ReceptiveFields:
    """Receptive fields all over the visual field, of several sizes and exponents.

    Parameters
    ----------
    field
        Left, right, bottom and top of the mapped field, degrees.
    """
    left, right, bottom, top = field
    margin = search.centre_margin_deg - 1
    axes = (
        torch.arange(left - margin, right + margin, search.spacing_deg, dtype=torch.float64),
        torch.arange(bottom - margin, top + margin, search.spacing_deg, dtype=torch.float64),
        torch.tensor(search.sizes_deg, dtype=torch.float64),
        torch.tensor(search.exponents, dtype=torch.float64),
    )
    return ReceptiveFields(*(axis.flatten() for axis in torch.meshgrid(*axes, indexing="ij")))


def penalty(exponent: Tensor, time_courses: Tensor, search: Search) -> Tensor:
    r"""The price of parameters that the stimulus cannot determine.

    .. math:: p \left[ (\ln n / n_0)^2 + \min(0, \ln s / s_0)^2 \right]

    with s the standard deviation of the predicted time course at amplitude 1. Without the second term a voxel that the
    stimulus does not drive ends far outside the mapped field with an amplitude of any size, which a picture that does
    reach it would bring out.

    Parameters
    ----------
    exponent
        Shape (n_fields,).
    time_courses
        Shape (n_volumes, n_fields), at amplitude 1.

    Returns
    -------
    penalty
        Shape (n_fields,), as a fraction of the variance of the recording.
    """
    unusual = (exponent / search.typical_exponent).log()
    modulation = time_courses.std(0, correction=0).clamp(min=1e-9)
    weak = (modulation / search.weakest_modulation).log().clamp(max=0)
    return search.penalty * (unusual**2 + weak**2)


@dataclass(frozen=True)
class Candidates:
    """Receptive fields, and the time courses that they predict, shape (n_volumes, n_candidates)."""

    fields: ReceptiveFields
    time_courses: Tensor

    @classmethod
    def at(cls, apertures: Apertures, fields: ReceptiveFields, hrf: Tensor) -> Candidates:
        """With one haemodynamic response."""
        blocks = (fields[slice(start, start + _BLOCK_CANDIDATES)] for start in range(0, len(fields), _BLOCK_CANDIDATES))
        return cls(fields, torch.cat([predict_time_courses(apertures, block, hrf) for block in blocks], dim=1))

    def best(self, volumes: Tensor, bold: Tensor, search: Search) -> ReceptiveFields:
        """The best candidate of every voxel.

        Parameters
        ----------
        volumes
            Those that are fitted, shape (n_fitted,).
        bold
            Shape (n_fitted, n_voxels).
        """
        own = self.time_courses[volumes]
        price = penalty(self.fields.exponent, own, search)
        own = _standardised(own, torch.ones_like(own, dtype=torch.bool))
        found = [
            (_loss_of_all(bold[:, start : start + BLOCK], own).add_(price)).argmin(1)
            for start in range(0, bold.shape[1], BLOCK)
        ]
        return self.fields[torch.cat(found)]


def _loss_of_all(bold: Tensor, time_courses: Tensor) -> Tensor:
    """1 - r squared of each voxel with each standardised candidate, shape (n_voxels, n_candidates)."""
    known = ~bold.isnan()
    r = _standardised(bold, known).T @ time_courses
    if not known.all():  # the candidates' own variance is then another for each voxel
        weights = known.T.double()
        left = weights @ time_courses**2 - (weights @ time_courses) ** 2 / weights.sum(1, keepdim=True).clamp(min=1)
        r /= left.clamp(min=1e-9).sqrt()
    return r.square_().neg_().add_(1)


def refine(
    apertures: Apertures,
    hrf: Tensor,
    volumes: Tensor,
    bold: Tensor,
    start: ReceptiveFields,
    search: Search,
    advance: Advance = lambda n: None,
) -> ReceptiveFields:
    """Improve all receptive fields together by gradient descent, inside their bounds.

    The loss of a voxel is the fraction of variance that is left by the best amplitude and baseline, plus `penalty`.
    What is returned is never worse than `start`.

    Parameters
    ----------
    apertures
        The stimulus of the whole recording.
    hrf
        Shape (n_volumes, n_volumes), from `convolution_matrix`.
    volumes
        Those that are fitted, shape (n_fitted,).
    bold
        Shape (n_fitted, n_voxels).
    start
        Receptive fields of n_voxels.
    advance
        Called after each step.
    """
    known = ~bold.isnan()
    target = _standardised(bold, known)
    parameters = _to_unbounded(start, apertures.field, search).requires_grad_()
    best, best_loss = parameters.detach().clone(), torch.full_like(start.x, math.inf)
    optimiser = torch.optim.Adam([parameters], lr=search.learning_rate)
    lowest = search.learning_rate / 50
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, search.steps, eta_min=lowest)
    for _ in range(search.steps):
        optimiser.zero_grad()
        fields = _to_bounded(parameters, apertures.field, search)
        time_courses = predict_time_courses(apertures, fields, hrf)[volumes]
        r = (_standardised(time_courses, known) * target).sum(0)
        loss = 1 - r**2 + penalty(fields.exponent, time_courses, search)
        improved = loss.detach() < best_loss
        best = torch.where(improved, parameters.detach(), best)
        best_loss = torch.where(improved, loss.detach(), best_loss)
        torch.autograd.backward(loss.sum())
        optimiser.step()
        schedule.step()
        advance(1)
    return _to_bounded(best, apertures.field, search)


def _mean(values: Tensor, known: Tensor) -> Tensor:
    mean: Tensor = torch.where(known, values, 0).sum(0) / known.sum(0).clamp(min=1)
    return mean


def _standardised(time_courses: Tensor, known: Tensor) -> Tensor:
    """Remove the mean and divide by the norm; constant columns and what is not known become 0."""
    centred = torch.where(known, time_courses - _mean(time_courses, known), 0)
    standardised: Tensor = centred / centred.norm(dim=0).clamp(min=1e-9)
    return standardised


def _bounds(field: tuple[float, float, float, float], search: Search) -> Tensor:
    """Lower and upper bounds of x, y, log size, exponent; shape (2, 4, 1)."""
    left, right, bottom, top = field
    margin, (smallest, largest) = search.centre_margin_deg, (math.log(size) for size in search.size_bounds_deg)
    lower = [left - margin, bottom - margin, smallest, search.exponent_bounds[0]]
    upper = [right + margin, top + margin, largest, search.exponent_bounds[1]]
    return torch.tensor([lower, upper], dtype=torch.float64)[:, :, None]


def _to_unbounded(fields: ReceptiveFields, field: tuple[float, float, float, float], search: Search) -> Tensor:
    """Parameters without bounds, shape (4, n_voxels)."""
    lower, upper = _bounds(field, search).to(fields.x.device)
    values = torch.stack([fields.x, fields.y, fields.size.log(), fields.exponent])
    # A tenth of a percent inside, where the slope of the logistic is not yet lost.
    unbounded: Tensor = ((values - lower) / (upper - lower)).logit(eps=1e-3)
    return unbounded


def _to_bounded(parameters: Tensor, field: tuple[float, float, float, float], search: Search) -> ReceptiveFields:
    lower, upper = _bounds(field, search).to(parameters.device)
    x, y, log_size, exponent = lower + (upper - lower) * parameters.sigmoid()
    return ReceptiveFields(x, y, log_size.exp(), exponent)
