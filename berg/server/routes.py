"""The addresses of the API: from requests to the service, and from what it returns to answers."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pydantic
from fastapi import APIRouter, Request
from fastapi.responses import Response
from starlette.datastructures import FormData, UploadFile

from berg.core.exceptions import InvalidParameterError, did_you_mean, listing
from berg.server import contract, descriptions
from berg.server.answers import Answered
from berg.server.contract import EncodeRequest
from berg.server.guard import client_of
from berg.server.mesh_answers import fsaverage5_answer
from berg.server.service import Service, check_parameters
from berg.server.uploads import Upload, shown_name

MOST_FIELD_BYTES = 4_000_000  # of the field ``request``: a selection may be a mask of all vertices
_ERROR: dict[int | str, dict[str, Any]] = {"default": {"model": contract.ErrorAnswer}}
FORM = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["request", "stimulus"],
                    "properties": {
                        "request": {
                            "type": "string",
                            "contentMediaType": "application/json",
                            "contentSchema": EncodeRequest.model_json_schema(),
                        },
                        "stimulus": {"type": "array", "items": {"type": "string", "format": "binary"}},
                    },
                }
            }
        },
    }
}


def routes(service: Service) -> APIRouter:
    """The API of a service."""
    router = APIRouter(prefix="/api", responses=_ERROR)
    berg_dir = Path(service.berg.berg_dir)

    @router.get("/models")
    def models() -> contract.ModelList:
        """The models of this server."""
        return descriptions.listed(service.cards(), berg_dir, service.models.ids(), service.limits)

    @router.get("/models/{model_id}")
    def model(model_id: str) -> contract.ModelDescription:
        """One model: what it takes, its parameters and selection, its card."""
        return descriptions.description(service.card(model_id), berg_dir, model_id in service.models.ids())

    @router.get("/models/{model_id}/accuracy")
    def accuracy(model_id: str, request: Request) -> contract.KnownAccuracy:
        """How well a model does; parameters such as ``subject=1`` in the address."""
        parameters = descriptions.card_values(request.query_params)
        check_parameters(service.card(model_id), parameters)
        return descriptions.accuracy(service.berg.accuracy(model_id, **parameters))

    @router.get("/meshes/fsaverage5")
    def meshes() -> contract.Meshes:
        """The two hemispheres that a cortex is drawn on."""
        return fsaverage5_answer()

    @router.post("/encode", response_model=contract.Answer, openapi_extra=FORM)
    async def encode(request: Request) -> Response:
        """The responses of a model to stimuli: JSON, or a file."""
        client = client_of(request.scope)
        service.check_room(client)
        async with request.form(max_files=service.limits.stimuli, max_fields=8, max_part_size=MOST_FIELD_BYTES) as form:
            asked, uploads = parsed(form)
            return as_response(await service.encode(asked, uploads, client, _leaving(request)))

    return router


def parsed(form: FormData) -> tuple[EncodeRequest, list[Upload]]:
    """What a form asks for, and its files.

    Raises
    ------
    InvalidParameterError
        For a form that is not as the contract says.
    """
    known = ("request", "stimulus")
    for name in form:
        if name not in known:
            raise InvalidParameterError(
                f"The form has an unknown field '{name[:60]}'.{did_you_mean(name, known)} Fields: {listing(known)}."
            )
    text = form.get("request")
    if not isinstance(text, str):
        raise InvalidParameterError("The form has no field 'request'. Give it as JSON, with at least the model's id.")
    files = [file for file in form.getlist("stimulus") if isinstance(file, UploadFile)]
    if len(files) < len(form.getlist("stimulus")):
        raise InvalidParameterError("The field 'stimulus' holds a text. Send each stimulus as a file.")
    return asked_for(text), [Upload(shown_name(file.filename), file.content_type or "", file.file) for file in files]


def asked_for(text: str) -> EncodeRequest:
    """The field ``request``, checked.

    Raises
    ------
    InvalidParameterError
        With what is wrong, and the nearest name that is allowed.
    """
    try:
        return EncodeRequest.model_validate(json.loads(text))
    except pydantic.ValidationError as error:
        fault = error.errors()[0]
        name = ".".join(map(str, fault["loc"]))
        known = list(EncodeRequest.model_fields)
        if fault["type"] == "extra_forbidden":
            raise InvalidParameterError(
                f"A request has no key '{name[:60]}'.{did_you_mean(name, known)} Keys: {listing(known)}."
            ) from error
        raise InvalidParameterError(f"The request's {name or 'JSON'} is wrong: {fault['msg']}.") from error
    except (ValueError, RecursionError) as error:
        raise InvalidParameterError(f"The field 'request' is not JSON: {error}.") from error


def as_response(answered: Answered) -> Response:
    """An answer with its bytes; files have a name, and warnings in a header."""
    headers = {"Cache-Control": "no-store"}
    if answered.ending:
        headers["Content-Disposition"] = f'attachment; filename="responses{answered.ending}"'
    if answered.media_type != "application/json":
        headers["Berg-Warnings"] = json.dumps(answered.warnings)
    return Response(answered.content, media_type=answered.media_type, headers=headers)


def _leaving(request: Request) -> Callable[[], Awaitable[None]]:
    async def leaving() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    return leaving
