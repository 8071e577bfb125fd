"""Requests to a server of models, and what comes back: bytes, or the error that the server tells of."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import urllib3

from berg.core.exceptions import InvalidParameterError, ServerBusyError, ServerError, StimulusWarning
from berg.core.stacklevel import users_stacklevel
from berg.server.error_answers import error_from
from berg.server.tagged_json import parse_tagged, write_tagged

CONNECT_SECONDS = 10.0
N_CONNECTIONS = 4


@dataclass(frozen=True)
class Answer:
    """What a server answered."""

    content: bytes
    warnings: list[str]


@dataclass(frozen=True)
class Connection:
    """A server, and how long one waits for it.

    Attributes
    ----------
    address
        Such as ``http://lab:8000``.
    timeout
        Seconds until an answer; the first of a model includes loading it.
    patience
        Seconds for which a server that has too much to do is asked again.
    """

    address: str
    token: str | None = None
    timeout: float = 600.0
    patience: float = 120.0
    pool: urllib3.PoolManager = field(
        default_factory=lambda: urllib3.PoolManager(maxsize=N_CONNECTIONS, block=True, retries=False), repr=False
    )

    def __post_init__(self) -> None:
        parts = urlsplit(self.address)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InvalidParameterError(
                f"'{self.address}' is no address of a server. Give it as  berg serve  printed it, such as "
                "http://127.0.0.1:8000"
            )

    def get(self, path: str) -> Answer:
        """What is at a path."""
        return self._asked("GET", path, {})

    def get_json(self, path: str) -> Any:
        """JSON at a path."""
        return json.loads(self.get(path).content)

    def call(self, path: str, given: Mapping[str, Any]) -> Any:
        """Values for values, both as tagged JSON."""
        headers = {"Content-Type": "application/json"}
        return parse_tagged(self._asked("POST", path, {"body": write_tagged(dict(given)).encode()}, headers).content)

    def send(self, path: str, request: Mapping[str, Any], files: Mapping[str, bytes]) -> Answer:
        """What a form with these files is answered with."""
        fields: list[Any] = [("request", json.dumps(request))]
        fields += [("stimulus", (name, content, "application/octet-stream")) for name, content in files.items()]
        return self._asked("POST", path, {"fields": fields})

    def delete(self, path: str) -> Answer:
        """What deleting at a path is answered with."""
        return self._asked("DELETE", path, {})

    def _asked(self, method: str, path: str, sent: dict[str, Any], headers: Mapping[str, str] | None = None) -> Answer:
        until = time.monotonic() + self.patience
        while True:
            answer = self._once(method, path, sent, headers or {})
            if answer.status < 400:
                return Answer(answer.data, json.loads(answer.headers.get("Berg-Warnings", "[]")))
            error = error_from(answer.status, answer.data, self.address)
            wait = float(answer.headers.get("Retry-After", "nan"))
            if not isinstance(error, ServerBusyError) or not time.monotonic() + wait < until:
                raise error
            time.sleep(wait)

    def _once(self, method: str, path: str, sent: dict[str, Any], headers: Mapping[str, str]) -> Any:
        token = {} if self.token is None else {"Authorization": f"Bearer {self.token}"}
        try:
            return self.pool.request(
                method,
                self.address.rstrip("/") + path,
                headers={**headers, **token},
                timeout=urllib3.Timeout(connect=CONNECT_SECONDS, read=self.timeout),
                redirect=False,
                **sent,
            )
        except urllib3.exceptions.ReadTimeoutError as error:
            raise ServerError(
                f"{self.address} did not answer within {self.timeout:g} s. Give it longer:  "
                f"berg.remote('{self.address}', timeout={2 * self.timeout:g})"
            ) from error
        except urllib3.exceptions.HTTPError as error:
            raise ServerError(
                f"{self.address} cannot be reached ({_reason(error)}). Does  berg serve  run there, and does a tunnel "
                "lead to it?"
            ) from error


def _reason(error: Exception) -> str:
    return str(getattr(error, "reason", None) or error).rpartition(": ")[2][:120]


def warn_again(texts: list[str]) -> None:
    """Warn here of what the server was warned of."""
    for text in texts:
        warnings.warn(text, StimulusWarning, stacklevel=users_stacklevel())
