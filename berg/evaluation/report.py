"""One page on a model: what was fitted, on what, and how well it does."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from importlib.metadata import version
from pathlib import Path
from string import Template
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from berg.core.model_card import ModelCard
from berg.evaluation.accuracy_summary import Region, regions
from berg.evaluation.accuracy_table import Accuracy, outputs_of
from berg.evaluation.report_figures import STYLE, figures

MOST_REGIONS = 12  # of the best, and of the worst
_TEMPLATE = Path(__file__).with_name("report.html")
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
_HEADINGS = (
    "",
    "output",
    "units",
    "median r",
    "noise ceiling",
    "noise-normalised r",
    "above chance (false discoveries < 5 %)",
)


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
    parts = {
        "title": escape(f"{card.model_id}{subject}"),
        "description": escape(card.description.strip()),
        "limitations": _paragraph("Limits", card.limitations),
        "model": _definitions(_model_rows(card)),
        "data": _definitions(_data_rows(card, attributes)),
        "overall": _regions_table([region for region in found if not region.name]),
        "figures": "\n".join(_figures(accuracy)),
        "regions": _best_and_worst([region for region in found if region.name]),
        "facts": _facts(facts or {}),
        "variables": _definitions(_variables(accuracy), code=True),
        "citations": _citations(card),
        "version": escape(version("berg")),
    }
    return Template(_TEMPLATE.read_text(encoding="utf-8")).substitute(parts)


def _model_rows(card: ModelCard) -> Iterator[tuple[str, Any]]:
    yield "architecture", card.architecture
    yield "species", card.species
    yield "training dataset", card.training_dataset
    yield "stimuli", card.stimuli
    for name, part in (("features", card.features), ("readout", card.readout), ("fit", card.fit)):
        if part:
            yield name, _words(part)
    yield "responses", "; ".join(f"{out.name} ({', '.join(out.axes)}), {out.unit}" for out in card.outputs)
    yield "licence", card.licence or ""


def _data_rows(card: ModelCard, attributes: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    yield from ((name, attributes[name]) for name in _SHOWN if name in attributes)
    for metric in card.performance.metrics if card.performance else []:
        yield f"{metric.name} (card)", f"{metric.value}. {metric.description.strip()}"


def _variables(accuracy: Accuracy) -> Iterable[tuple[str, Any]]:
    return {
        str(name): values.attrs.get("long_name", "")
        for table in outputs_of(accuracy).values()
        for name, values in table.data_vars.items()
    }.items()


def _figures(accuracy: Accuracy) -> Iterator[str]:
    with matplotlib.rc_context(STYLE):
        for figure, caption in figures(accuracy):
            yield (
                f'<figure><img alt="{escape(caption)}" src="data:image/png;base64,{_png(figure)}">'
                f"<figcaption>{escape(caption)}</figcaption></figure>"
            )


def _png(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def _regions_table(rows: Sequence[Region]) -> str:
    in_time = any(row.peak_time is not None for row in rows)
    head = "".join(f"<th>{escape(name)}</th>" for name in (*_HEADINGS, *(("best r", "at (s)") if in_time else ())))
    body = "".join(f"<tr>{_cells(_row(row, in_time))}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _row(row: Region, in_time: bool) -> list[str]:
    significant = "not tested" if row.n_significant is None else f"{row.n_significant:,}"
    figures_ = [_number(figure) for figure in (row.median_r, row.median_ceiling, row.median_normalised)]
    peak = [_number(row.peak_r), "" if row.peak_time is None else f"{row.peak_time:.3f}"] if in_time else []
    return [row.name or "all units", row.output, f"{row.n_units:,}", *figures_, significant, *peak]


def _cells(texts: Iterable[str]) -> str:
    return "".join(f"<td>{escape(text)}</td>" for text in texts)


def _number(figure: float) -> str:
    return "" if np.isnan(figure) else f"{figure:.3f}"


def _best_and_worst(rows: Sequence[Region]) -> str:
    """All regions by their median r; of many only the best and the worst."""
    ordered = sorted((row for row in rows if not np.isnan(row.median_r)), key=lambda row: -row.median_r)
    if len(ordered) < 2:
        return ""
    if len(ordered) <= 2 * MOST_REGIONS:
        return f"<h2>By region</h2>{_regions_table(ordered)}"
    return (
        f"<h2>Best of {len(ordered)} regions</h2>{_regions_table(ordered[:MOST_REGIONS])}"
        f"<h2>Worst</h2>{_regions_table(ordered[-MOST_REGIONS:])}"
    )


def _facts(facts: Mapping[str, Any]) -> str:
    rows = ((name, _words(value)) for name, value in facts.items())
    return f"<h2>The fit</h2>{_definitions(rows)}" if facts else ""


def _words(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(_words(each) for each in value)
    if isinstance(value, Mapping):
        return "; ".join(f"{key}: {_words(each)}" for key, each in value.items())
    return str(value)


def _definitions(rows: Iterable[tuple[str, Any]], *, code: bool = False) -> str:
    shown = [(str(name) if code else str(name).replace("_", " "), str(value)) for name, value in rows if str(value)]
    return "<dl>" + "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in shown) + "</dl>"


def _paragraph(title: str, text: str | None) -> str:
    return f"<p><b>{escape(title)}.</b> {escape(text.strip())}</p>" if text else ""


def _citations(card: ModelCard) -> str:
    references = [reference if isinstance(reference, str) else _words(reference) for reference in card.references]
    texts = dict.fromkeys(text.strip() for text in (card.citation or "", *references) if text.strip())
    return "<ul>" + "".join(f"<li>{escape(text)}</li>" for text in texts) + "</ul>" if texts else ""
