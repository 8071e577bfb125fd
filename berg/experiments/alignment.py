"""Centred kernel alignment of responses with each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from berg.experiments.dissimilarity_matrices import Several, common_stimuli, has_names, with_names
from berg.experiments.patterns import Patterns, patterns
from berg.experiments.result import described, facts_of
from berg.statistics.dissimilarity import inner_products
from berg.statistics.kernel_alignment import cka_of_products
from berg.system.progress import progress_bar

if TYPE_CHECKING:
    from berg.plotting.page import Sheet

_MOST_WITH_NUMBERS = 14


def cka(responses: Several, *, show_progress: bool | None = None) -> xr.Dataset:
    """Unbiased linear centred kernel alignment of each of some responses with each other.

    Parameters
    ----------
    responses
        Regions, subjects, models or layers of a network by name, of the same stimuli; each may have any number of
        units, and be larger than the memory. Two matrices (stimuli, stimuli) are held.

    Returns
    -------
    result
        ``cka`` (representation, other), 1 for the same up to turns, shifts and scale, 0 on average for unrelated ones;
        see `berg.statistics.kernel_alignment.linear_cka`.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> patterns = rng.random((30, 40))
    >>> result = cka({"one": patterns, "turned": patterns[:, ::-1], "other": rng.random((30, 70))})
    >>> result.cka.sel(representation="one").round(1).values + 0.0
    array([1., 1., 0.])
    """
    given = with_names(responses, "responses")
    made = {name: patterns(own, f"responses '{name}'") for name, own in given.items()}
    named = [has_names(own) for own in given.values()]
    stimuli = common_stimuli(list(made.values()), named, [f"responses '{name}'" for name in made])
    names, found = list(made), np.empty((len(made), len(made)))
    with progress_bar("Alignment", len(names) * (len(names) + 1) // 2, "pairs", show_progress) as advance:
        for i, one in enumerate(names):
            products = _products(made[one])
            for j, other in enumerate(names[i:], i):
                both = products if i == j else _products(made[other])
                found[i, j] = found[j, i] = cka_of_products(products, both)
                advance(1)
    result = xr.Dataset({"cka": (("representation", "other"), found)}, {"representation": names, "other": names})
    sources = [{"name": name} | own.source for name, own in made.items()]
    return described(result, "cka", sources, None, n_stimuli=len(stimuli))


def _products(made: Patterns) -> NDArray[np.float64]:
    centre = sum((rows.sum(0) for _, rows in made.blocks()), np.zeros(made.n_units)) / len(made.stimuli)
    return inner_products(made.blocks, len(made.stimuli), lambda rows, _: rows - centre)


def draw(result: xr.Dataset) -> Sheet:
    """The matrix, with numbers in it if there is room."""
    from berg.plotting.page import new_sheet, styled

    names = [str(name).replace("$", r"\$") for name in result["representation"].values]
    side = min(max(0.45 * len(names), 1.2), 5.0)
    with styled():
        sheet, frame = new_sheet(side + 1.0, "Centred kernel alignment (linear, unbiased)", facts_of(result))
        axes = sheet.add_axes(frame.rectangle(1.2, 0.8, side, side))
        image = axes.imshow(result["cka"], cmap="magma", vmin=0, vmax=1)
        axes.set_xticks(range(len(names)), names, rotation=45, ha="right")
        axes.set_yticks(range(len(names)), names)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        bar = sheet.colorbar(image, cax=sheet.add_axes(frame.rectangle(1.3 + side, 0.8, 0.1, side)))
        bar.set_label("CKA")
        bar.outline.set_visible(False)  # type: ignore[operator]
        if len(names) <= _MOST_WITH_NUMBERS:
            for (row, column), value in np.ndenumerate(result["cka"].values):
                colour = "white" if value < 0.6 else "black"
                axes.text(column, row, f"{value:.2f}", ha="center", va="center", size=6, color=colour)
    return sheet
