"""`berg.remote`: the calls of `berg.BERG`, answered by a server."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn

from berg.core.card_text import to_text
from berg.core.exceptions import InvalidParameterError
from berg.core.model_card import ModelCard
from berg.facade import BERG
from berg.interfaces.base_model import BaseModelInterface
from berg.server.connection import Connection
from berg.server.datasets_as_json import dataset_of_values
from berg.server.remote_model import RemoteModel

if TYPE_CHECKING:
    import xarray as xr

    from berg.evaluation.find_models import FoundModels

Selection = Mapping[str, Any]


def remote(address: str, token: str | None = None, *, timeout: float = 600.0) -> RemoteBERG:
    """The models of a server, with the calls of `berg.BERG`: the same numbers, labels and errors.

    Stimuli are read and checked here, and sent as arrays; responses come back as arrays.

    Parameters
    ----------
    address
        As ``berg serve`` printed it: ``http://127.0.0.1:8000``, also with ``#token=...``.
    token
        What the server takes from those who ask, if it does.
    timeout
        Seconds until an answer; the first of a model includes loading it.

    Raises
    ------
    InvalidParameterError
        If the address is none. Whether somebody answers there is seen at the first call.

    Examples
    --------
    >>> import berg
    >>> lab = berg.remote("http://127.0.0.1:8000")
    >>> responses = lab.encode("fmri-szinte2024-prf_css", "photos", size=320, labelled=True)  # doctest: +SKIP
    """
    place, _, fragment = address.partition("#")
    told = fragment.partition("token=")[2] or None
    return RemoteBERG(Connection(place.rstrip("/"), token or told, timeout))


class RemoteBERG(BERG):
    """The models of a server. What is about files on this machine (download, pack, ...) is not there."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.berg_dir = connection.address
        self.downloads = False

    def __repr__(self) -> str:
        return f"<BERG at {self.connection.address}>"

    def _repr_html_(self) -> str:
        return repr(self)

    def list_models(
        self,
        pattern: str = "*",
        *,
        modality: str | None = None,
        species: str | None = None,
        stimuli: str | None = None,
        here: bool = False,
    ) -> list[str]:
        """The ids of the server's models, sorted; see `berg.BERG.list_models`. `here` means there."""
        wanted = {"modality": modality, "species": species, "stimuli": stimuli}
        asked = {key: word.casefold() for key, word in wanted.items() if word}
        return sorted(
            own["id"]
            for own in self._summaries()
            if fnmatch.fnmatchcase(own["id"].casefold(), pattern.casefold())
            and all(word in str(own[key]).casefold() for key, word in asked.items())
            and (own["is_usable"] or not here)
        )

    def get_model_catalog(self, print_format: bool = False) -> dict[str, list[str]]:
        """The training datasets of each modality, both sorted; with `print_format` they are printed, too."""
        catalog: dict[str, set[str]] = {}
        for own in self._summaries():
            catalog.setdefault(own["modality"], set()).add(own["training_dataset"])
        found = {modality: sorted(datasets) for modality, datasets in sorted(catalog.items())}
        if print_format:
            print("\n".join(f"{modality}: {', '.join(datasets)}" for modality, datasets in found.items()))  # noqa: T201
        return found

    def describe(self, model_id: str) -> dict[str, Any]:
        """Print the card of a model, and return it as a dictionary of the card's own keys."""
        card = self._card(model_id)
        print(to_text(card))  # noqa: T201
        return card.raw

    def get_encoding_model(
        self, model_id: str, device: str = "auto", selection: Selection | None = None, **parameters: Any
    ) -> BaseModelInterface:
        """The model, loaded by the server and ready to encode; see `berg.BERG.get_encoding_model`."""
        return self._loaded(model_id, device, selection, parameters)

    def get_model_metadata(self, model_id: str, **parameters: Any) -> dict[str, Any]:
        """The metadata of a model (ROIs, coordinates, accuracy), without loading its weights."""
        found: dict[str, Any] = self.connection.call(f"/api/python/models/{model_id}/metadata", parameters)
        return found

    def accuracy(
        self, model_id: str, selection: Selection | None = None, **parameters: Any
    ) -> xr.Dataset | xr.DataTree:
        """How well a model predicts each unit on data that its fit has not seen; see `berg.BERG.accuracy`."""
        given = {"selection": selection, "parameters": parameters}
        return dataset_of_values(self.connection.call(f"/api/python/models/{model_id}/accuracy", given))

    def find_models(self, **wanted: Any) -> FoundModels:
        """Models that fit a question, one row per subject, the most accurate first; see `berg.BERG.find_models`."""
        from berg.evaluation.find_models import FoundModel, FoundModels

        return FoundModels(FoundModel(**row) for row in self.connection.call("/api/python/find", wanted))

    def _model_class(self, model_id: str) -> Any:
        return RemoteModel.on(self.connection, self._card(model_id))

    def _loaded(
        self, model_id: str, device: str, selection: Selection | None, parameters: Mapping[str, Any]
    ) -> BaseModelInterface:
        model: BaseModelInterface = self._model_class(model_id)(device, selection, **parameters)
        model.load_model()
        return model

    def _encode_on_cluster(self, *_: Any, **__: Any) -> NoReturn:
        raise InvalidParameterError(
            "scheduler= has processes of this machine or its cluster encode, and these models are on a server. Leave "
            "it out, or load the model here:  berg.BERG().encode(..., scheduler=...)"
        )

    def _encode_flagged(self, *_: Any, **__: Any) -> NoReturn:
        raise InvalidParameterError(
            "flag= looks into the model, which is on a server. Leave it out, or load the model here:  berg.load(...)"
        )

    def _card(self, model_id: str) -> ModelCard:
        if model_id not in self._cards:
            text = self.connection.get(f"/api/python/models/{model_id}/card").content.decode()
            self._cards[model_id] = ModelCard.parse(text, f"{model_id}.yaml")
        return self._cards[model_id]

    @cached_property
    def _cards(self) -> dict[str, ModelCard]:
        return {}

    def _summaries(self) -> list[dict[str, Any]]:
        models: list[dict[str, Any]] = json.loads(self.connection.get("/api/models").content)["models"]
        return models


def _not_here(name: str) -> Any:
    def refuse(self: RemoteBERG, *_: Any, **__: Any) -> NoReturn:
        raise InvalidParameterError(
            f"{name} is about files on a machine; those of these models are on {self.connection.address}. Do it there, "
            f"or here with  berg.BERG().{name}(...)"
        )

    refuse.__name__, refuse.__doc__ = name, "Raise InvalidParameterError: the files are on the server."
    return refuse


for _name in ("convert", "pack", "unpack", "files_of", "plan_download", "download"):
    setattr(RemoteBERG, _name, _not_here(_name))
