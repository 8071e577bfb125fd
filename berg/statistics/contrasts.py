r"""Contrasts of two groups of stimuli, per unit: Welch's t, and d'.

.. math::
    t = \frac{\bar a - \bar b}{\sqrt{s_a^2 / n_a + s_b^2 / n_b}}, \qquad
    d' = \frac{\bar a - \bar b}{\sqrt{(s_a^2 + s_b^2) / 2}}

with the degrees of freedom of Welch (1947, Biometrika 34:28). Means and variances are had from sums that are added up
block by block (Chan, Golub & LeVeque 1983, Am Stat 37:242), so that responses may be larger than the memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from berg.core.exceptions import InvalidParameterError

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Moments:
    """How many stimuli, their mean and the sum of their squared deviations; shape (n_units,) each.

    Examples
    --------
    >>> both = Moments.of(np.array([[1.0], [3.0]])) + Moments.of(np.array([[5.0]]))
    >>> both.n, both.mean.item(), both.variance.item()
    (3, 3.0, 4.0)
    """

    n: int
    mean: Floats
    squares: Floats

    @classmethod
    def of(cls, responses: NDArray[Any]) -> Moments:
        """Of responses of shape (n_stimuli, n_units)."""
        values = np.asarray(responses, np.float64)
        if not len(values):
            return cls(0, np.zeros(values.shape[1:]), np.zeros(values.shape[1:]))
        mean = values.mean(0)
        return cls(len(values), mean, ((values - mean) ** 2).sum(0))

    def __add__(self, other: Moments) -> Moments:
        n = self.n + other.n
        if not self.n or not other.n:
            return other if not self.n else self
        apart = other.mean - self.mean
        squares = self.squares + other.squares + apart**2 * (self.n * other.n / n)
        return Moments(n, self.mean + apart * (other.n / n), squares)

    @property
    def variance(self) -> Floats:
        """Unbiased; NaN of one stimulus."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return self.squares / (self.n - 1) if self.n > 1 else np.full(self.squares.shape, np.nan)


@dataclass(frozen=True)
class Contrast:
    """One group of stimuli against another; shape (n_units,) each.

    Attributes
    ----------
    difference
        Of the means.
    t, p
        Welch's, two-sided; NaN where a unit does not vary.
    d_prime
        The difference in standard deviations.
    """

    difference: Floats
    t: Floats
    p: Floats
    d_prime: Floats


def welch(a: Moments, b: Moments) -> Contrast:
    """Contrast two groups of stimuli.

    Raises
    ------
    InvalidParameterError
        If a group has fewer than two stimuli.

    Examples
    --------
    >>> found = welch(Moments.of(np.array([[1.0], [2], [3]])), Moments.of(np.array([[4.0], [5], [7]])))
    >>> found.t.round(3).item(), found.p.round(3).item()
    (-3.162, 0.042)
    """
    if min(a.n, b.n) < 2:
        raise InvalidParameterError(
            f"The groups have {a.n} and {b.n} stimuli; each needs at least two, whose spread the contrast is held to."
        )
    difference = a.mean - b.mean
    own, other = a.variance / a.n, b.variance / b.n
    with np.errstate(invalid="ignore", divide="ignore"):
        t = np.where(own + other > 0, difference / np.sqrt(own + other), np.nan)
        freedom = (own + other) ** 2 / (own**2 / (a.n - 1) + other**2 / (b.n - 1))
        d_prime = np.where(own + other > 0, difference / np.sqrt((a.variance + b.variance) / 2), np.nan)
    return Contrast(difference, t, 2 * stats.t.sf(np.abs(t), freedom), d_prime)
