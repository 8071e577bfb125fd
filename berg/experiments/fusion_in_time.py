"""Fusion of EEG or MEG with fMRI: when the geometry of responses in time is that of a region."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from numpy.typing import NDArray
from scipy.special import ndtri
from scipy.stats import rankdata

from berg.core.exceptions import InvalidParameterError, listing
from berg.experiments.dissimilarity_matrices import Several, common_stimuli, has_names, named_rdms, with_names
from berg.experiments.patterns import STIMULUS, Patterns, patterns
from berg.experiments.result import described, facts_of, parameters_of
from berg.responses.labelled import outputs_of
from berg.statistics.clusters import Clusters, cluster_test, cluster_test_over_subjects
from berg.statistics.dissimilarity import Measure, dissimilarities_in_time
from berg.statistics.options import check_choice, check_level
from berg.statistics.partition import r2_of_subsets, shared_parts
from berg.system.progress import progress_bar

if TYPE_CHECKING:
    from berg.plotting.page import Sheet

Floats = NDArray[np.float64]
Over = Literal["stimuli", "subjects"]
TIME = "time"
_LEAST_STIMULI, _LEAST_SET = 8, 4
_BAND = (0.025, 0.975)
_BLOCK = 2**21  # numbers of the largest array of a block


@dataclass(frozen=True)
class _Course:
    """Responses of one subject in time: (stimuli, channels, times)."""

    values: NDArray[Any]
    times: NDArray[Any]
    made: Patterns
    has_names: bool


@dataclass(frozen=True)
class _Region:
    """The mean dissimilarities of a region or a model."""

    vector: Floats
    made: Patterns
    has_names: bool


def fusion(
    in_time: Several,
    regions: Mapping[str, Any],
    *,
    models: Mapping[str, Any] | None = None,
    measure: Measure = "correlation",
    comparison: Literal["spearman", "pearson"] = "spearman",
    over: Over = "stimuli",
    n_permutations: int = 1000,
    level: float = 0.05,
    set_size: int | None = None,
    n_sets: int = 100,
    seed: int = 0,
    show_progress: bool | None = None,
) -> xr.Dataset:
    """Compare dissimilarities of channels at each time with those of regions, on the same pictures.

    Parameters
    ----------
    in_time
        EEG or MEG responses with an axis ``time``, or arrays (stimuli, channels, times): one subject, or several.
    regions
        By name, fMRI responses of one subject or a list of subjects, whose dissimilarities are averaged; or
        dissimilarities (`as_rdm`).
    models
        By name, features or dissimilarities. Of each, the variance that it, a region and a time have all in common
        (commonality, from squared correlations; it can be negative).
    measure
        Of `berg.experiments.rdms`.
    comparison
        Of dissimilarities, by ranks or as they are.
    over
        What is permuted. ``"stimuli"``: which pictures the dissimilarities of the regions are of; holds for one
        subject, and asks whether the two geometries are related. ``"subjects"``: signs of the subjects in time; asks
        whether other subjects show it too *for these pictures*, and is wrong about other pictures: geometries that have
        nothing to do with each other are alike by chance on any one set, for all subjects.
    n_permutations
        The least p is 1 / (n_permutations + 1).
    level
        Of single times, above which they are in a cluster; clusters themselves have p values, corrected for all times
        and all regions.
    set_size, n_sets
        Courses are computed again on so many random sets of so many of the pictures, and their spread is told: what an
        experiment with that number of pictures would see. By default a quarter of the pictures; n_sets=0 for none. Sets
        of more than half of the pictures overlap too much to tell of others.
    seed
        Of permutations and sets.

    Returns
    -------
    result
        ``similarity`` (subject, region, time) and its ``mean`` over subjects; ``set_low``, ``set_high`` (region, time),
        2.5 and 97.5 % of the sets; ``peak`` (region), the time of the largest mean, ``peak_low``, ``peak_high`` of the
        sets; ``p`` (region, time), of the cluster that a time is in, 1 in none; of each ``cluster`` its region,
        begin, end, mass and p; ``commonality`` (model, region, time).

    Raises
    ------
    InvalidParameterError
        If pictures or times differ, there are fewer than 8 pictures, or an axis is missing.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> early, late = rng.standard_normal((2, 40, 12))
    >>> eeg = 0.5 * rng.standard_normal((40, 12, 30))
    >>> eeg[..., 8:14] += early[..., None]
    >>> eeg[..., 18:24] += late[..., None]
    >>> result = fusion(eeg, {"V1": early, "IT": late}, n_permutations=200, n_sets=20)
    >>> [bool(8 <= result.peak.sel(region="V1") < 14), bool(18 <= result.peak.sel(region="IT") < 24)]
    [True, True]
    """
    _check(regions, comparison, over, n_permutations, level)
    courses = {name: _course(own, f"in_time '{name}'") for name, own in with_names(in_time, "in_time").items()}
    places = {str(name): _region(own, f"regions '{name}'", measure) for name, own in regions.items()}
    others = {str(name): _region(own, f"models '{name}'", measure) for name, own in (models or {}).items()}
    stimuli = _common({"in_time": courses, "regions": places, "models": others})
    times = _same_times(courses)
    size = _set_size(set_size, n_sets, len(stimuli))
    vectors = np.stack([own.vector for own in places.values()])
    ranked = _standard(vectors, comparison)
    similarity, moments = _compare(courses, ranked, measure, comparison, show_progress)
    found = _clusters(similarity, moments, ranked, len(stimuli), over, n_permutations, level, seed, show_progress)
    result = _result(similarity, found, list(courses), list(places), times)
    if n_sets:
        sets = _over_sets(courses, vectors, len(stimuli), size, n_sets, measure, comparison, seed, show_progress)
        result = result.assign(_spread(sets, times))
    if others:
        candidates = np.stack([own.vector for own in others.values()])
        shared = _commonality(moments, ranked, _standard(candidates, comparison))
        result = result.assign_coords(model=list(others)).assign(commonality=(("model", "region", TIME), shared))
    told: list[tuple[str, _Course | _Region]] = [*courses.items(), *places.items(), *others.items()]
    return described(
        result, "fusion", [{"name": name} | own.made.source for name, own in told], seed,
        measure=measure, comparison=comparison, over=over, n_permutations=n_permutations, level=level, set_size=size,
        n_sets=n_sets, n_stimuli=len(stimuli),
    )  # fmt: skip


# What is given


def _check(regions: Any, comparison: str, over: str, n_permutations: int, level: float) -> None:
    check_choice("comparison", comparison, ("spearman", "pearson"))
    check_choice("over", over, ("stimuli", "subjects"))
    check_level(level)
    if not isinstance(regions, Mapping) or isinstance(regions, (xr.Dataset, xr.DataTree)) or not regions:
        raise InvalidParameterError("Give the regions with their names:  regions={'V1': responses, 'IT': others}")
    if n_permutations < 1:
        raise InvalidParameterError(f"n_permutations is {n_permutations}; give at least 1, better 1000.")


def _course(given: Any, what: str) -> _Course:
    made = patterns(given, what)
    if len(made.stimuli) < _LEAST_STIMULI:
        raise InvalidParameterError(
            f"{what} has {len(made.stimuli)} stimuli; fusion needs {_LEAST_STIMULI}, better 50."
        )
    if len(made.outputs) > 1 or made.outputs[0].ndim != 3:
        shapes = listing(str(tuple(output.shape)) for output in made.outputs)
        raise InvalidParameterError(f"{what} has the shape {shapes}; it must be (stimuli, channels, times).")
    if not isinstance(given, (xr.Dataset, xr.DataTree, xr.DataArray)):
        return _Course(made.outputs[0], np.arange(made.outputs[0].shape[2]), made, False)
    array = made.outputs[0]
    if TIME not in array.dims:
        raise InvalidParameterError(
            f"{what} has the axes {listing(map(str, array.dims))}, no axis '{TIME}'. Regions go to `regions`."
        )
    labelled = given if isinstance(given, xr.DataArray) else next(iter(outputs_of(given).values()))
    times = labelled[TIME].values if TIME in labelled.coords else np.arange(array.sizes[TIME])
    return _Course(array.transpose(STIMULUS, ..., TIME).values, times, made, has_names(given))


def _same_times(courses: Mapping[str, _Course]) -> NDArray[Any]:
    first = next(iter(courses.values())).times
    for name, own in courses.items():
        if len(own.times) != len(first) or not np.allclose(own.times, first, rtol=1e-6, atol=1e-9):
            raise InvalidParameterError(
                f"in_time '{name}' has {len(own.times)} times from {own.times[0]} to {own.times[-1]}, the first "
                f"{len(first)} from {first[0]} to {first[-1]}. Select the same ones:  responses.sel(time=slice(0, 0.5))"
            )
    return first


def _region(given: Any, what: str, measure: Measure) -> _Region:
    """The mean over subjects, if there are several."""
    made = named_rdms(given, what, measure, show_progress=False)
    of_model = {key: value for key, value in made.sources[0].items() if key not in ("name", "n_units")}
    subjects = [str(source["subject"]) for source in made.sources if "subject" in source]
    of_model |= {"subject": ", ".join(subjects)} if len(subjects) > 1 else {}
    return _Region(made.vectors.mean(0), Patterns((), made.stimuli, of_model), made.has_names)


def _common(given: Mapping[str, Mapping[str, _Course | _Region]]) -> tuple[str, ...]:
    """The names of the pictures, which must be the same everywhere."""
    each = [(f"{what} '{name}'", own) for what, all_of in given.items() for name, own in all_of.items()]
    return common_stimuli([own.made for _, own in each], [own.has_names for _, own in each], [name for name, _ in each])


def _set_size(given: int | None, n_sets: int, n_stimuli: int) -> int | None:
    size = max(_LEAST_SET, n_stimuli // 4) if given is None else given
    if n_sets < 0 or not _LEAST_SET <= size < n_stimuli:
        raise InvalidParameterError(
            f"{n_sets} sets of {size} of {n_stimuli} pictures: a set needs at least {_LEAST_SET} pictures and fewer "
            "than there are. Try set_size=None, or n_sets=0 for no sets."
        )
    return size if n_sets else None


# Similarity


def _standard(vectors: Floats, comparison: str) -> Floats:
    """Ranks or values with mean 0 and length 1, so that products are correlations; 0 for what does not vary."""
    values = rankdata(vectors, axis=1) if comparison == "spearman" else vectors
    values = values - values.mean(1, keepdims=True)
    length = np.linalg.norm(values, axis=1, keepdims=True)
    return np.asarray(values / np.where(length > 1e-12, length, np.inf))


def _compare(
    courses: Mapping[str, _Course], regions: Floats, measure: Measure, comparison: str, show: bool | None
) -> tuple[Floats, Floats]:
    """Similarity (subject, region, time), and the mean over subjects of what was compared, (time, pair)."""
    n_times = next(iter(courses.values())).values.shape[2]
    similarity, moments = np.empty((len(courses), len(regions), n_times)), np.zeros((n_times, regions.shape[1]))
    step = max(1, _BLOCK // regions.shape[1])
    with progress_bar("Compare", len(courses) * n_times, "times", show) as advance:
        for subject, course in enumerate(courses.values()):
            for start in range(0, n_times, step):
                block = slice(start, start + step)
                vectors = _standard(dissimilarities_in_time(course.values[..., block], measure), comparison)
                similarity[subject, :, block] = regions @ vectors.T
                moments[block] += vectors / len(courses)
                advance(len(vectors))
    return similarity, moments


def _commonality(moments: Floats, regions: Floats, models: Floats) -> Floats:
    """The variance that a time, a region and a model share; shape (n_models, n_regions, n_times).

    Of several subjects, of the mean of their ranked dissimilarities.
    """
    length = np.linalg.norm(moments, axis=1, keepdims=True)
    times = moments / np.where(length > 0, length, np.inf)
    found = np.empty((len(models), len(regions), len(times)))
    for m, r in np.ndindex(found.shape[:2]):
        table = np.empty((len(times), 3, 3))
        table[:] = np.eye(3)
        table[:, 0, 1] = table[:, 1, 0] = times @ regions[r]
        table[:, 0, 2] = table[:, 2, 0] = times @ models[m]
        table[:, 1, 2] = table[:, 2, 1] = regions[r] @ models[m]
        found[m, r] = shared_parts(r2_of_subsets(table))[-1]
    return found


# Tests


def _clusters(
    similarity: Floats,
    moments: Floats,
    regions: Floats,
    n_stimuli: int,
    over: Over,
    n_permutations: int,
    level: float,
    seed: int,
    show: bool | None,
) -> Clusters:
    if over == "subjects":
        if len(similarity) < 2:
            raise InvalidParameterError("over='subjects' needs several subjects in time; take over='stimuli' of one.")
        return cluster_test_over_subjects(similarity, n_permutations, level=level, seed=seed)
    null = np.empty((n_permutations, len(regions), len(moments)))
    with progress_bar("Permute", n_permutations, "permutations", show) as advance:
        for number, order in enumerate(_orders(n_stimuli, n_permutations, seed)):
            null[number] = regions[:, order] @ moments.T
            advance(1)
    mean, spread = null.mean(0), null.std(0)
    spread = np.where(spread > 0, spread, np.inf)
    return cluster_test((similarity.mean(0) - mean) / spread, (null - mean) / spread, -float(ndtri(level)))


def _orders(n_stimuli: int, n: int, seed: int) -> Any:
    """Random orders of the stimuli, as orders of pairs."""
    rng = np.random.default_rng(seed)
    i, j = np.triu_indices(n_stimuli, 1)
    place = np.zeros((n_stimuli, n_stimuli), np.intp)
    place[i, j] = place[j, i] = np.arange(len(i))
    for _ in range(n):
        order = rng.permutation(n_stimuli)
        yield place[order[i], order[j]]


# Sets of pictures


def _over_sets(
    courses: Mapping[str, _Course],
    vectors: Floats,
    n_stimuli: int,
    size: int | None,
    n_sets: int,
    measure: Measure,
    comparison: str,
    seed: int,
    show: bool | None,
) -> Floats:
    """Mean similarity over subjects on random sets of pictures; shape (n_sets, n_regions, n_times)."""
    rng = np.random.default_rng([seed, 1])
    i, j = np.triu_indices(n_stimuli, 1)
    found = []
    with progress_bar("Sets of pictures", n_sets, "sets", show) as advance:
        for _ in range(n_sets):
            chosen = np.zeros(n_stimuli, bool)
            chosen[rng.choice(n_stimuli, size, replace=False)] = True
            regions = _standard(vectors[:, chosen[i] & chosen[j]], comparison)
            on_set = {name: replace(own, values=own.values[chosen]) for name, own in courses.items()}
            found.append(_compare(on_set, regions, measure, comparison, show=False)[0].mean(0))
            advance(1)
    return np.array(found)


def _spread(sets: Floats, times: NDArray[Any]) -> dict[str, Any]:
    low, high = np.quantile(sets, _BAND, axis=0)
    peaks = np.quantile(times[sets.argmax(2)].astype(np.float64), _BAND, axis=0)
    between = {"set_low": low, "set_high": high}
    made: dict[str, Any] = {name: (("region", TIME), values) for name, values in between.items()}
    return made | {"peak_low": (("region",), peaks[0]), "peak_high": (("region",), peaks[1])}


def _result(
    similarity: Floats, found: Clusters, subjects: list[str], regions: list[str], times: NDArray[Any]
) -> xr.Dataset:
    mean = similarity.mean(0)
    of_times = {"mean": mean, "statistic": found.statistic, "p": found.p_of_times}
    made: dict[str, Any] = {"similarity": (("subject", "region", TIME), similarity)}
    made |= {name: (("region", TIME), values) for name, values in of_times.items()}
    made |= {"peak": (("region",), times[mean.argmax(1)])}
    of_clusters = {
        "region": np.array(regions)[found.course],
        "begin": times[found.begin],
        "end": times[found.end - 1],
        "mass": found.mass,
        "p": found.p,
    }
    made |= {f"cluster_{name}": (("cluster",), values) for name, values in of_clusters.items()}
    made |= {"null_maximum": (("permutation",), found.null_maximum)}
    return xr.Dataset(made, {"subject": subjects, "region": regions, TIME: times})


# Figure


def draw(result: xr.Dataset) -> Sheet:
    """A line per region with its spread over sets of pictures, and a bar below where a cluster is."""
    from berg.plotting.page import new_sheet, styled

    told = parameters_of(result)
    shared = "commonality" in result
    spread = [f"shades: 95 % of {told['n_sets']} sets of {told['set_size']} pictures"] if told["n_sets"] else []
    facts = (
        f"{told['n_stimuli']} pictures, {result.sizes['subject']} subject{'s' if result.sizes['subject'] > 1 else ''}",
        f"{told['measure']} dissimilarities, {told['comparison']}", *spread,
        f"bars: clusters, p < 0.05 corrected for times and regions, {told['n_permutations']:,} permutations of "
        f"{told['over']}{'' if told['over'] == 'stimuli' else ', for these pictures'}",
        *facts_of(result),
    )  # fmt: skip
    n_models = result.sizes["model"] if shared else 0
    with styled():
        sheet, frame = new_sheet(2.6 + 1.3 * n_models, "Fusion in time", facts)
        _draw_courses(sheet.add_axes(frame.rectangle(0.75, 0.45 + 1.3 * n_models, 5.2, 2.05)), result)
        for number in range(n_models):
            axes = sheet.add_axes(frame.rectangle(0.75, 0.45 + 1.3 * (n_models - 1 - number), 5.2, 0.9))
            _draw_commonality(axes, result.isel(model=number))
    return sheet


def _colours(n: int) -> list[Any]:
    import matplotlib

    return [matplotlib.colormaps["viridis"](place) for place in np.linspace(0, 0.85, max(n, 2))][:n]


def _in_ms(result: xr.Dataset) -> Floats:
    """Times in milliseconds, if they are seconds; numbers of samples as they are."""
    times = result[TIME].values
    return np.asarray(times * (1.0 if times.dtype.kind in "iu" else 1000.0))


def _draw_courses(axes: Axes, result: xr.Dataset) -> None:
    from berg.plotting.time_courses import draw_time_axis

    times, names = _in_ms(result), [str(name) for name in result["region"].values]
    low = float(min(result["mean"].min(), result["set_low"].min() if "set_low" in result else 0.0, 0.0))
    high = float(max(result["mean"].max(), result["set_high"].max() if "set_high" in result else 0.0))
    step = 0.035 * (high - low)
    for number, (name, colour) in enumerate(zip(names, _colours(len(names)), strict=True)):
        own = result.sel(region=name)
        if "set_low" in result:
            axes.fill_between(times, own["set_low"], own["set_high"], color=colour, alpha=0.18, linewidth=0)
        axes.plot(times, own["mean"], color=colour, label=name.replace("$", r"\$"))
        _draw_clusters(axes, times, own["p"].values < 0.05, low - (number + 1.5) * step, colour, 0.6 * step)
    axes.axhline(0, color="0.5", linewidth=0.6, zorder=0)
    draw_time_axis(axes, times, with_label="commonality" not in result)
    axes.set_ylabel(f"similarity ({parameters_of(result)['comparison']})")
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.01, 1), borderpad=0)
    _name_samples(axes, result)


def _draw_clusters(
    axes: Axes, times: Floats, is_in: NDArray[np.bool_], height: float, colour: Any, thick: float
) -> None:
    half = (times[1] - times[0]) / 2 if len(times) > 1 else 0.5
    for time in times[is_in]:
        axes.fill_between([time - half, time + half], height - thick, height, color=colour, linewidth=0)


def _draw_commonality(axes: Axes, result: xr.Dataset) -> None:
    from berg.plotting.time_courses import draw_time_axis

    times = _in_ms(result)
    for name, colour in zip(result["region"].values, _colours(result.sizes["region"]), strict=True):
        axes.plot(times, result["commonality"].sel(region=name), color=colour)
    axes.axhline(0, color="0.5", linewidth=0.6, zorder=0)
    draw_time_axis(axes, times)
    axes.set_title(f"shared with {result['model'].item()}", loc="left", pad=2, parse_math=False)
    axes.set_ylabel("r²")
    _name_samples(axes, result)


def _name_samples(axes: Axes, result: xr.Dataset) -> None:
    if axes.get_xlabel() and result[TIME].dtype.kind in "iu":
        axes.set_xlabel("time (samples)")
