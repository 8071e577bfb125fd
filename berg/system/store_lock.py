"""One process at a time."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from berg.core.exceptions import StorageError, StoreBusyError

_READ_ONLY = {errno.EACCES, errno.EPERM, errno.EROFS}


@contextmanager
def locked(path: Path) -> Iterator[bool]:
    """Hold a store alone; its name need not exist yet. Gives False where nothing can be written, and nothing is held.

    The system lets go of the lock when its process ends, however it ends. The file of the lock stays, hidden
    beside the store, with the host and the number of the process that had it last.

    Raises
    ------
    StoreBusyError
        When another process, or another thread of this one, has it.
    StorageError
        When the folder cannot be written to and there is no store in it, or cannot keep locks.
    """
    file = path.with_name(f".{path.name}.lock")
    lock = FileLock(file, thread_local=False)
    held = _acquire(lock, file, path)
    try:
        if held:
            with suppress(OSError):  # a full disk; the lock is held all the same
                file.write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
        yield held
    finally:
        lock.release()


def _acquire(lock: FileLock, file: Path, path: Path) -> bool:
    """Whether the lock is held; if not, the store is there and can be read."""
    try:
        lock.acquire(blocking=False)
    except Timeout as error:
        raise StoreBusyError(
            f"{path} is being written by {_owner(file)}. Wait for it, end it, or give another path."
        ) from error
    except (OSError, NotImplementedError) as error:  # the latter where a file system keeps no locks
        if getattr(error, "errno", None) in _READ_ONLY and path.is_dir():
            return False
        raise StorageError(
            f"{path} cannot be written: {getattr(error, 'strerror', None) or error}. Look at the owner and the rights "
            f"of its folder with  ls -ld {path.parent}  or give a path in another."
        ) from error
    return True


def _owner(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8") or "another process"
    except OSError:  # Windows locks the content too
        return "another process"
