"""The figure of multivariate control: the pairs of the sets, and what the sets score where they were not searched."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from berg.experiments.picture_sheet import draw_pictures, pictures_height
from berg.experiments.result import facts_of, parameters_of
from berg.plotting.page import Sheet, new_sheet, styled

COLOURS = {"align": "#1b7837", "disentangle": "#762a83"}
HIGH = 2.35
_SIDE, _LEFT = 1.45, 0.6


def draw(result: xr.Dataset, pictures: Any = None) -> Sheet:
    """Draw a result of `berg.experiments.multivariate_control`.

    Left: the similarity of each pair of pictures of the best set, in both regions. Right: scores of the sets of every
    start, where they were searched, in subjects left out, under other models, beside the baseline.

    Parameters
    ----------
    pictures
        All pictures, as files or an array: the first ones of each set are drawn below.
    """
    given = parameters_of(result)
    rows = {name: result["picture"].sel(left_out="none", condition=name).values for name in COLOURS}
    with styled():
        below = pictures_height(rows, pictures)
        sheet, frame = new_sheet(HIGH + below, "Multivariate relational control", _facts(result, given))
        for number, name in enumerate(COLOURS):
            left = _LEFT + number * (_SIDE + 0.35)
            axes = sheet.add_axes(frame.rectangle(left, below + 0.6, _SIDE, _SIDE))
            _draw_pairs(axes, result, name, has_label=number == 0)
        left = _LEFT + 2 * (_SIDE + 0.35) + 0.4
        axes = sheet.add_axes(frame.rectangle(left, below + 0.6, frame.width - left - 0.1, HIGH - 0.95))
        _draw_scores(axes, result)
        if pictures is not None:
            draw_pictures(sheet, frame, rows, pictures, given["n_to_choose_from"])
    return sheet


def _facts(result: xr.Dataset, given: dict[str, Any]) -> list[str]:
    shared = ", ".join(
        f"{name} {float(result['overlap'].sel(left_out='none', condition=name)):.2f}" for name in COLOURS
    )
    facts = [
        *facts_of(result),
        f"{given['search']} search, {given['n_restarts']} starts, sets of {given['n_pictures']}",
    ]
    facts.append(f"overlap of the starts: {shared} (by chance {float(result['chance_overlap']):.2f})")
    facts.append("dots: starts; grey: baseline and its random sets (1 SD)")
    if "p_between" in result:
        p = ", ".join(f"{name} {float(result['p_between'].sel(condition=name)):.2g}" for name in COLOURS)
        facts.append(f"p over subjects: {p}")
    return facts


def _draw_pairs(axes: Axes, result: xr.Dataset, condition: str, has_label: bool) -> None:
    x, y = result["pair_similarity"].sel(left_out="none", condition=condition).values
    axes.plot(x, y, ".", color=COLOURS[condition], markersize=1.5, rasterized=True)
    score = float(result["score"].sel(left_out="none", condition=condition))
    axes.set_title(f"{condition}, r = {score:.2f}".replace("-0.00", "0.00"))
    first, second = result["region"].values
    axes.set_xlabel(f"Similarity in {first} (r)", parse_math=False)
    if has_label:
        axes.set_ylabel(f"Similarity in {second} (r)", parse_math=False)


def _draw_scores(axes: Axes, result: xr.Dataset) -> None:
    """Columns: where searched, subjects left out, other models."""
    columns = [("searched", result["restart_score"].sel(left_out="none"), float(result["baseline_score"][0]))]
    if "held_out_score" in result:
        columns.append(("left out", result["held_out_score"], float(result["held_out_baseline"].mean())))
    for model in result["model"].values.tolist() if "score_under" in result else []:
        columns.append(
            (model, result["score_under"].sel(model=model), float(result["baseline_under"].sel(model=model)))
        )
    axes.axhline(0, color="0.4", linewidth=0.7)
    for at, (_, scores, baseline) in enumerate(columns):
        axes.plot([at - 0.35, at + 0.35], [baseline, baseline], "-", color="0.5")
        for side, name in enumerate(COLOURS):
            own = scores.sel(condition=name).values.ravel()
            x = at + (side - 0.5) * 0.34 + np.linspace(-0.1, 0.1, len(own))
            axes.plot(x, own, ".", color=COLOURS[name], markersize=3, label=name if at == 0 else None)
    sd = float(result["null_sd"][0])
    axes.fill_between([-0.35, 0.35], columns[0][2] - sd, columns[0][2] + sd, color="0.88", linewidth=0)
    axes.set_xticks(range(len(columns)), [name for name, _, _ in columns], parse_math=False)
    axes.set_xlim(-0.6, len(columns) - 0.4)
    axes.set_ylabel("Score of a set (r)")
    axes.legend(
        loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2, frameon=False, handletextpad=0.1, borderaxespad=0
    )
