"""A proxy on this machine that breaks HTTP as networks do, one request after the other as planned."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self


@dataclass
class Fault:
    """What happens to one answer. Without any of it, the answer passes as it is.

    Parameters
    ----------
    status, headers, body
        In place of the server's answer.
    cut
        Bytes of the body after which the line is cut.
    stall
        Bytes of the body after which nothing more comes.
    rate
        Bytes in a second.
    flip
        The byte of the body that arrives with one bit changed.
    longer
        Added to the length that is announced.
    keep
        False: without ETag, Last-Modified and Accept-Ranges.
    before
        Called before the server is asked; meanwhile nobody else asks it.
    """

    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    cut: int | None = None
    stall: int | None = None
    rate: float | None = None
    flip: int | None = None
    longer: int = 0
    keep: bool = True
    before: Callable[[], object] | None = None


FINE = Fault()


class FaultProxy:
    """Stands before `upstream` (host, port) while it is entered."""

    def __init__(self, upstream: tuple[str, int]) -> None:
        self.upstream = upstream
        self.plan: list[Fault] = []  # for the next requests, one each
        self.default = FINE  # for those after
        self.seen: list[tuple[str, dict[str, str]]] = []
        self.n_bytes = 0  # of bodies that were sent
        self._tasks: list[asyncio.Task[None]] = []
        self._alone = asyncio.Lock()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        server = asyncio.run_coroutine_threadsafe(asyncio.start_server(self._serve, "127.0.0.1", 0), self._loop)
        self._server = server.result(10)
        self.port = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _close(self) -> None:
        self._server.close()
        await asyncio.sleep(0.05)  # who was let in a moment ago has a task by now
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.sleep(0.05)  # transports are closed one turn of the loop later

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.append(task)  # the loop itself holds on to none
        try:
            while head := await _read_head(reader):
                first, headers = head
                self.seen.append((first.split()[1], headers))
                await self._answer(first, headers, self.plan.pop(0) if self.plan else self.default, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            writer.transport.abort()
        finally:
            writer.close()

    async def _answer(self, first: str, headers: dict[str, str], fault: Fault, writer: asyncio.StreamWriter) -> None:
        if fault.status is not None:
            return await self._send(f"HTTP/1.1 {fault.status} X", dict(fault.headers), fault.body, fault, writer)
        async with self._alone:  # moto answers 403 or 500 while an object is replaced
            if fault.before is not None:
                await asyncio.to_thread(fault.before)
            answer = await self._asked(first, headers)
        await self._send(*answer, fault, writer)

    async def _asked(self, first: str, headers: dict[str, str]) -> tuple[str, dict[str, str], bytes]:
        reader, up = await asyncio.open_connection(*self.upstream)
        try:
            up.write(_head(first, {**headers, "connection": "close"}))
            answer = await _read_head(reader)
            assert answer is not None
            return *answer, await reader.read()
        finally:
            up.close()

    async def _send(
        self, first: str, headers: dict[str, str], body: bytes, fault: Fault, writer: asyncio.StreamWriter
    ) -> None:
        dropped = () if fault.keep else ("etag", "last-modified", "accept-ranges")
        headers = {key: value for key, value in headers.items() if key.lower() not in ("connection", *dropped)}
        headers["content-length"] = str(len(body) + fault.longer)
        writer.write(_head(first.replace("HTTP/1.0", "HTTP/1.1"), headers))
        if fault.flip is not None and fault.flip < len(body):
            body = body[: fault.flip] + bytes([body[fault.flip] ^ 1]) + body[fault.flip + 1 :]
        ends = [end for end in (fault.cut, fault.stall) if end is not None]
        await self._trickle(body[: min(ends)] if ends else body, fault.rate, writer)
        if fault.stall is not None:
            await asyncio.sleep(3600)
        if fault.longer or (fault.cut is not None and fault.cut < len(body)):
            raise ConnectionError("as planned")

    async def _trickle(self, body: bytes, rate: float | None, writer: asyncio.StreamWriter) -> None:
        step = len(body) or 1 if rate is None else max(1, int(rate / 50))
        for start in range(0, len(body), step):
            writer.write(body[start : start + step])
            await writer.drain()
            self.n_bytes += len(body[start : start + step])
            if rate is not None:
                await asyncio.sleep(step / rate)
        await writer.drain()


async def _read_head(reader: asyncio.StreamReader) -> tuple[str, dict[str, str]] | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.rstrip().split("\r\n")
    return first, {key.lower(): value for key, value in (re.split(r":\s*", line, maxsplit=1) for line in lines)}


def _head(first: str, headers: dict[str, str]) -> bytes:
    return "\r\n".join([first, *(f"{key}: {value}" for key, value in headers.items()), "", ""]).encode("latin-1")
