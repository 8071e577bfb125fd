"""Locks that keep processes apart. The system lets go of the lock of a process that died, however it died."""

from __future__ import annotations

import errno
import logging
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from berg.core.exceptions import StorageError, StoreBusyError
from berg.system.durable_file import storage_errors

logger = logging.getLogger(__name__)

_POLL_SECONDS = 0.1
_READ_ONLY = {errno.EACCES, errno.EPERM, errno.EROFS}


@contextmanager
def wait_for_lock(
    path: Path, what: Path | None = None, kept: str = "", is_cancelled: Callable[[], bool] | None = None
) -> Iterator[None]:
    """Hold a lock alone; wait while another process, or another thread of this one, holds it.

    Parameters
    ----------
    path
        The file of the lock. It is removed at the end.
    what
        What the lock is for, as messages name it; by default the folder of the lock.
    kept
        A sentence about what is not lost if the lock cannot be written.
    is_cancelled
        Asked while waiting; the wait ends if it answers yes.

    Raises
    ------
    StorageError
        If the folder of the lock cannot be written to.
    """
    lock = FileLock(path, thread_local=False)
    with storage_errors(what or path, kept):
        try:
            lock.acquire(timeout=0)
        except Timeout:
            logger.warning("Another process is at work in %s; waiting for it.", what or path.parent)
            lock.acquire(poll_interval=_POLL_SECONDS, cancel_check=is_cancelled)
    try:
        yield
    finally:
        with suppress(OSError):  # while it is held: who waits sees that it is gone; Windows keeps the file
            path.unlink()
        lock.release()


@contextmanager
def directory_lock(berg_dir: Path) -> Iterator[None]:
    """Change the manifests of a BERG directory alone; see `wait_for_lock`."""
    with wait_for_lock(berg_dir / ".berg.lock"):
        yield


@contextmanager
def store_lock(path: Path) -> Iterator[bool]:
    """Hold a store alone, without waiting; its name need not exist yet. Yields False if it can only be read.

    The file of the lock stays, hidden beside the store, with the host and the number of the process that had it last.

    Raises
    ------
    StoreBusyError
        If another process, or another thread of this one, holds it.
    StorageError
        If the folder cannot be written to and there is no store in it, or if it cannot keep locks.
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
    except (OSError, NotImplementedError) as error:  # the latter if a file system keeps no locks
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
