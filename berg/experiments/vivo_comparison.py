"""Recordings of an experiment in vivo beside the result that its pictures are from, with the same statistics."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from berg.core.exceptions import InvalidParameterError, listing
from berg.experiments.chosen_sets import BASELINE, baseline_of, picture_names, sets_of
from berg.experiments.control_subjects import (
    NONE,
    Subjects,
    check_counts,
    pairs_of_regions,
    subject_names,
    tests_over_subjects,
)
from berg.experiments.control_univariate import CONDITIONS
from berg.experiments.mean_responses import mean_over_units, unit_of
from berg.experiments.pattern_similarity import DenseSimilarity, pattern_similarity
from berg.experiments.patterns import Patterns
from berg.experiments.result import described, parameters_of, sources_of
from berg.experiments.set_score import GOALS, scores
from berg.experiments.vivo_design import file_names_of
from berg.responses.labelled import outputs_of
from berg.statistics.metrics import pearson_r
from berg.statistics.options import check_level
from berg.statistics.random_sets import random_sets
from berg.statistics.set_means import permutation_p, set_mean_test
from berg.system.progress import progress_bar

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]
EXPERIMENT = "in_vivo_comparison"
_SETS = 2_000


def compare(
    result: xr.Dataset,
    recordings: Sequence[Subjects],
    *,
    n_permutations: int = 10_000,
    n_bootstraps: int = 100_000,
    alpha: float = 0.05,
    seed: int = 0,
    show_progress: bool | None = None,
) -> xr.Dataset:
    """Test in recordings whether the pictures of a result control two regions.

    Univariate: mean response to the controlling minus mean response to the baseline pictures, in each condition and
    region. Multivariate: score of the controlling minus score of the baseline set (of disentangling, absolute scores).
    Within each subject against permutations of the pictures of both sets; false discoveries held over the tests of a
    subject; binomial and bootstrap over subjects, as in silico.

    Parameters
    ----------
    result
        Of `univariate_control` or `multivariate_control`.
    recordings
        Responses of the first region and of the second, each of one subject or a list of subjects; labelled, with the
        pictures as their stimuli: by their names in the result, or by their files in the folder that `in_vivo_design`
        wrote. Repetitions are averaged. Other stimuli are left out.

    Returns
    -------
    comparison
        ``effect``, ``p``, ``p_fdr`` (subject, condition[, region]); ``n_significant``, ``p_between``, ``effect_mean``,
        ``effect_low``, ``effect_high`` (condition[, region]); ``predicted_effect``, of the models. Univariate:
        ``picture_r`` (subject, region), the correlation of predicted and recorded responses over the pictures shown.

    Raises
    ------
    InvalidParameterError
        If a picture of the result was not recorded, or is there twice.
    """
    check_counts(n_permutations=n_permutations, n_bootstraps=n_bootstraps)
    check_level(alpha)
    kind = result.attrs.get("experiment")
    if kind not in ("univariate_control", "multivariate_control"):
        raise InvalidParameterError(
            f"This is a result of '{kind}'; recordings are compared with those of univariate_control and "
            "multivariate_control."
        )
    if not isinstance(recordings, (list, tuple)) or len(recordings) != 2:
        raise InvalidParameterError("recordings must be two: responses of the first region, and of the second.")
    for number, region in enumerate(recordings):
        _check_labels(region, f"recordings[{number}]")
    given = pairs_of_regions(recordings[0], recordings[1], ("recordings[0]", "recordings[1]"))
    pairs = _named_pairs(result, given)
    with progress_bar("Compare", len(pairs[0]), "subjects", show_progress) as advance:
        test = _univariate if kind == "univariate_control" else _multivariate
        effect, p, own = test(result, pairs, n_permutations, seed, advance)
    dims = ("condition", "region")[: effect.ndim - 1]
    tests = tests_over_subjects(effect, p, dims, alpha, n_bootstraps, seed)
    labels = {name: result[name].values for name in dims}
    made = xr.Dataset({**tests, **own}, {"subject": subject_names(pairs[0]), **labels})
    if unit := unit_of(given[0][0]) if kind == "univariate_control" else "":
        made["effect"].attrs["units"] = unit
    sources = [*sources_of(result), *({"recordings": True, **each.source} for region in pairs for each in region)]
    return described(
        made, EXPERIMENT, sources, seed, of=kind, names=parameters_of(result)["names"],
        n_permutations=n_permutations, n_bootstraps=n_bootstraps, alpha=alpha,
    )  # fmt: skip


def _check_labels(region: Any, what: str) -> None:
    """Raise if stimuli have no names: rows that were numbered would be taken for numbers of pictures."""
    for number, own in enumerate(region if isinstance(region, (list, tuple)) else [region]):
        arrays = outputs_of(own).values() if isinstance(own, (xr.Dataset, xr.DataTree)) else [own]
        if not all(isinstance(array, xr.DataArray) and "stimulus" in array.coords for array in arrays):
            raise InvalidParameterError(
                f"{what}[{number}] has no names of stimuli. Give xarray with the coordinate 'stimulus': the names of "
                "the pictures in the result, or of their files."
            )


def _named_pairs(
    result: xr.Dataset, pairs: tuple[list[Patterns], list[Patterns]]
) -> tuple[list[Patterns], list[Patterns]]:
    """The pictures of the result alone, named by their index."""
    shown = np.unique(np.concatenate(list(sets_of(result).values())))
    places = _places(result, shown, pairs[0][0].stimuli)
    names = tuple(str(index) for index in shown)
    first, second = ([Patterns((each.rows(places),), names, each.attributes) for each in region] for region in pairs)
    return first, second


def _places(result: xr.Dataset, shown: Indices, stimuli: Sequence[str]) -> Indices:
    """Where each picture is among the stimuli."""
    own_names, files = picture_names(result), file_names_of(result, shown)
    known: dict[str, list[int]] = {}
    for place, name in enumerate(stimuli):
        for word in {name, PurePosixPath(name).name, PurePosixPath(name).stem}:
            known.setdefault(word, []).append(place)
    found: list[int] = []
    missing: list[str] = []
    twice: list[str] = []
    for index in map(int, shown):
        named = () if own_names[index] == str(index) else (own_names[index],)  # numbers may as well be those of rows
        words = (*named, files[index], PurePosixPath(files[index]).stem)
        places = next((known[word] for word in words if word in known), [])
        (missing if not places else twice if len(places) > 1 else []).append(own_names[index])
        found.append(places[0] if places else -1)
    for names, how in ((missing, "were not recorded"), (twice, "are there more than once")):
        if names:
            raise InvalidParameterError(
                f"{len(names)} of {len(shown)} pictures of the result {how}: {listing(names, 5)}. Stimuli of "
                "recordings must have the names of the result, if these are no mere numbers, or of the files of "
                "in_vivo_design; average repeats, or give them as an axis 'repetition'."
            )
    return np.array(found, np.intp)


def _univariate(
    result: xr.Dataset, pairs: tuple[list[Patterns], list[Patterns]], n_permutations: int, seed: int, advance: Any
) -> tuple[Floats, Floats, dict[str, Any]]:
    sets, regions = _local_sets(result, pairs), result["region"].values.tolist()
    rng = np.random.default_rng(seed)
    shown = np.array([int(name) for name in pairs[0][0].stimuli])
    predicted = result["mean_response"].values[shown]
    effect, p = np.empty((2, len(pairs[0]), len(CONDITIONS), 2))
    picture_r = np.empty((len(pairs[0]), 2))
    for subject, both in enumerate(zip(*pairs, strict=True)):
        for region, recorded in enumerate(both):
            values = mean_over_units(recorded, f"recordings[{region}][{subject}]")
            picture_r[subject, region] = pearson_r(values[:, None], predicted[:, [region]])[0]
            for number, (condition, signs) in enumerate(CONDITIONS.items()):
                direction: Literal["greater", "less"] = "greater" if signs[region] > 0 else "less"
                chosen, base = sets[condition], sets[baseline_of(regions[region])]
                effect[subject, number, region], p[subject, number, region] = _mean_test(
                    values, chosen, base, n_permutations, direction, rng
                )
        advance(1)
    whole = result.sel(left_out=NONE)
    model = whole["response"].mean("rank") - whole["baseline_response"].mean("rank")
    own = {"picture_r": (("subject", "region"), picture_r), "predicted_effect": (("condition", "region"), model.values)}
    return effect, p, own


def _mean_test(
    values: Floats,
    chosen: Indices,
    base: Indices,
    n: int,
    direction: Literal["greater", "less"],
    rng: np.random.Generator,
) -> tuple[float, float]:
    """Permutations of the pictures of the two sets alone: others are there because they are extreme."""
    members = np.union1d(chosen, base)
    draws = random_sets(len(members), len(members), n, rng)
    places = np.searchsorted(members, chosen), np.searchsorted(members, base)
    return set_mean_test(values[members], places[0], places[1], draws, direction)


def _multivariate(
    result: xr.Dataset, pairs: tuple[list[Patterns], list[Patterns]], n_permutations: int, seed: int, advance: Any
) -> tuple[Floats, Floats, dict[str, Any]]:
    sets, rng = _local_sets(result, pairs), np.random.default_rng(seed)
    effect, p = np.empty((2, len(pairs[0]), len(GOALS)))
    score = np.empty((len(pairs[0]), len(GOALS) + 1))
    for subject, both in enumerate(zip(*pairs, strict=True)):
        x, y = (
            pattern_similarity([own], f"recordings[{region}][{subject}]").dense() for region, own in enumerate(both)
        )
        score[subject] = [scores(x, y, sets[name][None])[0] for name in (*GOALS, BASELINE)]
        for number, goal in enumerate(GOALS):
            null = _split_differences(x, y, sets[goal], sets[BASELINE], n_permutations, goal == "disentangle", rng)
            chosen, base = score[subject, [number, -1]]
            chosen, base = (abs(chosen), abs(base)) if goal == "disentangle" else (chosen, base)
            effect[subject, number] = chosen - base
            p[subject, number] = permutation_p(chosen - base, null, "greater" if goal == "align" else "less")
        advance(1)
    model = result.sel(left_out=NONE)
    predicted = [
        float(model["score"].sel(condition="align") - model["baseline_score"]),
        float(abs(model["score"].sel(condition="disentangle")) - abs(model["baseline_score"])),
    ]
    own = {
        "score": (("subject", "condition"), score[:, :-1]),
        "baseline_score": (("subject",), score[:, -1]),
        "predicted_effect": (("condition",), predicted),
    }
    return effect, p, own


def _split_differences(
    x: DenseSimilarity,
    y: DenseSimilarity,
    chosen: Indices,
    base: Indices,
    n: int,
    absolute: bool,
    rng: np.random.Generator,
) -> Floats:
    """Differences of scores with the pictures of both sets dealt out anew; those in both stay in both."""
    members = np.union1d(chosen, base)
    places = np.searchsorted(members, chosen), np.searchsorted(members, base)
    found = np.empty(n)
    for start in range(0, n, _SETS):
        dealt = members[random_sets(len(members), len(members), min(_SETS, n - start), rng)]
        one, other = (scores(x, y, dealt[:, own]) for own in places)
        found[start : start + len(dealt)] = np.abs(one) - np.abs(other) if absolute else one - other
    return found


def _local_sets(result: xr.Dataset, pairs: tuple[list[Patterns], list[Patterns]]) -> dict[str, Indices]:
    """The sets as indices of the pictures shown."""
    shown = np.array([int(name) for name in pairs[0][0].stimuli])
    return {name: np.searchsorted(shown, np.sort(own)) for name, own in sets_of(result).items()}
