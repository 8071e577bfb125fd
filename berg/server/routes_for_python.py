"""The addresses that `berg.remote` needs beside those of everybody: values of Python as tagged JSON."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response
from starlette.concurrency import run_in_threadpool

from berg.core import model_registry
from berg.core.exceptions import InvalidParameterError
from berg.encoding.store_identity import weights_sha256
from berg.models.loading import metadata_of_class
from berg.server import contract
from berg.server.contract import EncodeRequest
from berg.server.datasets_as_json import dataset_as_values
from berg.server.service import Service, check_parameters
from berg.server.tagged_json import parse_tagged, tagged, write_tagged

_MOST_BYTES = 4_000_000
_ERROR: dict[int | str, dict[str, Any]] = {"default": {"model": contract.ErrorAnswer}}


def routes_for_python(service: Service) -> APIRouter:
    """What `berg.remote` asks for; bodies and answers are `berg.server.tagged_json`."""
    router = APIRouter(prefix="/api/python", responses=_ERROR, tags=["berg.remote"])

    async def answered(request: Request, call: Callable[[dict[str, Any]], Any]) -> Response:
        given = _given(await request.body())
        return Response(await run_in_threadpool(lambda: write_tagged(call(given))), media_type="application/json")

    @router.post("/models/{model_id}/metadata")
    async def metadata(model_id: str, request: Request) -> Response:
        """The metadata of a model, without its weights."""

        def call(given: dict[str, Any]) -> Any:
            check_parameters(service.card(model_id), given)
            return metadata_of_class(model_id, service.berg.berg_dir, **given)

        return await answered(request, call)

    @router.post("/models/{model_id}/accuracy")
    async def accuracy(model_id: str, request: Request) -> Response:
        """The table of `berg.BERG.accuracy`."""

        def call(given: dict[str, Any]) -> Any:
            selection, parameters = given.get("selection"), given.get("parameters") or {}
            check_parameters(service.card(model_id), {**parameters, **(selection or {})})
            return dataset_as_values(service.berg.accuracy(model_id, selection, **parameters))

        return await answered(request, call)

    @router.post("/models/{model_id}/load")
    async def load(model_id: str, request: Request) -> Response:
        """Load a model; what it says of itself."""
        given = _given(await request.body())
        asked = EncodeRequest(
            model=model_id, parameters=tagged(given.get("parameters") or {}), selection=tagged(given.get("selection"))
        )

        def call() -> dict[str, Any]:
            with service.using(asked) as model:
                return {
                    "attributes": model.attributes(),
                    "weights_sha256": weights_sha256(model),
                    "batch_size": type(model).batch_size,
                    "body_bytes": service.limits.body_bytes,
                    "stimuli": service.limits.stimuli,
                }

        return Response(write_tagged(await service.in_loader(call)), media_type="application/json")

    @router.post("/find")
    async def find(request: Request) -> Response:
        """The rows of `berg.BERG.find_models`."""

        def call(given: dict[str, Any]) -> Any:
            offered = {card.model_id for card in service.cards()}
            return [asdict(row) for row in service.berg.find_models(**given) if row.model_id in offered]

        return await answered(request, call)

    @router.get("/models/{model_id}/card")
    def card(model_id: str) -> Response:
        """The card as it is written."""
        service.card(model_id)
        path = model_registry.get_card(model_id).path
        return Response(path.read_text("utf-8"), media_type="text/plain; charset=utf-8")

    return router


def _given(body: bytes) -> dict[str, Any]:
    if len(body) > _MOST_BYTES:
        raise InvalidParameterError("The parameters and the selection are too long. Select by regions, or fewer units.")
    given = parse_tagged(body or b"{}")
    if not isinstance(given, dict) or not all(isinstance(name, str) for name in given):
        raise InvalidParameterError('The body must be an object of JSON, such as {"subject": 1}.')
    return given
