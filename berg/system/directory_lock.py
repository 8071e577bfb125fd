"""One process at a time changes the manifests of a BERG directory."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from berg.system.durable_file import storage_errors

logger = logging.getLogger(__name__)


@contextmanager
def directory_lock(berg_dir: Path) -> Iterator[None]:
    """Wait until no other process is at work there; the system lets go of the lock of one that died."""
    path = berg_dir / ".berg.lock"
    lock = FileLock(path)
    with storage_errors(path):
        try:
            lock.acquire(timeout=0)
        except Timeout:
            logger.warning("Another process is at work in %s; waiting for it.", berg_dir)
            lock.acquire()
    try:
        yield
    finally:
        with suppress(OSError):  # who waits for the lock notices; Windows keeps the file
            path.unlink()
        lock.release()
