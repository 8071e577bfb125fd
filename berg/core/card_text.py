"""A card for people: one walk over it, written as text or as Markdown."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from html import escape
from textwrap import fill
from typing import Any

from berg.core.card_schema import CardKeys, OutputArray, Parameter, ResponseOutput
from berg.core.tables import html_table


@dataclass(frozen=True)
class Section:
    """A heading, an introduction, and rows of (name, value, remark)."""

    title: str
    text: str = ""
    rows: list[tuple[str, str, str]] = field(default_factory=list)


def sections(card: CardKeys) -> list[Section]:
    """The card in the order in which a reader wants it."""
    parts = [
        _overview(card),
        Section("Limitations", (card.limitations or "").strip()),
        _input(card),
        _output(card),
        Section("Parameters", rows=[_parameter(*item) for item in card.parameters.items()]),
        _selection(card),
        _performance(card),
        Section("References", "\n".join(_reference(item) for item in card.references)),
        Section("Licence and citation", "\n".join(filter(None, (card.licence, card.citation)))),
    ]
    return [part for part in parts if part.text or part.rows]


def to_text(card: CardKeys, width: int = 96) -> str:
    """The card as text for a terminal."""
    return "\n\n".join(_section_as_text(part, width) for part in sections(card))


def to_markdown(card: CardKeys) -> str:
    """The card as a Markdown page."""
    return "\n\n".join(_section_as_markdown(part, level=min(index, 1) + 1) for index, part in enumerate(sections(card)))


def to_html(card: CardKeys) -> str:
    """The card as HTML, as a notebook shows it."""
    return "".join(_section_as_html(part, level=min(index, 1) + 3) for index, part in enumerate(sections(card)))


def _section_as_html(section: Section, level: int) -> str:
    text = f"<p>{escape(section.text)}</p>" if section.text else ""
    table = html_table(["", "", ""], section.rows) if section.rows else ""
    return f"<h{level}>{escape(section.title)}</h{level}>{text}{table}"


def _overview(card: CardKeys) -> Section:
    rows = [
        ("modality", card.modality, ""),
        ("training dataset", card.training_dataset, ""),
        ("species", card.species, ""),
        ("stimuli", card.stimuli, ""),
        ("architecture", card.architecture, ""),
        ("creator", card.creator, ""),
        ("licence", card.licence or "", ""),
    ]
    return Section(card.model_id, card.description.strip(), [row for row in rows if row[1]])


def _input(card: CardKeys) -> Section:
    given = card.input
    if given is None:
        return Section("Input")
    values = f"{given.range[0]:g} to {given.range[1]:g}" if given.range else ""
    rows = [
        ("kind", given.kind, ""),
        ("type", given.type, ""),
        ("shape", _shape(given.shape), ""),
        ("dtype", given.dtype or "", "any integer dtype is taken" if given.dtype == "uint8" else ""),
        ("values", values, given.unit or ""),
        ("sampling rate", f"{given.sampling_rate:,} Hz" if given.sampling_rate else "", "others are resampled"),
        ("frame rate", f"{given.frame_rate:,} Hz" if given.frame_rate else "", "grey; berg.load_film converts"),
    ]
    constraints = "\n".join(f"- {constraint}" for constraint in given.constraints)
    text = "\n".join(filter(None, (given.description.strip(), constraints)))
    return Section("Input", text, [row for row in rows if row[1]])


def _shape(shape: list[Any] | str) -> str:
    return shape if isinstance(shape, str) else f"({', '.join(map(str, shape))})"


def _output(card: CardKeys) -> Section:
    given = card.output or ResponseOutput()
    rows = [row for output in card.outputs for row in _output_rows(output)]
    if not rows and given.shape:
        rows = [("shape", _shape(given.shape), "")]
    rows += [(dimension.name, "", dimension.description.strip()) for dimension in given.dimensions]
    return Section("Output", given.description.strip(), rows)


def _output_rows(output: OutputArray) -> list[tuple[str, str, str]]:
    """An output, and those of its variants that have other axes."""
    variants = [
        (f"{output.name} ({', '.join(variant.axes)})", output.unit, f"With {name}={value!r}.")
        for name, values in output.variants.items()
        for value, variant in values.items()
        if variant.axes
    ]
    return [(f"{output.name} ({', '.join(output.axes)})", output.unit, ""), *variants]


_RULES = {
    "intersection": "the units that all of them pick",
    "sorted_union": "the units that any of them picks, each once, in ascending order whatever the order given",
    "concatenation": "the units of each, in this order of the keys and in the order of the names given; a unit that "
    "is picked twice comes twice",
}


def _selection(card: CardKeys) -> Section:
    """The keys, and what several of them on one axis return."""
    return Section("Selection", "\n".join(_selection_rules(card)), [_parameter(*item) for item in _keys(card)])


def _keys(card: CardKeys) -> list[tuple[str, Parameter]]:
    return list(card.selection_parameters.items())


def _selection_rules(card: CardKeys) -> Iterator[str]:
    for key, selector in card.select.items():
        if selector.overrides:
            yield f"- {key} wins over {', '.join(selector.overrides)}."
    for axis, described in card.axes.items():
        losers = {loser for selector in card.select.values() for loser in selector.overrides}
        keys = [key for key, selector in card.select.items() if selector.axis == axis and key not in losers]
        if len(keys) > 1 or (keys and described.combine != "intersection"):
            yield f"- {', '.join(keys)} ({axis}): {_RULES[described.combine]}."


def _parameter(name: str, parameter: Parameter) -> tuple[str, str, str]:
    remarks = [" ".join(parameter.description.split())]
    if parameter.allowed is not None:
        remarks.append(f"One of: {', '.join(map(str, parameter.allowed))}.")
    if parameter.minimum is not None or parameter.maximum is not None:
        remarks.append(f"{_span(parameter)} {parameter.unit or ''}".rstrip() + ".")
    if parameter.default is not None:
        remarks.append(f"Default: {parameter.default}.")
    if parameter.example is not None:
        remarks.append(f"Example: {parameter.example!r}.")
    kind = f"{parameter.type}, required" if parameter.required else parameter.type
    return name, kind, " ".join(filter(None, remarks))


def _span(parameter: Parameter) -> str:
    if parameter.maximum is None:
        return f"At least {parameter.minimum:g}"
    if parameter.minimum is None:
        return f"At most {parameter.maximum:g}"
    return f"From {parameter.minimum:g} to {parameter.maximum:g}"


def _performance(card: CardKeys) -> Section:
    metrics = card.performance.metrics if card.performance else []
    rows = [(metric.name, str(metric.value), " ".join(metric.description.split())) for metric in metrics]
    return Section("Performance", rows=rows)


def _reference(reference: Any) -> str:
    if isinstance(reference, dict):
        return "\n".join(f"- {key}: {value}" for key, value in reference.items())
    return f"- {reference}"


def _section_as_text(part: Section, width: int) -> str:
    lines = [part.title, "-" * len(part.title)]
    lines += [_wrapped(paragraph, width, 2 * paragraph.startswith("- ")) for paragraph in _paragraphs(part.text)]
    name_width = min(24, max((len(name) for name, _, _ in part.rows), default=0))
    for name, value, remark in part.rows:
        line = f"{name:<{name_width}}  {value}".rstrip()
        whole = f"{line}. {remark}" if value else f"{line}  {remark}"
        lines.append(_wrapped(whole if remark else line, width, name_width + 2))
    return "\n".join(lines)


def _paragraphs(text: str) -> list[str]:
    """The lines of a text put together again; empty lines and list items begin a new paragraph."""
    paragraphs: list[str] = [""]
    for line in text.splitlines():
        if not line.strip() or line.startswith("- "):
            paragraphs.append("")
        paragraphs[-1] = f"{paragraphs[-1]} {line.strip()}".strip()
    return [paragraph for paragraph in paragraphs if paragraph]


def _wrapped(text: str, width: int, indent: int) -> str:
    return fill(text, width, subsequent_indent=" " * indent, break_on_hyphens=False, break_long_words=False)


def _section_as_markdown(part: Section, level: int) -> str:
    lines = [f"{'#' * level} {part.title}", "", part.text, ""]
    if part.rows:
        lines += ["| | | |", "|---|---|---|"]
        lines += ["| " + " | ".join(_cell(text) for text in row) + " |" for row in part.rows]
    return "\n".join(lines).strip()


def _cell(text: str) -> str:
    return " ".join(str(text).split()).replace("|", "\\|")
