"""The figure of univariate control: where the chosen pictures lie among all, and what they do in subjects left out."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from berg.experiments.mean_responses import with_unit
from berg.experiments.picture_sheet import draw_pictures, pictures_height
from berg.experiments.result import facts_of, parameters_of
from berg.plotting.colours import wrapped
from berg.plotting.page import Sheet, new_sheet, styled

COLOURS = {"high_high": "#b2182b", "low_low": "#2166ac", "high_low": "#e08214", "low_high": "#542788"}
"""Of the conditions, the same in all figures."""
HIGH, _LEFT = 2.6, 0.6
_MOST_DOTS = 20_000


def draw(result: xr.Dataset, pictures: Any = None) -> Sheet:
    """Draw a result of `berg.experiments.univariate_control`.

    Parameters
    ----------
    pictures
        All pictures, as files or an array: the first ones of each condition are drawn below.
    """
    conditions = result["condition"].values.tolist()
    rows = {_words(name): result["picture"].sel(left_out="none", condition=name).values for name in conditions}
    given = parameters_of(result)
    facts = [*facts_of(result), f"margin {given['margin']:g}", f"{result.sizes['stimulus']:,} pictures to choose from"]
    if "effect" in result:
        facts.append(f"dots: subjects left out; bars: mean, 95 % interval; *: p < {given['alpha']:g} over subjects")
    with styled():
        sheet, frame = new_sheet(HIGH + pictures_height(rows, pictures), "Univariate relational control", facts)
        below = pictures_height(rows, pictures)
        wide = 2.4
        _draw_pictures_of_all(sheet.add_axes(frame.rectangle(_LEFT, below + 0.45, wide, HIGH - 0.65)), result)
        if "effect" in result:
            left = _LEFT + wide + 0.8
            axes = sheet.add_axes(frame.rectangle(left, below + 0.45, frame.width - left - 0.1, HIGH - 0.65))
            draw_effects(axes, result, with_unit("Held-out response minus baseline", _unit(result)))
        if pictures is not None:
            draw_pictures(sheet, frame, rows, pictures, result.sizes["stimulus"])
    return sheet


def _words(condition: str) -> str:
    return condition.replace("_", " / ")


def _unit(result: xr.Dataset) -> str:
    return str(result["mean_response"].attrs.get("units", ""))


def _draw_pictures_of_all(axes: Axes, result: xr.Dataset) -> None:
    """A dot per picture, by its responses in both regions; the chosen ones in the colours of their conditions."""
    x, y = result["mean_response"].values.T
    step = max(1, len(x) // _MOST_DOTS)
    axes.plot(x[::step], y[::step], ".", color="0.8", markersize=1.5, rasterized=True)
    for region, line in zip((0, 1), (axes.axvline, axes.axhline), strict=True):
        line(float(result["baseline_score"].sel(left_out="none")[region]), color="0.4", linewidth=0.6, linestyle=":")
    for name in result["condition"].values.tolist():
        chosen = result["picture"].sel(left_out="none", condition=name).values
        chosen = chosen[chosen >= 0]
        axes.plot(x[chosen], y[chosen], ".", color=COLOURS[name], markersize=4, label=f"{_words(name)} ({len(chosen)})")
    first, second = result["region"].values
    axes.set_xlabel(with_unit(f"Mean response of {first}", _unit(result)), parse_math=False)
    axes.set_ylabel(wrapped(with_unit(f"Mean response of {second}", _unit(result)), HIGH - 0.8), parse_math=False)
    axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=2, frameon=False, handletextpad=0.1,
                columnspacing=0.8, borderaxespad=0, fontsize=6)  # fmt: skip


def draw_effects(axes: Axes, result: xr.Dataset, label: str) -> None:
    """Effects of each condition and region: subjects, their mean and its interval, a star where significant."""
    alpha = parameters_of(result)["alpha"]
    regions, conditions = result["region"].values.tolist(), result["condition"].values.tolist()
    axes.axhline(0, color="0.4", linewidth=0.7)
    for at, side in np.ndindex(len(conditions), len(regions)):
        own = result.isel(condition=at, region=side)
        x, colour = at + (side - 0.5) * 0.36, COLOURS[conditions[at]]
        _draw_effect(axes, own, x, colour, is_filled=side == 0, alpha=alpha)
    axes.set_xticks(range(len(conditions)), [_words(name) for name in conditions])
    axes.set_xlim(-0.6, len(conditions) - 0.4)
    axes.set_ylabel(wrapped(label, HIGH - 0.8), parse_math=False)
    axes.margins(y=0.12)
    for side, region in enumerate(regions):
        axes.plot([], [], "o", color="0.3", markerfacecolor="0.3" if side == 0 else "white", markersize=4, label=region)
    axes.legend(
        loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2, frameon=False, handletextpad=0.1, borderaxespad=0
    )


def _draw_effect(axes: Axes, own: xr.Dataset, x: float, colour: str, is_filled: bool, alpha: float) -> None:
    effects = own["effect"].values
    spread = np.linspace(-0.08, 0.08, len(effects)) if len(effects) > 1 else np.zeros(1)
    axes.plot(x + spread, effects, ".", color=colour, markersize=2.5)
    low, mean, high = (float(own[name]) for name in ("effect_low", "effect_mean", "effect_high"))
    axes.plot([x, x], [low, high], "-", color=colour)
    axes.plot([x], [mean], "o", color=colour, markerfacecolor=colour if is_filled else "white", markersize=5, zorder=3)
    if float(own["p_between"]) < alpha:
        top = np.nanmax([high, *effects]) if mean >= 0 else np.nanmin([low, *effects])
        axes.annotate(
            "*", (x, top), (0, 3 if mean >= 0 else -9), textcoords="offset points", ha="center", va="baseline"
        )
