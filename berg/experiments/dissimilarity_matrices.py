"""Representational dissimilarity matrices of responses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from numpy.typing import NDArray
from scipy.spatial.distance import squareform

from berg.core.exceptions import InvalidParameterError, listing
from berg.experiments.patterns import STIMULUS, Patterns, Responses, patterns, same_stimuli
from berg.experiments.result import described, facts_of, parameters_of
from berg.responses.labelled import outputs_of
from berg.statistics.dissimilarity import MEASURES, crossnobis, dissimilarities_of_blocks, noise_precision
from berg.statistics.options import check_choice
from berg.system.progress import progress_bar

if TYPE_CHECKING:
    from berg.plotting.page import Sheet

Measure = Literal["correlation", "cosine", "euclidean", "crossnobis"]
Noise = Literal["independent", "estimated"]
Several = Responses | Sequence[Responses] | Mapping[str, Responses]
OTHER = "other_stimulus"
_REPETITION = "repetition"
_ROUNDING = 1e-8  # relative: what a matrix may differ from its transpose by
_MOST_ACROSS = 4


@dataclass(frozen=True)
class NamedRdms:
    """Dissimilarities of the same stimuli, one row each.

    Attributes
    ----------
    names
        Of each, such as a region, a subject or a model.
    vectors
        Shape (n_rdms, n_pairs), as `scipy.spatial.distance.squareform` has pairs.
    stimuli
        Their names.
    has_names
        Whether those were given; of arrays they are numbers.
    sources
        What a result says of the responses that each is of.
    """

    names: tuple[str, ...]
    vectors: NDArray[np.float64]
    stimuli: tuple[str, ...]
    has_names: bool
    sources: tuple[dict[str, Any], ...]


def rdms(
    responses: Several,
    *,
    measure: Measure = "correlation",
    noise: Noise = "independent",
    show_progress: bool | None = None,
) -> xr.Dataset:
    """Dissimilarities of all pairs of stimuli.

    Parameters
    ----------
    responses
        Labelled responses, or an array (stimuli, units); several as a list, or with names as a mapping. They may be
        larger than the memory, which holds a block of stimuli and the matrix. Those with labels must have the same
        stimuli in the same order; arrays are taken to be in that order.
    measure
        As in `berg.statistics.dissimilarity.dissimilarities`; "euclidean" is squared, and over the number of units.
        ``"crossnobis"`` needs repetitions: an axis ``repetition``, or an array (repetitions, stimuli, units).
    noise
        Of "crossnobis": ``"independent"``, or ``"estimated"``, with `noise_precision` of the repetitions.

    Returns
    -------
    result
        ``dissimilarity``, axes (rdm, stimulus, other_stimulus). One of them, ``result.dissimilarity.sel(rdm="V1")``, is
        taken by `berg.experiments.rsa` in place of responses.

    Raises
    ------
    InvalidParameterError
        If stimuli differ, a value is not finite, or a measure cannot be had.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> result = rdms({"V1": rng.random((5, 30)), "V2": rng.random((5, 20))})
    >>> result.dissimilarity.shape
    (2, 5, 5)
    """
    made = named_rdms(responses, "responses", measure, noise, show_progress)
    matrices = np.stack([squareform(vector) for vector in made.vectors])
    result = xr.Dataset(
        {"dissimilarity": (("rdm", STIMULUS, OTHER), matrices)},
        {"rdm": list(made.names)},
    )
    if made.has_names:
        result = result.assign_coords({STIMULUS: list(made.stimuli), OTHER: list(made.stimuli)})
    return described(result, "rdms", made.sources, None, measure=measure, noise=noise)


def as_rdm(dissimilarities: Any, stimuli: Sequence[str] | None = None) -> xr.DataArray:
    """Dissimilarities that are not of responses, such as those of categories, judgements or another package.

    Parameters
    ----------
    dissimilarities
        A symmetric matrix (stimuli, stimuli) with a diagonal of 0, or its pairs as
        `scipy.spatial.distance.squareform` has them.
    stimuli
        Their names; None: they have none, and are taken to be in the order of what they are compared with.

    Raises
    ------
    InvalidParameterError
        If it is no such matrix.

    Examples
    --------
    >>> is_face = np.array([1, 1, 0, 0])
    >>> as_rdm(is_face[:, None] != is_face).shape
    (4, 4)
    """
    given = np.asarray(dissimilarities, np.float64)
    try:
        matrix = squareform(given) if given.ndim == 1 else given
    except ValueError as error:
        raise InvalidParameterError(f"{len(given):,} dissimilarities are not all pairs of any number.") from error
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or len(matrix) < 2 or not np.isfinite(matrix).all():
        raise InvalidParameterError(
            f"Dissimilarities have shape {matrix.shape}; they must be finite numbers (stimuli, stimuli), or all pairs."
        )
    largest = np.abs(matrix).max()
    if np.abs(matrix - matrix.T).max() > _ROUNDING * largest or np.abs(np.diag(matrix)).max() > _ROUNDING * largest:
        raise InvalidParameterError(
            "These are no dissimilarities: the matrix is not symmetric with a diagonal of 0. Of similarities, give "
            "1 - similarities; of responses, give the responses themselves."
        )
    if stimuli is None:
        return xr.DataArray(matrix, dims=(STIMULUS, OTHER))
    names = list(map(str, stimuli))
    if len(names) != len(matrix):
        raise InvalidParameterError(f"{len(names)} names were given for {len(matrix)} stimuli.")
    return xr.DataArray(matrix, {STIMULUS: names, OTHER: names}, (STIMULUS, OTHER))


def named_rdms(
    given: Several,
    what: str,
    measure: Measure = "correlation",
    noise: Noise = "independent",
    show_progress: bool | None = None,
) -> NamedRdms:
    """Dissimilarities of responses, or as they are where dissimilarities were given (`as_rdm`), with names."""
    check_choice("measure", measure, (*MEASURES, "crossnobis"))
    check_choice("noise", noise, ("independent", "estimated"))
    each = with_names(given, what)
    vectors, made = [], []
    with progress_bar("Dissimilarities", len(each), "matrices", show_progress) as advance:
        for name, own in each.items():
            vector, source = _dissimilarities(own, f"{what} '{name}'", measure, noise)
            vectors.append(vector)
            made.append(source)
            advance(1)
    named = [has_names(own) for own in each.values()]
    stimuli = common_stimuli(made, named, [f"{what} '{name}'" for name in each])
    sources = tuple({"name": name} | own.source for name, own in zip(each, made, strict=True))
    return NamedRdms(tuple(each), np.stack(vectors), stimuli, any(named), sources)


def has_names(given: Any) -> bool:
    """Whether what was given names its stimuli, as labelled responses do."""
    return isinstance(given, (xr.Dataset, xr.DataTree)) or (
        isinstance(given, xr.DataArray) and STIMULUS in given.coords
    )


def common_stimuli(made: Sequence[Patterns], named: Sequence[bool], what: Sequence[str]) -> tuple[str, ...]:
    """The names of the stimuli; what has none, as arrays, is taken to be in the order of the others.

    Raises
    ------
    InvalidParameterError
        If those with names differ, or numbers of stimuli do.
    """
    names = next((own.stimuli for own, is_named in zip(made, named, strict=True) if is_named), made[0].stimuli)
    return same_stimuli(
        [
            own if is_named or len(own.stimuli) != len(names) else replace(own, stimuli=names)
            for own, is_named in zip(made, named, strict=True)
        ],
        what,
    )


def with_names(given: Any, what: str) -> dict[str, Any]:
    """What was given by name: one, a list, or a mapping; names of a list are subjects where those differ."""
    if isinstance(given, Mapping) and not isinstance(given, (xr.Dataset, xr.DataTree)):
        each = {str(name): own for name, own in given.items()}
    elif isinstance(given, (list, tuple)) and not all(isinstance(own, (int, float, list)) for own in given):
        each = dict(zip(_names(given), given, strict=True))
    else:
        each = {what: given}
    if not each:
        raise InvalidParameterError(f"No {what} were given. Give labelled responses, a list, or a mapping of names.")
    return each


def _names(given: Sequence[Any]) -> list[str]:
    subjects = [str(getattr(own, "attrs", {}).get("subject", "")) for own in given]
    has_subjects = all(subjects) and len(set(subjects)) == len(subjects)
    return [f"subject {name}" for name in subjects] if has_subjects else [str(n) for n in range(1, len(given) + 1)]


def is_rdm(given: Any) -> bool:
    """Whether it is what `as_rdm` and `rdms` return, not responses."""
    return isinstance(given, xr.DataArray) and set(given.dims) == {STIMULUS, OTHER}


def _dissimilarities(given: Any, what: str, measure: Measure, noise: Noise) -> tuple[NDArray[np.float64], Patterns]:
    if is_rdm(given):
        matrix = as_rdm(given.transpose(STIMULUS, OTHER).values)
        names = tuple(map(str, given[STIMULUS].values))  # numbers, if it has none
        return squareform(matrix.values, checks=False), Patterns((), names, {})
    if measure == "crossnobis":
        return _cross_validated(given, what, noise)
    made = patterns(given, what)
    return dissimilarities_of_blocks(made.blocks, len(made.stimuli), made.n_units, measure), made


def _cross_validated(given: Any, what: str, noise: Noise) -> tuple[NDArray[np.float64], Patterns]:
    repeats = _repetitions(given, what)
    named = (
        patterns(given, what) if isinstance(given, (xr.Dataset, xr.DataTree, xr.DataArray)) else patterns(repeats[0])
    )
    return crossnobis(repeats, noise_precision(repeats) if noise == "estimated" else None), named


def _repetitions(given: Any, what: str) -> NDArray[np.float64]:
    """Shape (repetitions, stimuli, units)."""
    if not isinstance(given, (xr.Dataset, xr.DataTree, xr.DataArray)):
        return np.asarray(given, np.float64)
    labelled = given.to_dataset(name=given.name or "responses") if isinstance(given, xr.DataArray) else given
    arrays = list(outputs_of(labelled).values())
    if lacking := [array for array in arrays if _REPETITION not in array.dims or STIMULUS not in array.dims]:
        raise InvalidParameterError(
            f"{what} has the axes {listing(map(str, lacking[0].dims))}; measure='crossnobis' compares repetitions, on "
            f"an axis '{_REPETITION}'. In silico responses have none: take measure='euclidean'."
        )
    parts = [array.transpose(_REPETITION, STIMULUS, ...).values for array in arrays]
    return np.concatenate([part.reshape(*part.shape[:2], -1) for part in parts], axis=2).astype(np.float64)


# Figure


def draw(result: xr.Dataset) -> Sheet:
    """The matrices side by side, each with colours of its own, as levels of regions differ."""
    from berg.plotting.page import new_sheet, styled

    names = [str(name) for name in result["rdm"].values]
    across = min(len(names), _MOST_ACROSS)
    down = -(-len(names) // across)
    facts = (f"{result.sizes[STIMULUS]} stimuli", "colours: 1st to 99th percentile of the pairs", *facts_of(result))
    with styled():
        sheet, frame = new_sheet(1.72 * down, f"Dissimilarities, {parameters_of(result)['measure']}", facts)
        for index, name in enumerate(names):
            row, column = divmod(index, across)
            left, bottom = 0.1 + 1.78 * column, 1.72 * (down - 1 - row) + 0.12
            axes = sheet.add_axes(frame.rectangle(left, bottom, 1.3, 1.3))
            bar = sheet.add_axes(frame.rectangle(left + 1.35, bottom, 0.07, 1.3))
            _draw_matrix(axes, bar, result["dissimilarity"].sel(rdm=name).values, name)
    return sheet


def _draw_matrix(axes: Axes, beside: Axes, matrix: NDArray[np.float64], name: str) -> None:
    pairs = matrix[np.triu_indices(len(matrix), 1)]
    low, high = np.quantile(pairs, [0.01, 0.99])
    shown = np.ma.masked_where(np.eye(len(matrix), dtype=bool), matrix)
    image = axes.imshow(shown, cmap="magma", vmin=low, vmax=high if high > low else low + 1, interpolation="nearest")
    axes.set_title(name, parse_math=False)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    bar = axes.figure.colorbar(image, cax=beside)
    bar.outline.set_visible(False)  # type: ignore[operator]
    bar.set_ticks([low, high], labels=[f"{low:.2g}", f"{high:.2g}"])
