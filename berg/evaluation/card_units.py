"""The units of a model's outputs, as its card and metadata describe them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from berg.core.card_schema import FROM_STIMULUS, OutputArray
from berg.core.exceptions import CorruptedFileError
from berg.core.model_card import ModelCard
from berg.core.unit_labels import AxisKey, Indices, axis_length, coordinates, look_up, region_labels
from berg.evaluation.accuracy_table import Coordinates


def unit_axes(card: ModelCard, output: OutputArray) -> list[str]:
    """The axes along which accuracies differ: neither stimuli nor repetitions nor times of the stimulus."""
    return [axis for axis in output.unit_axes if card.axes[axis].length != FROM_STIMULUS]


def unit_coordinates(
    card: ModelCard, output: OutputArray, indices: Mapping[AxisKey, Indices], metadata: Mapping[str, Any]
) -> Coordinates:
    """What is known of the selected units: their places, the coordinates in the card, and ``roi``."""
    axes = unit_axes(card, output)
    places = {axis: (axis, indices[output.name, axis]) for axis in axes}
    named = {
        name: (axis, values)
        for name, (axis, values) in coordinates(card, output, indices, metadata).items()
        if axis in axes
    }
    return {**places, **_regions(card, output, indices, metadata), **named}


def _regions(
    card: ModelCard, output: OutputArray, indices: Mapping[AxisKey, Indices], metadata: Mapping[str, Any]
) -> Coordinates:
    """The regions that a selection by ``roi`` finds in the metadata."""
    selector = card.select.get("roi")
    if (
        selector is None
        or selector.kind != "roi"
        or selector.axis is None
        or selector.output not in (None, output.name)
    ):
        return {}
    try:
        regions = look_up(metadata, str(selector.metadata), output.name)
    except CorruptedFileError:
        return {}
    if not isinstance(regions, Mapping):
        return {}
    labels = region_labels(regions, axis_length(card, output.name, selector.axis, metadata))
    return {"roi": (selector.axis, labels[indices[output.name, selector.axis]])}
