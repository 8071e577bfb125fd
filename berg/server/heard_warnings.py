"""Warnings about the stimuli of one request, for the one who asked, whatever else the process does meanwhile.

`warnings.catch_warnings` changes the filters of all threads, and two threads that use it can leave the filters of one
to the other for good. Here the function `warnings.warn` is exchanged once, while the server runs, by one that hands
our warnings to the thread that listens.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_heard = threading.local()


@contextmanager
def listening() -> Iterator[None]:
    """While this lasts, warnings of threads that `hear` them go nowhere else."""
    warn = warnings.warn

    def told(message: Any, category: Any = None, stacklevel: int = 1, *rest: Any, **options: Any) -> None:
        texts: list[str] | None = getattr(_heard, "texts", None)
        kind = type(message) if isinstance(message, Warning) else category or UserWarning
        if texts is None or not issubclass(kind, UserWarning):
            warn(message, category, stacklevel + 1, *rest, **options)
        elif str(message) not in texts:
            texts.append(str(message))

    warnings.warn = told
    try:
        yield
    finally:
        warnings.warn = warn


@contextmanager
def hear() -> Iterator[list[str]]:
    """The warnings of this thread, each once, as they come."""
    before, texts = getattr(_heard, "texts", None), list[str]()
    _heard.texts = texts
    try:
        yield texts
    finally:
        _heard.texts = before
