"""What a card says of the recordings that a model is to be fitted to: outputs, axes, labels, subjects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from berg.core.card_schema import REPETITION, StimulusKind

_BETWEEN = ";"  # the regions of one unit
_ROI, _TIME = "roi", "time"


@dataclass(frozen=True)
class OutputFacts:
    """One output of recordings.

    Attributes
    ----------
    axes, shape
        Of the units.
    labels
        By name, the axis and what its positions are called.
    """

    name: str
    axes: tuple[str, ...]
    shape: tuple[int, ...]
    unit: str
    labels: Mapping[str, tuple[str, Sequence[Any]]]


@dataclass(frozen=True)
class DataFacts:
    """What recordings say of themselves: their outputs, whose they are, and what they are responses to.

    Attributes
    ----------
    kind
        Of the stimuli, as a card names it (``input.kind``).
    """

    outputs: Sequence[OutputFacts]
    subjects: Sequence[Any]
    kind: StimulusKind = "image"

    @property
    def axes(self) -> list[str]:
        """The axes of the units, each once."""
        return list(dict.fromkeys(axis for output in self.outputs for axis in output.axes))

    def labels(self) -> Iterator[tuple[str, str, list[Any]]]:
        """Each name of labels once, with its axis and the labels of all outputs."""
        found: dict[str, tuple[str, list[Any]]] = {}
        for output in self.outputs:
            for name, (axis, values) in output.labels.items():
                found.setdefault(name, (axis, []))[1].extend(values)
        yield from ((name, axis, values) for name, (axis, values) in found.items())


def parts_of_card(facts: DataFacts, modality: str) -> dict[str, Any]:
    """The keys ``output``, ``outputs``, ``axes``, ``select`` and ``parameters`` of a card.

    Places in the metadata are those that a fit fills: the labels of the data, and numbers of what has none.
    """
    place = f"{modality}.{{output}}_" if len(facts.outputs) > 1 else f"{modality}."
    labels = list(facts.labels())
    axes = {axis: _axis(axis, labels, place) for axis in facts.axes}
    selectors = {key: part for key, part in (_selector(*label, place) for label in labels) if part}
    return {
        "output": _output(facts),
        "outputs": [{"name": own.name, "axes": ["stimulus", *own.axes], "unit": own.unit} for own in facts.outputs],
        "axes": axes,
        "select": {key: {name: part[name] for name in ("kind", "axis", "metadata")} for key, part in selectors.items()},
        "parameters": {**_subject(facts.subjects), **_selection(selectors)},
    }


def _output(facts: DataFacts) -> dict[str, Any]:
    lengths = {axis: length for own in facts.outputs for axis, length in zip(own.axes, own.shape, strict=True)}
    units = ", ".join(dict.fromkeys(own.unit for own in facts.outputs))
    words = " x ".join(f"{length:,} ({axis})" for axis, length in lengths.items())
    dimensions = [{"name": "batch_size", "description": "The stimuli, in the order given."}]
    dimensions += [{"name": f"n_{axis}", "description": f"Along {axis}, in the order of the data."} for axis in lengths]
    return {
        "type": "numpy.ndarray",
        "shape": ["batch_size", *(f"n_{axis}" for axis in lengths)],
        "description": f"The predicted responses, {units}; in the data {words}.",
        "dimensions": dimensions,
    }


def _axis(axis: str, labels: Sequence[tuple[str, str, Any]], place: str) -> dict[str, Any]:
    """The numbers or names of its positions first: they tell how many there are."""
    names = dict.fromkeys([axis, *(name for name, own, _ in labels if own == axis)])
    return {"coordinates": {name: f"{place}{name}" for name in names}} if axis != REPETITION else {}


def _selector(name: str, axis: str, values: Sequence[Any], place: str) -> tuple[str, dict[str, Any]]:
    """How units are chosen by labels: regions by name, channels by name, a window of time; else none."""
    if name == _ROI:
        regions = dict.fromkeys(part.strip() for text in values for part in str(text).split(_BETWEEN) if part.strip())
        return name, {"kind": "roi", "axis": axis, "metadata": f"{place}rois", **_one_of(list(regions))}
    if name == _TIME and len(values):
        window = [round(float(min(values)), 6), round(float(max(values)), 6)]
        words = "A window in seconds, [first, last], both included."
        said = {"type": "list", "example": window, "description": words}
        return name, {"kind": "range", "axis": axis, "metadata": f"{place}{name}", "said": said}
    if name == axis and len(values) and isinstance(values[0], str):
        return f"{name}s", {"kind": "name", "axis": axis, "metadata": f"{place}{name}", **_one_of([*values])}
    return name, {}


def _one_of(names: list[str]) -> dict[str, Any]:
    known = list(dict.fromkeys(names))
    said = {"type": "str or list", "valid_values": known, "description": "One name or a list of them."}
    return {"said": said if known else {"type": "str or list", "description": "One name or a list of them."}}


def _subject(subjects: Sequence[Any]) -> dict[str, Any]:
    known = list(subjects) or [1]
    kind = "int" if all(isinstance(each, int) for each in known) else "str"
    said = {"type": kind, "required": True, "valid_values": known, "example": known[0]}
    return {"subject": {**said, "description": "The subject.", "function": "get_encoding_model"}}


def _selection(selectors: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    said = {"type": "dict", "required": False, "description": "Which units to return; all if nothing is selected."}
    properties = {key: part["said"] for key, part in selectors.items()}
    return {"selection": {**said, "function": "get_encoding_model", "properties": properties}}
