r"""Neurons with a renewal process, from sounds and the spikes that they caused.

In bin t, the a-th after the last spike, a neuron fires with the log odds

.. math::
    u_t + r_a, \qquad u_t = x_t \cdot w_0 + b_0 + \sum_k g_k \, \mathrm{softplus}(x_t \cdot w_k + b_k)

where x are recent and distant averages of the level of the sound. Fitted by maximum likelihood on the spikes as they
were; predicted from sound alone, as the mean over all spike trains (`berg.families.ln_renewal.readout`).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from berg.core.card_schema import CardPart
from berg.families.ln_renewal.readout import exponential_traces, renewal_rate, softplus_drive, weighted_past

Floats = NDArray[np.float64]


class Shape(CardPart):
    """What a neuron can be like."""

    lags_s: float = Field(default=0.02, gt=0, description="recent past that is weighed lag by lag")
    n_lag_functions: int = Field(default=14, ge=2, description="bumps that the weights are made of")
    traces_s: list[float] = Field(default=[0.05, 0.5, 3.0], description="time constants of the distant past")
    ages_s: float = Field(default=0.06, gt=0, description="how long a spike is felt")
    n_age_functions: int = Field(default=8, ge=2)
    typical_db: float = Field(default=20.0, description="level above the floor that inputs are centred on")
    spread_db: float = Field(default=6.0, gt=0, description="unit of the penalty")
    max_steps: int = Field(default=80, ge=1, description="of the optimiser (L-BFGS)")


@dataclass(frozen=True)
class Basis:
    """Functions of lag and of age for one length of the bins."""

    shape: Shape
    bins_per_s: float

    @property
    def n_lags(self) -> int:
        """Bins that are weighed one by one."""
        return round(self.shape.lags_s * self.bins_per_s)

    @property
    def n_ages(self) -> int:
        """Bins that a spike is felt."""
        return round(self.shape.ages_s * self.bins_per_s)

    @property
    def n_inputs(self) -> int:
        """Averages of the level."""
        return self.shape.n_lag_functions + len(self.shape.traces_s)

    @cached_property
    def of_lags(self) -> Tensor:
        """Shape (n_lag_functions, n_lags)."""
        return raised_cosines(self.n_lags, self.shape.n_lag_functions, stretch=4.0)

    @cached_property
    def of_ages(self) -> Tensor:
        """Shape (n_age_functions, n_ages)."""
        return raised_cosines(self.n_ages, self.shape.n_age_functions, stretch=1.0)

    def inputs(self, level: Tensor) -> Tensor:
        """Recent and distant averages of the level, standardised; shape (n_bins, n_inputs).

        Parameters
        ----------
        level
            Shape (1, n_bins), decibels above the floor.
        """
        typical, of_lags = self.shape.typical_db, self.of_lags
        recent = weighted_past(level, of_lags) - typical * of_lags.sum(1)[:, None]
        distant = exponential_traces(level, torch.tensor(self.shape.traces_s) * self.bins_per_s) - typical
        return torch.cat([recent, distant], dim=1)[0].T / self.shape.spread_db

    def ages(self, spikes: Tensor) -> Tensor:
        """Bins since the one after the last spike, at most n_ages - 1; shape (n_bins,)."""
        bins, long_ago = torch.arange(len(spikes)), -self.n_ages
        last = torch.where(spikes > 0, bins, long_ago).cummax(0).values
        return (bins - functional.pad(last[:-1], (1, 0), value=long_ago) - 1).clamp(max=self.n_ages - 1)


def raised_cosines(n_bins: int, n_functions: int, stretch: float) -> Tensor:
    """Bumps that get wider with time, from the first bin to 80% of the last.

    Parameters
    ----------
    stretch
        Bins after which widths begin to grow.

    Returns
    -------
    basis
        Shape (n_functions, n_bins), in [0, 1].
    """
    place = np.log(np.arange(n_bins) + 0.5 + stretch)
    centres = np.linspace(place[0], np.log(n_bins * 0.8), n_functions)
    distance = (place - centres[:, None]) / (centres[1] - centres[0])
    return torch.from_numpy(np.where(np.abs(distance) < 2, (1 + np.cos(np.pi * distance / 2)) / 2, 0))


@dataclass(frozen=True)
class Weights:
    """The parameters of a neuron as `berg.families.ln_renewal.model` reads them, for one unit."""

    filters: Tensor  # (1, 1 + n_hidden, n_lags), per decibel above the floor
    traces: Tensor  # (1, 1 + n_hidden, n_traces)
    offsets: Tensor  # (1, 1 + n_hidden)
    gains: Tensor  # (1, n_hidden)
    recovery: Tensor  # (1, n_ages)


class Neuron(torch.nn.Module):
    """The parameters as they are fitted: on standardised inputs, and on smooth functions of lag and age."""

    def __init__(self, basis: Basis, n_hidden: int) -> None:
        super().__init__()
        self.basis = basis
        draw = torch.Generator().manual_seed(0)
        start = torch.randn(1 + n_hidden, basis.n_inputs, generator=draw, dtype=torch.float64) / basis.n_inputs**0.5
        start[0] = 0
        offset = torch.zeros(1 + n_hidden, dtype=torch.float64)
        offset[0] = -3  # log odds of firing in a bin, about
        self.weights = torch.nn.Parameter(start)
        self.offsets = torch.nn.Parameter(offset)
        self.gains = torch.nn.Parameter(torch.full((n_hidden,), 0.1, dtype=torch.float64))
        self.recovery = torch.nn.Parameter(torch.zeros(basis.shape.n_age_functions, dtype=torch.float64))

    def drive(self, inputs: Tensor) -> Tensor:
        """Log odds of firing long after a spike, shape (n_bins,)."""
        sums = (inputs @ self.weights.T + self.offsets).T
        return softplus_drive(sums[None, None], self.gains[None])[0, 0]

    def log_odds(self, inputs: Tensor, ages: Tensor) -> Tensor:
        """Log odds of firing where the last spike is known, shape (n_bins,)."""
        return self.drive(inputs) + self.of_ages()[ages]

    def of_ages(self) -> Tensor:
        """What is added to the log odds at each age, shape (n_ages,)."""
        recovery: Tensor = self.recovery @ self.basis.of_ages
        return recovery

    def penalty(self) -> Tensor:
        """Sum of squares of all but the offsets."""
        return torch.stack([(part**2).sum() for part in (self.weights, self.gains, self.recovery)]).sum()

    @torch.no_grad()
    def rate(self, inputs: Tensor) -> Floats:
        """Spikes per second from sound alone, shape (n_bins,)."""
        per_bin: Floats = renewal_rate(self.drive(inputs)[None], self.of_ages()[None])[0].numpy()
        return per_bin * self.basis.bins_per_s

    @torch.no_grad()
    def shipped(self) -> Weights:
        """The same neuron, with weights per lag and per decibel above the floor."""
        basis, shape = self.basis, self.basis.shape
        per_db = self.weights / shape.spread_db
        of_lags, of_traces = per_db[:, : shape.n_lag_functions], per_db[:, shape.n_lag_functions :]
        total = of_lags @ basis.of_lags.sum(1) + of_traces.sum(1)
        offsets = self.offsets - shape.typical_db * total
        parts = (of_lags @ basis.of_lags, of_traces, offsets, self.gains.detach(), self.of_ages())
        return Weights(*(part[None] for part in parts))

    @torch.no_grad()
    def drawn_spikes(self, inputs: Tensor, n_trains: int, seed: int = 0) -> Floats:
        """Spike trains that the neuron could have fired, shape (n_trains, n_bins)."""
        draw, n_ages = np.random.default_rng(seed), self.basis.n_ages
        drive, recovery = self.drive(inputs).numpy(), self.of_ages().numpy()
        age, trains = np.full(n_trains, n_ages - 1), np.zeros((n_trains, len(drive)))
        for place, log_odds in enumerate(drive):
            fired = draw.random(n_trains) < 1 / (1 + np.exp(-log_odds - recovery[age]))
            trains[:, place] = fired
            age = np.where(fired, 0, np.minimum(age + 1, n_ages - 1))
        return trains


@dataclass(frozen=True)
class Trains:
    """Spike trains of one neuron as they are fitted, one entry per train; all of one length.

    Attributes
    ----------
    inputs
        Shape (n_bins, n_inputs) each.
    ages
        Shape (n_bins,) each, bins since the last spike.
    spikes
        Shape (n_bins,) each, 1 or 0.
    known
        Shape (n_bins,) each, False where nothing was recorded.
    """

    inputs: list[Tensor]
    ages: list[Tensor]
    spikes: list[Tensor]
    known: list[Tensor]

    @classmethod
    def of(cls, basis: Basis, inputs: Sequence[Tensor], spikes: Sequence[Tensor]) -> Trains:
        """From inputs and spikes, NaN where nothing was recorded."""
        filled = [torch.nan_to_num(each) for each in spikes]
        return cls(list(inputs), [basis.ages(each) for each in filled], filled, [~each.isnan() for each in spikes])

    def with_spikes(self, basis: Basis, spikes: Sequence[Tensor]) -> Trains:
        """Other spikes to the same inputs."""
        return replace(Trains.of(basis, self.inputs, spikes), known=self.known)


@dataclass(frozen=True)
class Blocks:
    """Stretches of every recording, held out in turn, with gaps around them that nothing is fitted to."""

    n_bins: int
    n_blocks: int
    gap: int  # bins

    def __getitem__(self, block: int) -> slice:
        """Where a block lies."""
        first, stop = (self.n_bins * edge // self.n_blocks for edge in (block, block + 1))
        return slice(first, stop)

    def __iter__(self) -> itertools.starmap[slice]:
        return itertools.starmap(self.__getitem__, ((block,) for block in range(self.n_blocks)))

    def away_from(self, held_out: Sequence[int]) -> NDArray[np.bool_]:
        """The bins outside held-out blocks and the gaps around them."""
        kept = np.ones(self.n_bins, bool)
        for place in (self[block] for block in held_out):
            kept[max(0, place.start - self.gap) : place.stop + self.gap] = False
        return kept

    def inner_folds(self, outer: int) -> list[list[int]]:
        """The blocks but one, in two halves."""
        others = [block for block in range(self.n_blocks) if block != outer]
        return [others[: len(others) // 2], others[len(others) // 2 :]]


def fit_neuron(
    basis: Basis, trains: Trains, n_hidden: int, penalty: float, blocks: Blocks, held_out: Sequence[int] = ()
) -> Neuron:
    """The neuron of largest penalised likelihood on all trains, without some of their blocks."""
    away = torch.from_numpy(blocks.away_from(held_out))
    inputs, ages, spikes = (
        torch.cat([each[away & known] for each, known in zip(part, trains.known, strict=True)])
        for part in (trains.inputs, trains.ages, trains.spikes)
    )
    neuron = Neuron(basis, n_hidden)
    optimiser = torch.optim.LBFGS(
        neuron.parameters(), max_iter=basis.shape.max_steps, history_size=20, line_search_fn="strong_wolfe"
    )

    def loss() -> float:
        optimiser.zero_grad()
        missed = functional.binary_cross_entropy_with_logits(neuron.log_odds(inputs, ages), spikes, reduction="sum")
        total = missed + penalty * neuron.penalty()
        torch.autograd.backward(total)
        return total.item()

    optimiser.step(loss)  # type: ignore[no-untyped-call]
    return neuron


@torch.no_grad()
def log_likelihood(neuron: Neuron, trains: Trains, places: Sequence[slice]) -> float:
    """Of the spikes in some stretches, given those before; nats."""
    total = 0.0
    for inputs, ages, spikes, known in zip(trains.inputs, trains.ages, trains.spikes, trains.known, strict=True):
        log_odds = neuron.log_odds(inputs, ages)
        for place in places:
            own = known[place]
            missed = functional.binary_cross_entropy_with_logits(
                log_odds[place][own], spikes[place][own], reduction="sum"
            )
            total -= missed.item()
    return total


def ridge(inputs: Floats, target: Floats, penalty: float) -> tuple[Floats, float]:
    """Weights and offset of a penalised linear regression of `target` on `inputs`."""
    mean, offset = inputs.mean(0), float(target.mean())
    centred = inputs - mean
    weights = np.linalg.solve(centred.T @ centred + penalty * np.eye(len(mean)), centred.T @ (target - offset))
    return weights, offset - float(mean @ weights)
