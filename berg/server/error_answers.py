"""Errors as answers and back: the same class of `berg.core.exceptions`, with the same sentence, on both sides."""

from __future__ import annotations

import json
from typing import Any

from berg.core import exceptions
from berg.core.exceptions import (
    AccessError,
    BERGError,
    InvalidParameterError,
    MissingFileError,
    ModelNotFoundError,
    ResourceError,
    ServerBusyError,
    ServerError,
    StimulusError,
    TokenError,
    TooLargeError,
    TooSlowError,
)

RETRY_SECONDS = 2
UNKNOWN = 500
_STATUSES: tuple[tuple[type[BERGError], int], ...] = (  # the first that fits
    (ModelNotFoundError, 404),
    (TooLargeError, 413),
    (TooSlowError, 408),
    (TokenError, 401),
    (AccessError, 403),
    (ServerBusyError, 503),
    (ResourceError, 507),
    (InvalidParameterError, 422),
    (StimulusError, 422),
    (MissingFileError, 409),
)


def status_of(error: BERGError) -> int:
    """The HTTP status that says what kind of error it is; 422 for what the client can put right."""
    return next((status for kind, status in _STATUSES if isinstance(error, kind)), 422)


def headers_of(status: int, seconds: float = RETRY_SECONDS) -> dict[str, str]:
    """What an answer with this status says beside its body; a connection with an unread request is closed."""
    found = {}
    if status in (429, 503):
        found["Retry-After"] = str(max(1, round(seconds)))
    if status == 401:
        found["WWW-Authenticate"] = "Bearer"
    if status in (400, 401, 403, 408, 413, 429):
        found["Connection"] = "close"
    return found


def error_body(error: BERGError) -> dict[str, Any]:
    """The error as the body of an answer (`berg.server.contract.ErrorAnswer`)."""
    return {"error": {"type": type(error).__name__, "message": str(error)}}


def error_from(status: int, body: bytes, address: str) -> BERGError:
    """The error that an answer tells of; a ServerError if it is none of ours.

    >>> error_from(422, b'{"error": {"type": "StimulusError", "message": "Too dark."}}', "http://lab")
    StimulusError('Too dark.')
    """
    try:
        told = json.loads(body)["error"]
        kind, message = getattr(exceptions, told["type"]), str(told["message"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return ServerError(
            f"{address} answered {status}, and not as a BERG server does. Is the address right, and does  berg serve  "
            "run there?"
        )
    if not (isinstance(kind, type) and issubclass(kind, BERGError)):
        return ServerError(message)
    return kind(message)
