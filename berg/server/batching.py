"""One thread that computes, and what waits for it: what waits for a model when the thread gets free is one batch.

There is no timer, so that a single client never waits for others. Models take turns, and so do the clients of a model:
the flood of one delays the others by one batch. A batch is of one model and of stimuli of one shape.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter, deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from berg.core.exceptions import BERGError, ServerBusyError
from berg.encoding.store_identity import labelling_metadata
from berg.models.encoding_model import EncodingModel
from berg.server.heard_warnings import hear

logger = logging.getLogger(__name__)

Outputs = list[NDArray[np.float32]]


@dataclass(frozen=True)
class Computed:
    """The responses to the stimuli of one request, one array per output; and what was warned of.

    Attributes
    ----------
    metadata
        Those that label responses to stimuli of this length; empty if nobody wants them.
    """

    outputs: Outputs
    warnings: list[str]
    metadata: dict[str, Any]


@dataclass(eq=False)
class Work:
    """The stimuli of one request, and where its responses go.

    Attributes
    ----------
    stimuli
        Shape (n_stimuli, ...).
    client
        Who asks; clients take turns.
    is_labelled
        Whether the metadata that label the responses are wanted too.
    """

    model: EncodingModel
    stimuli: NDArray[Any]
    client: Hashable
    sampling_rate: int | None = None
    is_labelled: bool = True
    done: Future[Computed] = field(default_factory=Future)

    @property
    def kind(self) -> Hashable:
        """What the works of one batch have in common."""
        return (id(self.model), self.stimuli.shape[1:], self.stimuli.dtype.str, self.sampling_rate)


Compute = Callable[[Sequence[Work]], list[Computed]]


class Batches:
    """A thread that computes what is put in, in batches.

    Parameters
    ----------
    most_waiting, most_of_one
        Requests that wait, of all clients and of one; more are refused.
    most_stimuli
        Of one batch; None: as many as the model computes at once (`EncodingModel.batch_size`).
    turn
        Held while a batch is computed, so that jobs and requests take turns.
    """

    def __init__(
        self,
        most_waiting: int = 256,
        most_of_one: int = 64,
        most_stimuli: int | None = None,
        turn: Any = None,
        compute: Compute | None = None,
    ) -> None:
        self.most_waiting, self.most_of_one, self.most_stimuli = most_waiting, most_of_one, most_stimuli
        self.turn = threading.Lock() if turn is None else turn
        self._compute = compute or encode_together
        self._changed = threading.Condition()
        self._waiting: dict[int, dict[Hashable, deque[Work]]] = {}  # model -> client -> works; the first is next
        self._is_open = True
        self._thread = threading.Thread(target=self._run, name="berg-compute", daemon=True)
        self._thread.start()

    def put(self, work: Work) -> Future[Computed]:
        """Let work wait for its turn. `Future.cancel` takes it back, as long as it waits.

        Raises
        ------
        ServerBusyError
            If too much waits.
        """
        with self._changed:
            of_model = self._waiting.setdefault(id(work.model), {})
            self._check_room(work.client)
            of_model.setdefault(work.client, deque()).append(work)
            self._changed.notify()
        work.done.add_done_callback(lambda done: self._take_back(work) if done.cancelled() else None)
        return work.done

    def n_waiting(self) -> int:
        """Requests that wait."""
        with self._changed:
            return sum(self._counts().values())

    def close(self) -> None:
        """End the thread after its batch; what waits is refused."""
        with self._changed:
            self._is_open = False
            left = [work for clients in self._waiting.values() for works in clients.values() for work in works]
            self._waiting.clear()
            self._changed.notify()
        for work in left:
            _settle(work, ServerBusyError("The server is being stopped. Try again later."))
        self._thread.join()

    def _counts(self) -> Counter[Hashable]:
        found: Counter[Hashable] = Counter()
        for clients in self._waiting.values():
            found.update({client: len(works) for client, works in clients.items()})
        return found

    def _check_room(self, client: Hashable) -> None:
        counts = self._counts()
        if not self._is_open:
            raise ServerBusyError("The server is being stopped. Try again later.")
        if sum(counts.values()) >= self.most_waiting or counts[client] >= self.most_of_one:
            raise ServerBusyError(
                f"{sum(counts.values()):,} requests wait already, {counts[client]:,} of them yours; this server lets "
                f"{self.most_waiting:,} wait, {self.most_of_one:,} of one client. Try again a little later."
            )

    def _take_back(self, work: Work) -> None:
        with self._changed:
            works = self._waiting.get(id(work.model), {}).get(work.client)
            if works is not None and work in works:
                works.remove(work)

    def _run(self) -> None:
        while (batch := self._next_batch()) is not None:
            if batch:
                with self.turn:
                    self._finish(batch)

    def _next_batch(self) -> list[Work] | None:
        """The next works, which nobody can take back any more; None at the end."""
        with self._changed:
            while self._is_open and not any(map(any, (clients.values() for clients in self._waiting.values()))):
                self._waiting.clear()
                self._changed.wait()
            if not self._is_open:
                return None
            return [work for work in self._chosen() if work.done.set_running_or_notify_cancel()]

    def _chosen(self) -> list[Work]:
        """One work of each client of the next model in turn, and so on until the batch is full."""
        model_key, clients = next((key, own) for key, own in self._waiting.items() if any(own.values()))
        del self._waiting[model_key]
        self._waiting[model_key] = clients  # behind the others
        chosen, n_stimuli, most = list[Work](), 0, 0
        while True:
            before = len(chosen)
            for client, works in list(clients.items()):
                work = next((own for own in works if not chosen or own.kind == chosen[0].kind), None)
                if work is None:
                    continue
                most = most or self.most_stimuli or work.model.batch_size
                if chosen and n_stimuli + len(work.stimuli) > most:
                    continue
                works.remove(work)
                chosen.append(work)
                n_stimuli += len(work.stimuli)
                clients[client] = clients.pop(client)  # behind the others
                if not clients[client]:
                    del clients[client]
            if len(chosen) == before or n_stimuli >= most:
                return chosen

    def _finish(self, batch: list[Work]) -> None:
        try:
            for work, computed in zip(batch, self._compute(batch), strict=True):
                _settle(work, computed)
        except BERGError as error:
            self._finish_alone(batch, error)
        except Exception as error:  # told to those who asked; the thread goes on for all others
            logger.exception("A batch of %d failed", len(batch))
            self._finish_alone(batch, error)

    def _finish_alone(self, batch: list[Work], error: Exception) -> None:
        """Compute each work of a batch alone, so that the one that cannot be computed takes no other with it."""
        if len(batch) == 1:
            _settle(batch[0], error)
            return
        for work in batch:
            self._finish([work])


def _settle(work: Work, result: Computed | Exception) -> None:
    try:
        if isinstance(result, Exception):
            work.done.set_exception(result)
        else:
            work.done.set_result(result)
    except InvalidStateError:  # nobody waits for it any more
        pass


def encode_together(batch: Sequence[Work]) -> list[Computed]:
    """The responses of one model to the stimuli of several requests, computed at once."""
    model, sampling_rate = batch[0].model, batch[0].sampling_rate
    stimuli = batch[0].stimuli if len(batch) == 1 else np.concatenate([work.stimuli for work in batch])
    rate = {} if sampling_rate is None else {"sampling_rate": sampling_rate}
    with hear() as warned:
        responses = model.generate_response(stimuli, show_progress=False, **rate)
    if warned and len(batch) > 1 and model.expected_input.kind == "sound":
        # Warnings of pictures are about their size, which all have; those of sounds are about what is in them.
        return [computed for work in batch for computed in encode_together([work])]
    outputs = responses if isinstance(responses, tuple) else (responses,)
    ends = np.cumsum([len(work.stimuli) for work in batch])
    parts = [np.split(output, ends[:-1]) for output in outputs]
    metadata = labelling_metadata(model) if any(work.is_labelled for work in batch) else {}
    return [Computed([part[index] for part in parts], list(warned), metadata) for index in range(len(batch))]
