r"""Whether there is an effect at some time: clusters of neighbouring times, with permutations.

Times whose statistic is above a threshold and that follow each other are a cluster; its mass is the sum of the
statistic. The largest mass of each permutation, over all times and courses, is what an observed mass is held against:
the probability of any false cluster is at most p (Maris & Oostenveld 2007, J Neurosci Methods 164:177). A cluster says
that there is an effect, not when it begins or ends.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from berg.core.exceptions import InvalidParameterError, listing
from berg.statistics.groups import Seed, signs
from berg.statistics.options import check_level
from berg.statistics.p_values import max_statistic_p
from berg.statistics.unit_blocks import Floats


@dataclass(frozen=True)
class Clusters:
    """Clusters of one or several courses in time.

    Attributes
    ----------
    statistic
        Shape (n_courses, n_times), of which clusters are made.
    course, begin, end
        Of each cluster: which course, its first time and the time after its last, as indices.
    mass
        Of each cluster, the sum of its statistic.
    p
        Of each cluster, corrected for all times and all courses.
    null_maximum
        Shape (n_permutations,), the largest mass of each.
    """

    statistic: Floats
    course: NDArray[np.intp]
    begin: NDArray[np.intp]
    end: NDArray[np.intp]
    mass: Floats
    p: Floats
    null_maximum: Floats

    @property
    def p_of_times(self) -> Floats:
        """Shape (n_courses, n_times): p of the cluster that a time is in, 1 in none."""
        found = np.ones(self.statistic.shape)
        for course, begin, end, p in zip(self.course, self.begin, self.end, self.p, strict=True):
            found[course, begin:end] = p
        return found


def cluster_test(statistic: Any, null: Any, threshold: Any) -> Clusters:
    """Clusters above a threshold, held against permutations.

    Parameters
    ----------
    statistic
        Shape (n_courses, n_times) or (n_times,), larger for a larger effect.
    null
        Shape (n_permutations, n_courses, n_times): the statistic in permutations, the same one for all courses.
    threshold
        What a time must be above to be in a cluster; a number, or one per time and course. It decides what the test is
        sensitive to, not how often it is wrong.

    Raises
    ------
    InvalidParameterError
        If shapes do not go together or a value is not finite.
    """
    statistic = np.atleast_2d(np.asarray(statistic, np.float64))
    null = np.asarray(null, np.float64)
    null = null[:, None] if null.ndim == 2 else null
    _check(statistic, null)
    masses = [_masses(one, threshold) for one in null]
    null_maximum = np.array([found[3].max(initial=0.0) for found in masses])
    course, begin, end, mass = _masses(statistic, threshold)
    return Clusters(statistic, course, begin, end, mass, max_statistic_p(mass, null_maximum), null_maximum)


def cluster_test_over_subjects(
    effects: Any, n_permutations: int = 1000, *, level: float = 0.05, seed: Seed = 0
) -> Clusters:
    r"""Whether effects of subjects are above zero at some time, by changing signs of subjects.

    The statistic is Student's t over subjects at each time; clusters are made of the times above the one-sided critical
    value of `level`. If there are at most `n_permutations` sets of signs, each is taken once and the test is exact.

    Parameters
    ----------
    effects
        Shape (n_subjects, n_times) or (n_subjects, n_courses, n_times), 0 if there is no effect, and as likely to be
        below as above; correlations as they are or after Fisher's z.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> effects = rng.standard_normal((12, 40))
    >>> effects[:, 15:25] += 2
    >>> found = cluster_test_over_subjects(effects, 500)
    >>> bool((found.begin[found.p < 0.05] <= 16).all() and (found.end[found.p < 0.05] >= 24).all())
    True
    """
    check_level(level)
    effects = np.asarray(effects, np.float64)
    effects = effects[:, None] if effects.ndim == 2 else effects
    if effects.ndim != 3 or len(effects) < 2 or n_permutations < 1:
        raise InvalidParameterError(
            f"Effects have shape {effects.shape}, and {n_permutations} permutations were asked for; this takes "
            "(subjects, courses, times) with two subjects or more, and at least one permutation."
        )
    square = (effects**2).sum(0)
    n = len(effects)
    flips = signs(n, n_permutations, seed)
    null = _t_of_sums(np.tensordot(flips, effects, 1), square, n)
    return cluster_test(_t_of_sums(effects.sum(0), square, n), null, float(student.ppf(1 - level, n - 1)))


def _t_of_sums(total: Floats, square: Floats, n: int) -> Floats:
    """Student's t from the sum over subjects and the sum of squares, which no sign changes; 0 if nothing varies."""
    variance = np.maximum(square - total**2 / n, 0.0) / (n - 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = total / np.sqrt(n * variance)
    return np.asarray(np.where(variance > 1e-30, found, 0.0))


def _masses(statistic: Floats, threshold: Any) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp], Floats]:
    """Course, begin, end and mass of each cluster."""
    above = np.zeros((statistic.shape[0], statistic.shape[1] + 2), np.int8)
    above[:, 1:-1] = statistic > threshold
    change = np.diff(above, axis=1)
    course, begin = np.nonzero(change == 1)
    _, end = np.nonzero(change == -1)
    running = np.concatenate([np.zeros((len(statistic), 1)), np.cumsum(statistic, axis=1)], axis=1)
    return course, begin, end, running[course, end] - running[course, begin]


def _check(statistic: Floats, null: Floats) -> None:
    if null.ndim != 3 or null.shape[1:] != statistic.shape or not len(null):
        raise InvalidParameterError(
            f"The statistic has shape {statistic.shape} (courses, times), its permutations {null.shape}; they must be "
            "(permutations, courses, times)."
        )
    if not np.isfinite(statistic).all() or not np.isfinite(null).all():
        at = np.flatnonzero(~(np.isfinite(statistic).all(0) & np.isfinite(null).all((0, 1))))
        raise InvalidParameterError(
            f"The statistic is NaN or infinite at times number {listing(map(str, at), 5)}. Leave them out."
        )
