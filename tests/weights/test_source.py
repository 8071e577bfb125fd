from pathlib import Path

import pytest

from berg.core.exceptions import DownloadError, InvalidParameterError, OfflineError
from berg.transfer.source import Source, parse_source

REGION_URL = "https://s3.us-west-2.amazonaws.com/dotted.bucket/a"


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("s3://my-bucket", "https://my-bucket.s3.us-west-2.amazonaws.com/f"),
        ("s3://my-bucket/a b/", "https://my-bucket.s3.us-west-2.amazonaws.com/a%20b/f"),
        ("s3://my-bucket?region=eu-west-1", "https://my-bucket.s3.eu-west-1.amazonaws.com/f"),
        ("s3://dotted.bucket/a", f"{REGION_URL}/f"),
        ("s3://my-bucket/a?endpoint=https://minio.example:9000/", "https://minio.example:9000/my-bucket/a/f"),
        ("s3://my-bucket?endpoint=http://127.0.0.1:5", "http://127.0.0.1:5/my-bucket/f"),
        ("https://host.example/prefix/", "https://host.example/prefix/f"),
        ("http://localhost:80/x", "http://localhost:80/x/f"),
        ("http://[::1]:80", "http://[::1]:80/f"),
    ],
)
def test_a_source_knows_the_url_of_a_file(text, url):
    assert parse_source(text).url("f") == url


def test_region_and_endpoint_may_be_arguments():
    assert parse_source("s3://bucket", region="eu-west-1").base == "https://bucket.s3.eu-west-1.amazonaws.com"
    assert parse_source("s3://bucket", endpoint="https://h").base == "https://h/bucket"


def test_a_folder_is_a_source_and_its_names_are_quoted(tmp_path):
    folder = tmp_path / "a b"
    folder.mkdir()
    source = parse_source(folder.as_uri() + "/")
    assert source.is_local
    assert source.url("c d") == f"{tmp_path.as_uri()}/a%20b/c%20d"
    assert source.file("c d") == Path(folder, "c d")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("bucket/prefix", "one of s3://bucket/prefix, https://host/prefix, file:///folder"),
        ("ftp://host/x", "is no source of files"),
        ("https:///x", "is no source of files"),
        ("http://host.example/x", "plain http is for this machine"),
        ("https://me:secret@host.example/x", "no name or password"),
        ("https://host.example/x?token=1", r"no '\?'"),
        ("https://host.example/x#y", "no '#'"),
        ("s3://B_", "names no bucket"),
        ("s3://bucket?key=1", "names no bucket"),
        ("s3://bucket?endpoint=http://host.example", "plain http is for this machine"),
        ("s3://me:secret@bucket", "names no bucket"),
        ("file:///no/such/folder", "is no folder of this machine"),
        ("file://host/x", "three slashes"),
    ],
)
def test_what_is_no_source_is_refused(text, words):
    with pytest.raises(InvalidParameterError, match=words):
        parse_source(text)


def test_a_password_is_not_repeated_in_the_error():
    with pytest.raises(InvalidParameterError) as caught:
        parse_source("https://me:secret@host.example/x")
    assert "secret" not in str(caught.value)


def test_plain_http_is_taken_when_told():
    assert parse_source("http://host.example/x", allow_http=True).base == "http://host.example/x"


@pytest.mark.parametrize(
    ("base", "to"),
    [
        ("https://h.example/a", "https://h.example/b"),
        ("https://h.example/a", "https://h.example:8443/b"),
        ("https://h.example/a", "https://named.example/b"),
        ("http://127.0.0.1:1/a", "http://localhost:2/b"),
        ("http://127.0.0.1:1/a", "https://127.0.0.1/b"),
    ],
)
def test_a_redirect_to_the_same_or_a_named_host_is_followed(base, to):
    Source(base, redirect_hosts=frozenset(["named.example"])).check_redirect(to)


@pytest.mark.parametrize(
    ("base", "to"),
    [
        ("https://h.example/a", "http://h.example/b"),
        ("https://h.example/a", "https://other.example/b"),
        ("https://h.example/a", "https://sub.h.example/b"),
        ("https://h.example/a", "http://127.0.0.1/b"),
        ("https://h.example/a", "https://me:x@h.example/b"),
        ("https://h.example/a", "file:///etc/passwd"),
        ("http://127.0.0.1:1/a", "http://h.example/b"),
    ],
)
def test_a_redirect_to_elsewhere_is_refused_and_says_how_to_allow_it(base, to):
    with pytest.raises(DownloadError, match=r"was not followed; .* redirect_hosts=\["):
        Source(base).check_redirect(to)


@pytest.mark.parametrize(("value", "refused"), [("1", True), ("yes", True), ("0", False), ("", False), ("no", False)])
def test_berg_offline_forbids_the_network(monkeypatch, value, refused, tmp_path):
    monkeypatch.setenv("BERG_OFFLINE", value)
    Source(tmp_path.as_uri()).check_online("f.npy")
    if refused:
        with pytest.raises(OfflineError, match=r"f\.npy is not here, and the environment variable BERG_OFFLINE.*unset"):
            Source("https://h.example").check_online("f.npy")
    else:
        Source("https://h.example").check_online("f.npy")
