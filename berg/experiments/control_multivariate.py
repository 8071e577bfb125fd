r"""Multivariate relational neural control: sets of pictures on which two regions represent alike, or not.

The score of a set is Pearson's r, over all pairs of its pictures, between the similarities of response patterns in
the one region and in the other; the similarities are Pearson's r between patterns, averaged over subjects. *Align*
looks for the largest score, *disentangle* for the one nearest to 0. After Gifford et al., relational neural control.

A score of 0 is reached by countless sets, and the largest one by sets with outliers among their pairs. So the result
says how far sets from several starts overlap, what they score in the subject left out and under other models, and how
the similarities of their pairs spread.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from berg.core.exceptions import InvalidParameterError
from berg.core.stacklevel import users_stacklevel
from berg.experiments.control_subjects import (
    NONE,
    ControlWarning,
    Subjects,
    allowed_pictures,
    check_counts,
    listed,
    names_of_pictures,
    pairs_of_regions,
    subject_names,
    tests_over_subjects,
)
from berg.experiments.control_univariate import PUBLISHED_SEED, check_names
from berg.experiments.exchange_search import FoundSets, exchange_search
from berg.experiments.finished_parts import FinishedParts, task_of
from berg.experiments.genetic_search import genetic_search
from berg.experiments.null_sets import NullSets, Regions, score_null_sets
from berg.experiments.pattern_similarity import PatternSimilarity, pattern_similarity
from berg.experiments.patterns import Patterns, same_stimuli
from berg.experiments.result import described
from berg.experiments.set_score import GOALS, Goal, exact_score, merit
from berg.statistics.options import check_choice, check_level
from berg.statistics.random_sets import random_sets
from berg.statistics.set_means import permutation_p
from berg.system.progress import progress_bar

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]
EXPERIMENT = "multivariate_control"


def multivariate_control(
    first: Subjects,
    second: Subjects,
    *,
    names: Sequence[str] = ("first", "second"),
    n_pictures: int = 50,
    search: Literal["exchange", "genetic"] = "exchange",
    n_restarts: int = 10,
    max_steps: int = 1000,
    generations: int = 2000,
    exclude: str | int | Collection[str | int] = (),
    under: Mapping[str, Sequence[Subjects]] | None = None,
    leave_one_out: bool = True,
    n_null: int = 100_000,
    n_bootstraps: int = 100_000,
    alpha: float = 0.05,
    seed: int = PUBLISHED_SEED,
    resume: Path | str | None = None,
    show_progress: bool | None = None,
) -> xr.Dataset:
    """Choose the sets on which two regions align or disentangle, and test them in subjects left out.

    Sets are found by the patterns of all subjects (``left_out="none"``), and again without each subject; the latter are
    tested in the subject left out: score of the controlling set minus score of the baseline set, one-sided, against
    differences of the scores of random sets. (Of disentangling, the absolute scores.)

    Parameters
    ----------
    first, second
        As of `univariate_control`. Their patterns are held in memory once, as float32: pictures x units x subjects x 4
        bytes. Responses of a store or file are read in blocks.
    names
        What the regions are called.
    n_pictures
        Of a set.
    search
        ``"exchange"``: `berg.experiments.exchange_search`, to a local optimum. ``"genetic"``: the published search,
        `berg.experiments.genetic_search`, some thousand times slower; then take ``n_restarts=1``.
    n_restarts
        Random sets that the search starts from. The best end is ``picture``.
    max_steps, generations
        Of the exchange search, and of the genetic one.
    exclude
        Pictures, by name or number, that are never chosen; outliers, for instance.
    under
        Other models: their name, with responses of the first and of the second region to the same pictures.
    n_null
        Random sets: the baseline is the one whose score is nearest to their mean, and their differences are what the
        sets are tested against.
    resume
        A .npz file in which finished searches and scored random sets are kept; given again, the experiment goes on
        from there.

    Returns
    -------
    result
        - ``picture`` (left_out, condition, rank), ``picture_name``: the best set, in ascending order; ``score``
          (left_out, condition)
        - ``restart_picture`` (left_out, condition, restart, rank), ``restart_score``, ``n_steps``, ``is_optimum``
          (left_out, condition, restart); ``overlap`` (left_out, condition): mean part of pictures that two restarts
          share, beside ``chance_overlap``
        - ``pair_similarity`` (left_out, condition, region, pair): the similarities whose correlation is the score
        - ``baseline_picture`` (left_out, rank), ``baseline_name``, ``baseline_score``, ``null_mean``, ``null_sd``
          (left_out)
        - of several subjects ``held_out_score`` (subject, condition, restart), ``held_out_baseline`` (subject);
          ``effect``, ``p``, ``p_fdr`` (subject, condition); ``n_significant``, ``p_between``, ``effect_mean``,
          ``effect_low``, ``effect_high`` (condition)
        - with `under`, ``score_under`` (model, condition, restart) of the sets of all subjects, and
          ``baseline_under`` (model)

    Raises
    ------
    InvalidParameterError
        If responses do not go together, a pattern does not vary, or there are too few pictures.
    StoreMismatchError
        If `resume` is of another experiment.

    Warns
    -----
    ControlWarning
        If there is one subject, whom nothing can be tested in.
    """
    check_counts(n_null=n_null, n_bootstraps=n_bootstraps)
    check_level(alpha)
    check_names(names)
    pairs = pairs_of_regions(first, second)
    stimuli, subjects = pairs[0][0].stimuli, subject_names(pairs[0])
    pool = allowed_pictures(stimuli, exclude, n_pictures + 1)
    plan = _Plan(pool, n_pictures, seed, search, n_restarts, max_steps, generations)
    others = {name: _under(given, name, stimuli) for name, given in (under or {}).items()}
    regions = pattern_similarity(pairs[0], "first"), pattern_similarity(pairs[1], "second")
    folds = _folds(regions, leave_one_out)
    finished = _finished(resume, regions, plan, leave_one_out=leave_one_out, n_null=n_null)
    found = _searched(folds, plan, finished, show_progress)
    null = _null(regions, len(folds) > 1, plan, n_null, finished, show_progress)
    result = _of_sets(found, folds, null, plan)
    if len(folds) > 1:
        effect, p, own = _tested(result, regions, null)
        tests = tests_over_subjects(effect, p, ("condition",), alpha, n_bootstraps, seed)
        result = result.assign(own).assign(tests).assign_coords(subject=subjects)
    elif leave_one_out:
        _warn_of_one_subject()
    if others:
        result = result.assign(_scores_under(result, others)).assign_coords(model=list(others))
    left_out = [NONE, *(subjects if len(folds) > 1 else [])]
    result = result.assign_coords(left_out=left_out, condition=list(GOALS), region=list(names))
    sources = [own.source for region in pairs for own in region]
    return described(
        _with_names(result, stimuli), EXPERIMENT, sources, seed, names=list(names), exclude=listed(exclude),
        under=list(others), leave_one_out=leave_one_out, n_null=n_null, n_bootstraps=n_bootstraps, alpha=alpha,
        n_to_choose_from=len(stimuli), **plan.told(),
    )  # fmt: skip


def _warn_of_one_subject() -> None:
    warnings.warn(
        "There is one subject, so that no subject is left out and nothing is tested. Give lists of subjects.",
        ControlWarning,
        stacklevel=users_stacklevel(),
    )


def _with_names(result: xr.Dataset, stimuli: Sequence[str]) -> xr.Dataset:
    return result.assign(
        picture_name=names_of_pictures(result["picture"], stimuli),
        baseline_name=names_of_pictures(result["baseline_picture"], stimuli),
    )


@dataclass(frozen=True)
class _Plan:
    """What is searched, and how."""

    pool: Indices
    size: int
    seed: int
    search: str
    n_restarts: int
    max_steps: int
    generations: int

    def __post_init__(self) -> None:
        check_choice("search", self.search, ("exchange", "genetic"))
        check_counts(n_pictures=self.size, n_restarts=self.n_restarts)
        check_counts(max_steps=self.max_steps, generations=self.generations)
        if self.size < 3:
            raise InvalidParameterError(
                f"n_pictures is {self.size}; a correlation over pairs needs sets of at least 3."
            )

    def told(self) -> dict[str, Any]:
        """What a result says of it."""
        names = ("search", "n_restarts", "max_steps", "generations")
        return {"n_pictures": self.size, **{name: getattr(self, name) for name in names}}

    def starts(self, fold: int) -> Indices:
        """Random sets, other ones for each fold."""
        rng = np.random.default_rng([self.seed, 2, fold])
        return self.pool[random_sets(len(self.pool), self.size, self.n_restarts, rng)]

    def found(self, regions: Regions, fold: int, goal: Goal, advance: Any) -> FoundSets:
        """The sets of one fold and condition."""
        allowed = np.zeros(regions[0].n_pictures, bool)
        allowed[self.pool] = True
        if self.search == "exchange":
            return exchange_search(
                *regions, self.starts(fold), goal, allowed=allowed, max_steps=self.max_steps, advance=advance
            )
        return genetic_search(
            *regions, self.starts(fold), goal, allowed=allowed, generations=self.generations, seed=self.seed,
            advance=advance,
        )  # fmt: skip


def _finished(resume: Path | str | None, regions: Regions, plan: _Plan, **further: Any) -> FinishedParts:
    if resume is None:
        return FinishedParts(None, "")
    arrays = {
        f"{name} {number}": rows
        for name, region in zip(("first", "second"), regions, strict=True)
        for number, rows in enumerate(region.subjects)
    }
    return FinishedParts(resume, task_of(arrays, **vars(plan) | {"pool": plan.pool.tolist()} | further))


def _under(given: Any, name: str, stimuli: Sequence[str]) -> Regions:
    if not isinstance(given, (list, tuple)) or len(given) != 2:
        raise InvalidParameterError(
            f"under['{name}'] must be two: responses of the first region and of the second, each of one subject or a "
            "list of subjects."
        )
    what = (f"under['{name}'][0]", f"under['{name}'][1]")
    pairs = pairs_of_regions(given[0], given[1], what)
    wanted = Patterns(pairs[0][0].outputs, tuple(stimuli), {})
    same_stimuli([wanted, pairs[0][0]], ["first", what[0]])
    return pattern_similarity(pairs[0], what[0]), pattern_similarity(pairs[1], what[1])


def _folds(regions: Regions, leave_one_out: bool) -> list[Regions]:
    """What is searched in: all subjects, and without each."""
    n = len(regions[0].subjects)
    if not leave_one_out or n < 2:
        return [regions]
    return [regions, *((regions[0].without(subject), regions[1].without(subject)) for subject in range(n))]


def _searched(
    folds: list[Regions], plan: _Plan, finished: FinishedParts, show_progress: bool | None
) -> list[list[FoundSets]]:
    """Of each fold, the sets of each condition."""
    total = len(folds) * len(GOALS) * plan.n_restarts
    with progress_bar("Search", total, "starts", show_progress) as advance:
        found = []
        for fold, regions in enumerate(folds):
            own = []
            for goal in GOALS:
                name = f"{fold} {goal}"
                if (kept := finished.get(name)) is None:
                    own.append(plan.found(regions, fold, goal, advance))
                    finished.put(name, vars(own[-1]))
                else:
                    own.append(FoundSets(**kept))
                    advance(plan.n_restarts)
            found.append(own)
    return found


def _null(
    regions: Regions, is_tested: bool, plan: _Plan, n_null: int, finished: FinishedParts, show_progress: bool | None
) -> NullSets:
    sets = plan.pool[random_sets(len(plan.pool), plan.size, n_null, np.random.default_rng([plan.seed, 3]))]
    return score_null_sets(regions, is_tested, sets, finished, show_progress)


def _of_sets(found: list[list[FoundSets]], folds: list[Regions], null: NullSets, plan: _Plan) -> xr.Dataset:
    """What is known of the sets without any held-out subject."""
    best = np.array(
        [
            [int(np.argmax(merit(own.scores, goal))) for own, goal in zip(fold, GOALS, strict=True)]
            for fold in found
        ]
    )  # fmt: skip
    sets = np.sort([[own.sets for own in fold] for fold in found], axis=3).astype(np.int64)
    restart_scores = np.array([[own.scores for own in fold] for fold in found])
    chosen = np.take_along_axis(sets, best[:, :, None, None], axis=2)[:, :, 0]
    baselines = np.stack([null.baseline(fold) for fold in range(len(folds))])
    pair_similarity = [
        [[region.exact_pairs(own) for region in regions] for own in fold]
        for regions, fold in zip(folds, chosen, strict=True)
    ]
    each = ("left_out", "condition", "restart")
    return xr.Dataset(
        {
            "picture": (("left_out", "condition", "rank"), chosen),
            "score": (("left_out", "condition"), np.take_along_axis(restart_scores, best[:, :, None], axis=2)[:, :, 0]),
            "best_restart": (("left_out", "condition"), best),
            "restart_picture": ((*each, "rank"), sets),
            "restart_score": (each, restart_scores),
            "n_steps": (each, np.array([[own.n_steps for own in fold] for fold in found])),
            "is_optimum": (each, np.array([[own.is_optimum for own in fold] for fold in found]).astype(np.int8)),
            "overlap": (("left_out", "condition"), [[overlap(own) for own in fold] for fold in sets]),
            "chance_overlap": plan.size / len(plan.pool),
            "pair_similarity": (("left_out", "condition", "region", "pair"), np.array(pair_similarity)),
            "baseline_picture": (("left_out", "rank"), baselines.astype(np.int64)),
            "baseline_score": (("left_out",), [exact_score(*own, s) for own, s in zip(folds, baselines, strict=True)]),
            "null_mean": (("left_out",), np.nanmean(null.train, axis=1)),
            "null_sd": (("left_out",), np.nanstd(null.train, axis=1)),
        }
    )


def overlap(sets: Indices) -> float:
    """The part of their pictures that two sets share, averaged over all pairs of sets; NaN of one set.

    >>> overlap(np.array([[1, 2, 3, 4], [3, 4, 5, 6]]))
    0.5
    """
    parts = [len(np.intersect1d(one, other)) / sets.shape[1] for one, other in combinations(sets, 2)]
    return float(np.mean(parts)) if parts else np.nan


def _tested(result: xr.Dataset, regions: Regions, null: NullSets) -> tuple[Floats, Floats, dict[str, Any]]:
    """Effect and p, shape (n_subjects, 2), in the subject left out of each fold, and the scores there."""
    sets, baselines = result["restart_picture"].values[1:], result["baseline_picture"].values[1:]
    best = result["best_restart"].values[1:]
    scores, base = np.empty(sets.shape[:3]), np.empty(len(sets))
    effect, p = np.empty((2, len(sets), len(GOALS)))
    for subject in range(len(sets)):
        x, y = (PatternSimilarity((region.subjects[subject],)) for region in regions)
        base[subject] = exact_score(x, y, baselines[subject])
        scores[subject] = [[exact_score(x, y, each) for each in restarts] for restarts in sets[subject]]
        for number, goal in enumerate(GOALS):
            chosen = scores[subject, number, best[subject, number]]
            effect[subject, number], p[subject, number] = difference_test(
                chosen, base[subject], null.test[subject], goal
            )
    return (
        effect,
        p,
        {"held_out_score": (("subject", "condition", "restart"), scores), "held_out_baseline": ("subject", base)},
    )


def difference_test(score: float, baseline: float, null: Floats, goal: Goal) -> tuple[float, float]:
    """A score minus that of the baseline, and how often two random sets differ as much; of disentangling, absolute.

    Parameters
    ----------
    null
        Shape (n_null,), scores of random sets; each is taken with the next one.
    """
    null = null[~np.isnan(null)]
    if goal == "disentangle":
        score, baseline, null = abs(score), abs(baseline), np.abs(null)
    difference = score - baseline
    return difference, permutation_p(difference, null - np.roll(null, 1), "greater" if goal == "align" else "less")


def _scores_under(result: xr.Dataset, others: Mapping[str, Regions]) -> dict[str, Any]:
    """Scores of the sets of all subjects by the patterns of other models."""
    sets, baseline = result["restart_picture"].values[0], result["baseline_picture"].values[0]
    scores = [[[exact_score(*own, each) for each in restarts] for restarts in sets] for own in others.values()]
    return {
        "score_under": (("model", "condition", "restart"), scores),
        "baseline_under": (("model",), [exact_score(*own, baseline) for own in others.values()]),
    }
