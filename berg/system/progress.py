"""Progress bars on standard error: one for a task that takes long, or one per file of a transfer."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol


class Advance(Protocol):
    """Says that `n` more are done."""

    def __call__(self, n: int) -> None: ...


class AdvanceAndTell(Advance, Protocol):
    """Says that `n` more are done, and in other words than before what is being done."""

    def __call__(self, n: int, description: str | None = None) -> None: ...


class FileBars(Protocol):
    """A bar for each file under way, and one for all of them."""

    def begin(self, name: str, total: int | None, n_here: int) -> Advance:
        """Show a file of `total` bytes of which `n_here` are here, or show it anew; the answer moves its bar."""
        ...

    def end(self, name: str) -> None:
        """Show a file no longer."""
        ...


@contextmanager
def progress_bar(
    description: str, total: int, unit: str, show: bool | None = None, done: int = 0
) -> Iterator[AdvanceAndTell]:
    """A bar with rate and time left; yields what moves it on.

    Parameters
    ----------
    total
        How many there are to do, in `unit` (such as "stimuli"; "bytes" are shown as kB, MB or GB).
    show
        None: only if standard error is a terminal.
    done
        How many are done already; they count in the bar, and not in the rate.
    """
    if not _is_shown(show):
        yield lambda n, description=None: None
        return
    with _bars(unit) as bars:
        task = bars.add_task(description, total=total, completed=done)

        def advance(n: int, description: str | None = None) -> None:
            bars.update(task, advance=n, description=description)

        yield advance


@contextmanager
def transfer_bars(n_bytes: int | None, show: bool | None = None) -> Iterator[FileBars]:
    """Bars for the files of a transfer, with rate and time left.

    Parameters
    ----------
    n_bytes
        How many there are in all; None if that is not known.
    show
        As in `progress_bar`.
    """
    if not _is_shown(show):
        yield _NoBars()
        return
    with _bars("bytes", markup=False) as bars:  # a file may be called [red]
        yield _RichBars(bars, n_bytes)


def _is_shown(show: bool | None) -> bool:
    return bool(sys.stderr and sys.stderr.isatty()) if show is None else show


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
            came = next(task.completed for task in self._bars.tasks if task.id == self._tasks[name])
            self._bars.advance(self._all, -came)
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


def _bars(unit: str, markup: bool = True) -> Any:
    """The columns: what, bar, how many, rate, time left."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}", markup=markup),
        BarColumn(),
        *_counts(unit),
        TimeRemainingColumn(elapsed_when_finished=True),
        console=Console(stderr=True),
    )


def _counts(unit: str) -> tuple[Any, ...]:
    """How many are done, and how many per second."""
    from rich.progress import DownloadColumn, MofNCompleteColumn, ProgressColumn, Task, TextColumn, TransferSpeedColumn
    from rich.text import Text

    if unit == "bytes":
        return DownloadColumn(), TransferSpeedColumn()

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text("" if speed is None else f"{speed:.1f} {unit}/s", style="progress.data.speed")

    return MofNCompleteColumn(), TextColumn(unit), Rate()
