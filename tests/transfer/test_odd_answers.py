"""Answers that no server should give: each is taken as others take it, or ends in an error of ours that says so."""

from __future__ import annotations

import random
import re

import numpy as np
import pytest

from berg.core.exceptions import BERGError, DownloadError, InvalidParameterError, MissingExtraError
from berg.transfer.connections import connection_pool
from berg.transfer.fetch import WantedFile, fetch
from berg.transfer.remote import retry_after
from berg.transfer.retries import Patience
from berg.transfer.source import parse_source

from .raw_server import raw_server, says

HASTY = Patience(
    attempts=2, first_pause=0.001, longest_pause=0.002, connect_seconds=0.5, read_seconds=0.2, head_seconds=0.5
)
CONTENT = b"\x93NUMPY" + np.random.default_rng(0).bytes(2000)
NINES = b"9" * 5000
TWO = "²".encode("latin-1")  # a digit to str.isdigit, and none to int


def answer(status: bytes = b"200 OK", *headers: bytes, body: bytes = CONTENT) -> bytes:
    return b"".join([b"HTTP/1.1 ", status, b"\r\n", *(line + b"\r\n" for line in headers), b"\r\n", body])


def get(data: bytes, folder, known: int | None = None):
    with raw_server(says(data)) as server:
        return fetch(server.url, [WantedFile("weights.npy", known)], folder, patience=HASTY)


@pytest.mark.parametrize("length", [TWO, NINES, b"-5", b"1e3", b"0x10", b"two", b" ", b"\xe3\x81\x82"])
def test_a_length_that_is_no_number_is_no_length(length, tmp_path):
    with pytest.raises(DownloadError, match=r"does not say how large it is|times in a row"):
        get(answer(b"200 OK", b"Content-Length: " + length), tmp_path / "unknown")
    get(answer(b"200 OK", b"Content-Length: " + length), tmp_path / "known", len(CONTENT))
    assert (tmp_path / "known" / "weights.npy").read_bytes() == CONTENT


@pytest.mark.parametrize(
    "place", [b"", b"bytes", TWO, b"bytes 0-9/*", b"bytes */9", b"bytes 0-" + TWO + b"/9", b"bytes 0-9/" + NINES]
)
def test_a_range_that_is_no_range_is_named(place, tmp_path):
    with pytest.raises(DownloadError, match="a range without its place in the file, 2 times in a row"):
        get(answer(b"206 Partial", b"Content-Range: " + place, b"Content-Length: 2006"), tmp_path)


@pytest.mark.parametrize(
    "location",
    [b"http://[::1", b"//[", b"http://127.0.0.1:99999/", b"http://127.0.0.1:x/", b"//a]b", b"http://\xff\xfe[/"],
)  # fmt: skip
def test_a_redirect_to_what_is_no_address_is_refused(location, tmp_path):
    with pytest.raises(DownloadError, match="sends us on to"):
        get(answer(b"302 Found", b"Location: " + location), tmp_path)


@pytest.mark.parametrize("location", [b"", b"?x=[", b"/a b", b"#", b"/\xff", b"//127.0.0.1", b"http:///x"])
def test_an_odd_redirect_ends_in_an_error_of_ours(location, tmp_path):
    with pytest.raises(DownloadError):
        get(answer(b"302 Found", b"Location: " + location), tmp_path)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("3", 3), (" 3 ", 3), ("²", None), ("9" * 5000, None), ("-1", None), ("soon", None), (None, None), ("", None),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0), ("Thu, 99 Jan 1970 00:00:00 GMT", None), ("1.5", None),
        ("Thu, 01 Jan 99999 00:00:00 GMT", None),
    ],
)  # fmt: skip
def test_the_pause_that_a_server_asks_for(text, seconds):
    assert retry_after(text) == seconds


def test_a_date_to_try_again_is_a_pause():
    assert retry_after("Fri, 01 Jan 2100 00:00:00 GMT") > 1e9


def test_an_answer_that_is_compressed_without_being_asked_is_refused(tmp_path):
    with pytest.raises(DownloadError, match=r"comes compressed \('gzip'\)"):
        get(answer(b"200 OK", b"Content-Encoding: gzip", b"Content-Length: 2006"), tmp_path)


ODD_VALUES = [
    b"", b"0", b"-1", TWO, NINES, b"\xff", b"[", b"a" * 70_000, b"bytes 0-0/1", b"http://[", b"\x00", b"\x1b[31m",
    b"chunked", b"gzip", b"close", b'"x', b'W/"x"', b"1, 2", b"5, 5", b"Thu, 99 Foo 2020", b"%", b"text/html",
    b"\r\n folded", b"application/json", b"//", b"?", b"9" * 18, b"bytes 0-999999999999999999/999999999999999999",
]  # fmt: skip
NAMES = [
    b"Content-Length", b"Content-Range", b"Content-Type", b"Content-Encoding", b"Transfer-Encoding", b"Location",
    b"Retry-After", b"ETag", b"Last-Modified", b"Connection", b"x-amz-bucket-region", b"", b"X:", b"\xff",
]  # fmt: skip
STATUSES = [
    b"200 OK", b"206 Partial", b"301 x", b"302 x", b"304 x", b"204 x", b"403 x", b"412 x", b"416 x", b"429 x", b"503 x",
    b"100 x", b"101 x", b"103 x", b"999 x", b"000 x", b"-1 x", b"abc", b"", TWO * 3, b"200", b"99999999999 x",
]  # fmt: skip
BODIES = [b"", CONTENT, CONTENT[:7], b"<html>", b"{}", b"5\r\nhello\r\n0\r\n\r\n", b"zz\r\n", b"-5\r\n", b"\0" * 3000]


def odd_answer(dice: random.Random) -> bytes:
    """An answer of which one thing is odd, or several, or all."""
    n_odd = dice.choice([0, 1, 1, 4])
    headers = [
        dice.choice(NAMES) + dice.choice([b": ", b": ", b" : ", b""]) + dice.choice(ODD_VALUES) for _ in range(n_odd)
    ]
    status = dice.choice(STATUSES[:2]) if dice.random() < 0.7 else dice.choice(STATUSES)
    if status == STATUSES[1]:
        headers.append(b"Content-Range: bytes 0-2005/2006")
    headers.insert(0, b"Content-Length: %d" % dice.choice([2006, 2006, 2006, 2007, 5, 0]))
    data = answer(status, *headers, body=CONTENT if dice.random() < 0.7 else dice.choice(BODIES))
    if dice.random() < 0.2:
        place = dice.randrange(200)
        data = data[:place] + dice.randbytes(dice.randrange(5)) + data[place + 1 :]
    return data


def fuzz(folder, seeds) -> dict[str, int]:
    """How many ended how; anything but an error of ours, or the right file, fails."""
    counts: dict[str, int] = {}
    for seed in seeds:
        target = folder / str(seed)
        try:
            get(odd_answer(random.Random(seed)), target, dict(enumerate([None, len(CONTENT)])).get(seed % 3))
            content = (target / "weights.npy").read_bytes()
            assert content.startswith(b"\x93NUMPY")
            outcome = "whole" if content == CONTENT else "as the server said"
        except BERGError as error:
            outcome = type(error).__name__ if str(error).isprintable() else f"unprintable: {error}"
        counts[outcome] = counts.get(outcome, 0) + 1
    assert not [outcome for outcome in counts if outcome.startswith("unprintable")]
    return counts


def test_fifty_odd_answers_end_in_a_file_or_an_error_of_ours(tmp_path):
    counts = fuzz(tmp_path, range(50))
    assert sum(counts.values()) == 50
    assert counts["DownloadError"] > 20


@pytest.mark.slow
def test_a_thousand_odd_answers(tmp_path):
    print(fuzz(tmp_path, range(1000)))


@pytest.fixture
def proxy(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return lambda text, name="HTTPS_PROXY": monkeypatch.setenv(name, text)


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("proxy.example:3128", "http://proxy.example:3128"),
        ("http://proxy.example:3128", "http://proxy.example:3128"),
        ("https://proxy.example:3128/", "https://proxy.example:3128"),
        ("127.0.0.1:3128", "http://127.0.0.1:3128"),
        ("localhost:3128", "http://localhost:3128"),
        ("[::1]:3128", "http://[::1]:3128"),
        (" proxy.example:3128 ", "http://proxy.example:3128"),
        ("me:se%40cret@proxy.example:3128", "http://proxy.example:3128"),
        ("proxy.example", "http://proxy.example:80"),
    ],
)
def test_a_proxy_is_taken_with_and_without_http(text, url, proxy):
    proxy(text)
    pool = connection_pool("https://weights.example", 1)
    assert pool.proxy.url.rstrip("/") == url
    expected = {"proxy-authorization": "Basic bWU6c2VAY3JldA=="} if "@" in text else {}
    assert dict(pool.proxy_headers) == expected  # me:se@cret


def test_the_proxy_for_all_is_used_where_there_is_no_other(proxy):
    proxy("all.example:1", "ALL_PROXY")
    assert connection_pool("https://weights.example", 1).proxy.host == "all.example"
    proxy("own.example:1")
    assert connection_pool("https://weights.example", 1).proxy.host == "own.example"
    proxy("*", "NO_PROXY")
    assert connection_pool("https://weights.example", 1).proxy is None


@pytest.mark.parametrize("text", ["ftp://x:1", "http://me:secret@[::1", "http://p:99999", "http://p:x", "http://"])
def test_what_is_no_proxy_is_refused_without_its_password(text, proxy):
    proxy(text)
    with pytest.raises(InvalidParameterError, match=r"HTTPS_PROXY is .* unset HTTPS_PROXY https_proxy") as caught:
        connection_pool("https://weights.example", 1)
    assert "secret" not in str(caught.value)


def test_a_socks_proxy_needs_pysocks(proxy, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "socks", None)
    proxy("socks5://me:secret@127.0.0.1:1080")
    with pytest.raises(MissingExtraError, match=r"socks5://\*\*\*@127.0.0.1:1080, .* pip install pysocks"):
        connection_pool("https://weights.example", 1)


def test_a_proxy_that_answers_oddly_is_named(proxy, tmp_path):
    for said in (b"HTTP/1.1 407 Who\r\n\r\n", b"junk\r\n", b"HTTP/1.1 200 OK\r\n\r\njunk", b""):
        with raw_server(says(said)) as server:
            proxy(server.url.replace("://", "://me:secret@"))
            with pytest.raises(DownloadError) as caught:
                fetch("https://weights.example", [WantedFile("weights.npy")], tmp_path, patience=HASTY)
        assert "secret" not in str(caught.value)
        assert "proxy-authorization: Basic bWU6c2VjcmV0" in server.requests[0]


@pytest.mark.parametrize(
    "text",
    [
        "https://[::1", "https://h:x", "https://h:99999", "https://me:secret@[", "me:secret@h", "ftp://me:secret@h/x",
        "s3://me:secret@bucket", "https://me:sec/secret@h/x", "s3://b?endpoint=https://me:secret@h",
        "https://h/x?token=secret", "file://me:secret@h/x", "s3://bucket?region=us-west-2&key=secret", "https://h/#secret",
    ],
)  # fmt: skip
def test_what_is_no_source_is_refused_without_its_password(text):
    with pytest.raises(InvalidParameterError) as caught:
        parse_source(text)
    assert "secret" not in str(caught.value)


def test_a_key_that_a_redirect_gives_is_not_shown(tmp_path):
    def redirect(connection, request):
        moved = re.match(r"GET \S*\?", request) is None
        connection.sendall(answer(b"302 Found", b"Location: /w?signature=secret") if moved else answer(b"404 Gone"))

    with raw_server(redirect) as server, pytest.raises(DownloadError, match=r"/w\?\*\*\* cannot be had") as caught:
        fetch(server.url, [WantedFile("weights.npy")], tmp_path, patience=HASTY)
    assert "secret" not in str(caught.value)


def test_spaces_in_a_source_are_quoted():
    assert parse_source("https://h.example/a b/%20c").url("d e") == "https://h.example/a%20b/%20c/d%20e"
