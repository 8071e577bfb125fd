"""What `fetch` does where nothing is wrong with the network; see test_transfer_faults.py for the rest."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest

from berg.core.exceptions import DownloadError, InvalidParameterError, OfflineError, RemoteFileError, StorageError
from berg.system.durable_file import storage_errors
from berg.transfer import fetch as transfer
from berg.transfer import partial_file
from berg.transfer.fetch import WantedFile, fetch
from berg.transfer.retries import Patience

from .fault_proxy import Fault, FaultProxy
from .file_servers import plain_server, static_server

QUICK = Patience(attempts=3, first_pause=0.01, longest_pause=0.05, connect_seconds=2, read_seconds=1)
CONTENT = b"\x93NUMPY" + np.random.default_rng(0).bytes(999_994)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
SERVERS = {"with ranges": static_server, "without ranges": plain_server}

CHILD = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background of a shell
from berg.core.exceptions import BERGError
from berg.transfer.fetch import WantedFile, fetch
print("go", flush=True)
try:
    print(fetch(sys.argv[1], [WantedFile(*sys.argv[3:])], sys.argv[2]))
except BERGError as error:
    print(type(error).__name__, error)
"""


@pytest.fixture
def shelf(tmp_path):
    """What is served."""
    folder = tmp_path / "shelf"
    (folder / "deep").mkdir(parents=True)
    (folder / "weights.npy").write_bytes(CONTENT)
    (folder / "deep" / "er.bin").write_bytes(CONTENT[:5])
    (folder / "empty").touch()
    return folder


@pytest.fixture
def small_pieces(monkeypatch):
    monkeypatch.setattr(partial_file, "PIECE", 300_000)


def start(*arguments):
    """`fetch` in a process of its own, when it is about to begin."""
    child = subprocess.Popen([sys.executable, "-c", CHILD, *map(str, arguments)], stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "go\n"
    return child


def names(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("parallel", [1, 4])
@pytest.mark.parametrize("server", [*SERVERS, "folder"])
def test_files_come_whole_and_in_their_folders(server, parallel, shelf, tmp_path):
    wanted = [WantedFile("weights.npy", 1_000_000, SHA256), WantedFile("deep/er.bin"), WantedFile("empty")]
    if server == "folder":
        fetched = fetch(shelf.as_uri(), wanted, tmp_path / "out", parallel=parallel)
    else:
        with SERVERS[server](shelf) as (host, port):
            fetched = fetch(f"http://{host}:{port}", wanted, tmp_path / "out", parallel=parallel)
    for file, got in zip(wanted, fetched, strict=True):
        content = (shelf / file.path).read_bytes()
        assert (tmp_path / "out" / file.path).read_bytes() == content
        assert (got.path, got.size, got.sha256) == (file.path, len(content), hashlib.sha256(content).hexdigest())
        assert got.source.endswith("/" + file.path)
    assert names(tmp_path / "out") == names(shelf)


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("server", SERVERS)
def test_a_cut_connection_is_no_matter_with_either_server(server, shelf, tmp_path):
    with SERVERS[server](shelf) as address, FaultProxy(address) as proxy:
        proxy.plan = [Fault(cut=200_000)]
        fetch(proxy.url, [WantedFile("weights.npy")], tmp_path / "out", patience=QUICK)
    assert (tmp_path / "out" / "weights.npy").read_bytes() == CONTENT


@pytest.mark.usefixtures("small_pieces")
def test_a_server_that_names_no_version_is_asked_for_everything_at_once(shelf, tmp_path):
    with static_server(shelf) as address, FaultProxy(address) as proxy:
        proxy.default = Fault(keep=False)
        proxy.plan = [Fault(keep=False), Fault(keep=False, cut=500_000)]
        fetch(proxy.url, [WantedFile("weights.npy")], tmp_path / "out", patience=QUICK)
        assert [headers["range"] for _, headers in proxy.seen] == ["bytes=0-299999", "bytes=0-", "bytes=0-"]
    assert (tmp_path / "out" / "weights.npy").read_bytes() == CONTENT


def test_what_is_here_is_not_fetched_again(shelf, tmp_path):
    with static_server(shelf) as address, FaultProxy(address) as proxy:
        for known in ({}, {"size": 1_000_000}, {"sha256": SHA256}, {"size": 1_000_000, "sha256": SHA256}):
            (fetched,) = fetch(proxy.url, [WantedFile("weights.npy", **known)], tmp_path / "out")
            assert fetched.was_here == (len(proxy.seen) == 1 and known != {})
        assert len(proxy.seen) == 1


@pytest.mark.parametrize("old", [b"old", CONTENT[:-1] + b"x"])
def test_another_file_of_that_name_is_replaced_and_kept_aside(old, shelf, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "weights.npy").write_bytes(old)
    fetch(shelf.as_uri(), [WantedFile("weights.npy", 1_000_000, SHA256)], out)
    aside, whole = sorted(out.iterdir(), key=lambda path: path.name == "weights.npy")
    assert whole.read_bytes() == CONTENT
    assert aside.name.startswith("weights.npy.damaged-20")
    assert aside.read_bytes() == old


@pytest.mark.parametrize(
    "path",
    [
        "", ".", "..", "/etc/passwd", "../x", "a/../../x", "a//b", "a/./b", "a/", "a\\b", "..\\x", "C:/x", "C:x",
        "a\0b", "a\nb", ".x.npy.part", ".ssh/keys", "nul", "a/CON.npy", "x.", "x ", "a*b", "~/../x",
    ],
)  # fmt: skip
def test_a_path_that_leads_elsewhere_is_refused(path):
    with pytest.raises(InvalidParameterError, match="is not the path of a file to get"):
        WantedFile(path)


@pytest.mark.parametrize("path", ["weights_sub-01_roi-V1_split-1.pt", "a b/c+d/e..f", "ä/ß.npy", "a/console.npy"])
def test_an_honest_path_is_taken(path):
    assert WantedFile(path).path == path


@pytest.mark.parametrize(
    ("known", "words"), [({"size": -1}, "cannot have -1 bytes"), ({"sha256": "ABC"}, "'ABC' of f is no sha256")]
)
def test_what_no_file_has_is_refused(known, words):
    with pytest.raises(InvalidParameterError, match=words):
        WantedFile("f", **known)


def test_a_file_is_named_once_and_connections_are_counted_from_one(tmp_path):
    with pytest.raises(InvalidParameterError, match="A is asked for twice"):
        fetch(tmp_path.as_uri(), [WantedFile("a"), WantedFile("A")], tmp_path)
    with pytest.raises(InvalidParameterError, match=r"parallel is 0; .* 1 or more"):
        fetch(tmp_path.as_uri(), [], tmp_path, parallel=0)
    assert fetch(tmp_path.as_uri(), [], tmp_path) == []


def test_offline_forbids_the_network_but_not_what_is_here_nor_a_mirror(monkeypatch, shelf, tmp_path):
    monkeypatch.setenv("BERG_OFFLINE", "1")
    with pytest.raises(OfflineError, match="the environment variable BERG_OFFLINE forbids"):
        fetch("http://127.0.0.1:1", [WantedFile("weights.npy")], tmp_path / "out")
    fetch(shelf.as_uri(), [WantedFile("weights.npy")], tmp_path / "out")
    (fetched,) = fetch("http://127.0.0.1:1", [WantedFile("weights.npy", 1_000_000)], tmp_path / "out")
    assert fetched.was_here


def test_one_missing_file_ends_the_call_and_the_others_stay(shelf, tmp_path):
    wanted = [WantedFile("weights.npy"), WantedFile("no.npy"), *(WantedFile(f"never-{i}.npy") for i in range(50))]
    with pytest.raises(RemoteFileError, match=r"no\.npy cannot be read: No such file"):
        fetch(shelf.as_uri(), wanted, tmp_path / "out", parallel=1)
    assert names(tmp_path / "out") == ["weights.npy"]


@pytest.mark.usefixtures("small_pieces")
def test_a_note_that_cannot_be_true_is_not_followed(shelf, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    url, etag = shelf.as_uri() + "/weights.npy", None
    fetch(shelf.as_uri(), [WantedFile("weights.npy")], tmp_path / "first")
    stat = (shelf / "weights.npy").stat()
    etag = f'"{stat.st_mtime_ns:x}-{stat.st_size:x}"'
    good = {
        "source": url,
        "version": etag,
        "etag": etag,
        "size": 1_000_000,
        "piece": 300_000,
        "have": [300_000, 0, 5, 0],
    }
    lies = [
        {"source": "http://other"}, {"piece": 1}, {"have": [300_001, 0, 0, 0]}, {"have": [-1, 0, 0, 0]}, {"have": [1]},
        {"have": "x"}, {"size": -5}, {"size": None}, {"version": None}, {"version": '"old"'}, {"have": [0.5, 0, 0, 0]},
    ]  # fmt: skip
    for lie in lies:
        (out / ".weights.npy.part").write_bytes(b"\0" * 1_000_000)
        (out / ".weights.npy.part.json").write_text(json.dumps(good | lie))
        if lie == {"have": [1]}:  # one piece is possible; its byte must be right
            (out / ".weights.npy.part").write_bytes(CONTENT[:1] + b"\0" * 999_999)
        fetch(shelf.as_uri(), [WantedFile("weights.npy")], out)
        assert (out / "weights.npy").read_bytes() == CONTENT
        assert names(out) == ["weights.npy"]
        (out / "weights.npy").unlink()


@pytest.mark.parametrize("note", ["", "{", "[]", "null", '{"source": 1}'])
def test_a_note_that_is_none_is_not_followed(note, shelf, tmp_path):
    (tmp_path / ".weights.npy.part.json").write_text(note)
    (tmp_path / ".weights.npy.part").write_bytes(b"\0" * 2_000_000)
    fetch(shelf.as_uri(), [WantedFile("weights.npy")], tmp_path)
    assert (tmp_path / "weights.npy").read_bytes() == CONTENT


def test_too_little_room_is_said_before_anything_comes(monkeypatch, shelf, tmp_path):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(2, 1, 999_999))
    with pytest.raises(StorageError, match=r"has 1\.0 MB free; 1\.0 MB are still to come"):
        fetch(shelf.as_uri(), [WantedFile("weights.npy", 1_000_000)], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(StorageError, match="Make room"):
        fetch(shelf.as_uri(), [WantedFile("weights.npy")], tmp_path / "out")
    fetch(shelf.as_uri(), [WantedFile("deep/er.bin", 5)], tmp_path / "out")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="limits of POSIX")
def test_a_full_disk_is_named_and_what_came_is_kept(shelf, tmp_path):
    out = tmp_path / "out"
    limited = (
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, 600_000))\n"
        "from berg.transfer import partial_file; partial_file.PIECE = 300_000"
    )
    command = [sys.executable, "-c", limited + CHILD, shelf.as_uri(), out, "weights.npy"]
    printed = subprocess.run(command, capture_output=True, text=True, timeout=60).stdout
    assert "StorageError" in printed
    assert "What has come is kept. Make room on that disk (or raise your quota)" in printed
    assert not (out / "weights.npy").exists()
    fetch(shelf.as_uri(), [WantedFile("weights.npy")], out)
    assert (out / "weights.npy").read_bytes() == CONTENT


def test_a_disk_that_fills_up_midway_is_named(monkeypatch, shelf, tmp_path):
    def full(self, index, chunk):
        with storage_errors(self.target):
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(transfer.PartialFile, "write", full)
        with pytest.raises(StorageError, match="raise your quota"):
            fetch(shelf.as_uri(), [WantedFile("weights.npy")], tmp_path / "out")
    assert "weights.npy" not in names(tmp_path / "out")
    fetch(shelf.as_uri(), [WantedFile("weights.npy")], tmp_path / "out")


@pytest.mark.skipif(not Path("/sys/kernel").is_dir(), reason="a folder where nobody may write, not even root")
def test_a_folder_where_one_may_not_write_is_named(shelf):
    with pytest.raises(StorageError, match=r"cannot be written: .*\. Look at its owner and rights with"):
        fetch(shelf.as_uri(), [WantedFile("weights.npy")], "/sys/kernel/berg")


def test_a_file_in_place_of_the_folder_is_named(shelf, tmp_path):
    (tmp_path / "out").touch()
    with pytest.raises(StorageError, match=r"Is .*out a folder"):
        fetch(shelf.as_uri(), [WantedFile("weights.npy")], tmp_path / "out")


def test_a_bar_for_each_file_and_one_for_all_is_drawn_when_asked(shelf, tmp_path, capsys):
    fetch(shelf.as_uri(), [WantedFile("weights.npy", 1_000_000), WantedFile("deep/er.bin", 5)], tmp_path, progress=True)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "in all" in printed.err
    assert "1.0/1.0 MB" in printed.err
    fetch(shelf.as_uri(), [WantedFile("weights.npy")], tmp_path / "again")
    assert capsys.readouterr() == ("", "")


@pytest.mark.usefixtures("small_pieces")
def test_the_bar_for_all_counts_no_byte_twice_when_a_file_is_begun_anew(shelf, tmp_path, capsys):
    with plain_server(shelf) as address, FaultProxy(address) as proxy:
        proxy.plan = [Fault(cut=700_000)]
        fetch(proxy.url, [WantedFile("weights.npy", 1_000_000)], tmp_path / "out", progress=True, patience=QUICK)
    assert "1.0/1.0 MB" in capsys.readouterr().err


def test_two_processes_fetch_a_file_once(shelf, tmp_path):
    with static_server(shelf) as address, FaultProxy(address) as proxy:
        proxy.default = Fault(rate=1e6)
        children = [start(proxy.url, tmp_path / "out", "weights.npy") for _ in range(3)]
        printed = [child.communicate(timeout=60)[0] for child in children]
        assert proxy.n_bytes == 1_000_000
    assert sorted("was_here=True" in text for text in printed) == [False, True, True]
    assert names(tmp_path / "out") == ["weights.npy"]
    assert (tmp_path / "out" / "weights.npy").read_bytes() == CONTENT


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize("fault", [Fault(rate=4e5), Fault(stall=600_000)], ids=["slow", "stalled"])
def test_ctrl_c_ends_at_once_and_keeps_what_came(fault, shelf, tmp_path):
    with static_server(shelf) as address, FaultProxy(address) as proxy:
        proxy.default = fault
        child = start(proxy.url, tmp_path / "out", "weights.npy")
        while proxy.n_bytes < 500_000:
            time.sleep(0.01)
        time.sleep(0.1)
        child.send_signal(signal.SIGINT)
        since = time.monotonic()
        child.communicate(timeout=20)
        assert time.monotonic() - since < 3
        assert child.returncode == -signal.SIGINT
        assert names(tmp_path / "out") == [".weights.npy.part", ".weights.npy.part.json"]
        proxy.default, n_before = Fault(), proxy.n_bytes
        fetch(proxy.url, [WantedFile("weights.npy")], tmp_path / "out")
        assert proxy.n_bytes - n_before < 550_000
    assert (tmp_path / "out" / "weights.npy").read_bytes() == CONTENT


def noted(out):
    """How many bytes the note beside a part says are here; 0 without a note."""
    note = out / ".big.bin.part.json"
    return sum(json.loads(note.read_text())["have"]) if note.exists() else 0


def kill_and_go_on(proxy, out, content, seconds):
    """Kill -9 after so many seconds, and start again; how many bytes were kept, or None where it was over before."""
    proxy.default = Fault(rate=1e7)
    child = start(proxy.url, out, "big.bin")
    time.sleep(seconds)
    child.kill()
    child.communicate(timeout=20)
    if (out / "big.bin").exists():
        assert (out / "big.bin").read_bytes() == content
    was_killed, n_kept = child.returncode == -signal.SIGKILL, noted(out)
    proxy.default, proxy.n_bytes = Fault(), 0
    fetch(proxy.url, [WantedFile("big.bin")], out)
    assert proxy.n_bytes <= len(content) - n_kept + 4e6  # the proxy sends a little to who is dead, too
    assert (out / "big.bin").read_bytes() == content
    assert names(out) == ["big.bin"]
    return n_kept if was_killed else None


def kill_trials(folder, n_bytes, moments):
    content = np.random.default_rng(3).bytes(n_bytes)
    (folder / "shelf").mkdir()
    (folder / "shelf" / "big.bin").write_bytes(content)
    with static_server(folder / "shelf") as address, FaultProxy(address) as proxy:
        kept = [kill_and_go_on(proxy, folder / f"{moment}", content, moment) for moment in moments]
    print(f"kept at each kill, in bytes (None: it was over): {kept}")
    return [n for n in kept if n is not None]


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_kill_minus_nine_leaves_no_half_file_and_the_next_call_the_same_bytes(tmp_path):
    assert len(kill_trials(tmp_path, 20_000_000, [0.1, 1.3])) == 2


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_twenty_kills_at_random_moments(tmp_path):
    moments = np.random.default_rng(5).uniform(0.02, 3, 20)
    kept = kill_trials(tmp_path, 50_000_000, moments)
    assert len(kept) >= 15  # the others were over already
    assert any(kept)


@pytest.mark.slow
def test_nothing_of_this_is_imported_to_look_around_or_to_encode():
    code = (
        "import sys; from berg import BERG\n"
        "BERG().get_encoding_model('fmri-szinte2024-prf_css', device='cpu')\n"
        "print([name for name in ('berg.transfer.fetch', 'berg.transfer.remote', 'urllib3') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout == "[]\n", done.stderr


def test_an_answer_that_does_not_say_how_long_it_is_needs_a_size(shelf, tmp_path, monkeypatch):
    monkeypatch.setattr("berg.transfer.remote.whole_number", lambda text: None)
    with plain_server(shelf) as (host, port):
        with pytest.raises(DownloadError, match=r"does not say how large it is, .* size=\.\.\."):
            fetch(f"http://{host}:{port}", [WantedFile("weights.npy")], tmp_path / "out")
        fetch(f"http://{host}:{port}", [WantedFile("weights.npy", 1_000_000)], tmp_path / "out")
    assert (tmp_path / "out" / "weights.npy").read_bytes() == CONTENT
