"""The accuracy that the metadata of a model hold, as a table.

The variables keep the names that they have in the metadata, less the name of the output (``lh_correlation`` becomes
``correlation`` of ``lh``, ``correlation_results`` too). How they were computed, and whether in per cent, only the
publication says. Of models with training splits, those of the readouts that the parameters choose: of all splits
together, of one, or of each of the single ones, with its name behind (``correlation_single_training_split_1``).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from berg.core.card_schema import OutputArray
from berg.core.model_card import ModelCard
from berg.core.selection import resolve_selection
from berg.core.unit_labels import axis_length
from berg.evaluation.accuracy_table import Accuracy, accuracy_table, join_outputs
from berg.evaluation.card_units import unit_axes, unit_coordinates

SECTIONS = ("encoding_models", "encoding_model")
_ALL, _SINGLE = "all_training_splits", re.compile(r"single_training[_ ]split_(\d+)")
_OF_DATA = ("noise_ceiling", "ncsnr")  # these stand under the modality too


def accuracy_from_metadata(
    card: ModelCard, metadata: Mapping[str, Any], attributes: Mapping[str, Any]
) -> Accuracy | None:
    """The table of all units; None if the metadata hold no accuracy per unit.

    Parameters
    ----------
    attributes
        What the table is of, such as the subject.
    """
    given = {"model_id": card.model_id, **attributes, "source": "metadata of the model"}
    tables = {output.name: _table(card, output, metadata, given) for output in card.outputs}
    found = {name: table for name, table in tables.items() if table is not None}
    return join_outputs(found) if found else None


def _table(
    card: ModelCard, output: OutputArray, metadata: Mapping[str, Any], attributes: Mapping[str, Any]
) -> xr.Dataset | None:
    lengths = {axis: axis_length(card, output.name, axis, metadata) for axis in unit_axes(card, output)}
    coordinates = unit_coordinates(card, output, resolve_selection(card, {}, metadata), metadata)
    values, described = {}, {}
    for name, place, array in _per_unit(metadata, output.name, len(card.outputs) == 1, tuple(lengths.values())):
        in_section = place.partition(".")[0] in SECTIONS
        kept = _name_of_split(place, name, attributes.get("train_splits")) if in_section else name
        if kept is not None and (in_section or name not in coordinates):
            values[kept], described[kept] = array, f"As in the metadata: {place}"
    if not any(place.split(": ")[1].partition(".")[0] in SECTIONS for place in described.values()):
        return None
    return accuracy_table(values, lengths, coordinates, attributes, described)


def _name_of_split(place: str, name: str, train_splits: str | None) -> str | None:
    """What a variable is called in the table of these training splits; None if it is of other readouts."""
    if train_splits is None:
        return name
    single = _SINGLE.search(place)
    plain = name.removeprefix(f"{_ALL}_") if single is None else name.removeprefix(f"{single[0]}_".replace(" ", "_"))
    is_of_readout = f".{_ALL}." in place or plain == "correlation"
    if single is not None:
        of_each = f"{plain}_single_training_split_{single[1]}" if train_splits == "single" else None
        return plain if train_splits == f"split{single[1]}" else of_each
    return plain if train_splits == "all" or not is_of_readout else None


def _per_unit(
    metadata: Mapping[str, Any], output: str, is_only: bool, shape: tuple[int, ...]
) -> Iterator[tuple[str, str, NDArray[Any]]]:
    """Name, place in the metadata, and values of what has a number for each unit."""
    for place, value in _leaves(metadata, ""):
        section, _, key = place.partition(".")
        array = _array(value)
        if array.shape == shape[::-1] != shape:
            array = array.T  # time first
        if array.dtype.kind != "f" or array.shape != shape or not (is_only or key.startswith(f"{output}_")):
            continue
        name = key.removeprefix(f"{output}_").replace(".", "_").replace(" ", "_")
        name = name.replace("correlation_results", "correlation")
        if section in SECTIONS or name in _OF_DATA:
            yield name, place, array


def _array(value: Any) -> NDArray[Any]:
    try:
        return np.asarray(value)
    except ValueError:  # lists of different lengths
        return np.empty(0)


def _leaves(tree: Mapping[str, Any], above: str) -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value
