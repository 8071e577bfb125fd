"""berg download, status, verify, where and remove, on a mirror on disk."""

import re
import shlex
import socket
from functools import partial
from pathlib import Path

import pytest

from berg import BERG
from berg.cli.app import main
from berg.core.exceptions import BERGError
from berg.core.layout import ModelId

pytestmark = pytest.mark.xdist_group("published")
FWRF = "fmri-nsd-fwrf"
FOLDER = ModelId.parse(FWRF).folder("").as_posix()
V2 = ["--subject", "1", "--selection", "roi=V2"]


@pytest.fixture(autouse=True)
def place(monkeypatch, berg_dir, tmp_path):
    monkeypatch.setenv("BERG_DIR", str(tmp_path / "here"))
    monkeypatch.setenv("BERG_SOURCE", berg_dir.as_uri())
    return tmp_path / "here"


def refused(capsys, *tokens):
    with pytest.raises(SystemExit) as stopped:
        main(tokens)
    assert stopped.value.code == 1
    return capsys.readouterr().err


def said(capsys, *tokens):
    main(tokens)
    return capsys.readouterr().out


def test_a_dry_run_lists_files_with_their_sizes_and_fetches_nothing(capsys, place):
    out = said(capsys, "download", FWRF, *V2, "--dry-run")
    assert "weights_sub-01_roi-V2.pt" in out
    assert "MB" in out
    assert "2 of 2 files to fetch" in out
    assert not place.exists()


def test_a_life_of_files(capsys, place):
    assert "Get some with:  berg download MODEL_ID" in said(capsys, "status")
    out = said(capsys, "download", FWRF, *V2)
    assert "2 files fetched" in out
    assert "publishes no hashes of 2 of them" in out
    out = said(capsys, "download", FWRF, *V2)
    assert "0 of 2 files to fetch" in out
    assert "publishes no hashes" not in out
    assert "2 whole" in said(capsys, "status")
    assert "metadata/metadata_sub-01_roi-V2.npy  whole" in said(capsys, "status", FWRF)
    assert said(capsys, "verify").strip() == "2 whole"
    (place / FOLDER / "metadata" / "metadata_sub-01_roi-V2.npy").write_bytes(b"x")
    assert "wrong size" in said(capsys, "status")
    error = refused(capsys, "verify")
    assert "1 files are damaged or missing, the first: metadata/metadata_sub-01_roi-V2.npy" in error
    assert "berg download fmri-nsd-fwrf" in error
    assert "Deleted 2 files" in said(capsys, "remove", FWRF, *V2, "--yes")
    assert "No files of any model" in said(capsys, "status")


def test_all_regions_of_a_subject_are_listed(capsys, monkeypatch, berg_dir):
    error = refused(capsys, "download", FWRF, "--subject", "1", "--all", "--dry-run")
    assert "cannot be read: No such file" in error  # the mirror has four of them
    assert "roi-" in error


def test_without_a_region_the_command_says_what_is_missing(capsys):
    assert "say which (roi='V1' for example), or ask for all of them (--all" in refused(
        capsys, "download", FWRF, "--subject", "1"
    )


def test_nothing_is_deleted_without_a_yes(capsys, monkeypatch, place):
    main(["download", FWRF, *V2])
    monkeypatch.setattr("builtins.input", lambda _: "")
    assert "Nothing was deleted" in said(capsys, "remove", FWRF)
    assert "2 whole" in said(capsys, "status")
    assert "No such files" in refused(capsys, "remove", FWRF, "--subject", "2", "--selection", "roi=V2", "--yes")


def test_files_that_came_by_other_ways_can_be_recorded(capsys, place, berg_dir):
    name = "metadata/metadata_sub-01_roi-V2.npy"
    (place / FOLDER / name).parent.mkdir(parents=True)
    (place / FOLDER / name).write_bytes((berg_dir / FOLDER / name).read_bytes())
    assert "berg verify --record" in said(capsys, "verify")
    assert "1 recorded" in said(capsys, "verify", "--record")
    assert said(capsys, "verify").strip() == "1 whole"


def test_where_tells_what_set_each_place(capsys, place, berg_dir, monkeypatch):
    monkeypatch.setenv("BERG_OFFLINE", "1")
    out = said(capsys, "where")
    assert f"{place}  (the environment variable BERG_DIR, not there yet)" in out
    assert f"{berg_dir.as_uri()}  (the environment variable BERG_SOURCE)" in out
    assert "yes  (the environment variable BERG_OFFLINE)" in out
    assert "config.toml" in out


@pytest.mark.parametrize("variable", ["BERG_SOURCE", "BERG_NETWORK_SOURCE"])
@pytest.mark.parametrize(
    "text",
    [
        "https://me:secret@host.example/x", "https://secret@host.example", "me:secret@host.example/x", "//u:secret@h",
        "s3://me:secret@bucket", "s3://bucket?endpoint=https://me:secret@host", "https://h.example/x?token=secret",
        "https://h.example/x#secret", "https://me:se@cret/secret@h.example", "file://me:secret@h/x", "https://a:secret@[",
    ],
)  # fmt: skip
def test_no_command_prints_a_password(capsys, monkeypatch, variable, text):
    monkeypatch.setenv(variable, text)
    out = said(capsys, "where")
    assert "secret" not in out
    assert variable in out
    model = FWRF if variable == "BERG_SOURCE" else "eeg-things_eeg_2-vit_b_32"
    own = V2 if variable == "BERG_SOURCE" else ["--subject", "1"]
    error = refused(capsys, "download", model, *own)
    assert "secret" not in error


def test_a_configuration_with_a_list_of_passwords_is_refused_without_them(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "berg").mkdir()
    (tmp_path / "berg" / "config.toml").write_text('network_source = ["https://me:secret@host"]')
    error = refused(capsys, "where")
    assert "network_source is of type list; write a str, such as network_source =" in error
    assert "secret" not in error


def follow(capsys, message, verb):
    """Type what a message advises."""
    (command,) = re.findall(rf"berg {verb} [^\n]*", message)
    tokens = shlex.split(command)[1:]
    return said(capsys, *tokens, *(["--yes"] if verb == "remove" else []))


def load(folder):
    with BERG(folder).get_encoding_model(FWRF, subject=1, selection={"roi": "V2"}, device="cpu"):
        pass


def message_of(call, *arguments):
    with pytest.raises(BERGError) as caught:
        call(*arguments)
    return str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("is_default", [True, False])
def test_what_a_message_advises_works(capsys, place, tmp_path, is_default):
    folder = place if is_default else tmp_path / "another place"
    where = [] if is_default else ["--berg-dir", str(folder)]
    follow(capsys, message_of(load, folder), "download")  # there is no such folder
    weights, metadata = (folder / FOLDER / name for name in BERG().files_of(FWRF, {"roi": "V2"}, subject=1))
    metadata.unlink()
    follow(capsys, message_of(load, folder), "download")
    load(folder)
    weights.write_bytes(weights.read_bytes()[:-1])
    follow(capsys, refused(capsys, "verify", *where), "download")
    load(folder)
    weights.write_bytes(weights.read_bytes()[:-1])
    follow(capsys, message_of(load, folder), "download")
    assert "2 whole" in said(capsys, "verify", *where)


def test_a_stray_answer_that_was_recorded_is_seen_and_replaced(capsys, place):
    """As an earlier version did: the manifest vouches for a message of a server."""
    said(capsys, "download", FWRF, *V2)
    weights = place / FOLDER / BERG().files_of(FWRF, {"roi": "V2"}, subject=1)[0]
    good = weights.read_bytes()
    weights.write_bytes(b'{"error": "please log in"}')
    (place / FOLDER / "manifest.tsv").unlink()
    assert "1 wrong kind" in said(capsys, "status")
    assert "1 files are damaged" in refused(capsys, "verify", "--record")
    record(weights)
    error = refused(capsys, "verify")
    assert "wrong kind" in said(capsys, "status", FWRF)
    follow(capsys, error, "download")
    assert weights.read_bytes() == good
    assert "2 whole" in said(capsys, "verify")


def record(weights: Path) -> None:
    from berg.weights.download import update_manifest
    from berg.weights.manifest import Entry, hash_file

    entry = Entry(f"{weights.parent.name}/{weights.name}", weights.stat().st_size, hash_file(weights))
    update_manifest(weights.parents[5], FWRF, [entry])


def test_a_wrong_record_of_a_file_that_is_gone_can_be_forgotten(capsys, place):
    said(capsys, "download", FWRF, *V2)
    weights = place / FOLDER / BERG().files_of(FWRF, {"roi": "V2"}, subject=1)[0]
    good = weights.read_bytes()
    weights.write_bytes(good + b"x")
    record(weights)
    weights.unlink()
    other_size = refused(capsys, "download", FWRF, *V2)
    assert "bytes on the server, and should have" in other_size
    assert "forget it and download again:  berg remove" in other_size
    weights.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    record(weights)
    weights.unlink()
    error = refused(capsys, "download", FWRF, *V2)
    assert "forget it and download again" in error
    out = follow(capsys, error, "remove")
    assert "gone already; its entry in the manifest" in out
    said(capsys, "download", FWRF, *V2)
    assert weights.read_bytes() == good


def test_entries_whose_files_are_gone_are_removed(capsys, place):
    said(capsys, "download", FWRF, *V2)
    for name in BERG().files_of(FWRF, {"roi": "V2"}, subject=1):
        (place / FOLDER / name).unlink()
    assert "2 missing" in said(capsys, "status")
    assert "Deleted 2 files, 0 B" in said(capsys, "remove", FWRF, *V2, "--yes")
    assert not (place / FOLDER).exists()


def test_nobody_who_answers_is_no_yes(capsys, monkeypatch):
    main(["download", FWRF, *V2])

    def nobody(_):
        raise EOFError

    monkeypatch.setattr("builtins.input", nobody)
    assert "Nothing was deleted: nobody is there to answer. To delete without" in refused(capsys, "remove", FWRF)
    assert "2 whole" in said(capsys, "status")


def test_offline_sends_nothing_at_all(capsys, monkeypatch, tmp_path):
    """No name is looked up and no connection is made, whatever is asked for."""
    asked = []
    monkeypatch.setattr(socket, "getaddrinfo", lambda *given, **_: asked.append(given))
    monkeypatch.setattr(socket.socket, "connect", lambda _, address: asked.append(address))
    monkeypatch.setenv("BERG_OFFLINE", "1")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    for source in ("https://weights.example", "s3://bucket", "http://127.0.0.1:9"):
        monkeypatch.setenv("BERG_SOURCE", source)
        monkeypatch.setenv("BERG_NETWORK_SOURCE", source)
        for model, own in ((FWRF, V2), ("eeg-things_eeg_2-vit_b_32", ["--subject", "1"])):
            assert "files to fetch, 0 B" in said(capsys, "download", model, *own, "--dry-run")
            assert "BERG_OFFLINE" in refused(capsys, "download", model, *own)
        asking = BERG(tmp_path / "new", download=True).get_encoding_model
        message = message_of(partial(asking, FWRF, subject=1, selection={"roi": "V2"}))
        assert "unset BERG_OFFLINE" in message
        said(capsys, "where")
        said(capsys, "status")
        said(capsys, "verify")
    assert asked == []
