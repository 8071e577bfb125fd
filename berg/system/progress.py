"""One progress bar for everything that takes long."""

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


@contextmanager
def progress_bar(
    description: str, total: int, unit: str, show: bool | None = None, done: int = 0
) -> Iterator[AdvanceAndTell]:
    """A bar on standard error with rate and time left; yields what moves it on.

    Parameters
    ----------
    total
        How many there are to do, in `unit` (such as "stimuli"; "bytes" are shown as kB, MB or GB).
    show
        None: only where somebody sees it, that is where standard error is a terminal.
    done
        How many are done already; they count in the bar, and not in the rate.
    """
    if not (sys.stderr and sys.stderr.isatty() if show is None else show):
        yield lambda n, description=None: None
        return
    with _bar(unit) as bar:
        task = bar.add_task(description, total=total, completed=done)

        def advance(n: int, description: str | None = None) -> None:
            bar.update(task, advance=n, description=description)

        yield advance


def _bar(unit: str) -> Any:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text("" if speed is None else f"{speed:.1f} {unit}/s", style="progress.data.speed")

    counts = (MofNCompleteColumn(), TextColumn(unit), Rate())
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        *((DownloadColumn(), TransferSpeedColumn()) if unit == "bytes" else counts),
        TimeRemainingColumn(elapsed_when_finished=True),
        console=Console(stderr=True),
    )
