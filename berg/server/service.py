"""What the server does with a request, from the model that is asked for to the responses."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np

from berg.core import model_registry
from berg.core.card_schema import StimulusInput
from berg.core.exceptions import InvalidParameterError, ModelNotFoundError, ServerBusyError, listing
from berg.core.file_names import name_fields
from berg.core.model_card import ModelCard
from berg.facade import BERG
from berg.models.encoding_model import EncodingModel
from berg.server.answers import Answered, answer
from berg.server.batching import Batches, Computed, Work
from berg.server.contract import EncodeRequest
from berg.server.descriptions import SERVERS_OWN
from berg.server.heard_warnings import hear, listening
from berg.server.limits import Limits
from berg.server.loaded_models import LoadedModels
from berg.server.tagged_json import untagged
from berg.server.turns import Turns
from berg.server.uploads import Received, Upload, receive
from berg.system.threads import n_cores

T = TypeVar("T")


@dataclass(frozen=True)
class Settings:
    """How a server is started.

    Attributes
    ----------
    models
        Ids of those that it offers; empty: all that can be used here.
    memory
        Bytes of models that are kept.
    most_stimuli
        Of one batch; None: as many as the model computes at once, 1: no batches.
    """

    models: tuple[str, ...] = ()
    device: str = "auto"
    memory: int = 2**32
    limits: Limits = field(default_factory=Limits)
    most_stimuli: int | None = None


class Service:
    """Models, and the threads that decode, load and compute for them.

    Threads that decode pictures and write answers, threads that wait for a model to be loaded, and one that computes.
    """

    def __init__(self, berg: BERG, settings: Settings) -> None:
        self.berg, self.settings, self.limits = berg, settings, settings.limits
        for model_id in settings.models:
            model_registry.get_card(model_id)
        self.models = LoadedModels(self._load, settings.memory)
        self.turns = Turns()
        limits = settings.limits
        self.batches = Batches(limits.waiting, limits.waiting_of_one, settings.most_stimuli, self.turns)
        self._decoders = ThreadPoolExecutor(max(2, n_cores()), "berg-decode")
        self._loaders = ThreadPoolExecutor(4, "berg-load")
        self.inside: dict[str, int] = {}
        self._closing = ExitStack()
        self._closing.enter_context(listening())

    def close(self) -> None:
        """Let what is computed end; refuse what waits; let go of the models."""
        self.batches.close()
        for pool in (self._decoders, self._loaders):
            pool.shutdown(wait=True, cancel_futures=True)
        self.models.close()
        self._closing.close()

    def cards(self) -> list[ModelCard]:
        """The cards of the models that are offered."""
        offered = self.settings.models or self.berg.list_models()
        return [card for card in model_registry.readable_cards() if card.model_id in offered]

    def card(self, model_id: str) -> ModelCard:
        """The card of one of them.

        Raises
        ------
        ModelNotFoundError
        """
        card = model_registry.get_card(model_id)
        if self.settings.models and model_id not in self.settings.models:
            raise ModelNotFoundError(
                f"This server does not offer {model_id}. Its models: {listing(self.settings.models)}."
            )
        return card

    async def encode(
        self, asked: EncodeRequest, uploads: Sequence[Upload], client: str, is_gone: Callable[[], Any]
    ) -> Answered:
        """The responses that a request asks for.

        Parameters
        ----------
        is_gone
            Waits until the client has gone; the request then leaves the queue.
        """
        with self.admitted(client):
            return await self._encode(asked, uploads, client, is_gone)

    async def _encode(
        self, asked: EncodeRequest, uploads: Sequence[Upload], client: str, is_gone: Callable[[], Any]
    ) -> Answered:
        expected = self.expected(asked)
        using = self.using(asked)
        is_loaded = self.models.has(asked.model, untagged(asked.parameters), untagged(asked.selection))
        model = using.__enter__() if is_loaded else await self.in_loader(using.__enter__)
        try:
            received, warned = await self._in_decoder(lambda: _received(uploads, expected, self.limits, asked))
            self._check_values(model, received, asked)
            is_labelled = asked.format != "arrays"
            work = Work(model, received.stimuli, client, received.sampling_rate, is_labelled)
            computed = await self._computed(work, is_gone)
            told = replace(computed, warnings=list(dict.fromkeys([*warned, *computed.warnings])))
            if not is_labelled:
                return answer(told, received.names, asked)
            return await self._in_decoder(lambda: answer(told, received.names, asked))
        finally:
            using.__exit__(None, None, None)

    def using(self, asked: EncodeRequest) -> Any:
        """The model of a request, loaded, as a context manager.

        Raises
        ------
        ModelNotFoundError, InvalidParameterError
        """
        parameters, selection = untagged(asked.parameters), untagged(asked.selection)
        check_parameters(self.card(asked.model), {**parameters, **(selection or {})})
        return self.models.using(asked.model, parameters, selection)

    async def in_loader(self, function: Callable[[], T]) -> T:
        """Call a function that may take long, such as loading a model."""
        return await asyncio.get_running_loop().run_in_executor(self._loaders, function)

    async def _in_decoder(self, function: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._decoders, function)

    async def _computed(self, work: Work, is_gone: Callable[[], Any]) -> Computed:
        done = asyncio.wrap_future(self.batches.put(work))
        gone = asyncio.ensure_future(is_gone())
        try:
            await asyncio.wait({done, gone}, return_when=asyncio.FIRST_COMPLETED)
            if done.done():
                return done.result()
            raise ServerBusyError("The client has gone.")
        finally:
            gone.cancel()
            done.cancel()  # which takes it out of the queue, if it waits there

    @contextmanager
    def admitted(self, client: str) -> Iterator[None]:
        """Count a request from when it has come to when it is answered.

        Raises
        ------
        ServerBusyError
            If there are too many.
        """
        self.check_room(client)
        self.inside[client] = self.inside.get(client, 0) + 1
        try:
            yield
        finally:
            self.inside[client] -= 1
            if not self.inside[client]:
                del self.inside[client]

    def check_room(self, client: str) -> None:
        """Raise ServerBusyError if there are too many requests, of all or of this client."""
        n_all, n_own = sum(self.inside.values()), self.inside.get(client, 0)
        if n_all >= self.limits.waiting or n_own >= self.limits.waiting_of_one:
            raise ServerBusyError(
                f"{n_all:,} requests wait already, {n_own:,} of them yours; this server lets {self.limits.waiting:,} "
                f"wait, {self.limits.waiting_of_one:,} of one client. Try again a little later."
            )

    def _load(self, model_id: str, parameters: Mapping[str, Any], selection: Mapping[str, Any] | None) -> EncodingModel:
        model = self.berg.get_encoding_model(model_id, self.settings.device, selection, **parameters)
        if not isinstance(model, EncodingModel):
            raise InvalidParameterError(
                f"{model_id} is a class of its own, which is not served. Use it in Python:  berg.load('{model_id}')"
            )
        return model

    def expected(self, asked: EncodeRequest) -> StimulusInput:
        """What the model of a request takes; its parameters are checked.

        Raises
        ------
        ModelNotFoundError, InvalidParameterError
        """
        card = self.card(asked.model)
        check_parameters(card, {**untagged(asked.parameters), **(untagged(asked.selection) or {})})
        if card.input is None:
            raise InvalidParameterError(f"The card of {card.model_id} says nothing under 'input'.")
        return card.input

    def _check_values(self, model: EncodingModel, received: Received, asked: EncodeRequest) -> None:
        n_values = 0
        for shape in _shapes(model, received):
            n_values += len(received.stimuli) * int(np.prod(shape, dtype=object))
        self.limits.check_values(n_values, asked.format == "json" and asked.numbers == "list")


def _shapes(model: EncodingModel, received: Received) -> list[tuple[int, ...]]:
    """The responses to one stimulus; of an axis that is as long as the stimulus, as many places as it has samples."""
    n_samples = received.stimuli.shape[-1]
    return [
        tuple(
            len(model.indices[output.name, axis]) if (output.name, axis) in model.indices else n_samples
            for axis in output.axes[1:]
        )
        for output in model.card.outputs
    ]


def _received(
    uploads: Sequence[Upload], expected: StimulusInput, limits: Limits, asked: EncodeRequest
) -> tuple[Received, list[str]]:
    """The stimuli, and what was warned of while they were read."""
    with hear() as warned:
        found = receive(
            uploads,
            expected,
            limits,
            size=asked.size,
            fit=asked.fit,
            sampling_rate=asked.sampling_rate,
            names=asked.names,
        )
    return found, warned


def check_parameters(card: ModelCard, given: Mapping[str, Any]) -> None:
    """Raise InvalidParameterError for what the server decides, and for what could lead to another file."""
    for name in (*SERVERS_OWN, "berg_dir"):
        if name in given and name != "compile":
            raise InvalidParameterError(f"'{name}' is chosen by the server. Leave it out.")
    if given.get("compile"):
        raise InvalidParameterError("This server compiles no networks. Leave 'compile' out.")
    for name in name_fields(card):
        for value in _listed(given.get(name)):
            if isinstance(value, str) and (not value.isprintable() or any(part in value for part in ("/", "\\", ".."))):
                raise InvalidParameterError(f"'{name}' is {value!r:.60}, which is no name. See its card.")


def _listed(value: Any) -> Collection[Any]:
    return value if isinstance(value, (list, tuple)) else [value]
