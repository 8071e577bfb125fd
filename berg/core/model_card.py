"""Read a model card: YAML to checked keys, or an error with file, line and the nearest allowed key."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, get_args, get_origin

import pydantic
from pydantic import BaseModel

from berg.core.card_check import Fault, contradictions
from berg.core.card_schema import CardKeys, CardPart, PartT
from berg.core.card_text import to_html, to_text
from berg.core.card_yaml import Lines, parse_card_yaml, read_card_yaml
from berg.core.exceptions import ModelCardError, did_you_mean
from berg.core.stacklevel import users_stacklevel


class UnknownCardKeyWarning(UserWarning):
    """A card of a hand-written class has a key that this version does not know; it is ignored."""


class ModelCard(CardKeys):
    """A model card, read and checked."""

    @classmethod
    def read(cls, path: Path | str) -> ModelCard:
        """The card in a YAML file.

        Raises
        ------
        ModelCardError
            With file, line, key, what is allowed and the nearest allowed name.
        MissingFileError
            If the file cannot be opened.
        """
        return cls._from_data(*read_card_yaml(Path(path)), Path(path))

    @classmethod
    def parse(cls, text: str, source: str = "card.yaml") -> ModelCard:
        """As `read`, from the text itself."""
        return cls._from_data(*parse_card_yaml(text, source), Path(source))

    @classmethod
    def _from_data(cls, raw: dict[str, Any], lines: Lines, path: Path) -> ModelCard:
        known = raw if raw.get("family") is not None else _without_unknown_keys(raw, lines, path)
        card = validated(cls, known, (), lines, str(path))
        card._path, card._raw, card._lines = path, raw, lines
        faults = list(contradictions(card))
        if faults:
            raise ModelCardError(_sentence(faults, lines, str(path)))
        return card

    def __repr__(self) -> str:
        return f"<card of {self.model_id}: {self.modality}, {self.species or 'any species'}, {self.architecture}>"

    def __str__(self) -> str:
        return to_text(self)

    def _repr_html_(self) -> str:
        return to_html(self)

    def part(self, key: str, schema: type[PartT]) -> PartT:
        """One map of the card (``features``, ``readout``), checked by the family that reads it."""
        return validated(schema, getattr(self, key) or {}, (key,), self._lines, str(self._path))


MAX_FAULTS = 8


def validated(schema: type[PartT], data: Any, at: tuple[str | int, ...], lines: Lines, source: str) -> PartT:
    """Data of a YAML file as a part; ModelCardError with file, line, key and the nearest allowed name otherwise."""
    try:
        return schema.model_validate(data)
    except pydantic.ValidationError as error:
        errors = sorted(error.errors(), key=lambda fault: _line((*at, *fault["loc"]), lines))
        faults = [_fault(schema, fault, at) for fault in errors[:MAX_FAULTS]]
        raise ModelCardError(_sentence(faults, lines, source)) from error


def _fault(schema: type[BaseModel], fault: Any, at: tuple[str | int, ...]) -> Fault:
    loc = tuple(fault["loc"])
    name = str(loc[-1]) if loc else ""
    if fault["type"] == "extra_forbidden":
        allowed = _allowed_keys(schema, loc[:-1])
        return (*at, *loc), f"unknown key '{name}'.{did_you_mean(name, allowed)} Allowed: {', '.join(allowed)}"
    if fault["type"] == "missing":
        return (*at, *loc), f"key '{name}' is missing"
    dotted = ".".join(map(str, (*at, *loc)))
    return (*at, *loc), f"{dotted} is {fault['input']!r:.60}: {fault['msg']}"


def _allowed_keys(schema: type[BaseModel], loc: tuple[str | int, ...]) -> list[str]:
    found: Any = schema
    for step in loc:
        found = _step_into(found, step)
    return sorted(found.model_fields)


def _step_into(found: Any, step: str | int) -> Any:
    """The part, list or map at one step of a path inside another."""
    inner: Any = get_args(found)[-1] if get_origin(found) else found.model_fields[step].annotation
    return next(filter(_is_part_or_container, (inner, *get_args(inner))))  # Part of ``Part | None``


def _is_part_or_container(kind: Any) -> bool:
    return get_origin(kind) in (list, dict) or (isinstance(kind, type) and issubclass(kind, CardPart))


def _sentence(faults: list[Fault], lines: Lines, source: str) -> str:
    ordered = sorted(((_line(path, lines), text) for path, text in faults), key=lambda fault: fault[0])
    return f"{source}, " + "; ".join(f"line {line}: {text}" for line, text in ordered[:MAX_FAULTS]) + "."


def _line(path: tuple[str | int, ...], lines: Lines) -> int:
    """The line of the longest part of the path that stands in the file."""
    return next(lines[path[:end]] for end in range(len(path), -1, -1) if path[:end] in lines)


def _without_unknown_keys(raw: dict[str, Any], lines: Lines, path: Path) -> dict[str, Any]:
    """The card of a hand-written class less what this version does not know, with a warning for each."""
    unknown = _unknown_keys(raw)
    for loc in unknown:
        allowed = _allowed_keys(ModelCard, loc[:-1])
        text = f"{path}, line {_line(loc, lines)}: unknown key '{loc[-1]}' is ignored."
        warnings.warn(text + did_you_mean(loc[-1], allowed), UnknownCardKeyWarning, stacklevel=users_stacklevel())
    known: dict[str, Any] = _without(raw, set(unknown), ())
    return known


def _unknown_keys(raw: dict[str, Any]) -> list[tuple[str | int, ...]]:
    try:
        ModelCard.model_validate(raw)
    except pydantic.ValidationError as error:
        return [tuple(fault["loc"]) for fault in error.errors() if fault["type"] == "extra_forbidden"]
    return []


def _without(value: Any, unknown: set[tuple[str | int, ...]], at: tuple[str | int, ...]) -> Any:
    if isinstance(value, dict):
        return {key: _without(child, unknown, (*at, key)) for key, child in value.items() if (*at, key) not in unknown}
    if isinstance(value, list):
        return [_without(child, unknown, (*at, index)) for index, child in enumerate(value)]
    return value
