"""What goes wrong between a bucket and a disk, row by row: it recovers, or says what it is; nothing is lost."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from berg.core.exceptions import BERGError, CorruptedFileError, DownloadError, RemoteFileError
from berg.transfer import partial_file
from berg.transfer.fetch import WantedFile, fetch
from berg.transfer.retries import Patience

from .fault_proxy import FINE, Fault, FaultProxy
from .file_servers import Bucket, bucket

SIZE = 1_000_000
CONTENT, OTHER = (b"\x93NUMPY" + np.random.default_rng(seed).bytes(SIZE - 6) for seed in (0, 1))
HASHES = {content: hashlib.sha256(content).hexdigest() for content in (CONTENT, OTHER)}
QUICK = Patience(attempts=4, first_pause=0.01, longest_pause=0.05, connect_seconds=2, read_seconds=0.4)
PAGE = b"\n<!DOCTYPE html><title>Log in</title>" + b" " * 200


@pytest.fixture(scope="module")
def store() -> Iterator[Bucket]:
    with bucket() as made:
        yield made


@pytest.fixture
def proxy(store: Bucket, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    monkeypatch.setattr(partial_file, "PIECE", 300_000)  # four pieces
    store.put("m/weights.npy", CONTENT)
    with FaultProxy(store.address) as made:
        yield made


def get(proxy: FaultProxy, folder: Path, **known: object):
    return fetch(
        f"s3://berg-bucket/m?endpoint={proxy.url}",
        [WantedFile("weights.npy", **known)],  # type: ignore[arg-type]
        folder,
        parallel=2,
        patience=QUICK,
    )


@dataclass
class Row:
    """`plan` for the first answers, `default` for all others, and what must come of it."""

    plan: list[Fault] = field(default_factory=list)
    default: Fault = field(default_factory=Fault)
    error: type[BERGError] | None = None
    words: str = ""


def page(kind: str) -> Fault:
    return Fault(status=200, headers={"Content-Type": kind}, body=PAGE)


def status(number: int, **headers: str) -> Fault:
    return Fault(status=number, headers={key.replace("_", "-"): value for key, value in headers.items()})


RANGE_ELSEWHERE = Fault(status=206, headers={"Content-Range": "bytes 5-9/1000000", "ETag": '"x"'}, body=b"12345")
RECOVERIES = {
    "cut before the first byte": Row([Fault(cut=0)]),
    "cut after one byte": Row([Fault(cut=1)]),
    "cut in every piece": Row([Fault(cut=100_000)] * 4),
    "cut ten times, a little coming each time": Row([Fault(cut=70_000)] * 10),
    "status 500 three times": Row([status(500)] * 3),
    "status 503 three times": Row([status(503, Retry_After="0")] * 3),
    "status 502, 504, 408": Row([status(502), status(504), status(408)]),
    "status 429 in the middle": Row([FINE, status(429, Retry_After="9")]),
    "bytes stop coming": Row([FINE, Fault(stall=100_000)]),
    "bytes come by the drop": Row([FINE, Fault(rate=100)]),
    "slow": Row(default=Fault(rate=2e6)),
    "a longer length is announced": Row([Fault(longer=100)]),
    "another range than asked for": Row([RANGE_ELSEWHERE]),
    "one byte flipped": Row([FINE, Fault(flip=1000)]),
}
REFUSED = {
    "status 500 for ever": Row(default=status(500), error=DownloadError, words="status 500, 4 times in a row"),
    "cut at once for ever": Row(default=Fault(cut=0), error=DownloadError, words="cut .* 4 times in a row"),
    "cut at once after a piece": Row([FINE], Fault(cut=0), DownloadError, r"(262\.1|300\.0) kB of it are kept"),
    "no bytes for ever": Row(default=Fault(stall=0), error=DownloadError, words="times in a row"),
    "drops for ever": Row(default=Fault(rate=100), error=DownloadError, words="only .* bytes per second.*in a row"),
    "a longer length for ever": Row(default=Fault(longer=9), error=DownloadError, words="times in a row"),
    "status 403": Row(default=status(403), error=RemoteFileError, words="status 403.*not public"),
    "status 404": Row(default=status(404), error=RemoteFileError, words="status 404.*no such file"),
    "status 401": Row(default=status(401), error=RemoteFileError, words="status 401"),
    "status 418": Row(default=status(418), error=DownloadError, words="answers with status 418"),
    "login page": Row(default=page("text/html; charset=x"), error=DownloadError, words="a web page in place of"),
    "login page that hides": Row(default=page("application/octet-stream"), error=DownloadError, words="login page"),
    "login page midway": Row([FINE], page("application/octet-stream"), DownloadError, "What is here is kept"),
    "redirect to another host": Row(
        default=status(302, Location="https://portal.example/in"), error=DownloadError, words="portal.example, which"
    ),
    "redirect to plain http": Row(
        default=status(307, Location="http://portal.example/in"), error=DownloadError, words="was not followed"
    ),
    "redirect in a ring": Row(default=status(302, Location="/again"), error=DownloadError, words="more than 5"),
    "bucket of another region": Row(
        default=status(301, x_amz_bucket_region="eu-west-1"), error=DownloadError, words=r"\?region=eu-west-1"
    ),
    "a byte flipped each time": Row(default=Fault(flip=7), error=CorruptedFileError, words="twice the same"),
    "a byte flipped, then another": Row(
        [Fault(flip=7)] * 4, Fault(flip=8), CorruptedFileError, "each time otherwise: something on the way changes it"
    ),
}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# A flipped byte that no hash was given for cannot be seen by anybody.
@pytest.mark.parametrize(
    ("fault", "known"),
    [(fault, known) for fault in RECOVERIES for known in (True, False) if known or fault != "one byte flipped"],
)
def test_it_recovers(fault: str, known: bool, proxy: FaultProxy, tmp_path: Path):
    row = RECOVERIES[fault]
    proxy.plan, proxy.default = list(row.plan), row.default
    expected = {"size": SIZE, "sha256": HASHES[CONTENT]} if known else {}
    (fetched,) = get(proxy, tmp_path, **expected)
    assert (tmp_path / "weights.npy").read_bytes() == CONTENT
    assert (fetched.size, fetched.sha256, fetched.was_here) == (SIZE, HASHES[CONTENT], False)
    asides = [name for name in names(tmp_path) if "damaged" in name]
    assert names(tmp_path) == ["weights.npy", *asides]
    assert len(asides) == (fault == "one byte flipped")


@pytest.mark.parametrize("fault", REFUSED)
def test_it_says_what_is_wrong_and_goes_on_when_it_is_over(fault: str, proxy: FaultProxy, tmp_path: Path):
    row = REFUSED[fault]
    assert row.error is not None
    proxy.plan, proxy.default = list(row.plan), row.default
    with pytest.raises(row.error, match=row.words) as caught:
        get(proxy, tmp_path, size=SIZE, sha256=HASHES[CONTENT])
    assert type(caught.value) is row.error
    assert "weights.npy" not in names(tmp_path)
    proxy.plan, proxy.default, n_before = [], FINE, proxy.n_bytes
    get(proxy, tmp_path, size=SIZE, sha256=HASHES[CONTENT])
    assert (tmp_path / "weights.npy").read_bytes() == CONTENT
    n_kept = 300_000 if row.plan == [FINE] else 0
    assert proxy.n_bytes - n_before <= SIZE - n_kept + 1000  # the proxy drips a little to who is gone, too


@pytest.mark.parametrize("fault", ["status 403", "status 404", "login page", "redirect to another host"])
def test_what_no_patience_mends_is_asked_for_once(fault: str, proxy: FaultProxy, tmp_path: Path):
    proxy.default = REFUSED[fault].default
    with pytest.raises(DownloadError, match=REFUSED[fault].words):
        get(proxy, tmp_path)
    assert len(proxy.seen) == 1


def test_damaged_files_are_kept_and_named(proxy: FaultProxy, tmp_path: Path):
    proxy.plan, proxy.default = [Fault(flip=7)] * 4, Fault(flip=8)
    with pytest.raises(CorruptedFileError) as caught:
        get(proxy, tmp_path, sha256=HASHES[CONTENT])
    asides = [path for path in tmp_path.iterdir() if ".damaged-" in path.name]
    assert len(asides) == 2
    assert all(str(path) in str(caught.value) and len(path.read_bytes()) == SIZE for path in asides)


@pytest.mark.parametrize("when", range(1, 4))
@pytest.mark.parametrize("size", [SIZE, SIZE - 1, SIZE + 1, 10])
def test_a_file_that_changes_midway_is_not_stitched(
    when: int, size: int, store: Bucket, proxy: FaultProxy, tmp_path: Path
):
    new = (OTHER + b"x")[:size]
    proxy.plan = [FINE] * when + [Fault(before=lambda: store.put("m/weights.npy", new))]
    (fetched,) = get(proxy, tmp_path)
    assert (tmp_path / "weights.npy").read_bytes() == new
    assert (fetched.size, fetched.sha256) == (size, hashlib.sha256(new).hexdigest())
    assert names(tmp_path) == ["weights.npy"]


def test_a_file_that_changed_between_two_calls_is_begun_anew(store: Bucket, proxy: FaultProxy, tmp_path: Path):
    proxy.plan, proxy.default = [FINE, FINE], Fault(cut=0)
    with pytest.raises(DownloadError, match="start again to go on"):
        get(proxy, tmp_path)
    store.put("m/weights.npy", OTHER)
    proxy.default = FINE
    get(proxy, tmp_path)
    assert (tmp_path / "weights.npy").read_bytes() == OTHER


def test_a_file_that_changes_all_the_time_is_given_up(store: Bucket, proxy: FaultProxy, tmp_path: Path):
    contents = iter(range(100))
    change = Fault(before=lambda: store.put("m/weights.npy", b"\x93NUMPY" + bytes([next(contents)]) * (SIZE - 6)))
    proxy.default = change
    with pytest.raises(DownloadError, match="4 times from the start: it changes on the server"):
        get(proxy, tmp_path)
    assert "weights.npy" not in names(tmp_path)


def test_a_size_other_than_the_expected_is_refused_before_a_byte_is_kept(proxy: FaultProxy, tmp_path: Path):
    with pytest.raises(DownloadError, match="has 1000000 bytes on the server, and should have 999999"):
        get(proxy, tmp_path, size=SIZE - 1)
    assert names(tmp_path) == []


def test_no_answer_at_all_is_tried_again_and_named(proxy: FaultProxy, tmp_path: Path):
    with FaultProxy(proxy.upstream) as gone:
        pass
    with pytest.raises(DownloadError, match=r"no answer from 127\.0\.0\.1.*online"):
        get(gone, tmp_path)


def test_the_pause_that_the_server_asks_for_is_kept_within_bounds():
    patience = Patience(first_pause=0.5, longest_pause=30)
    assert patience.pause(1, asked=7) == 7
    assert patience.pause(1, asked=10_000) == 30
    assert 0.25 <= patience.pause(1) <= 0.5 < patience.pause(3) <= 2
    assert patience.pause(50) == 30


def test_what_is_not_public_needs_the_owner(store: Bucket, proxy: FaultProxy, tmp_path: Path):
    store.put("m/secret.npy", b"secret", public=False)
    with pytest.raises(RemoteFileError, match="not public"):
        fetch(f"s3://berg-bucket/m?endpoint={proxy.url}", [WantedFile("secret.npy")], tmp_path)


def test_no_key_and_no_password_of_this_machine_is_sent(
    proxy: FaultProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password secret\n")
    for name, value in {
        "AWS_ACCESS_KEY_ID": "owner", "AWS_SECRET_ACCESS_KEY": "owner", "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
        "AWS_PROFILE": "none", "NETRC": str(netrc), "http_proxy": "http://127.0.0.1:1",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    get(proxy, tmp_path / "out")
    sent = [headers for _, headers in proxy.seen]
    assert len(sent) == 4
    assert {name for headers in sent for name in headers} == {
        "host", "user-agent", "accept-encoding", "range", "if-match",
    }  # fmt: skip


def test_the_hash_is_our_own_and_not_the_etag(proxy: FaultProxy, tmp_path: Path):
    (fetched,) = get(proxy, tmp_path)
    assert fetched.sha256 == HASHES[CONTENT]
    assert fetched.etag == f'"{hashlib.md5(CONTENT).hexdigest()}"'
    assert fetched.source == f"{proxy.url}/berg-bucket/m/weights.npy"


def test_the_rows_call_every_status_that_is_tried_again():
    seen = {fault.status for row in RECOVERIES.values() for fault in row.plan}
    assert {408, 429, 500, 502, 503, 504} <= seen


def test_each_further_attempt_is_told_with_its_number(proxy: FaultProxy, tmp_path: Path, caplog):
    with pytest.raises(DownloadError):
        fetch("http://127.0.0.1:9", [WantedFile("a.bin", 3)], tmp_path, patience=QUICK, progress=False)
    numbers = [record.getMessage()[-8:] for record in caplog.records if "Trying again" in record.getMessage()]
    assert numbers == ["2 of 4).", "3 of 4).", "4 of 4)."]


def test_a_name_that_nobody_knows_is_final_at_once(tmp_path: Path, monkeypatch, caplog):
    asked = []

    def unknown(host, *_, **__):
        asked.append(host)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(DownloadError, match=r"There is no weights\.example .*does not resolve"):
        fetch("https://weights.example", [WantedFile("a.bin", 3)], tmp_path, patience=QUICK, progress=False)
    assert len(asked) == 1
    assert "Trying again" not in caplog.text
