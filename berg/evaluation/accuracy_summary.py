"""What a table of accuracies comes to: figures per output and region, in words, and in the model's card."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import yaml
from numpy.typing import NDArray

from berg.core.card_yaml import parse_card_yaml, read_card_yaml
from berg.core.exceptions import ModelCardError
from berg.evaluation.accuracy_table import Accuracy, ceiling_name, outputs_of, r_name, region_names

ALPHA = 0.05
_OURS = re.compile(r"\(accuracy table[^()]*\)\s*$")


@dataclass(frozen=True)
class Region:
    """The accuracy of some units of one output: those of a region of interest, of a channel, or all.

    Attributes
    ----------
    name
        Of the region or channel; empty for all units.
    r_name
        The variable that the median is of.
    median_r, median_ceiling, median_normalised
        Over units; NaN where not known.
    peak_time
        If there is an axis of time: when r is largest, in seconds.
    n_significant
        Units whose p, corrected for false discoveries, is below 0.05; None if there was no test.
    """

    output: str
    name: str
    n_units: int
    r_name: str
    median_r: float
    median_ceiling: float
    median_normalised: float
    peak_r: float
    peak_time: float | None
    n_significant: int | None

    @property
    def units(self) -> str:
        """How many, in words."""
        return f"{self.n_units:,} unit{'s' * (self.n_units != 1)}"


def regions(accuracy: Accuracy) -> list[Region]:
    """All regions of interest of each output, or its channels where it has times too, after the output as a whole."""
    return [region for name, table in outputs_of(accuracy).items() for region in _regions(name, table)]


def _regions(output: str, table: xr.Dataset) -> Iterator[Region]:
    yield _region(output, "", table)
    if "roi" in table.coords:
        axis = str(table["roi"].dims[0])
        names = region_names(table)
        yield from (_region(output, name, table.isel({axis: own})) for name, own in names.items())
    elif len(others := [str(dim) for dim in table.dims if dim != "time"]) == 1 < len(table.dims):
        (axis,) = others
        yield from (_region(output, str(name), table.isel({axis: i})) for i, name in enumerate(table[axis].values))


def _region(output: str, name: str, table: xr.Dataset) -> Region:
    measure, ceiling = r_name(table) or "", ceiling_name(table)
    r = table[measure] if measure else xr.DataArray(np.full(1, np.nan))
    significant = table["p_false_discovery"] < ALPHA if "p_false_discovery" in table else None
    known = bool(r.notnull().any())
    peak = r.isel(r.argmax(...)) if known else None  # type: ignore[arg-type]
    return Region(
        output=output,
        name=name,
        n_units=int(np.prod(list(table.sizes.values()))),
        r_name=measure,
        median_r=median(r.values),
        median_ceiling=median(table[ceiling].values) if ceiling else np.nan,
        median_normalised=median(table["noise_normalised"].values) if "noise_normalised" in table else np.nan,
        peak_r=float(peak) if peak is not None else np.nan,
        peak_time=float(peak["time"]) if peak is not None and "time" in peak.coords else None,
        n_significant=None if significant is None else int(significant.sum()),
    )


def median(values: NDArray[Any]) -> float:
    """Over what is not NaN; NaN, without a warning, where nothing is left."""
    present = values[~np.isnan(values)]
    return float(np.median(present)) if present.size else float("nan")


def summary(accuracy: Accuracy) -> list[str]:
    """One line per output.

    Examples
    --------
    >>> from berg.evaluation.accuracy_table import accuracy_table
    >>> summary(accuracy_table({"r": [0.5, 0.25], "noise_ceiling": [0.8, 0.6]}, {"voxel": 2}, {}, {}))
    ['responses: 2 units, median r 0.375, noise ceiling 0.700']
    """
    return [_line(region) for region in regions(accuracy) if not region.name]


def _line(region: Region) -> str:
    parts = [f"{region.output}: {region.units}"]
    if region.r_name:
        parts.append(f"median {region.r_name} {region.median_r:.3f}")
    if not np.isnan(region.median_ceiling):
        parts.append(f"noise ceiling {region.median_ceiling:.3f}")
    if not np.isnan(region.median_normalised):
        parts.append(f"noise-normalised {region.median_normalised:.3f}")
    if region.peak_time is not None:
        parts.append(f"best {region.peak_r:.3f} at {region.peak_time:.3g} s")
    if region.n_significant is not None:
        parts.append(f"{region.n_significant:,} above chance (false discoveries below {ALPHA:.0%})")
    return ", ".join(parts)


def metrics_of(accuracy: Accuracy) -> list[dict[str, Any]]:
    """The entries of a card's performance block: name, value, description."""
    found = []
    tables = outputs_of(accuracy)
    for region in (region for region in regions(accuracy) if not region.name):
        attributes = tables[region.output].attrs
        subject = f", subject {attributes['subject']}" if "subject" in attributes else ""
        suffix = (f", {region.output}" if len(tables) > 1 else "") + subject
        n_stimuli, split = attributes.get("n_stimuli", "?"), attributes.get("split", "?")
        source = f"split {split}, {n_stimuli} stimuli (accuracy table{subject})"
        figures = (
            (f"median {region.r_name}", region.median_r, "Pearson correlation with the measured responses"),
            ("median noise ceiling", region.median_ceiling, "In units of Pearson r"),
            ("median noise-normalised r", region.median_normalised, "Of units whose ceiling is above chance"),
        )
        found += [
            {
                "name": name + suffix,
                "value": round(value, 3),
                "description": f"{what}, {region.units}; {source}",
            }
            for name, value, what in figures
            if not np.isnan(value)
        ]
    return found


def fill_performance(card_path: Path, accuracy: Accuracy, *, keep: bool = False) -> None:
    """Write the figures of a table into a card's performance block; all other text stays as it is.

    Figures that came from tables of other subjects stay. Others are replaced: they are of another fit.

    Parameters
    ----------
    keep
        Keep figures that were written by hand too.

    Raises
    ------
    ModelCardError
        If the card is none, or would be none afterwards; it is left as it was.
    """
    text = card_path.read_bytes().decode("utf-8-sig")
    raw, _ = read_card_yaml(card_path)
    filled = performance_filled(text, raw, metrics_of(accuracy), keep)
    parsed, _ = parse_card_yaml(filled, str(card_path))
    if {**raw, "performance": None} != {**parsed, "performance": None}:
        raise ModelCardError(f"{card_path}: its performance block cannot be replaced; write the figures by hand.")
    temporary = card_path.with_name(f".{card_path.name}.tmp")
    temporary.write_bytes(filled.encode())
    temporary.replace(card_path)


def performance_filled(text: str, raw: Mapping[str, Any], metrics: list[dict[str, Any]], keep: bool) -> str:
    """The text of a card with these metrics in its performance block."""
    before = raw.get("performance") or {}
    names = {metric["name"] for metric in metrics}
    stay = [
        metric
        for metric in before.get("metrics") or []
        if metric.get("name") not in names and (keep or _OURS.search(str(metric.get("description", ""))))
    ]
    block = yaml.safe_dump(
        {"performance": {**before, "metrics": [*stay, *metrics]}}, sort_keys=False, allow_unicode=True, width=110
    )
    newline = "\r\n" if "\r\n" in text else "\n"
    lines = text.splitlines(keepends=True)
    start, end = _block(text, lines, "performance")
    if lines and start == len(lines):
        block = (newline if lines[-1].endswith("\n") else 2 * newline) + block
    return "".join([*lines[:start], block.replace("\n", newline), *lines[end:]])


def _block(text: str, lines: list[str], key: str) -> tuple[int, int]:
    """The lines of a key of the card's first level, less blank lines and comments after it; the end where it is not."""
    node: Any = yaml.compose(text, Loader=yaml.SafeLoader)
    for name, value in node.value:
        if name.value == key:
            start = name.start_mark.line
            end = max(start + 1, value.end_mark.line + (value.end_mark.column > 0))
            while end > start + 1 and (not lines[end - 1].strip() or lines[end - 1].startswith("#")):
                end -= 1
            return start, end
    return len(lines), len(lines)
