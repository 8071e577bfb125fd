"""Commonality analysis: what several dissimilarities explain of another, each alone and together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from berg.experiments.dissimilarity_matrices import Measure, Several, named_rdms
from berg.experiments.partitioning import SHARED, draw_parts, summary
from berg.experiments.result import described, facts_of, parameters_of
from berg.experiments.similarity_analysis import check_same
from berg.statistics.bootstrap import resampled_counts
from berg.statistics.options import check_choice, check_level
from berg.statistics.partition import names_of_subsets, r2_of_subsets, shared_parts, subsets
from berg.statistics.rdm_similarity import resampled_correlations
from berg.statistics.unit_blocks import Floats
from berg.system.progress import progress_bar

if TYPE_CHECKING:
    from berg.plotting.page import Sheet

_BLOCK = 64


def commonality(
    subjects: Several,
    predictors: Several,
    *,
    measure: Measure = "correlation",
    comparison: str = "spearman",
    n_resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    show_progress: bool | None = None,
) -> xr.Dataset:
    """What two to four sets of dissimilarities explain of those of brains, alone and together.

    Least squares with an intercept on all subsets of the predictors, *in sample*: r2 of unrelated predictors is not 0
    but about their number over the number of pairs, and unique parts are never below 0.

    Parameters
    ----------
    subjects
        What is explained: responses or dissimilarities of one subject, or several.
    predictors
        Two to four, by name.
    measure
        Of `berg.experiments.rdms`.
    comparison
        ``"spearman"``: of ranks. ``"pearson"``: of dissimilarities as they are.
    n_resamples, level, seed
        Of the bootstrap over stimuli, whose intervals are of the mean over subjects.

    Returns
    -------
    result
        As of `berg.experiments.partition`, with subjects in place of units: ``r2`` and ``part`` (subset, subject),
        their means over subjects and intervals (subset).

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> a, b = rng.random((2, 20, 30))
    >>> result = commonality(np.hstack([a, b]), {"a": a, "b": b}, n_resamples=100)
    >>> bool(result.part_mean.sel(subset="a") > 0.2)
    True
    """
    check_choice("comparison", comparison, ("spearman", "pearson"))
    check_level(level)
    brains = named_rdms(subjects, "subjects", measure, show_progress=show_progress)
    candidates = named_rdms(predictors, "predictors", measure, show_progress=show_progress)
    check_same(brains, candidates, ("subjects", "predictors"))
    chosen, n_stimuli = subsets(len(candidates.names)), len(brains.stimuli)
    joint, of_ranks = np.concatenate([brains.vectors, candidates.vectors]), comparison == "spearman"
    r2 = _r2(resampled_correlations(joint, np.ones((1, n_stimuli)), of_ranks), len(brains.names))[:, 0]
    counts = resampled_counts(n_stimuli, n_resamples, 1, seed)
    boot = np.empty((len(chosen), n_resamples))
    with progress_bar("Bootstrap", n_resamples, "resamples", show_progress) as advance:
        for start in range(0, n_resamples, _BLOCK):
            block = slice(start, start + _BLOCK)
            boot[:, block] = _r2(resampled_correlations(joint, counts[block], of_ranks), len(brains.names)).mean(-1)
            advance(len(counts[block]))
    made: dict[str, Any] = {
        name: (("subset", "subject"), own) for name, own in (("r2", r2), ("part", shared_parts(r2)))
    }
    for name, values, draws in (("r2", r2, boot), ("part", shared_parts(r2), shared_parts(boot))):
        made |= summary(name, values.mean(1), draws, level)
    names = list(candidates.names)
    labels = {"subset": names_of_subsets(names, SHARED), "subject": list(brains.names), "space": names}
    return described(
        xr.Dataset(made, labels), "commonality", [*brains.sources, *candidates.sources], seed, measure=measure,
        comparison=comparison, n_resamples=n_resamples, level=level, n_stimuli=n_stimuli,
    )  # fmt: skip


def _r2(correlations: Floats, n_subjects: int) -> Floats:
    """Shape (n_subsets, n_resamples, n_subjects); NaN where correlations are."""
    n_rdms = correlations.shape[-1]
    known = np.isfinite(correlations).all((1, 2))
    found = np.full((2 ** (n_rdms - n_subjects) - 1, len(correlations), n_subjects), np.nan)
    for subject in range(n_subjects):
        own = [subject, *range(n_subjects, n_rdms)]
        found[:, known, subject] = r2_of_subsets(correlations[known][:, own][:, :, own])
    return found


def draw(result: xr.Dataset) -> Sheet:
    """As of `berg.experiments.partition`, with a dot per subject."""
    from berg.plotting.page import new_sheet, styled

    told = parameters_of(result)
    n_subjects = result.sizes["subject"]
    facts = (
        f"{told['n_stimuli']} stimuli, {n_subjects} subject{'s' if n_subjects > 1 else ''}",
        f"{told['measure']} dissimilarities, {told['comparison']}, in sample",
        f"lines: {told['level']:.0%} intervals over stimuli",
        *facts_of(result),
    )
    below = 0.2 * result.sizes["space"] + 0.15
    with styled():
        sheet, frame = new_sheet(below + 2.4, "Variance of dissimilarities explained", facts)
        axes = sheet.add_axes(frame.rectangle(1.5, below + 0.2, 5.4, 2.0))
        draw_parts(axes, sheet.add_axes(frame.rectangle(1.5, 0.1, 5.4, below)), result)
    return sheet
