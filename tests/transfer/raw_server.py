"""A server on this machine that answers with any bytes at any pace, as servers should not."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

Answer = Callable[[socket.socket, str], None]


@dataclass
class RawServer:
    """Where it listens, and which requests came."""

    url: str
    requests: list[str] = field(default_factory=list)
    n_connections: int = 0


@contextmanager
def raw_server(answer: Answer, read_request: bool = True) -> Iterator[RawServer]:
    """Answers each connection by a function of its socket and the request.

    Parameters
    ----------
    read_request
        False: answer before a request came, as for what speaks no HTTP.
    """
    listening = socket.create_server(("127.0.0.1", 0))
    server = RawServer(f"http://127.0.0.1:{listening.getsockname()[1]}")
    opened: list[socket.socket] = []

    def serve(connection: socket.socket) -> None:
        with suppress(OSError), connection:
            request = connection.recv(65536).decode("latin-1") if read_request else ""
            server.requests.append(request)
            answer(connection, request)

    def listen() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listening.accept()
                server.n_connections += 1
                opened.append(connection)
                threading.Thread(target=serve, args=(connection,), daemon=True).start()

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join(10)
        for connection in opened:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


def says(data: bytes) -> Answer:
    """All of it at once, and the end."""
    return lambda connection, _: connection.sendall(data)


def drips(before: bytes, drop: bytes, seconds: float = 0.05) -> Answer:
    """Some bytes at once, and then a drop each so many seconds for ever."""

    def answer(connection: socket.socket, _: str) -> None:
        connection.sendall(before)
        while True:
            connection.sendall(drop)
            time.sleep(seconds)

    return answer


def hangs(connection: socket.socket, _: str) -> None:
    """Nothing comes, and nothing ends."""
    time.sleep(60)
