"""How sure the similarities of models with brains are: standard errors and tests of models that are fixed beforehand.

Of models with nothing to fit. Standard errors are those of rsatoolbox 0.3.2, for other stimuli, other subjects, or both
at once, of which the variance of a bootstrap over both factors is corrected (Schütt et al. 2023, eLife 12:e82566).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy.stats import t as student

from berg.core.exceptions import InvalidParameterError
from berg.statistics.bootstrap import resampled_counts
from berg.statistics.groups import Seed
from berg.statistics.options import check_choice
from berg.statistics.rdm_similarity import (
    COMPARISONS,
    Comparison,
    Resampled,
    checked_rdms,
    n_stimuli_of,
    noise_ceiling,
    resampled,
    resampled_together,
    similarity,
)
from berg.statistics.unit_blocks import Floats
from berg.system.progress import progress_bar

Generalise = Literal["stimuli", "subjects", "both"]
_LEAST_RESAMPLES = 100


@dataclass(frozen=True)
class Inference:
    """Models beside subjects.

    Attributes
    ----------
    similarity
        Shape (n_models, n_subjects).
    lower, upper
        The noise ceiling; NaN of one subject.
    error
        Shape (n_models,): the standard error of the mean over subjects.
    difference_error
        Shape (n_models, n_models): of the difference of two models.
    ceiling_error
        Shape (n_models,): of the difference from the lower bound of the ceiling.
    degrees_of_freedom
        Of Student's t in all tests.
    resampled
        Similarities in the bootstrap of what is generalised to; None if there was none ("subjects").
    """

    similarity: Floats
    lower: float
    upper: float
    error: Floats
    difference_error: Floats
    ceiling_error: Floats
    degrees_of_freedom: int
    resampled: Resampled | None

    @property
    def mean(self) -> Floats:
        """Shape (n_models,), over subjects."""
        return np.asarray(self.similarity.mean(1))

    @property
    def p_above_zero(self) -> Floats:
        """Shape (n_models,): that a model is no better than unrelated dissimilarities; one-sided, not corrected.

        Of correlations, by values or ranks: cosines of distances are above 0 for unrelated ones too.
        """
        return np.asarray(student.sf(_over(self.mean, self.error), self.degrees_of_freedom))

    @property
    def p_difference(self) -> Floats:
        """Shape (n_models, n_models): that two models are equally good; two-sided, not corrected, 1 for the same."""
        means = self.mean
        return self._two_sided(means[:, None] - means, self.difference_error)

    @property
    def p_ceiling(self) -> Floats:
        """Shape (n_models,): that a model reaches the lower bound of the ceiling; two-sided, not corrected."""
        return self._two_sided(self.mean - self.lower, self.ceiling_error)

    def interval(self, level: float = 0.95) -> tuple[Floats, Floats]:
        """Of the mean over subjects, from Student's t."""
        half = student.ppf((1 + level) / 2, self.degrees_of_freedom) * self.error
        return self.mean - half, self.mean + half

    def _two_sided(self, difference: Floats, error: Floats) -> Floats:
        return np.asarray(2 * student.sf(np.abs(_over(difference, error)), self.degrees_of_freedom))


def infer(
    models: Any,
    subjects: Any,
    comparison: Comparison = "pearson",
    generalise: Generalise = "both",
    *,
    n_resamples: int = 1000,
    seed: Seed = 0,
    show_progress: bool | None = None,
) -> Inference:
    """Compare models with subjects, with standard errors and tests.

    Parameters
    ----------
    models, subjects
        Shape (n_models, n_pairs) and (n_subjects, n_pairs).
    generalise
        ``"subjects"``: to other people who see *these* stimuli, on which unrelated geometries are alike or unlike by
        chance, for all of them at once; Student's t over subjects, no bootstrap. ``"stimuli"``:
        to other stimuli for these subjects. ``"both"``: to both; three bootstraps (of stimuli, of subjects, of both)
        with the same draws, whose variances are combined.
    n_resamples
        Of each bootstrap.
    seed
        Of the draws.

    Raises
    ------
    InvalidParameterError
        Fewer than 3 stimuli; one subject where subjects are generalised to; fewer than 100 resamples.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> truth = rng.random(190)  # 20 stimuli
    >>> found = infer([truth, rng.random(190)], truth + 0.3 * rng.standard_normal((6, 190)))
    >>> [bool(p < 0.01) for p in found.p_above_zero]
    [True, False]
    """
    check_choice("comparison", comparison, COMPARISONS)
    check_choice("generalise", generalise, ("stimuli", "subjects", "both"))
    models, subjects = checked_rdms(models, "models"), checked_rdms(subjects, "subjects")
    _check(models, subjects, generalise, n_resamples)
    each = similarity(models, subjects, comparison)
    ceiling = noise_ceiling(subjects, comparison) if len(subjects) > 1 else (np.nan, np.nan)
    if generalise == "subjects":
        covariance = np.atleast_2d(np.cov(each)) / each.shape[1]
        return Inference(each, *ceiling, *_errors(covariance), len(subjects) - 1, None)
    counts = _draws(n_stimuli_of(models.shape[1]), len(subjects), n_resamples, seed)
    with progress_bar(
        "Bootstrap", n_resamples * (1 + 2 * (generalise == "both")), "resamples", show_progress
    ) as advance:
        boots = bootstraps(models, subjects, *counts, comparison, generalise, advance)
    variances = corrected_variances(boots, len(subjects), counts[0].shape[1])
    error, difference_error, ceiling_error = (np.sqrt(np.maximum(variance, 0.0)) for variance in variances)
    n = counts[0].shape[1] if generalise == "stimuli" else min(len(subjects), counts[0].shape[1])
    return Inference(each, *ceiling, error, difference_error, ceiling_error, n - 1, boots[0])


def bootstraps(
    models: Floats,
    subjects: Floats,
    stimulus_counts: Floats,
    subject_counts: Floats,
    comparison: Comparison,
    generalise: Generalise,
    advance: Any = lambda n: None,
) -> list[Resampled]:
    """One bootstrap over stimuli; for "both" three with the same draws: over both, over subjects, over stimuli."""
    if generalise != "both":
        return [resampled(models, subjects, stimulus_counts, None, comparison, advance)]
    of_both, of_stimuli = resampled_together(
        models, subjects, stimulus_counts, [subject_counts, None], comparison, advance
    )
    once = np.ones_like(stimulus_counts)
    return [of_both, resampled(models, subjects, once, subject_counts, comparison, advance), of_stimuli]


def corrected_variances(boots: list[Resampled], n_subjects: int, n_stimuli: int) -> tuple[Floats, Floats, Floats]:
    r"""Variances of models, of their differences, and of their distance to the lower bound of the ceiling.

    Of a bootstrap over stimuli: :math:`\frac{n}{n - 1} v`, as n draws with replacement vary less than n new ones. Of
    three, over both (:math:`v_{12}`), subjects (:math:`v_1`) and stimuli (:math:`v_2`):

    .. math::
        \frac{m}{m - 1} v_1 + \frac{n}{n - 1} v_2 - \frac{m n}{(m - 1)(n - 1)} (v_{12} - v_1 - v_2)

    with m subjects and n stimuli, at least the first and the second term, and at most :math:`v_{12}`: a bootstrap over
    both counts the noise of single measurements three times.
    """
    usable = np.isfinite(boots[0].similarity[:, 0])
    covariances = np.stack([np.atleast_2d(np.cov(boot.columns[usable].T)) for boot in boots])
    parts = (_of_models(covariances), _of_differences(covariances), _of_ceiling(covariances))
    if len(boots) == 1:
        return tuple(part[0] * n_stimuli / (n_stimuli - 1) for part in parts)  # type: ignore[return-value]
    return tuple(_of_both_factors(part, n_subjects, n_stimuli) for part in parts)  # type: ignore[return-value]


def _of_both_factors(variances: Floats, n_subjects: int, n_stimuli: int) -> Floats:
    both, subjects, stimuli = variances
    for_subjects, for_stimuli = n_subjects / (n_subjects - 1), n_stimuli / (n_stimuli - 1)
    least = np.maximum(for_subjects * subjects, for_stimuli * stimuli)
    combined = (
        for_subjects * subjects + for_stimuli * stimuli - for_subjects * for_stimuli * (both - subjects - stimuli)
    )
    return np.asarray(np.minimum(np.maximum(combined, least), both))


def _of_models(covariances: Floats) -> Floats:
    found: Floats = np.einsum("kii->ki", covariances)[:, :-2]
    return found


def _of_differences(covariances: Floats) -> Floats:
    own = np.einsum("kii->ki", covariances)[:, :-2]
    found: Floats = own[:, :, None] + own[:, None] - 2 * covariances[:, :-2, :-2]
    return found


def _of_ceiling(covariances: Floats) -> Floats:
    """NaN of one subject, which has no ceiling."""
    own = np.einsum("kii->ki", covariances)
    found: Floats = own[:, :-2] + own[:, -2:-1] - 2 * covariances[:, :-2, -2]
    return found


def _errors(covariance: Floats) -> tuple[Floats, Floats, Floats]:
    """Of a covariance of the models alone; the ceiling is taken as it is, as rsatoolbox does."""
    own = np.diag(covariance)
    differences = np.maximum(own[:, None] + own - 2 * covariance, 0.0)
    return np.sqrt(own), np.sqrt(differences), np.sqrt(own)


def _draws(n_stimuli: int, n_subjects: int, n_resamples: int, seed: Seed) -> tuple[Floats, Floats]:
    for_stimuli, for_subjects = np.random.default_rng(seed).spawn(2)
    return resampled_counts(n_stimuli, n_resamples, 1, for_stimuli), resampled_counts(
        n_subjects, n_resamples, 1, for_subjects
    )


def _over(difference: Floats, error: Floats) -> Floats:
    """Student's t; 0 where there is no difference."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(difference == 0, 0.0, difference / error)


def _check(models: Floats, subjects: Floats, generalise: Generalise, n_resamples: int) -> None:
    if models.shape[1] != subjects.shape[1]:
        raise InvalidParameterError(
            f"Models have {models.shape[1]:,} pairs, subjects {subjects.shape[1]:,}. Both need the same stimuli."
        )
    if (n_stimuli := n_stimuli_of(models.shape[1])) < 4:
        raise InvalidParameterError(
            f"{n_stimuli} stimuli are too few: a bootstrap needs at least 4, better 20 or more."
        )
    if len(subjects) < 2 and generalise != "stimuli":
        raise InvalidParameterError(
            "There is one subject: nothing can be said of others. Give several, or generalise='stimuli'."
        )
    if generalise != "subjects" and n_resamples < _LEAST_RESAMPLES:
        raise InvalidParameterError(
            f"n_resamples is {n_resamples}; a variance needs at least {_LEAST_RESAMPLES}. Try n_resamples=1000."
        )
