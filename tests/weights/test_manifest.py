"""The manifest of a model: written the same for the same files, read strictly, and compared with the disk."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from berg.core.exceptions import CorruptedFileError, InvalidParameterError, MissingFileError, StorageError
from berg.system.file_hash import CHUNK, hash_file
from berg.system.portable_names import name_fault, names_clash
from berg.weights.manifest import (
    HEADER,
    MAX_BYTES,
    NAME,
    Entry,
    Problem,
    format_manifest,
    parse_manifest,
    read_manifest,
    verify,
    write_manifest,
)

HASH = "0123456789abcdef" * 4
LINE = f"metadata/a.npy\t12\t{HASH}\thttps://example.org/a.npy\t2025-01-31T12:00:00Z\n"
NAMES = st.text(st.sampled_from("ab.-_ äß"), min_size=1, max_size=8).filter(lambda name: not name_fault(name))


def text(*lines: str) -> bytes:
    return "".join([HEADER + "\n", *lines]).encode()


def test_the_format_is_the_one_that_is_written_down() -> None:
    entry = Entry("metadata/a.npy", 12, HASH, "https://example.org/a.npy", "2025-01-31T12:00:00Z")
    assert HEADER == "path\tsize\tsha256\tsource\tdate"
    assert format_manifest([entry]) == text(LINE)
    assert parse_manifest(text(LINE)) == {"metadata/a.npy": entry}


@given(st.dictionaries(NAMES, st.integers(0, 10**17), max_size=6), st.randoms(use_true_random=False))
def test_what_is_written_comes_back_in_any_order(sizes: dict[str, int], random: object) -> None:
    entries = [Entry(path, size, HASH) for path, size in sizes.items()]
    if names_clash(sizes):
        with pytest.raises(InvalidParameterError, match="cannot stand in one manifest"):
            format_manifest(entries)
        return
    data = format_manifest(entries)
    random.shuffle(entries)  # type: ignore[attr-defined]
    assert format_manifest(entries) == data
    assert parse_manifest(data) == {entry.path: entry for entry in entries}
    assert list(parse_manifest(data)) == sorted(sizes)


BAD_LINES = {
    "absolute": ("/etc/passwd", "it is absolute"),
    "parent": ("metadata/../../x", "it leads out of its folder"),
    "parent alone": ("..", "it leads out of its folder"),
    "backslash": ("metadata\\a", r"character '\\\\'"),
    "drive": ("C:/a", "character ':'"),
    "nul": ("metadata/a\0b", "character '.x00'"),
    "carriage return": ("metadata/a\r", "character '.r'"),
    "empty": ("", "a part of it is empty"),
    "twice a slash": ("metadata//a", "a part of it is empty"),
    "folder": ("metadata/", "a part of it is empty"),
    "device": ("metadata/NUL", "Windows knows 'NUL'"),
}


@pytest.mark.parametrize("case", BAD_LINES)
def test_a_path_that_leads_elsewhere_is_refused_with_file_and_line(case: str) -> None:
    path, words = BAD_LINES[case]
    line = LINE.replace("metadata/a.npy", path)
    with pytest.raises(CorruptedFileError, match=f"^here.tsv, line 3: the path .* is refused: .*{words}"):
        parse_manifest(text(LINE, line), "here.tsv")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "line 1: expected the header"),
        (text().replace(b"path", b"file"), "line 1: expected the header 'path"),
        (b"\xef\xbb\xbf" + text(), "line 1: expected the header"),
        (text().replace(b"\n", b"\r\n"), "line 1: expected the header"),
        (text(LINE[:-1]), "line 2: it breaks off in the middle of the line"),
        (text(LINE, "\n"), "line 3: expected 5 fields between tabs, found 1"),
        (text(LINE.replace("\n", "\t\n")), "line 2: expected 5 fields between tabs, found 6"),
        (text(LINE.replace("\t12", "\t-12")), "line 2: the size '-12'"),
        (text(LINE.replace("\t12", "\t012")), "line 2: the size '012'"),
        (text(LINE.replace("\t12", "\t1.5")), "line 2: the size '1.5'"),
        (text(LINE.replace("\t12", "\t١٢")), "line 2: the size"),
        (text(LINE.replace("\t12", "\t" + "9" * 5000)), "line 2: the size"),
        (text(LINE.replace(HASH, HASH.upper())), "line 2: the sha256"),
        (text(LINE.replace(HASH, HASH[1:])), "line 2: the sha256"),
        (text(LINE.replace("https://", "")), "line 2: the source 'example.org/a.npy' is no URL"),
        (text(LINE.replace("https://example", "https://exa mple")), "line 2: the source"),
        (text(LINE.replace("2025-01-31T", "2025-02-31T")), "line 2: the date '2025-02-31T12:00:00Z' is not like"),
        (text(LINE.replace(":00Z", ":00")), "line 2: the date"),
        (text(LINE.replace("2025-01-31", "2025-1-31")), "line 2: the date"),
        (text(LINE, LINE), "line 3: 'metadata/a.npy' stands twice"),
        (text(LINE, LINE.replace("a.npy\t", "A.NPY\t")), "line 3: .* differ in case alone"),
        (text(LINE, LINE.replace("a.npy\t", "a.npy/b\t")), "line 3: 'metadata/a.npy' is a file and a folder"),
        (text(LINE) + b"\xff", "line 3: it is not text in UTF-8"),
        pytest.param(bytes(MAX_BYTES + 1), "is over 16.8 MB", id="too large"),
    ],
)
def test_a_damaged_manifest_is_refused(data: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / NAME
    path.write_bytes(data)
    with pytest.raises(CorruptedFileError, match=f"^{path}.*{words}"):
        read_manifest(path)


def test_a_manifest_that_is_not_there_is_missing(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="No such file"):
        read_manifest(tmp_path / NAME)


@pytest.mark.parametrize(
    "wrong", [{"path": "../a"}, {"size": -1}, {"sha256": "0"}, {"source": "here"}, {"date": "today"}]
)
def test_an_entry_cannot_be_made_wrong(wrong: dict[str, object]) -> None:
    with pytest.raises(InvalidParameterError, match=next(iter(wrong))):
        Entry(**{"path": "a", "size": 1, "sha256": HASH, **wrong})  # type: ignore[arg-type]


def test_writing_replaces_in_one_step_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / NAME
    write_manifest(path, [Entry("a", 1, HASH)])
    held = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match=r"No space left.*Make room"):
        write_manifest(path, [])
    assert path.read_bytes() == held
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, 3 * CHUNK + 7])
def test_a_hash_is_that_of_all_bytes_and_says_how_far_it_is(size: int, tmp_path: Path) -> None:
    data = os.urandom(size)
    (tmp_path / "a").write_bytes(data)
    steps: list[int] = []
    assert hash_file(tmp_path / "a", steps.append) == hash_file(tmp_path / "a") == hashlib.sha256(data).hexdigest()
    assert sum(steps) == size


def test_hashing_what_cannot_be_read_is_a_typed_error(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=f"{tmp_path} cannot be read"):
        hash_file(tmp_path)


def test_verify_finds_what_is_missing_short_or_changed(tmp_path: Path) -> None:
    contents = {"good": b"abc", "short": b"ab", "changed": b"abd"}
    for name, data in contents.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "folder").mkdir()
    sha256 = hashlib.sha256(b"abc").hexdigest()
    entries = [Entry(name, 3, sha256) for name in (*contents, "missing", "folder")]
    short = [Problem("short", "wrong size"), Problem("missing", "missing"), Problem("folder", "missing")]
    assert verify(tmp_path, entries, quick=True) == short
    steps: list[int] = []
    found = verify(tmp_path, entries, progress=steps.append)
    assert found == [short[0], Problem("changed", "wrong hash"), *short[1:]]
    assert sum(steps) == 6


@pytest.mark.parametrize("name", ["a", "metadata/a.npy", "a b", "ü.npy", "COM12", "a..b", "aux_1"])
def test_an_ordinary_name_is_taken(name: str) -> None:
    assert name_fault(name) is None
