"""Calls that may block for ever (a name that is looked up, a server that drips), waited for as long as we like.

A socket's own timeout begins anew with each byte; here a whole call has one. Each series of calls runs in a thread
of its own, which is left behind when it does not end in time: as a daemon it keeps nobody from leaving.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

Result = TypeVar("Result")

THREADS = "berg-download"
_here = threading.local()


class Overdue(Exception):
    """A call did not end in time."""


class CallsStopped(Exception):
    """The call was given up from outside, by `BoundedCalls.stop`."""


class BoundedCalls:
    """A thread that runs one call after another.

    Attributes
    ----------
    socket
        What the thread waits for, as far as it is known; told by `uses_socket`. It is shut down when the thread is
        left behind, so that the thread ends, too.
    """

    def __init__(self) -> None:
        self.socket: Any = None
        self._calls: SimpleQueue[Callable[[], Any] | None] = SimpleQueue()
        self._outcomes: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()
        self._is_waiting = self._is_left = False
        threading.Thread(target=self._run, name=THREADS, daemon=True).start()

    def call(self, function: Callable[[], Result], seconds: float) -> Result:
        """The result of a function, or the error that it raised.

        Raises
        ------
        Overdue
            After so many seconds. Nothing can be called after that.
        CallsStopped
            At once when `stop` is called.
        """
        self._is_waiting = True
        self._calls.put(function)
        try:
            result, error = self._outcomes.get(timeout=seconds)
        except Empty as empty:
            raise Overdue from empty
        if error is not None:
            self._is_waiting = isinstance(error, CallsStopped)
            raise error
        self._is_waiting = False
        found: Result = result
        return found

    def stop(self) -> None:
        """End the wait of `call`, in whatever thread it is."""
        self._outcomes.put((None, CallsStopped()))

    def end(self, last: Callable[[], object]) -> None:
        """Leave the thread; it runs a last call as soon as it can, whose result nobody waits for."""
        self._is_left = True
        self._calls.put(last)
        self._calls.put(None)
        if self._is_waiting:
            self._shut_down()

    def uses(self, opened: Any) -> None:
        """Take note of a socket, in the thread itself; one that comes too late is shut down at once."""
        self.socket = opened
        if self._is_left:
            self._shut_down()

    def _shut_down(self) -> None:
        """Wake the thread if it waits for its socket."""
        plain = getattr(self.socket, "socket", self.socket)  # TLS inside TLS is an object around the socket
        with suppress(OSError, TypeError):  # closed already; or there is none yet
            socket.socket.shutdown(plain, socket.SHUT_RDWR)  # not that of `ssl`, which first changes its object

    def _run(self) -> None:
        _here.calls = self
        while (function := self._calls.get()) is not None:
            self._outcomes.put(_outcome(function))
            del function


def _outcome(function: Callable[[], Any]) -> tuple[Any, BaseException | None]:
    try:
        return function(), None
    except BaseException as error:  # raised again where it is waited for
        return None, error


def uses_socket(opened: Any) -> None:
    """Tell the series of calls that this thread runs, if it runs one, what it waits for."""
    if (calls := getattr(_here, "calls", None)) is not None:
        calls.uses(opened)
