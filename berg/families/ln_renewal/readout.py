r"""Firing rate of a neuron that recovers from each spike: a renewal process driven by the sound.

The drive :math:`u` is linear in the recent sound level, plus softplus units of the same kind; in a bin that
begins :math:`a` bins after the end of the last spike's bin the neuron fires with probability

.. math::
    h_{t}(a) = \sigma(u_t + r_a)

with the recovery :math:`r` after a spike. Which spikes there were is not known when only the sound is, so the
probability of every age is followed, and the rate is the mean over all spike trains that the sound can cause:

.. math::
    f_t = \sum_a q_t(a) h_t(a), \qquad q_{t+1}(0) = f_t, \qquad q_{t+1}(a + 1) = q_t(a) \, (1 - h_t(a))

This is the renewal equation (Gerstner & Kistler 2002, Spiking Neuron Models, chapter 6) in discrete time. It is
exact where the past matters through the last spike only, needs no random numbers, and is differentiable.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

_CHUNK = 256  # bins looked at together; does not change the result beyond rounding


def weighted_past(level: Tensor, filters: Tensor) -> Tensor:
    """Weigh the bins before each bin.

    Parameters
    ----------
    level
        Shape (n_stimuli, n_bins); 0 is assumed before.
    filters
        Shape (n_filters, n_lags); the first weight is that of the bin just before.

    Returns
    -------
    sums
        Shape (n_stimuli, n_filters, n_bins). The bin itself has no weight.

    Examples
    --------
    >>> weighted_past(torch.tensor([[1.0, 0.0, 0.0, 0.0]]), torch.tensor([[3.0, 2.0]])).tolist()
    [[[0.0, 3.0, 2.0, 0.0]]]
    """
    past = functional.pad(level[:, :-1], (filters.shape[-1], 0))
    return functional.conv1d(past[:, None], filters.flip(-1)[:, None])


def exponential_traces(level: Tensor, time_constants: Tensor) -> Tensor:
    """Average the past of each bin with weights that fade exponentially.

    Parameters
    ----------
    level
        Shape (n_stimuli, n_bins); 0 is assumed before.
    time_constants
        Shape (n_traces,), in bins.

    Returns
    -------
    traces
        Shape (n_stimuli, n_traces, n_bins). The bin itself has no weight.

    Examples
    --------
    >>> half = 1 / torch.log(torch.tensor([2.0]))
    >>> [round(value, 4) for value in exponential_traces(torch.tensor([[1.0, 1.0, 0.0, 0.0]]), half)[0, 0].tolist()]
    [0.0, 0.5, 0.75, 0.375]
    """
    decay = torch.exp(-1 / time_constants.to(level))[:, None]  # (n_traces, 1)
    past = functional.pad(level[:, :-1], (1, 0))
    trace = level.new_zeros(len(level), len(decay), 1)
    traces = []
    for chunk in torch.split(past, _CHUNK, dim=-1):
        steps = torch.arange(chunk.shape[-1], dtype=level.dtype, device=level.device)
        distance = steps[:, None] - steps  # (to, from); what lies ahead has no weight
        weights = (1 - decay)[:, :, None] * decay[:, :, None] ** distance.clamp(min=0) * (distance >= 0)
        traces.append(trace * decay ** (steps + 1) + torch.einsum("kij,nj->nki", weights, chunk))
        trace = traces[-1][:, :, -1:]
    return torch.cat(traces, dim=-1)


def softplus_drive(inputs: Tensor, gains: Tensor) -> Tensor:
    """Add softplus units to a linear drive.

    Parameters
    ----------
    inputs
        Shape (n_stimuli, n_units, 1 + n_hidden, n_bins); the first is the linear drive.
    gains
        Shape (n_units, n_hidden), weights of the softplus of the others.

    Returns
    -------
    drive
        Shape (n_stimuli, n_units, n_bins), log odds of firing in a bin, long after the last spike.
    """
    hidden = functional.softplus(inputs[:, :, 1:])
    return inputs[:, :, 0] + torch.einsum("nukt,uk->nut", hidden, gains.to(inputs))


def renewal_rate(drive: Tensor, recovery: Tensor) -> Tensor:
    """Follow the probability of each age since the last spike, and return how likely a spike is.

    Parameters
    ----------
    drive
        Shape (..., n_units, n_bins), log odds of firing.
    recovery
        Shape (n_units, n_ages), added to the drive in the n-th bin after a spike; the last one for good.

    Returns
    -------
    probability
        Shape (..., n_units, n_bins), of a spike in the bin. Before the first bin the last spike is long past.

    Examples
    --------
    >>> dead_time = torch.tensor([[-100.0, 0.0]])  # fires with probability 1/2, but never in two bins in a row
    >>> renewal_rate(torch.zeros(1, 4), dead_time).tolist()
    [[0.5, 0.25, 0.375, 0.3125]]
    """
    recovery = recovery.to(drive)
    age = functional.one_hot(torch.tensor(recovery.shape[-1] - 1), recovery.shape[-1]).to(drive)
    age = age.expand(*drive.shape[:-1], -1)  # (..., n_units, n_ages)
    rates = []
    for chunk in torch.split(drive, _CHUNK, dim=-1):
        for hazard in torch.sigmoid(chunk[..., None] + recovery[:, None]).unbind(-2):
            fired = age * hazard
            silent = age - fired
            rates.append(fired.sum(-1, keepdim=True))
            oldest = silent[..., -2:].sum(-1, keepdim=True)
            age = torch.cat([rates[-1], silent[..., :-2], oldest], dim=-1)
    return torch.cat(rates, dim=-1)
