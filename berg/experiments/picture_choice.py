"""Choosing pictures by the responses to them, from any picture set, also one whose responses exceed the memory.

Responses are read in blocks of pictures; what is held is one number per picture.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from berg.core.exceptions import InvalidParameterError
from berg.experiments.control_subjects import allowed_pictures, check_counts, listed, names_of_pictures, picture_index
from berg.experiments.mean_responses import mean_over_units, unit_of, with_unit
from berg.experiments.patterns import Patterns, Responses, patterns, same_stimuli
from berg.experiments.result import described
from berg.statistics.options import check_choice
from berg.statistics.random_sets import random_sets
from berg.system.progress import progress_bar

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]
EXPERIMENT = "selection"
MEASURES = ("correlation", "cosine", "euclidean")
_N_BINS = 60
_LEAST_GAIN = 1e-15


def driving_pictures(
    responses: Responses,
    *,
    minus: Responses | None = None,
    which: Literal["highest", "lowest", "both"] = "highest",
    n_pictures: int = 25,
    standardise: bool = False,
    exclude: str | int | Collection[str | int] = (),
    show_progress: bool | None = None,
) -> xr.Dataset:
    """The pictures that drive some units most or least, or one set of units more than another.

    Parameters
    ----------
    responses
        Of one subject; their mean over units is taken. NaN units are left out.
    minus
        Of other units, to the same pictures: their mean is subtracted.
    which
        ``"both"``: the highest and the lowest.
    standardise
        Of a contrast: divide both by their SD over pictures, after subtracting their means; otherwise the side with
        the larger responses rules the difference.
    exclude
        Pictures, by name or number, that are not chosen.

    Returns
    -------
    result
        ``picture``, ``picture_name``, ``score`` (condition, rank), best first; ``count`` (bin) and ``bin_edge`` (edge),
        how scores are spread over all pictures, with ``mean`` and ``sd``.

    Raises
    ------
    InvalidParameterError
        If pictures differ, or there are fewer than asked for.

    Examples
    --------
    >>> driving_pictures(np.array([[1.0], [5.0], [3.0]]), n_pictures=2)["picture"].values
    array([[1, 2]])
    """
    check_choice("which", which, ("highest", "lowest", "both"))
    check_counts(n_pictures=n_pictures)
    sides = [patterns(responses, "responses")] + ([] if minus is None else [patterns(minus, "minus")])
    stimuli = same_stimuli(sides, ["responses", "minus"][: len(sides)])
    pool = allowed_pictures(stimuli, exclude, n_pictures)
    with progress_bar("Read", len(stimuli) * len(sides), "pictures", show_progress) as advance:
        means = [_checked_means(own, name, advance) for own, name in zip(sides, ("responses", "minus"), strict=False)]
    scores = [_standardised(own) for own in means] if standardise and len(means) == 2 else means
    score = scores[0] if len(scores) == 1 else scores[0] - scores[1]
    conditions = ("highest", "lowest") if which == "both" else (which,)
    chosen = {name: ranked(score, pool, n_pictures, name == "lowest") for name in conditions}
    unit = "SD" if standardise and minus is not None else unit_of(sides[0])
    quantity = "Mean response" if minus is None else "Difference of mean responses"
    return _result(
        score, chosen, stimuli, [own.source for own in sides], None, with_unit(quantity, unit),
        chosen_by="driving", which=which, n_pictures=n_pictures, standardise=standardise, exclude=listed(exclude),
    )  # fmt: skip


def similar_pictures(
    responses: Responses,
    like: str | int | Sequence[str | int] | NDArray[Any],
    *,
    measure: Literal["correlation", "cosine", "euclidean"] = "correlation",
    n_pictures: int = 25,
    exclude: str | int | Collection[str | int] = (),
    show_progress: bool | None = None,
) -> xr.Dataset:
    """More like this: the pictures whose response patterns are nearest to a pattern.

    Parameters
    ----------
    responses
        Of one subject. NaN units are left out.
    like
        A picture, by name or number; several, whose mean pattern is taken; or a pattern, an array of one number per
        unit (recorded, for instance). Pictures that are given are not among those found.
    measure
        Pearson's r or the cosine between patterns (the highest are nearest), or the Euclidean distance divided by the
        square root of the number of units (the lowest are).

    Returns
    -------
    result
        As of `driving_pictures`, with one condition, ``nearest``.

    Examples
    --------
    >>> patterns = np.array([[0.0, 1, 2], [2, 1, 0], [0, 1, 3], [5, 5, 5.1]])
    >>> similar_pictures(patterns, like=0, n_pictures=1)["picture"].values
    array([[2]])
    """
    check_choice("measure", measure, MEASURES)
    check_counts(n_pictures=n_pictures)
    own = patterns(responses, "responses")
    target, given = _target(own, like)
    pool = allowed_pictures(own.stimuli, [*listed(exclude), *given], n_pictures)
    units = np.isfinite(target)
    _check_target(target[units], measure)
    score = np.empty(len(own.stimuli))
    with progress_bar("Read", len(score), "pictures", show_progress) as advance:
        for rows, block in own.blocks():
            score[rows] = _nearness(_complete(block, units, own, rows), target[units], measure)
            advance(rows.stop - rows.start)
    if len(undefined := pool[np.isnan(score[pool])]) == len(pool):
        raise InvalidParameterError("No pattern varies over units, so that none is correlated with another.")
    pool = np.setdiff1d(pool, undefined)
    chosen = {"nearest": ranked(score, pool, n_pictures, measure == "euclidean")}
    quantity = {"correlation": "Correlation of patterns (r)", "cosine": "Cosine of patterns"}.get(
        measure, "Distance of patterns"
    )
    return _result(
        score, chosen, own.stimuli, [own.source], None, quantity, chosen_by="similar", measure=measure,
        like=[own.stimuli[index] for index in given] or "a pattern", n_pictures=n_pictures, exclude=listed(exclude),
    )  # fmt: skip


def matched_sets(
    responses: Responses,
    targets: Mapping[str, Sequence[float]],
    *,
    n_pictures: int = 25,
    exclude: str | int | Collection[str | int] = (),
    max_steps: int = 10_000,
    seed: int = 0,
    show_progress: bool | None = None,
) -> xr.Dataset:
    """Sets of pictures whose mean responses have a given mean and spread; no picture is in two sets.

    From a random set, the best of all exchanges of one picture is made, until none brings mean and SD nearer.

    Parameters
    ----------
    targets
        Of each set, by its name: mean and SD over its pictures (with n - 1), in the unit of the responses:
        ``{"low": (0.0, 0.1), "high": (1.0, 0.1)}``.
    max_steps
        Exchanges of each set.

    Returns
    -------
    result
        As of `driving_pictures`, a condition for each set, in ascending order of the response; ``reached`` (condition,
        moment), beside ``target``.

    Raises
    ------
    InvalidParameterError
        For a mean outside the responses, a negative spread, and sets that need more pictures than there are.
    """
    check_counts(n_pictures=n_pictures, max_steps=max_steps)
    wanted = _checked_targets(targets, n_pictures)
    own = patterns(responses, "responses")
    left = allowed_pictures(own.stimuli, exclude, n_pictures * len(wanted))
    with progress_bar("Read", len(own.stimuli), "pictures", show_progress) as advance:
        score = _checked_means(own, "responses", advance)
    rng, chosen = np.random.default_rng(seed), {}
    for name, (mean, sd) in wanted.items():
        _check_reachable(name, mean, score[left])
        start = random_sets(len(left), n_pictures, 1, rng)[0]
        found = left[exchanged(score[left], start, mean, sd, max_steps)]
        chosen[name] = found[np.argsort(score[found], kind="stable")]
        left = np.setdiff1d(left, found)
    result = _result(
        score, chosen, own.stimuli, [own.source], seed, with_unit("Mean response", unit_of(own)),
        chosen_by="matched", targets=wanted, n_pictures=n_pictures, exclude=listed(exclude), max_steps=max_steps,
    )  # fmt: skip
    reached = [(score[found].mean(), score[found].std(ddof=1)) for found in chosen.values()]
    return result.assign(
        reached=(("condition", "moment"), reached), target=(("condition", "moment"), list(wanted.values()))
    ).assign_coords(moment=["mean", "sd"])


def ranked(score: Floats, pool: Indices, n_pictures: int, lowest: bool) -> Indices:
    """The pictures with the highest or lowest scores, in that order; of equal ones, the first."""
    merit = -score[pool] if lowest else score[pool]
    n = min(n_pictures, len(pool))
    limit = np.partition(merit, len(merit) - n)[len(merit) - n]
    near = np.flatnonzero(merit >= limit)
    return pool[near[np.argsort(-merit[near], kind="stable")[:n]]]


def exchanged(values: Floats, members: Indices, mean: float, sd: float, max_steps: int) -> Indices:
    """The set after the exchanges that bring its mean and SD nearest to those wanted.

    All exchanges of one member are scored at once from the sums of values and of squares.
    """
    members, n = members.copy(), len(members)
    centred = values - mean
    may = np.ones(len(values), bool)
    may[members] = False
    best = _distance(centred[members].sum(), (centred[members] ** 2).sum(), n, sd)
    for _ in range(max_steps):
        total, squares = centred[members].sum(), (centred[members] ** 2).sum()
        outside = np.flatnonzero(may)
        if not len(outside):
            break
        place, new, distance = _best_exchange(centred, members, outside, total, squares, sd)
        if distance >= best - _LEAST_GAIN:
            break
        may[members[place]], may[new] = True, False
        members[place], best = new, distance
    return members


def _best_exchange(
    centred: Floats, members: Indices, outside: Indices, total: float, squares: float, sd: float
) -> tuple[int, int, float]:
    best = (0, 0, np.inf)
    own = centred[outside]
    for place, member in enumerate(centred[members]):
        distance = _distance(total - member + own, squares - member**2 + own**2, len(members), sd)
        at = int(np.argmin(distance))
        if distance[at] < best[2]:
            best = (place, int(outside[at]), float(distance[at]))
    return best


def _distance(total: Any, squares: Any, n: int, sd: float) -> Any:
    """Of sums of values whose wanted mean is 0."""
    own = np.sqrt(np.maximum(squares - total**2 / n, 0) / (n - 1))
    return (total / n) ** 2 + (own - sd) ** 2


def _checked_targets(targets: Mapping[str, Sequence[float]], n_pictures: int) -> dict[str, tuple[float, float]]:
    if not isinstance(targets, Mapping) or not targets:
        raise InvalidParameterError("targets is empty. Give each set its mean and SD:  {'high': (1.0, 0.1)}")
    wanted = {}
    for name, own in targets.items():
        pair = np.asarray(own, float).ravel()
        if len(pair) != 2 or not np.isfinite(pair).all() or pair[1] < 0:
            raise InvalidParameterError(f"targets['{name}'] is {own}; give mean and SD, such as (1.0, 0.1).")
        wanted[str(name)] = (float(pair[0]), float(pair[1]))
    if n_pictures < 2:
        raise InvalidParameterError("n_pictures is 1, and one picture has no spread. Give at least 2.")
    return wanted


def _check_reachable(name: str, mean: float, values: Floats) -> None:
    if not values.min() <= mean <= values.max():
        raise InvalidParameterError(
            f"The mean {mean:g} of '{name}' lies outside the responses, which are from {values.min():.4g} to "
            f"{values.max():.4g}."
        )


def _checked_means(own: Patterns, what: str, advance: Callable[[int], None]) -> Floats:
    means = mean_over_units(own, what)
    advance(len(means))
    return means


def _standardised(values: Floats) -> Floats:
    sd = values.std()
    if not sd > 0:
        raise InvalidParameterError("The mean response of one side is the same for all pictures: it has no SD.")
    return np.asarray((values - values.mean()) / sd)


def _target(own: Patterns, like: Any) -> tuple[Floats, list[int]]:
    """The pattern, NaN where units have none, and the pictures that it is of."""
    if isinstance(like, np.ndarray) and like.dtype.kind == "f":
        if like.shape != (own.n_units,):
            raise InvalidParameterError(
                f"like has shape {like.shape}, and the responses have {own.n_units} units. Give one number per unit, "
                "or the name of a picture."
            )
        return like.astype(np.float64), []
    several = [like] if isinstance(like, (str, int, np.integer)) else list(like)
    if not several:
        raise InvalidParameterError("like is empty. Give a picture by name or number, or a pattern.")
    given = [picture_index(own.stimuli, picture) for picture in several]
    return np.asarray(own.rows(np.array(given)).mean(axis=0)), given


def _check_target(target: Floats, measure: str) -> None:
    if len(target) < (2 if measure == "correlation" else 1):
        raise InvalidParameterError(f"The pattern has {len(target)} finite units, too few for measure='{measure}'.")
    spread = np.ptp(target) if measure == "correlation" else np.abs(target).max()
    if measure != "euclidean" and not spread > 0:
        raise InvalidParameterError(
            f"The pattern is the same in all units, so that measure='{measure}' is not defined. Take 'euclidean'."
        )


def _complete(block: Floats, units: NDArray[np.bool_], own: Patterns, rows: slice) -> Floats:
    part = block if units.all() else block[:, units]
    if not np.isfinite(part).all():
        bad = own.stimuli[rows.start + int(np.flatnonzero(~np.isfinite(part).all(axis=1))[0])]
        raise InvalidParameterError(
            f"Responses to '{bad}' are NaN or infinite in units in which the pattern is not. Leave those units or "
            "pictures out, or finish the store."
        )
    return part


def _nearness(block: Floats, target: Floats, measure: str) -> Floats:
    if measure == "euclidean":
        return np.asarray(np.sqrt(np.mean((block - target) ** 2, axis=1)))
    if measure == "correlation":
        block, target = block - block.mean(axis=1, keepdims=True), target - target.mean()
    length = np.sqrt(np.einsum("su,su->s", block, block) * (target @ target))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(length > 0, block @ target / length, np.nan))


def _result(
    score: Floats, chosen: Mapping[str, Indices], stimuli: Sequence[str], sources: Any, seed: int | None, quantity: str,
    **parameters: Any,
) -> xr.Dataset:  # fmt: skip
    pictures = np.full((len(chosen), max(map(len, chosen.values()))), -1, np.int64)
    for row, own in zip(pictures, chosen.values(), strict=True):
        row[: len(own)] = own
    finite = score[np.isfinite(score)]
    count, edge = np.histogram(finite, _N_BINS)
    scores = np.where(pictures < 0, np.nan, score[pictures])
    result = xr.Dataset(
        {
            "picture": (("condition", "rank"), pictures),
            "score": (("condition", "rank"), scores, {"long_name": quantity}),
            "count": (("bin",), count),
            "bin_edge": (("edge",), edge),
            "mean": float(finite.mean()),
            "sd": float(finite.std()),
        },
        {"condition": list(chosen)},
    )
    result = result.assign(picture_name=names_of_pictures(result["picture"], stimuli))
    return described(result, EXPERIMENT, sources, seed, n_to_choose_from=len(stimuli), **parameters)
