"""Pictures that a model does not know: how far they lie from its training pictures, and how models disagree on them.

A model answers to any picture, also to noise and line drawings that nobody fitted it to; what it says of them is a
guess. Flagged are pictures whose features lie farther away than those of nearly all known ones, by the Mahalanobis
distance or by that to their nearest neighbours, or nearer to the mean than any (`berg.statistics.familiarity`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from berg.core.exceptions import InvalidParameterError
from berg.encoding.familiarity import SHARE, ByReference, familiarity
from berg.encoding.store_identity import stimulus_files, stimulus_labels
from berg.experiments.objectives import Standard
from berg.experiments.result import described, facts_of, parameters_of
from berg.experiments.units import Responder

if TYPE_CHECKING:
    from berg.plotting.page import Sheet


def flag(
    model: Any, pictures: Any, reference: Any = None, *, others: Sequence[Any] = (), share: float = SHARE
) -> xr.Dataset:
    """Measure how far pictures lie from what a model knows.

    Parameters
    ----------
    model
        Loaded.
    pictures
        As for `encode`.
    reference
        At least 50 pictures that are usual for the model, best those that it was trained with. None: what its file
        keeps of them, the variance of their principal components.
    others
        Models of other subjects, or on other networks, for the spread of responses.
    share
        So many of the known pictures may be flagged.

    Returns
    -------
    result
        Per stimulus ``distance``, ``neighbour`` (NaN without a reference), ``is_flagged``; the limits of both; with a
        reference ``reference_distance`` and ``reference_neighbour``, each picture measured by others. With `others`,
        ``spread``: the standard deviation over models of the mean response, z-scored over these pictures.

    Raises
    ------
    InvalidParameterError
        If the model's file keeps nothing and no reference is given, or it has fewer than 50 pictures.
    """
    responder = Responder(model)
    usual = familiarity(responder.model, reference)
    judged = usual.judge(responder.model, pictures, share)
    files = stimulus_files(pictures, responder.model.expected_input)
    names = stimulus_labels(None, files, len(judged.distance), pictures)
    result = xr.Dataset(
        {
            "distance": ("stimulus", judged.distance),
            "neighbour": ("stimulus", judged.neighbour),
            "is_flagged": ("stimulus", judged.is_flagged),
            "distance_lower_limit": judged.limits[0],
            "distance_limit": judged.limits[1],
            "neighbour_limit": judged.limits[2],
        },
        {"stimulus": [str(name) for name in names]},
    )
    if isinstance(usual, ByReference):
        result["reference_distance"] = ("reference", usual.familiar.distances)
        result["reference_neighbour"] = ("reference", usual.familiar.neighbours)
    sources = [responder.source]
    if others:
        each = [responder, *(Responder(other, "others") for other in others)]
        if len(names) < 2:
            raise InvalidParameterError(
                "The spread over models needs at least two pictures. Give more, or leave others out."
            )
        z = np.stack([_z(own, pictures) for own in each])
        result["spread"] = ("stimulus", z.std(0, ddof=1))
        sources += [own.source for own in each[1:]]
    told = {"share": share, "by": "reference pictures" if reference is not None else "the model's file"}
    return described(result, "flag", sources, None, **told)


def _z(responder: Responder, pictures: Any) -> Any:
    responses = responder.encode(pictures)
    standard = Standard.of(responses)
    return (responses.mean(1) - standard.mean) / standard.sd


def draw(result: xr.Dataset) -> Sheet:
    """The distances of pictures beside those of known ones, and the limits beyond which they are flagged."""
    from berg.plotting.page import new_sheet, styled

    told = parameters_of(result)
    n, n_flagged = result.sizes["stimulus"], int(result["is_flagged"].sum())
    title = f"{n_flagged} of {n} pictures are flagged"
    facts = [
        *facts_of(result),
        f"what is usual is told by {told['by']}; {100 * told['share']:g} % of it may be flagged",
    ]
    with_neighbours = bool(np.isfinite(result["neighbour"]).any())
    with styled():
        sheet, frame = new_sheet(2.4, title, facts)
        wide = 2.9 if with_neighbours else 6.2
        _draw_distances(
            sheet.add_axes(frame.rectangle(0.6, 0.45, wide, 1.75)), result, "distance", "Mahalanobis distance"
        )
        if with_neighbours:
            right = sheet.add_axes(frame.rectangle(4.2, 0.45, wide - 0.05, 1.75))
            _draw_distances(right, result, "neighbour", "distance to the nearest known pictures")
    return sheet


def _draw_distances(axes: Any, result: xr.Dataset, name: str, label: str) -> None:
    from matplotlib.ticker import LogLocator, NullLocator

    from berg.plotting.bars import LINE

    values = result[name].values
    known = result[f"reference_{name}"].values if f"reference_{name}" in result else np.zeros(0)
    lowest = max(1e-6, float(np.nanmin(np.concatenate([values, known]))))
    bins = np.geomspace(lowest, float(np.nanmax(np.concatenate([values, known]))) * 1.01, 40)
    if known.size:
        axes.hist(known, bins, weights=np.full(known.size, 100 / known.size), color="0.75", label="known pictures")
    axes.hist(values, bins, weights=np.full(values.size, 100 / values.size), histtype="step", color="#3b6ea5",
              linewidth=1.2, label="these pictures")  # fmt: skip
    axes.axvline(float(result[f"{name}_limit"]), color=LINE, linewidth=1, label="limit")
    if float(result.get(f"{name}_lower_limit", xr.DataArray(0.0))) > 0:
        axes.axvline(float(result[f"{name}_lower_limit"]), color=LINE, linewidth=1)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel(label)
    axes.set_ylabel("pictures (%)")
    axes.legend(
        frameon=False, ncols=3, loc="lower left", bbox_to_anchor=(-0.02, 0.98), handlelength=1.2, columnspacing=1
    )
