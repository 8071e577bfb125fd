"""Representational similarity analysis: models beside brains, with a noise ceiling and tests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from berg.experiments.dissimilarity_matrices import Measure, NamedRdms, Noise, Several, common_stimuli, named_rdms
from berg.experiments.patterns import Patterns
from berg.experiments.result import described, facts_of, parameters_of
from berg.statistics.p_values import benjamini_hochberg
from berg.statistics.rdm_inference import Generalise, Inference, infer
from berg.statistics.rdm_similarity import Comparison

if TYPE_CHECKING:
    from berg.plotting.page import Sheet

_POSITIVE = ("cosine", "whitened cosine")  # of any two sets of distances, which are positive, so that 0 is not chance
_BAR, _DOT, _CEILING = "#7f9fc0", "0.2", "0.86"


def rsa(
    subjects: Several,
    models: Several,
    *,
    measure: Measure = "correlation",
    noise: Noise = "independent",
    comparison: Comparison = "pearson",
    generalise: Generalise | None = None,
    n_resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    show_progress: bool | None = None,
) -> xr.Dataset:
    """How alike the dissimilarities of models are to those of brains, and how sure that is.

    A bar per model: the mean over subjects of its similarity with each. Models are fixed: nothing is fitted to the
    subjects.

    Parameters
    ----------
    subjects
        Responses of one subject, or of several as a list or mapping: in silico, or recorded. Also dissimilarities
        (`as_rdm`).
    models
        Responses or features of the same stimuli by name, or dissimilarities.
    measure, noise
        Of `rdms`. With "crossnobis", models have "euclidean" dissimilarities, which it estimates.
    comparison
        As in `berg.statistics.rdm_similarity.similarity`.
    generalise
        To other ``"stimuli"``, other ``"subjects"``, or ``"both"``; None: both, or stimuli if there is one subject.
        Subjects alone are those who would see *these* stimuli, on which any two geometries are alike or unlike by
        chance: of unrelated models it then finds one in six.
    n_resamples
        Of each bootstrap.
    level
        Of the intervals.
    seed
        Of the bootstrap.

    Returns
    -------
    result
        ``similarity`` (model, subject); ``mean``, ``error``, ``low``, ``high`` and p values (model):
        ``p_above_zero``, one-sided, and ``p_above_zero_fdr``, corrected over models, NaN for cosines, which are above
        0 for any two sets of distances, related or not; ``p_ceiling``, of the difference from the lower bound;
        ``p_difference`` (model, other_model), two-sided, and ``p_difference_fdr``, corrected over pairs; ``ceiling``
        (bound), NaN of one subject.

    Raises
    ------
    InvalidParameterError
        If stimuli differ, or there are too few of something.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> truth = rng.random((20, 50))
    >>> people = [truth + 0.1 * rng.standard_normal((20, 50)) for _ in range(5)]
    >>> result = rsa(people, {"right": truth, "wrong": rng.random((20, 50))}, n_resamples=200)
    >>> (result.p_above_zero_fdr < 0.05).values
    array([ True, False])
    """
    from berg.statistics.options import check_level

    check_level(level)
    brains = named_rdms(subjects, "subjects", measure, noise, show_progress)
    own_measure: Measure = "euclidean" if measure == "crossnobis" else measure
    candidates = named_rdms(models, "models", own_measure, show_progress=show_progress)
    check_same(brains, candidates, ("subjects", "models"))
    chosen = generalise or ("both" if len(brains.names) > 1 else "stimuli")
    found = infer(
        candidates.vectors, brains.vectors, comparison, chosen,
        n_resamples=n_resamples, seed=seed, show_progress=show_progress,
    )  # fmt: skip
    return described(
        _result(found, brains, candidates, level, comparison), "rsa", [*brains.sources, *candidates.sources],
        None if chosen == "subjects" else seed, measure=measure, noise=noise, comparison=comparison, generalise=chosen,
        n_resamples=n_resamples, level=level, n_stimuli=len(brains.stimuli),
    )  # fmt: skip


def check_same(one: NamedRdms, other: NamedRdms, what: tuple[str, str]) -> None:
    """Raise InvalidParameterError unless both are of the same stimuli in the same order."""
    common_stimuli([Patterns((), each.stimuli, {}) for each in (one, other)], [one.has_names, other.has_names], what)


def _result(
    found: Inference, brains: NamedRdms, candidates: NamedRdms, level: float, comparison: Comparison
) -> xr.Dataset:
    low, high = found.interval(level)
    above_zero = np.full(len(candidates.names), np.nan) if comparison in _POSITIVE else found.p_above_zero
    pairs = np.triu_indices(len(candidates.names), 1)
    corrected = np.eye(len(candidates.names))
    corrected[pairs] = benjamini_hochberg(found.p_difference[pairs])
    corrected = np.maximum(corrected, corrected.T)
    of_models = {
        "mean": found.mean,
        "error": found.error,
        "low": low,
        "high": high,
        "p_above_zero": above_zero,
        "p_above_zero_fdr": benjamini_hochberg(above_zero),
        "p_ceiling": found.p_ceiling,
    }
    between = {
        "difference_error": found.difference_error,
        "p_difference": found.p_difference,
        "p_difference_fdr": corrected,
    }
    made: dict[str, Any] = {"similarity": (("model", "subject"), found.similarity)}
    made |= {name: (("model",), values) for name, values in of_models.items()}
    made |= {name: (("model", "other_model"), values) for name, values in between.items()}
    made |= {"ceiling": (("bound",), [found.lower, found.upper]), "degrees_of_freedom": found.degrees_of_freedom}
    if found.resampled is not None:
        made["resampled"] = (("resample", "model"), found.resampled.similarity)
    names = list(candidates.names)
    labels = {"model": names, "other_model": names, "subject": list(brains.names), "bound": ["lower", "upper"]}
    return xr.Dataset(made, labels)


# Figure


def draw(result: xr.Dataset) -> Sheet:
    """A bar per model with its interval, a dot per subject, the noise ceiling behind; stars where above zero."""
    from berg.plotting.page import new_sheet, styled

    told = parameters_of(result)
    n_subjects = result.sizes["subject"]
    facts = (
        f"{told['n_stimuli']} stimuli, {n_subjects} subject{'s' if n_subjects > 1 else ''}",
        f"{told['measure']} dissimilarities, {told['comparison']}",
        f"lines: {told['level']:.0%} intervals for other {_others(told['generalise'])}",
        *(["*: above 0, false discovery rate 5 %"] if told["comparison"] not in _POSITIVE else []),
        *(["grey: noise ceiling"] if n_subjects > 1 else []),
        *facts_of(result),
    )
    wide = min(6.3, 0.7 + 0.75 * result.sizes["model"])
    with styled():
        sheet, frame = new_sheet(2.7, "Similarity of representations", facts)
        axes = sheet.add_axes(frame.rectangle(0.75, 0.7, wide, 1.9))
        _draw_bars(axes, result)
    return sheet


def _others(generalise: str) -> str:
    return {"both": "stimuli and subjects", "subjects": "subjects, these stimuli"}.get(generalise, generalise)


def _draw_bars(axes: Axes, result: xr.Dataset) -> None:
    places = list(map(float, range(result.sizes["model"])))
    if np.isfinite(result["ceiling"]).all():
        axes.axhspan(*result["ceiling"].values, color=_CEILING, linewidth=0, zorder=0)
    axes.bar(places, result["mean"], width=0.62, color=_BAR, zorder=1)
    if result.sizes["subject"] > 1:
        spread = np.linspace(-0.18, 0.18, result.sizes["subject"])
        for place, dots in zip(places, result["similarity"].values, strict=True):
            axes.scatter(place + spread, dots, s=5, color="0.45", linewidths=0, zorder=2)
    axes.vlines(places, result["low"], result["high"], color=_DOT, linewidth=1.2, zorder=3)
    top = np.nanmax([result["high"].max(), result["similarity"].max()])
    for place, p in zip(places, result["p_above_zero_fdr"].values, strict=True):
        if p < 0.05:
            axes.text(place, top, "*", ha="center", va="bottom", size=10)
    axes.axhline(0, color="0.3", linewidth=0.7)
    axes.set_xlim(-0.6, len(places) - 0.4)
    upright = max(map(len, map(str, result["model"].values))) * len(places) < 60
    axes.set_xticks(
        places, [str(name).replace("$", r"\$") for name in result["model"].values],
        rotation=0 if upright else 30, ha="center" if upright else "right",
    )  # fmt: skip
    axes.set_ylabel(f"similarity ({parameters_of(result)['comparison']})")
