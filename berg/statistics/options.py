"""Checks of options that tests and intervals share."""

from __future__ import annotations

from collections.abc import Iterable

from berg.core.exceptions import InvalidParameterError


def check_choice(name: str, given: str, allowed: Iterable[str]) -> None:
    """Raise InvalidParameterError if a choice is none of those allowed."""
    if given not in allowed:
        raise InvalidParameterError(f"{name}={given!r} is not known. Allowed: {', '.join(map(repr, allowed))}.")


def check_level(level: float) -> None:
    """Raise InvalidParameterError if the level of an interval is not between 0 and 1."""
    if not 0 < level < 1:
        raise InvalidParameterError(f"level is {level}; it must lie between 0 and 1. Try level=0.95.")
