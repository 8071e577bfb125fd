"""Servers of files on this machine: a bucket, a web server with ranges, and one without."""

from __future__ import annotations

import asyncio
import functools
import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Address = tuple[str, int]


class Bucket:
    """A bucket of moto; who does not sign a request gets status 403 for what was not made public."""

    def __init__(self, address: Address, client: Any) -> None:
        self.address, self._client = address, client

    def put(self, key: str, content: bytes, public: bool = True) -> None:
        """Store an object, as the owner of the bucket."""
        acl = {"ACL": "public-read"} if public else {}
        self._client.put_object(Bucket="berg-bucket", Key=key, Body=content, **acl)

    def create(self) -> None:
        self._client.create_bucket(Bucket="berg-bucket")


@contextmanager
def bucket() -> Iterator[Bucket]:
    """A bucket ``berg-bucket`` on a server of its own."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        address = server.get_host_and_port()
        client = boto3.client(
            "s3",
            endpoint_url="http://{}:{}".format(*address),
            aws_access_key_id="owner",
            aws_secret_access_key="owner",
            region_name="us-east-1",
        )
        made = Bucket(address, client)
        made.create()
        yield made
        client.close()
    finally:
        server.stop()


@contextmanager
def static_server(folder: Path) -> Iterator[Address]:
    """A web server with ETag and ranges: aiohttp, by sendfile."""
    from aiohttp import web

    async def start() -> tuple[web.AppRunner, int]:
        application = web.Application()
        application.router.add_static("/", folder)
        runner = web.AppRunner(application)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        return runner, runner.addresses[0][1]

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    runner, port = asyncio.run_coroutine_threadsafe(start(), loop).result(10)
    try:
        yield "127.0.0.1", port
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def plain_server(folder: Path) -> Iterator[Address]:
    """A web server that knows no ranges and no ETag: the standard library's."""
    handler = functools.partial(_Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield "127.0.0.1", server.server_port
        server.shutdown()
        thread.join(10)
