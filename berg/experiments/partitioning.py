r"""Variance partitioning: what several feature spaces explain of responses, each alone and together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from numpy.typing import NDArray

from berg.core.exceptions import InvalidParameterError, listing
from berg.experiments.dissimilarity_matrices import common_stimuli, has_names
from berg.experiments.patterns import Patterns, Responses, patterns
from berg.experiments.result import described, facts_of, parameters_of
from berg.statistics.bootstrap import resampled_counts
from berg.statistics.dissimilarity import check_finite
from berg.statistics.groups import Groups, group_numbers
from berg.statistics.options import check_choice, check_level
from berg.statistics.partition import names_of_subsets, product_measure, shared_parts, subsets
from berg.system.progress import progress_bar

if TYPE_CHECKING:
    from berg.fitting.folds import Folds
    from berg.fitting.regression import Regression
    from berg.plotting.page import Sheet

Floats = NDArray[np.float64]
Penalties = Literal["one", "each"]
Fit = Callable[[Floats, list[slice], Floats, "Folds"], "Regression"]
SHARED = " + "
_BLOCK = 2**22


def partition(
    responses: Responses,
    spaces: Mapping[str, Responses],
    *,
    penalties: Penalties = "one",
    alphas: Sequence[float] | None = None,
    folds: int | Folds = 5,
    inner_folds: int = 5,
    groups: Groups | None = None,
    n_iterations: int = 20,
    n_resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    show_progress: bool | None = None,
) -> xr.Dataset:
    """Cross-validated r2 of all subsets of two to four feature spaces, and what each explains alone and with others.

    Each fold is predicted by ridge regressions on the others, on every subset of the spaces, penalties chosen by a
    cross-validation among them; r2 is of the predictions of all folds together.

    Parameters
    ----------
    responses
        What is explained, of one subject; axes after the stimulus become units.
    spaces
        Features of the same stimuli by name: arrays (stimuli, features), or responses of another model or region.
        Features are z-scored over the stimuli that a model is fitted to.
    penalties
        ``"one"``: a penalty for each unit and subset. ``"each"``: a penalty for each unit and space, by himalaya's
        random search (banded ridge), for spaces that differ in how much they need.
    alphas
        Penalties to choose from; None: from the features, as `berg.fitting.linear_solvers.ridge_cv` has it.
    folds
        How many, or the left-out stimuli of each; they need not cover all stimuli.
    inner_folds
        Of the choice of the penalties.
    groups
        A label per stimulus: those of one, such as near-copies, are never on both sides.
    n_iterations
        Of the random search.
    n_resamples, level, seed
        Of the bootstrap over stimuli, whose intervals are of the mean over units, the fitted weights as they are.

    Returns
    -------
    result
        ``r2`` (subset, unit), of each subset such as ``a + b``; ``part`` (subset, unit): of ``a``, what it alone
        explains, of ``a + b``, what both share and no other has; ``product`` (term, unit): the product measure of each
        space in the model of all, which adds up to its r2 with the term ``intercept``, what the means of the folds add;
        ``alpha`` (space, unit), the mean over folds, of the model of all; intervals of means over units
        ``part_mean``, ``part_low``, ``part_high``, ``r2_mean``, ``r2_low``, ``r2_high`` (subset). On the way memory
        takes 16 bytes per subset, stimulus and unit.

    Raises
    ------
    InvalidParameterError
        If stimuli differ, spaces are fewer than two or more than four, or folds too small.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> a, b = rng.standard_normal((2, 120, 10))
    >>> responses = a @ rng.standard_normal((10, 5)) + rng.standard_normal((120, 5))
    >>> result = partition(responses, {"a": a, "b": b}, n_resamples=100)
    >>> result.part_mean.round(1).values + 0.0
    array([0.9, 0. , 0. ])
    """
    from berg.fitting.penalties import warn_of_edges

    _check(spaces, penalties, level)
    measured = patterns(responses, "responses")
    made = {str(name): patterns(own, f"space '{name}'") for name, own in spaces.items()}
    named = [has_names(own) for own in (responses, *spaces.values())]
    what = ["responses", *(f"space '{name}'" for name in made)]
    stimuli = common_stimuli([measured, *made.values()], named, what)
    Y = check_finite(measured.matrix())
    X, bands = _joined(made)
    left_out = _folds(folds, len(stimuli), groups)
    numbers = None if groups is None else group_numbers(groups, len(stimuli))
    fit = _by_bands(alphas, n_iterations, seed) if penalties == "each" else _by_ridge(alphas)
    with progress_bar("Fit", len(left_out) * len(subsets(len(bands))), "models", show_progress) as advance:
        predicted = _predict(X, Y, bands, left_out, fit, inner_folds, numbers, advance)
    if alphas is not None and penalties == "one":  # of units for which all folds chose an edge
        warn_of_edges(predicted.alphas.T[:, :1], alphas, "units")
    tested = np.sort(np.concatenate(left_out))
    drawn = np.arange(len(tested)) if numbers is None else np.unique(numbers[tested], return_inverse=True)[1]
    result = _result(Y[tested], predicted.at(tested), list(made), drawn, n_resamples, level, seed)
    return described(
        result, "partition", [measured.source, *({"name": name} | own.source for name, own in made.items())], seed,
        penalties=penalties, alphas=alphas, folds=len(left_out), inner_folds=inner_folds, n_iterations=n_iterations,
        n_resamples=n_resamples, level=level, n_stimuli=len(tested),
    )  # fmt: skip


@dataclass(frozen=True)
class _Predicted:
    """Predictions of left-out stimuli.

    Attributes
    ----------
    of_subsets
        Shape (n_subsets, n_stimuli, n_units).
    terms
        Shape (n_spaces + 1, n_stimuli, n_units), what is added up in the model of all spaces, the mean response last.
    alphas
        Shape (n_spaces, n_units), mean over folds, of the model of all spaces.
    """

    of_subsets: Floats
    terms: Floats
    alphas: Floats

    @classmethod
    def empty(cls, n_spaces: int, n_stimuli: int, n_units: int) -> _Predicted:
        shapes = (len(subsets(n_spaces)), n_stimuli, n_units), (n_spaces + 1, n_stimuli, n_units), (n_spaces, n_units)
        return cls(*map(np.zeros, shapes))

    def at(self, stimuli: NDArray[np.intp]) -> _Predicted:
        return _Predicted(self.of_subsets[:, stimuli], self.terms[:, stimuli], self.alphas)


def _predict(
    X: Floats,
    Y: Floats,
    bands: list[slice],
    left_out: list[NDArray[np.intp]],
    fit: Fit,
    inner_folds: int,
    numbers: NDArray[np.intp] | None,
    advance: Callable[[int], None],
) -> _Predicted:
    found = _Predicted.empty(len(bands), *Y.shape)
    for fold in left_out:
        kept = np.setdiff1d(np.arange(len(Y)), fold)
        mean, spread = _scale(X[kept])
        features, new = (X[kept] - mean) / spread, (X[fold] - mean) / spread
        inner = _inner_folds(kept, inner_folds, numbers)
        for number, subset in enumerate(subsets(len(bands))):
            columns, own = _columns([bands[index] for index in subset])
            fitted = fit(features[:, columns], own, Y[kept], inner)
            terms = _terms(new[:, columns], fitted, own, Y[kept].mean(0))
            found.of_subsets[number, fold] = terms.sum(0)
            advance(1)
        found.terms[:, fold] = terms  # the last subset is all of them
        found.alphas[:] += np.broadcast_to(fitted.alphas.T, found.alphas.shape) / len(left_out)
    return found


def _check(spaces: Any, penalties: str, level: float) -> None:
    check_choice("penalties", penalties, ("one", "each"))
    check_level(level)
    if not isinstance(spaces, Mapping) or isinstance(spaces, (xr.Dataset, xr.DataTree)):
        raise InvalidParameterError(
            "Give the spaces with their names:  spaces={'low': features, 'high': other_features}"
        )
    subsets(len(spaces))  # raises unless there are two to four


def _joined(made: Mapping[str, Patterns]) -> tuple[Floats, list[slice]]:
    """All features side by side, and the columns of each space."""
    matrices = [check_finite(own.matrix()) for own in made.values()]
    ends = np.cumsum([0, *(matrix.shape[1] for matrix in matrices)]).tolist()
    return np.concatenate(matrices, axis=1), [slice(*pair) for pair in pairwise(ends)]


def _columns(bands: Sequence[slice]) -> tuple[NDArray[np.intp], list[slice]]:
    """The columns of some spaces, and where each is among them."""
    columns = np.concatenate([np.arange(band.start, band.stop) for band in bands])
    ends = np.cumsum([0, *(band.stop - band.start for band in bands)]).tolist()
    return columns, [slice(*pair) for pair in pairwise(ends)]


def _scale(features: Floats) -> tuple[Floats, Floats]:
    spread = features.std(0)
    return features.mean(0), np.where(spread > 0, spread, 1.0)


def _folds(folds: int | Folds, n_stimuli: int, groups: Groups | None) -> list[NDArray[np.intp]]:
    from berg.fitting.folds import checked_folds

    chosen = [np.unique(np.asarray(fold, np.intp)) for fold in checked_folds(folds, n_stimuli, groups)]
    together = np.concatenate(chosen) if chosen else np.empty(0, np.intp)
    if (
        together.size < 2
        or together.min() < 0
        or together.max() >= n_stimuli
        or len(np.unique(together)) < together.size
    ):
        raise InvalidParameterError(
            f"folds must be left-out stimuli, numbers from 0 to {n_stimuli - 1}, each in one fold at most and two in "
            f"all at least; got {listing(map(str, together), 5)}. Try folds=5."
        )
    return chosen


def _inner_folds(kept: NDArray[np.intp], n_folds: int, numbers: NDArray[np.intp] | None) -> Folds:
    from berg.fitting.folds import checked_folds

    return checked_folds(n_folds, len(kept), None if numbers is None else numbers[kept])


def _by_ridge(alphas: Sequence[float] | None) -> Fit:
    from berg.fitting.linear_solvers import ridge_cv_solver

    return lambda X, bands, Y, folds: ridge_cv_solver(X, alphas, folds)(Y)


def _by_bands(alphas: Sequence[float] | None, n_iterations: int, seed: int) -> Fit:
    """By himalaya; of one space, for which its search has nothing to draw, an ordinary ridge."""
    from berg.fitting.banded_ridge import banded_ridge_cv_solver, check_himalaya

    check_himalaya()
    one = _by_ridge(alphas)

    def fit(X: Floats, bands: list[slice], Y: Floats, folds: Folds) -> Regression:
        if len(bands) == 1:
            return one(X, bands, Y, folds)
        return banded_ridge_cv_solver(X, bands, alphas, folds, n_iterations=n_iterations, seed=seed)(Y)

    return fit


def _terms(features: Floats, fitted: Regression, bands: list[slice], mean: Floats) -> Floats:
    """What each space predicts for new stimuli, from z-scored features, and last the mean response of the fit."""
    weights = fitted.coefficients.astype(np.float64)
    parts = [features[:, band] @ weights[:, band].T for band in bands]
    return np.stack([*parts, np.broadcast_to(mean, parts[0].shape)])


def _result(
    Y: Floats,
    predicted: _Predicted,
    names: list[str],
    drawn: NDArray[np.intp],
    n_resamples: int,
    level: float,
    seed: int,
) -> xr.Dataset:
    """The numbers of the groups of stimuli that a bootstrap draws as a whole are in `drawn`."""
    errors, mean = (Y - predicted.of_subsets) ** 2, Y.mean(0)
    variance = ((Y - mean) ** 2).sum(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        r2 = np.where(variance > 0, 1 - errors.sum(1) / variance, np.nan)
    terms = np.concatenate([predicted.terms[:-1], predicted.terms[-1:] - mean])
    made: dict[str, Any] = {"r2": (("subset", "unit"), r2), "part": (("subset", "unit"), shared_parts(r2))}
    made |= {"product": (("term", "unit"), product_measure(Y - mean, terms))}
    made |= {"alpha": (("space", "unit"), predicted.alphas)}
    counts = resampled_counts(int(drawn.max()) + 1, n_resamples, 1, seed)[:, drawn]
    boot = _resampled_means(errors, Y - mean, counts)
    for name, values, draws in (("r2", r2, boot), ("part", shared_parts(r2), shared_parts(boot))):
        made |= summary(name, np.nanmean(values, axis=1), draws, level)
    labels = {"subset": names_of_subsets(names, SHARED), "term": [*names, "intercept"], "space": names}
    return xr.Dataset(made, labels)


def summary(name: str, mean: Floats, draws: Floats, level: float) -> dict[str, Any]:
    """Mean of each subset, and the interval of its resamples (n_subsets, n_resamples)."""
    low, high = np.nanquantile(draws, [(1 - level) / 2, (1 + level) / 2], axis=1)
    return {f"{name}_{what}": ("subset", values) for what, values in (("mean", mean), ("low", low), ("high", high))}


def _resampled_means(errors: Floats, Y: Floats, counts: Floats) -> Floats:
    """The mean over units of r2 in resamples of stimuli; shape (n_subsets, n_resamples)."""
    total, used = np.zeros((len(errors), len(counts))), np.zeros(len(counts))
    step = max(1, _BLOCK // max(counts.shape))
    for start in range(0, Y.shape[1], step):
        own = Y[:, start : start + step]
        variance = counts @ own**2 - (counts @ own) ** 2 / counts.sum(1, keepdims=True)
        varies = variance > 1e-12 * (own**2).sum(0)
        for number, error in enumerate(errors[:, :, start : start + step]):
            with np.errstate(divide="ignore", invalid="ignore"):
                total[number] += np.where(varies, 1 - counts @ error / variance, 0.0).sum(1)
        used += varies.sum(1)
    return np.asarray(total / np.where(used > 0, used, np.nan))


# Figure


def draw(result: xr.Dataset) -> Sheet:
    """Bars of what each space explains alone and what they share, with dots that say which; left r2 of all together."""
    from berg.plotting.page import new_sheet, styled

    told = parameters_of(result)
    facts = (
        f"{told['n_stimuli']} stimuli, {result.sizes['unit']:,} units (bars: their mean, dots: units)",
        f"{told['folds']} folds, a penalty per unit{'' if told['penalties'] == 'one' else ' and space'}",
        f"lines: {told['level']:.0%} intervals over stimuli",
        *facts_of(result),
    )
    with styled():
        sheet, frame = new_sheet(2.6 + 0.2 * result.sizes["space"], "Variance explained", facts)
        below = 0.2 * result.sizes["space"] + 0.15
        draw_parts(
            sheet.add_axes(frame.rectangle(1.5, below + 0.2, 5.4, 2.0)),
            sheet.add_axes(frame.rectangle(1.5, 0.1, 5.4, below)),
            result,
        )
    return sheet


def draw_parts(axes: Axes, key: Axes, result: xr.Dataset) -> None:
    """A bar for all together and one per part in `axes`; below, in `key`, which spaces each is of."""
    values = np.concatenate([result["r2"].values[-1:], result["part"].values])
    mean, low, high = (
        np.concatenate([result[f"r2_{name}"].values[-1:], result[f"part_{name}"].values])
        for name in ("mean", "low", "high")
    )
    places = list(map(float, range(len(values))))
    axes.bar(places, mean, width=0.62, color=["0.75", *["#7f9fc0"] * (len(places) - 1)], zorder=1)
    draw_units(axes, places, values)
    axes.vlines(places, low, high, color="0.2", linewidth=1.2, zorder=3)
    axes.axhline(0, color="0.3", linewidth=0.7)
    axes.set(ylabel="variance explained (r²)", xticks=[], xlim=(-0.6, len(places) - 0.4))
    axes.spines["bottom"].set_visible(False)
    draw_key(key, [str(name) for name in result["space"].values], len(places))


def draw_units(axes: Axes, places: Sequence[float], values: Floats, most: int = 300) -> None:
    """A dot per unit beside the middle of its bar, of some units if there are many."""
    shown = values[:, np.linspace(0, values.shape[1] - 1, min(values.shape[1], most)).astype(int)]
    if shown.shape[1] < 2:
        return
    spread = np.random.default_rng(0).uniform(-0.22, 0.22, shown.shape[1])
    size, opaque = (6, 1.0) if shown.shape[1] < 20 else (2, 0.5)
    for place, dots in zip(places, shown, strict=True):
        axes.scatter(place + spread, dots, s=size, color="0.45", alpha=opaque, linewidths=0, zorder=2)


def draw_key(axes: Axes, names: Sequence[str], n_bars: int) -> None:
    """For each bar, the first of which is of all together, which spaces it is of."""
    for row, name in enumerate(names):
        axes.text(-0.75, -row, name, ha="right", va="center", size=7, parse_math=False)
    for bar, chosen in enumerate([tuple(range(len(names))), *subsets(len(names))]):
        axes.scatter([bar] * len(names), -np.arange(len(names)), s=14, color="0.88", linewidths=0)
        axes.scatter([bar] * len(chosen), [-row for row in chosen], s=18, color="0.2", linewidths=0)
        if bar and len(chosen) > 1:
            axes.plot([bar, bar], [-chosen[0], -chosen[-1]], color="0.2", linewidth=1)
    axes.text(0, 0.75, "all", ha="center", va="bottom", size=7)
    axes.text(1 + (len(names) - 1) / 2, 0.75, "alone", ha="center", va="bottom", size=7)
    axes.text((1 + len(names) + n_bars - 1) / 2, 0.75, "shared", ha="center", va="bottom", size=7)
    axes.set(xlim=(-0.6, n_bars - 0.4), ylim=(0.5 - len(names), 1.6))
    axes.set_axis_off()
