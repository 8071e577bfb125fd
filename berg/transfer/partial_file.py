"""The bytes of a file that are here already, beside the place where the whole of it will be."""

from __future__ import annotations

import json
import os
import threading
import time
from datetime import date
from pathlib import Path
from typing import Any, BinaryIO

from berg.system.durable_file import flush, storage_errors
from berg.system.file_hash import hash_file
from berg.system.progress import Advance

PIECE = 16 * 2**20
_SECONDS_BETWEEN_NOTES = 1.0
KEPT = "What has come is kept."


class PartialFile:
    """A file in pieces, and a note beside it of how much of each piece is here.

    The bytes lie in ``.name.part``; the note, ``.name.part.json``, is written after the bytes that it
    counts have reached the disk, so that it may say too little but never too much.

    Parameters
    ----------
    target
        The name of the whole file. Nothing appears there before `land`.
    url
        Where it comes from; what is here from elsewhere is not continued.
    """

    def __init__(self, target: Path, url: str) -> None:
        self.target, self.url = target, url
        self.path = target.with_name(f".{target.name}.part")
        self._note = target.with_name(f".{target.name}.part.json")
        self._lock, self._note_lock = threading.Lock(), threading.Lock()
        self._file: BinaryIO | None = None
        self._noted = time.monotonic()
        self.at_once = False  # must come in one answer: nothing tells whether two are of the same file
        self._set(None, None, None, [])

    def _set(self, version: str | None, etag: str | None, total: int | None, have: list[int]) -> None:
        self.version, self.etag, self.total, self.have = version, etag, total, have

    @property
    def n_bytes(self) -> int:
        """How many bytes are here."""
        return sum(self.have)

    @property
    def has_begun(self) -> bool:
        """Whether it is known what the file is: its size and version."""
        return bool(self.have)

    def piece(self, index: int) -> tuple[int, int | None]:
        """Where in the file a piece begins and ends; the only piece of a file of unknown size has no end."""
        if len(self.have) == 1:
            return 0, self.total
        return index * PIECE, PIECE * (index + 1) if self.total is None else min(PIECE * (index + 1), self.total)

    def rest_of(self, index: int) -> tuple[int, int | None]:
        """Where in the file the missing rest of a piece begins and ends; before the file is known, of the first."""
        if not self.has_begun:
            return 0, None if self.at_once else PIECE
        start, stop = self.piece(index)
        return start + self.have[index], stop

    def missing(self) -> list[int]:
        """The pieces that are not whole yet."""
        spans = (self.piece(index) for index in range(len(self.have)))
        return [i for i, (start, stop) in enumerate(spans) if stop is None or self.have[i] < stop - start]

    def resume(self) -> None:
        """Take over what an earlier attempt left, if it is of use."""
        try:
            note = json.loads(self._note.read_text("utf-8"))
            version, etag, total, have = (note[key] for key in ("version", "etag", "size", "have"))
            if note["source"] != self.url or note["piece"] != PIECE or not _fits(version, total, have):
                return
            if self.path.stat().st_size < total:
                return
        except (OSError, ValueError, KeyError, TypeError):
            return
        self._set(version, etag, total, have)

    def begin(self, version: str | None, etag: str | None, total: int | None, in_pieces: bool) -> None:
        """Start with nothing, now that it is known what the file is."""
        n_pieces = max(1, -(-total // PIECE)) if in_pieces and total is not None and version is not None else 1
        self._set(version, etag, total, [0] * n_pieces)
        with storage_errors(self.target, KEPT):
            self._opened().truncate(0)
            self._opened().truncate(total or 0)

    def forget(self) -> None:
        """Throw away what is here."""
        self._end()
        self._set(None, None, None, [])
        with storage_errors(self.target, KEPT):
            self._note.unlink(missing_ok=True)
            self.path.unlink(missing_ok=True)

    def write(self, index: int, chunk: bytes) -> None:
        """Add bytes to a piece."""
        with self._lock, storage_errors(self.target, KEPT):
            file = self._opened()
            file.seek(self.piece(index)[0] + self.have[index])
            while chunk:  # an unbuffered file may take less than it is given
                n_written = file.write(chunk)
                self.have[index] += n_written
                chunk = chunk[n_written:]
        if time.monotonic() - self._noted > _SECONDS_BETWEEN_NOTES:
            self.note()

    def note(self) -> None:
        """Bring the bytes to the disk, and then write down how many they are."""
        if self._file is None or not self.has_begun or self.version is None or self.total is None:
            return
        self._noted = time.monotonic()
        note: dict[str, Any] = {"source": self.url, "version": self.version, "etag": self.etag}
        with self._note_lock, storage_errors(self.target, KEPT):
            with self._lock:
                note |= {"size": self.total, "piece": PIECE, "have": list(self.have)}
            os.fsync(self._file.fileno())
            draft = self._note.with_suffix(".new")
            draft.write_text(json.dumps(note), "utf-8")
            os.replace(draft, self._note)

    def sha256(self, progress: Advance | None = None) -> str:
        """The hash of what lies on disk; `progress` is told the bytes that were read, and may end it by an error."""
        self._end()
        return hash_file(self.path, progress)

    def set_aside(self) -> Path:
        """Keep a damaged file under another name, and start with nothing."""
        self._end()
        aside = aside_name(self.target)
        with storage_errors(self.target, KEPT):
            os.replace(self.path, aside)
        self.forget()
        return aside

    def land(self) -> None:
        """Give the whole file its name; what had that name before is set aside."""
        with storage_errors(self.target, KEPT):
            with self.path.open("rb+") as file:
                os.fsync(file.fileno())
            if self.target.exists():
                os.replace(self.target, aside_name(self.target))
            os.replace(self.path, self.target)
            flush(self.target.parent)
            self._note.unlink(missing_ok=True)

    def close(self) -> None:
        """Close it, with a note of what is here."""
        self.note()
        self._end()

    def _end(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _opened(self) -> BinaryIO:
        if self._file is None:
            # Neither "w", which would empty it, nor "a", which would write at its end.
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
            self._file = os.fdopen(descriptor, "rb+", buffering=0)  # type: ignore[assignment]
        return self._file  # type: ignore[return-value]


def _fits(version: object, total: object, have: object) -> bool:
    """Whether a note can be true; anybody may have written it."""
    if not isinstance(version, str) or not isinstance(total, int) or not isinstance(have, list):
        return False
    if total < 0 or len(have) not in (1, max(1, -(-total // PIECE))):
        return False
    longest = total if len(have) == 1 else PIECE
    return all(type(n) is int and 0 <= n <= longest for n in have) and sum(have) <= total


def aside_name(target: Path) -> Path:
    """A free name beside a file, for what was damaged or replaced."""
    base = f"{target.name}.damaged-{date.today():%Y-%m-%d}"
    names = (target.with_name(base + (f"-{i}" if i else "")) for i in range(1000))
    return next(name for name in names if not name.exists())
