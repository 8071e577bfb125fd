"""One process at a time."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from berg.core.exceptions import StoreBusyError


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a store alone; its name need not exist yet.

    The system lets go of the lock when its process ends, however it ends. The file of the lock stays, hidden
    beside the store, with the host and the number of the process that had it last.

    Raises
    ------
    StoreBusyError
        When another process, or another thread of this one, has it.
    """
    file = path.with_name(f".{path.name}.lock")
    lock = FileLock(file, thread_local=False)
    try:
        lock.acquire(blocking=False)
    except Timeout as error:
        raise StoreBusyError(
            f"{path} is being written by {_owner(file)}. Wait for it, end it, or give another path."
        ) from error
    try:
        file.write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
        yield
    finally:
        lock.release()


def _owner(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8") or "another process"
    except OSError:  # Windows locks the content too
        return "another process"
