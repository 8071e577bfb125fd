r"""The power of an experiment in vivo, by simulation from the noise ceiling.

The response of a subject to picture i, without noise, is taken as

.. math:: s_i = \mu + \rho (p_i - \mu) + \sigma \sqrt{1 - \rho^2} \, \eta_i

with p the predicted responses, :math:`\mu, \sigma` their mean and SD over all pictures, :math:`\rho` the agreement of
model and brain (correlation with noise taken out), and :math:`\eta` standard normal. The mean over n repeats has
noise of SD :math:`\sigma / (q \sqrt n)`; the ratio q of signal to noise follows from the noise ceiling c, the
correlation that a perfect model reaches with the mean over m repeats: :math:`q = c / \sqrt{m (1 - c^2)}`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from berg.core.exceptions import InvalidParameterError
from berg.experiments.chosen_sets import baseline_of, sets_of
from berg.experiments.control_subjects import check_counts
from berg.experiments.control_univariate import CONDITIONS
from berg.experiments.result import described, parameters_of, sources_of
from berg.statistics.options import check_level
from berg.statistics.over_subjects import prevalence_p
from berg.statistics.p_values import TIE
from berg.system.progress import progress_bar

Floats = NDArray[np.float64]
EXPERIMENT = "in_vivo_power"
_COLUMNS = 4096


def in_vivo_power(
    result: xr.Dataset,
    noise_ceiling: float | Sequence[float],
    *,
    n_averaged: int = 1,
    agreement: float | Sequence[float] = 0.7,
    n_subjects: Sequence[int] = (2, 4, 6, 8),
    n_repeats: Sequence[int] = (1, 2, 4, 8),
    n_experiments: int = 200,
    n_permutations: int = 499,
    alpha: float = 0.05,
    seed: int = 0,
    show_progress: bool | None = None,
) -> xr.Dataset:
    """How often an experiment with the pictures of a result would find each effect.

    Each simulated experiment is tested as `compare` tests recordings: permutations within each subject, false
    discoveries held over its tests, binomial over subjects.

    Parameters
    ----------
    result
        Of `univariate_control`.
    noise_ceiling
        Of the mean response of the region in recordings like those planned, a correlation between 0 and 1; two numbers
        if regions differ. The ceiling of single voxels is lower than that of their mean.
    n_averaged
        Repeats that the ceiling is of.
    agreement
        Correlation of predicted and true responses of a new subject, noise taken out: accuracy divided by the noise
        ceiling (`berg.statistics.metrics.noise_normalised`), of the mean response; two numbers if regions differ. 1
        takes the model for the brain, and 0 gives false positives.
    n_experiments
        Simulated for each number of subjects and repeats; the SE of a power of 0.8 is 0.03 with 200.

    Returns
    -------
    result
        ``power`` (n_subjects, n_repeats, condition, region): part of experiments with p < `alpha` over subjects.

    Raises
    ------
    InvalidParameterError
        For another result, and a ceiling or agreement that is no correlation.
    """
    _check_experiment(result)
    check_counts(n_averaged=n_averaged, n_experiments=n_experiments, n_permutations=n_permutations)
    check_level(alpha)
    for number in n_subjects:
        check_counts(n_subjects=number)
    for number in n_repeats:
        check_counts(n_repeats=number)
    ceiling, rho = _ceilings(noise_ceiling), _two(agreement, "agreement")
    world = _World(result, rho, ceiling / np.sqrt(n_averaged * (1 - ceiling**2)), n_permutations, seed)
    power = np.empty((len(n_subjects), len(n_repeats), len(CONDITIONS), 2))
    with progress_bar("Simulate", len(n_repeats) * n_experiments, "experiments", show_progress) as advance:
        for at, repeats in enumerate(n_repeats):
            power[:, at] = _powers(world.p_values(n_experiments * max(n_subjects), repeats, at), n_subjects, alpha)
            advance(n_experiments)
    axes = {"n_subjects": list(n_subjects), "n_repeats": list(n_repeats), "condition": list(CONDITIONS)}
    made = xr.Dataset({"power": ((*axes, "region"), power)}, {**axes, "region": result["region"].values})
    return described(
        made, EXPERIMENT, sources_of(result), seed, noise_ceiling=ceiling, n_averaged=n_averaged, agreement=rho,
        n_experiments=n_experiments, n_permutations=n_permutations, alpha=alpha,
        n_pictures=parameters_of(result)["n_pictures"],
    )  # fmt: skip


def _check_experiment(result: xr.Dataset) -> None:
    if result.attrs.get("experiment") != "univariate_control":
        raise InvalidParameterError(
            f"Power is simulated from mean responses, and this is a result of '{result.attrs.get('experiment')}'. Give "
            "one of univariate_control."
        )


def _ceilings(noise_ceiling: Any) -> Floats:
    ceiling = _two(noise_ceiling, "noise_ceiling")
    if (ceiling <= 0).any() or (ceiling >= 1).any():
        raise InvalidParameterError(f"noise_ceiling is {noise_ceiling}; it must lie between 0 and 1.")
    return ceiling


def _powers(p: Floats, n_subjects: Sequence[int], alpha: float) -> Floats:
    """The part of experiments with an effect over subjects: shape (len(n_subjects), n_conditions, n_regions).

    Parameters
    ----------
    p
        Shape (n_experiments * max(n_subjects), n_tests): of each subject; smaller experiments have the first ones.
    """
    is_significant = adjusted(p.reshape(-1, max(n_subjects), p.shape[1])) < alpha
    between = [prevalence_p(is_significant[:, :n].sum(axis=1), n, alpha) for n in n_subjects]
    return np.stack([(own < alpha).mean(axis=0).reshape(len(CONDITIONS), 2) for own in between])


class _World:
    """Subjects who are shown the pictures: signals, noise, and the test of each."""

    def __init__(
        self, result: xr.Dataset, rho: Floats, signal_to_noise: Floats, n_permutations: int, seed: int
    ) -> None:
        self.rho, self.signal_to_noise, self.seed = rho, signal_to_noise, seed
        sets, means = sets_of(result), result["mean_response"].values  # (stimulus, region)
        self.shown = np.unique(np.concatenate(list(sets.values())))
        scores = (means - means.mean(axis=0)) / means.std(axis=0)
        self.predicted = scores[self.shown]  # (picture, region), in SD of the signal
        place = {int(index): at for at, index in enumerate(self.shown)}
        rng = np.random.default_rng([seed, 0])
        self.tests = []
        for condition, signs in CONDITIONS.items():
            for region, name in enumerate(result["region"].values):
                chosen, base = sets[condition], sets[baseline_of(str(name))]
                members, weights = _weights([place[int(i)] for i in chosen], [place[int(i)] for i in base])
                null = np.stack([rng.permutation(weights) for _ in range(n_permutations)])
                self.tests.append((region, signs[region], members, weights, null))

    def p_values(self, n_subjects: int, n_repeats: int, number: int) -> Floats:
        """Shape (n_subjects, n_tests)."""
        rng = np.random.default_rng([self.seed, 1, number])
        found = np.empty((n_subjects, len(self.tests)))
        for start in range(0, n_subjects, _COLUMNS):
            n = min(_COLUMNS, n_subjects - start)
            shape = (*self.predicted.shape, n)
            own = np.sqrt(1 - self.rho**2)[:, None] * rng.standard_normal(shape)
            noise = rng.standard_normal(shape) / (self.signal_to_noise * np.sqrt(n_repeats))[:, None]
            measured = (self.rho * self.predicted)[:, :, None] + own + noise
            for test, (region, sign, members, weights, null) in enumerate(self.tests):
                values = sign * measured[members, region]
                reached = (null @ values >= weights @ values - TIE).sum(axis=0)
                found[start : start + n, test] = (reached + 1) / (len(null) + 1)
        return found


def _weights(chosen: Sequence[int], reference: Sequence[int]) -> tuple[NDArray[np.intp], Floats]:
    """The pictures of both sets, and what each adds to the difference of the means."""
    members = np.union1d(chosen, reference)
    weights = np.isin(members, chosen) / len(chosen) - np.isin(members, reference) / len(reference)
    return members, weights


def adjusted(p: Floats) -> Floats:
    """`berg.statistics.p_values.benjamini_hochberg` along the last axis, of many families at once."""
    n = p.shape[-1]
    order = np.argsort(p, axis=-1)
    scaled = np.take_along_axis(p, order, -1) * n / np.arange(1, n + 1)
    smallest = np.minimum(np.minimum.accumulate(scaled[..., ::-1], axis=-1)[..., ::-1], 1)
    found = np.empty_like(p)
    np.put_along_axis(found, order, smallest, -1)
    return found


def _two(given: Any, name: str) -> Floats:
    own = np.broadcast_to(np.asarray(given, np.float64), (2,)) if np.size(given) in (1, 2) else np.full(2, np.nan)
    if not ((own >= 0) & (own <= 1)).all():
        raise InvalidParameterError(f"{name} is {given}; give a correlation from 0 to 1, or one for each region.")
    return own
