"""Put the models of a zip file into a BERG directory: all of it, verified, or nothing.

1. Extract into ``.berg-unpack-*.partial`` in the BERG directory, hash, flush to the disk.
2. Rename that folder to ``.berg-unpack-*.verified``: from here on it is decided.
3. Move its content to its place: a new model's folder in one step, else file by file, the manifest last.

A process that dies before 2 leaves a folder that the next run removes; one that dies after 2, a folder
that the next run moves in, in whatever order it was interrupted. A lock keeps two runs apart.
"""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
import shutil
import warnings
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from berg.core.exceptions import CorruptedFileError, StorageError, listing
from berg.core.layout import ACCURACY, METADATA, WEIGHTS, ModelId
from berg.core.stacklevel import users_stacklevel
from berg.system.durable_file import flush, storage_errors
from berg.system.file_hash import hash_file
from berg.system.locks import directory_lock
from berg.system.memory import size_words
from berg.system.progress import Advance, progress_bar
from berg.weights import manifest
from berg.weights.manifest import Entry
from berg.weights.model_archive import Member, ModelArchive

logger = logging.getLogger(__name__)

_PREFIX = ".berg-unpack"
_SPARE_BYTES = 2**20


class UnverifiedFilesWarning(UserWarning):
    """Files came without a manifest, so that nobody can say whether they are those that were packed."""


@dataclass(frozen=True)
class Unpacked:
    """What became of a zip file.

    Attributes
    ----------
    folders
        The folder of each model.
    written
        The files that are new, or new in content.
    same
        The files that were there already, byte for byte.
    left_out
        What in the zip file belongs to no model.
    unverified
        The models that came without a manifest.
    """

    folders: dict[str, Path]
    written: list[Path] = field(default_factory=list)
    same: list[Path] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    unverified: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Plan:
    """Of one model: its folder, its manifest (None: it came without), what to extract, and what is there already."""

    model_id: str
    folder: Path
    entries: dict[str, Entry] | None
    new: list[Member]
    same: list[Member]


def unpack(path: Path, berg_dir: Path, *, overwrite: bool = False, show_progress: bool | None = None) -> Unpacked:
    """Put the models of a zip file into a BERG directory.

    Parameters
    ----------
    path
        Written by `berg.weights.pack.pack`, or by hand after the guide.
    berg_dir
        Made if it is not there.
    overwrite
        Replace files that differ; the old ones stay until the new ones are verified.
    show_progress
        None: a bar if standard error is a terminal.

    Raises
    ------
    MissingFileError
        When there is no such zip file.
    CorruptedFileError
        When it is damaged, hostile, not of models, or not what its manifest says.
    StorageError
        When files would be replaced without `overwrite`, or the disk cannot take them.
    """
    with ModelArchive(path) as archive, _folder(berg_dir), directory_lock(berg_dir):
        finish_or_clean(berg_dir)
        plans = [_plan(archive, model_id, berg_dir) for model_id in sorted({m.model_id for m in archive.members})]
        _check_replaced(plans, overwrite)
        _check_room(plans, berg_dir)
        total = sum(member.size for plan in plans for member in plan.new)
        with progress_bar(f"unpack {path.name}", total, "bytes", show_progress) as advance:
            _stage_and_move(archive, plans, berg_dir, advance)
        report = _report(archive, plans, berg_dir)
    if report.unverified:
        warnings.warn(
            f"{listing(report.unverified)} came without a {manifest.NAME}: that the files are those that were packed "
            "could not be verified.",
            UnverifiedFilesWarning,
            stacklevel=users_stacklevel(),
        )
    return report


def finish_or_clean(berg_dir: Path) -> None:
    """Complete what an interrupted run had verified, and remove what it had not."""
    with storage_errors(berg_dir):
        for staging in sorted(berg_dir.glob(f"{_PREFIX}-*.verified")):
            logger.warning("Completing an interrupted berg unpack: %s", staging)
            _move_in(staging, berg_dir)
        for staging in berg_dir.glob(f"{_PREFIX}-*.partial"):
            shutil.rmtree(staging)


@contextmanager
def _folder(berg_dir: Path) -> Iterator[None]:
    """The BERG directory; if it was not there, it does not stay empty."""
    is_new = not berg_dir.exists()
    with storage_errors(berg_dir):
        berg_dir.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        if is_new:
            with suppress(OSError):
                berg_dir.rmdir()


def _plan(archive: ModelArchive, model_id: str, berg_dir: Path) -> _Plan:
    members = [member for member in archive.members if member.model_id == model_id]
    files = [member for member in members if member.inside != manifest.NAME]
    entries = _manifest_of(archive, members)
    if entries is not None:
        _check_complete(archive, model_id, entries, files)
    new: list[Member] = []
    same: list[Member] = []
    for member in files:
        is_same = _is_same(archive, member, entries, berg_dir / member.path)
        (same if is_same else new).append(member)
    return _Plan(model_id, ModelId.parse(model_id).folder(berg_dir), entries, new, same)


def _manifest_of(archive: ModelArchive, members: Iterable[Member]) -> dict[str, Entry] | None:
    found = next((member for member in members if member.inside == manifest.NAME), None)
    if found is None:
        return None
    where = f"{archive.path}: {found.path}"
    if found.size > manifest.MAX_BYTES:
        raise CorruptedFileError(f"{where} is over {size_words(manifest.MAX_BYTES)}, which no manifest is.")
    return manifest.parse_manifest(b"".join(archive.chunks(found)), where)


def _check_complete(archive: ModelArchive, model_id: str, entries: dict[str, Entry], files: list[Member]) -> None:
    sizes = {member.inside: member.size for member in files}
    for path in sorted(entries.keys() | sizes.keys()):
        expected = entries[path].size if path in entries else None
        if sizes.get(path) != expected:
            raise CorruptedFileError(
                f"{archive.path} is refused, and nothing of it was unpacked: {model_id}/{path} has "
                f"{_bytes(sizes.get(path))} in it, but {_bytes(expected)} in its manifest. Get it again."
            )


def _bytes(size: int | None) -> str:
    return "no place" if size is None else f"{size} bytes"


def _is_same(archive: ModelArchive, member: Member, entries: dict[str, Entry] | None, path: Path) -> bool:
    """Whether a file is there already with the content that it has in the archive."""
    if not path.is_file() or path.stat().st_size != member.size:
        return False
    if entries is not None:
        return hash_file(path) == entries[member.inside].sha256
    digest = hashlib.sha256()
    for chunk in archive.chunks(member):
        digest.update(chunk)
    return hash_file(path) == digest.hexdigest()


def _check_replaced(plans: list[_Plan], overwrite: bool) -> None:
    there = [plan.folder / member.inside for plan in plans for member in plan.new if _exists(plan, member)]
    if no_files := [path for path in there if not path.is_file() and not path.is_symlink()]:
        raise StorageError(f"{no_files[0]} cannot be written: something that is no file has that name. Move it away.")
    if there and not overwrite:
        raise StorageError(
            f"{len(there)} files are there already with another content: {listing(there, 4)}. Nothing was changed. "
            "To replace them, add --overwrite (in Python overwrite=True)."
        )


def _exists(plan: _Plan, member: Member) -> bool:
    return os.path.lexists(plan.folder / member.inside)


def _check_room(plans: list[_Plan], berg_dir: Path) -> None:
    needed = sum(member.size for plan in plans for member in plan.new) + _SPARE_BYTES
    free = shutil.disk_usage(berg_dir).free
    if needed > free:
        raise StorageError(
            f"{berg_dir} has {size_words(free)} left, and {size_words(needed)} are needed. Make room on that "
            "disk, or unpack elsewhere with --berg-dir."
        )
    for place in {(plan.folder / member.inside).parent for plan in plans for member in plan.new}:
        _check_place(place, berg_dir)


def _check_place(folder: Path, berg_dir: Path) -> None:
    """Raise StorageError if a file could not be moved into a folder; after the verification it must not fail."""
    nearest = next(place for place in (folder, *folder.parents) if os.path.lexists(place))
    if not nearest.is_dir() or nearest.stat().st_dev != berg_dir.stat().st_dev:
        raise StorageError(
            f"{nearest} is not a folder on the disk of {berg_dir}, so that files cannot be moved there in one step. "
            "Unpack elsewhere with --berg-dir, and move them."
        )
    if not os.access(nearest, os.W_OK):
        raise StorageError(f"{nearest} may not be written to. Look at its owner and rights with:  ls -ld {nearest}")


def _stage_and_move(archive: ModelArchive, plans: list[_Plan], berg_dir: Path, advance: Advance) -> None:
    staging = berg_dir / f"{_PREFIX}-{secrets.token_hex(8)}.partial"
    with ExitStack() as undo, storage_errors(staging):
        undo.callback(shutil.rmtree, staging, ignore_errors=True)
        staging.mkdir()
        for plan in plans:
            _stage(archive, plan, staging / plan.folder.relative_to(berg_dir), advance)
        for folder, _, _ in os.walk(staging):
            flush(Path(folder))
        verified = staging.rename(staging.with_suffix(".verified"))
        flush(berg_dir)
        _move_in(verified, berg_dir)


def _stage(archive: ModelArchive, plan: _Plan, folder: Path, advance: Advance) -> None:
    """Write what is new of a model into a folder, with the manifest that the model will have."""
    for part in (WEIGHTS, ACCURACY, METADATA):
        (folder / part).mkdir(parents=True)
    came = {} if plan.entries is None else dict(plan.entries)
    for member in plan.new:
        target = folder / member.inside
        target.parent.mkdir(parents=True, exist_ok=True)
        came[member.inside] = _extract(archive, member, target, came.get(member.inside), advance)
    for member in plan.same:
        if member.inside not in came:
            came[member.inside] = Entry(member.inside, member.size, hash_file(plan.folder / member.inside))
    held = manifest.recorded_files(plan.folder)
    known = {entry.path for entry in held.values() if entry.path in came and came[entry.path].sha256 == entry.sha256}
    if came.keys() - known:
        merged = held | {path: entry for path, entry in came.items() if path not in known}
        manifest.write_manifest(folder / manifest.NAME, merged.values())


def _extract(archive: ModelArchive, member: Member, target: Path, entry: Entry | None, advance: Advance) -> Entry:
    digest = hashlib.sha256()
    with target.open("xb") as file:
        for chunk in archive.chunks(member):
            digest.update(chunk)
            file.write(chunk)
            advance(len(chunk))
        file.flush()
        os.fsync(file.fileno())
    if entry is not None and digest.hexdigest() != entry.sha256:
        raise CorruptedFileError(
            f"{archive.path} is refused, and nothing of it was unpacked: '{member.path}' has the sha256 "
            f"{digest.hexdigest()}, but {entry.sha256} in its manifest. Get it again."
        )
    return entry or Entry(member.inside, member.size, digest.hexdigest())


def _move_in(staging: Path, berg_dir: Path) -> None:
    """Move to its place what is still in a verified folder, and remove the folder; may be repeated at any point."""
    for folder in sorted(staging.glob("encoding_models/*/*/*")):
        target = berg_dir / folder.relative_to(staging)
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            folder.rename(target)
        else:
            _move_files(folder, target)
        flush(target.parent)
    shutil.rmtree(staging)


def _move_files(folder: Path, target: Path) -> None:
    files = [path for path in folder.rglob("*") if path.is_file()]
    for path in sorted(files, key=lambda path: (path.name == manifest.NAME, path)):
        place = target / path.relative_to(folder)
        place.parent.mkdir(parents=True, exist_ok=True)
        path.replace(place)
        flush(place.parent)


def _report(archive: ModelArchive, plans: list[_Plan], berg_dir: Path) -> Unpacked:
    return Unpacked(
        {plan.model_id: plan.folder for plan in plans},
        [berg_dir / member.path for plan in plans for member in plan.new],
        [berg_dir / member.path for plan in plans for member in plan.same],
        archive.left_out,
        [plan.model_id for plan in plans if plan.entries is None],
    )
