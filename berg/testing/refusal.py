"""How a model refuses what it does not take."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from berg.core.exceptions import BERGError


@dataclass(frozen=True)
class Refusal:
    """The error that a call ended in; without its traceback, which would keep the model in memory."""

    kind: type[Exception]
    text: str

    @property
    def is_ours(self) -> bool:
        """Whether it is one of `berg.core.exceptions` and says something."""
        return issubclass(self.kind, BERGError) and bool(self.text.strip())

    def __str__(self) -> str:
        return f"{self.kind.__name__}: {self.text[:200]}"


def refusal(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Refusal | None:
    """The error that a call ends in, or None if it succeeds."""
    try:
        call(*args, **kwargs)
    except Exception as error:  # which error it is, is the question
        return Refusal(type(error), str(error))
    return None


def not_refused(what: str, found: Refusal | None, kind: type[Exception] = BERGError) -> str | None:
    """A sentence if something was accepted, or refused with an error that is not of this kind; otherwise None."""
    if found is None:
        return f"{what} is accepted"
    if not found.is_ours or not issubclass(found.kind, kind):
        return f"{what} ends in {found} instead of a {kind.__name__}"
    return None
