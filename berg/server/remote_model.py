"""A model whose weights are on a server: cards, labels and selections are here, and responses come from there.

Stimuli are opened, checked and read here by the same code as for every other model, and sent as arrays; so the numbers,
the errors and the labels are the same, and stores, exports and lists of models work.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, ClassVar, NoReturn, Self

import numpy as np
import torch
from numpy.typing import NDArray

from berg.core.card_text import to_text
from berg.core.exceptions import InvalidParameterError, ServerError
from berg.core.model_card import ModelCard
from berg.models.encoding_model import EncodingModel
from berg.server.connection import N_CONNECTIONS, Answer, Connection, warn_again
from berg.server.tagged_json import tagged

PART_BYTES = 8_000_000  # of stimuli in one request; several requests are on their way at a time


class RemoteModel(EncodingModel):
    """A model on a server; `berg.server.remote_berg.remote` gives them."""

    connection: ClassVar[Connection]
    part_stimuli: int = 32
    part_bytes: int = PART_BYTES

    @classmethod
    def on(cls, connection: Connection, card: ModelCard) -> type[Self]:
        """The class of one model on one server."""
        bound = cls.bind(card)
        bound.connection = connection
        return bound

    def __init__(
        self,
        device: str = "auto",
        selection: Mapping[str, Any] | None = None,
        berg_dir: str | None = None,
        **parameters: Any,
    ) -> None:
        if device != "auto":
            raise InvalidParameterError(f"device='{device}': the server has chosen its own. Leave it out.")
        super().__init__("cpu", selection, None, **parameters)
        self.asked, self.asked_selection = dict(parameters), dict(selection) if selection else None
        self.told: dict[str, Any] = {}

    def load_model(self) -> None:
        """Have the server load the model."""
        given = {"parameters": self.asked, "selection": self.asked_selection}
        self.told = self.connection.call(f"/api/python/models/{self.get_model_id()}/load", given)
        self.weights_told = self.told["weights_sha256"]
        self.part_stimuli = int(min(self.told["batch_size"], self.told["stimuli"]))
        self.part_bytes = int(min(PART_BYTES, self.told["body_bytes"] // 2))
        super().load_model()

    def build(self) -> tuple[torch.nn.Module, torch.nn.Module]:
        """What sends stimuli to the server, and what hands on its responses."""
        return _There(self), _Here(self.get_model_id())

    @classmethod
    def read_metadata(cls, berg_dir: str | None, values: Mapping[str, Any]) -> dict[str, Any]:
        """The metadata, from the server."""
        select = cls.card.select
        of_files = {name: value for name, value in values.items() if name not in select or select[name].kind == "file"}
        given = {name: value for name, value in of_files.items() if value is not None}
        found: dict[str, Any] = cls.connection.call(f"/api/python/models/{cls.get_model_id()}/metadata", given)
        return found

    def attributes(self) -> dict[str, Any]:
        """What the server says of the model."""
        return dict(self.told.get("attributes") or super().attributes())

    def in_window(self, responses: Sequence[torch.Tensor], n_samples: int) -> Sequence[torch.Tensor]:
        """The responses as they come: the server has taken the selected part of them."""
        return responses

    @classmethod
    def get_supported_parameters(cls) -> dict[str, dict[str, Any]]:
        """The parameters of the model, as its card describes them."""
        return {name: parameter.model_dump(exclude_unset=True) for name, parameter in cls.card.parameters.items()}

    @classmethod
    def describe(cls) -> dict[str, Any]:
        """Print the card of the model, and return it as a dictionary."""
        print(to_text(cls.card))  # noqa: T201
        return cls.card.raw

    def predict(self, stimulus: torch.Tensor) -> NoReturn:
        """Raise InvalidParameterError: gradients do not come over the network."""
        raise InvalidParameterError(
            f"{self.get_model_id()} computes on {self.connection.address}, and what is differentiated must be here. "
            "Load it on this machine:  berg.load(...)"
        )

    def responses_to(self, stimuli: NDArray[Any]) -> list[NDArray[np.float32]]:
        """The responses to stimuli, sent in parts of which several are on their way."""
        size = max(1, min(self.part_stimuli, self.part_bytes // max(stimuli[0].nbytes, 1)))
        parts = [stimuli[start : start + size] for start in range(0, len(stimuli), size)]
        with ThreadPoolExecutor(min(N_CONNECTIONS, len(parts))) as threads:
            answers = list(threads.map(self._sent, parts))
        warn_again(list(dict.fromkeys(text for answer in answers for text in answer.warnings)))
        arrays = [self._arrays(answer) for answer in answers]
        return [np.concatenate(each) for each in zip(*arrays, strict=True)]

    def _sent(self, part: NDArray[Any]) -> Answer:
        buffer = io.BytesIO()
        np.save(buffer, part, allow_pickle=False)
        request = {
            "model": self.get_model_id(),
            "parameters": tagged(self.asked),
            "selection": tagged(self.asked_selection),
            "sampling_rate": self.expected_input.sampling_rate if self.expected_input.kind == "sound" else None,
            "format": "arrays",
        }
        return self.connection.send("/api/encode", request, {"stimuli.npy": buffer.getvalue()})

    def _arrays(self, answer: Answer) -> list[NDArray[np.float32]]:
        try:
            with np.load(io.BytesIO(answer.content), allow_pickle=False) as archive:
                return [archive[f"output_{index}"] for index in range(len(self.card.outputs))]
        except (ValueError, KeyError, OSError) as error:
            raise ServerError(f"{self.connection.address} answered with something else than responses.") from error


@dataclass(frozen=True)
class Responded:
    """Responses that have come, in the place of features: whoever takes these for features fails, and loudly."""

    outputs: tuple[torch.Tensor, ...]


class _Elsewhere(torch.nn.Module):
    """A half of a model that is not here."""

    def __deepcopy__(self, memo: Any) -> NoReturn:
        raise InvalidParameterError(
            "The weights of this model are on a server, and cannot be copied or changed here. Load it on this "
            "machine:  berg.load(...)"
        )


class _There(_Elsewhere):
    """Stimuli -> responses, by the server."""

    def __init__(self, model: RemoteModel) -> None:
        super().__init__()
        self._model = (model,)  # in a tuple, so that it is no part of the state

    def forward(self, stimuli: torch.Tensor) -> Responded:
        outputs = self._model[0].responses_to(stimuli.detach().cpu().numpy())
        return Responded(tuple(torch.from_numpy(np.ascontiguousarray(output, np.float32)) for output in outputs))


class _Here(_Elsewhere):
    """Responses as they came."""

    def __init__(self, model_id: str) -> None:
        super().__init__()
        self.model_id = model_id

    def forward(self, responded: Responded) -> tuple[torch.Tensor, ...]:
        if not isinstance(responded, Responded):
            raise InvalidParameterError(
                f"The readout of {self.model_id} is on a server; features cannot be given to it. Load the model on "
                "this machine:  berg.load(...)"
            )
        return responded.outputs
