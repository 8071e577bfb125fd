"""Asking a source for a range of a file, and what it answers.

By urllib3, which follows no redirect, reads no key, no netrc and no cookie, and tries nothing again
unless it is told to: here all of that is decided in the open.
"""

from __future__ import annotations

import os
import re
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import BinaryIO
from urllib.parse import urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

import certifi
import urllib3
from urllib3.exceptions import HTTPError, SSLError

from berg.core.exceptions import DownloadError, RemoteFileError
from berg.weights.patience import Patience
from berg.weights.source import LOOPBACK, Source

CHUNK = 2**20
LEAST_RATE = 1000  # bytes per second
MAX_REDIRECTS = 5
HEADERS = {"User-Agent": "berg", "Accept-Encoding": "identity"}
_TRY_AGAIN = (408, 429, 500, 502, 503, 504)
_NOT_FOR_US = (401, 403, 404, 410)
_CHANGED = (412, 416)
_CONTENT_RANGE = re.compile(r"bytes (?:(\d+)-(\d+)|\*)/(\d+)")
_HTML_STARTS = (b"<!doctype html", b"<html")


class TryAgain(Exception):
    """It did not work this time; `seconds` is the pause that the server asks for."""

    def __init__(self, sentence: str, seconds: float | None = None) -> None:
        super().__init__(sentence)
        self.seconds = seconds


class Changed(Exception):
    """The bytes cannot be added to those that are here: the file changed, or ranges are not served."""


class Stopped(Exception):
    """Everything was told to stop, by Ctrl-C or because something else went wrong."""


@dataclass(frozen=True)
class Answer:
    """What a source says about a file, and the bytes that follow.

    Parameters
    ----------
    url
        Where the bytes come from, after redirects.
    etag
        As the server wrote it; not a hash that we trust.
    version
        What differs when the file changes: a strong ETag or else the date; None where there is neither.
    total
        Bytes of the whole file; None where the server does not say.
    is_range
        Whether it holds the range that was asked for, and not the whole file.
    """

    url: str
    etag: str | None
    version: str | None
    total: int | None
    is_range: bool
    chunks: Iterator[bytes]


class Remote:
    """A source with its open connections.

    Parameters
    ----------
    n_connections
        How many are kept open.
    """

    def __init__(self, source: Source, patience: Patience, n_connections: int) -> None:
        self.source = source
        self.patience = patience
        self._pool = None if source.is_local else _pool(source, n_connections)
        self._live: set[urllib3.HTTPResponse] = set()
        self._stopped = threading.Event()

    def stop(self) -> None:
        """End every answer under way, also one that waits for bytes."""
        self._stopped.set()
        for response in self._live.copy():
            with suppress(Exception):  # it may be over already
                response.shutdown()

    def close(self) -> None:
        """End the connections."""
        if self._pool is not None:
            self._pool.clear()

    def wait(self, seconds: float) -> None:
        """Wait, unless everything is stopped meanwhile."""
        self._stopped.wait(seconds)

    @property
    def is_stopped(self) -> bool:
        """Whether `stop` was called."""
        return self._stopped.is_set()

    @contextmanager
    def open(self, path: str, start: int, stop: int | None, version: str | None) -> Iterator[Answer]:
        """The bytes from `start` to before `stop` of a file, of this version if one is given.

        Raises
        ------
        TryAgain, Changed
            For the caller to act on.
        DownloadError
            Where it is of no use to try again.
        """
        if self._pool is None:
            with _local_file(self.source, path) as file:
                yield _local_answer(self.source, path, file, start, stop, version)
            return
        response, url = self._request(self.source.url(path), _headers(start, stop, version))
        if response.status == 416 and not start:  # an empty file has no first byte
            response.close()
            response, url = self._request(url, HEADERS)
        self._live.add(response)
        try:
            yield _answer(response, url, start, stop, version, self.patience.read_seconds)
        finally:
            self._live.discard(response)
            response.close()

    def _request(self, url: str, headers: dict[str, str]) -> tuple[urllib3.HTTPResponse, str]:
        for _ in range(MAX_REDIRECTS + 1):
            response = self._get(url, headers)
            location = response.headers.get("Location")
            if not 300 <= response.status < 400 or location is None:
                return response, url
            response.close()
            url = urljoin(url, location)
            self.source.check_redirect(url)
        raise DownloadError(f"{self.source.base} sends us from one address to the next, more than {MAX_REDIRECTS}.")

    def _get(self, url: str, headers: dict[str, str]) -> urllib3.HTTPResponse:
        assert self._pool is not None
        timeout = urllib3.Timeout(connect=self.patience.connect_seconds, read=self.patience.read_seconds)
        try:
            response = self._pool.request(
                "GET", url, headers=headers, timeout=timeout, retries=False, redirect=False, preload_content=False
            )
        except SSLError as error:
            raise DownloadError(
                f"{urlsplit(url).hostname} does not prove who it is ({error}). Is this a network with a login page, or "
                "one that reads along? Open any page in a browser; a certificate of your own goes in SSL_CERT_FILE."
            ) from error
        except HTTPError as error:
            raise TryAgain(f"no answer from {urlsplit(url).netloc} ({error})") from error
        assert isinstance(response, urllib3.HTTPResponse)
        return response


def _pool(source: Source, n_connections: int) -> urllib3.PoolManager:
    """Connections through the proxy of this machine's settings, where there is one."""
    scheme, host = urlsplit(source.base).scheme, urlsplit(source.base).hostname or ""
    if scheme == "http" and host in LOOPBACK:
        return urllib3.PoolManager(maxsize=n_connections)
    context = ssl.create_default_context()  # what the system trusts, and SSL_CERT_FILE
    context.load_verify_locations(certifi.where())  # for systems without certificates
    proxy = None if host in LOOPBACK or proxy_bypass(host) else getproxies().get(scheme)
    if proxy is None:
        return urllib3.PoolManager(maxsize=n_connections, ssl_context=context)
    return urllib3.ProxyManager(proxy, maxsize=n_connections, ssl_context=context)


def _headers(start: int, stop: int | None, version: str | None) -> dict[str, str]:
    headers = {**HEADERS, "Range": f"bytes={start}-{'' if stop is None else stop - 1}"}
    if version is not None:
        headers["If-Match" if version.startswith('"') else "If-Unmodified-Since"] = version
    return headers


def _answer(
    response: urllib3.HTTPResponse, url: str, start: int, stop: int | None, version: str | None, seconds: float
) -> Answer:
    headers, etag = response.headers, response.headers.get("ETag")
    _check_status(response, url)
    is_strong = etag is not None and not etag.startswith("W/")
    answer_version = etag if is_strong else headers.get("Last-Modified")
    chunks, is_range = _chunks(response, url, seconds), response.status == 206
    if not start or not is_range:  # a login page must not make us throw a part away
        chunks = _checked_start(chunks, url)
    if (version is not None and answer_version != version) or (start and not is_range):
        raise Changed
    total = _range_total(response, url, start, stop) if is_range else _length(response)
    return Answer(url, etag, answer_version, total, is_range, chunks)


def _check_status(response: urllib3.HTTPResponse, url: str) -> None:
    """Raise unless the file, or a range of it, follows."""
    status, seconds = response.status, response.headers.get("Retry-After", "")
    if status in _TRY_AGAIN:
        raise TryAgain(f"status {status}", float(seconds) if seconds.isdigit() else None)
    if status in _CHANGED:
        raise Changed
    if status in _NOT_FOR_US:
        raise RemoteFileError(
            f"{url} cannot be had: status {status}. Either there is no such file, or it is not public (a bucket "
            "answers 403 to both). Check the name of the model, the bucket or host, and its prefix."
        )
    if region := response.headers.get("x-amz-bucket-region") if 300 <= status < 400 else None:
        raise DownloadError(f"The bucket of {url} lies in another region; write s3://bucket?region={region}")
    if status not in (200, 206):
        raise DownloadError(f"{url} cannot be had: the server answers with status {status}. Open it in a browser.")
    if response.headers.get("Content-Type", "").startswith("text/html"):
        _check_is_no_page(url)


def _check_is_no_page(url: str) -> None:
    if not urlsplit(url).path.endswith((".html", ".htm")):
        raise DownloadError(
            f"{url} is answered by a web page in place of the file. Is this a network with a login page (a hotel, "
            "a university, an airport)? Open any page in a browser, log in, and try again. What is here is kept."
        )


def _checked_start(chunks: Iterator[bytes], url: str) -> Iterator[bytes]:
    """The same chunks; DownloadError where they begin like a web page."""
    first = next(chunks, b"")
    if first[:100].lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(_HTML_STARTS):
        _check_is_no_page(url)

    def all_of_them() -> Iterator[bytes]:
        yield first
        yield from chunks

    return all_of_them()


def _range_total(response: urllib3.HTTPResponse, url: str, start: int, stop: int | None) -> int:
    """The size of the whole file, when the range that follows is the one asked for."""
    match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    if match is None or match[1] is None:
        raise TryAgain("a range without its place in the file")
    first, last, total = int(match[1]), int(match[2]), int(match[3])
    length = _length(response)
    wanted = total if stop is None else min(stop, total)
    if (first, last + 1) != (start, wanted) or length not in (None, wanted - start):
        raise TryAgain(f"bytes {first}-{last}, {length} long, in place of {start}-{wanted - 1}")
    return total


def _length(response: urllib3.HTTPResponse) -> int | None:
    length = response.headers.get("Content-Length", "")
    return int(length) if length.isdigit() else None


def _chunks(response: urllib3.HTTPResponse, url: str, seconds: float) -> Iterator[bytes]:
    """What comes, as it comes, as long as it is more than a trickle."""
    since, n_bytes = time.monotonic(), 0
    try:
        while chunk := response.read1(CHUNK, decode_content=False):
            yield chunk
            n_bytes += len(chunk)
            if (elapsed := time.monotonic() - since) > seconds:
                if n_bytes < LEAST_RATE * elapsed:
                    raise TryAgain(f"only {n_bytes / elapsed:.0f} bytes per second came")
                since, n_bytes = time.monotonic(), 0
    except (HTTPError, OSError, ValueError, AttributeError) as error:  # the last two: shut down by `stop`
        raise TryAgain(f"the connection to {urlsplit(url).netloc} was cut ({error})") from error


@contextmanager
def _local_file(source: Source, path: str) -> Iterator[BinaryIO]:
    try:
        file = source.file(path).open("rb")
    except OSError as error:
        raise RemoteFileError(f"{source.url(path)} cannot be read: {error.strerror}. Check the folder.") from error
    with file:
        yield file


def _local_answer(
    source: Source, path: str, file: BinaryIO, start: int, stop: int | None, version: str | None
) -> Answer:
    status = os.fstat(file.fileno())
    etag = f'"{status.st_mtime_ns:x}-{status.st_size:x}"'
    if version not in (None, etag):
        raise Changed
    file.seek(start)
    n_left = (status.st_size if stop is None else min(stop, status.st_size)) - start
    return Answer(source.url(path), etag, etag, status.st_size, True, _local_chunks(file, n_left))


def _local_chunks(file: BinaryIO, n_left: int) -> Iterator[bytes]:
    try:
        while n_left > 0 and (chunk := file.read(min(CHUNK, n_left))):
            n_left -= len(chunk)
            yield chunk
    except OSError as error:
        raise TryAgain(f"the disk does not give it ({error})") from error
