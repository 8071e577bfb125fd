"""Asking a source for a range of a file, and what it answers.

By urllib3, which follows no redirect, reads no key, no netrc and no cookie, and tries nothing again
unless it is told to: here all of that is decided in the open.
"""

from __future__ import annotations

import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from typing import BinaryIO, TypeVar
from urllib.parse import urljoin, urlsplit

import urllib3
from urllib3 import HTTPHeaderDict
from urllib3.exceptions import HTTPError, SSLError
from urllib3.util import parse_url

from berg.core.exceptions import DownloadError, RemoteFileError
from berg.core.regular_file import check_regular_file
from berg.core.settings import without_query, without_secrets
from berg.transfer.bounded_calls import BoundedCalls, CallsStopped, Overdue
from berg.transfer.connections import connection_pool
from berg.transfer.file_heads import HEAD_BYTES, head_fault, is_page
from berg.transfer.retries import Patience
from berg.transfer.source import FORMS, Source

Result = TypeVar("Result")

CHUNK = 2**20
LEAST_RATE = 1000  # bytes per second
MAX_REDIRECTS = 5
HEADERS = {"User-Agent": "berg", "Accept-Encoding": "identity"}
_TRY_AGAIN = (408, 429, 500, 502, 503, 504)
_NOT_FOR_US = (401, 403, 404, 410)
_CHANGED = (412, 416)
_MOST_LETTERS = 1000  # of an ETag or a date; it is sent back
_WHOLE_NUMBER = re.compile(r"[0-9]{1,18}")
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18})")
_REGION = re.compile(r"[a-z0-9-]{1,40}")
_STRONG_ETAG = re.compile(rf'"[\x21\x23-\x7e\x80-\xff]{{0,{_MOST_LETTERS}}}"')


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
        What differs when the file changes: a strong ETag or else the date; None if there is neither.
    total
        Bytes of the whole file; None if the server does not say.
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
        self._pool = None if source.is_local else connection_pool(source.base, n_connections)
        self._live: set[_Exchange] = set()
        self._stopped = threading.Event()

    def stop(self) -> None:
        """End everything under way, whatever it waits for."""
        self._stopped.set()
        for exchange in self._live.copy():
            exchange.stop()

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
        TryAgain, Changed, Stopped
            For the caller to act on.
        DownloadError
            If it is of no use to try again. OfflineError: BERG_OFFLINE forbids it.
        """
        if self._pool is None:
            with _local_file(self.source, path) as file:
                yield _local_answer(self.source, path, file, start, stop, version)
            return
        self.source.check_online(path)
        with self._exchange(self._pool) as exchange:
            url = self._request(exchange, self.source.url(path), _headers(start, stop, version))
            if exchange.status == 416 and not start:  # an empty file has no first byte
                url = self._request(exchange, url, HEADERS)
            yield _answer(exchange, url, path, start, stop, version)

    @contextmanager
    def _exchange(self, pool: urllib3.PoolManager) -> Iterator[_Exchange]:
        exchange = _Exchange(pool, self.patience)
        self._live.add(exchange)
        try:
            if self.is_stopped:  # from here on, `stop` reaches it
                raise Stopped
            yield exchange
        finally:
            self._live.discard(exchange)
            exchange.end()

    def _request(self, exchange: _Exchange, url: str, headers: dict[str, str]) -> str:
        """Ask, and follow the server to where it sends us; gives the address that answers."""
        for _ in range(MAX_REDIRECTS + 1):
            exchange.ask(url, headers)
            location = exchange.headers.get("Location")
            if not 300 <= exchange.status < 400 or location is None:
                return url
            url = self._next(url, location)
        raise DownloadError(f"{self.source.base} sends us from one address to the next, more than {MAX_REDIRECTS}.")

    def _next(self, url: str, location: str) -> str:
        try:
            target = urljoin(url, location)
            parse_url(target)  # as strict as who will ask there
            self.source.check_redirect(target)
        except (ValueError, HTTPError) as error:
            raise DownloadError(
                f"{self.source.base} sends us on to what is no address: {location!a:.80}. Try later, or take another "
                f"source, one of {FORMS}."
            ) from error
        return target


class _Exchange:
    """One question to a server after the other, and their answers; everything in it ends in bounded time."""

    def __init__(self, pool: urllib3.PoolManager, patience: Patience) -> None:
        self.url = ""
        self._pool, self._patience = pool, patience
        self._calls = BoundedCalls()
        self._response: urllib3.BaseHTTPResponse | None = None

    @property
    def status(self) -> int:
        """Of the last answer."""
        assert self._response is not None
        return self._response.status

    @property
    def headers(self) -> HTTPHeaderDict:
        """Of the last answer."""
        assert self._response is not None
        return self._response.headers

    @property
    def length(self) -> int | None:
        """How many bytes the answer says that it has."""
        return whole_number(self.headers.get("Content-Length"))

    def ask(self, url: str, headers: dict[str, str]) -> None:
        """Send a question, and wait for the head of the answer.

        Raises
        ------
        TryAgain, Stopped, DownloadError
        """
        self.url = url
        try:
            self._bounded(lambda: self._ask(url, headers), self._patience.head_seconds)
        except Overdue as error:
            raise TryAgain(
                f"{urlsplit(url).netloc} did not answer within {self._patience.head_seconds:g} seconds"
            ) from error
        except SSLError as error:
            raise DownloadError(
                f"{urlsplit(url).hostname} does not prove who it is ({error}). Is this a network with a login page, or "
                "one that reads along? Open any page in a browser; a certificate of your own goes in SSL_CERT_FILE."
            ) from error
        except (HTTPError, OSError, ValueError, HTTPException) as error:
            if _is_unknown_name(error):
                raise DownloadError(
                    f"There is no {urlsplit(url).hostname} (or no such proxy): the name does not resolve. Is it "
                    "spelled right, and is this machine online? The source is shown by:  berg where"
                ) from error
            raise TryAgain(f"no answer from {urlsplit(url).netloc} ({_reason(error)})") from error

    def _ask(self, url: str, headers: dict[str, str]) -> None:
        self._close()
        patience = self._patience
        self._response = self._pool.request(
            "GET",
            url,
            headers=headers,
            timeout=urllib3.Timeout(connect=patience.connect_seconds, read=patience.head_seconds),
            retries=False,
            redirect=False,
            preload_content=False,
        )

    def chunks(self) -> Iterator[bytes]:
        """What comes, as it comes, as long as it is more than a trickle."""
        seconds, n_bytes, rate = 0.0, 0, 0.0
        while chunk := self._read(self._patience.read_seconds):
            yield chunk
            n_bytes += len(chunk)
            seconds += self._read_seconds
            if seconds > self._patience.read_seconds:
                if (rate := n_bytes / seconds) < LEAST_RATE:
                    raise TryAgain(f"only {rate:.0f} bytes per second came")
                seconds, n_bytes = 0.0, 0

    def _read(self, seconds: float) -> bytes:
        since = time.monotonic()
        try:
            return self._bounded(self._read_some, seconds)
        except Overdue as error:
            raise TryAgain(f"nothing came from {urlsplit(self.url).netloc} for {seconds:g} seconds") from error
        except (HTTPError, OSError, ValueError, HTTPException) as error:
            raise TryAgain(f"the connection to {urlsplit(self.url).netloc} was cut ({_reason(error)})") from error
        finally:
            self._read_seconds = time.monotonic() - since  # waiting for the server; what the disk takes is not its own

    def _read_some(self) -> bytes:
        assert self._response is not None
        return self._response.read1(CHUNK, decode_content=False)

    def _bounded(self, function: Callable[[], Result], seconds: float) -> Result:
        try:
            return self._calls.call(function, seconds)
        except CallsStopped as error:
            raise Stopped from error

    def stop(self) -> None:
        """End it, whatever it waits for."""
        self._calls.stop()

    def end(self) -> None:
        """Close the answer; a connection whose answer was read to its end is kept."""
        self._calls.end(self._close)

    def _close(self) -> None:
        if self._response is not None:
            self._response.close()


def _reason(error: Exception) -> str:
    """What an error says, for one line of a terminal."""
    text = without_query(str(error)) or type(error).__name__
    return "".join(letter if letter.isprintable() else "." for letter in text)[:300]


def _headers(start: int, stop: int | None, version: str | None) -> dict[str, str]:
    headers = {**HEADERS, "Range": f"bytes={start}-{'' if stop is None else stop - 1}"}
    if version is not None and _STRONG_ETAG.fullmatch(version):
        headers["If-Match"] = version
    elif version is not None and _date(version) is not None:
        headers["If-Unmodified-Since"] = version
    return headers


def _answer(exchange: _Exchange, url: str, path: str, start: int, stop: int | None, version: str | None) -> Answer:
    headers, etag = exchange.headers, exchange.headers.get("ETag")
    _check_status(exchange, url)
    answer_version = etag if etag and _STRONG_ETAG.fullmatch(etag) else _version(headers.get("Last-Modified"))
    chunks, is_range = exchange.chunks(), exchange.status == 206
    if not is_range:  # first: a login page must not make us throw a part away
        chunks = _checked_start(chunks, url, path)
    if (version is not None and answer_version != version) or (start and not is_range):
        raise Changed
    total = _range_total(exchange, start, stop) if is_range else exchange.length
    if is_range and not start:
        chunks = _checked_start(chunks, url, path)
    return Answer(without_secrets(url), etag, answer_version, total, is_range, chunks)


def _version(date: str | None) -> str | None:
    return date if date and date.isprintable() and len(date) < _MOST_LETTERS else None


def _check_status(exchange: _Exchange, url: str) -> None:
    """Raise unless the file, or a range of it, follows."""
    status, headers, shown = exchange.status, exchange.headers, without_secrets(url)
    if status in _TRY_AGAIN:
        raise TryAgain(f"status {status}", retry_after(headers.get("Retry-After")))
    if status in _CHANGED:
        raise Changed
    if status in _NOT_FOR_US:
        raise RemoteFileError(
            f"{shown} cannot be had: status {status}. Either there is no such file, or it is not public (a bucket "
            "answers 403 to both). Check the name of the model, the bucket or host, and its prefix."
        )
    if 300 <= status < 400 and _REGION.fullmatch(region := headers.get("x-amz-bucket-region", "")):
        raise DownloadError(f"The bucket of {shown} lies in another region; write s3://bucket?region={region}")
    if status not in (200, 206):
        raise DownloadError(f"{shown} cannot be had: the server answers with status {status}. Open it in a browser.")
    if (coding := headers.get("Content-Encoding", "identity").strip().lower()) not in ("identity", ""):
        raise DownloadError(
            f"{shown} comes compressed ({coding!a:.40}), which was not asked for and cannot be continued where it "
            "stopped. Take another source, or switch that off on the server (Content-Encoding)."
        )
    if headers.get("Content-Type", "").startswith("text/html") and not is_page(urlsplit(url).path):
        raise DownloadError(_another(url, "a web page"))


def _another(url: str, what: str) -> str:
    if url.startswith("file:"):
        return f"{url} is {what}. Put the file itself there (git lfs pull, git annex get), or take another source."
    return (
        f"{without_secrets(url)} is answered by {what} in place of the file. Is this a network with a login page (a "
        "hotel, a university, an airport)? Open any page in a browser, log in, and try again. What is here is kept."
    )


def _checked_start(chunks: Iterator[bytes], url: str, path: str) -> Iterator[bytes]:
    """The same chunks; DownloadError if they begin like something else than the file."""
    first = b""
    while len(first) < HEAD_BYTES and (chunk := next(chunks, b"")):
        first += chunk
    if fault := head_fault(path, first):
        raise DownloadError(_another(url, fault))

    def all_of_them() -> Iterator[bytes]:
        if first:
            yield first
        yield from chunks

    return all_of_them()


def _range_total(exchange: _Exchange, start: int, stop: int | None) -> int:
    """The size of the whole file, when the range that follows is the one asked for."""
    match = _CONTENT_RANGE.fullmatch(exchange.headers.get("Content-Range", "").strip())
    if match is None:
        raise TryAgain("a range without its place in the file")
    first, last, total = int(match[1]), int(match[2]), int(match[3])
    wanted = total if stop is None else min(stop, total)
    if (first, last + 1) != (start, wanted) or exchange.length not in (None, wanted - start):
        raise TryAgain(f"bytes {first}-{last}, {exchange.length} long, in place of {start}-{wanted - 1}")
    return total


def _is_unknown_name(error: BaseException | None) -> bool:
    """Whether it is a name that nobody knows; one that cannot be looked up just now is worth another try."""
    while error is not None:
        if isinstance(error, socket.gaierror):
            return error.errno != socket.EAI_AGAIN
        error = error.__cause__ or error.__context__
    return False


def whole_number(text: str | None) -> int | None:
    """A number of bytes or seconds as a header writes it; None for anything else.

    >>> whole_number(" 12 "), whole_number("-5"), whole_number("²"), whole_number("9" * 5000)
    (12, None, None, None)
    """
    return int(text) if text is not None and _WHOLE_NUMBER.fullmatch(text := text.strip()) else None


def retry_after(text: str | None) -> float | None:
    """The seconds that a server asks us to wait, as a number or until a date; None if it says neither.

    >>> retry_after("120"), retry_after("Thu, 01 Jan 1970 00:00:00 GMT"), retry_after("soon")
    (120.0, 0.0, None)
    """
    if (seconds := whole_number(text)) is not None:
        return float(seconds)
    return None if (date := _date(text)) is None else max(0.0, date - time.time())


def _date(text: str | None) -> float | None:
    """Seconds since 1970 of a date as HTTP writes it; None for anything else."""
    try:
        return parsedate_to_datetime(text or "").timestamp()
    except (ValueError, TypeError, OverflowError, OSError):
        return None


@contextmanager
def _local_file(source: Source, path: str) -> Iterator[BinaryIO]:
    try:
        check_regular_file(source.file(path))
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
    chunks = _local_chunks(file, n_left)
    if not start:
        chunks = _checked_start(chunks, source.url(path), path)
    return Answer(source.url(path), etag, etag, status.st_size, True, chunks)


def _local_chunks(file: BinaryIO, n_left: int) -> Iterator[bytes]:
    try:
        while n_left > 0 and (chunk := file.read(min(CHUNK, n_left))):
            n_left -= len(chunk)
            yield chunk
    except OSError as error:
        raise TryAgain(f"the disk does not give it ({error})") from error
