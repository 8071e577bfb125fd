r"""Univariate relational neural control: pictures that drive two regions together, or one and not the other.

With :math:`r_1, r_2` the mean responses of two regions to a picture (over units, then over subjects), :math:`b_1, b_2`
their baselines and a margin m, the four conditions take

====================  ==============================  ====================================
condition             the first n pictures by         among those with
====================  ==============================  ====================================
``high_high``         largest :math:`r_1 + r_2`       :math:`r_1 > b_1 + m, r_2 > b_2 + m`
``low_low``           smallest :math:`r_1 + r_2`      :math:`r_1 < b_1 - m, r_2 < b_2 - m`
``high_low``          largest :math:`r_1 - r_2`       :math:`r_1 > b_1 + m, r_2 < b_2 - m`
``low_high``          smallest :math:`r_1 - r_2`      :math:`r_1 < b_1 - m, r_2 > b_2 + m`
====================  ==============================  ====================================

The baseline of a region is the set, of many random ones, whose mean response is nearest to the mean over all pictures
(which is what the mean over random sets goes to). After Gifford et al., relational neural control.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Sequence
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
from berg.experiments.mean_responses import mean_over_units, unit_of
from berg.experiments.patterns import Patterns
from berg.experiments.result import described
from berg.statistics.options import check_level
from berg.statistics.random_sets import random_sets
from berg.statistics.set_means import set_mean_test
from berg.system.progress import AdvanceAndTell, progress_bar

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]
EXPERIMENT = "univariate_control"
CONDITIONS: dict[str, tuple[int, int]] = {
    "high_high": (1, 1),
    "low_low": (-1, -1),
    "high_low": (1, -1),
    "low_high": (-1, 1),
}
"""Whether each region is to be high (1) or low (-1)."""
PUBLISHED_SEED = 20200220
_DRAWS = 20_000


def univariate_control(
    first: Subjects,
    second: Subjects,
    *,
    names: Sequence[str] = ("first", "second"),
    n_pictures: int = 25,
    margin: float = 0.04,
    exclude: str | int | Collection[str | int] = (),
    leave_one_out: bool = True,
    n_baseline: int = 1_000_000,
    n_permutations: int = 100_000,
    n_bootstraps: int = 100_000,
    alpha: float = 0.05,
    seed: int = PUBLISHED_SEED,
    show_progress: bool | None = None,
) -> xr.Dataset:
    """Choose the pictures that control the mean responses of two regions, and test them in subjects left out.

    The defaults are the published ones. Pictures are chosen by the mean over all subjects (``left_out="none"``), and
    again without each subject; the latter are tested in the subject left out: mean response to the controlling minus
    mean response to the baseline pictures, one-sided in the direction of the condition, against permutations of all
    pictures.

    Parameters
    ----------
    first, second
        Responses of the two regions (any two sets of units, also of two models), each a list with one entry per
        subject, or one subject; all to the same pictures. They are read in blocks: they may be larger than the memory.
        NaN units are left out.
    names
        What the regions are called.
    n_pictures
        Of each condition and of each baseline.
    margin
        In the unit of the responses.
    exclude
        Pictures, by name or number, that are never chosen.
    n_baseline
        Random sets from which each baseline is taken.
    alpha
        Of the corrected p values of a subject, and of the binomial test over subjects.

    Returns
    -------
    result
        - ``picture`` (left_out, condition, rank): indices of the chosen pictures, best first; -1 where there was none;
          ``picture_name`` likewise; ``n_found`` (left_out, condition)
        - ``baseline_picture``, ``baseline_name`` (left_out, region, rank); ``baseline_score`` (left_out, region)
        - ``response`` (left_out, condition, rank, region), ``baseline_response`` (left_out, region, rank): of the
          subject left out, or the mean over all; ``mean_response`` (stimulus, region): over all
        - of several subjects ``effect``, ``p``, ``p_fdr`` (subject, condition, region); ``n_significant``,
          ``p_between``, ``effect_mean``, ``effect_low``, ``effect_high`` (condition, region)

    Raises
    ------
    InvalidParameterError
        If responses do not go together, or there are fewer pictures than a set has.

    Warns
    -----
    ControlWarning
        If fewer pictures pass the margin than were asked for, and if there is one subject, whom nothing can be tested
        in.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> shared = rng.standard_normal((2, 400, 1))
    >>> first, second = ([z + 0.3 * rng.standard_normal((400, 5)) for _ in range(3)] for z in shared)
    >>> result = univariate_control(first, second, n_pictures=5, n_baseline=1000, n_permutations=999)
    >>> result["p_between"].sel(condition="high_low").values < 0.05
    array([ True,  True])
    """
    check_counts(n_pictures=n_pictures, n_baseline=n_baseline, n_permutations=n_permutations, n_bootstraps=n_bootstraps)
    check_level(alpha)
    check_names(names)
    _check_margin(margin)
    pairs = pairs_of_regions(first, second)
    stimuli, subjects = pairs[0][0].stimuli, subject_names(pairs[0])
    pool = allowed_pictures(stimuli, exclude, n_pictures)
    is_tested = leave_one_out and len(subjects) > 1
    with progress_bar("Control", 2 * len(subjects) + 2 * is_tested + 1, "steps", show_progress) as advance:
        means = _mean_responses(pairs, advance)
        train, test = _folds(means, is_tested)
        baselines = pool[nearest_to_mean(train[:, :, pool], n_pictures, n_baseline, seed)]
        advance(1)
        result = _chosen(train, test, baselines, pool, n_pictures, margin)
        result = result.assign_coords(left_out=[NONE, *(subjects if is_tested else [])], region=list(names))
        if is_tested:
            advance(1, "Test")
            effect, p = _tested(result, test[1:], pool, n_permutations, seed)
            own = tests_over_subjects(effect, p, ("condition", "region"), alpha, n_bootstraps, seed)
            result = result.assign(own).assign_coords(subject=subjects)
            advance(1)
    result = _with_names(result, stimuli, means.mean(axis=0), pairs)
    _warn(result, n_pictures, leave_one_out and not is_tested)
    sources = [own.source for region in pairs for own in region]
    return described(
        result, EXPERIMENT, sources, seed, names=list(names), n_pictures=n_pictures, margin=margin,
        exclude=listed(exclude), leave_one_out=leave_one_out, n_baseline=n_baseline, n_permutations=n_permutations,
        n_bootstraps=n_bootstraps, alpha=alpha, n_to_choose_from=len(stimuli),
    )  # fmt: skip


def check_names(names: Sequence[str]) -> None:
    """Raise InvalidParameterError unless there are two names of regions that differ."""
    if isinstance(names, str) or len(names) != 2 or names[0] == names[1]:
        raise InvalidParameterError(f"names={names!r}: give two that differ, such as names=['V1', 'V4'].")


def _check_margin(margin: float) -> None:
    if not np.isfinite(margin) or margin < 0:
        raise InvalidParameterError(f"margin is {margin}; give a number of at least 0, in the unit of the responses.")


def _mean_responses(pairs: tuple[list[Patterns], list[Patterns]], advance: AdvanceAndTell) -> Floats:
    """The mean over units: shape (n_subjects, 2, n_pictures)."""
    means = np.empty((len(pairs[0]), 2, len(pairs[0][0].stimuli)))
    for region, subjects in enumerate(pairs):
        for number, responses in enumerate(subjects):
            means[number, region] = mean_over_units(responses, f"{('first', 'second')[region]}[{number}]")
            advance(1)
    return means


def _folds(means: Floats, is_tested: bool) -> tuple[Floats, Floats]:
    """Responses to choose by and to test with, of all subjects and without each: (n_folds, 2, n_pictures)."""
    everyone = means.mean(axis=0, keepdims=True)
    if not is_tested:
        return everyone, everyone
    others = (means.sum(axis=0) - means) / (len(means) - 1)
    return np.concatenate([everyone, others]), np.concatenate([everyone, means])


def nearest_to_mean(responses: Floats, size: int, n_sets: int, seed: int) -> Indices:
    """Of many random sets, the one whose mean response is nearest to the mean over all pictures.

    Parameters
    ----------
    responses
        Shape (..., n_pictures).

    Returns
    -------
    sets
        Shape (..., size), in ascending order.
    """
    flat = responses.reshape(-1, responses.shape[-1])
    best, sets = np.full(len(flat), np.inf), np.empty((len(flat), size), np.intp)
    rng, target = np.random.default_rng([seed, 0]), flat.mean(axis=1)
    for start in range(0, n_sets, _DRAWS):
        drawn = random_sets(flat.shape[1], size, min(_DRAWS, n_sets - start), rng)
        for column, own in enumerate(flat):
            distance = np.abs(own[drawn].mean(axis=1) - target[column])
            if distance[at := int(distance.argmin())] < best[column]:
                best[column], sets[column] = distance[at], np.sort(drawn[at])
    return sets.reshape(*responses.shape[:-1], size)


def controlling(responses: Floats, baselines: Floats, condition: str, n_pictures: int, margin: float) -> Indices:
    """The first pictures of a condition, best first; fewer if fewer pass.

    Parameters
    ----------
    responses
        Shape (2, n_pictures), of both regions.
    baselines
        Shape (2,).
    """
    signs = np.array(CONDITIONS[condition])[:, None]
    passes = (signs * (responses - baselines[:, None]) > margin).all(axis=0)
    candidates = np.flatnonzero(passes)
    merit = (signs * responses).sum(axis=0)[candidates]
    return candidates[np.argsort(-merit, kind="stable")[:n_pictures]]


def _chosen(
    train: Floats, test: Floats, baselines: Indices, pool: Indices, n_pictures: int, margin: float
) -> xr.Dataset:
    """Pictures of each fold and condition, and the responses to them."""
    scores = np.take_along_axis(train, baselines, axis=2).mean(axis=2)  # (n_folds, 2)
    pictures = np.full((len(train), len(CONDITIONS), n_pictures), -1, np.int64)
    for fold, own in enumerate(train):
        for number, condition in enumerate(CONDITIONS):
            found = pool[controlling(own[:, pool], scores[fold], condition, n_pictures, margin)]
            pictures[fold, number, : len(found)] = found
    responses = np.stack([own[:, chosen] for own, chosen in zip(test, pictures, strict=True)])  # (fold, region, ...)
    responses = np.where(pictures[:, None] < 0, np.nan, responses)
    return xr.Dataset(
        {
            "picture": (("left_out", "condition", "rank"), pictures),
            "n_found": (("left_out", "condition"), (pictures >= 0).sum(axis=2)),
            "response": (("left_out", "condition", "rank", "region"), np.moveaxis(responses, 1, 3)),
            "baseline_picture": (("left_out", "region", "rank"), baselines.astype(np.int64)),
            "baseline_score": (("left_out", "region"), scores),
            "baseline_response": (("left_out", "region", "rank"), np.take_along_axis(test, baselines, axis=2)),
        },
        {"condition": list(CONDITIONS)},
    )


def _tested(
    result: xr.Dataset, held_out: Floats, pool: Indices, n_permutations: int, seed: int
) -> tuple[Floats, Floats]:
    """Effect and p, shape (n_subjects, n_conditions, 2), of the pictures chosen without each subject."""
    pictures, baselines = result["picture"].values[1:], result["baseline_picture"].values[1:]
    n_columns = min(2 * pictures.shape[2], len(pool))
    draws = random_sets(len(pool), n_columns, n_permutations, np.random.default_rng([seed, 1]))
    index = np.full(int(pool.max()) + 1, -1)
    index[pool] = np.arange(len(pool))
    effect, p = np.full((2, len(held_out), len(CONDITIONS), 2), np.nan)
    for subject, number, region in np.ndindex(effect.shape):
        chosen = pictures[subject, number]
        direction: Literal["greater", "less"] = "greater" if list(CONDITIONS.values())[number][region] > 0 else "less"
        effect[subject, number, region], p[subject, number, region] = set_mean_test(
            held_out[subject, region, pool],
            index[chosen[chosen >= 0]],
            index[baselines[subject, region]],
            draws,
            direction,
        )
    return effect, p


def _with_names(
    result: xr.Dataset, stimuli: Sequence[str], means: Floats, pairs: tuple[list[Patterns], list[Patterns]]
) -> xr.Dataset:
    unit = {"units": unit} if (unit := unit_of(pairs[0][0])) else {}
    result = result.assign(
        picture_name=names_of_pictures(result["picture"], stimuli),
        baseline_name=names_of_pictures(result["baseline_picture"], stimuli),
        mean_response=(("stimulus", "region"), means.T),
    ).assign_coords(stimulus=np.array(stimuli, object))
    for name in ("response", "baseline_response", "baseline_score", "mean_response", "effect"):
        if name in result:
            result[name].attrs.update(unit)
    return result


def _warn(result: xr.Dataset, n_pictures: int, is_alone: bool) -> None:
    found: Any = result["n_found"]
    few = [
        f"{fold}/{condition}: {int(n)}"
        for (fold, condition), n in found.stack(at=("left_out", "condition")).to_series().items()
        if n < n_pictures
    ] if int(found.min()) < n_pictures else []  # fmt: skip
    if few:
        warnings.warn(
            f"Fewer than {n_pictures} pictures pass the margin (left out/condition: found): {', '.join(few)}. Give "
            "more pictures, or a smaller margin; means and tests are over those that were found.",
            ControlWarning,
            stacklevel=users_stacklevel(),
        )
    if is_alone:
        warnings.warn(
            "There is one subject, so that no subject is left out and nothing is tested. Give lists of subjects.",
            ControlWarning,
            stacklevel=users_stacklevel(),
        )
