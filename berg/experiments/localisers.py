"""Localisers: which units respond more to one category of pictures than to others.

Each unit has Welch's t and d' of one category against others. In silico, responses have no noise of measurement: what
the test is held to is the spread over pictures, so that it says something of other pictures of these categories, and
nothing of other brains.

What is said of a region (how selective its selected units are) comes from other pictures than those that selected the
units: every category is divided into two halves at random; units are selected in one and measured in the other, and
the other way round. Measured in the same pictures, units of pure noise would be selective too.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from berg.core.exceptions import InvalidParameterError, MissingFileError, did_you_mean, listing
from berg.experiments.patterns import Patterns, Responses, patterns
from berg.experiments.result import described, facts_of, parameters_of
from berg.experiments.units import unit_labels
from berg.responses.regions import BETWEEN
from berg.statistics.contrasts import Moments, welch
from berg.statistics.p_values import benjamini_hochberg

if TYPE_CHECKING:
    from berg.plotting.page import Sheet

Labels = Sequence[str] | Mapping[str, str] | str | Path
_HALVES = 2


def localise(
    responses: Responses,
    labels: Labels,
    category: str,
    against: Sequence[str] | None = None,
    *,
    t_threshold: float = 3.0,
    seed: int = 0,
) -> xr.Dataset:
    """Find the units that respond more to one category of pictures than to others.

    Parameters
    ----------
    responses
        Labelled, or an array (stimuli, units); may be larger than the memory.
    labels
        The category of each stimulus: a list in their order; {stimulus: category}; a table (.csv, .tsv) with the
        columns ``stimulus`` and ``category``; or ``"folders"``: the folder in the name of each stimulus.
    category
        Whose units are looked for.
    against
        The categories that it is compared with, taken together; None: all others.
    t_threshold
        Units are selected from here on.
    seed
        Of the two halves of the pictures.

    Returns
    -------
    result
        Per unit ``t``, ``p``, ``q`` (false discovery rate over units), ``d_prime``, ``difference``, ``is_selected``;
        per category and unit ``mean``. If units have regions, per ``region``: the number of units and of selected
        ones, and, measured in pictures that did not select, ``selected_d_prime`` of the mean of the selected units and
        ``selected_mean`` per category.

    Raises
    ------
    InvalidParameterError
        If categories are missing or have fewer than four pictures, or units are not finite.
    """
    given = patterns(responses)
    names = _labels(labels, given)
    others = _others(names, category, against)
    halves = _halves(names, [category, *others], seed)
    moments, halved = _moments(given, names, halves, [category, *others])
    rest = _joined([moments[other] for other in others])
    contrast = welch(moments[category], rest)
    result = xr.Dataset(
        {
            "t": ("unit", contrast.t),
            "p": ("unit", contrast.p),
            "q": ("unit", benjamini_hochberg(contrast.p)),
            "d_prime": ("unit", contrast.d_prime),
            "difference": ("unit", contrast.difference),
            "is_selected": ("unit", contrast.t > t_threshold),
            "mean": (("category", "unit"), np.stack([moments[name].mean for name in (category, *others)])),
            "n_stimuli": ("category", [moments[name].n for name in (category, *others)]),
        },
        {"category": [category, *others]},
    )
    if isinstance(responses, (xr.Dataset, xr.DataTree)):
        result = result.assign_coords(unit_labels(responses))
    result = result.merge(_regions(given, result, halved, names, halves, category, others, t_threshold))
    options: dict[str, Any] = {"labels": labels if isinstance(labels, (str, Path)) else "given", "category": category}
    options |= {"against": others, "t_threshold": t_threshold}
    return described(result, "localise", [given.source], seed, **options)


def _labels(labels: Labels, given: Patterns) -> list[str | None]:
    """The category of each stimulus; None if it has none."""
    if isinstance(labels, (str, Path)):
        labels = _of_folders(given.stimuli) if labels == "folders" else _of_table(Path(labels))
    if isinstance(labels, Mapping):
        known = {str(name): str(category) for name, category in labels.items()}
        if not known.keys() & set(given.stimuli):
            raise InvalidParameterError(
                f"labels names none of the stimuli; it has {listing(known, 3)}, the responses "
                f"{listing(given.stimuli, 3)}."
            )
        return [known.get(name) for name in given.stimuli]
    if len(labels) != len(given.stimuli):
        raise InvalidParameterError(
            f"labels has {len(labels):,} categories for {len(given.stimuli):,} stimuli. Give one for each, "
            "in their order."
        )
    return [None if label is None else str(label) for label in labels]


def _of_folders(stimuli: Sequence[str]) -> dict[str, str]:
    folders = {name: Path(name).parent.name for name in stimuli}
    if not all(folders.values()):
        raise InvalidParameterError(
            f"The name of stimulus '{next(name for name, folder in folders.items() if not folder)}' has no folder in "
            'it. Give labels as a list, {stimulus: category}, or a table; or name stimuli "FOLDER/FILE.png".'
        )
    return folders


def _of_table(path: Path) -> dict[str, str]:
    if not path.is_file():
        raise MissingFileError(
            f'There is no table {path}. labels is a table, a list, {{stimulus: category}} or "folders".'
        )
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ","))
    if not rows or not {"stimulus", "category"} <= rows[0].keys():
        raise InvalidParameterError(f"{path} must have the columns 'stimulus' and 'category', and a row per stimulus.")
    if len({row["stimulus"] for row in rows}) < len(rows):
        raise InvalidParameterError(f"{path} has a stimulus twice. Give each one category.")
    return {row["stimulus"]: row["category"] for row in rows}


def _others(names: Sequence[str | None], category: str, against: Sequence[str] | None) -> list[str]:
    known = list(dict.fromkeys(name for name in names if name is not None))
    others = [name for name in known if name != category] if against is None else list(dict.fromkeys(against))
    if isinstance(against, str):
        raise InvalidParameterError(f"against must be a list of categories: ['{against}'].")
    for name in (category, *others):
        if name not in known:
            raise InvalidParameterError(
                f"No stimulus is of the category '{name}'.{did_you_mean(name, known)} There are: {listing(known)}."
            )
        if (n := list(names).count(name)) < 2 * _HALVES:
            raise InvalidParameterError(
                f"'{name}' has {n} stimuli; each category needs {2 * _HALVES}, two in each half."
            )
    if category in others or not others:
        raise InvalidParameterError(
            f"'{category}' must be compared with other categories. There are: {listing(known)}."
        )
    return others


def _halves(names: Sequence[str | None], wanted: Sequence[str], seed: int) -> NDArray[np.intp]:
    """0 or 1 for each stimulus of the wanted categories, half of each; -1 for the others."""
    rng, labels = np.random.default_rng(seed), np.array(names, object)
    halves = np.full(len(names), -1)
    for name in wanted:
        own = np.flatnonzero(labels == name)
        halves[rng.permutation(own)] = np.arange(len(own)) % _HALVES
    return halves


def _moments(
    given: Patterns, names: Sequence[str | None], halves: NDArray[np.intp], wanted: Sequence[str]
) -> tuple[dict[str, Moments], dict[tuple[str, int], Moments]]:
    """Of each category, and of each half of it; in one pass over the responses."""
    labels = np.array(names, object)
    found: dict[tuple[str, int], Moments] = {}
    for rows, block in given.blocks():
        for name in wanted:
            for half in range(_HALVES):
                own = Moments.of(block[(labels[rows] == name) & (halves[rows] == half)])
                found[name, half] = found[name, half] + own if (name, half) in found else own
    bad = ~np.isfinite(sum(own.mean for own in found.values()))
    if bad.any():
        raise InvalidParameterError(
            f"{int(bad.sum()):,} of {len(bad):,} units have responses that are NaN or infinite. Leave them out:  "
            "responses.dropna('voxel'), with the name of their axis."
        )
    return {name: _joined([found[name, half] for half in range(_HALVES)]) for name in wanted}, found


def _joined(parts: Sequence[Moments]) -> Moments:
    joined = parts[0]
    for part in parts[1:]:
        joined = joined + part
    return joined


def _regions(
    given: Patterns,
    result: xr.Dataset,
    halved: Mapping[tuple[str, int], Moments],
    names: Sequence[str | None],
    halves: NDArray[np.intp],
    category: str,
    others: Sequence[str],
    t_threshold: float,
) -> xr.Dataset:
    """What is known of each region; units without regions are one."""
    members = _members(result)
    selected = [
        welch(halved[category, half], _joined([halved[other, half] for other in others])).t > t_threshold
        for half in range(_HALVES)
    ]
    # (half that is measured, region, stimulus): the mean of the units that the other half selected
    weights = np.stack([[own & selected[1 - half] for own in members.values()] for half in range(_HALVES)])
    counts = weights.sum(-1)
    means = np.concatenate([np.einsum("hru,su->hrs", weights, block) for _, block in given.blocks()], axis=2)
    with np.errstate(invalid="ignore", divide="ignore"):
        means /= counts[..., None]
    labels = np.array(names, object)
    wanted = [category, *others]
    per_half = [
        [Moments.of(means[half][:, (labels == name) & (halves == half)].T) for name in wanted] for half in (0, 1)
    ]
    d_primes = [welch(own[0], _joined(own[1:])).d_prime for own in per_half]
    return xr.Dataset(
        {
            "n_units": ("region", [int(own.sum()) for own in members.values()]),
            "n_selected": ("region", [int((own & result["is_selected"].values).sum()) for own in members.values()]),
            "selected_d_prime": ("region", _mean_of(d_primes)),
            "selected_mean": (
                ("category", "region"),
                np.stack([_mean_of([own[i].mean for own in per_half]) for i in range(len(wanted))]),
            ),
        },
        {"region": [str(name) for name in members], "category": wanted},
    )


def _members(result: xr.Dataset) -> dict[str, NDArray[np.bool_]]:
    """Which units each region has; a unit may be in several (``V1;early``). Units without regions are one."""
    if "roi" not in result.coords:
        return {"all units": np.ones(result.sizes["unit"], bool)}
    own = [str(text).split(BETWEEN) for text in result["roi"].values]
    regions = dict.fromkeys(name for names in own for name in names if name)
    return {region: np.array([region in names for names in own]) for region in regions}


def _mean_of(halves: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Over the halves; NaN if a half selected no unit."""
    return np.asarray(np.mean(halves, axis=0))


def draw(result: xr.Dataset) -> Sheet:
    """Left, how t is spread over units; right, the mean of the selected units per category, in held-out pictures."""
    from berg.plotting.page import new_sheet, styled

    told = parameters_of(result)
    n = int(result["is_selected"].sum())
    counts = [f"{int(own)} {own.category.values}" for own in result["n_stimuli"]]
    title = f"{told['category']} against {', '.join(told['against'])}"
    facts = (
        *facts_of(result),
        f"{n:,} of {result.sizes['unit']:,} units with t > {told['t_threshold']:g}",
        f"pictures: {', '.join(counts)}",
        "right: units selected in one half of the pictures, measured in the other, both ways",
    )
    with styled():
        sheet, frame = new_sheet(2.4, title, facts)
        _draw_t(sheet.add_axes(frame.rectangle(0.6, 0.45, 2.6, 1.75)), result, told["t_threshold"])
        _draw_regions(sheet.add_axes(frame.rectangle(4.0, 0.45, 3.0, 1.75)), result)
    return sheet


def _draw_t(axes: Any, result: xr.Dataset, threshold: float) -> None:
    from berg.plotting.bars import LINE

    t = result["t"].values
    t = t[np.isfinite(t)]
    edge = np.quantile(np.abs(t), 0.995) if t.size else 1.0
    edge = max(edge, 1.2 * abs(threshold))
    axes.hist(np.clip(t, -edge, edge), bins=60, range=(-edge, edge), color="0.6")
    axes.axvline(threshold, color=LINE, linewidth=1)
    axes.annotate(f"t = {threshold:g}", (threshold, 1), (3, -2), xycoords=("data", "axes fraction"), color=LINE,
                  textcoords="offset points", va="top", size=7)  # fmt: skip
    axes.set_xlabel("Welch's t over pictures")
    axes.set_ylabel("units")


def _draw_regions(axes: Any, result: xr.Dataset) -> None:
    n_regions, n_categories = result.sizes["region"], result.sizes["category"]
    shown = [f"#{grey}" for grey in ("3b6ea5", "b9c4cf", "9aa5ad", "d6d0c4", "848484")]
    width = 0.8 / n_categories
    for number, name in enumerate(result.category.values):
        places = np.arange(n_regions) + (number - (n_categories - 1) / 2) * width
        values = result["selected_mean"].sel(category=name).values
        axes.bar(places, values, width=0.9 * width, color=shown[number % len(shown)], label=str(name))
    texts = [
        f"{region}\nd′ {value:.1f}" if np.isfinite(value) else f"{region}\nno units"
        for region, value in zip(result.region.values, result["selected_d_prime"].values, strict=True)
    ]
    upright: Any = {} if n_regions <= 6 else {"rotation": 60, "ha": "right", "rotation_mode": "anchor", "size": 6}
    axes.set_xticks(range(n_regions), texts, parse_math=False, **upright)
    axes.set_xlim(-0.6, n_regions - 0.4)
    axes.axhline(0, color="0.3", linewidth=0.6)
    axes.set_ylabel("response of selected units")
    axes.legend(frameon=False, ncols=2, handlelength=1, loc="lower left", bbox_to_anchor=(0, 1.0), borderpad=0)
