"""The figure of a choice of pictures: how scores are spread over all of them, and where the chosen ones lie."""

from __future__ import annotations

from typing import Any

import xarray as xr

from berg.experiments.picture_sheet import draw_pictures, pictures_height
from berg.experiments.result import facts_of, parameters_of
from berg.plotting.page import Sheet, new_sheet, styled

HIGH = 2.0
COLOURS = ("#b2182b", "#2166ac", "#1b7837", "#e08214", "#762a83", "#35978f")


def draw(result: xr.Dataset, pictures: Any = None) -> Sheet:
    """Draw a result of `driving_pictures`, `similar_pictures` or `matched_sets`.

    Parameters
    ----------
    pictures
        All pictures, as files or an array: the first ones that were chosen are drawn below.
    """
    given = parameters_of(result)
    conditions = result["condition"].values.tolist()
    rows = {name: result["picture"].sel(condition=name).values for name in conditions}
    facts = [*facts_of(result), f"{given['n_to_choose_from']:,} pictures to choose from"]
    titles = {
        "driving": "Pictures that drive most or least",
        "similar": "Most similar pictures",
        "matched": "Matched sets",
    }
    with styled():
        below = pictures_height(rows, pictures)
        sheet, frame = new_sheet(HIGH + below, titles[given["chosen_by"]], facts)
        axes = sheet.add_axes(frame.rectangle(0.6, below + 0.45, frame.width - 0.75, HIGH - 0.7))
        axes.stairs(result["count"].values, result["bin_edge"].values, fill=True, color="0.8", label="all")
        for at, (name, colour) in enumerate(zip(conditions, COLOURS * len(conditions), strict=False)):
            own = result["score"].sel(condition=name).values
            top = float(result["count"].max()) * (1.05 + 0.08 * at)
            axes.plot(own, [top] * len(own), "|", color=colour, markersize=7, label=f"{name} ({(own == own).sum()})")
        axes.set_xlabel(result["score"].attrs["long_name"], parse_math=False)
        axes.set_ylabel("Number of pictures")
        axes.legend(
            loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=5, frameon=False, borderaxespad=0, handletextpad=0.3
        )
        if pictures is not None:
            draw_pictures(sheet, frame, rows, pictures, given["n_to_choose_from"])
    return sheet
