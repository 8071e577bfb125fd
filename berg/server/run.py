"""From a command to a server that answers: addresses, names, token, memory, and an end that leaves nothing behind."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import secrets
import signal
import socket
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from berg.core.exceptions import InvalidParameterError, ServerError
from berg.facade import BERG
from berg.server.app import make_app
from berg.server.guard import Access
from berg.server.jobs import Jobs
from berg.server.service import Service, Settings

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
HEAD_SECONDS = 15.0
READ_SECONDS = 120.0
MOST_CONNECTIONS = 512
_TOKEN_BYTES = 24


@dataclass(frozen=True)
class Address:
    """Where a server listens, and who may ask it.

    Attributes
    ----------
    names
        Further names by which it is called, such as that of a proxy before it.
    token
        What requests must bring; None: one is made, unless only this machine reaches the server.
    behind_proxy
        Whether a proxy on this machine says who asks (the header X-Forwarded-For).
    jobs_folder
        Where jobs are kept; None: as long as the server runs.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    names: tuple[str, ...] = ()
    token: str | None = None
    behind_proxy: bool = False
    jobs_folder: Path | None = None

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine reaches it."""
        if self.host in LOOPBACK_NAMES:
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def access(self) -> Access:
        """Who may ask."""
        needs_one = not self.is_loopback or bool(self.names)
        token = self.token or (secrets.token_urlsafe(_TOKEN_BYTES) if needs_one else None)
        return Access(frozenset({*LOOPBACK_NAMES, *map(str.lower, self._names())}), token)

    def _names(self) -> Iterable[str]:
        """By which others call it: those that were given, its address, and the name of the machine."""
        yield from self.names
        if not self.is_loopback:
            yield from (self.host, socket.gethostname(), socket.getfqdn())
            yield from _own_addresses()

    def link(self, port: int, token: str | None) -> str:
        """What a browser opens; the token stands behind #, which a browser keeps for itself."""
        shown = socket.gethostname() if self.host in ("0.0.0.0", "::") else self.host
        name = f"[{shown}]" if ":" in shown else shown
        return f"http://{name}:{port}/" + (f"#token={token}" if token else "")


class PatientProtocol(H11Protocol):
    """A connection that is closed if the head of a request does not come within `HEAD_SECONDS`.

    One whose client does not read its answer is cut after `READ_SECONDS`.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first head."""
        super().connection_made(transport)
        self._waiting = self.loop.call_later(HEAD_SECONDS, self._give_up)

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no longer."""
        self._waiting.cancel()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        """Wait for the next head."""
        self._waiting.cancel()
        super().on_response_complete()
        self._waiting = self.loop.call_later(HEAD_SECONDS, self._give_up)

    def _give_up(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            return
        if self.transport.get_write_buffer_size():
            self._waiting = self.loop.call_later(READ_SECONDS, self.transport.abort)
        self.transport.close()


def bind(address: Address) -> socket.socket:
    """A socket that listens at an address; port 0 is any that is free.

    Raises
    ------
    ServerError
        If the port is taken, or the address is not one of this machine.
    InvalidParameterError
        For a port that there is not.
    """
    if not 0 <= address.port <= 65_535:
        raise InvalidParameterError(f"--port {address.port} is no port; they go from 1 to 65535.")
    try:
        family, kind, _, _, place = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        return _listening(family, kind, place)
    except OSError as error:
        raise ServerError(
            f"Nothing can listen at {address.host}, port {address.port}: {error.strerror}. Give another port "
            f"(--port {min(address.port + 1, 65_535)}, or 0 for any), or another address (--host 127.0.0.1)."
        ) from error


def _listening(family: int, kind: int, place: Any) -> socket.socket:
    bound = socket.socket(family, kind)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(place)
        bound.listen(MOST_CONNECTIONS)
    except OSError:
        bound.close()
        raise
    return bound


def configured(service: Service, address: Address, access: Access, jobs: Jobs | None = None) -> uvicorn.Config:
    """How uvicorn runs the server."""
    options: dict[str, Any] = {"proxy_headers": address.behind_proxy, "forwarded_allow_ips": "127.0.0.1,::1"}
    return uvicorn.Config(
        make_app(service, access, jobs or Jobs(service, address.jobs_folder)),
        http=PatientProtocol,
        ws="none",
        loop="asyncio",
        lifespan="on",
        server_header=False,
        date_header=True,
        access_log=False,
        log_config=None,
        log_level=logging.WARNING,
        limit_concurrency=MOST_CONNECTIONS,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=30,
        **options,
    )


class QuietlyEnding(uvicorn.Server):
    """A server that Ctrl+C and SIGTERM end as they should: it finishes, and the process goes on to its own end."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take both signals while the server runs."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def serve(berg: BERG, settings: Settings, address: Address, tell: Any = print) -> None:
    """Answer until the process is interrupted or told to end; what is computed then is finished and answered.

    Parameters
    ----------
    tell
        Takes the lines that say where the server is.

    Raises
    ------
    ServerError, InvalidParameterError, ModelNotFoundError
    """
    bound = bind(address)
    try:
        service = Service(berg, settings)
        access = address.access()
        port = int(bound.getsockname()[1])
        for line in greeting(service, address, access, port):
            tell(line)
        QuietlyEnding(configured(service, address, access)).run([bound])
    finally:
        bound.close()


def greeting(service: Service, address: Address, access: Access, port: int) -> list[str]:
    """What is printed when a server starts."""
    from berg.system.byte_words import size_words

    n_usable = len(service.settings.models) or len(service.berg.list_models(here=True))
    lines = [
        f"{n_usable} model{'s' if n_usable != 1 else ''} at  {address.link(port, access.token)}",
        f"Models are loaded when they are first asked for; {size_words(service.settings.memory)} of them are kept "
        "(--memory). To end: Ctrl+C",
    ]
    if not address.is_loopback:
        lines.append("Others reach this address, without encryption: see docs/serving.md for a proxy with TLS.")
    return lines


def _own_addresses() -> Iterable[str]:
    try:
        return {str(found[4][0]) for found in socket.getaddrinfo(socket.gethostname(), None)}
    except OSError:
        return ()
