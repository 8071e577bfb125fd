r"""The manifest of a model: each of its files with size, sha256, and where it came from.

It lies as ``manifest.tsv`` in the model's folder: a header, and one line per file, tab separated, sorted
by path::

    path                                         size    sha256     source        date
    encoding_models_weights/weights_sub-01.npy   123456  e3b0c4...  https://...   2025-01-31T12:00:00Z

Paths are relative to the model's folder. Source (a URL) and date (UTC) may be empty.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import astuple, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from berg.core.exceptions import CorruptedFileError, InvalidParameterError
from berg.core.regular_file import read_start
from berg.system.byte_words import size_words
from berg.system.durable_file import replacing
from berg.system.file_hash import hash_file
from berg.system.portable_names import name_fault, names_clash
from berg.system.progress import Advance

NAME = "manifest.tsv"
MAX_BYTES = 2**24
DATE_FORMAT = "%Y-%m-%dT%H:%M:%SZ"
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SOURCE = re.compile(r"([a-z][a-z0-9+.-]*://\S+)?")
_SIZE = re.compile(r"0|[1-9][0-9]{0,17}")


@dataclass(frozen=True)
class Entry:
    """One file of a model.

    Parameters
    ----------
    path
        Below the model's folder, with slashes.
    size
        Bytes.
    sha256
        64 hexadecimal digits, in small letters.
    source
        The URL that it came from, or empty.
    date
        When it came, such as 2025-01-31T12:00:00Z, or empty.

    Raises
    ------
    InvalidParameterError
        If one of them is not so.
    """

    path: str
    size: int
    sha256: str
    source: str = ""
    date: str = ""

    def __post_init__(self) -> None:
        if fault := _fault(self):
            raise InvalidParameterError(fault)


def _fault(entry: Entry) -> str | None:
    if fault := name_fault(entry.path):
        return f"the path {entry.path!r} is refused: {fault}"
    if entry.size < 0:
        return f"the size {entry.size} is no number of bytes"
    if not _SHA256.fullmatch(entry.sha256):
        return f"the sha256 {entry.sha256!r:.80} is not 64 hexadecimal digits in small letters"
    if not _SOURCE.fullmatch(entry.source) or not entry.source.isprintable():
        return f"the source {entry.source!r:.80} is no URL"
    if entry.date and not _is_date(entry.date):
        return f"the date {entry.date!r:.80} is not like 2025-01-31T12:00:00Z"
    return None


def _is_date(text: str) -> bool:
    try:
        return datetime.strptime(text, DATE_FORMAT).strftime(DATE_FORMAT) == text
    except ValueError:
        return False


HEADER = "\t".join(field.name for field in fields(Entry))


def read_manifest(path: Path) -> dict[str, Entry]:
    """The entries of a manifest, by path.

    Raises
    ------
    MissingFileError
        When there is none, or it may not be opened.
    CorruptedFileError
        With the line that is no entry.
    """
    return parse_manifest(read_start(path, MAX_BYTES + 1, "The manifest"), str(path))


def recorded_files(folder: Path) -> dict[str, Entry]:
    """The entries of the manifest in a model's folder, by path; none if there is no manifest."""
    path = folder / NAME
    return read_manifest(path) if path.exists() else {}


def entry_of(path: Path, folder: Path, progress: Advance | None = None) -> Entry:
    """The entry of a file in a model's folder as it is now, hashed; where it came from is not known."""
    now = datetime.now(UTC).strftime(DATE_FORMAT)
    sha256 = hash_file(path, progress)
    return Entry(path.relative_to(folder).as_posix(), path.stat().st_size, sha256, "", now)


def parse_manifest(data: bytes, source: str = NAME) -> dict[str, Entry]:
    """As `read_manifest`, from the bytes themselves; `source` names them in errors."""
    if len(data) > MAX_BYTES:
        raise CorruptedFileError(f"{source} is over {size_words(MAX_BYTES)}, which no manifest is.")
    try:
        lines = data.decode("utf-8").split("\n")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise CorruptedFileError(f"{source}, line {line}: it is not text in UTF-8.") from error
    if lines[0] != HEADER:
        raise CorruptedFileError(f"{source}, line 1: expected the header {HEADER!r}, found {lines[0]!r:.80}.")
    if lines[-1]:
        raise CorruptedFileError(f"{source}, line {len(lines)}: it breaks off in the middle of the line.")
    entries = [_parse_line(line, f"{source}, line {number}") for number, line in enumerate(lines[1:-1], 2)]
    if clash := names_clash(entry.path for entry in entries):
        raise CorruptedFileError(f"{source}, line {clash[0] + 2}: {clash[1]}.")
    return {entry.path: entry for entry in entries}


def _parse_line(line: str, where: str) -> Entry:
    parts = line.split("\t")
    if len(parts) != len(fields(Entry)):
        raise CorruptedFileError(f"{where}: expected {len(fields(Entry))} fields between tabs, found {len(parts)}.")
    path, size, *rest = parts
    if not _SIZE.fullmatch(size):
        raise CorruptedFileError(f"{where}: the size {size!r:.40} is no number of bytes.")
    try:
        return Entry(path, int(size), *rest)
    except InvalidParameterError as error:
        raise CorruptedFileError(f"{where}: {error}.") from error


def format_manifest(entries: Iterable[Entry]) -> bytes:
    """The bytes of a manifest; the same for the same entries in any order.

    Raises
    ------
    InvalidParameterError
        If two entries cannot lie in one folder.
    """
    listed = sorted(entries, key=lambda entry: entry.path)
    if clash := names_clash(entry.path for entry in listed):
        raise InvalidParameterError(f"These files cannot stand in one manifest: {clash[1]}.")
    lines = [HEADER, *("\t".join(map(str, astuple(entry))) for entry in listed)]
    return "".join(f"{line}\n" for line in lines).encode()


def write_manifest(path: Path, entries: Iterable[Entry]) -> None:
    """Write a manifest, which replaces the one before in one step.

    Examples
    --------
    >>> import hashlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, NAME)
    ...     write_manifest(path, [Entry("metadata/a.npy", 0, hashlib.sha256().hexdigest())])
    ...     list(read_manifest(path))
    ['metadata/a.npy']
    """
    data = format_manifest(entries)
    with replacing(path) as file:
        file.write(data)


@dataclass(frozen=True)
class Problem:
    """What is wrong with a file of a manifest."""

    path: str
    kind: Literal["missing", "wrong size", "wrong hash"]


def verify(
    folder: Path, entries: Iterable[Entry], *, quick: bool = False, progress: Advance | None = None
) -> list[Problem]:
    """The files of a manifest that are not there, or are not what it says.

    Parameters
    ----------
    folder
        The model's folder.
    quick
        Compare the sizes alone.
    progress
        Is told the bytes that were read.
    """
    found = (_problem(folder / entry.path, entry, quick, progress) for entry in entries)
    return [problem for problem in found if problem]


def _problem(path: Path, entry: Entry, quick: bool, progress: Advance | None) -> Problem | None:
    if not path.is_file():
        return Problem(entry.path, "missing")
    if path.stat().st_size != entry.size:
        return Problem(entry.path, "wrong size")
    if not quick and hash_file(path, progress) != entry.sha256:
        return Problem(entry.path, "wrong hash")
    return None
