"""Batches on their way: read and written by threads while others are computed, in order, and never many at once.

    read (threads) -> copy to the device -> compute (the calling thread) -> copy back -> write (threads)

On a GPU the copies go through pinned memory, each direction on a stream of its own, so that the processor, both
directions of the bus and the GPU work at the same time. On a CPU there is nothing to copy, and the rest is the same.
Warnings, errors and Ctrl-C come to the calling thread; what was computed before is written.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")
Rows = slice
"""Numbers of stimuli: a batch, or a part of one."""
Computed = Sequence[Sequence[Tensor]]
"""For each model, and each of its outputs, the responses to some stimuli."""


class Lane(Protocol):
    """The way of a batch to a device and back."""

    def stage(self, stimuli: Tensor) -> Tensor:
        """Bring a batch to where it can be copied from; called by the threads that read."""

    def to_device(self, staged: Tensor) -> Tensor:
        """Begin the copy to the device; what is computed next waits for it."""

    def to_host(self, computed: Computed) -> Callable[[], Computed]:
        """Begin the copy back; gives what waits for it, called by the threads that write."""


class SameMemory:
    """No way at all: what is computed on the CPU; and models on several devices, which copy for themselves."""

    def stage(self, stimuli: Tensor) -> Tensor:
        """The batch itself."""
        return stimuli

    def to_device(self, staged: Tensor) -> Tensor:
        """The batch itself."""
        return staged

    def to_host(self, computed: Computed) -> Callable[[], Computed]:
        """The responses, which a write brings to the CPU."""
        return lambda: computed


class PinnedCopies:
    """To a GPU and back through pinned memory, with a stream for each direction.

    PyTorch keeps pinned blocks for the next batch, and gives none out before the copy from or to it is over.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.incoming, self.outgoing = torch.cuda.Stream(device), torch.cuda.Stream(device)

    def stage(self, stimuli: Tensor) -> Tensor:
        """A pinned copy."""
        return torch.empty_like(stimuli, pin_memory=True).copy_(stimuli)

    def to_device(self, staged: Tensor) -> Tensor:
        """The batch on the GPU; the stream that computes waits until it is there."""
        computing = torch.cuda.current_stream(self.device)
        with torch.cuda.stream(self.incoming):
            on_device = staged.to(self.device, non_blocking=True)
        computing.wait_stream(self.incoming)
        on_device.record_stream(computing)  # its memory is not given to another before the computation is over
        return on_device

    def to_host(self, computed: Computed) -> Callable[[], Computed]:
        """Copies in pinned memory, float32."""
        self.outgoing.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self.outgoing):
            copies = [[self._pinned(response) for response in responses] for responses in computed]
            is_over = self.outgoing.record_event()

        def wait() -> Computed:
            is_over.synchronize()
            return copies

        return wait

    def _pinned(self, response: Tensor) -> Tensor:
        response.record_stream(self.outgoing)
        as_float = response.float()  # on the GPU, which is faster at it
        copy = torch.empty(as_float.shape, dtype=torch.float32, pin_memory=True)
        return copy.copy_(as_float, non_blocking=True)


def lane_to(devices: Iterable[torch.device]) -> Lane:
    """The way to the one device of all models; models on several devices copy for themselves."""
    several = set(devices)
    only = several.pop() if len(several) == 1 else None
    return PinnedCopies(only) if only is not None and only.type == "cuda" else SameMemory()


@dataclass(frozen=True)
class Traffic:
    """How many threads read and write, and how many batches may wait.

    Parameters
    ----------
    n_readers, n_writers
        Threads.
    n_ahead
        Batches that are read, or being read, before they are asked for.
    n_behind
        Computed parts that may wait to be written while the next is computed; 0: each is written first.
    """

    n_readers: int = 1
    n_writers: int = 1
    n_ahead: int = 1
    n_behind: int = 0


def traffic_to(lane: Lane, n_readers: int = 1, overlap_writes: bool = False) -> Traffic:
    """What suits a lane; on a CPU, which computes on all cores, few threads and few batches."""
    if isinstance(lane, PinnedCopies):
        n_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        n_readers = max(n_readers, min(4, n_cores))
        return Traffic(n_readers, min(8, n_cores), n_ahead=n_readers, n_behind=4)
    return Traffic(n_readers, n_ahead=n_readers, n_behind=int(overlap_writes))


@dataclass(frozen=True)
class ReadBatch(Generic[T]):
    """A batch that was read: the stimuli, and what the reader tells of them."""

    stimuli: Tensor
    told: T


def run(
    batches: Iterable[Rows],
    read: Callable[[Rows], ReadBatch[T]],
    compute: Callable[[Rows, Tensor], Iterator[tuple[Rows, Computed]]],
    write: Callable[[Rows, Computed, T], None],
    *,
    lane: Lane,
    traffic: Traffic,
    done: Callable[[int], object] = lambda n_stimuli: None,
) -> None:
    """Read, compute and write batches.

    Parameters
    ----------
    batches
        In the order in which they are computed.
    read
        Called in threads.
    compute
        Called in this thread, in order: the responses to a batch that is on the device, in one part or, if memory is
        short, in several.
    write
        Called in threads, for several parts at once if ``traffic.n_writers`` is more than 1; in order otherwise.
    done
        Called in this thread with the number of stimuli of each computed batch.
    """

    def read_one(rows: Rows) -> ReadBatch[T]:
        batch = read(rows)
        return ReadBatch(lane.stage(batch.stimuli), batch.told)

    def write_one(rows: Rows, wait: Callable[[], Computed], told: T) -> None:
        write(rows, wait(), told)

    with Threads(traffic.n_readers) as readers, Threads(traffic.n_writers) as writers:
        writes: deque[Future[None]] = deque()
        for rows, batch in readers.map_ahead(read_one, batches, traffic.n_ahead):
            for part, computed in compute(rows, lane.to_device(batch.stimuli)):
                writes.append(writers.submit(write_one, part, lane.to_host(computed), batch.told))
                del computed  # or it would stay in memory while the next is computed
                while len(writes) > traffic.n_behind:
                    writes.popleft().result()
            done(rows.stop - rows.start)
        while writes:
            writes.popleft().result()


class Threads:
    """Threads that finish what they have begun, also after an error, and begin nothing more then."""

    def __init__(self, n_threads: int) -> None:
        self.pool = ThreadPoolExecutor(n_threads)

    def __enter__(self) -> Threads:
        return self

    def __exit__(self, *_: object) -> None:
        self.pool.shutdown(wait=True, cancel_futures=False)

    def submit(self, function: Callable[..., T], *arguments: Any) -> Future[T]:
        """The task, begun when a thread is free."""
        return self.pool.submit(function, *arguments)

    def map_ahead(
        self, function: Callable[[Rows], T], tasks: Iterable[Rows], n_ahead: int
    ) -> Iterator[tuple[Rows, T]]:
        """The tasks and their results in order; `n_ahead` are begun before they are asked for."""
        begun: deque[tuple[Rows, Future[T]]] = deque()
        try:
            for task in tasks:
                begun.append((task, self.submit(function, task)))
                if len(begun) > n_ahead:
                    first, future = begun.popleft()
                    yield first, future.result()
            while begun:
                first, future = begun.popleft()
                yield first, future.result()
        finally:
            for _, future in begun:
                future.cancel()
