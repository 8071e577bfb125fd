"""Hostile files and clients, over HTTP: each is refused by a sentence of ours, and the next request is answered."""

import io
import json
import os
import pickle
import socket
import struct
import tempfile
import time
import zlib
from contextlib import ExitStack, suppress

import fuzz_files
import numpy as np
import psutil
import pytest
from marks import slow
from PIL import Image
from server_of_tests import PRF, SPIKES, error, served
from test_http import npy, pixels, png

from berg import BERG
from berg.core.card_schema import StimulusInput
from berg.core.exceptions import StimulusError, TooLargeError
from berg.server.guard import Access
from berg.server.limits import Limits
from berg.server.run import Address
from berg.server.service import Settings
from berg.server.uploads import Upload, receive

SMALL = Limits(
    body_bytes=2_000_000, stimuli=4, pixels=1_000_000, seconds=5.0, decoded_bytes=4_000_000, values=10_000,
    listed_values=5_000, idle_seconds=0.4, body_seconds=1.5, job_bytes=2_000_000, requests_per_second=10_000,
)  # fmt: skip


@pytest.fixture(scope="module")
def small():
    """A server that takes little."""
    with served(Settings(limits=SMALL)) as client:
        yield client


@pytest.fixture(autouse=True)
def nothing_is_left(client, tmp_path, monkeypatch):
    """Nothing hostile leaves a file behind, where the server keeps what it reads."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield
    assert [path.name for path in folder.glob("berg-[sa]*")] == []  # of stimuli and answers


def bomb(width, height):
    """A PNG of some bytes that says to be so large."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")


def picture(form, mode="RGB"):
    buffer = io.BytesIO()
    Image.new(mode, (64, 64)).save(buffer, form)
    return buffer.getvalue()


def wav(n_samples, rate, channels=1, said=None):
    n_bytes = 2 * n_samples * channels
    head = struct.pack("<4sI4s4sIHHIIHH", b"RIFF", 36 + n_bytes, b"WAVE", b"fmt ", 16, 1, channels, rate,
                       2 * rate * channels, 2 * channels, 16)  # fmt: skip
    return head + struct.pack("<4sI", b"data", n_bytes if said is None else said) + bytes(n_bytes)


class Runs:
    def __reduce__(self):
        return os.system, ("touch /tmp/berg-was-here",)


def header(shape, descr="|u1", more=b""):
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": descr, "fortran_order": False, "shape": shape})
    return buffer.getvalue() + more


PICTURES = {
    "a bomb": ("a.png", bomb(9_000, 9_000), 413, "9,000 x 9,000 pixels"),
    "a bomb that PIL refuses": ("a.png", bomb(2**31 - 1, 2**31 - 1), None, "a.png"),
    "PostScript called a picture": ("a.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", 422, "no"),
    "a vector graphic": ("a.png", b"<svg xmlns='http://www.w3.org/2000/svg'><a href='http://a/'/></svg>", 422, "not"),
    "cut": ("a.png", png()[:400], 422, "a.png is not a picture that can be read"),
    "nothing": ("a.png", b"", 422, "a.png is not a picture that can be read"),
    "32 bits": ("a.tif", picture("TIFF", "F"), 422, "32 bits per channel"),
    "a script": ("a.py", b"import os", 422, "a.py is no file that this model takes"),
    "a page": ("a.html", b"<script>", 422, "no file that this model takes"),
    "an icon": ("a.png", picture("ICO"), 422, "a.png is not a picture"),
    "an archive of arrays": ("a.npz", b"PK\x03\x04", 422, "no file that this model takes"),
    "a pickle": ("a.npy", npy(np.array([Runs()], dtype=object)), 422, "a.npy"),
    "a bare pickle": ("a.npy", pickle.dumps(Runs()), 422, "a.npy"),
    "an array of nothing": ("a.npy", npy(np.zeros((0, 3, 8, 8), np.uint8)), 422, ""),
    "an array of one number": ("a.npy", npy(np.uint8(3)), 422, "a.npy"),
    "an array of texts": ("a.npy", npy(np.array(["a"])), 422, "stimuli are real numbers"),
    "an array that says to be larger": ("a.npy", header((10**12, 3, 8, 8)), 422, "a.npy"),
    "an array below zero": ("a.npy", header((-1, 3, 8, 8), more=bytes(192)), 422, "a.npy"),
    "a head that is a program": ("a.npy", b"\x93NUMPY\x01\x00\x76\x00" + b"open('x', 'w')".ljust(118), 422, "a.npy"),
    "floats": ("a.npy", npy(np.full((1, 3, 8, 8), np.nan)), 422, "NaN or infinite"),
}  # fmt: skip


@pytest.mark.parametrize("case", PICTURES)
def test_a_hostile_picture_is_refused(case, client):
    name, content, status, words = PICTURES[case]
    answer = client.encode([(name, content)], model=PRF)
    assert answer.status == (status or answer.status)
    assert answer.status in (413, 422)
    assert words in error(answer)[1]
    assert "/tmp" not in error(answer)[1]
    assert not os.path.exists("/tmp/berg-was-here")


SOUNDS = {
    "long": ("a.wav", wav(16_000 * 200, 16_000), "lasts 200 s"),
    "slow": ("a.wav", wav(2_000_000, 1_000), "lasts 2,000 s"),
    "of no rate": ("a.wav", wav(100, 0), "damaged header"),
    "cut": ("a.wav", wav(100, 8_000, said=10**9), "a.wav is cut"),
    "of two channels": ("a.wav", wav(4_000, 20_000, 2), "2 channels"),
    "no sound": ("a.wav", b"RIFF", "a.wav"),
    "a flac that is none": ("a.flac", b"fLaC" + bytes(60), "a.flac"),
    "an ogg that is none": ("a.ogg", b"OggS" + bytes(60), "a.ogg"),
    "an mp3 that is none": ("a.mp3", b"\xff\xfb" + bytes(60), "a.mp3"),
    "a list of other files": ("a.wav", b"ffconcat version 1.0\nfile /etc/passwd\n", "a.wav"),
}


@pytest.mark.parametrize("case", SOUNDS)
def test_a_hostile_sound_is_refused(case, client):
    name, content, words = SOUNDS[case]
    answer = client.encode([(name, content)], model=SPIKES)
    assert answer.status in (413, 422)
    assert words in error(answer)[1]
    assert "/tmp" not in error(answer)[1]


def test_a_sound_in_an_array_cannot_be_long_by_a_low_rate(client):
    answer = client.encode([("a.npy", npy(np.zeros((1, 500_000), "int8")))], model=SPIKES, sampling_rate=1_000)
    assert (answer.status, error(answer)[0]) == (413, "TooLargeError")


VIDEO = StimulusInput(kind="video", shape="(n, n_frames, 3, height, width)", dtype="uint8", n_frames=2)
VIDEOS = {
    "a list of other files": ("a.mp4", b"ffconcat version 1.0\nfile /etc/passwd\n"),
    "a playlist of the network": ("a.mp4", b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n"),
    "nothing": ("a.mkv", b""),
}


@pytest.mark.parametrize("case", VIDEOS)
def test_a_hostile_video_is_refused(case):
    name, content = VIDEOS[case]
    with pytest.raises(StimulusError, match=f"^{name} is not a video that can be read"):
        receive([Upload(name, "", io.BytesIO(content))], VIDEO, Limits())


def test_a_video_is_held_to_its_limits(tmp_path):
    import av

    with av.open(tmp_path / "a.mp4", "w") as opened:
        stream = opened.add_stream("mpeg4", rate=10)
        stream.width, stream.height = 64, 48
        for _ in range(30):
            opened.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8))))
        opened.mux(stream.encode())
    content = (tmp_path / "a.mp4").read_bytes()
    received = receive([Upload("a.mp4", "", io.BytesIO(content))], VIDEO, Limits())
    assert received.stimuli.shape == (1, 2, 3, 48, 64)
    for limits, words in (
        (Limits(pixels=3000), "64 x 48"),
        (Limits(frames=29), "30 frames"),
        (Limits(seconds=2), "2.9 s"),
    ):
        with pytest.raises(TooLargeError, match=words):
            receive([Upload("a.mp4", "", io.BytesIO(content))], VIDEO, limits)


@pytest.mark.parametrize("kind", ["png", "jpg", "tif", "gif", "webp", "bmp", "npy", "wav"])
@pytest.mark.parametrize("n_files", [12, slow(300)])
def test_damaged_files_are_answered_by_responses_or_a_sentence(kind, n_files, client, tmp_path):
    corpus = fuzz_files.Corpus.written(kind)
    model = SPIKES if kind == "wav" else PRF
    statuses = set()
    for seed in range(n_files):
        path = tmp_path / f"{seed}.{kind}"
        corpus.write_mutation(path, seed)
        answer = client.encode([(f"{seed}.{kind}", path.read_bytes())], model=model)
        statuses.add(answer.status)
        if answer.status != 200:
            assert error(answer)[0] in ("StimulusError", "CorruptedFileError", "TooLargeError", "InvalidParameterError")
    assert statuses <= {200, 413, 422}
    assert statuses & {413, 422}


NAMES = {
    "folders": "../../../etc/passwd.png",
    "a path": "/etc/passwd.png",
    "another path": "C:\\windows\\a.png",
    "an address": "http://127.0.0.1:9/a.png",
    "lines": "a\r\nX: b.png",
    "the folder above": "..",
    "letters from the right": "\u202egnp.exe.png",
    "a long name": "x" * 1000 + ".png",
}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES.keys())
def test_a_name_is_a_label_and_no_path(name, client):
    answer = client.encode([(name, png(), "image/png")], model=PRF, drawings=False)
    assert answer.status in (200, 422)
    if answer.status == 200:
        (label,) = json.loads(answer.data)["stimuli"]
        assert not set(label) & set("/\\\r\n\u202e")
        assert len(label) <= 200


LARGE = {
    "too many pictures": ([(f"{i}.png", png(8)) for i in range(5)], {}, "Too many files"),
    "too many pixels": ([("a.png", bomb(1001, 1000))], {}, "1,001 x 1,000 pixels"),
    "too large when decoded": ([(f"{i}.png", bomb(800, 800)) for i in range(4)], {}, "when they are decoded"),
    "too large a size": ([("a.png", png())], {"size": 1100}, "1,100 x 1,100 pixels"),
    "too many numbers": ([(f"{i}.png", png()) for i in range(4)], {}, '"numbers": "base64"'),
    "too many rows": ([("a.npy", npy(np.zeros((5, 3, 8, 8), np.uint8)))], {}, "5 stimuli were given"),
    "too many bytes": ([("a.npy", npy(np.zeros(2_100_000, np.uint8)))], {}, "The request is larger than 2.0 MB"),
}


@pytest.mark.parametrize("case", LARGE)
def test_what_is_too_large_is_refused(case, small):
    files, request, words = LARGE[case]
    answer = small.encode(files, model=PRF, **request)
    assert (answer.status, error(answer)[0]) == (413, "TooLargeError")
    assert words in error(answer)[1]


def send(client, *parts, wait=0.0):
    """What the server answers to these bytes, sent one after another; everything until it closes."""
    host, _, port = client.address.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        with suppress(BrokenPipeError, ConnectionResetError):
            for part in parts:
                connection.sendall(part)
                time.sleep(wait)
        return everything(connection)


def everything(connection):
    """What comes until the other side closes."""
    found = b""
    with suppress(ConnectionResetError):
        while more := connection.recv(65_536):
            found += more
    return found


def head(client, more=""):
    host = client.address.removeprefix("http://")
    kind = "Content-Type: multipart/form-data; boundary=x"
    return f"POST /api/encode HTTP/1.1\r\nHost: {host}\r\n{kind}\r\n{more}\r\n".encode()


def test_a_body_without_end_is_cut(small):
    chunks = [b"10000\r\n" + b"a" * 65_536 + b"\r\n" for _ in range(40)]
    answer = send(small, head(small, "Transfer-Encoding: chunked\r\n"), *chunks)
    if answer:  # else it was closed while we sent
        assert answer.split(b"\r\n")[0].split()[1] in (b"400", b"413")


def test_a_body_that_stops_is_given_up_and_others_are_answered(small):
    host, _, port = small.address.removeprefix("http://").partition(":")
    silent = [socket.create_connection((host, int(port)), timeout=20) for _ in range(30)]
    for connection in silent:
        connection.sendall(head(small, "Content-Length: 1000\r\n") + b"--x\r\n")
    began = time.monotonic()
    assert small.encode([("a.png", png())], model=PRF, selection={"reliable": True}).status == 200
    assert time.monotonic() - began < 3
    for connection in silent:
        answer = everything(connection)
        assert b"408" in answer.split(b"\r\n")[0]
        assert b"too slowly" in answer
        connection.close()


def test_a_body_that_trickles_is_given_up(small):
    answer = send(
        small, head(small, "Content-Length: 1000\r\n"), *(b"--x\r\n"[i : i + 1] for i in range(5)), b"C", wait=0.3
    )
    assert b"408" in answer.split(b"\r\n")[0]


def test_a_head_that_does_not_come_is_given_up(client, monkeypatch):
    monkeypatch.setattr("berg.server.run.HEAD_SECONDS", 0.3)
    assert send(client) == b""
    assert send(client, b"GET /api/models HTTP/1.1\r\nHos") == b""


def test_a_client_that_goes_leaves_the_queue(client):
    queue = client.service.batches
    with client.service.turns, ExitStack() as busy:
        for number in range(1, 4):  # what is taken for the first batch cannot be taken back
            busy.enter_context(_begun(client))
            _until(lambda number=number: sum(client.service.inside.values()) == number)
            time.sleep(0.1)
        _until(lambda: queue.n_waiting() >= 1)
        busy.close()
        _until(lambda: queue.n_waiting() == 0)
    _until(lambda: not client.service.inside)


def _begun(client):
    host, _, port = client.address.removeprefix("http://").partition(":")
    connection = socket.create_connection((host, int(port)), timeout=20)
    request = json.dumps({"model": PRF}).encode()
    body = b'--x\r\nContent-Disposition: form-data; name="request"\r\n\r\n' + request
    body += (
        b'\r\n--x\r\nContent-Disposition: form-data; name="stimulus"; filename="a.png"\r\n\r\n'
        + png()
        + b"\r\n--x--\r\n"
    )
    connection.sendall(head(client, f"Content-Length: {len(body)}\r\n") + body)
    return connection


def _until(is_so, seconds=10):
    until = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.01)


FORMS = {
    "JSON of great depth": json.dumps({"model": PRF, "selection": None}).replace("null", "[" * 100_000 + "]" * 100_000),
    "a great number": json.dumps({"model": PRF, "size": 10**30}),
    "NaN": '{"model": "a", "size": NaN}',
    "an array that is none": json.dumps({"model": PRF, "selection": {"voxels": {"__array__": {"dtype": "O"}}}}),
    "a dtype of objects": json.dumps(
        {"model": PRF, "selection": {"voxels": {"__array__": {"dtype": "|O", "shape": [1], "base64": "AAAAAAAAAAA="}}}}
    ),
    "a path for a subject": json.dumps({"model": "fmri-nsd-fwrf", "parameters": {"subject": "../../1"}}),
    "a folder of files": json.dumps({"model": PRF, "parameters": {"berg_dir": "/etc"}}),
    "a model that is a path": json.dumps({"model": "../../etc/passwd"}),
    "a model that is a number": json.dumps({"model": 3}),
}


@pytest.mark.parametrize("case", FORMS)
def test_a_hostile_request_is_refused(case, client):
    answer = client.request("POST", "/api/encode", fields=[("request", FORMS[case]), ("stimulus", ("a.png", png()))])
    assert answer.status in (404, 413, 422)
    assert error(answer)[0] in ("TooLargeError", "InvalidParameterError", "ModelNotFoundError")


def test_a_form_of_many_fields_and_files_is_refused(client):
    answer = client.request("POST", "/api/encode", fields=[(f"f{i}", "x") for i in range(2000)])
    assert (answer.status, error(answer)[0]) == (400, "InvalidParameterError")
    answer = client.request("POST", "/api/encode", fields=[("request", "x" * 5_000_000)])
    assert (answer.status, error(answer)[0]) == (400, "InvalidParameterError")


def access_error(client, path="/api/models", **headers):
    answer = client.get(path, headers={name.replace("_", "-"): value for name, value in headers.items()})
    return answer.status, error(answer)[0]


def test_pages_of_other_sites_are_not_answered(client):
    assert access_error(client, Host="evil.example") == (403, "AccessError")
    assert access_error(client, Origin="http://evil.example") == (403, "AccessError")
    assert access_error(client, Origin="null") == (403, "AccessError")
    assert access_error(client, Sec_Fetch_Site="cross-site") == (403, "AccessError")
    own = client.get("/api/models", headers={"Origin": client.address})
    assert own.status == 200
    assert "access-control-allow-origin" not in own.headers


def test_every_answer_has_a_policy(client):
    for path in ("/", "/api/models", "/api/nothing", "/api/models/nothing"):
        answer = client.get(path)
        assert answer.headers["content-security-policy"].startswith("default-src 'self';")
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    refused = client.get("/", headers={"Host": "evil.example"})
    assert refused.headers["x-frame-options"] == "DENY"


def test_only_the_page_is_served_as_files(client):
    for path in ("/..%2fapp.py", "/../app.py", "/%2e%2e/app.py", "//etc/passwd", "/index.html%00", "/.%00./"):
        assert client.get(path).status in (400, 404)


def test_a_token_is_asked_for():
    with served(access=Access(token="secret")) as client:
        assert access_error(client) == (401, "TokenError")
        assert access_error(client, Authorization="Bearer wrong") == (401, "TokenError")
        assert access_error(client, Authorization="Basic secret") == (401, "TokenError")
        assert client.get("/api/models", headers={"Authorization": "Bearer secret"}).status == 200
        assert client.get("/").status == 200


def test_an_address_that_others_reach_takes_a_token():
    assert Address().access().token is None
    assert len(Address(host="0.0.0.0").access().token) >= 32
    assert Address(host="0.0.0.0", token="mine").access().token == "mine"
    assert len(Address(names=("lab.example.org",)).access().token) >= 32
    assert "lab.example.org" in Address(names=("lab.example.org",)).access().hosts
    assert Address(host="::1").is_loopback
    assert not Address(host="192.0.2.1").is_loopback


def test_who_asks_too_often_is_told_when_to_come_again():
    with served(Settings(limits=Limits(requests_per_second=2.0))) as client:
        answers = [client.get("/api/openapi.json") for _ in range(6)]
        assert [answer.status for answer in answers[:4]] == [200] * 4
        assert answers[-1].status == 429
        assert int(answers[-1].headers["retry-after"]) >= 1
        assert error(answers[-1])[0] == "ServerBusyError"


def test_a_full_server_says_when_to_come_again():
    with served(Settings(limits=Limits(waiting=0))) as client:
        answer = client.encode([("a.png", png())], model=PRF)
        assert (answer.status, error(answer)[0]) == (503, "ServerBusyError")
        assert int(answer.headers["retry-after"]) >= 1


def test_after_all_of_this_the_server_answers_as_before(client):
    answer = client.encode([("a.png", png())], model=PRF)
    np.testing.assert_array_equal(
        np.float32(json.loads(answer.data)["outputs"][0]["values"])[None], BERG().encode(PRF, pixels(png()))
    )
    assert not client.service.inside
    assert psutil.Process().num_threads() < 120
