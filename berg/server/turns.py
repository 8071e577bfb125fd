"""A lock that is given in the order in which it was asked for, so that nobody who asks again at once goes first."""

from __future__ import annotations

import threading
from collections import deque


class Turns:
    """Who computes now. A context manager, which waits for its turn.

    >>> turns = Turns()
    >>> with turns:
    ...     pass
    """

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._is_taken = False
        self._gates: deque[threading.Lock] = deque()

    def __enter__(self) -> None:
        with self._mutex:
            if not self._is_taken:
                self._is_taken = True
                return
            gate = threading.Lock()
            gate.acquire()
            self._gates.append(gate)
        gate.acquire()

    def __exit__(self, *_: object) -> None:
        with self._mutex:
            if self._gates:
                self._gates.popleft().release()
            else:
                self._is_taken = False
