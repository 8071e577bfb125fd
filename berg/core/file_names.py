"""What the files of a model are called, from its card and the values of its parameters."""

from __future__ import annotations

import re
import string
from collections.abc import Mapping
from itertools import product
from typing import Any

from berg.core.card_schema import Files
from berg.core.exceptions import InvalidParameterError
from berg.core.model_card import ModelCard

_NUMBERS = re.compile(r"\{(\d+)\.\.(\d+)\}")


def expand(pattern: str) -> list[str]:
    """The names that a pattern stands for.

    >>> expand("layer_{0..2}.out")
    ['layer_0.out', 'layer_1.out', 'layer_2.out']
    """
    ends = _NUMBERS.search(pattern)
    if ends is None:
        return [pattern]
    numbers = range(int(ends[1]), int(ends[2]) + 1)
    return [pattern[: ends.start()] + str(number) + pattern[ends.end() :] for number in numbers]


def name_fields(card: ModelCard) -> list[str]:
    """What the file names of a model are filled with, such as subject and roi."""
    if card.files is None:
        return []
    return list(dict.fromkeys([*fields_of(card.files.weights), *fields_of(card.files.metadata)]))


def fields_of(name: str) -> list[str]:
    """The names between braces.

    >>> fields_of("weights_sub-{subject:02d}_roi-{roi}")
    ['subject', 'roi']
    """
    return [field for _, field, _, _ in string.Formatter().parse(name) if field]


def file_name(card: ModelCard, name: str, values: Mapping[str, Any]) -> str:
    """One file name of the card, filled; of several publications, the newest.

    Raises
    ------
    InvalidParameterError
        If a value is missing.
    """
    return generations(card, name, values)[0][0]


def generations(card: ModelCard, name: str, values: Mapping[str, Any]) -> list[list[str]]:
    """The names of the files for these values, as each publication has spelt them, newest first.

    Each publication has one file, or several that belong together; see `berg.core.card_schema.Files`.

    Raises
    ------
    InvalidParameterError
        If a value is missing.
    """
    spelt = _spellings(card.files, name, values)
    found = []
    for each in product(*spelt.values()):
        try:
            found.append(expand(name.format(**{**values, **dict(zip(spelt, each, strict=True))})))
        except (KeyError, TypeError, ValueError) as error:
            needed = fields_of(name)
            missing = [field for field in needed if values.get(field) is None] or needed
            raise InvalidParameterError(
                f"{card.model_id} has a file for each {' and '.join(needed)}; say which {' and '.join(missing)}."
            ) from error
    return found


def _spellings(files: Files | None, name: str, values: Mapping[str, Any]) -> dict[str, list[str]]:
    """How the values are spelt in a name, by parameter, newest first."""
    spellings = {} if files is None else files.spellings
    return {
        field: own[str(values[field])]
        for field, own in spellings.items()
        if field in _respelt(name) and str(values.get(field)) in own
    }


def _respelt(name: str) -> list[str]:
    """The fields of a name without a conversion; ``{scan!s}`` is the value as it is given."""
    return [field for _, field, _, conversion in string.Formatter().parse(name) if field and conversion is None]
