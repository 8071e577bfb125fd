"""Bars: the mean response of each region, and how well it is predicted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from berg.core.exceptions import InvalidParameterError
from berg.plotting.colours import wrapped
from berg.plotting.page import Frame, Sheet, new_sheet, styled
from berg.plotting.region_means import CeilingUnit, RegionMeans, region_means
from berg.plotting.shown import Stimuli, facts, find_stimuli, quantity_of, shown_title, shown_unit
from berg.responses.formats import stimulus_names
from berg.responses.labelled import Labelled, outputs_of
from berg.responses.subjects import each_subject

BAR, DOT, LINE = "#7f9fc0", "0.2", "#b03a2e"
HIGH = 1.6
_BESIDE = 5  # so many regions leave room for both panels in one row
_UPRIGHT = 9  # more regions than this are written at an angle
_MOST_DOTS = 400
_LEFT = 0.75


def roi_bars(
    labelled: Labelled | Sequence[Labelled],
    stimulus: Stimuli = None,
    minus: Stimuli = None,
    *,
    ceiling_unit: CeilingUnit | None = None,
) -> Sheet:
    """Bars of the mean response of each region, with a dot per stimulus, or per subject if several are given.

    Below, if the labels know it: the mean accuracy of each region on held-out data, with the mean noise ceiling as a
    line. The ceiling is drawn only if it is known to be a correlation, as the accuracy is.

    Parameters
    ----------
    labelled
        Units with the coordinate ``roi``; several subjects as a list.
    stimulus, minus
        Which stimuli, by name or pattern; see `berg.plotting.shown.show`.
    ceiling_unit
        See `berg.plotting.region_means.region_means`.

    Raises
    ------
    InvalidParameterError
        If the units have no regions, or the responses have a time axis.
    """
    given: list[Any] = list(labelled) if isinstance(labelled, (list, tuple)) else [labelled]
    subjects: list[Any] = [one for own in given for one in each_subject(own)]
    if not subjects:
        raise InvalidParameterError("No responses were given. Give labelled responses, or a list with one per subject.")
    with styled():
        means = [region_means(own, ceiling_unit) for own in subjects]
        title = shown_title(stimulus_names(subjects[0]), stimulus, minus)
        sheet, frame = new_sheet(bars_height(means), title, bar_facts(subjects, means, stimulus, minus))
        draw_bars(sheet, frame, subjects, means, stimulus, minus)
    return sheet


def draw_bars(
    sheet: Sheet, frame: Frame, subjects: Sequence[Any], means: list[RegionMeans], stimulus: Stimuli, minus: Stimuli
) -> None:
    """Draw the bars at the bottom of a frame."""
    names = _region_names(means)
    below, wide = _room_below(names), min(frame.width - _LEFT - 0.15, 0.6 + 0.75 * len(names))
    is_beside = _is_beside(means)
    wide = min(wide, frame.width / 2 - _LEFT - 0.05) if is_beside else wide
    bottom = 0.0 if is_beside or means[0].accuracy is None else HIGH + below
    axes = sheet.add_axes(frame.rectangle(_LEFT, bottom + below, wide, HIGH - 0.15))
    chosen = [_chosen(subject, own, stimulus, minus) for subject, own in zip(subjects, means, strict=True)]
    unit, factor = shown_unit(_unit(subjects[0]))
    if len(subjects) == 1:
        dots = factor * chosen[0]
    else:
        own_means = [np.nanmean(own, axis=0) for own in chosen]
        ordered = [_in_order(own, one.names, names) for own, one in zip(own_means, means, strict=True)]
        dots = factor * np.stack(ordered)
    quantity = quantity_of(outputs_of(subjects[0]), minus is not None)
    _draw(axes, names, dots, f"{quantity} ({unit})", _counts(means, names))
    if means[0].accuracy is not None:
        left = _LEFT + (frame.width / 2 if is_beside else 0)
        _draw_accuracy(sheet.add_axes(frame.rectangle(left, below, wide, HIGH - 0.15)), names, means)


def bars_height(means: list[RegionMeans]) -> float:
    """What `draw_bars` takes of a frame, inches."""
    n_rows = 1 if means[0].accuracy is None or _is_beside(means) else 2
    return n_rows * (HIGH + _room_below(_region_names(means)))


def _is_beside(means: list[RegionMeans]) -> bool:
    """Whether the regions are so few that both panels fit into one row."""
    return len(_region_names(means)) <= _BESIDE


def _region_names(means: list[RegionMeans]) -> list[str]:
    return list(dict.fromkeys(name for own in means for name in own.names))


def _room_below(names: list[str]) -> float:
    return 0.36 if len(names) <= _UPRIGHT else 0.75


def bar_facts(subjects: Sequence[Any], means: list[RegionMeans], stimulus: Stimuli, minus: Stimuli) -> tuple[str, ...]:
    """What stands below bars."""
    names = stimulus_names(subjects[0])
    chosen = find_stimuli(names, stimulus)
    known = list(facts(subjects[0], chosen, None if minus is None else find_stimuli(names, minus)))
    if len(subjects) > 1:
        known[1:2] = [f"{len(subjects)} subjects"]
    if len(subjects) > 1 or len(chosen) > 1:
        known.append("dots: " + ("subjects" if len(subjects) > 1 else "stimuli") + ", bars: their mean")
    if means[0].accuracy is not None and means[0].ceiling is not None:
        known.append("red lines: noise ceiling")
    if any(own.ceiling_is_unknown for own in means):
        known.append("the noise ceiling of these labels has no unit and is not drawn (ceiling_unit says it)")
    return tuple(known)


def _chosen(labelled: Any, means: RegionMeans, stimulus: Stimuli, minus: Stimuli) -> NDArray[np.float64]:
    names = stimulus_names(labelled)
    responses = means.responses[find_stimuli(names, stimulus)]
    if minus is None:
        return responses
    if stimulus is None:
        raise InvalidParameterError("A contrast has two sides. Give the stimuli to subtract from too: stimulus=...")
    return np.asarray(responses - means.responses[find_stimuli(names, minus)].mean(axis=0))


def _unit(labelled: Any) -> str:
    return str(next(iter(outputs_of(labelled).values())).attrs.get("units", "")) or "unit not given"


def _in_order(values: NDArray[np.float64], own: list[str], names: list[str]) -> NDArray[np.float64]:
    known = dict(zip(own, values, strict=True))
    return np.array([known.get(name, np.nan) for name in names])


def _counts(means: list[RegionMeans], names: list[str]) -> list[str]:
    """How many units each region has; of several subjects the fewest and the most."""
    counts = np.stack([_in_order(own.n_units.astype(float), own.names, names) for own in means])
    low, high = np.nanmin(counts, axis=0).astype(int), np.nanmax(counts, axis=0).astype(int)
    return [f"{a:,}" if a == b else f"{a:,}–{b:,}" for a, b in zip(low, high, strict=True)]


def _draw(axes: Axes, names: list[str], dots: NDArray[np.float64], label: str, counts: list[str]) -> None:
    places = np.arange(len(names))
    means = np.array([own[np.isfinite(own)].mean() if np.isfinite(own).any() else np.nan for own in dots.T])
    axes.bar(places, means, width=0.68, color=BAR, zorder=1)
    if len(dots) > 1:
        shown = dots[:: -(-len(dots) // _MOST_DOTS)]
        aside = 0.25 * np.linspace(-1, 1, len(shown))[:, None] if len(shown) > 1 else 0.0
        x = np.broadcast_to(places + aside, shown.shape)
        size = 3.2 if len(shown) < 40 else 1.8
        axes.plot(x.ravel(), shown.ravel(), ".", color=DOT, markersize=size, markeredgewidth=0)
    axes.axhline(0, color="0.3", linewidth=0.6)
    _name_regions(axes, names, counts)
    _label(axes, label)


def _draw_accuracy(axes: Axes, names: list[str], means: list[RegionMeans]) -> None:
    places = np.arange(len(names))
    own = np.stack([_in_order(one.accuracy, one.names, names) for one in means if one.accuracy is not None])
    axes.bar(places, np.nanmean(own, axis=0), width=0.68, color="0.72", zorder=1)
    if len(own) > 1:
        aside = 0.25 * np.linspace(-1, 1, len(own))[:, None]
        axes.plot((places + aside).ravel(), own.ravel(), ".", color=DOT, markersize=3.2, markeredgewidth=0)
    ceilings = [_in_order(one.ceiling, one.names, names) for one in means if one.ceiling is not None]
    if ceilings:
        axes.hlines(np.nanmean(ceilings, axis=0), places - 0.38, places + 0.38, color=LINE, linewidth=1.4, zorder=3)
    axes.axhline(0, color="0.3", linewidth=0.6)
    _name_regions(axes, names, None)
    _label(axes, "accuracy, held-out data (r)")


def _name_regions(axes: Axes, names: list[str], counts: list[str] | None) -> None:
    is_upright = len(names) <= _UPRIGHT
    between = "\n" if is_upright else " "
    texts = names if counts is None else [f"{name}{between}({n})" for name, n in zip(names, counts, strict=True)]
    options: Any = {} if is_upright else {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
    axes.set_xticks(range(len(names)), texts, parse_math=False, **options)
    axes.tick_params(axis="x", length=0, labelsize=7 if len(names) <= 16 else 6)
    axes.set_xlim(-0.6, len(names) - 0.4)
    axes.spines["bottom"].set_visible(False)


def _label(axes: Axes, label: str) -> None:
    high = axes.get_position().height * axes.figure.get_figheight()  # type: ignore[union-attr]
    axes.set_ylabel(wrapped(label, high), parse_math=False)
    axes.yaxis.set_major_locator(MaxNLocator(5))
