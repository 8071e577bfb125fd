"""What of the models lies in a BERG directory: listed, verified, removed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Literal

from berg.core.layout import ModelId, split_model_path
from berg.system.file_hash import hash_file
from berg.system.progress import Advance, progress_bar
from berg.system.threads import n_cores
from berg.transfer.file_heads import file_fault
from berg.weights import manifest
from berg.weights.download import update_manifest
from berg.weights.manifest import Entry

State = Literal["whole", "not recorded", "missing", "wrong size", "wrong hash", "wrong kind"]
DAMAGED: tuple[State, ...] = ("missing", "wrong size", "wrong hash", "wrong kind")


@dataclass(frozen=True)
class Held:
    """A file of a model in a BERG directory, or one that its manifest names and that is not there.

    Parameters
    ----------
    path
        In the model's folder, with slashes.
    size
        Bytes on disk; of a missing file, as recorded.
    state
        ``not recorded``: the manifest does not name it, so nobody can say whether it is whole. ``wrong kind``: it
        begins like something else than its name says, recorded or not, such as an error message of a server.
    """

    model_id: str
    path: str
    size: int
    state: State


def held_files(berg_dir: Path, model_id: str | None = None) -> list[Held]:
    """The files of all models, or of one, compared with their manifests by size alone; sorted."""
    found = []
    for each, folder in _folders(berg_dir, model_id):
        recorded = manifest.recorded_files(folder)
        on_disk = {path: (folder / path).stat().st_size for path in _paths(berg_dir, folder)}
        for path in sorted({*recorded, *on_disk}):
            entry, size = recorded.get(path), on_disk.get(path)
            state = _quick_state(entry, size)
            if state in ("whole", "not recorded") and file_fault(folder / path):
                state = "wrong kind"
            found.append(Held(each, path, _size(entry, size), state))
    return found


def verify_files(berg_dir: Path, model_id: str | None = None, *, progress: bool | None = None) -> list[Held]:
    """As `held_files`, with every recorded file hashed, several at a time."""
    files = held_files(berg_dir, model_id)
    to_hash = [file for file in files if file.state == "whole"]
    n_bytes = sum(file.size for file in to_hash)
    with progress_bar("verify", n_bytes, "bytes", progress) as advance, _all_or_none(advance) as (threads, counted):
        hashed = threads.map(lambda file: _hashed(berg_dir, file, counted), to_hash)
        states = dict(zip(to_hash, hashed, strict=True))
    return [Held(file.model_id, file.path, file.size, states.get(file, file.state)) for file in files]


@contextmanager
def _all_or_none(advance: Advance) -> Iterator[tuple[ThreadPoolExecutor, Advance]]:
    """Threads that all end soon when one fails or Ctrl-C is pressed; they count what they read by the function."""
    stopped = Event()

    def counted(n: int) -> None:
        if stopped.is_set():
            raise CancelledError
        advance(n)

    with ThreadPoolExecutor(n_cores()) as threads:
        try:
            yield threads, counted
        except BaseException:
            stopped.set()
            threads.shutdown(cancel_futures=True)
            raise


def record_files(berg_dir: Path, files: Iterable[Held], *, progress: bool | None = None) -> None:
    """Hash files that no manifest names, and record them as they are."""
    new = [file for file in files if file.state == "not recorded"]
    with progress_bar("record", sum(file.size for file in new), "bytes", progress) as advance:
        for file in new:
            folder = ModelId.parse(file.model_id).folder(berg_dir)
            update_manifest(berg_dir, file.model_id, [manifest.entry_of(folder / file.path, folder, advance)])


def remove_files(berg_dir: Path, files: Sequence[Held]) -> None:
    """Delete files of models, and take them out of their manifests; folders that are empty then, too."""
    for model_id in dict.fromkeys(file.model_id for file in files):
        folder = ModelId.parse(model_id).folder(berg_dir)
        names = [file.path for file in files if file.model_id == model_id]
        for name in names:
            (folder / name).unlink(missing_ok=True)
        update_manifest(berg_dir, model_id, [], removed=names)
        _remove_empty(folder, berg_dir)


def _remove_empty(folder: Path, berg_dir: Path) -> None:
    children = [child for child in folder.iterdir() if child.is_dir()]
    for empty in (*children, folder, *(parent for parent in folder.parents if berg_dir in parent.parents)):
        if not any(empty.iterdir()):
            empty.rmdir()


def _folders(berg_dir: Path, model_id: str | None) -> list[tuple[str, Path]]:
    """The folders of models that are there, with the ids that their names spell."""
    if model_id is not None:
        folders = [ModelId.parse(model_id).folder(berg_dir)]
    else:
        folders = sorted(berg_dir.glob("encoding_models/modality-*/train_dataset-*/model-*"))
    found = (
        (split_model_path((folder / manifest.NAME).relative_to(berg_dir).as_posix()), folder) for folder in folders
    )
    return [(named[0], folder) for named, folder in found if named and folder.is_dir()]


def _paths(berg_dir: Path, folder: Path) -> list[str]:
    """What lies in a model's folder and belongs to the model, its manifest left out."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != manifest.NAME)
    return [
        named[1] for path in files if (named := split_model_path(path.relative_to(berg_dir).as_posix())) is not None
    ]


def _size(entry: Entry | None, size: int | None) -> int:
    return size if size is not None else entry.size if entry else 0


def _quick_state(entry: Entry | None, size: int | None) -> State:
    if entry is None:
        return "not recorded"
    if size is None:
        return "missing"
    return "whole" if size == entry.size else "wrong size"


def _hashed(berg_dir: Path, file: Held, advance: Advance) -> State:
    folder = ModelId.parse(file.model_id).folder(berg_dir)
    same = hash_file(folder / file.path, advance) == manifest.recorded_files(folder)[file.path].sha256
    return "whole" if same else "wrong hash"
