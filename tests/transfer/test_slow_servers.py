"""A server may take its time in every phase of an answer: it is given up, and Ctrl-C ends it at once."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from berg.core.exceptions import DownloadError
from berg.transfer.fetch import WantedFile, fetch
from berg.transfer.retries import Patience

from .raw_server import drips, hangs, raw_server

HASTY = Patience(
    attempts=2, first_pause=0.01, longest_pause=0.02, connect_seconds=0.15, read_seconds=0.15, head_seconds=0.2
)
OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
LONG = OK + b"Content-Length: 100000\r\n\r\n"
PHASES = {
    "nothing after the request": hangs,
    "a status line by the drop": drips(b"HTTP/1.1 200 ", b"O"),
    "a header by the drop": drips(OK + b"X: ", b"x"),
    "headers without end": drips(OK, b"X: x\r\n"),
    "100 Continue without end": drips(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "100 Continue without end, fast": drips(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 100, 0.001),
    "no body": drips(LONG, b"", 10),
    "a body by the drop": drips(LONG + b"\x93NUMPY", b"x"),
    "the size of a chunk by the drop": drips(CHUNKED, b"0"),
    "an extension of a chunk by the drop": drips(CHUNKED + b"5;", b"x"),
    "chunks of a byte by the drop": drips(CHUNKED, b"1\r\nx\r\n"),
    "trailers without end": drips(CHUNKED + b"6\r\n\x93NUMPY\r\n0\r\n", b"X: x\r\n"),
}


@pytest.mark.parametrize("phase", PHASES)
def test_it_is_given_up_in_bounded_time(phase, tmp_path):
    since = time.monotonic()
    with raw_server(PHASES[phase]) as server:
        with pytest.raises(DownloadError, match=r"cannot be had now: .*, 2 times in a row"):
            fetch(server.url, [WantedFile("weights.npy", 100_000)], tmp_path, patience=HASTY)
        assert server.n_connections == 2
    assert time.monotonic() - since < 3


def wait_for_end_of_threads():
    until = time.monotonic() + 2
    while any(thread.name == "berg-download" for thread in threading.enumerate()) and time.monotonic() < until:
        time.sleep(0.02)
    return [thread for thread in threading.enumerate() if thread.name == "berg-download"]


@pytest.mark.parametrize("phase", ["a header by the drop", "the size of a chunk by the drop"])
def test_no_thread_stays_behind(phase, tmp_path):
    with raw_server(PHASES[phase]) as server:
        with pytest.raises(DownloadError):
            fetch(server.url, [WantedFile("weights.npy")], tmp_path, patience=HASTY)
        assert wait_for_end_of_threads() == []  # the server drips on


def test_a_name_that_is_looked_up_for_ever_is_given_up(monkeypatch, tmp_path):
    is_over = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: is_over.wait(10))
    monkeypatch.delenv("https_proxy", raising=False)
    monkeypatch.delenv("HTTPS_PROXY", raising=False)
    since = time.monotonic()
    with pytest.raises(DownloadError, match=r"weights\.example did not answer within 0\.2 seconds, 2 times"):
        fetch("https://weights.example", [WantedFile("weights.npy")], tmp_path, patience=HASTY)
    assert time.monotonic() - since < 3
    is_over.set()
    assert wait_for_end_of_threads() == []


def test_a_proxy_that_drips_is_given_up(monkeypatch, tmp_path):
    with raw_server(drips(b"HTTP/1.1 200 ", b"x")) as proxy:
        monkeypatch.setenv("https_proxy", proxy.url)
        with pytest.raises(DownloadError, match="did not answer within"):
            fetch("https://weights.example", [WantedFile("weights.npy")], tmp_path, patience=HASTY)
        assert proxy.requests[0].startswith("CONNECT weights.example:443")
        assert wait_for_end_of_threads() == []


@pytest.mark.parametrize("answer", [hangs, drips(b"\x16\x03\x03", b"\0")], ids=["nothing", "drops"])
def test_an_encryption_that_never_begins_is_given_up(answer, tmp_path):
    with (
        raw_server(answer, read_request=False) as server,
        pytest.raises(DownloadError, match=r"2 times in a row|prove"),
    ):
        fetch(server.url.replace("http:", "https:"), [WantedFile("weights.npy")], tmp_path, patience=HASTY)


CHILD = """
import signal, socket, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)
from berg.cli.app import main
import berg.families.fwrf.model  # which takes seconds of several processes at once
if sys.argv[2] == "slow name":
    socket.getaddrinfo = lambda *_, **__: time.sleep(60)
print("go", flush=True)
main(["download", "fmri-nsd-fwrf", "--subject", "1", "--selection", "roi=V1", "--source", sys.argv[1],
      "--berg-dir", sys.argv[3]])
"""


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize("phase", PHASES)
def test_ctrl_c_ends_it_in_every_phase(phase, tmp_path):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    timer = threading.Timer(0.15, os.kill, (os.getpid(), signal.SIGINT))
    try:
        timer.start()
        with raw_server(PHASES[phase]) as server, pytest.raises(KeyboardInterrupt):
            fetch(server.url, [WantedFile("weights.npy", 100_000)], tmp_path)  # with the patience of everybody
        timer.join()
        assert wait_for_end_of_threads() == []
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_the_first_ctrl_c_ends_the_command_in_every_phase(tmp_path):
    """One process for each phase, all at once: what takes long is to start them."""
    phases = [*PHASES.values(), "slow name", "no encryption"]
    with raw_server(hangs) as silent:
        servers = [raw_server(phase) for phase in phases if callable(phase)]
        urls = [server.__enter__().url for server in servers]
        urls += ["https://weights.example", silent.url.replace("http:", "https:")]
        environment = {name: text for name, text in os.environ.items() if "proxy" not in name.lower()}
        children = [
            subprocess.Popen(
                [sys.executable, "-c", CHILD, url, str(phase), tmp_path],
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
            )
            for url, phase in zip(urls, phases, strict=True)
        ]  # fmt: skip
        for child in children:
            assert child.stdout.readline() == "go\n"
        time.sleep(2)
        for child in children:
            child.send_signal(signal.SIGINT)
        since = time.monotonic()
        ends = [(child.communicate(timeout=20)[1], child.returncode, time.monotonic() - since) for child in children]
        for server in servers:
            server.__exit__(None, None, None)
    told = "berg: interrupted. What has come is kept; give the same command again to go on\n"
    assert [(error, code) for error, code, _ in ends] == [(told, 130)] * len(phases)
    assert max(seconds for *_, seconds in ends) < 2
