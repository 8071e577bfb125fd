"""Getting files from a source into a folder: whole or not at all, and never the same byte twice."""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from berg.core.exceptions import CorruptedFileError, DownloadError, InvalidParameterError, StorageError
from berg.system.durable_file import storage_errors
from berg.system.file_hash import hash_file
from berg.system.locks import wait_for_lock
from berg.system.memory import size_words
from berg.system.portable_names import name_fault
from berg.system.progress import Advance, FileBars, transfer_bars
from berg.transfer.file_heads import file_fault
from berg.transfer.partial_file import KEPT, PartialFile
from berg.transfer.remote import Answer, Changed, Remote, Stopped, TryAgain
from berg.transfer.retries import Patience
from berg.transfer.source import Source, parse_source

logger = logging.getLogger(__name__)
Result = TypeVar("Result")

_PROGRESS = 2**16  # bytes; an attempt that brought so many does not count as failed
_SHOULD_HAVE = "should have"
_SHA256 = re.compile(r"[0-9a-f]{8,64}")


@dataclass(frozen=True)
class WantedFile:
    """A file to get.

    Parameters
    ----------
    path
        Below the source, and likewise below the folder: ``metadata/metadata_subject-01.npy``.
    size
        Bytes; None if nobody was asked.
    sha256
        64 hexadecimal digits, or the first of them (at least 8), as far as they are known.
    source, folder
        Where it comes from and goes to, if it was planned with others that go elsewhere; `fetch` is told both.
    model
        The model that it belongs to; None for a network that models share.
    metadata_keys
        Of a JSON file of metadata, some of which it must have; a network's login page may answer in JSON, too.

    Raises
    ------
    InvalidParameterError
        If the path would lead out of the folder or is no name on every system, or the rest is not what it says.
    """

    path: str
    size: int | None = None
    sha256: str | None = None
    source: Source | None = None
    folder: Path = Path()
    model: str | None = None
    metadata_keys: frozenset[str] = frozenset()

    @property
    def target(self) -> Path:
        """Where it lies, or will."""
        return self.folder / self.path

    @property
    def is_here(self) -> bool:
        """Whether it lies there with the size that it should have, and begins as its name says."""
        target = self.target
        return target.is_file() and self.size in (None, target.stat().st_size) and file_fault(target) is None

    def __post_init__(self) -> None:
        is_hidden = any(part.startswith(".") for part in self.path.split("/"))  # as parts of files under way are
        if fault := name_fault(self.path) or ("a part of it is hidden" if is_hidden else None):
            raise InvalidParameterError(
                f"{self.path!r} is not the path of a file to get: {fault}. Give names with '/' between them, "
                "for example metadata/metadata_subject-01.npy."
            )
        if self.size is not None and self.size < 0:
            raise InvalidParameterError(f"{self.path} cannot have {self.size} bytes; give 0 or more, or None.")
        if self.sha256 is not None and not _SHA256.fullmatch(self.sha256):
            raise InvalidParameterError(
                f"{self.sha256!r} of {self.path} is no sha256: it has 64 digits 0-9a-f, or is their beginning. "
                f"See:  sha256sum {self.path}"
            )

    def has_hash(self, sha256: str) -> bool:
        """Whether this may be its hash."""
        return self.sha256 is None or sha256.startswith(self.sha256)


@dataclass(frozen=True)
class Fetched:
    """A file that is here now, whole.

    Parameters
    ----------
    path
        As in `WantedFile`.
    size
        Bytes.
    sha256
        Our own hash of what is on disk.
    source
        The URL it came from, or would have come from.
    etag
        What the server called this version; None if it was here before.
    was_here
        Whether it was here before, and nothing came over the network.
    """

    path: str
    size: int
    sha256: str
    source: str
    etag: str | None
    was_here: bool = False


def fetch(
    source: str | Source,
    files: Iterable[WantedFile],
    folder: Path | str,
    *,
    parallel: int = 4,
    progress: bool | None = None,
    patience: Patience | None = None,
) -> list[Fetched]:
    """Get the files that are not in a folder yet.

    A file appears under its name when it is whole and its hash is the expected one. Until then it is
    ``.name.part``, which the next call goes on with, after an error, Ctrl-C, ``kill -9`` or a power cut.
    Two processes may fetch the same file: one does, the other waits for it. The first error ends the call;
    files that were finished stay.

    Parameters
    ----------
    source
        ``s3://bucket/prefix``, ``https://host/prefix``, ``file:///folder``; see `parse_source`.
    folder
        Made if it is not there.
    parallel
        How many connections; large files are fetched through several.
    progress
        Show bars; None: if standard error is a terminal.
    patience
        When to try again and when to give up.

    Returns
    -------
    fetched
        In the order of `files`. A hash that was not known is to be recorded by the caller.

    Raises
    ------
    DownloadError
        RemoteFileError: no such file for us. OfflineError: BERG_OFFLINE forbids it.
    CorruptedFileError
        The hash was wrong twice; what came is kept beside the name as ``name.damaged-DATE``.
    StorageError
        The disk is full, or one may not write there.
    """
    wanted = _checked(files)
    if parallel < 1:
        raise InvalidParameterError(f"parallel is {parallel}; it is how many connections to use, 1 or more.")
    where = parse_source(source) if isinstance(source, str) else source
    _check_room(Path(folder), wanted)
    sizes = [file.size for file in wanted]
    n_bytes = None if None in sizes else sum(size for size in sizes if size is not None)
    connections = closing(Remote(where, patience or Patience(), parallel))
    with connections as remote, transfer_bars(n_bytes, progress) as bars, ThreadPoolExecutor(parallel) as lines:
        return _Transfer(remote, Path(folder), lines, bars).fetch(wanted, parallel)


def _checked(files: Iterable[WantedFile]) -> list[WantedFile]:
    wanted, seen = list(files), set()
    for file in wanted:
        if file.path.casefold() in seen:  # some disks do not tell A from a
            raise InvalidParameterError(f"{file.path} is asked for twice; name each file once.")
        seen.add(file.path.casefold())
    return wanted


def _check_room(folder: Path, files: list[WantedFile]) -> None:
    """Raise StorageError if the files will not fit on the disk."""
    n_missing = sum(_n_missing(folder / file.path, file.size) for file in files if file.size is not None)
    existing = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    n_free = shutil.disk_usage(existing).free
    if n_missing > n_free:
        raise StorageError(
            f"{folder} has {size_words(n_free)} free; {size_words(n_missing)} are still to come. "
            "Make room, or choose a folder on another disk."
        )


def _n_missing(target: Path, size: int) -> int:
    if target.is_file() and target.stat().st_size == size:
        return 0
    part = PartialFile(target, "").path
    # Blocks that are there, since the part of a file has the length of the whole from the start.
    taken = getattr(part.stat(), "st_blocks", 0) * 512 if part.exists() else 0
    return max(0, size - taken)


class _Transfer:
    """One call of `fetch`: a thread for each file under way, and `lines` that share the connections."""

    def __init__(self, remote: Remote, folder: Path, lines: ThreadPoolExecutor, bars: FileBars) -> None:
        self.remote, self.folder, self.lines, self.bars = remote, folder, lines, bars

    def fetch(self, files: list[WantedFile], n_threads: int) -> list[Fetched]:
        with ThreadPoolExecutor(n_threads) as threads, ended_together(self.remote, threads):
            return results([threads.submit(self._one, file) for file in files])

    def _one(self, file: WantedFile) -> Fetched:
        target = self.folder / file.path
        with storage_errors(target, KEPT):
            target.parent.mkdir(parents=True, exist_ok=True)
        lock = target.with_name(f".{target.name}.lock")  # keeps other processes from fetching the same file
        with wait_for_lock(lock, target, KEPT, lambda: self.remote.is_stopped):
            return self._found(file, target) or self._receive(file, target)

    def _found(self, file: WantedFile, target: Path) -> Fetched | None:
        """The file that is here already, if it is the one."""
        if not target.is_file() or file.size not in (None, target.stat().st_size):
            return None
        if fault := file_fault(target):
            logger.warning("%s is %s; it is fetched anew.", target, fault)
            return None
        sha256 = hash_file(target, self._go_on)
        if not file.has_hash(sha256):
            logger.warning("%s is not the file that was asked for (sha256 %s); it is fetched anew.", target, sha256)
            return None
        size = target.stat().st_size
        PartialFile(target, "").forget()
        self.bars.begin(file.path, size, size)
        self.bars.end(file.path)
        return Fetched(file.path, size, sha256, self.remote.source.url(file.path), None, was_here=True)

    def _go_on(self, n: int = 0) -> None:
        """Raise Stopped if everything was told to stop."""
        if self.remote.is_stopped:
            raise Stopped

    def _receive(self, file: WantedFile, target: Path) -> Fetched:
        """The file from the source; from its start once more if it came damaged."""
        self.remote.source.check_online(file.path)
        part = PartialFile(target, self.remote.source.url(file.path))
        try:
            part.resume()
            sha256 = self._hash_of_whole(file, part)
            if not file.has_hash(sha256):
                aside = part.set_aside()
                logger.warning(
                    "%s came damaged (sha256 %s), and is fetched once more; see %s.", file.path, sha256, aside
                )
                if not file.has_hash(again := self._hash_of_whole(file, part)):
                    raise _damaged(file, part, aside, again, again == sha256)
                sha256 = again
            part.land()
        finally:
            part.close()
            self.bars.end(file.path)
        return Fetched(file.path, part.n_bytes, sha256, part.url, part.etag)

    def _hash_of_whole(self, file: WantedFile, part: PartialFile) -> str:
        """Fetch all pieces; from the start if the file changes meanwhile."""
        for _ in range(self.remote.patience.attempts):
            try:
                self._all_pieces(file, part)
                return part.sha256(self._go_on)
            except Changed:
                logger.info("%s is begun anew: it changed, or its server does not continue files.", file.path)
                part.forget()
        raise DownloadError(
            f"{part.url} did not come in one piece, {self.remote.patience.attempts} times from the start: it changes "
            "on the server, or the connection breaks and the server sends no ranges. Try later, or another source."
        )

    def _all_pieces(self, file: WantedFile, part: PartialFile) -> None:
        advance = self.bars.begin(file.path, part.total or file.size, part.n_bytes)
        if not part.has_begun:
            self._on_lines([0], file, part, advance)  # its answer says how large the file is
        self._on_lines(part.missing(), file, part, advance)

    def _on_lines(self, pieces: list[int], file: WantedFile, part: PartialFile, advance: Advance) -> None:
        futures = [self.lines.submit(self._piece, file, part, index, advance) for index in pieces]
        try:
            results(futures)
        finally:  # nobody writes to the part when this is over
            wait([future for future in futures if not future.cancel()])

    def _piece(self, file: WantedFile, part: PartialFile, index: int, advance: Advance) -> None:
        """Fetch what is missing of a piece, with pauses if it does not work at once."""
        n_failures = 0
        while not self.remote.is_stopped:
            before = part.rest_of(index)[0]
            try:
                return self._rest_of_piece(file, part, index, advance)
            except TryAgain as error:
                n_failures = 1 if part.rest_of(index)[0] >= before + _PROGRESS else n_failures + 1
                if n_failures >= self.remote.patience.attempts:
                    raise _given_up(part, n_failures, error) from error
                pause, attempts = self.remote.patience.pause(n_failures, error.seconds), self.remote.patience.attempts
                logger.warning(
                    "%s: %s. Trying again in %.1f s (%d of %d).", part.url, error, pause, n_failures + 1, attempts
                )
                self.remote.wait(pause)
        raise Stopped

    def _rest_of_piece(self, file: WantedFile, part: PartialFile, index: int, advance: Advance) -> None:
        start, stop = part.rest_of(index)
        if start and part.version is None:
            raise Changed
        with self.remote.open(file.path, start, stop, part.version) as answer:
            if not part.has_begun:
                self._begin(file, part, answer, stop)
            elif answer.total != part.total:
                raise Changed
            stop = part.rest_of(index)[1]
            for chunk in answer.chunks:
                if stop is not None and part.rest_of(index)[0] + len(chunk) > stop:
                    raise TryAgain("more bytes than there should be")
                part.write(index, chunk)
                advance(len(chunk))
                self._go_on()
        if part.rest_of(index)[0] != stop:
            raise TryAgain("the bytes ended too early")

    def _begin(self, file: WantedFile, part: PartialFile, answer: Answer, stop: int | None) -> None:
        total = file.size if answer.total is None else answer.total
        if total is None:
            raise DownloadError(
                f"{answer.url}: the server does not say how large it is, so nobody can tell when it is whole. Take "
                "another source, such as a mirror on disk, file:///folder; from Python, a size can be given: "
                f'fetch(source, [WantedFile("{file.path}", size=...)], folder) of berg.transfer.fetch.'
            )
        if file.size not in (None, total):
            raise DownloadError(
                f"{answer.url} has {total} bytes on the server, and {_SHOULD_HAVE} {file.size}. It was replaced there, "
                "or the list that it was looked up in is of another date: get that list anew."
            )
        part.at_once = answer.version is None
        if part.at_once and stop is not None and answer.is_range and total > stop:
            raise Changed
        _check_room(self.folder, [WantedFile(file.path, total)])
        part.begin(answer.version, answer.etag, total, answer.is_range)


@contextmanager
def ended_together(remote: Remote, threads: ThreadPoolExecutor) -> Iterator[None]:
    """End all threads, and whatever they wait for, when one fails or Ctrl-C is pressed; parts are noted and closed."""
    try:
        yield
    except BaseException:
        remote.stop()
        threads.shutdown(cancel_futures=True)
        raise


def results(futures: list[Future[Result]]) -> list[Result]:
    """The results, or the error as soon as there is one; of several, that of the first of these."""
    done, _ = wait(futures, return_when=FIRST_EXCEPTION)
    for future in futures:  # others may have failed before the waiting ended
        if future in done:
            future.result()
    return [future.result() for future in futures]


def _given_up(part: PartialFile, n_failures: int, error: Exception) -> DownloadError:
    return DownloadError(
        f"{part.url} cannot be had now: {error}, {n_failures} times in a row. {size_words(part.n_bytes)} of it are "
        "kept: start again to go on from there. Is this machine online, and does the server work?"
    )


def is_other(error: Exception, path: str) -> bool:
    """Whether an error says that a server has another file than expected, under this path."""
    return path in str(error) and (isinstance(error, CorruptedFileError) or _SHOULD_HAVE in str(error))


def _damaged(file: WantedFile, part: PartialFile, aside: Path, sha256: str, same: bool) -> CorruptedFileError:
    if same:
        part.forget()  # it is there already
        asides, reason = str(aside), "twice the same: the server has another file than expected"
    else:
        asides, reason = f"{aside} and {part.set_aside()}", "and each time otherwise: something on the way changes it"
    return CorruptedFileError(
        f"{file.path} came with sha256 {sha256} and not {file.sha256}, {reason}. It is kept as {asides} and not used. "
        "Get the list of files anew, or take another source; tell the maintainers if it stays so."
    )
