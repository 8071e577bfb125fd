r"""Features in time: from what happens at any moment to rows per volume, and to the delays of the BOLD response.

    events -> lanczos -> trim -> zscore -> delays -> linear readout

A fit and the model that it makes call the same functions, whatever the features are of: words, sounds or videos. Arrays
are tensors with time, evenly spaced but for events, on the first axis.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from berg.core.exceptions import InvalidParameterError

FLAT = 1e-10
"""A feature whose standard deviation over time is smaller is centred only."""
_ROWS = 256  # volumes whose weights are held at once


def volume_times(first: float, end: float, tr: float) -> Tensor:
    """The times of volumes, float64: every `tr` seconds from the first, before the end.

    Examples
    --------
    >>> volume_times(0.5, 5.0, 2.0)
    tensor([0.5000, 2.5000, 4.5000], dtype=torch.float64)
    """
    n_volumes = max(0, math.ceil((end - first) / tr))
    return first + tr * torch.arange(n_volumes, dtype=torch.float64)


def lanczos_weights(event_times: Tensor, times: Tensor, cutoff: float, lobes: int = 3) -> Tensor:
    r"""What each event weighs at each time.

    .. math::
        w(d) = \mathrm{sinc}(d)\,\mathrm{sinc}(d / a) \text{ for } |d| < a, \text{ else } 0,
        \qquad d = (t - t_\mathrm{event})\, f

    with the normalised sinc, the number of lobes :math:`a`, and the cutoff :math:`f` (Duchon 1979, J. Appl. Meteorol.
    18:1016).

    Parameters
    ----------
    event_times, times
        Shapes (n_events,) and (n_times,), in seconds.
    cutoff
        In hertz; of volumes every TR seconds, 1 / TR.

    Returns
    -------
    weights
        Shape (n_times, n_events), float64.

    Examples
    --------
    >>> lanczos_weights(torch.tensor([0.0, 1.0]), torch.tensor([0.0, 2.0, 6.0]), cutoff=0.5)[:, 0]
    tensor([1., 0., 0.], dtype=torch.float64)
    """
    _check_filter(cutoff, lobes)
    distance = (times.double()[:, None] - event_times.double()[None]) * cutoff
    weights = torch.sinc(distance) * torch.sinc(distance / lobes)
    exact_zeros = (distance != 0) & (distance == distance.round())  # sin(k pi) is not zero in floating point
    return weights.masked_fill(exact_zeros | (distance.abs() >= lobes), 0.0)


def lanczos(
    values: Tensor, event_times: Tensor, times: Tensor, cutoff: float, lobes: int = 3, *, normalised: bool = False
) -> Tensor:
    """Values of events at other times, by a Lanczos filter.

    A row is the sum over events of weight times value, so that it grows with the density of events; memory does not
    grow with the number of events.

    Parameters
    ----------
    values
        Shape (n_events, n_features).
    event_times, times, cutoff, lobes
        As in `lanczos_weights`; times ascend.
    normalised
        Divide each row by the sum of its weights: the mean of the events instead of their sum. Rows whose weights
        sum to less than a millionth stay zero.

    Returns
    -------
    resampled
        Shape (n_times, n_features), in the dtype of the values; zeros where no event is near.

    Examples
    --------
    >>> lanczos(torch.ones(2, 1), torch.tensor([0.0, 2.0]), torch.tensor([0.0, 1.0]), cutoff=0.5).flatten()
    tensor([1.0000, 1.2159])
    """
    _check_filter(cutoff, lobes)
    if values.ndim != 2 or len(values) != len(event_times):
        raise InvalidParameterError(
            f"{len(event_times):,} times of events and values of shape {tuple(values.shape)}; values have shape "
            "(n_events, n_features), one row per time."
        )
    order = torch.argsort(event_times.double(), stable=True)
    ordered, reach = event_times.double()[order], lobes / cutoff
    resampled = values.new_zeros(len(times), values.shape[1])
    for start in range(0, len(times), _ROWS):
        block = times[start : start + _ROWS].double()
        first, last = torch.searchsorted(ordered, torch.stack([block.min() - reach, block.max() + reach])).tolist()
        near = order[first:last]
        weights = lanczos_weights(ordered[first:last], block, cutoff, lobes)
        if normalised:
            total = weights.sum(1, keepdim=True)
            weights = torch.where(total.abs() < 1e-6, 0.0, weights / total)
        resampled[start : start + _ROWS] = (weights.to(values.device) @ values[near].double()).to(values.dtype)
    return resampled


def trimmed(values: Tensor, start: int = 0, end: int = 0) -> Tensor:
    """Without the first and the last volumes.

    Raises
    ------
    InvalidParameterError
        If nothing is left.
    """
    if start < 0 or end < 0 or start + end >= len(values):
        raise InvalidParameterError(
            f"{len(values)} volumes cannot lose {start} at the start and {end} at the end. Give a longer stimulus, or "
            "trim less."
        )
    return values[start : len(values) - end]


def zscored(values: Tensor) -> Tensor:
    """Each feature less its mean over time, divided by its population standard deviation.

    Examples
    --------
    >>> zscored(torch.tensor([[1.0, 5.0], [3.0, 5.0]]))
    tensor([[-1.,  0.],
            [ 1.,  0.]])
    """
    return Moments.of(values).standardised(values)


class Moments:
    """Mean and population standard deviation over time, from parts of any length one after another.

    Examples
    --------
    >>> moments = Moments(2)
    >>> for part in torch.arange(6.0).reshape(3, 2).split(1):
    ...     moments.add(part)
    >>> moments.mean
    tensor([2., 3.], dtype=torch.float64)
    """

    def __init__(self, n_features: int) -> None:
        self.n = 0
        self.mean = torch.zeros(n_features, dtype=torch.float64)
        self._squares = torch.zeros(n_features, dtype=torch.float64)  # of deviations from the mean

    @classmethod
    def of(cls, values: Tensor) -> Moments:
        """The moments of values of shape (n_times, n_features)."""
        moments = cls(values.shape[1])
        for start in range(0, len(values), _ROWS):
            moments.add(values[start : start + _ROWS])
        return moments

    def add(self, part: Tensor) -> None:
        """Take in further rows (Chan, Golub & LeVeque 1983, Am. Stat. 37:242, equation 2.1)."""
        n, part = len(part), part.detach().cpu().double()
        if n == 0:
            return
        mean = part.mean(0)
        apart, total = mean - self.mean, self.n + n
        self._squares += (part - mean).square().sum(0) + apart.square() * (self.n * n / total)
        self.mean += apart * (n / total)
        self.n = total

    @property
    def scale(self) -> Tensor:
        """The population standard deviation; 1 for features that do not vary."""
        deviation = (self._squares / max(1, self.n)).sqrt()
        return torch.where(deviation < FLAT, 1.0, deviation)

    def standardised(self, values: Tensor) -> Tensor:
        """Values less the mean, divided by the standard deviation, in their own dtype."""
        mean, scale = self.mean.to(values.device), self.scale.to(values.device)
        return ((values.double() - mean) / scale).to(values.dtype)


def delayed(values: Tensor, delays: Sequence[int]) -> Tensor:
    """The features of earlier volumes beside each other: block i is the features delays[i] volumes before.

    Parameters
    ----------
    values
        Shape (n_times, n_features).
    delays
        In volumes, 0 or more.

    Returns
    -------
    delayed
        Shape (n_times, n_delays * n_features); zeros before the first volume.

    Examples
    --------
    >>> delayed(torch.tensor([[1.0, 10.0], [2.0, 20.0], [3.0, 30.0]]), [0, 1])
    tensor([[ 1., 10.,  0.,  0.],
            [ 2., 20.,  1., 10.],
            [ 3., 30.,  2., 20.]])
    """
    if not delays or any(delay < 0 or delay != int(delay) for delay in delays):
        raise InvalidParameterError(
            f"delays are whole volumes, 0 or more, got {list(delays)}. For example [1, 2, 3, 4]."
        )
    n_times, n_features = values.shape
    blocks = values.new_zeros(n_times, len(delays), n_features)
    for index, delay in enumerate(delays):
        blocks[delay:, index] = values[: max(0, n_times - delay)]
    return blocks.flatten(1)


def _check_filter(cutoff: float, lobes: int) -> None:
    if not (cutoff > 0 and lobes >= 1):
        raise InvalidParameterError(
            f"A Lanczos filter has a cutoff above 0 Hz and at least one lobe, got {cutoff} and {lobes}. "
            "Usual are 1 / TR and 3."
        )
