"""Whether a card and a dataset belong together, and what of the metadata comes from where."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from berg.core.card_schema import REPETITION, OutputArray
from berg.core.exceptions import InvalidParameterError, did_you_mean, listing
from berg.core.model_card import ModelCard
from berg.core.unit_labels import OPTIONAL
from berg.datasets.dataset import EncodingDataset

ACCURACY = ("r", "r2", "noise_ceiling", "noise_normalised")
"""Coordinates that the evaluation fills, under these names in the card."""


@dataclass(frozen=True)
class Place:
    """A place in the metadata that the card names, and what belongs there.

    Attributes
    ----------
    path
        Dotted, such as ``fmri.lh_ncsnr``.
    name
        Of the coordinate, or of the selection key.
    is_roi
        Whether only a selection by region reads it.
    is_optional
        Whether it may be missing.
    """

    path: str
    name: str
    output: str
    axis: str
    is_roi: bool
    is_optional: bool


def check_agreement(card: ModelCard, dataset: EncodingDataset, known: Collection[str] = ()) -> None:
    """Raise if outputs, axes, lengths or coordinates of a card are not those of the data.

    Parameters
    ----------
    known
        Names of coordinates that the family's own fit finds.

    Raises
    ------
    InvalidParameterError
        It says what the card names, what the data have, and which of the two to change.
    """
    names = [output.name for output in card.outputs]
    if set(names) != set(dataset.outputs):
        raise InvalidParameterError(
            f"The card of {card.model_id} has the outputs {listing(names)}; the data have {listing(dataset.outputs)}. "
            "Give them the same names."
        )
    for output in card.outputs:
        _check_axes(card, output, dataset)
        _check_coordinates(card, output, known)
    for place in places(card):
        _check_place(place, dataset, known)


def _check_axes(card: ModelCard, output: OutputArray, dataset: EncodingDataset) -> None:
    found = dataset.outputs[output.name]
    expected = output.unit_axes
    if expected != found.axes:
        raise InvalidParameterError(
            f"Output '{output.name}' of {card.model_id} has the axes {listing(expected)}; the data have "
            f"{listing(found.axes)}. Change 'axes' in the card or in dataset.yaml."
        )
    for axis, length in zip(found.axes, found.shape, strict=True):
        stated = card.axes[axis].length
        if isinstance(stated, int) and stated != length:
            raise InvalidParameterError(
                f"Axis '{axis}' of {card.model_id} has {stated:,} places; the data have {length:,} in output "
                f"'{output.name}'. Change 'length' in the card, or leave it out."
            )


def _check_coordinates(card: ModelCard, output: OutputArray, known: Collection[str]) -> None:
    """Raise if the card says that the metadata hold what a fit does not write there."""
    written = {place.path for place in places(card)}
    for name, path in output.coordinates.items():
        place = written_at(path, output)
        if path.endswith(OPTIONAL) or place in written or {name, place.rpartition(".")[2]} & set(known):
            continue
        raise InvalidParameterError(
            f"The card says that the metadata hold '{name}' of each unit of output '{output.name}' ({place}), which a "
            "fit does not write: what it measures goes into the table of accuracy. With a question mark the place may "
            f"be empty; write in the card, under 'outputs', coordinates: {{{name}: {place}{OPTIONAL}}}"
        )


def places(card: ModelCard) -> Iterator[Place]:
    """What the metadata of a model must hold, or may."""
    by_path: dict[str, Place] = {}
    for output in card.outputs:
        for axis in output.axes[1:]:
            for name, path in card.axes[axis].coordinates.items():
                found = Place(written_at(path, output), name, output.name, axis, False, path.endswith(OPTIONAL))
                by_path.setdefault(found.path, found)
        for key, selector in card.select.items():
            if selector.metadata and selector.axis in output.axes and selector.output in (None, output.name):
                path, axis, is_roi = written_at(selector.metadata, output), str(selector.axis), selector.kind == "roi"
                by_path.setdefault(path, Place(path, key, output.name, axis, is_roi, False))
    yield from by_path.values()


def written_at(place: str, output: OutputArray) -> str:
    """Where a fit writes what is read at a place: at the first of several, and without the question mark."""
    return place.format(output=output.name).removesuffix(OPTIONAL).split("|")[0]


def _check_place(place: Place, dataset: EncodingDataset, known: Collection[str]) -> None:
    held = dataset.outputs[place.output].coordinates
    if place.is_optional or place.axis == REPETITION or place.name in (*held, *known, *ACCURACY, place.axis):
        return
    last = place.path.rpartition(".")[2]
    if last in (*held, *known, *ACCURACY):
        return
    raise InvalidParameterError(
        f"The card names '{place.name}' along '{place.axis}' ({place.path}), which the data do not say for output "
        f"'{place.output}'.{did_you_mean(place.name, held)} Add it to the coordinates in dataset.yaml, or take it out "
        "of the card."
    )
