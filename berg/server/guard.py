"""What stands before every request: who may ask, how much may be sent and how slowly; and what every answer says.

Plain ASGI, so that a request is refused before its body is read, and a client that sends nothing holds no worker.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from starlette.formparsers import MultiPartException

from berg.core.exceptions import AccessError, BERGError, ServerBusyError, TokenError, TooSlowError
from berg.server.error_answers import RETRY_SECONDS, error_body, headers_of, status_of
from berg.server.limits import Limits, too_large_body

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

CONTENT_POLICY = (
    "default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; worker-src 'self' blob:; "
    "object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
"""Nothing from elsewhere; pictures and sounds that a person has dropped are shown from memory (blob, data)."""

HEADERS = {
    "Content-Security-Policy": CONTENT_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(self)",
}
API = "/api"
CUT = "berg_cut"
_MOST_CLIENTS = 4096  # whose rate is remembered


@dataclass(frozen=True)
class Access:
    """Who may ask.

    Attributes
    ----------
    hosts
        Names by which this server is called. A page of another site that had its name lead to this machine
        (DNS rebinding) would call it by that name. Empty: any.
    token
        What each request to the API must bring; None: nothing.
    """

    hosts: frozenset[str] = frozenset()
    token: str | None = None

    def check(self, headers: dict[str, str], path: str) -> None:
        """Raise AccessError if a request may not be answered."""
        host = _host_name(headers.get("host", ""))
        if self.hosts and host not in self.hosts:
            raise AccessError(
                f"This server is not called '{host[:80]}'. Call it by the address that berg serve printed, or start it "
                "with  berg serve --name NAME"
            )
        if headers.get("sec-fetch-site") == "cross-site" and path.startswith(API):
            raise AccessError("Pages of other sites are not answered.")
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != headers.get("host"):
            raise AccessError("Pages of other sites are not answered.")
        if self.token is not None and path.startswith(API) and not self._has_token(headers):
            raise TokenError(
                "This server takes a token, which is missing or wrong. berg serve has printed it; in Python: "
                'berg.remote(address, token="...")'
            )

    def _has_token(self, headers: dict[str, str]) -> bool:
        scheme, _, given = headers.get("authorization", "").partition(" ")
        is_same = hmac.compare_digest(given.strip().encode(), (self.token or "").encode())
        return scheme.lower() == "bearer" and is_same


class Rates:
    """How often each client asks: a budget that fills up again, for a request each.

    >>> rates = Rates(1.0, clock=lambda: 0.0)
    >>> [rates.wait("me") for _ in range(3)]
    [0.0, 0.0, 1.0]
    """

    def __init__(self, per_second: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.per_second, self.most, self.clock = per_second, 2 * per_second, clock
        self._budgets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # client -> what was left, when

    def wait(self, client: str) -> float:
        """The seconds until a client may ask again; 0: now, which is counted."""
        now = self.clock()
        left, since = self._budgets.pop(client, (self.most, now))
        left = min(self.most, left + (now - since) * self.per_second)
        seconds = 0.0 if left >= 1 else (1 - left) / self.per_second
        self._budgets[client] = (left if seconds else left - 1, now)
        while len(self._budgets) > _MOST_CLIENTS:
            self._budgets.popitem(last=False)
        return seconds


class Guard:
    """An application behind the checks of this file."""

    def __init__(self, application: Application, access: Access, limits: Limits) -> None:
        self.application, self.access, self.limits = application, access, limits
        self.rates = Rates(limits.requests_per_second)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.application(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        answered = _Answered(send)
        try:
            self.access.check(headers, scope["path"])
            seconds = self.rates.wait(client_of(scope))
            if seconds:
                await refuse(answered, _too_often(self.limits), 429, seconds)
                return
            body = Body(receive, self._most_bytes(scope["path"]), self.limits, scope)
            body.check_stated(headers.get("content-length"))
            await self.application(scope, body, answered)
        except BERGError as error:
            if not answered.has_begun:
                await refuse(answered, error)

    def _most_bytes(self, path: str) -> int:
        return self.limits.job_bytes if path.startswith(f"{API}/jobs") else self.limits.body_bytes


class _Answered:
    """`send` with the headers that every answer has."""

    def __init__(self, send: Send) -> None:
        self.send, self.has_begun = send, False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.has_begun = True
            known = {name.lower() for name, _ in message.get("headers", [])}
            more = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
            message["headers"] = [*message.get("headers", []), *(pair for pair in more if pair[0] not in known)]
        await self.send(message)


class Body:
    """`receive` that counts what comes, and does not wait for ever.

    What it raises is an error of forms, at which Starlette closes the files that it has begun; the error that is told
    lies in the scope, under `CUT`.
    """

    def __init__(self, receive: Receive, most_bytes: int, limits: Limits, scope: Scope) -> None:
        self.receive, self.most_bytes, self.limits, self.scope = receive, most_bytes, limits, scope
        self.n_bytes, self.is_whole, self.began = 0, False, time.monotonic()

    def check_stated(self, content_length: str | None) -> None:
        """Raise TooLargeError if a request says that it will be too large."""
        if content_length is not None and content_length.isdecimal() and int(content_length) > self.most_bytes:
            raise too_large_body(self.most_bytes)

    async def __call__(self) -> Message:
        """The next part of a request; when it is whole, what comes after it (that the client has gone)."""
        if self.is_whole:
            return await self.receive()
        left = self.began + self._seconds() - time.monotonic()
        try:
            async with asyncio.timeout(max(0.0, min(self.limits.idle_seconds, left))):
                message = await self.receive()
        except TimeoutError:
            raise self._cut(TooSlowError("The request came too slowly, and was given up. Try again.")) from None
        self.n_bytes += len(message.get("body", b""))
        self.is_whole = message["type"] != "http.request" or not message.get("more_body", False)
        if self.n_bytes > self.most_bytes:
            raise self._cut(too_large_body(self.most_bytes))
        return message

    def _cut(self, error: BERGError) -> MultiPartException:
        self.scope[CUT] = error
        return MultiPartException(str(error))

    def _seconds(self) -> float:
        """How long the body may take: more for a job, which is larger."""
        return self.limits.body_seconds * max(1.0, self.most_bytes / self.limits.body_bytes)


def client_of(scope: Scope) -> str:
    """Who asks, for taking turns: the address."""
    client = scope.get("client")
    return str(client[0]) if client else ""


async def refuse(send: Send, error: BERGError, status: int | None = None, seconds: float = RETRY_SECONDS) -> None:
    """Answer with an error, without having read the request; the connection is closed after it."""
    content, code = json.dumps(error_body(error)).encode(), status or status_of(error)
    told = {"Content-Type": "application/json", "Content-Length": str(len(content)), **headers_of(code, seconds)}
    headers = [(name.lower().encode(), text.encode()) for name, text in told.items()]
    await send({"type": "http.response.start", "status": code, "headers": headers})
    await send({"type": "http.response.body", "body": content})


def _too_often(limits: Limits) -> ServerBusyError:
    return ServerBusyError(
        f"You ask more than {limits.requests_per_second:g} times a second, which this server answers. Ask more slowly, "
        "or give several stimuli in one request."
    )


def _host_name(host: str) -> str:
    """The name in a Host header, without the port."""
    if host.startswith("["):
        return host.partition("]")[0].removeprefix("[").lower()
    return host.partition(":")[0].lower()
