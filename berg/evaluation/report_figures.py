"""Figures of a table of accuracies."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from berg.evaluation.accuracy_table import Accuracy, ceiling_name, outputs_of, r_name, region_names

STYLE: Any = {"font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": 11}
R_COLOUR, MEDIAN_COLOUR, CEILING_COLOUR = "#2c6fa6", "#0b2a44", "#b5b5b5"
MOST_REGIONS = 40
MOST_CHANNELS = 80
_SAMPLE = 20_000  # units in a box: its quartiles do not change by more

Drawn = tuple[Figure, str]


def figures(accuracy: Accuracy) -> Iterator[Drawn]:
    """Each figure with its caption, as far as the table has what it shows."""
    tables = {name: table for name, table in outputs_of(accuracy).items() if r_name(table)}
    if not tables:
        return
    yield _distribution(tables)
    if any(ceiling_name(table) for table in tables.values()):
        yield _against_ceiling(tables)
    if any(len(region_names(table)) > 1 for table in tables.values()):
        yield _by_region(tables)
    for name, table in tables.items():
        if "time" in table.dims and len(table.dims) == 2:
            yield _in_time(name, table)
            if (drawn := _topography(name, table)) is not None:
                yield drawn


def _r(table: xr.Dataset) -> xr.DataArray:
    return table[str(r_name(table))]


def _present(values: xr.DataArray) -> NDArray[Any]:
    present: NDArray[Any] = values.values[~np.isnan(values.values)]
    return present


def _plain(name: str) -> str:
    """A name as it is: between dollar signs, Matplotlib would take it for mathematics."""
    return name.replace("$", r"\$")


def _distribution(tables: dict[str, xr.Dataset]) -> Drawn:
    figure = Figure(figsize=(4.2 * max(len(tables), 1.4), 3.2), layout="constrained")
    all_axes = figure.subplots(1, len(tables), sharey=True, squeeze=False)[0]
    for axes, (name, table) in zip(all_axes, tables.items(), strict=True):
        r = _present(_r(table))
        bins = np.linspace(min(-0.1, r.min(initial=0.0)), 1, 45)
        axes.hist(r, bins, color=R_COLOUR, label=f"r, median {np.median(r):.2f}" if r.size else "r")
        if ceiling := ceiling_name(table):
            own = _present(table[ceiling])
            label = f"noise ceiling, median {np.median(own):.2f}" if own.size else "noise ceiling"
            axes.hist(own, bins, histtype="step", color="#444444", label=label)
        axes.axvline(0, color="#999999", linewidth=0.8)
        axes.set(xlabel="Pearson r", title=_plain(name))
        axes.legend(frameon=False, fontsize=9, loc="upper right")
        axes.yaxis.set_major_locator(
            MaxNLocator(nbins=6, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1)
        )  # units are whole
        axes.yaxis.set_major_formatter("{x:,.0f}")
    all_axes[0].set(ylabel="units", ylim=(0, all_axes[0].get_ylim()[1] * 1.3))  # room for the legends
    return figure, "Accuracy of all units: correlation of predicted and measured responses."


def _against_ceiling(tables: dict[str, xr.Dataset]) -> Drawn:
    shown = {name: (table, own) for name, table in tables.items() if (own := ceiling_name(table))}
    figure = Figure(figsize=(4.4 * len(shown) + 0.4, 4), layout="constrained")
    for axes, (name, (table, ceiling)) in zip(
        figure.subplots(1, len(shown), squeeze=False)[0], shown.items(), strict=True
    ):
        r, top = _r(table).values.ravel(), table[ceiling].values.ravel()
        known = ~(np.isnan(r) | np.isnan(top))
        lowest = float(min(-0.1, r[known].min(initial=0.0)))
        if known.sum() > 2000:
            extent = (0.0, 1.0, lowest, 1.0)
            drawn = axes.hexbin(
                top[known], r[known], gridsize=50, extent=extent, bins="log", cmap="Blues", mincnt=1, linewidths=0
            )
            figure.colorbar(drawn, ax=axes, label="units (log scale)", shrink=0.8)
        else:
            axes.scatter(top[known], r[known], s=9, color=R_COLOUR, alpha=0.5, linewidths=0)
        axes.plot([0, 1], [0, 1], color="#444444", linewidth=1, linestyle="--")
        axes.set(xlabel="noise ceiling (Pearson r)", ylabel="Pearson r", title=_plain(name))
        axes.set(xlim=(-0.02, 1.02), ylim=(lowest, 1.02))
    return figure, "Each unit against what a perfect model could reach, given the noise; on the dashed line it does."


def _by_region(tables: dict[str, xr.Dataset]) -> Drawn:
    members = {name: region_names(table) for name, table in tables.items()}
    medians: dict[str, float] = {}
    for name, table in tables.items():
        for region, own in members[name].items():
            if (r := _present(_of(table, _r(table), own))).size:
                medians[region] = max(medians.get(region, -1.0), float(np.median(r)))
    names = sorted(medians, key=lambda region: -medians[region])[:MOST_REGIONS]
    figure = Figure(figsize=(4.6 * len(tables) + 0.6, 0.24 * len(names) + 1.3), layout="constrained")
    all_axes = figure.subplots(1, len(tables), sharey=True, squeeze=False)[0]
    for axes, (name, table) in zip(all_axes, tables.items(), strict=True):
        _boxes(axes, table, [members[name].get(region) for region in names])
        axes.set(title=_plain(name), xlabel="Pearson r", ylim=(len(names) - 0.4, -0.6))
        axes.set_xlim(right=max(1.02, axes.get_xlim()[1]))
        axes.axvline(0, color="#999999", linewidth=0.8)
        axes.grid(axis="x", color="#eeeeee")
        axes.set_axisbelow(True)
    all_axes[0].set_yticks(range(len(names)), [_plain(name) for name in names])
    caption = "Accuracy by region: quartiles, and 5 % to 95 % of the units."
    if any(ceiling_name(table) for table in tables.values()):
        caption += " Grey: the quartiles of the noise ceiling, with its median."
    return figure, caption


def _of(table: xr.Dataset, values: xr.DataArray, own: NDArray[np.bool_]) -> xr.DataArray:
    return values.isel({str(table["roi"].dims[0]): own})


def _boxes(axes: Axes, table: xr.Dataset, members: list[NDArray[np.bool_] | None]) -> None:
    ceiling = ceiling_name(table)
    for place, own in enumerate(members):
        r = _present(_of(table, _r(table), own)) if own is not None else np.empty(0)
        if ceiling and own is not None and (top := _present(_of(table, table[ceiling], own))).size:
            low, middle, high = np.percentile(top, [25, 50, 75])
            axes.barh(place, high - low, left=low, height=0.6, color=CEILING_COLOUR, alpha=0.5, linewidth=0)
            axes.plot([middle, middle], [place - 0.3, place + 0.3], color="#777777", linewidth=1.2)
        if r.size:
            axes.boxplot(
                r[:: max(1, r.size // _SAMPLE)],
                positions=[place],
                orientation="horizontal",
                widths=0.26,
                whis=(5, 95),
                showfliers=False,
                patch_artist=True,
                manage_ticks=False,
                boxprops={"facecolor": R_COLOUR, "edgecolor": R_COLOUR, "linewidth": 1},  # a box of one unit is a line
                medianprops={"color": MEDIAN_COLOUR, "linewidth": 1.4},
                whiskerprops={"color": R_COLOUR, "linewidth": 1},
                capprops={"color": R_COLOUR, "linewidth": 0},
            )


def _in_time(name: str, table: xr.Dataset) -> Drawn:
    axis = next(str(dim) for dim in table.dims if dim != "time")
    r, times = _r(table).transpose(axis, "time"), table["time"].values.astype(float)
    labels = [_plain(str(each)) for each in table[axis].values]
    figure = Figure(figsize=(9, min(9.5, 2.6 + 0.12 * len(labels)) + 2.2), layout="constrained")
    image_axes, line_axes = figure.subplots(2, 1, sharex=True, height_ratios=[max(1.0, 0.06 * len(labels)), 1])
    _image(figure, image_axes, r.values, times, labels, axis)
    line_axes.fill_between(times, *np.nanpercentile(r.values, [5, 95], axis=0), color=R_COLOUR, alpha=0.2, linewidth=0)
    line_axes.plot(
        times, np.nanmedian(r.values, axis=0), color=R_COLOUR, label=f"r, median of {_plain(axis)}s; 5 % to 95 %"
    )
    if ceiling := ceiling_name(table):
        own = table[ceiling].transpose(axis, "time").values
        line_axes.plot(times, np.nanmedian(own, axis=0), color="#777777", label="noise ceiling, median")
    line_axes.axhline(0, color="#999999", linewidth=0.8)
    line_axes.set(xlabel="time (s)", ylabel="Pearson r")
    line_axes.legend(frameon=False, fontsize=9, loc="upper right")
    line_axes.set_ylim(top=line_axes.get_ylim()[1] * 1.3)
    return figure, f"Accuracy of {name} by {axis} and time."


def _image(figure: Figure, axes: Axes, r: Any, times: NDArray[Any], labels: list[str], axis: str) -> None:
    step = (times[-1] - times[0]) / max(1, len(times) - 1) or 1.0
    extent = (times[0] - step / 2, times[-1] + step / 2, len(labels) - 0.5, -0.5)
    top = float(np.nanmax(np.abs(r), initial=0.1))
    image = axes.imshow(r, aspect="auto", extent=extent, cmap="RdBu_r", vmin=-top, vmax=top, interpolation="none")
    figure.colorbar(image, ax=axes, label="Pearson r", pad=0.01)
    every = max(1, -(-len(labels) // MOST_CHANNELS))
    axes.set_yticks(range(0, len(labels), every), labels[::every], fontsize=6 if len(labels) > 30 else 9)
    axes.set_ylabel(_plain(axis))


def _topography(name: str, table: xr.Dataset) -> Drawn | None:
    """R on the scalp when it is best, where MNE is installed and knows the channels."""
    try:
        import mne
    except ImportError:
        return None
    if "channel" not in table.dims or table["channel"].dtype.kind not in "UO":
        return None
    r = _r(table).transpose("channel", "time")
    known = set(mne.channels.make_standard_montage("colin27_1005").ch_names)
    own = [i for i, channel in enumerate(r["channel"].values) if str(channel) in known]
    if len(own) < 8 or not bool(r.notnull().any()):
        return None
    names = [str(channel) for channel in r["channel"].values[own]]
    info = mne.create_info(names, 1.0, "eeg").set_montage("colin27_1005")
    return _scalps(name, r.isel(channel=own), info)


def _scalps(name: str, r: xr.DataArray, info: Any) -> Drawn:
    import mne

    best = int(np.nanargmax(np.nanmean(r.values, axis=0)))
    times = r["time"].values.astype(float)
    places = np.unique(np.clip([best - len(times) // 12, best, best + len(times) // 12], 0, len(times) - 1))
    figure = Figure(figsize=(2.7 * len(places) + 0.8, 2.8), layout="constrained")
    all_axes = figure.subplots(1, len(places), squeeze=False)[0]
    top = float(np.nanmax(np.abs(r.values[:, places])))
    for axes, place in zip(all_axes, places, strict=True):
        values = np.nan_to_num(r.values[:, place])
        image, _ = mne.viz.plot_topomap(
            values, info, axes=axes, show=False, vlim=(-top, top), cmap="RdBu_r", contours=0
        )
        axes.set_title(f"{times[place]:.3f} s")
    figure.colorbar(image, ax=all_axes, label="Pearson r", shrink=0.8)
    return figure, f"Accuracy of {name} on the scalp, when it is best on average and before and after (nose up)."
