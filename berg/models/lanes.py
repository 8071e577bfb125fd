"""The way of a batch to the device and back.

On a GPU the copies go through pinned memory, each direction on a stream of its own, so that the processor, both
directions of the bus and the GPU work at the same time. On a CPU there is nothing to copy, and all else is the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from berg.system.threads import n_cores

Responses = Sequence[Tensor]
"""The responses of a model to some stimuli, one tensor per output."""


class Lane(Protocol):
    """The way of a batch to a device and back.

    Attributes
    ----------
    n_readers
        Threads that read files.
    n_stagers, n_writers
        Threads that bring batches to where they can be copied from, and responses to where they belong.
    n_behind
        Batches that may wait to be written while the next is computed.
    """

    n_readers: int
    n_stagers: int
    n_writers: int
    n_behind: int

    def stage(self, stimuli: Tensor) -> Tensor:
        """Bring a batch to where it can be copied from; called by threads."""

    def to_device(self, staged: Tensor) -> Tensor:
        """Begin the copy to the device; what is computed next waits for it."""

    def to_host(self, computed: Responses) -> Callable[[], Responses]:
        """Begin the copy back; gives what waits for it, which threads call."""


class SameMemory:
    """No way at all: for the CPU, which computes on all cores; and for models on several devices."""

    n_readers: int = 1
    n_stagers: int = 0
    n_writers: int = 0
    n_behind: int = 0

    def stage(self, stimuli: Tensor) -> Tensor:
        """The batch itself."""
        return stimuli

    def to_device(self, staged: Tensor) -> Tensor:
        """The batch itself, which a model on another device copies."""
        return staged

    def to_host(self, computed: Responses) -> Callable[[], Responses]:
        """The responses themselves, which are copied when they are written."""
        return lambda: computed


class PinnedCopies:
    """To a GPU and back through pinned memory, with a stream for each direction.

    PyTorch keeps pinned memory for the next batch, and gives it out only when the copy from or to it is over.
    """

    n_behind: int = 4

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.incoming, self.outgoing = (torch.cuda.Stream(device) for _ in range(2))  # type: ignore[no-untyped-call]
        self.n_readers = self.n_stagers = min(4, n_cores())
        self.n_writers = min(8, n_cores())

    def stage(self, stimuli: Tensor) -> Tensor:
        """A pinned copy."""
        return torch.empty_like(stimuli, pin_memory=True).copy_(stimuli)

    def to_device(self, staged: Tensor) -> Tensor:
        """The batch on the GPU; the stream that computes waits until it is there."""
        computing = torch.cuda.current_stream(self.device)
        with torch.cuda.stream(self.incoming):
            on_device = staged.to(self.device, non_blocking=True)
        computing.wait_stream(self.incoming)
        on_device.record_stream(computing)  # its memory is given to another only when the computation is over
        return on_device

    def to_host(self, computed: Responses) -> Callable[[], Responses]:
        """Copies in pinned memory, float32."""
        self.outgoing.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self.outgoing):
            copies = [self._pinned(response) for response in computed]
            is_over = self.outgoing.record_event()

        def wait() -> Responses:
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
    device = several.pop()
    return PinnedCopies(device) if device.type == "cuda" and not several else SameMemory()
