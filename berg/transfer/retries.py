"""How long a file is tried for."""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True)
class Patience:
    """When to try again, and when to give up.

    Parameters
    ----------
    attempts
        How often in a row nothing, or next to nothing, may come before we give up.
    first_pause, longest_pause
        Seconds. Each pause is about twice the one before it, or what the server asks for.
    connect_seconds, read_seconds
        How long to wait for a connection, and for the next bytes of a file.
    head_seconds
        How long to wait for the whole head of an answer: the name that is looked up, the connection, its encryption,
        and all lines before the file.
    """

    attempts: int = 6
    first_pause: float = 0.5
    longest_pause: float = 30
    connect_seconds: float = 10
    read_seconds: float = 30
    head_seconds: float = 40

    def pause(self, n_failures: int, asked: float | None = None) -> float:
        """Seconds to wait after this many failures, at random so that many clients do not come back at once.

        >>> 1 <= Patience(first_pause=0.5).pause(3) <= 2
        True
        """
        seconds = self.first_pause * 2.0 ** (n_failures - 1) * random.uniform(0.5, 1)
        return min(self.longest_pause, max(seconds, asked or 0))
