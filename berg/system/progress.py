"""Progress bars on standard error: one for a task that takes long, or one per file of a transfer."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any, Protocol, Self

from berg.system.byte_words import size_words

_SECONDS_BETWEEN = 0.5  # two lines in a notebook, each of which is sent to the browser

shown_by_default: bool | None = None
"""Whether bars are shown if nobody says so; None: on a terminal and in a notebook. ``berg -q`` sets it to False."""


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
        None: only if standard error is a terminal, or in a notebook.
    done
        How many are done already; they count in the bar, and not in the rate.
    """
    if not _is_shown(show):
        yield lambda n, description=None: None
        return
    if in_notebook():
        with _Line(description, total, unit, done) as line:
            yield line.advance
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
    if in_notebook():
        with _Line("files", n_bytes, "bytes") as line:
            yield _LineForFiles(line)
        return
    with _bars("bytes", markup=False) as bars:  # a file may be called [red]
        yield _RichBars(bars, n_bytes)


def _is_shown(show: bool | None) -> bool:
    show = shown_by_default if show is None else show
    return bool(sys.stderr and sys.stderr.isatty()) or in_notebook() if show is None else show


@contextmanager
def hidden_bars() -> Iterator[None]:
    """No bars inside the block, where nobody asks for one."""
    global shown_by_default
    before, shown_by_default = shown_by_default, False
    try:
        yield
    finally:
        shown_by_default = before


def in_notebook() -> bool:
    """Whether this runs in a notebook, where a bar is shown below the cell."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return type(shell).__name__ == "ZMQInteractiveShell"


class _Line:
    """A bar as one line of text that is written over: a notebook shows it without ipywidgets, which rich needs."""

    def __init__(self, description: str, total: int | None, unit: str, done: int = 0) -> None:
        self.description, self.total, self.unit = description, total, unit
        self.done = self.done_before = done
        self.begin = self.written = monotonic()

    def __enter__(self) -> Self:
        self._write()
        return self

    def __exit__(self, *_: Any) -> None:
        self._write()
        sys.stderr.write("\n")

    def advance(self, n: int, description: str | None = None) -> None:
        self.done += n
        self.description = description or self.description
        if monotonic() - self.written > _SECONDS_BETWEEN:
            self._write()

    def _write(self) -> None:
        self.written = monotonic()
        rate = (self.done - self.done_before) / max(self.written - self.begin, 1e-9)
        left = f", {(self.total - self.done) / rate:,.0f} s left" if self.total and rate else ""
        of = "" if self.total is None else f" of {self._amount(self.total)}"
        sys.stderr.write(f"\r{self.description}: {self._amount(self.done)}{of}, {self._amount(rate)}/s{left}   ")
        sys.stderr.flush()

    def _amount(self, value: float) -> str:
        if self.unit == "bytes":
            return size_words(value)
        return f"{value:,} {self.unit}" if isinstance(value, int) else f"{value:,.1f} {self.unit}"


class _LineForFiles:
    """One line for all files of a transfer."""

    def __init__(self, line: _Line) -> None:
        self._line = line
        self._came: dict[str, int] = {}

    def begin(self, name: str, total: int | None, n_here: int) -> Advance:
        self._line.advance(n_here - self._came.get(name, 0))  # begun anew: what had come does not count
        self._came[name] = n_here

        def advance(n: int) -> None:
            self._came[name] += n
            self._line.advance(n)

        return advance

    def end(self, name: str) -> None:
        self._came.pop(name, None)


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
