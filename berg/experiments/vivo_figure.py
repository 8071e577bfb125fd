"""The figures of experiments in vivo: when each picture is shown, the power, and recordings beside the models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import matplotlib
import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from berg.experiments.control_multivariate_figure import COLOURS as GOAL_COLOURS
from berg.experiments.control_univariate_figure import COLOURS as CONDITION_COLOURS
from berg.experiments.control_univariate_figure import draw_effects
from berg.experiments.mean_responses import with_unit
from berg.experiments.result import EXPERIMENT, facts_of, parameters_of
from berg.plotting.page import Sheet, new_sheet, styled

HIGH = 2.3
_BASELINE, _OTHER_BASELINE, _SEVERAL, _BLANK = "0.4", "0.65", "black", "0.88"
_SEVERAL_WORDS = "in several sets"
_MORE = ("#1b9e77", "#d95f02", "#7570b3", "#e7298a", "#66a61e", "#e6ab02")


def draw(result: xr.Dataset, subject: str | None = None) -> Sheet:
    """Draw a result of `in_vivo_design`, `in_vivo_power` or `compare`.

    Parameters
    ----------
    subject
        Of a design: whose order is drawn; the first one's by default.
    """
    drawn: dict[str, Callable[[xr.Dataset, str | None], Sheet]] = {
        "in_vivo_design": _design,
        "in_vivo_power": _power,
        "in_vivo_comparison": _comparison,
    }
    with styled():
        return drawn[str(result.attrs[EXPERIMENT])](result, subject)


def _design(result: xr.Dataset, subject: str | None) -> Sheet:
    """A row per run, a stroke per trial in the colour of its set."""
    given = parameters_of(result)
    own = result.sel(subject=subject or result["subject"].values[0])
    facts = [
        *facts_of(result), f"order of sub-{own['subject'].item()}, one of {given['n_subjects']}",
        f"{given['n_pictures']} pictures, {given['n_repeats']} repeats in {given['n_runs']} runs",
    ]  # fmt: skip
    high = 0.9 + 0.28 * given["n_runs"]
    sheet, frame = new_sheet(high, "Design of the experiment", facts)
    axes = sheet.add_axes(frame.rectangle(0.6, 0.45, frame.width - 2.1, high - 0.6))
    words = np.array([_SEVERAL_WORDS if "+" in word else word for word in own["trial_type"].values.tolist()])
    for word, colour in _colours(words.tolist()).items():
        trials = own.isel(trial=words == word)
        left, run = trials["onset"].values, trials["run"].values
        axes.barh(run, trials["duration"].values, left=left, height=0.8, color=colour, label=word, linewidth=0)
    axes.set_xlabel("Time in the run (s)")
    axes.set_ylabel("Run")
    axes.set_yticks(range(1, given["n_runs"] + 1))
    axes.set_ylim(given["n_runs"] + 0.6, 0.4)
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False, borderaxespad=0, fontsize=6)
    return sheet


def _colours(words: list[str]) -> dict[str, str]:
    known = CONDITION_COLOURS | GOAL_COLOURS
    more, greys = iter(_MORE * (len(words) // len(_MORE) + 1)), iter((_BASELINE, _OTHER_BASELINE))
    last = ("blank", _SEVERAL_WORDS)
    sets = sorted(set(words) - {*last}, key=lambda word: (word.startswith("baseline"), word))
    found = {word: known.get(word) or next(greys if word.startswith("baseline") else more) for word in sets}
    return found | {word: colour for word, colour in zip(last, (_BLANK, _SEVERAL), strict=True) if word in words}


def _power(result: xr.Dataset, _: str | None) -> Sheet:
    """A panel per condition and region: power over repeats, a line per number of subjects."""
    given = parameters_of(result)
    facts = [
        *facts_of(result), f"noise ceiling {_pair(given['noise_ceiling'])} of {given['n_averaged']} repeat(s)",
        f"agreement of model and brain {_pair(given['agreement'])}", f"{given['n_experiments']} experiments simulated",
        f"power: part with p < {given['alpha']:g} over subjects",
    ]  # fmt: skip
    conditions, regions = result["condition"].values.tolist(), result["region"].values.tolist()
    sheet, frame = new_sheet(2 * 1.45 + 0.3, "Power of the experiment", facts)
    wide = (frame.width - 1.5) / len(conditions)
    colours = matplotlib.colormaps["viridis"](np.linspace(0, 0.85, result.sizes["n_subjects"]))
    for row, column in np.ndindex(len(regions), len(conditions)):
        left, bottom = 0.6 + column * wide, 0.4 + (1 - row) * 1.4
        axes = sheet.add_axes(frame.rectangle(left, bottom, wide - 0.12, 1.05))
        _draw_power(axes, result.isel(condition=column, region=row), colours)
        axes.set_title(f"{regions[row]}: {conditions[column].replace('_', ' / ')}", fontsize=7, parse_math=False)
        axes.tick_params(labelleft=column == 0, labelbottom=row == 1)
        axes.set_ylabel("Power" if column == 0 else "")
        axes.set_xlabel("Repeats" if row == 1 else "")
    sheet.axes[len(conditions) - 1].legend(
        title="Subjects", loc="upper left", bbox_to_anchor=(1.02, 1.0), frameon=False, borderaxespad=0
    )
    return sheet


def _pair(values: list[float]) -> str:
    return " and ".join(dict.fromkeys(f"{value:.2g}" for value in values))


def _draw_power(axes: Axes, own: xr.Dataset, colours: Any) -> None:
    axes.axhline(0.8, color="0.6", linewidth=0.6, linestyle=":")
    for n, colour in zip(own["n_subjects"].values, colours, strict=True):
        axes.plot(own["n_repeats"].values, own["power"].sel(n_subjects=n).values, ".-", color=colour, label=str(n))
    axes.set_xscale("log", base=2)
    axes.set_xticks(own["n_repeats"].values, [str(n) for n in own["n_repeats"].values])
    axes.minorticks_off()
    axes.set_ylim(-0.03, 1.03)


def _comparison(result: xr.Dataset, _: str | None) -> Sheet:
    given = parameters_of(result)
    facts = [*facts_of(result), f"dots: {result.sizes['subject']} subjects; bars: mean, 95 % interval; x: models",
             f"*: p < {given['alpha']:g} over subjects"]  # fmt: skip
    sheet, frame = new_sheet(HIGH, "Recordings of the chosen pictures", facts)
    unit = str(result["effect"].attrs.get("units", ""))
    axes = sheet.add_axes(frame.rectangle(0.7, 0.3, frame.width - 0.9, HIGH - 0.55))
    if given["of"] == "univariate_control":
        draw_effects(axes, result, with_unit("Recorded response minus baseline", unit))
        for at, side in np.ndindex(*result["predicted_effect"].shape):
            value = float(result["predicted_effect"][at, side])
            axes.plot([at + (side - 0.5) * 0.36], [value], "x", color="0.2", markersize=4)
    else:
        _draw_scores(axes, result)
    return sheet


def _draw_scores(axes: Axes, result: xr.Dataset) -> None:
    """Scores of each subject: the controlling sets, and the baseline."""
    columns = [*((name, result["score"].sel(condition=name).values) for name in GOAL_COLOURS)]
    columns.append(("baseline", result["baseline_score"].values))
    axes.axhline(0, color="0.4", linewidth=0.7)
    for at, (name, values) in enumerate(columns):
        x = at + np.linspace(-0.12, 0.12, len(values)) if len(values) > 1 else [at]
        axes.plot(x, values, ".", color=GOAL_COLOURS.get(name, _BASELINE))
        axes.plot([at - 0.2, at + 0.2], [values.mean()] * 2, "-", color=GOAL_COLOURS.get(name, _BASELINE))
        if name in GOAL_COLOURS and float(result["p_between"].sel(condition=name)) < parameters_of(result)["alpha"]:
            axes.annotate("*", (at, values.max()), (0, 4), textcoords="offset points", ha="center")
    axes.set_xticks(range(len(columns)), [name for name, _ in columns])
    axes.set_xlim(-0.6, len(columns) - 0.4)
    axes.set_ylabel("Score of a set (r)")
