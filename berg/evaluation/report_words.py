"""Values of cards, tables and selections in words."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

from berg.core.model_card import ModelCard

MOST_VALUES = 12  # of a list that is written out


def in_words(value: Any) -> str:
    """A number with four digits, a list or a map without brackets, anything else as it is."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(in_words(each) for each in value)
    if isinstance(value, Mapping):
        return "; ".join(f"{key}: {in_words(each)}" for key, each in value.items())
    return str(value)


def selection_in_words(selection: str, card: ModelCard) -> str:
    """The selection of a table, ``"{'roi': ['V1'], 'x_deg': [0, None]}"``, as one would say it.

    >>> from berg.core.model_registry import get_card
    >>> selection_in_words("{'reliable': True, 'x_deg': [0, None]}", get_card("fmri-szinte2024-prf_css"))
    'reliable; x_deg from 0'
    """
    try:
        chosen = ast.literal_eval(selection)
    except (ValueError, SyntaxError):  # arrays are written as numpy prints them
        return " ".join(selection.split())
    if not isinstance(chosen, dict):
        return str(chosen)
    return "; ".join(_key_in_words(str(key), value, card) for key, value in chosen.items()) or "all units"


def _key_in_words(key: str, value: Any, card: ModelCard) -> str:
    selector = card.select.get(key)
    if isinstance(value, bool):
        return key if value else f"{key}: no"
    if selector is not None and selector.kind == "minimum":
        return f"{key} {in_words(value)}"
    if selector is not None and selector.kind == "range" and isinstance(value, (list, tuple)) and len(value) == 2:
        return f"{key} {_range_in_words(*value)}"
    return f"{key}: {_values_in_words(value)}"


def _range_in_words(low: Any, high: Any) -> str:
    bounds = [f"{word} {in_words(bound)}" for word, bound in (("from", low), ("to", high)) if bound is not None]
    return " ".join(bounds) or "without bounds"


def _values_in_words(value: Any) -> str:
    values = list(value) if isinstance(value, (list, tuple)) else [value]
    if len(values) <= MOST_VALUES:
        return in_words(values)
    if set(values) <= {0, 1}:
        return f"{sum(map(bool, values)):,} of {len(values):,}"
    return f"{in_words(values[:MOST_VALUES])} and {len(values) - MOST_VALUES:,} more"
