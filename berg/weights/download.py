"""Getting the files of a model: which, how large, from where; then fetched, verified and recorded.

What was recorded in the model's manifest, or is pinned beside its card in the package, is what must come.
The public bucket has no hashes: there, the first download records them, and every later one is held to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path, PurePosixPath

from berg.core.exceptions import DownloadError, InvalidParameterError
from berg.core.layout import ModelId
from berg.core.model_card import ModelCard
from berg.weights import manifest
from berg.weights.directory_lock import directory_lock
from berg.weights.manifest import DATE_FORMAT, Entry
from berg.weights.needed import NetworkFile
from berg.weights.patience import Patience
from berg.weights.remote import Remote, TryAgain
from berg.weights.source import Source, parse_source
from berg.weights.transfer import Fetched, RemoteFile, fetch


@dataclass(frozen=True)
class Item:
    """A file to have on this machine.

    Parameters
    ----------
    path
        Below the source, and likewise below the folder.
    source, folder
        Where it comes from, and goes to.
    size
        Bytes; None where the source has not been asked.
    sha256
        As pinned or recorded, or its first digits; None where nobody knows it.
    is_here
        Whether it is on this machine with the size that it should have.
    model
        The model that it belongs to; None for a network that models share.
    """

    path: str
    source: Source
    folder: Path
    size: int | None
    sha256: str | None
    is_here: bool
    model: str | None

    @property
    def target(self) -> Path:
        """Where it lies, or will."""
        return self.folder / self.path


def plan(
    card: ModelCard,
    names: Iterable[str],
    networks: Iterable[NetworkFile],
    berg_dir: Path,
    source: str,
    network_source: str | None = None,
) -> list[Item]:
    """The files of a model, with what is known of each; asks nobody.

    Parameters
    ----------
    names
        Paths in the model's folder.
    """
    if card.files is None or card.files.store != "berg_dir":
        raise InvalidParameterError(f"{card.model_id} brings its files along; there is nothing to download.")
    known = known_files(card, berg_dir)
    inside = ModelId.parse(card.model_id).folder("").as_posix()
    items = [
        _item(f"{inside}/{name}", parse_source(source), berg_dir, known.get(name), card.model_id)
        for name in dict.fromkeys(names)
    ]
    return items + [_network_item(network, network_source) for network in networks]


def known_files(card: ModelCard, berg_dir: Path) -> dict[str, Entry]:
    """What is pinned in the package beside the card, and what is recorded in the BERG directory, by path."""
    recorded = ModelId.parse(card.model_id).folder(berg_dir) / manifest.NAME
    pinned = card.path.with_suffix(".tsv")
    return {
        path: entry
        for file in (recorded, pinned)
        if file.is_file()
        for path, entry in manifest.read_manifest(file).items()
    }


def _item(path: str, source: Source, folder: Path, known: Entry | None, model: str) -> Item:
    size, sha256 = (known.size, known.sha256) if known else (None, None)
    return Item(path, source, folder, size, sha256, _is_here(folder / path, size), model)


def _network_item(network: NetworkFile, mirror: str | None) -> Item:
    target = Path(network.path)
    base, _, name = network.url.rpartition("/")
    source = parse_source(mirror or base)
    return Item(name, source, target.parent, None, network.sha256, target.is_file(), None)


def _is_here(target: Path, size: int | None) -> bool:
    return target.is_file() and size in (None, target.stat().st_size)


def with_sizes(items: Sequence[Item], parallel: int = 8) -> list[Item]:
    """The same files, their sizes asked for where they are not known.

    Raises
    ------
    DownloadError
    """
    unknown = [item for item in items if item.size is None]
    sizes = {item.target: item.target.stat().st_size for item in unknown if item.is_here}
    for source, asked in groupby((item for item in unknown if not item.is_here), key=lambda item: item.source):
        paths = list(asked)
        with closing(Remote(source, Patience(), parallel)) as remote, ThreadPoolExecutor(parallel) as threads:
            found = threads.map(lambda item: _size(remote, item.path), paths)
            sizes |= {item.target: size for item, size in zip(paths, found, strict=True) if size is not None}
    return [replace(item, size=sizes.get(item.target, item.size)) for item in items]


def _size(remote: Remote, path: str) -> int | None:
    for attempt in range(1, remote.patience.attempts + 1):
        try:
            with remote.open(path, 0, 1, None) as answer:
                return answer.total
        except TryAgain as error:
            reason = error
            remote.wait(remote.patience.pause(attempt, error.seconds))
    raise DownloadError(f"{remote.source.url(path)} cannot be had now: {reason}. Is this machine online?") from reason


def receive(
    items: Sequence[Item], *, parallel: int = 4, progress: bool | None = None, patience: Patience | None = None
) -> list[Fetched]:
    """Fetch the files that are not here, verify all of them, and record those of models in their manifests.

    Returns
    -------
    fetched
        In the order of `items`; files that were here before are among them, hashed.

    Raises
    ------
    DownloadError, CorruptedFileError, StorageError
    """
    fetched: dict[Path, Fetched] = {}
    for (source, folder, model_id), group in groupby(items, key=lambda item: (item.source, item.folder, item.model)):
        wanted = list(group)
        files = [RemoteFile(item.path, item.size, item.sha256) for item in wanted]
        found = fetch(source, files, folder, parallel=parallel, progress=progress, patience=patience)
        fetched |= {item.target: each for item, each in zip(wanted, found, strict=True)}
        if model_id:
            _record(model_id, folder, found)
    return [fetched[item.target] for item in items]


def _record(model_id: str, berg_dir: Path, fetched: Sequence[Fetched]) -> None:
    inside = ModelId.parse(model_id).folder("").as_posix()
    now = datetime.now(UTC).strftime(DATE_FORMAT)
    entries = [
        Entry(
            PurePosixPath(each.path).relative_to(inside).as_posix(),
            each.size,
            each.sha256,
            "" if each.was_here else each.source,
            now,
        )
        for each in fetched
    ]
    update_manifest(berg_dir, model_id, entries)


def update_manifest(berg_dir: Path, model_id: str, entries: Iterable[Entry], removed: Iterable[str] = ()) -> None:
    """Add entries to the manifest of a model, and take out others; one process at a time.

    An entry of the same size and hash as before keeps its source. A manifest without entries is deleted.
    """
    path = ModelId.parse(model_id).folder(berg_dir) / manifest.NAME
    with directory_lock(berg_dir):
        held = manifest.read_manifest(path) if path.is_file() else {}
        for entry in entries:
            before = held.get(entry.path)
            same = before is not None and (before.size, before.sha256) == (entry.size, entry.sha256)
            held[entry.path] = replace(entry, source=entry.source or before.source) if before and same else entry
        for name in removed:
            held.pop(name, None)
        if held:
            manifest.write_manifest(path, held.values())
        else:
            path.unlink(missing_ok=True)
