"""What Ctrl-C leaves behind, said by the interruption itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def told_if_interrupted(words: Callable[[], str]) -> Iterator[None]:
    """Add a note to a `KeyboardInterrupt`: how much is kept, and how to go on.

    Python shows it below the traceback, the command ``berg`` in its one line.
    """
    try:
        yield
    except KeyboardInterrupt as interruption:
        interruption.add_note(words())
        raise
