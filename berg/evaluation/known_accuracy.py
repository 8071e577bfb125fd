"""The accuracy of models that are here: from their tables, or from the metadata that they came with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from berg.core import model_registry
from berg.core.commands import evaluate_command
from berg.core.exceptions import InvalidParameterError, MissingFileError
from berg.core.model_card import ModelCard
from berg.core.parameter_validator import validate_parameters
from berg.core.selection import check_selection, resolve_selection
from berg.evaluation.accuracy_table import (
    Accuracy,
    accuracy_path,
    join_outputs,
    map_outputs,
    outputs_of,
    read_accuracy,
)
from berg.evaluation.published_accuracy import accuracy_from_metadata
from berg.weights import model_files


def known_accuracy(
    model_id: str, berg_dir: str | None, selection: Mapping[str, Any] | None, parameters: Mapping[str, Any]
) -> Accuracy:
    """The accuracy of each selected unit; see `berg.BERG.accuracy`."""
    model_class = _card_class(model_id)
    card: ModelCard = model_class.card
    chosen = check_selection(card, selection) if selection else {}
    values = {**validate_parameters(card, parameters), **chosen}
    of_files = {key: value for key, value in chosen.items() if card.select[key].kind == "file"}
    of_units = {key: value for key, value in chosen.items() if key not in of_files}
    found = [_whole_table(model_class, berg_dir, each) for each in _file_values(card, values, berg_dir)]
    whole = found[0] if len(found) == 1 else _side_by_side(found)
    if not of_units:
        return whole
    indices = resolve_selection(card, of_units, model_class.read_metadata(berg_dir, values))

    def selected(name: str, table: xr.Dataset) -> xr.Dataset:
        chosen_units = table.isel({axis: indices[name, str(axis)] for axis in table.dims})
        return chosen_units.assign_attrs(selection=repr(chosen))

    return map_outputs(selected, whole)


def accuracy_file(card: ModelCard, berg_dir: str | None, values: Mapping[str, Any]) -> Path:
    """Where the table of a model lies, or would, for these parameters and this region."""
    return accuracy_path(model_files.model_folder(card, berg_dir) / model_files.file_names(card, values)[0])


def _card_class(model_id: str) -> Any:
    model_class: Any = model_registry.get_model_class(model_id)
    if not hasattr(model_class, "read_metadata") or not model_class.card.outputs:
        raise InvalidParameterError(
            f"{model_id} is a class of its own, whose card says nothing of outputs; what is known of it may stand in "
            f"berg.get_model_metadata('{model_id}')."
        )
    return model_class


def _file_values(card: ModelCard, values: Mapping[str, Any], berg_dir: str | None) -> list[dict[str, Any]]:
    """What file names are made of: of a key that has a file for each of its values, one map for each value.

    Without a selection, those values of which a table or the metadata are here.
    """
    keys = [key for key in model_files.file_fields(card) if key not in card.parameters]
    if not keys:
        return [dict(values)]
    (key,) = keys
    if key in values:
        given = [values[key]] if isinstance(values[key], str) else list(values[key])
        return [{**values, key: each} for each in given]
    names = [card.select[key].aliases.get(name, name) for name in card.selection_parameters[key].allowed or []]
    each = [{**values, key: name} for name in dict.fromkeys(names)]
    return [one for one in each if _is_here(card, berg_dir, one)] or each[:1]


def _is_here(card: ModelCard, berg_dir: str | None, values: Mapping[str, Any]) -> bool:
    try:
        model_files.metadata_path(card, berg_dir, values)
    except MissingFileError:
        return False
    return True


def _whole_table(model_class: Any, berg_dir: str | None, values: Mapping[str, Any]) -> Accuracy:
    """All units of one file: the table beside the weights, else what the metadata say."""
    card = model_class.card
    path = accuracy_file(card, berg_dir, values)
    if path.is_file():
        return read_accuracy(path)
    attributes = {name: values[name] for name in card.parameters if values.get(name) is not None}
    found = accuracy_from_metadata(card, model_class.read_metadata(berg_dir, values), attributes)
    if found is None:
        raise MissingFileError(
            f"Nothing is known of the accuracy of {card.model_id}: there is no {path}, and its metadata hold none per "
            f"unit. Make it with:  {evaluate_command(card, berg_dir, values)}"
        )
    return found


def _side_by_side(found: Sequence[Accuracy]) -> Accuracy:
    """The units of several files one after another, counted anew."""
    joined = {}
    for name, first in outputs_of(found[0]).items():
        (axis,) = first.dims
        tables = [outputs_of(each)[name] for each in found]
        common = set.intersection(*(set(table.coords) for table in tables))
        tables = [table.drop_vars(set(table.coords) - common) for table in tables]
        whole = xr.concat(tables, axis, data_vars="all", join="outer", combine_attrs="drop_conflicts")
        joined[name] = whole.assign_coords({axis: np.arange(whole.sizes[axis])})
    return join_outputs(joined)
