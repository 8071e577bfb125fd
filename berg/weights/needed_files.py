"""Which files of its own a model needs."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any

from berg.core.commands import listed_values
from berg.core.exceptions import InvalidParameterError
from berg.core.model_card import ModelCard
from berg.core.parameter_values import validate_value
from berg.core.selection import check_selection
from berg.weights import model_files


def file_values(
    card: ModelCard, selection: Mapping[str, Any] | None, parameters: Mapping[str, Any], everything: bool = False
) -> list[dict[str, Any]]:
    """What the file names of a model are filled with: one map for each combination of the values given.

    Parameters
    ----------
    selection, parameters
        Those that no file name holds change nothing. A parameter may be a list of values.
    everything
        All values that the card lists for what is not given, in place of an error.

    Raises
    ------
    InvalidParameterError
        If a value is needed, or is none that the model takes.
    """
    chosen = check_selection(card, selection) if selection else {}
    choices = {
        field: _choices(card, field, {**parameters, **chosen}, everything) for field in model_files.file_fields(card)
    }
    unknown = set(parameters) - set(card.parameters)
    if unknown:
        raise InvalidParameterError(f"{card.model_id} has no parameter {', '.join(map(repr, sorted(unknown)))}.")
    return [dict(zip(choices, values, strict=True)) for values in product(*choices.values())]


def _choices(card: ModelCard, field: str, given: Mapping[str, Any], everything: bool) -> list[Any]:
    if field in given:
        values = given[field] if isinstance(given[field], (list, tuple)) else [given[field]]
        if field in card.parameters:
            if card.parameters[field].several:
                values = [validate_value(given[field], card.parameters[field], field)]
                values = values[0] if isinstance(values[0], list) else values
            else:
                values = [validate_value(value, card.parameters[field], field) for value in values]
        return list(dict.fromkeys(values))
    allowed = listed_values(card, field)
    if everything and allowed:
        return allowed
    if field in card.parameters and card.parameters[field].default is not None:
        return [card.parameters[field].default]
    raise InvalidParameterError(
        f"{card.model_id} has files for each {field}; say which ({field}="
        f"{allowed[0]!r} for example), or ask for all of them (--all, everything=True)."
        if allowed
        else f"{card.model_id} has files for each {field}; say which."
    )
