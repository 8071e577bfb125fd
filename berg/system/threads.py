"""Threads that work ahead of somebody, in order."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")


def n_cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Threads:
    """Threads that finish what they have begun, also after an error.

    Parameters
    ----------
    n_threads
        0: everything is done at once, by who asks for it.
    """

    def __init__(self, n_threads: int) -> None:
        self.n_threads = n_threads
        self.pool = ThreadPoolExecutor(n_threads) if n_threads else None

    def __enter__(self) -> Threads:
        return self

    def __exit__(self, *_: object) -> None:
        if self.pool is not None:
            self.pool.shutdown(wait=True)

    def submit(self, function: Callable[..., R], *arguments: Any) -> Future[R]:
        """Call a function in the next thread that is free."""
        if self.pool is not None:
            return self.pool.submit(function, *arguments)
        done: Future[R] = Future()
        done.set_result(function(*arguments))
        return done

    def map_ahead(self, function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        """The results in order; at most two more are computed or waiting than there are threads."""
        begun: deque[Future[R]] = deque()
        n_ahead = self.n_threads + 1 if self.n_threads else 0
        try:
            for item in items:
                begun.append(self.submit(function, item))
                if len(begun) > n_ahead:
                    yield begun.popleft().result()
            while begun:
                yield begun.popleft().result()
        finally:
            for future in begun:
                future.cancel()
