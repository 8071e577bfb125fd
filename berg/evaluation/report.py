"""One page on a model: what was fitted, on what, and how well it does."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jinja2
import matplotlib
import numpy as np
from matplotlib.figure import Figure

from berg.core.model_card import ModelCard
from berg.evaluation.accuracy_summary import Region, regions
from berg.evaluation.accuracy_table import Accuracy, outputs_of
from berg.evaluation.report_figures import STYLE, figures
from berg.evaluation.report_words import in_words, selection_in_words

MOST_REGIONS = 12  # of the best, and of the worst
_SHOWN = (
    "source",
    "selection",
    "split",
    "n_stimuli",
    "n_repeats",
    "compared",
    "permutations",
    "bootstrap",
    "resampled",
    "n_groups",
    "block_length",
    "date",
)
_NAMES = {"n_stimuli": "stimuli", "n_repeats": "repeats", "n_groups": "groups of stimuli"}
_HEADINGS = (
    "",
    "output",
    "units",
    "median r",
    "noise ceiling",
    "noise-normalised r",
    "above chance (false discoveries < 5 %)",
)
Row = tuple[str, str]


@dataclass(frozen=True)
class _Table:
    """Regions, one per row, as texts."""

    headings: tuple[str, ...]
    rows: list[list[str]]


@dataclass(frozen=True)
class _Picture:
    """A figure as base64 of a PNG, and what it shows."""

    caption: str
    png: str


def write_report(path: Path, card: ModelCard, accuracy: Accuracy, *, facts: Mapping[str, Any] | None = None) -> None:
    """Write the page as one HTML file that needs nothing else: pictures are inside.

    Parameters
    ----------
    facts
        What the fit chose and reached, by name.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(report_html(card, accuracy, facts=facts), encoding="utf-8")
    temporary.replace(path)


def report_html(card: ModelCard, accuracy: Accuracy, *, facts: Mapping[str, Any] | None = None) -> str:
    """The page as text."""
    attributes = next(iter(outputs_of(accuracy).values())).attrs
    subject = f", subject {attributes['subject']}" if "subject" in attributes else ""
    found = regions(accuracy)
    return _template().render(
        title=f"{card.model_id}{subject}",
        description=card.description.strip(),
        limitations=(card.limitations or "").strip(),
        overall=_table([region for region in found if not region.name]),
        figures=_pictures(accuracy),
        regions=_best_and_worst([region for region in found if region.name]),
        data=_shown(_data_rows(card, attributes)),
        model=_shown(_model_rows(card)),
        facts=_shown((facts or {}).items()),
        variables=list(_variables(accuracy)),
        citations=_citations(card),
        version=version("berg"),
    )


def _template() -> jinja2.Template:
    """The page with holes: whatever fills one is escaped, and a hole that nothing fills is an error."""
    folder = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(loader=folder, autoescape=True, undefined=jinja2.StrictUndefined)
    return environment.get_template("report.html")


def _model_rows(card: ModelCard) -> Iterator[tuple[str, Any]]:
    yield "architecture", card.architecture
    yield "species", card.species
    yield "training dataset", card.training_dataset
    yield "stimuli", card.stimuli
    for name, part in (("features", card.features), ("readout", card.readout), ("fit", card.fit)):
        if part:
            yield name, part
    yield "responses", "; ".join(f"{out.name} ({', '.join(out.axes)}), {out.unit}" for out in card.outputs)
    yield "licence", card.licence or ""


def _data_rows(card: ModelCard, attributes: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name in _SHOWN:
        if name in attributes:
            value = attributes[name]
            yield _NAMES.get(name, name), selection_in_words(str(value), card) if name == "selection" else value
    for metric in card.performance.metrics if card.performance else []:
        yield f"{metric.name} (card)", f"{metric.value}. {metric.description.strip()}"


def _variables(accuracy: Accuracy) -> Iterable[Row]:
    return {
        str(name): str(values.attrs.get("long_name", ""))
        for table in outputs_of(accuracy).values()
        for name, values in table.data_vars.items()
        if values.attrs.get("long_name")
    }.items()


def _shown(rows: Iterable[tuple[str, Any]]) -> list[Row]:
    """Names and values in words, without those that are empty."""
    return [(str(name).replace("_", " "), text) for name, value in rows if (text := in_words(value))]


def _pictures(accuracy: Accuracy) -> list[_Picture]:
    with matplotlib.rc_context(STYLE):
        return [_Picture(caption, _png(figure)) for figure, caption in figures(accuracy)]


def _png(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def _table(found: Sequence[Region]) -> _Table:
    in_time = any(region.peak_time is not None for region in found)
    headings = (*_HEADINGS, *(("best r", "at (s)") if in_time else ()))
    return _Table(headings, [_row(region, in_time) for region in found])


def _row(row: Region, in_time: bool) -> list[str]:
    significant = "not tested" if row.n_significant is None else f"{row.n_significant:,}"
    figures_ = [_number(figure) for figure in (row.median_r, row.median_ceiling, row.median_normalised)]
    peak = [_number(row.peak_r), "" if row.peak_time is None else f"{row.peak_time:.3f}"] if in_time else []
    return [row.name or "all units", row.output, f"{row.n_units:,}", *figures_, significant, *peak]


def _number(figure: float) -> str:
    return "" if np.isnan(figure) else f"{figure:.3f}"


def _best_and_worst(found: Sequence[Region]) -> list[tuple[str, _Table]]:
    """All regions by their median r; of many only the best and the worst, each with a heading."""
    ordered = sorted((region for region in found if not np.isnan(region.median_r)), key=lambda own: -own.median_r)
    if len(ordered) < 2:
        return []
    if len(ordered) <= 2 * MOST_REGIONS:
        return [("By region", _table(ordered))]
    return [
        (f"Best of {len(ordered)} regions", _table(ordered[:MOST_REGIONS])),
        ("Worst", _table(ordered[-MOST_REGIONS:])),
    ]


def _citations(card: ModelCard) -> list[str]:
    references = [in_words(reference) for reference in card.references]
    return list(dict.fromkeys(text.strip() for text in (card.citation or "", *references) if text.strip()))
