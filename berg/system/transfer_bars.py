"""A progress bar for each file under way, and one for all of them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

Advance = Callable[[int], None]


class FileBars(Protocol):
    """What a transfer tells of itself."""

    def begin(self, name: str, total: int | None, n_here: int) -> Advance:
        """Show a file of `total` bytes of which `n_here` are here, or show it anew; the answer moves its bar."""
        ...

    def end(self, name: str) -> None:
        """Show a file no longer."""
        ...


@contextmanager
def transfer_bars(n_bytes: int | None, show: bool | None = None) -> Iterator[FileBars]:
    """Bars on standard error, with rate and time left.

    Parameters
    ----------
    n_bytes
        How many there are in all; None where that is not known.
    show
        None: only where somebody sees it, that is where standard error is a terminal.
    """
    if not (sys.stderr and sys.stderr.isatty() if show is None else show):
        yield _NoBars()
        return
    with _columns() as bars:
        yield _RichBars(bars, n_bytes)


class _NoBars:
    def begin(self, name: str, total: int | None, n_here: int) -> Advance:
        return lambda n: None

    def end(self, name: str) -> None:
        pass


class _RichBars:
    def __init__(self, bars: Any, n_bytes: int | None) -> None:
        self._bars = bars
        self._tasks: dict[str, Any] = {}
        self._all = bars.add_task("in all", total=n_bytes)

    def begin(self, name: str, total: int | None, n_here: int) -> Advance:
        if name in self._tasks:  # begun anew: what had come does not count
            self._bars.advance(self._all, -self._bars._tasks[self._tasks[name]].completed)
            self.end(name)
        task = self._tasks[name] = self._bars.add_task(name, total=total, completed=n_here)
        self._bars.advance(self._all, n_here)

        def advance(n: int) -> None:
            self._bars.advance(task, n)
            self._bars.advance(self._all, n)

        return advance

    def end(self, name: str) -> None:
        if (task := self._tasks.pop(name, None)) is not None:
            self._bars.remove_task(task)


def _columns() -> Any:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
        console=Console(stderr=True),
    )
