"""How much memory there is, and whether arrays fit into it."""

from __future__ import annotations

import mmap
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from berg.core.exceptions import DeviceMemoryError
from berg.system.byte_words import size_words as size_words  # for those that import it from here

_KEPT_BYTES = 2**25 - 2**16  # a little less than 32 MiB, above which glibc learns nothing
_CGROUP = Path("/sys/fs/cgroup")


def reuse_freed_memory() -> None:
    """Let memory that was used for one batch be used for the next, if the C library is glibc.

    glibc gives what is freed back to the system, and asks for it anew, unless an array as large was freed before: it
    then keeps twice as much. Without this the built-in model took up to twice the processor's time, by chance.
    """
    np.empty(_KEPT_BYTES, np.uint8)


def release_pages(array: Any) -> None:
    """Let go of what was touched of a memory map; the system keeps it in its cache, outside this process.

    Without it, a map that is read or written from end to end counts as memory of the process, all of it.
    """
    mapped = getattr(array, "_mmap", None)
    # What was written to a private map (mode "c") is nowhere else and would be lost.
    if isinstance(array, np.memmap) and mapped is not None and array.mode != "c" and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)


def check_array_memory(shapes: Sequence[tuple[int, ...]]) -> None:
    """Raise DeviceMemoryError if float32 arrays of these shapes do not fit into memory together.

    The system would give them out all the same, and end the process when they are filled.
    """
    needed, free = sum(4 * int(np.prod(shape)) for shape in shapes), free_memory()
    if needed > free:
        raise DeviceMemoryError(
            f"The responses need {size_words(needed)} of memory, and {size_words(free)} are free. Have them written to "
            'the disk while they are computed, with out="NAME.zarr" (--out NAME.zarr), or select fewer units '
            "(selection=..., --selection)."
        )


def free_memory() -> int:
    """Bytes of memory that this process can still have: of the machine, or of its group if that has less."""
    return min([int(psutil.virtual_memory().available), *_group_limits()])


def peak_memory() -> int:
    """The most memory that this process has had so far, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would count what the process that started this one had
        (line,) = (line for line in status.read_text(encoding="utf-8").splitlines() if line.startswith("VmHWM:"))
        return 1024 * int(line.split()[1])
    try:
        import resource
    except ImportError:  # Windows
        memory = psutil.Process().memory_info()
        return int(getattr(memory, "peak_wset", memory.rss))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _group_limits() -> Iterator[int]:
    """What the limits of clusters and containers leave (Linux, version 2 of the control groups)."""
    try:
        own = Path("/proc/self/cgroup").read_text(encoding="utf-8").rpartition("::/")[2].strip()
    except OSError:
        return
    group = _CGROUP / own
    for folder in [group, *group.parents]:
        try:
            yield int((folder / "memory.max").read_text()) - int((folder / "memory.current").read_text())
        except (OSError, ValueError):  # no such file, or "max"
            continue
